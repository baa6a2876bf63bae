//! The promises, on real API servers and a real S3 server; one module a promise.

#[path = "../harness/mod.rs"]
mod harness;

mod backup_round_trip;
mod cut_is_one_instant;
mod delta_reaches_the_passive;
mod no_change_writes_nothing;
mod prune_spares_foreign_objects;
mod stage;
mod storage;
