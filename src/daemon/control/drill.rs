//! When a passive hub rehearses its promotion: an operator asks, or the schedule says so, and nothing
//! else is to be done. A promotion ends it at once.

use super::super::jobs::{self, Job};
use super::{Control, Next};
use crate::kube_status::ask::{Ask, Verb};
use crate::repository::chain::Backup;
use std::sync::Arc;

impl Control {
    /// In a turn in which no sync is due, so that it begins from what stands here.
    pub(super) fn drill(&mut self, backup: Arc<Backup>) -> Next {
        let Some(opened) = &self.opened else { return Next::Rest };
        let seen = self.shared.board.read();
        let scheduled = seen.drill.is_due(crate::clock::now()) && seen.sync.restored.is_some();
        let asked = self.asked.iter().any(is_drill);
        if self.request.is_some() || !(asked || scheduled) {
            return Next::Rest;
        }
        let cancel = self.stop.child_token();
        let (shared, standby) = (self.shared.clone(), opened.standby.clone());
        let job = jobs::drill(shared, standby, backup, cancel.clone());
        self.start(Job::Drill, cancel, job)
    }

    /// Nobody waits for its next object: all that it sends is a dry run.
    pub(super) fn end_drill(&self) {
        if let Some(work) = self.work.as_ref().filter(|work| work.job == Job::Drill) {
            work.cancel.cancel();
        }
    }

    /// The requests that a job answers.
    pub(super) fn answered_by(&mut self, job: Job) -> Vec<Ask> {
        match job {
            Job::Backup | Job::Sync => self.asked.extract_if(.., |ask| !is_drill(ask)).collect(),
            Job::Drill => self.asked.extract_if(.., |ask| is_drill(ask)).collect(),
            Job::Activation | Job::Probe => vec![],
        }
    }
}

fn is_drill(ask: &Ask) -> bool {
    ask.verb == Verb::Drill
}
