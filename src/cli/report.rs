//! `--report FILE`: what a verb has done, as JSON, for the archive.

use super::exit::{Code, Failure};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Told before anything is asked: nothing is written over.
pub(super) fn is_new(file: Option<&PathBuf>) -> Result<(), Failure> {
    match file.filter(|file| file.exists()) {
        None => Ok(()),
        Some(file) => Err(Failure::new(Code::Usage, format!("{} exists already", file.display()))),
    }
}

pub(super) fn keep(file: &Path, text: Result<String, serde_json::Error>) -> Result<(), Failure> {
    let written = text.map_err(std::io::Error::other).and_then(|text| {
        let mut created = std::fs::File::create_new(file)?;
        created.write_all(text.as_bytes())
    });
    written.map_err(|error| {
        let message = format!("failed to write the report {}: {error}", file.display());
        Failure::new(Code::Failed, message)
    })
}
