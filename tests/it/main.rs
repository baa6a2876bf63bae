//! The promises, on real API servers and a real S3 server; one module a promise.

mod actors;
mod canary;
#[path = "../harness/mod.rs"]
mod harness;
mod scene;
mod stage;

mod annotation_promotes;
mod api_faults;
mod backup_pause;
mod backup_round_trip;
mod backup_times_out;
mod broken_histories;
mod capture_faults;
mod cli;
mod cli_storage;
mod crash_points;
mod cut_is_one_instant;
mod damaged_repository;
mod delta_reaches_the_passive;
mod drift;
mod endpoints;
mod failed_kinds;
mod flow_control;
mod junk_is_passed_by;
mod key_rotation;
mod levels_stay_few;
mod lost_answers;
mod no_change_writes_nothing;
mod one_object_back;
mod presets;
mod prune_spares_foreign_objects;
mod races;
mod restart_resumes;
mod retention;
mod selection;
mod shrink_is_suspect;
mod split_brain_is_fenced;
mod stock_tools;
mod storage;
mod storage_faults;
mod storage_outage;
mod storage_that_cannot_fence;
mod stored_backups_are_verified;
mod sweep;
mod unplanned_failover;
