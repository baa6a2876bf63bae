//! `understudy storage check`: whether this storage is fit to keep the backups of a pair, seen from
//! here, now. It writes below `probes/` and removes what it wrote.

use super::exit::{Code, Failure};
use super::stored::{self, Stored, show};
use super::{Global, render_storage, run};
use crate::clock;
use crate::config::settings::Settings;
use crate::repository::layout::{RECORD_LIMIT, REPO};
use crate::repository::probe;
use crate::repository::storage::{Created, Storage, StorageError};
use crate::status::Check;
use crate::status::words::{count, plural, span_of};
use bytes::Bytes;
use jiff::SignedDuration;

/// S3 refuses requests that are 15 minutes off; well before that somebody should look at the clocks.
const MAX_SKEW: SignedDuration = SignedDuration::from_mins(1);

pub(super) async fn check(global: &Global) -> Result<(), Failure> {
    let settings = run::settings(global)?;
    let storage = stored::storage(&settings).await?;
    let findings = findings(&storage, &settings).await;
    let checks: Vec<Check> = findings.iter().map(|(check, _)| check.clone()).collect();
    show(render_storage::checks(storage.location(), &checks, global.output))?;
    let failed = checks.iter().filter(|check| !check.ok).count();
    if let Some((check, _)) =
        findings.iter().find(|(_, code)| *code == Some(Code::StorageUnreachable))
    {
        return Err(Failure::new(
            Code::StorageUnreachable,
            format!("{}: {}", check.name, check.why),
        ));
    }
    if failed > 0 {
        let message =
            format!("the storage is not in order: {failed} of {} checks failed", checks.len());
        return Err(Failure::new(Code::NotHealthy, message));
    }
    Ok(())
}

/// A check and, when it failed, the kind of the failure.
type Finding = (Check, Option<Code>);

async fn findings(storage: &Storage, settings: &Settings) -> Vec<Finding> {
    let started = clock::monotonic();
    let reached = storage.get(REPO, RECORD_LIMIT).await;
    let seconds = started.elapsed().as_secs_f64();
    let mut findings = vec![match reached {
        Ok(_) => passed("reachable", format!("answers within {}", span_of(seconds))),
        // Whatever stands there: the storage has answered.
        Err(error @ StorageError::TooLarge { .. }) => passed("reachable", error.to_string()),
        Err(error) => return vec![failed("reachable", error.into())],
    }];
    findings.extend(round_trip(storage).await);
    findings.push(match probe::race(storage, &nonce()).await {
        Ok(verdict) if verdict.atomic => passed("atomic create", verdict.why),
        Ok(verdict) => not_atomic(&verdict.why, settings.storage.allow_unfenced),
        Err(error) => failed("atomic create", error.into()),
    });
    findings.extend(repository(storage, settings).await);
    findings
}

fn nonce() -> String {
    format!("{:032x}", clock::random())
}

/// Writes, reads back and deletes; the answer tells the storage's clock as well.
async fn round_trip(storage: &Storage) -> Vec<Finding> {
    let key = format!("probes/{}/round-trip", nonce());
    let bytes = Bytes::from_static(b"understudy storage check\n");
    let trip = async {
        let created = storage.create(&key, bytes.clone()).await?;
        let stored = storage.get(&key, RECORD_LIMIT).await?;
        let now = clock::now();
        storage.delete(&key).await?;
        Ok::<_, StorageError>((created, stored, now))
    };
    let (created, stored, now) = match trip.await {
        Ok(trip) => trip,
        Err(error) => return vec![failed("writable", error.into())],
    };
    let intact = created == Created::Yes && stored.as_ref().is_some_and(|s| s.bytes == bytes);
    let Some(stored) = stored.filter(|_| intact) else {
        let why = format!("{key} was written, and reading it gives something else");
        return vec![failed(
            "writable",
            Failure::new(Code::Damaged, why).with_hint(
                "a read must show what was written: look for a cache or a replica in between",
            ),
        )];
    };
    let skew = stored.now.duration_since(now);
    let seconds = format!("{:.1}s", skew.as_secs_f64());
    let clocks = if skew.abs() <= MAX_SKEW {
        passed("clock skew", seconds)
    } else {
        let failure =
            Failure::new(Code::NotHealthy, format!("{seconds}; at most {MAX_SKEW:#} are in order"));
        failed(
            "clock skew",
            failure.with_hint("let NTP set the clock of this machine (or of the storage)"),
        )
    };
    vec![passed("writable", "written, read back and deleted".to_owned()), clocks]
}

fn not_atomic(why: &str, allowed: bool) -> Finding {
    let allowed =
        if allowed { "; storage.allowUnfenced lets a hub be primary all the same" } else { "" };
    let failure = Failure::new(Code::NotHealthy, format!("{why}{allowed}"));
    failed(
        "atomic create",
        failure.with_hint(
            "use a storage whose conditional create (If-None-Match: *) is atomic; on some servers that \
             holds only without bucket versioning",
        ),
    )
}

/// The repository in it: readable with these keys, to the last byte of the newest backup.
async fn repository(storage: &Storage, settings: &Settings) -> Vec<Finding> {
    let keys = match stored::keys(settings) {
        Ok(keys) => keys,
        Err(failure) => return vec![failed("key", failure)],
    };
    let stored = match Stored::read(storage.clone(), keys).await {
        Ok(Some(stored)) => stored,
        Ok(None) => return vec![passed("repository", "there is none yet".to_owned())],
        Err(failure) => return vec![failed("repository", failure)],
    };
    let view = stored.view();
    let mut findings = vec![match stored.complete() {
        Ok(()) => passed("repository", format!("epoch {}, {} slots", view.epoch, count(view.head))),
        Err(failure) => failed("repository", failure),
    }];
    let Some(newest) = view.newest.clone() else {
        findings.push(passed("newest backup", "there is none yet".to_owned()));
        return findings;
    };
    let (id, packs) = (newest.id(), newest.commit.packs().count());
    let opened = match stored.packs() {
        Ok((store, _cache)) => store.open(newest, None).await.map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    findings.push(match opened {
        Ok(opened) => {
            let (objects, packs) = (opened.contents.entries.len(), plural(packs, "pack", "packs"));
            passed(
                "newest backup",
                format!("{id} opens: {} objects in {packs}", count(objects as u64)),
            )
        }
        Err(failure) => failed("newest backup", failure),
    });
    findings
}

fn passed(name: &str, why: String) -> Finding {
    (Check { name: name.to_owned(), reason: String::new(), ok: true, why, hint: None }, None)
}

fn failed(name: &str, failure: Failure) -> Finding {
    let Failure { code, message, hint } = failure;
    let reason = code.reason().to_owned();
    (Check { name: name.to_owned(), reason, ok: false, why: message, hint }, Some(code))
}
