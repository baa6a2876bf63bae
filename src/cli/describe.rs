//! `understudy backup describe`: everything that a commit says about its backup. No pack is read.

use super::exit::Failure;
use super::stored::{Stored, show};
use super::{Global, render_backup, run};

pub(super) async fn describe(global: &Global, id: &str) -> Result<(), Failure> {
    let stored = Stored::expect(&run::settings(global)?).await?;
    let found = stored.find(id).await?;
    let now = crate::clock::now();
    show(render_backup::description(&found.record, &found.backup, global.output, now))?;
    stored.complete()
}
