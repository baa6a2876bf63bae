//! Signs of life: this hub's own, and what is seen of the others.
//!
//! Information, never safety. Silence is judged by bytes that do not change, over this hub's own
//! monotonic clock; two hubs' clocks are never compared.

use super::Shared;
use crate::repository::Repository;
use crate::repository::drill::Drills;
use crate::repository::layout::{BEATS, RECORD_LIMIT, beat_key};
use crate::repository::record::{self, Beat, BeatError, HubId};
use crate::repository::storage::StorageError;
use crate::retry;
use crate::status::{Peer, Role, verdict};
use bytes::Bytes;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A hub counts as silent after so many of its own intervals at the least.
const MISSED_BEATS: u32 = 3;

/// What the beats loop shares with the control loop.
#[derive(Clone, Default)]
pub(super) struct Beats {
    repository: Arc<watch::Sender<Option<Arc<Repository>>>>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    peers: BTreeMap<String, SeenPeer>,
    /// What stands in the place of a hub's heartbeat, under a key that this hub does not hold.
    unread: BTreeMap<String, Unread>,
    /// The first and the last complete look of an unbroken row: silence is only what was looked at.
    looks: Option<(Instant, Instant)>,
    /// The storage's clock, and when it told it.
    storage_clock: Option<(Timestamp, Instant)>,
}

struct SeenPeer {
    bytes: Bytes,
    beat: Beat,
    changed: Instant,
    changed_at: Timestamp,
    /// It was seen to change: whoever writes it was alive while this hub looked.
    lived: bool,
}

struct Unread {
    bytes: Bytes,
    key: String,
    /// When it was seen to change: whoever writes it was alive while this hub looked.
    changed: Option<Instant>,
}

impl Beats {
    /// The repository is open: beats can be written and read.
    pub(super) fn begin(&self, repository: Arc<Repository>) {
        self.repository.send_replace(Some(repository));
    }

    /// Waits until the repository is open.
    pub(super) async fn repository(&self) -> Option<Arc<Repository>> {
        let mut repositories = self.repository.subscribe();
        repositories.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// How long `hub` has shown nothing new, over the looks that were complete.
    pub(super) fn silent_for(&self, hub: &str) -> Duration {
        let seen = self.seen();
        let Some((first, last)) = seen.looks else { return Duration::ZERO };
        let since = seen.peers.get(hub).map_or(first, |peer| peer.changed);
        last.saturating_duration_since(since)
    }

    /// Whether anything can be said of `hub`: it was seen alive, or looked at for as long as it must
    /// be silent.
    pub(super) fn can_judge(&self, hub: &str, silence: Duration) -> bool {
        let seen = self.seen();
        let looked = seen.looks.is_some_and(|(first, last)| last.duration_since(first) >= silence);
        looked || seen.peers.get(hub).is_some_and(|peer| peer.lived)
    }

    /// The key, which this hub does not hold, under which `hub` has shown signs of life within the time
    /// that it must be silent.
    pub(super) fn unread_key(&self, hub: &str, silence: Duration) -> Option<String> {
        let seen = self.seen();
        let (_, last) = seen.looks?;
        seen.unread.get(hub).and_then(|unread| unread.alive(last, silence)).map(str::to_owned)
    }

    /// Whether all heartbeats were read once.
    pub(super) fn looked(&self) -> bool {
        self.seen().looks.is_some()
    }

    /// The least silence of `hub` that says anything.
    pub(super) fn least_silence(&self, hub: &str) -> Duration {
        let seen = self.seen();
        let interval = seen.peers.get(hub).map_or(0.0, |peer| peer.beat.interval_seconds);
        Duration::try_from_secs_f64(interval).unwrap_or_default().saturating_mul(MISSED_BEATS)
    }

    /// The storage's clock now.
    pub(super) fn storage_now(&self, now: Instant) -> Option<Timestamp> {
        let (at, told) = self.seen().storage_clock?;
        at.checked_add(now.duration_since(told)).ok()
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Beats and looks for the beats of others, as long as the daemon runs.
pub(super) async fn run(shared: Shared, hub_uid: String, stop: CancellationToken) {
    let own = HubId { name: shared.settings.hub.name.clone(), uid: hub_uid };
    let run = format!("{:032x}", crate::clock::random());
    let mut counter = 0;
    let work = async {
        let Some(repository) = shared.beats.repository().await else { return };
        // A first beat with the wrong role would stand there for ever if this process died right after
        // it. A hub that does not find its role beats all the same.
        let _ = tokio::time::timeout(shared.settings.hub.heartbeat, role_is_known(&shared)).await;
        recover_drills(&shared, &repository, &own).await;
        loop {
            counter += 1;
            let beat = beat(&shared, &repository, &own, &run, counter);
            let bytes = record::encode_beat(&beat, &repository.keys);
            if let Err(error) = repository.storage.put(&beat_key(&own.name), bytes.into()).await {
                tracing::debug!(error = retry::chain(&error), "failed to write the heartbeat");
            }
            if let Err(error) = look(&shared, &repository, &own).await {
                tracing::debug!(error = retry::chain(&error), "failed to read the heartbeats");
            }
            shared.board.tick("probe", crate::clock::now());
            tokio::time::sleep(shared.settings.hub.heartbeat).await;
        }
    };
    stop.run_until_cancelled(work).await;
}

/// The heartbeat of an earlier process is the record of its drills: it is read before it is written over,
/// however long that takes.
async fn recover_drills(shared: &Shared, repository: &Repository, own: &HubId) {
    loop {
        match own_drills(repository, own).await {
            Ok(drills) => {
                let every = shared.settings.objectives.drill_every;
                return shared.board.update(|s| s.drill.recovered(drills, every, s.started_at));
            }
            Err(error) => {
                tracing::debug!(error = retry::chain(&error), "failed to read the own heartbeat");
                tokio::time::sleep(shared.settings.hub.heartbeat).await;
            }
        }
    }
}

/// None: nothing of this very hub that can be read.
async fn own_drills(repository: &Repository, own: &HubId) -> Result<Option<Drills>, StorageError> {
    let stored = match repository.storage.get(&beat_key(&own.name), RECORD_LIMIT).await {
        Ok(Some(stored)) => stored,
        Ok(None) | Err(StorageError::TooLarge { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let beat = record::decode_beat(&stored.bytes, &repository.id, &repository.keys).ok();
    Ok(beat.filter(|beat| beat.hub == *own).and_then(|beat| beat.drills))
}

async fn role_is_known(shared: &Shared) {
    let mut changed = shared.board.watch();
    while shared.board.read().role.is_none() && changed.changed().await.is_ok() {}
}

fn beat(shared: &Shared, repository: &Repository, own: &HubId, run: &str, counter: u64) -> Beat {
    let now = crate::clock::now();
    let snapshot = shared.board.read();
    let backup = match snapshot.role {
        Some(Role::Primary) => snapshot.newest.as_ref(),
        Some(Role::Passive | Role::Promoting | Role::Fenced) | None => {
            snapshot.sync.restored.as_ref()
        }
    };
    Beat {
        repository: repository.id.clone(),
        hub: own.clone(),
        key: repository.keys.id().to_owned(),
        keys: repository.keys.ids().map(str::to_owned).collect(),
        role: snapshot.role.unwrap_or(Role::Passive),
        epoch: snapshot.epoch,
        incarnation: 0,
        counter,
        run: run.to_owned(),
        interval_seconds: shared.settings.hub.heartbeat.as_secs_f64(),
        backup: backup.map(|backup| backup.id.clone()),
        ready: verdict::standby_ready(&snapshot, now),
        drills: snapshot.drill.stored(),
        at: now,
    }
}

async fn look(shared: &Shared, repository: &Repository, own: &HubId) -> Result<(), StorageError> {
    for entry in repository.storage.list(BEATS, None).await? {
        let stored = match repository.storage.get(&entry.key, RECORD_LIMIT).await {
            Ok(Some(stored)) => stored,
            // Gone meanwhile, or nothing that a hub has written.
            Ok(None) | Err(StorageError::TooLarge { .. }) => continue,
            Err(error) => return Err(error),
        };
        let (now, monotonic) = (crate::clock::now(), crate::clock::monotonic());
        let skew = stored.now.duration_since(now).as_secs_f64();
        shared.board.update(|s| s.storage.clock_skew_seconds = Some(skew));
        let mut seen = shared.beats.seen();
        // Any answer tells the storage's clock, also the one about this hub's own beat.
        seen.storage_clock = Some((stored.now, monotonic));
        let Some(name) = entry.key.strip_prefix(BEATS).filter(|name| *name != own.name) else {
            continue;
        };
        match record::decode_beat(&stored.bytes, &repository.id, &repository.keys) {
            Ok(beat) if beat.hub.name == name => {
                seen.unread.remove(name);
                let before = seen.peers.get(name);
                let lived = before.is_some();
                if before.is_none_or(|peer| peer.bytes != stored.bytes) {
                    let (bytes, changed, changed_at) = (stored.bytes, monotonic, now);
                    let peer = SeenPeer { bytes, beat, changed, changed_at, lived };
                    seen.peers.insert(name.to_owned(), peer);
                }
            }
            Err(BeatError::UnknownKey { key }) => {
                seen.cannot_read(name, key, stored.bytes, monotonic);
            }
            Ok(_) | Err(BeatError::Junk) => {}
        }
    }
    let (now, monotonic) = (crate::clock::now(), crate::clock::monotonic());
    let settings = &shared.settings;
    let mut seen = shared.beats.seen();
    seen.looked(monotonic, settings.hub.heartbeat.saturating_mul(MISSED_BEATS));
    let silence = settings.promotion.primary_silence;
    let unread = seen.unread.iter().filter_map(|(hub, unread)| {
        unread.alive(monotonic, silence).map(|key| (hub.clone(), key.to_owned()))
    });
    let unread: BTreeMap<_, _> = unread.collect();
    let mut peers: Vec<_> =
        seen.peers.values().map(|peer| shown(peer, silence, now, monotonic)).collect();
    drop(seen);
    for peer in &mut peers {
        // It cannot be heard for want of the key: that is not silence.
        peer.silent &= !unread.contains_key(&peer.hub);
    }
    shared.board.update(|s| {
        s.peers = peers;
        s.keys.unread = unread;
    });
    Ok(())
}

impl Unread {
    /// Its key, if it is not older than `patience`.
    fn alive(&self, now: Instant, patience: Duration) -> Option<&str> {
        let changed = self.changed?;
        (now.duration_since(changed) < patience).then_some(&*self.key)
    }
}

impl Seen {
    fn cannot_read(&mut self, hub: &str, key: String, bytes: Bytes, now: Instant) {
        let changed = match self.unread.get(hub) {
            Some(before) if before.bytes == bytes => return,
            before => before.map(|_| now),
        };
        self.unread.insert(hub.to_owned(), Unread { bytes, key, changed });
    }

    /// A look was complete. After a gap nothing is known of the time between: every silence begins
    /// anew, and a hub that could not be heard does not count as silent.
    fn looked(&mut self, now: Instant, longest_gap: Duration) {
        let first = match self.looks {
            Some((first, last)) if now.duration_since(last) <= longest_gap => first,
            Some(_) | None => {
                for peer in self.peers.values_mut() {
                    peer.changed = now;
                    peer.lived = false;
                }
                now
            }
        };
        self.looks = Some((first, now));
    }
}

fn shown(peer: &SeenPeer, primary_silence: Duration, now: Timestamp, monotonic: Instant) -> Peer {
    let beat = &peer.beat;
    let interval = Duration::try_from_secs_f64(beat.interval_seconds).unwrap_or_default();
    let patience = primary_silence.max(interval.saturating_mul(MISSED_BEATS));
    Peer {
        hub: beat.hub.name.clone(),
        role: Some(beat.role),
        heartbeat_at: peer.changed_at,
        deadline_at: peer.changed_at.checked_add(patience).unwrap_or(now),
        silent: monotonic.duration_since(peer.changed) >= patience,
        backup: beat.backup.clone(),
        backup_at: None,
        epoch: Some(beat.epoch),
        keys: beat.keys.clone(),
        ready: (beat.role == Role::Passive).then_some(beat.ready),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_under_a_key_that_is_not_held_is_told_while_it_changes() {
        let start = crate::clock::monotonic();
        let at = |seconds| start + Duration::from_secs(seconds);
        let beats = Beats::default();
        let look = |seconds, bytes: &'static str| {
            let mut seen = beats.seen();
            let bytes = Bytes::from_static(bytes.as_bytes());
            seen.cannot_read("eu-1", "k2".to_owned(), bytes, at(seconds));
            seen.looked(at(seconds), Duration::from_secs(30));
            drop(seen);
            beats.unread_key("eu-1", Duration::from_mins(1))
        };
        // What stands there may be years old.
        assert_eq!(look(0, "one"), None);
        assert_eq!(look(10, "one"), None);
        assert_eq!(look(20, "two").as_deref(), Some("k2"));
        assert_eq!(look(50, "two").as_deref(), Some("k2"));
        assert_eq!(look(80, "two"), None, "it is silent");
    }

    #[test]
    fn only_what_was_looked_at_is_silence() {
        let start = crate::clock::monotonic();
        let at = |seconds| start + Duration::from_secs(seconds);
        let beats = Beats::default();
        let look = |seconds| beats.seen().looked(at(seconds), Duration::from_secs(30));
        assert_eq!(beats.silent_for("eu-1"), Duration::ZERO);
        look(0);
        assert!(!beats.can_judge("eu-1", Duration::from_mins(1)));
        for seconds in (10..=60).step_by(10) {
            look(seconds);
        }
        assert!(beats.can_judge("eu-1", Duration::from_mins(1)));
        assert_eq!(beats.silent_for("eu-1"), Duration::from_mins(1));
        // Five minutes without the storage: nobody was heard, and nobody was silent.
        look(360);
        assert_eq!(beats.silent_for("eu-1"), Duration::ZERO);
        assert!(!beats.can_judge("eu-1", Duration::from_mins(1)));
    }
}
