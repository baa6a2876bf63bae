//! The first half of a turn: what the journal, the storage and the peers say, as [`Facts`].

use super::super::surface;
use super::{Control, ControlError, Opened};
use crate::backup::Primary;
use crate::daemon::Shared;
use crate::promotion::checklist::{self, Known};
use crate::promotion::machine::{Ended, Facts, Holder, Incarnation, JournalFacts};
use crate::repository::Repository;
use crate::repository::chain::View;
use crate::repository::journal::{Journal, JournalError};
use crate::repository::layout::Mark;
use crate::repository::packs::PackStore;
use crate::retry;
use crate::status::Frozen;
use crate::sync::Standby;
use std::sync::Arc;
use tokio::sync::Mutex;

impl Control {
    /// Reads the journal to its head; opens or makes the repository when that has not happened yet.
    pub(super) async fn look(&mut self) -> Option<JournalFacts> {
        let begun = crate::clock::monotonic();
        let result = self.refresh().await;
        let now = crate::clock::now();
        let latency = (crate::clock::monotonic() - begun).as_secs_f64();
        self.shared.board.update(|s| {
            s.storage.last_probe_at = Some(now);
            s.storage.up =
                Some(!matches!(&result, Err(ControlError::Journal(JournalError::Storage(_)))));
            s.storage.error = result.as_ref().err().map(|error| retry::chain(error));
            s.storage.latency_seconds = result.is_ok().then_some(latency);
        });
        match result {
            Ok(facts) => facts,
            Err(error) => {
                tracing::warn!(error = retry::chain(&error), "the repository cannot be read");
                // What was read before still stands in the journal: nothing there ever changes.
                let journal = self.opened.as_ref()?.repository.journal.try_lock().ok()?;
                Some(self.journal_facts(journal.view()))
            }
        }
    }

    async fn refresh(&mut self) -> Result<Option<JournalFacts>, ControlError> {
        if self.opened.is_none() {
            let frozen = match self.open_repository().await {
                Ok(true) => None,
                Ok(false) => {
                    let seen = surface::watermark(&self.shared.board);
                    return Ok(Some(JournalFacts { frozen: seen.map(gone), ..Default::default() }));
                }
                Err(ControlError::Journal(JournalError::Repo(error))) => Some(error.frozen()),
                Err(ControlError::Journal(JournalError::Frozen(frozen))) => Some(frozen),
                Err(error) => return Err(error),
            };
            if frozen.is_some() {
                return Ok(Some(JournalFacts { frozen, ..JournalFacts::default() }));
            }
        }
        let Some(opened) = &self.opened else { return Ok(None) };
        let repository = opened.repository.clone();
        let mut journal = repository.journal.lock().await;
        let view = journal.refresh().await?;
        surface::show_view(&self.shared.board, view, &self.me);
        Ok(Some(self.journal_facts(view)))
    }

    /// `false`: there is none yet, and this hub may not make it.
    pub(super) async fn open_repository(&mut self) -> Result<bool, ControlError> {
        let Shared { storage, keys, settings, cache, client, place, .. } = &self.shared;
        let watermark = surface::watermark(&self.shared.board);
        let Some(mut journal) = Journal::open(storage.clone(), keys.clone(), watermark).await?
        else {
            return Ok(false);
        };
        journal.resume(Some(cache)).await?;
        journal.refresh().await?;
        if watermark.is_none() {
            journal.look_for_holes().await?;
        }
        let id = journal.repository().to_owned();
        let packs = PackStore::new(storage.clone(), keys.clone(), &id, cache.join("packs"))?;
        let standby =
            Standby::new(client.clone(), packs.clone(), &place.namespace, settings.clone());
        let selection = settings.selection.clone().with_own_namespace(&place.namespace);
        let primary = Primary::new(
            client.clone(),
            packs.clone(),
            keys.clone(),
            selection,
            settings.schedule.record_unchanged,
            settings.schedule.max_shrink,
        );
        let repository = Arc::new(Repository {
            storage: storage.clone(),
            keys: keys.clone(),
            id,
            packs,
            journal: Mutex::new(journal),
        });
        self.shared.beats.begin(repository.clone());
        self.opened = Some(Opened {
            repository,
            primary: Arc::new(Mutex::new(primary)),
            standby: Arc::new(Mutex::new(standby)),
        });
        Ok(true)
    }

    fn journal_facts(&self, view: &View) -> JournalFacts {
        let holder = match &view.holder {
            None => Holder::Nobody,
            Some(holder) if *holder == self.me => Holder::Me,
            Some(holder) if holder.name == self.me.name => Holder::MyNamesake,
            Some(holder) => Holder::Other(holder.name.clone()),
        };
        let incarnation = match self.own_open {
            Some((epoch, slot)) if epoch == view.epoch && slot == view.incarnation => {
                Incarnation::Mine
            }
            Some((epoch, _)) if epoch == view.epoch => Incarnation::Newer,
            Some(_) | None => Incarnation::NotOpened,
        };
        JournalFacts {
            frozen: view.frozen.clone(),
            passable: !view.passable().is_empty(),
            epoch: view.epoch,
            holder,
            handed: view.handed.clone(),
            ended: view.former(&self.me).map(|former| {
                if former.handed_over { Ended::HandedOver } else { Ended::Superseded(former.epoch) }
            }),
            incarnation,
            activated: view.activated,
            usable: view.usable.as_ref().map(|backup| backup.mark.slot),
            granted: self
                .request
                .as_ref()
                .and_then(|request| view.requests.get(&request.id))
                .copied(),
        }
    }

    pub(super) fn facts(&self, journal: Option<JournalFacts>) -> Facts {
        let storage_up = self.shared.board.read().storage.up == Some(true);
        Facts {
            looked: journal.as_ref().is_none_or(|journal| self.has_looked(journal)),
            checklist: self.checklist(journal.as_ref(), storage_up),
            journal,
            storage_up,
            initial_role: self.shared.settings.hub.initial_role,
            fence: self.fence(),
            rejoined: self.shared.board.read().handover.rejoined,
            request: self.request.clone(),
        }
    }

    /// Whether the checklist says what is, and not only what this process does not know yet.
    fn has_looked(&self, journal: &JournalFacts) -> bool {
        if journal.holder == Holder::Me {
            return true;
        }
        let snapshot = self.shared.board.read();
        let beats = &self.shared.beats;
        let backup = journal.usable.is_none()
            || (journal.usable == self.timing.newest_slot()
                && self.timing.newest_modified().is_some()
                && beats.storage_now(crate::clock::monotonic()).is_some()
                && (snapshot.sync.damaged.is_some()
                    || snapshot.sync.opened == self.timing.newest_usable()));
        let forced = self.request.as_ref().is_some_and(|request| request.forced.is_some());
        let handed = journal.handed.as_ref().is_some_and(|handed| handed.is_for(&self.me.name));
        let silence = match &journal.holder {
            Holder::Other(primary) if !forced && !handed => {
                let silence = self.shared.settings.promotion.primary_silence;
                beats.can_judge(primary, silence.max(beats.least_silence(primary)))
            }
            Holder::Other(_) | Holder::Nobody | Holder::Me | Holder::MyNamesake => true,
        };
        backup && silence
    }

    fn checklist(
        &self,
        journal: Option<&JournalFacts>,
        storage_up: bool,
    ) -> Vec<crate::status::Check> {
        let Some(JournalFacts { holder, handed, .. }) = journal else { return vec![] };
        let primary = match holder {
            Holder::Other(primary) => primary,
            Holder::Me if handed.is_some() => &self.me.name,
            Holder::Me | Holder::MyNamesake | Holder::Nobody => return vec![],
        };
        let now = crate::clock::monotonic();
        let snapshot = self.shared.board.read();
        let settings = &self.shared.settings.promotion;
        let modified = self.timing.newest_modified();
        let data_age = self.shared.beats.storage_now(now).zip(modified).and_then(|(now, at)| {
            std::time::Duration::try_from(now.duration_since(at).max(jiff::SignedDuration::ZERO))
                .ok()
        });
        let request = self.request.as_ref();
        let guards = request.map(|request| request.guards.clone()).unwrap_or_default();
        let silence = settings.primary_silence.max(self.shared.beats.least_silence(primary));
        let known = Known {
            hub: self.me.name.clone(),
            namespace: self.shared.place.namespace.clone(),
            storage_up,
            fence: self.fence(),
            newest: self.timing.newest_usable(),
            opened: snapshot.sync.opened.clone(),
            damaged: snapshot.sync.damaged.clone(),
            data_age,
            max_data_age: guards
                .max_data_age_seconds
                .map_or(settings.max_data_age, std::time::Duration::from_secs),
            expected: guards.expect_backup,
            primary: primary.clone(),
            handed: snapshot.handover.handed.clone(),
            silent_for: self.shared.beats.silent_for(primary),
            primary_silence: silence,
            unread_key: self.shared.beats.unread_key(primary, silence),
            waiting: snapshot.sync.waiting.clone(),
            rehearsal: snapshot.sync.rehearsal.clone(),
            forced: request.is_some_and(|request| request.forced.is_some()),
        };
        match holder {
            Holder::Me => checklist::taking_back(&known),
            Holder::Other(_) | Holder::MyNamesake | Holder::Nobody => checklist::checklist(&known),
        }
    }
}

/// Whoever emptied the storage, this hub has seen a repository there: it neither waits for the first
/// primary nor becomes it.
fn gone(seen: Mark) -> Frozen {
    Frozen {
        reason: "Rewound".to_owned(),
        message: format!(
            "the storage holds no repository, but this hub has seen slot {} of its journal",
            seen.slot
        ),
        hint: "restore the objects from the storage's own versions; to begin anew on purpose, \
               delete the Hub resource of this hub while its daemon is stopped"
            .to_owned(),
    }
}
