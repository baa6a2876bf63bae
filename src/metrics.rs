//! The metrics: one struct on one registry. Loops count through methods that take closed enums; what
//! the snapshot holds is turned into gauges at the moment of the scrape ([`gauges`]).
//!
//! Values that outlive the process (role, epoch, last success, deadlines) come from the snapshot
//! alone, and only once the role is known: after a restart they are never exported as 0 meanwhile.
//! Labels are closed sets; no object name, backup id or error text ever becomes one.

mod families;
pub mod gauges;
pub mod labels;

pub use labels::{Action, Phase, Restoring};

use crate::object::Set;
use crate::observe::{Observer, THROTTLED};
use crate::promotion::machine::Trigger;
use crate::status::{Outcome, Role, Snapshot};
use jiff::Timestamp;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, TextEncoder,
};
use std::sync::Arc;

/// A backup takes 10 ms on a test hub and minutes on the largest ones.
const RUN_BUCKETS: [f64; 10] = [0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];
/// Requests: from a local directory to a storage on another continent.
const REQUEST_BUCKETS: [f64; 9] = [0.002, 0.01, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];

const BACKUP_OUTCOMES: [Outcome; 5] =
    [Outcome::Success, Outcome::Partial, Outcome::Failed, Outcome::Refused, Outcome::Skipped];
const SYNC_OUTCOMES: [Outcome; 5] =
    [Outcome::Changed, Outcome::Unchanged, Outcome::Partial, Outcome::Failed, Outcome::Refused];
const PROMOTION_OUTCOMES: [Outcome; 4] =
    [Outcome::Success, Outcome::Partial, Outcome::Failed, Outcome::Refused];

#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    backup_runs: IntCounterVec,
    backup_duration: HistogramVec,
    sync_runs: IntCounterVec,
    restored: IntCounterVec,
    restore_duration: HistogramVec,
    storage_requests: IntCounterVec,
    storage_duration: HistogramVec,
    kube_requests: IntCounterVec,
    kube_duration: HistogramVec,
    kube_throttled: IntCounter,
    promotions: IntCounterVec,
    retired_backups: IntCounterVec,
    role_changes: IntCounterVec,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let (storage_requests, storage_duration) = storage_requests();
        let (kube_requests, kube_duration) = kube_requests();
        let metrics = Self {
            registry: Registry::new(),
            backup_runs: counters(
                "understudy_backup_runs_total",
                "Backups by how they ended.",
                &["outcome"],
            ),
            backup_duration: histograms(
                "understudy_backup_duration_seconds",
                "Time a backup spent in each of its phases.",
                &["phase"],
                &RUN_BUCKETS,
            ),
            sync_runs: counters(
                "understudy_sync_runs_total",
                "Syncs from the repository by how they ended.",
                &["outcome"],
            ),
            restored: counters(
                "understudy_restore_objects_total",
                "Objects by what a restore did with them.",
                &["set", "action"],
            ),
            restore_duration: histograms(
                "understudy_restore_duration_seconds",
                "Time of a restore that compared or wrote something, by what it was for.",
                &["operation"],
                &RUN_BUCKETS,
            ),
            storage_requests,
            storage_duration,
            kube_requests,
            kube_duration,
            kube_throttled: throttled(),
            promotions: counters(
                "understudy_promotions_total",
                "Promotions by who asked for them and how they ended.",
                &["trigger", "outcome"],
            ),
            retired_backups: counters(
                "understudy_retention_deleted_backups_total",
                "Backups that retention or an operator retired.",
                &[],
            ),
            role_changes: counters(
                "understudy_role_changes_total",
                "Changes of the role since the start, by the new role.",
                &["role"],
            ),
        };
        metrics.register();
        metrics.start_at_zero();
        metrics
    }

    fn register(&self) {
        // No `..`: a metric that is not registered would be counted and never seen.
        let Self {
            registry,
            backup_runs,
            backup_duration,
            sync_runs,
            restored,
            restore_duration,
            storage_requests,
            storage_duration,
            kube_requests,
            kube_duration,
            kube_throttled,
            promotions,
            retired_backups,
            role_changes,
        } = self;
        let collectors: [Box<dyn prometheus::core::Collector>; 14] = [
            Box::new(backup_runs.clone()),
            Box::new(backup_duration.clone()),
            Box::new(sync_runs.clone()),
            Box::new(restored.clone()),
            Box::new(restore_duration.clone()),
            Box::new(storage_requests.clone()),
            Box::new(storage_duration.clone()),
            Box::new(kube_requests.clone()),
            Box::new(kube_duration.clone()),
            Box::new(kube_throttled.clone()),
            Box::new(promotions.clone()),
            Box::new(retired_backups.clone()),
            Box::new(role_changes.clone()),
            Box::new(ProcessCollector::for_self()),
        ];
        for collector in collectors {
            registry.register(collector).expect("the names above differ from each other");
        }
    }

    /// A counter that first appears with its first failure has no rate for that failure.
    fn start_at_zero(&self) {
        for outcome in BACKUP_OUTCOMES {
            self.backup_runs.with_label_values(&[outcome.name()]);
        }
        for phase in Phase::ALL {
            self.backup_duration.with_label_values(&[phase.name()]);
        }
        for outcome in SYNC_OUTCOMES {
            self.sync_runs.with_label_values(&[outcome.name()]);
        }
        for set in Set::ALL {
            for action in Action::ALL {
                self.restored.with_label_values(&[set.name(), action.name()]);
            }
        }
        for operation in Restoring::ALL {
            self.restore_duration.with_label_values(&[operation.name()]);
        }
        for trigger in Trigger::ALL {
            for outcome in PROMOTION_OUTCOMES {
                self.promotions.with_label_values(&[trigger.name(), outcome.name()]);
            }
        }
        self.retired(0);
        for role in Role::ALL {
            self.role_changes.with_label_values(&[role.name()]);
        }
    }

    pub fn backup_run(&self, outcome: Outcome) {
        self.backup_runs.with_label_values(&[outcome.name()]).inc();
    }

    pub fn backup_phase(&self, phase: Phase, seconds: f64) {
        self.backup_duration.with_label_values(&[phase.name()]).observe(seconds);
    }

    pub fn sync_run(&self, outcome: Outcome) {
        self.sync_runs.with_label_values(&[outcome.name()]).inc();
    }

    pub fn restored(&self, set: Set, action: Action, objects: u64) {
        self.restored.with_label_values(&[set.name(), action.name()]).inc_by(objects);
    }

    pub fn restore_took(&self, operation: Restoring, seconds: f64) {
        self.restore_duration.with_label_values(&[operation.name()]).observe(seconds);
    }

    /// Counts what the storage's client reports.
    pub fn storage_observer(self: &Arc<Self>) -> Observer {
        let metrics = self.clone();
        Arc::new(move |operation, code, seconds| {
            metrics.storage_requests.with_label_values(&[operation, code]).inc();
            metrics.storage_duration.with_label_values(&[operation]).observe(seconds);
        })
    }

    /// Counts what the Kubernetes client reports.
    pub fn kube_observer(self: &Arc<Self>) -> Observer {
        let metrics = self.clone();
        Arc::new(move |verb, code, seconds| {
            metrics.kube_requests.with_label_values(&[verb, code]).inc();
            metrics.kube_duration.with_label_values(&[verb]).observe(seconds);
            metrics.kube_throttled.inc_by(u64::from(code == THROTTLED));
        })
    }

    pub fn promotion(&self, trigger: Trigger, outcome: Outcome) {
        self.promotions.with_label_values(&[trigger.name(), outcome.name()]).inc();
    }

    pub fn retired(&self, backups: usize) {
        self.retired_backups.with_label_values::<&str>(&[]).inc_by(backups as u64);
    }

    /// When it changed stands in the snapshot (`role_since`).
    pub fn role_changed(&self, role: Role) {
        self.role_changes.with_label_values(&[role.name()]).inc();
    }

    /// Counters and gauges in Prometheus' text format, families in the order of their names.
    pub fn render(&self, snapshot: &Snapshot, now: Timestamp) -> String {
        let mut families = self.registry.gather();
        families.extend(families::families(&gauges::gauges(snapshot, now)));
        families.sort_by(|left, right| left.name().cmp(right.name()));
        let mut text = Vec::new();
        match TextEncoder::new().encode(&families, &mut text) {
            Ok(()) => String::from_utf8(text).unwrap_or_default(),
            // A comment is valid exposition: the scrape shows why it is empty.
            Err(error) => format!("# {}\n", error.to_string().replace('\n', " ")),
        }
    }
}

fn storage_requests() -> (IntCounterVec, HistogramVec) {
    let requests = counters(
        "understudy_storage_requests_total",
        "Requests to the storage by operation and class of the answer.",
        &["operation", "code"],
    );
    let duration = histograms(
        "understudy_storage_request_duration_seconds",
        "Time of a request to the storage.",
        &["operation"],
        &REQUEST_BUCKETS,
    );
    (requests, duration)
}

fn kube_requests() -> (IntCounterVec, HistogramVec) {
    let requests = counters(
        "understudy_kube_requests_total",
        "Requests to the API server by verb and class of the answer.",
        &["verb", "code"],
    );
    let duration = histograms(
        "understudy_kube_request_duration_seconds",
        "Time of a request to the API server.",
        &["verb"],
        &REQUEST_BUCKETS,
    );
    (requests, duration)
}

fn throttled() -> IntCounter {
    let name = "understudy_kube_throttled_total";
    IntCounter::new(name, "Requests that the API server put off because it had too much to do.")
        .expect(WELL_FORMED)
}

const WELL_FORMED: &str = "name and labels are constants, and every test makes this metric";

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect(WELL_FORMED)
}

fn histograms(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    HistogramVec::new(options, labels).expect(WELL_FORMED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples::{self, now};

    /// The series of our own gauges, without what every test process shows differently.
    fn shown(snapshot: &Snapshot) -> Vec<String> {
        let text = Metrics::new().render(snapshot, now());
        let gauges = gauges::gauges(snapshot, now());
        text.lines()
            .filter(|line| {
                let name = line.split(['{', ' ']).next().unwrap_or_default();
                gauges.iter().any(|gauge| gauge.name == name)
            })
            .filter(|line| !line.starts_with("understudy_build_info"))
            .map(|line| line.trim_start_matches("understudy_").to_owned())
            .collect()
    }

    #[test]
    fn a_standby_shows_its_own_series() {
        let hub = "hub_info{hub=\"eu-2\",pair=\"eu-hubs\",\
                   hub_id=\"5f1c3e0e-0b3a-4f8e-9d53-6f7d7b8f1c11\",configured_role=\"passive\"} 1";
        let expected = [
            "config_last_reload_success_timestamp_seconds 1795189032",
            "config_last_reload_successful 1",
            "drill_deadline_timestamp_seconds 1802713032",
            "drill_last_duration_seconds 252.4",
            "drill_last_success_timestamp_seconds 1794159432",
            "epoch 7",
            hub,
            "loop_last_tick_timestamp_seconds{loop=\"backup\"} 1795196229",
            "loop_last_tick_timestamp_seconds{loop=\"probe\"} 1795196229",
            "loop_last_tick_timestamp_seconds{loop=\"promotion\"} 1795196229",
            "loop_last_tick_timestamp_seconds{loop=\"sync\"} 1795196229",
            "objective_rpo_seconds 3600",
            "objective_rto_seconds 900",
            "peer_heartbeat_deadline_timestamp_seconds{peer=\"eu-1\",peer_role=\"primary\"} 1795196251",
            "peer_heartbeat_timestamp_seconds{peer=\"eu-1\",peer_role=\"primary\"} 1795196191",
            "promotion_running 0",
            "promotion_started_timestamp_seconds 0",
            "rehearsal_failed_objects 0",
            "rehearsal_last_success_timestamp_seconds 1795196105",
            "restore_running_done_objects 0",
            "restore_running_planned_objects 0",
            "restored_backup_timestamp_seconds{set=\"credentials\"} 1795195800",
            "restored_backup_timestamp_seconds{set=\"resources\"} 1795195800",
            "role{role=\"primary\"} 0",
            "role{role=\"passive\"} 1",
            "role{role=\"promoting\"} 0",
            "role{role=\"fenced\"} 0",
            "role_changed_timestamp_seconds{role=\"passive\"} 1794418632",
            "standby_ready 1",
            "state_recovered 1",
            "storage_allow_unfenced 0",
            "storage_atomic_create 1",
            "storage_backups 48",
            "storage_clock_skew_seconds 0.1",
            "storage_last_probe_timestamp_seconds 1795196212",
            "storage_newest_backup_suspect 0",
            "storage_newest_backup_timestamp_seconds 1795195800",
            "storage_oldest_backup_timestamp_seconds 1792690632",
            "storage_up 1",
            "sync_deadline_timestamp_seconds 1795196702",
            "sync_last_success_timestamp_seconds 1795196104",
            "sync_paused 0",
            "verify_damaged_objects 0",
            "verify_deadline_timestamp_seconds 1795347432",
            "verify_last_success_timestamp_seconds 1795174632",
            "writer_conflict 0",
        ];
        assert_eq!(shown(&samples::passive()), expected);
    }

    #[test]
    fn nothing_durable_is_shown_before_it_is_known() {
        let names: Vec<&str> =
            gauges::gauges(&samples::starting(), now()).iter().map(|gauge| gauge.name).collect();
        for durable in ["epoch", "role", "storage_backups", "storage_up", "promotion_running"] {
            assert!(!names.contains(&format!("understudy_{durable}").as_str()), "{durable}");
        }
        assert!(shown(&samples::starting()).contains(&"state_recovered 0".to_owned()));
    }

    #[test]
    fn series_go_with_their_role() {
        let has = |snapshot: &Snapshot, series: &str| {
            shown(snapshot).iter().any(|line| line.starts_with(series))
        };
        assert!(has(&samples::primary(), "backup_last_objects{set=\"credentials\"} 29387"));
        assert!(has(&samples::primary(), "backup_last_outcome{outcome=\"success\"} 1"));
        assert!(has(&samples::primary(), "standbys{state=\"ready\"} 1"));
        assert!(!has(&samples::primary(), "sync_deadline"));
        assert!(!has(&samples::passive(), "backup_deadline"));
        assert!(!has(&samples::fenced(), "backup_deadline"));
        assert!(!has(&samples::fenced(), "standby_ready"));
        assert!(has(&samples::primary(), "verify_deadline"));
        assert!(!has(&samples::fenced(), "verify_deadline"));
        let mut promoted = samples::passive();
        promoted.role = Some(Role::Primary);
        assert!(has(&promoted, "drill_last_success") && !has(&promoted, "drill_deadline"));
        promoted.drill.known = false;
        assert!(!has(&promoted, "drill_last_success"));
        assert!(has(&samples::promoting(), "promotion_running 1"));
    }

    #[test]
    fn a_dead_primary_that_was_superseded_is_no_primary() {
        let peer = "peer_heartbeat_timestamp_seconds{peer=\"eu-1\",peer_role=";
        for (snapshot, role) in [
            (samples::passive(), "primary"),
            (samples::abandoned(), "primary"),
            (samples::promoting(), "fenced"),
        ] {
            let wanted = format!("{peer}\"{role}\"}}");
            assert!(shown(&snapshot).iter().any(|line| line.starts_with(&wanted)), "{role}");
        }
    }

    #[test]
    fn the_data_of_a_standby_is_told_when_it_is_known() {
        let told = |snapshot: &Snapshot| {
            let set = "restored_backup_timestamp_seconds{set=\"resources\"} ";
            shown(snapshot).iter().find_map(|line| line.strip_prefix(set).map(str::to_owned))
        };
        let mut standby = samples::passive();
        assert_eq!(told(&standby).as_deref(), Some("1795195800"));
        standby.sync.restored = None;
        assert_eq!(told(&standby), None, "after a restart: there is something, not yet compared");
        standby.sync.last_success_at = None;
        assert_eq!(told(&standby).as_deref(), Some("0"), "never");
    }

    #[test]
    fn what_is_paused_has_no_deadline() {
        let pause = |until| {
            let reason = "maintenance".to_owned();
            Some(crate::status::pause::Pause { since: now(), until, reason, epoch: 7 })
        };
        let mut primary = samples::primary();
        let shows = |snapshot: &Snapshot, line: &str| shown(snapshot).contains(&line.to_owned());
        assert!(shows(&primary, "backup_paused 0"));
        assert!(shows(&primary, "backup_deadline_timestamp_seconds 1795200600"));
        primary.pause = pause(None);
        (primary.backup.deadline_at, primary.backup.next_run_at) = (None, None);
        assert!(shows(&primary, "backup_paused 1"));
        assert!(shows(&primary, "backup_deadline_timestamp_seconds 0"));
        assert!(shows(&primary, "backup_next_run_timestamp_seconds 0"));
        let mut passive = samples::passive();
        passive.pause = pause(Some(now()));
        passive.sync.deadline_at = None;
        assert!(shows(&passive, "sync_paused 1"));
        assert!(shows(&passive, "sync_deadline_timestamp_seconds 0"));
    }

    #[test]
    fn every_gauge_is_named_and_shown_once() {
        for snapshot in [samples::primary(), samples::passive(), samples::promoting()] {
            let text = Metrics::new().render(&snapshot, now());
            let mut names: Vec<&str> =
                text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
            let all = names.len();
            names.dedup();
            assert_eq!(names.len(), all);
            for name in names {
                let (name, kind) = name.split_once(' ').unwrap();
                assert!(name.starts_with("understudy_") || name.starts_with("process_"), "{name}");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
            }
        }
    }

    #[test]
    fn counters_exist_at_zero_and_count() {
        let metrics = Arc::new(Metrics::new());
        let count = |line: &str| {
            let text = metrics.render(&samples::primary(), now());
            assert!(text.lines().any(|found| found == line), "no {line} in:\n{text}");
        };
        count("understudy_backup_runs_total{outcome=\"failed\"} 0");
        count("understudy_retention_deleted_backups_total 0");
        count("understudy_promotions_total{outcome=\"success\",trigger=\"signal\"} 0");
        metrics.backup_run(Outcome::Failed);
        metrics.promotion(Trigger::Signal, Outcome::Success);
        metrics.restored(Set::Resources, Action::Pruned, 3);
        metrics.backup_phase(Phase::List, 0.02);
        metrics.storage_observer()("create", "4xx", 0.004);
        metrics.kube_observer()("list", "2xx", 0.1);
        metrics.kube_observer()("list", THROTTLED, 0.1);
        metrics.restore_took(Restoring::Sync, 0.3);
        metrics.role_changed(Role::Primary);
        metrics.retired(3);
        count("understudy_retention_deleted_backups_total 3");
        count("understudy_backup_runs_total{outcome=\"failed\"} 1");
        count("understudy_promotions_total{outcome=\"success\",trigger=\"signal\"} 1");
        count("understudy_restore_objects_total{action=\"pruned\",set=\"resources\"} 3");
        count("understudy_backup_duration_seconds_bucket{phase=\"list\",le=\"0.05\"} 1");
        count("understudy_storage_requests_total{code=\"4xx\",operation=\"create\"} 1");
        count("understudy_kube_requests_total{code=\"2xx\",verb=\"list\"} 1");
        count("understudy_kube_throttled_total 1");
        count("understudy_restore_duration_seconds_count{operation=\"sync\"} 1");
        count("understudy_restore_duration_seconds_count{operation=\"promotion\"} 0");
        count("understudy_role_changes_total{role=\"primary\"} 1");
    }
}
