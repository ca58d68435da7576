//! The result per key, kept for `os config status`.

use os_config_model::decide::Source;
use os_config_model::json::{as_key, as_keys, dotted};
use os_config_model::model::Problem;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// What happened to one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was brought into force now.
    Applied,
    /// It was in force already.
    Unchanged,
    /// It comes into force at the next boot.
    Pending,
    /// It could not be brought into force.
    Failed,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// JSON pointer of the key.
    #[serde(with = "as_key")]
    pub key: String,
    /// The configuration sets it; otherwise its default is in force.
    pub set: bool,
    /// What happened.
    pub outcome: Outcome,
    /// Why, when it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// The whole result. The JSON form is stable; fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Version of this form.
    pub version: u32,
    /// Where the configuration in force comes from.
    pub source: Source,
    /// What is wrong with the file.
    pub problems: Vec<Problem>,
    /// Keys that nobody knows.
    #[serde(with = "as_keys")]
    pub unknown: Vec<String>,
    /// Keys of balenaOS that mean nothing here, each with the reason.
    #[serde(default)]
    pub without_effect: Vec<String>,
    /// What is in force, and may not do what its owner expects.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What else a person should know; nothing is wrong.
    #[serde(default)]
    pub notes: Vec<String>,
    /// One row per key.
    pub keys: Vec<Row>,
}

impl Status {
    /// True when the file is in force and every key of it.
    pub fn is_good(&self) -> bool {
        self.source == Source::File && self.problems.is_empty() && !self.has_failed()
    }

    /// This result, coming after another one of the same run: what was applied then was applied now.
    #[must_use]
    pub fn after(mut self, earlier: Option<Self>) -> Self {
        for before in earlier.into_iter().flat_map(|e| e.keys).filter(|k| k.outcome == Outcome::Applied) {
            if let Some(row) = self.keys.iter_mut().find(|k| k.key == before.key && k.outcome == Outcome::Unchanged) {
                row.outcome = Outcome::Applied;
            }
        }
        self
    }

    /// True when a key could not be brought into force.
    pub fn has_failed(&self) -> bool {
        self.keys.iter().any(|row| row.outcome == Outcome::Failed)
    }

    /// Reads the result of the last application.
    ///
    /// # Errors
    /// When it cannot be read, or is not of this form.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        Ok(serde_json::from_str(&os_sys::files::read_text(path)?)?)
    }

    /// Lines for people: what is wrong, what nobody knows.
    pub fn complaints(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for problem in &self.problems {
            let colon = if problem.pointer.is_empty() { ":" } else { "" };
            lines.push(format!("config.json{colon} {problem}"));
        }
        if !self.problems.is_empty() {
            lines.push(match self.source {
                Source::LastGood => "config.json is refused; the last good configuration stays in force".to_owned(),
                _ => "config.json is refused and there is no earlier good one; the defaults are in force".to_owned(),
            });
        }
        for key in &self.unknown {
            lines.push(format!("config.json {}: unknown key, no effect", dotted(key)));
        }
        for row in self.keys.iter().filter(|r| r.outcome == Outcome::Failed) {
            lines.push(format!("{}: {}", dotted(&row.key), row.reason.as_deref().unwrap_or("failed")));
        }
        lines
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.source {
            Source::File => "config.json",
            Source::LastGood => "the last good copy (config.json is refused)",
            Source::Defaults => "defaults (no good config.json)",
        };
        writeln!(f, "In force: {source}")?;
        for row in &self.keys {
            let origin = if row.set { "set" } else { "default" };
            let outcome = match row.outcome {
                Outcome::Applied => "applied",
                Outcome::Unchanged => "unchanged",
                Outcome::Pending => "at the next boot",
                Outcome::Failed => "FAILED",
            };
            writeln!(f, "  {:<40} {origin:<8} {outcome}", dotted(&row.key))?;
        }
        for line in self.without_effect.iter().chain(&self.warnings).chain(&self.notes) {
            writeln!(f, "  {line}")?;
        }
        for line in self.complaints() {
            writeln!(f, "! {line}")?;
        }
        Ok(())
    }
}
