//! The daemon is killed at every side effect of a promotion, a switch-over and a rejoin: before the request
//! reaches the storage or the API server, and after it was applied and before the answer is heard (which, for
//! the next one, is the kill after the answer). It is started again and comes to rest: one term, all of its
//! base activated, nothing written over what users do then, and nothing lost that was acknowledged.
//!
//! Two hubs change their roles again and again, so that each round starts from what the one before left.

use crate::actors::{first_seed, rounds};
use crate::harness::faultd::fault::{Fault, Rule, When, draw, is_change, is_effect};
use crate::harness::faultd::history::Exchange;
use crate::harness::{Result, eventually, status};
use crate::two_hubs::{Hubs, PATIENCE, Side};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use understudy::kube_status::ask::Verb;
use understudy::object::{ObjectKey, Set};

/// Points of each phase that a sample tries.
const SAMPLE: u64 = 3;
const PAIRS: u64 = 2;
const KEPT: usize = 20;
const CLUSTER: &str = "/apis/cluster.open-cluster-management.io/v1/managedclusters/cluster-0000";
const WORKS: &str =
    "/apis/work.open-cluster-management.io/v1/namespaces/cluster-0000/manifestworks";
const MAPS: &str = "/api/v1/namespaces/cluster-0000/configmaps";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Storage,
    Api,
}

/// At the n-th change there since the phase began or the daemon started; whether it is applied.
#[derive(Clone, Copy, Debug)]
struct Kill {
    place: Place,
    nth: u64,
    applied: bool,
}

/// What an operator asks of one hub, and when that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// By an order, which has to survive whatever happens.
    Promote {
        epoch: u64,
    },
    Demote,
    /// By a signal, which may be lost until it is durable, and is then sent again.
    TakeOver {
        epoch: u64,
    },
    Rejoin,
}

/// One round: the primary is lost and comes back, or hands over.
#[derive(Clone, Debug, Default)]
struct Round {
    planned: bool,
    /// In the hand-over, the promotion and the rejoin.
    kills: [Vec<Kill>; 3],
}

struct Bench {
    hubs: Hubs,
    from: usize,
    epoch: u64,
    day: u64,
    offered: BTreeSet<String>,
    /// The kills that were reached, and those that the phase went by.
    met: [u64; 2],
    /// Side effects of the last round's phases, in the storage and on the API server.
    effects: [[u64; 2]; 3],
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_and_a_rejoin_may_be_killed_anywhere() -> Result<()> {
    every_point("promotion", false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_over_may_be_killed_anywhere() -> Result<()> {
    every_point("switch-over", true).await
}

/// The first rounds are not disturbed: what both hubs held once is there, and how many points there are is
/// known.
async fn every_point(name: &str, planned: bool) -> Result<()> {
    let mut bench = Bench::new(name).await?;
    for _ in 0..2 {
        bench.round(&Round { planned, ..Round::default() }).await?;
    }
    let all = rounds(0)? > 0;
    let points = bench.effects.map(|effects| points(effects, all));
    let rounds = points.iter().map(Vec::len).max().unwrap_or_default();
    for number in 0..rounds {
        let kills =
            points.each_ref().map(|points| points.get(number).copied().into_iter().collect());
        bench.round(&Round { planned, kills }).await?;
    }
    let effects = bench.effects;
    let [met, passed] = bench.met;
    println!("kills in a {name}: {rounds} rounds, {met} kills, {passed} not reached; {effects:?}");
    assert!(met >= passed, "most points were reached: {met} of {}", met + passed);
    Ok(())
}

/// Killed, started, and killed again, at random: in promotions of both kinds, and in what comes before or
/// after them.
#[tokio::test(flavor = "multi_thread")]
async fn two_kills_on_the_way_to_a_new_primary() -> Result<()> {
    let (mut bench, rounds) = (Bench::new("pairs").await?, rounds(PAIRS)?);
    let first = first_seed(0)?;
    bench.round(&Round { planned: true, ..Round::default() }).await?;
    bench.round(&Round::default()).await?;
    for seed in first..first + rounds {
        let mut step = 0;
        let mut random = |below: u64| {
            step += 1;
            draw(seed, step) % below
        };
        let planned = random(2) == 0;
        let effects = bench.effects;
        let mut kill = |effects: [u64; 2]| {
            let [storage, api] = effects.map(|n| n.max(1));
            let nth = random(storage + api);
            let applied = random(2) == 0;
            if nth < storage {
                Kill { place: Place::Storage, nth: nth + 1, applied }
            } else {
                Kill { place: Place::Api, nth: nth - storage + 1, applied }
            }
        };
        let promotion = vec![kill(effects[1]), kill(effects[1])];
        let kills = if planned {
            [vec![kill(effects[0])], promotion, vec![]]
        } else {
            [vec![], promotion, vec![kill(effects[2]), kill(effects[2])]]
        };
        let round = bench.round(&Round { planned, kills }).await;
        round.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    let [met, passed] = bench.met;
    println!(
        "pairs of kills from seed {first}: {rounds} rounds, {met} kills, {passed} not reached"
    );
    Ok(())
}

fn points([storage, api]: [u64; 2], all: bool) -> Vec<Kill> {
    let in_storage = (1..=storage).map(|nth| (Place::Storage, nth));
    let in_api = (1..=api).map(|nth| (Place::Api, nth));
    let both = in_storage
        .chain(in_api)
        .flat_map(|(place, nth)| [false, true].map(|applied| Kill { place, nth, applied }));
    let count = 2 * (storage + api);
    // An odd step meets both sorts.
    let step = if all { 1 } else { (count / SAMPLE).max(1) | 1 };
    both.step_by(usize::try_from(step).unwrap_or(1)).collect()
}

impl Bench {
    async fn new(name: &str) -> Result<Self> {
        let hubs = Hubs::running(name).await?;
        let (offered, met, effects) = (BTreeSet::new(), [0; 2], [[0; 2]; 3]);
        let mut bench = Self { hubs, from: 0, epoch: 1, day: 0, offered, met, effects };
        bench.users_work(0).await?;
        Ok(bench)
    }

    async fn round(&mut self, round: &Round) -> Result<()> {
        let said = format!("{round:?}, term {}", self.epoch + 1);
        self.play(round).await.map_err(|error| format!("{said}: {error}").into())
    }

    async fn play(&mut self, round: &Round) -> Result<()> {
        let (from, to, epoch) = (self.from, 1 - self.from, self.epoch + 1);
        self.hubs.follows(to).await?;
        self.note_offered()?;
        let [in_hand_over, in_promotion, in_rejoin] = &round.kills;
        if round.planned {
            self.effects[0] = self.through(from, Phase::Demote, in_hand_over).await?;
            let handed = |seen: &Value| {
                let holds = status::restored(seen)? == status::newest(seen)?;
                (holds && seen["handover"]["handed"].is_object()).then_some(())
            };
            self.hubs.until(to, "the hand-over", handed).await?;
            self.effects[1] = self.through(to, Phase::TakeOver { epoch }, in_promotion).await?;
        } else {
            self.hubs.kill(from);
            self.effects[1] = self.through(to, Phase::Promote { epoch }, in_promotion).await?;
        }
        (self.from, self.epoch) = (to, epoch);
        self.is_promoted(from, to).await?;
        self.users_work(to).await?;
        if !round.planned {
            self.hubs.start(from).await?;
            self.effects[2] = self.through(from, Phase::Rejoin, in_rejoin).await?;
        }
        self.release(from).await?;
        self.hubs.follows(from).await?;
        let passive = [Set::Credentials, Set::Resources];
        let differences = self.hubs.differences(to, from, &passive).await?;
        assert_eq!(differences, Vec::<String>::new(), "the hub that follows");
        self.is_as_users_left_it(to).await?;
        self.nothing_is_lost()?;
        self.hubs.judge().await
    }

    /// Asks, kills and starts again, until it is done. The side effects there were: in the storage and on
    /// the API server.
    async fn through(&mut self, side: usize, phase: Phase, kills: &[Kill]) -> Result<[u64; 2]> {
        let begin = self.hubs.sides[0].storage.moment();
        let mut asked = false;
        for kill in kills {
            let armed = self.hubs.sides[side].storage.moment();
            arm(&self.hubs.sides[side], *kill);
            if self.hubs.sides[side].daemon.is_none() {
                asked &= matches!(phase, Phase::Promote { .. });
                self.hubs.start(side).await?;
            }
            let met = self.run(side, phase, &mut asked, Some(armed)).await?;
            if met {
                self.hubs.kill(side);
            }
            let Side { storage, api, .. } = &self.hubs.sides[side];
            for faultd in [storage, api] {
                faultd.heal("");
                faultd.rest().await?;
            }
            self.met[usize::from(!met)] += 1;
        }
        if self.hubs.sides[side].daemon.is_none() {
            asked &= matches!(phase, Phase::Promote { .. });
            self.hubs.start(side).await?;
        }
        self.run(side, phase, &mut asked, None).await?;
        let Side { storage, api, .. } = &self.hubs.sides[side];
        let changes = storage.count_since(begin, |one| is_change(&one.method, &one.key));
        Ok([changes as u64, api.count_since(begin, is_effect) as u64])
    }

    /// Until it is where it is to be killed (true), or done.
    async fn run(
        &mut self,
        side: usize,
        phase: Phase,
        asked: &mut bool,
        armed: Option<u64>,
    ) -> Result<bool> {
        let mut last = Value::Null;
        let what = format!("{phase:?} on {}", self.hubs.sides[side].name);
        let outcome = eventually(PATIENCE, &what, async || {
            if armed.is_some_and(|armed| is_stalled(&self.hubs.sides[side], armed)) {
                return Some(Ok(true));
            }
            last = self.hubs.seen(side).await?;
            if phase.is_done(&last) {
                return Some(Ok(false));
            }
            if !*asked && phase.can_be_asked(&last) {
                *asked = true;
                if let Err(error) = self.order(side, phase).await {
                    return Some(Err(error));
                }
            }
            None
        });
        match outcome.await {
            Ok(met) => met,
            Err(error) => Err(self.hubs.told(side, error.as_ref(), &last)),
        }
    }

    async fn order(&mut self, side: usize, phase: Phase) -> Result<()> {
        match phase {
            Phase::Promote { epoch } => self.hubs.promote(side, epoch - 1).await.map(|_| ()),
            Phase::Demote => self.hubs.ask(side, Verb::Demote { to: None, dry_run: false }).await,
            Phase::TakeOver { .. } => self.hubs.daemon(side)?.signal("USR1"),
            Phase::Rejoin => self.hubs.ask(side, Verb::Rejoin).await,
        }
    }

    /// One term with all of its base, as the other hub left it.
    async fn is_promoted(&mut self, from: usize, to: usize) -> Result<()> {
        let (epoch, name) = (self.epoch, self.hubs.sides[to].name);
        let records = self.hubs.journal().await?;
        let records: Vec<_> = records.into_iter().filter(|record| record.epoch == epoch).collect();
        assert!(records.iter().all(|record| record.hub == name), "{records:?}");
        let of =
            |kind: &str| records.iter().filter(|record| record.kind == kind).collect::<Vec<_>>();
        assert_eq!((of("Term").len(), of("Activated").len()), (1, 1), "{records:?}");
        assert_eq!(of("Activated")[0].body["failed"], json!([]));
        let differences = self.hubs.differences(from, to, &Set::ALL).await?;
        assert_eq!(differences, Vec::<String>::new(), "the new primary");
        Ok(())
    }

    /// Users change something of every sort on the primary, and its daemon is killed and started: what it
    /// started from is never applied again. Ends with a backup of it all.
    async fn users_work(&mut self, side: usize) -> Result<()> {
        self.day += 1;
        let (day, api) = (self.day, self.hubs.hub(side).api()?);
        let change = json!({"metadata": {"annotations": {"day": day.to_string()}}});
        let works =
            ["klusterlet", "klusterlet-crds"].map(|name| format!("{WORKS}/cluster-0000-{name}"));
        for path in [CLUSTER, &works[0], &works[1], &format!("{MAPS}/site")] {
            api.merge_patch(path, &change).await?;
        }
        let labels = json!({"cluster.open-cluster-management.io/backup": ""});
        for (path, kind, version, set) in [
            (MAPS, "ConfigMap", "v1", Set::Credentials),
            (WORKS, "ManifestWork", "work.open-cluster-management.io/v1", Set::Activation),
        ] {
            let name = format!("day-{day}");
            let object = json!({
                "apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels},
            });
            api.post(path, &object).await?;
            let (group, resource) = (version.rsplit_once('/').map_or("", |(g, _)| g), path);
            let resource = resource.rsplit('/').next().unwrap_or_default();
            self.hubs.sets.insert(ObjectKey::new(group, resource, "cluster-0000", &name)?, set);
        }
        if day > 2 {
            let name = format!("day-{}", day - 1);
            api.delete(&format!("{MAPS}/{name}")).await?;
            self.hubs.sets.remove(&ObjectKey::new("", "configmaps", "cluster-0000", &name)?);
        }
        self.hubs.kill(side);
        let before = self.hubs.journal().await?.last().map_or(0, |record| record.slot);
        self.hubs.start(side).await?;
        let newer = |seen: &Value| {
            let idle = seen["backup"]["runningSince"].is_null();
            (idle && seen["newest"]["slot"].as_u64()? > before).then_some(())
        };
        self.hubs.until(side, "a backup of what users did", newer).await
    }

    async fn is_as_users_left_it(&self, side: usize) -> Result<()> {
        let api = self.hubs.hub(side).api()?;
        for path in [CLUSTER, &format!("{MAPS}/site")] {
            let day = api.get_json(path).await?["metadata"]["annotations"]["day"].take();
            assert_eq!(day, self.day.to_string(), "{path} was written over");
        }
        let gone = format!("{MAPS}/day-{}", self.day - 1);
        assert!(self.day < 3 || api.find(&gone).await?.is_none(), "{gone} is back");
        Ok(())
    }

    /// The first prune of a hub that was primary waits for somebody to look.
    async fn release(&mut self, side: usize) -> Result<()> {
        let gone = format!("{MAPS}/day-{}", self.day - 1);
        let settled = |seen: &Value| {
            let held = seen["sync"]["held"]["plan"].as_str().map(str::to_owned);
            let holds = status::restored(seen)? == status::newest(seen)?;
            let settled = seen["handover"]["claimed"]["settled"] == true;
            (holds && (settled || held.is_some())).then_some(held)
        };
        if let Some(plan) = self.hubs.until(side, "the first sync", settled).await? {
            let there = self.hubs.hub(side).api()?.find(&gone).await?.is_some();
            assert!(there, "nobody has looked at {gone} yet");
            self.hubs.ask(side, Verb::SyncAck { plan }).await?;
        }
        let settled = |seen: &Value| (seen["handover"]["claimed"]["settled"] == true).then_some(());
        self.hubs.until(side, "the prune to be released", settled).await
    }

    fn note_offered(&mut self) -> Result<()> {
        self.offered = self.backups()?;
        Ok(())
    }

    fn backups(&self) -> Result<BTreeSet<String>> {
        let (_, text) = self.hubs.cli(self.from, &["backup", "list", "-o", "json"])?;
        let list: Value = serde_json::from_str(&text)?;
        let items = list["items"].as_array().ok_or("there are no items")?;
        Ok(items.iter().filter_map(|item| item["id"].as_str().map(str::to_owned)).collect())
    }

    /// Retention takes the oldest, when there are enough.
    fn nothing_is_lost(&mut self) -> Result<()> {
        let now = self.backups()?;
        let lost = self.offered.difference(&now).count();
        assert!(lost == 0 || now.len() >= KEPT, "{lost} lost: {:?} {now:?}", self.offered);
        let (code, text) = self.hubs.cli(self.from, &["backup", "verify", "--all"])?;
        assert_eq!(code, Some(0), "{text}");
        Ok(())
    }
}

impl Phase {
    fn can_be_asked(self, seen: &Value) -> bool {
        let role = status::role(seen);
        let in_sync = status::restored(seen).is_some_and(|held| status::newest(seen) == Some(held));
        match self {
            Phase::Promote { .. } => role == "passive" && in_sync,
            Phase::TakeOver { .. } => {
                role == "passive" && in_sync && seen["promotion"]["running"] != true
            }
            Phase::Demote => {
                let mut peers = seen["peers"].as_array().into_iter().flatten();
                role == "primary" && peers.any(|peer| peer["ready"] == true)
            }
            Phase::Rejoin => role == "fenced",
        }
    }

    fn is_done(self, seen: &Value) -> bool {
        let role = status::role(seen);
        match self {
            Phase::Promote { epoch } | Phase::TakeOver { epoch } => {
                let idle = seen["backup"]["runningSince"].is_null();
                let own = seen["newest"]["epoch"] == epoch && status::epoch(seen) == epoch;
                role == "primary" && own && idle
            }
            Phase::Demote => role == "passive" && seen["handover"]["handed"].is_object(),
            Phase::Rejoin => {
                let held = seen["sync"]["held"].is_object();
                let holds =
                    status::restored(seen).is_some_and(|id| status::newest(seen) == Some(id));
                role == "passive"
                    && holds
                    && (held || seen["handover"]["claimed"]["settled"] == true)
            }
        }
    }
}

/// The request and all behind it in the same place wait for ever.
fn arm(side: &Side, Kill { place, nth, applied }: Kill) {
    let (faultd, method) = match place {
        Place::Storage => (&side.storage, "CHANGE"),
        Place::Api => (&side.api, "EFFECT"),
    };
    let rule = |fault, when| Rule { fault, method, key: String::new(), when };
    if applied {
        faultd.add(rule(Fault::ApplyThenStall, When::Nth(nth)));
    }
    faultd.add(rule(Fault::Stall, When::From(nth)));
}

/// A request waits there since then; one that is to be applied was.
fn is_stalled(side: &Side, since: u64) -> bool {
    let waits = |one: &Exchange| match one.fault {
        Some(Fault::Stall) => true,
        Some(Fault::ApplyThenStall) => one.deliveries.iter().any(|sent| sent.answer.is_some()),
        _ => false,
    };
    [&side.storage, &side.api].iter().any(|faultd| faultd.count_since(since, waits) > 0)
}
