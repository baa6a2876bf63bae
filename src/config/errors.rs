//! Pure: what is wrong with a configuration, all of it at once, each with its place.

use std::fmt;
use std::path::PathBuf;

/// Everything that is wrong with one configuration. Never empty.
#[derive(Debug, thiserror::Error)]
pub struct ConfigErrors {
    pub file: PathBuf,
    pub errors: Vec<ConfigError>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub place: Place,
    /// `storage.s3.bucket`; empty where the file as a whole is meant.
    pub key: String,
    pub what: String,
    /// What would be right. May be empty.
    pub hint: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The file as a whole: it cannot be read.
    File,
    Line {
        line: u64,
        column: Option<u64>,
    },
    /// The variable that overrides the key.
    Variable(String),
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match &error.place {
                Place::File => write!(f, "{}: ", self.file.display())?,
                Place::Line { line, column: None } => {
                    write!(f, "{}:{line}: ", self.file.display())?;
                }
                Place::Line { line, column: Some(column) } => {
                    write!(f, "{}:{line}:{column}: ", self.file.display())?;
                }
                Place::Variable(name) => write!(f, "{name}: ")?,
            }
            if !error.key.is_empty() {
                write!(f, "{}: ", error.key)?;
            }
            f.write_str(&error.what)?;
            if !error.hint.is_empty() {
                write!(f, "; {}", error.hint)?;
            }
        }
        Ok(())
    }
}

/// `did you mean …?` for the nearest of the known words, or the list of them where none is near.
pub(super) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(word, known.iter().copied()) {
        Some(candidate) => format!("did you mean {candidate}?"),
        None if known.is_empty() => String::new(),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// The known word that was most likely meant.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Two words that agree less than this are not one word mistyped.
    const NEAR: f64 = 0.75;
    let lower = word.to_lowercase();
    let scored = known
        .map(|candidate| (strsim::jaro_winkler(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(score, _)| *score >= NEAR);
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}
