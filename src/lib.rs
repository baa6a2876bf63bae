//! Understudy keeps a standby Kubernetes hub ready to take over from the primary hub.
//!
//! ```text
//!  primary hub                              repository                           passive hub
//!  kube-apiserver                           journal/<slot>  packs/…              kube-apiserver
//!    │ LIST at one revision                                                        ▲ writes, in waves
//!  capture ─► backup: changes ─► packs ──► put packs, then create Commit ──► sync ─► restore: plan ─► check ─► execute
//!    ▲                                          ▲                                  │
//!  schedule                                 promotion: facts ─► decide ─► one action
//! ```
//!
//! The modules stand below in the order in which an object passes through them.

pub mod differ;
pub mod json;
pub mod object;

pub mod config;
pub mod schedule;

pub mod backup;
pub mod capture;
pub mod clusters;
pub mod promotion;
pub mod repository;
pub mod restore;
pub mod sync;

pub mod cli;
pub mod clock;
pub mod daemon;
pub mod http;
pub mod kube_client;
pub mod kube_status;
pub mod logging;
pub mod metrics;
pub mod observe;
pub mod progress;
pub mod retry;
pub mod status;
