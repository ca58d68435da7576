//! A change of the file: checked as a whole, written, applied, and taken back when a service refuses it.

use super::current;
use crate::code;
use anyhow::{Result, bail};
use os_config::lock::Lock;
use os_config::status::{Outcome, Row};
use os_config_model::edit;
use os_config_model::json::{self, dotted};
use os_config_model::model::{self, Problem};
use os_config_model::store::Store;
use os_sys::files::FileError;
use os_sys::out;
use serde::Serialize;
use serde_json::Value;
use std::fmt;
use std::process::ExitCode;

/// What came of a change. The JSON form is stable; fields are only ever added.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Change {
    /// The new configuration is in force.
    pub(crate) taken: bool,
    /// One row for each key that changed.
    pub(crate) keys: Vec<Row>,
    /// What is wrong with it.
    pub(crate) problems: Vec<Problem>,
    /// Keys that nobody knows.
    #[serde(with = "json::as_keys")]
    pub(crate) unknown: Vec<String>,
    /// What is taken of the keys that changed, and may not do what its owner expects.
    pub(crate) warnings: Vec<Problem>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.keys {
            let outcome = match row.outcome {
                Outcome::Applied => "applied".to_owned(),
                Outcome::Unchanged => "in force".to_owned(),
                Outcome::Pending => "takes effect at the next boot".to_owned(),
                Outcome::Failed => format!("FAILED: {}", row.reason.as_deref().unwrap_or_default()),
            };
            writeln!(f, "{}: {outcome}", dotted(&row.key))?;
        }
        self.problems.iter().try_for_each(|problem| writeln!(f, "{problem}"))?;
        for key in &self.unknown {
            writeln!(f, "{}: unknown key, no effect", dotted(key))?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "Warning: {warning}"))?;
        match (self.taken, self.keys.as_slice()) {
            (true, []) => writeln!(f, "Nothing that has an effect was changed."),
            (true, _) => Ok(()),
            (false, []) => writeln!(f, "Nothing was changed."),
            (false, _) => writeln!(f, "config.json is as it was before."),
        }
    }
}

impl Change {
    fn say(&self, json: bool) -> ExitCode {
        out::answer(self, json);
        code(self.taken)
    }
}

pub(super) async fn change(store: &Store, json: bool, make: impl FnOnce(&mut Value) -> Result<()>) -> Result<ExitCode> {
    let lock = Lock::take()?;
    let before = current(store)?;
    let mut after = before.clone();
    make(&mut after)?;
    write(store, &lock, &before, &after, &edit::to_text(&after), json).await
}

/// Why config.json is as it was, and what helps.
fn not_written(err: FileError) -> anyhow::Error {
    let remedy = match &err {
        err if err.is_forbidden() => "this takes root",
        err if err.is_full() => {
            "remove files that the device does not need from the boot partition, above all pictures and logs"
        }
        _ => "is the boot partition mounted? os status says what is wrong with it",
    };
    anyhow::anyhow!("nothing was changed: {err}; {remedy}")
}

pub(super) async fn write(
    store: &Store,
    lock: &Lock,
    before: &Value,
    after: &Value,
    text: &[u8],
    json: bool,
) -> Result<ExitCode> {
    let secrets = store.secrets();
    let accepted = match model::check(after.clone(), &|id| secrets.get(id).cloned()) {
        Ok(accepted) => accepted,
        Err(problems) => return Ok(Change { problems, ..Change::default() }.say(json)),
    };
    if text.len() as u64 > os_config_model::MAX_SIZE {
        bail!("the file would have {} bytes; at most {}", text.len(), os_config_model::MAX_SIZE);
    }
    let differences = edit::diff(before, after);
    let former = store.read().ok();
    store.write(text).map_err(not_written)?;
    let status = os_config::apply::run(lock).await?;
    let keys: Vec<&str> = differences.iter().map(|d| d.key.as_str()).collect();
    let refused = status.keys.iter().any(|row| keys.contains(&row.key.as_str()) && row.outcome == Outcome::Failed);
    if refused && let Some(former) = former {
        // What a service does not take, such as a locale that the image lacks, is no configuration.
        store.write(&former)?;
        os_config::apply::run(lock).await?;
    }
    let rows = status.keys.into_iter().filter(|row| keys.contains(&row.key.as_str())).collect();
    let changed = |pointer: &str| {
        keys.iter().any(|key| pointer.strip_prefix(key).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric)))
    };
    let warnings = accepted.warnings.into_iter().filter(|warning| changed(&warning.pointer)).collect();
    Ok(Change { taken: !refused, keys: rows, problems: Vec::new(), unknown: accepted.unknown, warnings }.say(json))
}
