//! `understudy key …`: making one, listing those that the pair uses, changing to another.

use super::exit::{Code, Failure};
use super::render_keys::{self, KeyRow};
use super::stored::{self, Stored, show};
use super::{Global, ask, run};
use crate::kube_status::ask::Verb;
use crate::repository::chain::View;
use crate::repository::checkpoint;
use crate::repository::keys;
use std::path::Path;
use std::time::Duration;

pub(super) fn new_key(out: Option<&Path>) -> Result<(), Failure> {
    let now = crate::clock::now();
    match out {
        Some(path) => {
            let public = keys::create_key_file(path, now)?;
            println!("{public}");
            eprintln!(
                "wrote {}: bring the same file to every hub of the pair, and keep a copy elsewhere",
                path.display()
            );
        }
        None => print!("{}", keys::new_key_text(now).0),
    }
    Ok(())
}

/// From the storage alone. Fails when a key is missing that the pair still needs.
pub(super) async fn list(global: &Global) -> Result<(), Failure> {
    let settings = run::settings(global)?;
    let keys = stored::keys(&settings)?;
    let files = settings.encryption.key_files.iter().map(|file| file.display().to_string());
    let held: Vec<_> = keys.ids().map(str::to_owned).zip(files).collect();
    let storage = stored::storage(&settings).await?;
    let location = storage.location().to_owned();
    let Some(stored) = Stored::read(storage, keys.clone()).await? else {
        eprintln!("there is no repository in {location} yet");
        show(render_keys::list(&render_keys::rows(&held, &View::default(), false), global.output))?;
        return Ok(());
    };
    // Without the first key of all, a hub begins at what was left under the one of today.
    let id = stored.journal.repository();
    let startable = checkpoint::newest(&stored.storage, id, &keys).await?.is_some();
    let rows = render_keys::rows(&held, stored.view(), startable);
    show(render_keys::list(&rows, global.output))?;
    stored.complete()?;
    missing(&rows)
}

fn missing(rows: &[KeyRow]) -> Result<(), Failure> {
    let missing: Vec<_> =
        rows.iter().filter(|row| row.file.is_none()).map(|row| row.id.as_str()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("not held here, and needed by backups: {}", missing.join(", "));
    Err(Failure::new(Code::KeyMissing, message)
        .with_hint("add these key files to encryption.keyFiles, behind the first"))
}

pub(super) async fn rotate(global: &Global, force: bool, timeout: Duration) -> Result<(), Failure> {
    ask::ask(global, Verb::KeyRotate { force }, Some(timeout)).await
}
