//! Pure: the file as written → [`Settings`]: defaults, what must be there, what must fit together.
//!
//! Everything that is wrong is noted and replaced by something harmless, so that one run finds all of
//! it. The settings are only used where nothing was noted.

mod storage;

use super::errors::{ConfigError, did_you_mean};
use super::file::{self, File, Prune, Time};
use super::settings::{
    Encryption, Http, Hub, InitialRole, Kubernetes, Log, LogFormat, Objectives, Passive, Promotion,
    RestorePolicy, Retention, Schedule, Settings,
};
use super::tree::Tree;
use super::{preset, typed};
use crate::capture::rules::{Adopt, Preset, ResourceName, RuleSets};
use crate::capture::select::Selection;
use crate::object::GroupResource;
use crate::restore::transform::TransformRule;
use crate::schedule::Cron;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

const API_VERSION: &str = "understudy.dev/v1alpha1";
const KIND: &str = "HubConfig";

const DAY: Duration = Duration::from_hours(24);
/// A shorter interval or time limit is a loop that does nothing but wake up.
const SHORTEST: Duration = Duration::from_millis(100);
/// A longer one is a slip of the pen, and could not be added to a date.
const LONGEST: Duration = Duration::from_hours(24 * 3660);
/// Heartbeats that must be missed before a primary may count as silent: one lost write is no death.
const SILENT_HEARTBEATS: u32 = 3;
/// Requests in flight above which an API server only queues them.
const MAX_IN_FLIGHT: usize = 1024;
/// Kubernetes' limit for a DNS label.
const MAX_LABEL: usize = 63;

pub(super) fn settle(
    written: File,
    tree: &Tree,
    folder: &Path,
    errors: &mut Vec<ConfigError>,
) -> Settings {
    let mut notes = Notes { tree, folder, errors };
    let File {
        api_version,
        kind,
        hub,
        kubernetes,
        storage,
        encryption,
        presets,
        sets,
        status,
        schedule,
        retention,
        passive,
        promotion,
        objectives,
        http,
        log,
    } = written;
    notes.must_be("apiVersion", api_version.as_deref(), API_VERSION);
    notes.must_be("kind", kind.as_deref(), KIND);
    let hub = notes.hub(hub);
    let presets = notes.presets(&presets, &sets);
    let imports_clusters = presets.iter().any(|preset| preset.imports_clusters);
    let adopted = presets.iter().flat_map(|preset| preset.adopt.clone()).collect();
    let statuses = presets.iter().flat_map(|preset| &preset.status).chain(&status);
    let statuses = statuses.map(|ResourceName(name)| name.clone()).collect();
    let transforms = presets.iter().flat_map(|preset| &preset.transforms);
    let transforms = passive.transforms.iter().chain(transforms).cloned().collect();
    let others = preset::names().filter(|name| presets.iter().all(|preset| preset.name != *name));
    let other_transforms = others.filter_map(preset::load).flat_map(|p| p.transforms).collect();
    Settings {
        promotion: Promotion { imports_clusters, ..notes.promotion(promotion, hub.heartbeat) },
        hub,
        kubernetes: notes.kubernetes(kubernetes),
        storage: notes.storage(storage),
        encryption: notes.encryption(encryption),
        selection: Selection::new(sets, presets).with_status(&status),
        restore: RestorePolicy {
            status: statuses,
            transforms,
            other_transforms,
            ..restore_policy(&passive, adopted)
        },
        schedule: notes.schedule(schedule),
        retention: notes.retention(retention),
        passive: notes.passive(&passive),
        objectives: notes.objectives(objectives),
        http: notes.http(http),
        log: notes.log(log),
    }
}

/// Deleting one deletes what it stands for: data, or all that is in it.
const NEVER_RECREATED: [&str; 4] = [
    "customresourcedefinitions.apiextensions.k8s.io",
    "namespaces",
    "persistentvolumeclaims",
    "persistentvolumes",
];

fn restore_policy(passive: &file::Passive, from_presets: Vec<Adopt>) -> RestorePolicy {
    let adopt = from_presets.into_iter().chain(passive.adopt.iter().cloned());
    RestorePolicy {
        allow_kinds: passive.allow_kinds.iter().map(|ResourceName(name)| name.clone()).collect(),
        adopt: adopt
            .map(|Adopt { resource, name }| (resource.0, name))
            .collect::<Vec<(GroupResource, String)>>(),
        conflict: passive.conflict.clone(),
        recreate: passive.recreate.iter().map(|ResourceName(name)| name.clone()).collect(),
        status: Vec::new(),
        transforms: Vec::new(),
        other_transforms: Vec::new(),
    }
}

/// The list of errors, and what is needed to write into it.
struct Notes<'a> {
    tree: &'a Tree,
    folder: &'a Path,
    errors: &'a mut Vec<ConfigError>,
}

impl Notes<'_> {
    fn wrong(&mut self, key: &str, what: impl Into<String>, hint: impl Into<String>) {
        let (place, key) = (self.tree.place(key), key.to_owned());
        self.errors.push(ConfigError { place, key, what: what.into(), hint: hint.into() });
    }

    /// Notes a key that must be there, unless what stands there was refused already.
    fn missing(&mut self, key: &str, hint: &str) {
        let refused = |error: &ConfigError| {
            error.key == key || typed::is_below(&error.key, key) || typed::is_below(key, &error.key)
        };
        if !self.errors.iter().any(refused) {
            self.wrong(key, "is missing", hint);
        }
    }

    fn must_be(&mut self, key: &str, found: Option<&str>, wanted: &str) {
        let hint = format!("write {key}: {wanted}");
        match found {
            Some(found) if found == wanted => {}
            Some(found) => self.wrong(key, format!("{found:?} is not known to this version"), hint),
            None => self.missing(key, &hint),
        }
    }

    fn time(&mut self, key: &str, written: Time, default: Duration) -> Duration {
        let time = written.0.unwrap_or(default);
        if time < SHORTEST {
            self.wrong(key, "is too short", "100ms is the shortest");
        }
        self.time_or_zero(key, written, default)
    }

    fn time_or_zero(&mut self, key: &str, written: Time, default: Duration) -> Duration {
        let time = written.0.unwrap_or(default);
        if time > LONGEST {
            self.wrong(key, "is too long", "ten years are the longest; m is minutes, M is months");
        }
        time
    }

    fn path(&self, written: &Path) -> PathBuf {
        self.folder.join(written)
    }

    /// An empty path is one that is not set.
    fn optional_path(&self, written: Option<PathBuf>) -> Option<PathBuf> {
        written.filter(|path| !path.as_os_str().is_empty()).map(|path| self.path(&path))
    }

    fn hub(&mut self, written: file::Hub) -> Hub {
        let file::Hub { name, pair, initial_role, heartbeat } = written;
        Hub {
            name: self.label("hub.name", name, "name this hub, such as eu-1"),
            pair: self.label("hub.pair", pair, "name the pair, the same on all its hubs"),
            initial_role: initial_role.unwrap_or(InitialRole::Passive),
            heartbeat: self.time("hub.heartbeat", heartbeat, Duration::from_secs(10)),
        }
    }

    fn label(&mut self, key: &str, written: Option<String>, hint: &str) -> String {
        let Some(label) = written else {
            self.missing(key, hint);
            return String::new();
        };
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let is_label = (1..=MAX_LABEL).contains(&label.len())
            && label.chars().all(legal)
            && !label.starts_with('-')
            && !label.ends_with('-');
        if !is_label {
            let hint =
                "up to 63 lower-case letters, digits and dashes, a letter or digit at both ends";
            self.wrong(key, format!("{label:?} is not a DNS label"), hint);
        }
        label
    }

    fn kubernetes(&mut self, written: file::Kubernetes) -> Kubernetes {
        let file::Kubernetes { request_timeout, max_in_flight, gzip } = written;
        let max_in_flight = max_in_flight.unwrap_or(32);
        if !(1..=MAX_IN_FLIGHT).contains(&max_in_flight) {
            let what = format!("{max_in_flight} requests at once cannot be kept");
            self.wrong("kubernetes.maxInFlight", what, "write 1 to 1024");
        }
        let key = "kubernetes.requestTimeout";
        Kubernetes {
            request_timeout: self.time(key, request_timeout, Duration::from_secs(30)),
            max_in_flight,
            gzip: gzip.unwrap_or(false),
        }
    }

    fn encryption(&mut self, written: file::Encryption) -> Encryption {
        let file::Encryption { key_files, recipients } = written;
        if key_files.is_empty() {
            let hint = "name at least one key file; understudy key new --out FILE makes one";
            self.missing("encryption.keyFiles", hint);
        }
        for (index, path) in key_files.iter().enumerate() {
            if path.as_os_str().is_empty() {
                self.wrong(&format!("encryption.keyFiles[{index}]"), "is empty", "name a key file");
            }
        }
        Encryption {
            key_files: key_files.iter().map(|path| self.path(path)).collect(),
            recipients: recipients.into_iter().map(|recipient| recipient.0).collect(),
        }
    }

    fn presets(&mut self, names: &[String], sets: &RuleSets) -> Vec<Preset> {
        if names.is_empty() && sets.selects_nothing() {
            let shipped: Vec<&str> = preset::names().collect();
            let hint = format!(
                "write what this hub runs, such as presets: [ocm] (there are {}), or rules under sets",
                shipped.join(", ")
            );
            self.missing("presets", &hint);
        }
        let mut presets = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let key = format!("presets[{index}]");
            if names[..index].contains(name) {
                self.wrong(&key, format!("{name:?} stands there twice"), "take one out");
            }
            if let Some(preset) = preset::load(name) {
                presets.push(preset);
            } else {
                let hint = did_you_mean(name, preset::names());
                self.wrong(&key, format!("there is no preset {name:?}"), hint);
            }
        }
        presets
    }

    fn schedule(&mut self, written: file::Schedule) -> Schedule {
        let file::Schedule {
            cron,
            timezone,
            jitter,
            timeout,
            on_start,
            record_unchanged,
            max_shrink,
        } = written;
        let (default, utc) = ("*/30 * * * *", "UTC");
        let zone = timezone.as_deref().unwrap_or(utc);
        if let Err(why) = Cron::parse(default, zone) {
            self.wrong("schedule.timezone", why, "write a name such as UTC or Europe/Berlin");
        }
        let cron = match Cron::parse(cron.as_deref().unwrap_or(default), utc) {
            Ok(_) => Cron::parse(cron.as_deref().unwrap_or(default), zone),
            Err(why) => {
                let hint = "write minute, hour, day of month, month and day of week, \
                            such as \"*/30 * * * *\"";
                self.wrong("schedule.cron", why, hint);
                Err(String::new())
            }
        };
        let cron = cron.or_else(|_| Cron::parse(default, utc));
        Schedule {
            cron: cron.expect("the default schedule is one"),
            jitter: self.time_or_zero("schedule.jitter", jitter, Duration::from_secs(30)),
            timeout: self.time("schedule.timeout", timeout, Duration::from_mins(20)),
            on_start: on_start.unwrap_or(true),
            record_unchanged: record_unchanged.unwrap_or(true),
            max_shrink: max_shrink.map_or(0.3, |share| share.0),
        }
    }

    fn retention(&mut self, written: file::Retention) -> Retention {
        let file::Retention {
            keep_for,
            keep_last,
            keep_daily,
            keep_weekly,
            keep_monthly,
            sweep_after,
            sweep_interval,
        } = written;
        let keep_last = keep_last.unwrap_or(48);
        if keep_last == 0 {
            self.wrong("retention.keepLast", "at least one backup is kept", "write 1 or more");
        }
        let keep_for = keep_for.0.map(|_| {
            let key = "retention.keepFor";
            self.time(key, keep_for, Duration::ZERO)
        });
        Retention {
            keep_for,
            keep_last,
            keep_daily: keep_daily.unwrap_or(0),
            keep_weekly: keep_weekly.unwrap_or(0),
            keep_monthly: keep_monthly.unwrap_or(0),
            sweep_after: self.time("retention.sweepAfter", sweep_after, Duration::from_hours(24)),
            sweep_interval: self.time(
                "retention.sweepInterval",
                sweep_interval,
                Duration::from_hours(1),
            ),
        }
    }

    fn passive(&mut self, written: &file::Passive) -> Passive {
        let file::Passive {
            sync_interval,
            full_check,
            prune,
            max_deletes,
            max_shrink,
            drift,
            allow_kinds: _,
            adopt: _,
            ref conflict,
            ref recreate,
            ref transforms,
        } = *written;
        let unnamed = conflict.iter().enumerate().filter(|(_, rule)| rule.names_nothing());
        for (index, _) in unnamed {
            let key = format!("passive.conflict[{index}]");
            self.wrong(&key, "names nothing", "write group: \"*\" if every object is meant");
        }
        for (index, ResourceName(name)) in recreate.iter().enumerate() {
            let name = name.to_string();
            if NEVER_RECREATED.contains(&&*name) {
                let what = format!("{name} are never deleted to be created again");
                self.wrong(&format!("passive.recreate[{index}]"), what, "take it out");
            }
        }
        self.transforms(transforms);
        Passive {
            sync_interval: self.time("passive.syncInterval", sync_interval, Duration::from_mins(5)),
            full_check: self.time("passive.fullCheck", full_check, Duration::from_hours(1)),
            prune: prune.unwrap_or(Prune::Restored) == Prune::Restored,
            max_deletes: max_deletes.unwrap_or(500),
            max_shrink: max_shrink.map_or(0.3, |share| share.0),
            drift: drift.unwrap_or_default(),
        }
    }

    fn transforms(&mut self, rules: &[TransformRule]) {
        for (index, rule) in rules.iter().enumerate() {
            let key = format!("passive.transforms[{index}]");
            if rule.names_nothing() {
                self.wrong(&key, "names nothing", "write group: \"*\" if every object is meant");
            } else if rule.reaches_secrets() {
                let what = "reaches Secrets, and an annotation would show what they hold";
                self.wrong(&key, what, "name other kinds, or another group than \"\"");
            }
        }
    }

    fn promotion(&mut self, written: file::Promotion, heartbeat: Duration) -> Promotion {
        let file::Promotion {
            signal,
            annotation,
            primary_silence,
            max_data_age,
            wait_for_clusters,
        } = written;
        let key = "promotion.primarySilence";
        let primary_silence = self.time(key, primary_silence, Duration::from_mins(1));
        let shortest = heartbeat.saturating_mul(SILENT_HEARTBEATS);
        if primary_silence < shortest {
            let what = format!(
                "is shorter than three heartbeats (hub.heartbeat is {})",
                humantime::format_duration(heartbeat)
            );
            self.wrong(
                key,
                what,
                format!("write at least {}", humantime::format_duration(shortest)),
            );
        }
        Promotion {
            signal: signal.unwrap_or(true),
            annotation: annotation.unwrap_or(true),
            primary_silence,
            max_data_age: self.time("promotion.maxDataAge", max_data_age, Duration::from_hours(2)),
            wait_for_clusters: self.time_or_zero(
                "promotion.waitForClusters",
                wait_for_clusters,
                Duration::from_mins(15),
            ),
            imports_clusters: false,
        }
    }

    fn objectives(&mut self, written: file::Objectives) -> Objectives {
        let file::Objectives { rpo, rto, verify_every, drill_every } = written;
        Objectives {
            rpo: self.time("objectives.rpo", rpo, Duration::from_hours(1)),
            rto: self.time("objectives.rto", rto, Duration::from_mins(15)),
            verify_every: self.time("objectives.verifyEvery", verify_every, DAY),
            drill_every: self.time("objectives.drillEvery", drill_every, DAY * 90),
        }
    }

    fn http(&mut self, written: file::Http) -> Http {
        let file::Http { listen, base_path } = written;
        let base = base_path.unwrap_or_default();
        let legal = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
        if !base.is_empty() && (!base.starts_with('/') || !base.chars().all(legal)) {
            let hint = "write / or words between slashes, such as /understudy";
            self.wrong("http.basePath", format!("{base:?} is not the path of a page"), hint);
        }
        let base = base.trim_matches('/');
        Http {
            listen: listen.unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080))),
            base_path: if base.is_empty() { "/".to_owned() } else { format!("/{base}/") },
        }
    }

    fn log(&mut self, written: file::Log) -> Log {
        let file::Log { format, level } = written;
        let level = level.unwrap_or_else(|| "info".to_owned());
        if let Err(why) = tracing_subscriber::EnvFilter::try_new(&level) {
            let hint = "write error, warn, info, debug or trace, or info,understudy=debug";
            self.wrong("log.level", why.to_string(), hint);
        }
        Log { format: format.unwrap_or(LogFormat::Auto), level }
    }
}
