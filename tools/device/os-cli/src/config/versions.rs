//! The versions that were accepted: what differs between them, and the way back.

use super::change::write;
use super::current;
use anyhow::{Context, Result};
use os_config::lock::Lock;
use os_config_model::edit::{self, Difference};
use os_config_model::json::{self, dotted};
use os_config_model::store::{self, Store, Version};
use os_sys::{date, out};
use serde::Serialize;
use serde_json::{Value, json};
use std::process::ExitCode;

fn find(store: &Store, number: Option<u64>) -> Result<Version> {
    let history = store.history();
    let found = match number {
        Some(number) => history.iter().find(|v| v.number == number),
        None => history.iter().rev().nth(1),
    };
    let numbers: Vec<String> = history.iter().map(|v| v.number.to_string()).collect();
    found.cloned().with_context(|| match number {
        Some(number) => format!("there is no version {number}; kept are: {}", numbers.join(" ")),
        None => "there is no earlier version".to_owned(),
    })
}

pub(super) fn diff(store: &Store, version: Option<u64>, json: bool) -> Result<ExitCode> {
    let before = match version {
        Some(_) => Some(store.text(&find(store, version)?)?),
        None => store.last_good(),
    };
    let before = json::read(&before.unwrap_or_else(|| b"{}".to_vec())).map_err(anyhow::Error::msg)?;
    let differences = edit::diff(&before, &current(store)?);
    if json {
        out::json(&json!({ "differences": differences }));
    } else {
        for Difference { key, before, after } in &differences {
            let line = |sign: &str, value: &Option<Value>| {
                if let Some(value) = value {
                    os_sys::say!("{sign} {}: {value}", dotted(key));
                }
            };
            line("-", before);
            line("+", after);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One row of the history. The JSON form is stable; fields are only ever added.
#[derive(Debug, Serialize)]
pub(crate) struct Accepted {
    /// Counts up.
    pub(crate) number: u64,
    /// Seconds since 1970, by the device's clock.
    pub(crate) at: Option<u64>,
    pub(crate) changed: Vec<String>,
}

pub(super) fn history(store: &Store, json: bool) -> Result<ExitCode> {
    let mut before = json!({});
    let mut rows = Vec::new();
    for version in store.history() {
        let Some(text) = store.text(&version).ok().and_then(|b| json::read(&b).ok()) else { continue };
        let changed = edit::diff(&before, &text).iter().map(|d| dotted(&d.key)).collect();
        rows.push(Accepted { number: version.number, at: version.time.map(store::seconds), changed });
        before = text;
    }
    if json {
        out::json(&json!({ "versions": rows }));
    } else {
        for Accepted { number, at, changed } in rows {
            os_sys::say!("{number:>4}  {}  {}", date::local(at.unwrap_or_default()), changed.join(" "));
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn rollback(store: &Store, version: Option<u64>, json: bool) -> Result<ExitCode> {
    let version = find(store, version)?;
    let text = store.text(&version)?;
    let lock = Lock::take()?;
    let before = current(store).unwrap_or_default();
    let after = json::read(&text).map_err(anyhow::Error::msg)?;
    if !json {
        os_sys::say!("Going back to version {}.", version.number);
    }
    write(store, &lock, &before, &after, &text, json).await
}
