//! Pure: which role this hub plays and the one thing it must do next.
//!
//! The role is read from the journal every time; nothing is remembered that could contradict it. So
//! first start, restart, promotion and the return of an old primary are one path.

use crate::config::settings::InitialRole;
use crate::repository::chain::Handed;
use crate::status::{Check, Frozen, Guards, Role};

#[derive(Clone, Debug)]
pub struct Facts {
    /// `None`: the journal could not be read since this process started.
    pub journal: Option<JournalFacts>,
    /// The last answer of the storage was one.
    pub storage_up: bool,
    pub initial_role: InitialRole,
    pub fence: Fence,
    /// The highest term under which an operator had this hub rejoin; 0: none.
    pub rejoined: u64,
    /// A request to promote this hub that was accepted and not yet carried out.
    pub request: Option<Request>,
    /// This process has looked at everything that the checklist speaks of. Before, a failed check
    /// only says that nothing is known yet.
    pub looked: bool,
    /// The preconditions of a promotion, as they are now.
    pub checklist: Vec<Check>,
}

#[derive(Clone, Debug, Default)]
pub struct JournalFacts {
    pub frozen: Option<Frozen>,
    /// What froze it is junk, which a term can pass by when an operator wants it to.
    pub passable: bool,
    /// The highest term; 0: none yet.
    pub epoch: u64,
    pub holder: Holder,
    /// The holder gave the term up.
    pub handed: Option<Handed>,
    /// This hub held an earlier term.
    pub ended: Option<Ended>,
    pub incarnation: Incarnation,
    pub activated: bool,
    /// The epoch that the own request became, if it did.
    pub granted: Option<u64>,
    /// Slot of the newest backup that a standby may use.
    pub usable: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Holder {
    #[default]
    Nobody,
    Me,
    /// The holder's name is this hub's, its cluster is not: one of the two was rebuilt.
    MyNamesake,
    Other(String),
}

/// How the last term of this hub ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    HandedOver,
    /// By the term of this epoch.
    Superseded(u64),
}

/// The `Open` of the current term, seen from this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Incarnation {
    /// This process has not opened the term.
    #[default]
    NotOpened,
    Mine,
    /// Another process of this hub opened the term after this one.
    Newer,
}

/// Whether the storage itself refuses a superseded writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fence {
    NotProbed,
    Proven,
    /// Refuted, but the configuration wants to go on all the same.
    Unfenced,
    Refuted(String),
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub id: String,
    /// The epoch that was in force when it was asked for: an old request applied again finds another.
    pub expected_epoch: u64,
    pub trigger: Trigger,
    /// Promote although the primary is not silent; with the operator's reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced: Option<String>,
    #[serde(default)]
    pub guards: Guards,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    Signal,
    Annotation,
    Cli,
}

impl Trigger {
    pub const ALL: [Trigger; 3] = [Trigger::Signal, Trigger::Annotation, Trigger::Cli];

    pub fn name(self) -> &'static str {
        match self {
            Trigger::Signal => "signal",
            Trigger::Annotation => "annotation",
            Trigger::Cli => "cli",
        }
    }

    /// In a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Trigger::Signal => "signal",
            Trigger::Annotation => "annotation",
            Trigger::Cli => "command line",
        }
    }

    /// A name that an older or newer daemon wrote may be none of ours; a signal asks for the least.
    pub fn from_name(name: &str) -> Trigger {
        Self::ALL.into_iter().find(|trigger| trigger.name() == name).unwrap_or(Trigger::Signal)
    }
}

/// Where this hub stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The journal has not told the role yet.
    Unknown,
    Passive,
    /// A promotion was requested and waits for the storage.
    Requested,
    /// The term is ours; activation is not finished.
    Activating,
    Primary,
    /// The term is ours, and given up: nobody writes until some hub takes the next one.
    HandedOver,
    Fenced,
    Frozen,
}

impl State {
    /// `None`: not known, what was known stays.
    pub fn role(self) -> Option<Role> {
        match self {
            State::Unknown | State::Frozen => None,
            State::Passive | State::Requested | State::HandedOver => Some(Role::Passive),
            State::Activating => Some(Role::Promoting),
            State::Primary => Some(Role::Primary),
            State::Fenced => Some(Role::Fenced),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Wait,
    /// Prove that the storage is atomic before relying on it.
    Probe,
    /// Write the `Term` of this epoch, for this request.
    TakeTerm {
        epoch: u64,
        request: String,
    },
    /// Write `Open`: from now on this process writes.
    Open,
    /// Catch up, restore the activation set, write `Activated`.
    Activate,
    /// Take backups when the schedule says so.
    Backup,
    /// Follow the primary.
    Sync,
    /// Answer the request with no.
    Refuse(Frozen),
    /// Write nothing.
    Withdraw,
    /// End the process: a newer one of this hub has taken over.
    Exit,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub state: State,
    pub action: Action,
    pub why: String,
}

fn decision(state: State, action: Action, why: impl Into<String>) -> Decision {
    Decision { state, action, why: why.into() }
}

/// Looks at the facts and nothing else.
pub fn decide(facts: &Facts) -> Decision {
    let Some(journal) = &facts.journal else {
        let state = if facts.request.is_some() { State::Requested } else { State::Unknown };
        return decision(state, Action::Wait, "the journal could not be read yet");
    };
    let forced = facts.request.as_ref().is_some_and(|request| request.forced.is_some());
    if let Some(frozen) = &journal.frozen
        && !(forced && journal.passable && matches!(journal.holder, Holder::Other(_)))
    {
        let action = match &facts.request {
            Some(_) => Action::Refuse(frozen.clone()),
            None => Action::Wait,
        };
        return decision(State::Frozen, action, &*frozen.message);
    }
    match &journal.holder {
        Holder::Me => decide_as_holder(facts, journal),
        Holder::MyNamesake => decision(
            State::Frozen,
            Action::Wait,
            "the holder of the term has this hub's name but is another cluster",
        ),
        Holder::Nobody => decide_without_holder(facts),
        Holder::Other(holder) => decide_under(holder, facts, journal),
    }
}

fn decide_as_holder(facts: &Facts, journal: &JournalFacts) -> Decision {
    let state = if journal.activated { State::Primary } else { State::Activating };
    if journal.incarnation == Incarnation::Newer {
        return decision(state, Action::Exit, "a newer daemon of this hub has opened the term");
    }
    if let Some(handed) = &journal.handed {
        return decide_handed_over(handed, facts, journal);
    }
    match &facts.fence {
        Fence::NotProbed => {
            return decision(state, Action::Probe, "the storage's create is not proven atomic yet");
        }
        Fence::Refuted(why) => {
            return decision(state, Action::Wait, format!("the storage cannot fence: {why}"));
        }
        Fence::Proven | Fence::Unfenced => {}
    }
    if facts.request.is_some() && journal.granted.is_none() {
        let why = "this hub holds the term already";
        return decision(state, Action::Refuse(refusal("NotPassive", why, "nothing to do")), why);
    }
    match (journal.incarnation, journal.activated) {
        (Incarnation::NotOpened, _) => decision(state, Action::Open, "this hub holds the term"),
        (_, false) => decision(state, Action::Activate, "activation is not finished"),
        (_, true) => decision(state, Action::Backup, "this hub is primary"),
    }
}

/// The way back is a promotion like any other, but for what it starts from: the hub itself.
fn decide_handed_over(handed: &Handed, facts: &Facts, journal: &JournalFacts) -> Decision {
    let Some(request) = &facts.request else {
        let to = if handed.to.is_empty() { "another hub" } else { &*handed.to };
        let why = format!("the term {} is handed over to {to}", journal.epoch);
        return decision(State::HandedOver, Action::Withdraw, why);
    };
    decide_request(request, State::HandedOver, "this hub", facts, journal)
}

fn decide_without_holder(facts: &Facts) -> Decision {
    match (facts.initial_role, &facts.fence, &facts.request) {
        (_, _, Some(_)) => {
            let why = "the repository has no backup to promote from";
            let hint = "start the primary first, or set hub.initialRole: primary on this hub";
            decision(State::Passive, Action::Refuse(refusal("NoBackup", why, hint)), why)
        }
        (InitialRole::Passive, _, None) => {
            decision(State::Passive, Action::Wait, "no hub has been primary yet")
        }
        (InitialRole::Primary, Fence::NotProbed, None) => {
            decision(State::Unknown, Action::Probe, "the storage's create is not proven atomic yet")
        }
        (InitialRole::Primary, Fence::Refuted(why), None) => decision(
            State::Unknown,
            Action::Wait,
            format!("refusing to be primary: the storage cannot fence: {why}"),
        ),
        (InitialRole::Primary, Fence::Proven | Fence::Unfenced, None) => decision(
            State::Unknown,
            Action::TakeTerm { epoch: 1, request: "initial".to_owned() },
            "the repository has had no primary and this hub is the initial one",
        ),
    }
}

fn decide_under(holder: &str, facts: &Facts, journal: &JournalFacts) -> Decision {
    let why = |why| format!("{holder} holds the term {}{why}", journal.epoch);
    let fenced = match journal.ended {
        Some(Ended::Superseded(by)) if facts.rejoined < by => {
            Some(why("; this hub held an earlier one"))
        }
        None if facts.initial_role == InitialRole::Primary && facts.rejoined == 0 => {
            Some(why(", but this hub is configured as the initial primary"))
        }
        Some(Ended::Superseded(_) | Ended::HandedOver) | None => None,
    };
    let Some(request) = &facts.request else {
        return match fenced {
            Some(why) => decision(State::Fenced, Action::Withdraw, why),
            None => decision(State::Passive, Action::Sync, format!("following {holder}")),
        };
    };
    if let Some(why) = fenced {
        let refusal = refusal("Fenced", &why, "understudy rejoin --dry-run");
        return decision(State::Fenced, Action::Refuse(refusal), why);
    }
    decide_request(request, State::Passive, holder, facts, journal)
}

/// `state`: of this hub while it is not promoted.
fn decide_request(
    request: &Request,
    state: State,
    holder: &str,
    facts: &Facts,
    journal: &JournalFacts,
) -> Decision {
    let refuse = |reason, why: String, hint: &str| {
        decision(state, Action::Refuse(refusal(reason, &why, hint)), why)
    };
    if let Some(granted) = journal.granted {
        let why = format!("the request became the term {granted}, which {holder} has ended");
        return refuse("PromotionRequestStale", why, "ask again if this hub shall be promoted now");
    }
    if request.expected_epoch != journal.epoch {
        let why = format!(
            "it was asked for in term {}, now {holder} holds the term {}",
            request.expected_epoch, journal.epoch
        );
        return refuse("PromotionRequestStale", why, "ask again if this hub shall be promoted now");
    }
    if !facts.storage_up {
        return decision(
            State::Requested,
            Action::Wait,
            "the storage cannot be reached; the promotion goes on when it answers",
        );
    }
    if !facts.looked {
        let why = "looking at the newest backup and at the primary's heartbeat first";
        return decision(State::Requested, Action::Sync, why);
    }
    match &facts.fence {
        Fence::NotProbed => {
            return decision(
                State::Requested,
                Action::Probe,
                "the storage's create is not proven atomic yet",
            );
        }
        Fence::Refuted(why) => {
            let hint = "use a storage with an atomic conditional create, or set storage.allowUnfenced: true after the primary's machines are off";
            return refuse("StorageNotAtomic", format!("the storage cannot fence: {why}"), hint);
        }
        Fence::Proven | Fence::Unfenced => {}
    }
    match facts.checklist.iter().find(|check| check.refuses()) {
        Some(check) => {
            refuse(&check.reason, check.why.clone(), check.hint.as_deref().unwrap_or_default())
        }
        None => decision(
            State::Requested,
            Action::TakeTerm { epoch: journal.epoch + 1, request: request.id.clone() },
            "promotion was requested and nothing speaks against it",
        ),
    }
}

fn refusal(reason: &str, message: &str, hint: &str) -> Frozen {
    Frozen { reason: reason.to_owned(), message: message.to_owned(), hint: hint.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::REHEARSED;

    fn request(expected_epoch: u64) -> Request {
        Request {
            id: "r".to_owned(),
            expected_epoch,
            trigger: Trigger::Signal,
            forced: None,
            guards: Guards::default(),
        }
    }

    fn other() -> Holder {
        Holder::Other("eu-1".to_owned())
    }

    /// A passive hub that could be promoted, in term 3 of another.
    fn facts(change: impl FnOnce(&mut Facts)) -> Facts {
        let mut facts = Facts {
            journal: Some(JournalFacts {
                epoch: 3,
                holder: other(),
                activated: true,
                ..JournalFacts::default()
            }),
            storage_up: true,
            initial_role: InitialRole::Passive,
            fence: Fence::Proven,
            rejoined: 0,
            request: None,
            looked: true,
            checklist: vec![],
        };
        change(&mut facts);
        facts
    }

    fn journal(facts: &mut Facts) -> &mut JournalFacts {
        facts.journal.get_or_insert_default()
    }

    fn failed(name: &str) -> Check {
        Check {
            name: "x".to_owned(),
            reason: name.to_owned(),
            ok: false,
            why: "because".to_owned(),
            hint: None,
        }
    }

    fn check(name: &str, state: State, action: &Action, change: impl FnOnce(&mut Facts)) {
        let decided = decide(&facts(change));
        assert_eq!((decided.state, &decided.action), (state, action), "{name}: {}", decided.why);
        assert!(!decided.why.is_empty(), "{name}");
    }

    #[test]
    fn a_passive_hub_follows_waits_or_is_promoted() {
        use State::{Passive, Requested, Unknown};
        let term = |epoch| Action::TakeTerm { epoch, request: "r".to_owned() };
        check("it follows the primary", Passive, &Action::Sync, |_| {});
        check("the journal cannot be read", Unknown, &Action::Wait, |f| f.journal = None);
        check("nobody has been primary", Passive, &Action::Wait, |f| {
            *journal(f) = JournalFacts::default();
        });
        check("it is promoted", Requested, &term(4), |f| f.request = Some(request(3)));
        check("it is promoted although a warning stands", Requested, &term(4), |f| {
            f.request = Some(request(3));
            f.checklist = vec![Check { name: REHEARSED.to_owned(), ..failed("RehearsalFailed") }];
        });
        check("the storage went away", Requested, &Action::Wait, |f| {
            f.request = Some(request(3));
            f.storage_up = false;
        });
        check("the storage was away from the start", Requested, &Action::Wait, |f| {
            f.request = Some(request(3));
            f.journal = None;
        });
        check("a restart came between request and term", Requested, &Action::Sync, |f| {
            f.request = Some(request(3));
            f.looked = false;
            f.checklist = vec![failed("NoBackup")];
        });
        check("the fence is not probed", Requested, &Action::Probe, |f| {
            f.request = Some(request(3));
            f.fence = Fence::NotProbed;
        });
    }

    #[test]
    fn each_refusal_says_why() {
        let refused = |name: &str, reason: &str, change: &dyn Fn(&mut Facts)| {
            let decided = decide(&facts(|f| {
                f.request = Some(request(3));
                change(f);
            }));
            let Action::Refuse(refusal) = decided.action else {
                panic!("{name}: {:?}", decided.action)
            };
            assert_eq!(refusal.reason, reason, "{name}");
        };
        refused("a failed precondition", "PrimaryAlive", &|f| {
            f.checklist = vec![failed("PrimaryAlive")];
        });
        refused("an old request", "PromotionRequestStale", &|f| f.request = Some(request(2)));
        refused("a request from the future", "PromotionRequestStale", &|f| {
            f.request = Some(request(4));
        });
        refused("a granted and superseded request", "PromotionRequestStale", &|f| {
            journal(f).granted = Some(2);
        });
        refused("a storage that cannot fence", "StorageNotAtomic", &|f| {
            f.fence = Fence::Refuted("x".to_owned());
        });
        refused("a fenced hub", "Fenced", &|f| journal(f).ended = Some(Ended::Superseded(2)));
        refused("the primary itself", "NotPassive", &|f| journal(f).holder = Holder::Me);
        refused("an empty repository", "NoBackup", &|f| *journal(f) = JournalFacts::default());
    }

    #[test]
    fn an_operator_takes_a_standby_past_junk_and_past_nothing_else() {
        let frozen = |passable, forced: bool, holder| {
            decide(&facts(|f| {
                let forced = forced.then(|| "why".to_owned());
                f.request = Some(Request { forced, ..request(3) });
                let frozen = refusal("JunkRecord", "slot 9", "look");
                *journal(f) = JournalFacts {
                    frozen: Some(frozen),
                    passable,
                    epoch: 3,
                    holder,
                    ..JournalFacts::default()
                };
            }))
            .action
        };
        let term = Action::TakeTerm { epoch: 4, request: "r".to_owned() };
        let refused = Action::Refuse(refusal("JunkRecord", "slot 9", "look"));
        assert_eq!(frozen(true, true, other()), term);
        assert_eq!(frozen(true, false, other()), refused);
        assert_eq!(frozen(false, true, other()), refused);
        assert_eq!(frozen(true, true, Holder::Me), refused);
        assert_eq!(frozen(true, true, Holder::Nobody), refused);
    }

    #[test]
    fn the_holder_of_the_term_goes_on_where_the_journal_says() {
        use State::{Activating, Primary};
        let holder = |change: &'static dyn Fn(&mut JournalFacts)| {
            move |f: &mut Facts| {
                *journal(f) = JournalFacts {
                    epoch: 3,
                    holder: Holder::Me,
                    activated: true,
                    incarnation: Incarnation::Mine,
                    ..JournalFacts::default()
                };
                change(journal(f));
            }
        };
        check("it takes backups", Primary, &Action::Backup, holder(&|_| {}));
        check(
            "after a restart",
            Primary,
            &Action::Open,
            holder(&|j| j.incarnation = Incarnation::NotOpened),
        );
        check(
            "after a restart in mid-activation",
            Activating,
            &Action::Open,
            holder(&|j| {
                j.incarnation = Incarnation::NotOpened;
                j.activated = false;
            }),
        );
        check("in mid-activation", Activating, &Action::Activate, holder(&|j| j.activated = false));
        check(
            "a newer daemon of the same hub",
            Primary,
            &Action::Exit,
            holder(&|j| j.incarnation = Incarnation::Newer),
        );
        check("its own granted request is no reason to refuse", Primary, &Action::Backup, |f| {
            holder(&|j| j.granted = Some(3))(f);
            f.request = Some(request(2));
        });
    }

    fn handed() -> Handed {
        Handed { to: "eu-2".to_owned(), at: jiff::Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn a_hub_that_handed_over_writes_nothing_and_may_take_the_term_back() {
        use State::{HandedOver, Primary, Requested};
        let gave = |change: &'static dyn Fn(&mut Facts)| {
            move |f: &mut Facts| {
                f.initial_role = InitialRole::Primary;
                let j = journal(f);
                (j.holder, j.handed, j.incarnation) =
                    (Holder::Me, Some(handed()), Incarnation::Mine);
                change(f);
            }
        };
        let term = Action::TakeTerm { epoch: 4, request: "r".to_owned() };
        check("it waits", HandedOver, &Action::Withdraw, gave(&|_| {}));
        check(
            "after a restart",
            HandedOver,
            &Action::Withdraw,
            gave(&|f| {
                journal(f).incarnation = Incarnation::NotOpened;
            }),
        );
        check(
            "another daemon of it is newer",
            Primary,
            &Action::Exit,
            gave(&|f| {
                journal(f).incarnation = Incarnation::Newer;
            }),
        );
        check("it takes the term back", Requested, &term, gave(&|f| f.request = Some(request(3))));
        check(
            "not without the storage",
            Requested,
            &Action::Wait,
            gave(&|f| {
                f.request = Some(request(3));
                f.storage_up = false;
            }),
        );
        check(
            "not without a fence",
            Requested,
            &Action::Probe,
            gave(&|f| {
                f.request = Some(request(3));
                f.fence = Fence::NotProbed;
            }),
        );
        for (name, request_of, granted) in
            [("an older one", request(2), None), ("the one that it had", request(3), Some(3))]
        {
            let stale = decide(&facts(|f| {
                gave(&|_| {})(f);
                f.request = Some(request_of);
                journal(f).granted = granted;
            }));
            let Action::Refuse(refusal) = stale.action else { panic!("{name}: {stale:?}") };
            assert_eq!((stale.state, &*refusal.reason), (HandedOver, "PromotionRequestStale"));
        }
    }

    #[test]
    fn a_hub_whose_term_was_given_up_or_that_rejoined_is_not_fenced() {
        use State::{Fenced, Passive, Requested};
        let was = |ended, rejoined, initial_role| {
            move |f: &mut Facts| {
                journal(f).ended = ended;
                (f.rejoined, f.initial_role) = (rejoined, initial_role);
            }
        };
        let (sync, withdraw) = (Action::Sync, Action::Withdraw);
        let (superseded, gave) = (Some(Ended::Superseded(3)), Some(Ended::HandedOver));
        for role in [InitialRole::Primary, InitialRole::Passive] {
            check("it gave its term up", Passive, &sync, was(gave, 0, role));
            check("it was superseded", Fenced, &withdraw, was(superseded, 0, role));
            check("it rejoined before that", Fenced, &withdraw, was(superseded, 2, role));
            check("it rejoined since", Passive, &sync, was(superseded, 3, role));
            check("in a later term", Passive, &sync, was(superseded, 7, role));
        }
        check("a second initial primary", Fenced, &withdraw, was(None, 0, InitialRole::Primary));
        check("it rejoined, too", Passive, &sync, was(None, 3, InitialRole::Primary));
        let term = Action::TakeTerm { epoch: 4, request: "r".to_owned() };
        check("and is promoted like any other", Requested, &term, |f| {
            was(superseded, 3, InitialRole::Primary)(f);
            f.request = Some(request(3));
        });
    }

    #[test]
    fn the_initial_primary_takes_the_first_term_and_no_other() {
        let initial = |change: &'static dyn Fn(&mut Facts)| {
            move |f: &mut Facts| {
                f.initial_role = InitialRole::Primary;
                *journal(f) = JournalFacts::default();
                change(f);
            }
        };
        let first = Action::TakeTerm { epoch: 1, request: "initial".to_owned() };
        check("an empty repository", State::Unknown, &first, initial(&|_| {}));
        check(
            "not probed",
            State::Unknown,
            &Action::Probe,
            initial(&|f| f.fence = Fence::NotProbed),
        );
        check(
            "not atomic",
            State::Unknown,
            &Action::Wait,
            initial(&|f| f.fence = Fence::Refuted("x".to_owned())),
        );
        check(
            "not atomic, allowed",
            State::Unknown,
            &first,
            initial(&|f| f.fence = Fence::Unfenced),
        );
        check(
            "another hub was first",
            State::Fenced,
            &Action::Withdraw,
            initial(&|f| {
                *journal(f) = JournalFacts { epoch: 1, holder: other(), ..JournalFacts::default() };
            }),
        );
        check(
            "its namesake was first",
            State::Frozen,
            &Action::Wait,
            initial(&|f| {
                *journal(f) = JournalFacts {
                    epoch: 1,
                    holder: Holder::MyNamesake,
                    ..JournalFacts::default()
                };
            }),
        );
    }

    /// Every combination of facts, for the promises that must hold in all of them.
    #[test]
    fn no_combination_of_facts_lets_a_hub_write_that_must_not() {
        let mut combinations = 0;
        for holder in [Holder::Nobody, Holder::Me, Holder::MyNamesake, other()] {
            for bits in 0..1u32 << 9 {
                let bit = |n: u32| bits & (1 << n) != 0;
                let fence = [
                    Fence::NotProbed,
                    Fence::Proven,
                    Fence::Unfenced,
                    Fence::Refuted("x".to_owned()),
                ][usize::from(bit(0)) + 2 * usize::from(bit(1))]
                .clone();
                let incarnation = if bit(2) {
                    Incarnation::Mine
                } else if bit(3) {
                    Incarnation::Newer
                } else {
                    Incarnation::NotOpened
                };
                let facts = facts(|f| {
                    f.fence = fence.clone();
                    f.initial_role =
                        if bit(4) { InitialRole::Primary } else { InitialRole::Passive };
                    f.request = bit(5).then(|| request(3));
                    f.checklist = if bit(6) { vec![failed("x")] } else { vec![] };
                    let epoch = if holder == Holder::Nobody { 0 } else { 3 };
                    *journal(f) = JournalFacts {
                        epoch,
                        holder: holder.clone(),
                        ended: bit(7).then_some(Ended::Superseded(2)),
                        handed: bit(8).then(handed),
                        incarnation,
                        activated: true,
                        ..JournalFacts::default()
                    };
                });
                let decided = decide(&facts);
                let writes_as_primary =
                    matches!(decided.action, Action::Open | Action::Activate | Action::Backup);
                assert!(!writes_as_primary || holder == Holder::Me, "{facts:?}");
                let takes = matches!(decided.action, Action::TakeTerm { .. });
                let fence_holds = matches!(fence, Fence::Proven | Fence::Unfenced);
                assert!(!(takes || writes_as_primary) || fence_holds, "{facts:?}");
                assert!(
                    !takes || !bit(7) || matches!(holder, Holder::Nobody | Holder::Me),
                    "a superseded hub takes no term: {facts:?}"
                );
                assert!(!takes || holder == Holder::Nobody || (bit(5) && !bit(6)), "{facts:?}");
                let gave_up = holder == Holder::Me && bit(8);
                assert!(!writes_as_primary || !gave_up, "it handed over: {facts:?}");
                assert!(!takes || holder != Holder::Me || gave_up, "{facts:?}");
                assert!(
                    decided.state != State::Fenced
                        || matches!(decided.action, Action::Withdraw | Action::Refuse(_)),
                    "{facts:?}"
                );
                combinations += 1;
            }
        }
        assert_eq!(combinations, 2048);
    }
}
