//! `os config validate`: what a file would be good for.

use crate::code;
use anyhow::Result;
use os_config_model::json::{self, dotted};
use os_config_model::model::{self, Problem};
use os_sys::out;
use serde::Serialize;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

/// What a file is good for. The JSON form is stable; fields are only ever added.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Validation {
    /// It would be taken.
    pub(crate) good: bool,
    /// What is wrong with it.
    pub(crate) problems: Vec<Problem>,
    /// Keys that nobody knows.
    #[serde(with = "json::as_keys")]
    pub(crate) unknown: Vec<String>,
    /// Keys of balenaOS that mean nothing here.
    pub(crate) without_effect: Vec<WithoutEffect>,
    /// What would be taken, and may not do what its owner expects.
    pub(crate) warnings: Vec<Problem>,
}

/// A key that means nothing here, and why.
#[derive(Debug, Serialize)]
pub(crate) struct WithoutEffect {
    #[serde(with = "json::as_key")]
    pub(crate) key: String,
    pub(crate) reason: &'static str,
}

pub(super) fn validate(file: &Path, json: bool) -> Result<ExitCode> {
    let bytes = if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().take(os_config_model::MAX_SIZE + 1).read_to_end(&mut bytes)?;
        bytes
    } else {
        os_sys::files::read_limited(file, os_config_model::MAX_SIZE)?
    };
    let found = match model::parse(&bytes) {
        Ok(accepted) => Validation {
            good: true,
            problems: Vec::new(),
            unknown: accepted.unknown,
            without_effect: accepted
                .without_effect
                .into_iter()
                .map(|(key, reason)| WithoutEffect { key, reason })
                .collect(),
            warnings: accepted.warnings,
        },
        // What nobody knows is said in the same round.
        Err(problems) => Validation { problems, unknown: model::unknown(&bytes), ..Validation::default() },
    };
    if json {
        out::json(&found);
        return Ok(code(found.good));
    }
    found.problems.iter().for_each(|problem| os_sys::say!("{problem}"));
    found.unknown.iter().for_each(|key| os_sys::say!("{}: unknown key, no effect", dotted(key)));
    for WithoutEffect { key, reason } in &found.without_effect {
        os_sys::say!("{}: no effect; {reason}", dotted(key));
    }
    found.warnings.iter().for_each(|warning| os_sys::say!("Warning: {warning}"));
    if found.good {
        os_sys::say!("{} is valid.", file.display());
    }
    Ok(code(found.good))
}
