//! SIGKILL at any write of a restore: before the request reaches the API server, and after it was
//! applied and before the answer is heard; in creations, in patches, in the prune, several times in
//! one restore, while a newer backup comes. In the end the standby is exactly one backup, and each
//! object was written as often as it changed.

use crate::actors::rounds;
use crate::harness::daemon::Daemon;
use crate::harness::faultd::Faultd;
use crate::harness::faultd::fault::{Fault, Rule, When, draw, is_write};
use crate::harness::faultd::history::Exchange;
use crate::harness::{Result, eventually};
use crate::stage::DEADLINE;
use crate::world::World;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;
use understudy::object::ObjectKey;

const SEED: u64 = 11;
const CLUSTERS: usize = 3;
const MAX_KILLS_A_RESTORE: u64 = 3;
/// What a write is there for, as a difference of the hubs is told.
const METHODS: [(&str, &str); 3] =
    [("POST", "is missing"), ("PATCH", "differs in"), ("DELETE", "should not be there")];

struct Bench {
    world: World,
    faultd: Faultd,
    kubeconfig: PathBuf,
    kills: u64,
    killed_at: BTreeSet<(String, bool)>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_may_be_killed_at_any_write() -> Result<()> {
    let wanted = rounds(12)?;
    let mut world = World::set(SEED, CLUSTERS, |config| config).await?;
    stand_in_the_way(&mut world).await?;
    let (faultd, kubeconfig) = world.hub.faultd().await?;
    let mut bench = Bench { world, faultd, kubeconfig, kills: 0, killed_at: BTreeSet::new() };
    let mut running = None;
    while bench.kills < wanted {
        running = Some(bench.one_restore(running).await?);
    }
    for applied in [false, true] {
        for (method, _) in METHODS {
            let found = bench.killed_at.contains(&(method.to_owned(), applied));
            assert!(found, "never at {method}, applied: {applied}: {:?}", bench.killed_at);
        }
    }
    Ok(())
}

/// A namespace and an object in it that the backup has, too.
async fn stand_in_the_way(world: &mut World) -> Result<()> {
    let namespace = ObjectKey::new("", "namespaces", "", "cluster-0001")?;
    let site = ObjectKey::new("", "configmaps", "cluster-0001", "site")?;
    let mine = ObjectKey::new("", "configmaps", "cluster-0001", "mine")?;
    for (key, kind) in [(namespace, "Namespace"), (site, "ConfigMap"), (mine, "ConfigMap")] {
        let body = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": key.name()}});
        world.put_foreign(&[(key, body)]).await?;
    }
    Ok(())
}

impl Bench {
    /// A backup, some kills on the way to it, and the daemon that holds it.
    async fn one_restore(&mut self, mut running: Option<Daemon>) -> Result<Daemon> {
        let round = self.kills;
        let kills = 1 + draw(SEED, round) % MAX_KILLS_A_RESTORE;
        let mut backup = None;
        for kill in 0..kills {
            if kill == 0 {
                // A daemon that runs is met with what it remembers, a new one with what it reads.
                if draw(SEED, round + 1_000).is_multiple_of(2) {
                    running.take();
                }
            }
            let newer = kill > 0 && draw(SEED, self.kills + 2_000).is_multiple_of(4);
            if running.is_some() {
                // Nothing may be written before the rules are there.
                let fault = self.arm_ahead();
                backup = Some(self.world.back_up().await?);
                let daemon = running.take().ok_or("it runs")?;
                self.kill(daemon, fault).await?;
                continue;
            }
            if backup.is_none() || newer {
                backup = Some(self.world.back_up().await?);
            }
            if let Some(fault) = self.arm().await? {
                let daemon = self.world.start(&self.kubeconfig)?;
                self.kill(daemon, fault).await?;
            }
        }
        let mut daemon = self.world.start(&self.kubeconfig)?;
        daemon.wait_live().await?;
        let backup = backup.ok_or("there is a backup")?;
        self.world.holds(&mut daemon, &backup).await?;
        self.world.is_exact().await?;
        self.faultd.take("");
        Ok(daemon)
    }

    /// At one of the writes that are left, if there are any; whether it is to be applied. Where none was
    /// killed yet comes first.
    async fn arm(&self) -> Result<Option<bool>> {
        let differences = self.world.differences().await?;
        let left = METHODS.map(|(method, what)| {
            (method, differences.iter().filter(|text| text.contains(what)).count() as u64)
        });
        let mut places: Vec<_> = left
            .into_iter()
            .filter(|(_, left)| *left > 0)
            .flat_map(|(method, left)| [(method, left, false), (method, left, true)])
            .collect();
        places.sort_by_key(|(method, left, applied)| {
            (self.killed_at.contains(&((*method).to_owned(), *applied)), self.draw(3 + left) % 8)
        });
        let Some((method, left, applied)) = places.first() else { return Ok(None) };
        self.stop_at(method, self.draw(4) % left + 1, *applied);
        Ok(Some(*applied))
    }

    /// At one of the first writes of a backup that is still to come.
    fn arm_ahead(&self) -> bool {
        let applied = self.draw(5).is_multiple_of(2);
        self.stop_at("WRITE", self.draw(4) % 4 + 1, applied);
        applied
    }

    fn draw(&self, what: u64) -> u64 {
        draw(SEED + what, self.kills)
    }

    /// The `nth` write and all behind it wait; the `nth` one is applied or not.
    fn stop_at(&self, method: &'static str, nth: u64, applied: bool) {
        let rule = |fault, when| Rule { fault, method, key: String::new(), when };
        if applied {
            self.faultd.add(rule(Fault::ApplyThenStall, When::Nth(nth)));
        }
        self.faultd.add(rule(Fault::Stall, When::From(nth)));
    }

    async fn kill(&mut self, mut daemon: Daemon, applied: bool) -> Result<()> {
        let wanted = if applied { Fault::ApplyThenStall } else { Fault::Stall };
        let at = eventually(DEADLINE, "the daemon to be where it is to be killed", async || {
            let history = self.faultd.history("");
            let at = history.into_iter().find(|one| one.fault.as_ref() == Some(&wanted))?;
            (!applied || at.deliveries.iter().any(|one| one.answer.is_some())).then_some(at)
        });
        let at = match at.await {
            Ok(at) => at,
            Err(error) => return Err(format!("{error}\n{}", daemon.log_text()?).into()),
        };
        daemon.kill9();
        self.faultd.heal("");
        self.faultd.rest().await?;
        prunes_last(&self.faultd.take(""));
        self.killed_at.insert((at.method, applied));
        self.kills += 1;
        Ok(())
    }
}

/// No deletion was asked for before the answer to every other write was heard.
fn prunes_last(history: &[Exchange]) {
    let writes: Vec<&Exchange> =
        history.iter().filter(|one| is_write(&one.method, &one.key)).collect();
    let Some(first) = writes.iter().find(|one| one.method == "DELETE") else { return };
    for other in writes.iter().filter(|one| one.method != "DELETE") {
        let heard = other.shown.as_ref().is_some_and(|(moment, _)| *moment < first.received);
        assert!(heard, "{} {} was open when the prune began", other.method, other.key);
    }
}
