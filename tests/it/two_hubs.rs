//! Two hubs with their daemons on S3, every request of which passes a fault proxy: one before the storage
//! and one before the API server of each hub, all four in one order. So either hub can be cut off, held
//! at any request, or killed there, and what both did is judged in the end.

use crate::harness::checker::{self, Acknowledged, Evidence, roles, roles::Acts};
use crate::harness::compare::{Place, compare, snapshot};
use crate::harness::config::Config;
use crate::harness::daemon::{Daemon, cli_on, new_key};
use crate::harness::faultd::Faultd;
use crate::harness::faultd::history::Exchange;
use crate::harness::fleet::{self, Item};
use crate::harness::hub::{Hub, NAMESPACE};
use crate::harness::pair::Pair;
use crate::harness::s3::S3;
use crate::harness::scratch::Scratch;
use crate::harness::{Failure, Result, eventually, kinds, status};
use crate::scene::{FIRST, SECOND, hub_path};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use understudy::kube_status::ask::{Ask, REQUEST, Verb};
use understudy::kube_status::request::{Named, Order, PROMOTE};
use understudy::object::{ObjectKey, Set};
use understudy::status::Guards;

/// A campaign goes on for an hour, on a machine that may have other work.
pub(crate) const PATIENCE: Duration = Duration::from_mins(5);
const SEED: u64 = 7;
const CONNECTIONS: usize = 16;
/// Their objects are left out: a small world is restored in a second.
const LEFT_OUT: [&str; 2] = ["policies", "apps"];
/// Resources of the activation set of this fleet.
const HELD_BACK: [&str; 4] =
    ["managedclusters", "managedclusteraddons", "manifestworks", "manifestworkreplicasets"];

pub(crate) struct Hubs {
    pub(crate) sides: [Side; 2],
    pub(crate) prefix: String,
    pub(crate) s3: &'static S3,
    pair: Pair,
    /// Where each object belongs that the tests know of.
    pub(crate) sets: BTreeMap<ObjectKey, Set>,
    /// The bucket as it was read last.
    stored: BTreeMap<String, Bytes>,
    scratch: Scratch,
}

pub(crate) struct Side {
    pub(crate) name: &'static str,
    pub(crate) storage: Faultd,
    pub(crate) api: Faultd,
    pub(crate) daemon: Option<Daemon>,
    kubeconfig: PathBuf,
    config: Config,
    bases: BTreeSet<(u64, String)>,
    /// Bytes of the log that were read.
    read: usize,
}

/// A record as it stands in the journal.
#[derive(Clone, Debug)]
pub(crate) struct Stands {
    pub(crate) slot: u64,
    pub(crate) epoch: u64,
    pub(crate) hub: String,
    pub(crate) kind: String,
    pub(crate) body: Value,
}

impl Hubs {
    /// The first hub has a fleet and will be the primary; nothing runs yet.
    pub(crate) async fn set(test: &str) -> Result<Self> {
        let (pair, s3) = tokio::try_join!(Pair::fresh(), S3::shared())?;
        let (scratch, prefix) = (Scratch::new()?, S3::prefix(test));
        let key = scratch.path().join("key");
        new_key(&key)?;
        let mut items: Vec<Item> = fleet::demo(1, SEED);
        let left_out =
            |key: &ObjectKey| LEFT_OUT.contains(&key.namespace()) || LEFT_OUT.contains(&key.name());
        items.retain(|item| {
            !left_out(&item.key) && item.owner.as_ref().is_none_or(|o| !left_out(o))
        });
        fleet::populate(&pair.primary.api()?, &items, CONNECTIONS).await?;
        let sets = items.iter().filter_map(|item| Some((item.key.clone(), item.set?)));
        let sets = sets.collect();
        let mut sides = vec![];
        for (hub, name, role) in
            [(&pair.primary, FIRST, "primary"), (&pair.passive, SECOND, "passive")]
        {
            let (storage, (api, kubeconfig)) = (s3.faultd().await?, hub.faultd().await?);
            let mut config = Config::new(name, role, &key)?.with_s3(s3, &prefix);
            config.set("storage.s3.endpoint", json!(storage.endpoint));
            config.set("storage.pollInterval", json!("300ms"));
            config.set("hub.heartbeat", json!("500ms"));
            config.set("promotion.primarySilence", json!("2s"));
            config.set("passive.syncInterval", json!("1s"));
            config.set("passive.maxShrink", json!("100%"));
            config.set("schedule.maxShrink", json!("100%"));
            sides.push(Side {
                name,
                storage,
                api,
                daemon: None,
                kubeconfig,
                config,
                bases: BTreeSet::new(),
                read: 0,
            });
        }
        for other in [&sides[0].api, &sides[1].storage, &sides[1].api] {
            other.in_order_with(&sides[0].storage);
        }
        let sides = sides.try_into().map_err(|_| "there are two sides")?;
        Ok(Self { sides, prefix, s3, pair, sets, stored: BTreeMap::new(), scratch })
    }

    /// Both daemons run, and the second hub holds the first's backup.
    pub(crate) async fn running(test: &str) -> Result<Self> {
        let mut hubs = Self::set(test).await?;
        hubs.start(0).await?;
        hubs.start(1).await?;
        hubs.follows(1).await?;
        Ok(hubs)
    }

    pub(crate) fn hub(&self, side: usize) -> &Hub {
        [&self.pair.primary, &self.pair.passive][side]
    }

    fn file(&self, side: usize) -> Result<PathBuf> {
        let Side { name, config, .. } = &self.sides[side];
        config.write(&self.scratch.path().join(format!("{name}.yaml")))
    }

    pub(crate) async fn start(&mut self, side: usize) -> Result<()> {
        let file = self.file(side)?;
        let mut daemon = Daemon::start(&file, &self.sides[side].kubeconfig, NAMESPACE)?;
        daemon.wait_live().await?;
        self.sides[side].daemon = Some(daemon);
        Ok(())
    }

    /// SIGKILL. What it had asked for may still arrive.
    pub(crate) fn kill(&mut self, side: usize) {
        if let Some(mut daemon) = self.sides[side].daemon.take() {
            daemon.kill9();
        }
    }

    pub(crate) fn daemon(&mut self, side: usize) -> Result<&mut Daemon> {
        let Side { name, daemon, .. } = &mut self.sides[side];
        Ok(daemon.as_mut().ok_or_else(|| format!("{name} does not run"))?)
    }

    /// What the daemon says, if it says anything now. Notes what it started from.
    pub(crate) async fn seen(&mut self, side: usize) -> Option<Value> {
        let seen = self.sides[side].daemon.as_ref()?.status().await.ok()?;
        let promotion = &seen["promotion"];
        let holds = status::role(&seen) == "primary" && seen["holder"] == seen["hub"];
        if let Some(base) = promotion["base"].as_str().filter(|_| holds)
            && promotion["phase"] == "Activated"
        {
            self.sides[side].bases.insert((status::epoch(&seen), base.to_owned()));
        }
        Some(seen)
    }

    pub(crate) async fn until<T>(
        &mut self,
        side: usize,
        what: &str,
        look: impl Fn(&Value) -> Option<T>,
    ) -> Result<T> {
        let what = format!("{what} on {}", self.sides[side].name);
        let mut last = Value::Null;
        let outcome = eventually(PATIENCE, &what, async || {
            last = self.seen(side).await?;
            look(&last)
        })
        .await;
        outcome.map_err(|error| self.told(side, error.as_ref(), &last))
    }

    /// With what is known of this hub.
    pub(crate) fn told(
        &self,
        side: usize,
        error: &(dyn std::error::Error + Send + Sync),
        last: &Value,
    ) -> Failure {
        format!("{error}\nstatus: {last}\nlog:\n{}", self.log_tail(side)).into()
    }

    fn log_tail(&self, side: usize) -> String {
        let log = self.scratch.path().join(format!("{}.log", self.sides[side].name));
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// The newest backup is the primary's own of its term, and this hub holds it.
    pub(crate) async fn follows(&mut self, side: usize) -> Result<()> {
        let other = 1 - side;
        let newest = |seen: &Value| {
            let own = seen["newest"]["epoch"] == seen["epoch"] && seen["holder"] == seen["hub"];
            let idle = seen["backup"]["runningSince"].is_null();
            status::newest(seen).filter(|_| own && idle).map(str::to_owned)
        };
        let newest = self.until(other, "an own backup", newest).await?;
        let holds = |seen: &Value| (status::restored(seen) == Some(&*newest)).then_some(());
        self.until(side, &format!("the standby to hold {newest}"), holds).await
    }

    /// Asks as the command line does, and does not wait.
    pub(crate) async fn ask(&self, side: usize, verb: Verb) -> Result<()> {
        let ask = Ask { id: unique(), verb, reason: None };
        self.annotate(side, REQUEST, &serde_json::to_string(&ask)?).await
    }

    /// `understudy promote --primary-is-dead --no-wait`; the id of the request.
    pub(crate) async fn promote(&self, side: usize, expected_epoch: u64) -> Result<String> {
        let id = unique();
        let order = Order {
            hub: self.sides[side].name.to_owned(),
            request: Named { id: id.clone(), expected_epoch },
            primary_is_dead: Some("a test says so".to_owned()),
            guards: Guards::default(),
        };
        self.annotate(side, PROMOTE, &serde_json::to_string(&order)?).await?;
        Ok(id)
    }

    async fn annotate(&self, side: usize, name: &str, value: &str) -> Result<()> {
        let change = json!({"metadata": {"annotations": {name: value}}});
        self.hub(side).api()?.merge_patch(&hub_path(self.sides[side].name), &change).await?;
        Ok(())
    }

    /// What an operator runs on this side, past the proxies to the API server.
    pub(crate) fn cli(&self, side: usize, args: &[&str]) -> Result<(Option<i32>, String)> {
        let output = cli_on(self.hub(side), &self.file(side)?, args)?;
        let text = [output.stdout, output.stderr].map(|t| String::from_utf8_lossy(&t).into_owned());
        Ok((output.status.code(), text.concat()))
    }

    /// The journal as it stands in the bucket.
    pub(crate) async fn journal(&mut self) -> Result<Vec<Stands>> {
        self.s3.read_on(&self.prefix, &mut self.stored).await?;
        let journal = self.stored.iter().filter(|(name, _)| name.starts_with("journal/"));
        let records = journal.map(|(_, bytes)| {
            let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let record: Value = serde_json::from_slice(line)?;
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            Ok(Stands {
                slot: record["slot"].as_u64().unwrap_or_default(),
                epoch: record["epoch"].as_u64().unwrap_or_default(),
                hub: text(&record["hub"]["name"]),
                kind: text(&record["body"]["kind"]),
                body: record["body"].clone(),
            })
        });
        records.collect()
    }

    /// What stands on one hub and not on the other, of these sets.
    pub(crate) async fn differences(
        &self,
        from: usize,
        to: usize,
        sets: &[Set],
    ) -> Result<Vec<String>> {
        let kinds = kinds::all();
        let (from, to) = (self.hub(from).api()?, self.hub(to).api()?);
        let (from, to) = tokio::try_join!(snapshot(&from, &kinds), snapshot(&to, &kinds))?;
        let both = |key: &ObjectKey| self.sets.get(key).is_some_and(|set| sets.contains(set));
        let place = |key: &ObjectKey| if both(key) { Place::Both } else { Place::Anywhere };
        // What a restore brought and nobody knows of is told, too, but for what the hub held itself.
        let differences = compare(&from, &to, place);
        Ok(differences.iter().map(ToString::to_string).collect())
    }

    /// Fails with every invariant that was broken since this was asked last.
    pub(crate) async fn judge(&mut self) -> Result<()> {
        self.s3.read_on(&self.prefix, &mut self.stored).await?;
        let acknowledged = self.acknowledged()?;
        let acts = self.sides.each_mut().map(|side| Acts {
            hub: side.name.to_owned(),
            storage: side.storage.take(""),
            api: side.api.take(""),
            bases: std::mem::take(&mut side.bases),
        });
        let mut history: Vec<Exchange> = acts.iter().flat_map(|hub| hub.storage.clone()).collect();
        history.sort_by_key(|exchange| exchange.number);
        let (prefix, stored) = (self.prefix.clone(), self.stored.clone());
        let evidence = Evidence { prefix, history, stored, acknowledged };
        let mut broken = checker::check(&evidence);
        broken.extend(roles::check(&evidence, &acts, &HELD_BACK));
        let broken: Vec<String> = broken.iter().map(ToString::to_string).collect();
        if broken.is_empty() { Ok(()) } else { Err(broken.join("\n").into()) }
    }

    /// The backups that daemons reported since this was asked last, from their logs.
    fn acknowledged(&mut self) -> Result<Vec<Acknowledged>> {
        let mut told = vec![];
        for side in &mut self.sides {
            let log = self.scratch.path().join(format!("{}.log", side.name));
            let bytes = std::fs::read(&log).unwrap_or_default();
            // The last line may be half written.
            let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let text = String::from_utf8_lossy(&bytes[side.read.min(end)..end]);
            for line in text.lines() {
                let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
                if line["message"] != "backup" || line["outcome"] != "success" {
                    continue;
                }
                let id = line["backup"].as_str().ok_or("a backup without an id")?;
                let slot = id.rsplit('-').next().unwrap_or_default();
                let name = format!("journal/{slot:0>20}");
                let record: Value = match self.stored.get(&name) {
                    Some(bytes) => serde_json::from_slice(
                        bytes.split(|byte| *byte == b'\n').next().unwrap_or_default(),
                    )?,
                    None => Value::Null,
                };
                told.push(Acknowledged {
                    slot: slot.parse()?,
                    epoch: record["epoch"].as_u64().unwrap_or_default(),
                    hub: side.name.to_owned(),
                    kind: "Commit",
                });
            }
            side.read = end;
        }
        Ok(told)
    }
}

fn unique() -> String {
    format!("{:032x}", understudy::clock::random())
}
