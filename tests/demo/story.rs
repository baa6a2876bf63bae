//! What is told, with the seconds since the beginning, and the figures that are kept.

use crate::harness::Result;
use serde_json::{Map, Value};
use std::path::Path;
use std::time::Instant;
use understudy::clock::monotonic;

pub(crate) struct Story {
    start: Instant,
    figures: Map<String, Value>,
}

impl Story {
    pub(crate) fn begin() -> Self {
        let mut story = Self { start: monotonic(), figures: Map::new() };
        // Until they have happened.
        story.figure("promoted", false);
        story.figure("fenced", false);
        story
    }

    pub(crate) fn elapsed(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    pub(crate) fn heading(text: &str) {
        println!("\n           {text}");
    }

    pub(crate) fn say(&self, text: impl AsRef<str>) {
        println!("{:7.1} s  {}", self.elapsed(), text.as_ref());
    }

    pub(crate) fn figure(&mut self, name: &str, value: impl Into<Value>) {
        let mut value = value.into();
        if let Some(seconds) = value.as_f64().filter(|_| value.is_f64()) {
            value = ((seconds * 1000.0).round() / 1000.0).into();
        }
        self.figures.insert(name.to_owned(), value);
    }

    pub(crate) fn is(&self, name: &str) -> bool {
        self.figures.get(name) == Some(&Value::Bool(true))
    }

    pub(crate) fn end(&mut self, well: bool) {
        let total = self.elapsed();
        self.figure("total_seconds", total);
        let verdict = if well { "Everything is as it should be" } else { "Something is wrong" };
        println!("\n{total:7.1} s  {verdict}.");
    }

    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        Ok(std::fs::write(file, serde_json::to_vec_pretty(&self.figures)?)?)
    }
}
