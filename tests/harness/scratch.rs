//! A folder that disappears with the test, also when the test is killed.
//!
//! `UNDERSTUDY_TEST_KEEP=1` leaves all of them, for a look at the servers' logs.

use super::{Result, process};
use std::path::{Path, PathBuf};

/// Part of the name of every folder, so that nothing else can ever be removed by mistake.
pub(super) const PREFIX: &str = "understudy-test-";

pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn new() -> Result<Self> {
        let path = tempfile::Builder::new().prefix(PREFIX).tempdir()?.keep();
        if !keep() {
            process::remove_at_end(&path)?;
        }
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !keep() {
            // The watchdog tries again at the end of this process.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn keep() -> bool {
    std::env::var_os("UNDERSTUDY_TEST_KEEP").is_some()
}
