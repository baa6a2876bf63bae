//! What a benchmark has measured, as a table with the goals and as JSON.

use super::Result;
use serde_json::{Map, Value};
use std::path::Path;

/// Flat, in the order in which they were measured.
#[derive(Default)]
pub struct Figures(Vec<(&'static str, f64)>);

/// (figure, at most or at least, goal)
pub type Goal = (&'static str, char, f64);

impl Figures {
    pub fn set(&mut self, name: &'static str, value: f64) {
        self.0.push((name, value));
    }

    #[allow(clippy::cast_precision_loss)]
    pub fn count(&mut self, name: &'static str, value: u64) {
        self.set(name, value as f64);
    }

    fn print(&self, title: &str, goals: &[Goal]) {
        println!("\n{title}\n");
        println!("{:<32}{:>14}   goal", "figure", "value");
        for (name, value) in &self.0 {
            let goal = goals.iter().find(|(figure, ..)| figure == name);
            let goal = goal.map_or(String::new(), |(_, sign, goal)| {
                let reached = if *sign == '≤' { value <= goal } else { value >= goal };
                format!("{sign} {goal}  {}", if reached { "reached" } else { "MISSED" })
            });
            println!("{name:<32}{:>14}   {goal}", text(*value));
        }
    }

    /// As a table, and as JSON into the file, if there is one.
    pub fn tell(&self, title: &str, goals: &[Goal], json: Option<&Path>) -> Result<()> {
        self.print(title, goals);
        json.map_or(Ok(()), |file| self.write(file))
    }

    fn write(&self, file: &Path) -> Result<()> {
        let map: Map<String, Value> = self
            .0
            .iter()
            .map(|(name, value)| ((*name).to_owned(), text(*value).parse().unwrap_or(Value::Null)))
            .collect();
        Ok(std::fs::write(file, serde_json::to_vec_pretty(&map)?)?)
    }
}

/// Whole numbers without decimals, others with three.
fn text(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}
