//! `os config`: look at the configuration and change it. Every change is a change of the file, checked as a whole before
//! it is written, and applied at once.

pub(crate) mod change;
mod editor;
pub(crate) mod validate;
pub(crate) mod versions;

use crate::code;
use anyhow::{Context, Result, bail};
use change::change;
use clap::Subcommand;
use os_config::import;
use os_config::lock::Lock;
use os_config::status::Status;
use os_config_model::edit;
use os_config_model::json::{self, dotted, names};
use os_config_model::keys::{KEYS, WITHOUT_EFFECT};
use os_config_model::model;
use os_config_model::store::Store;
use os_sys::out;
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the result of the last apply for each key; exit code 1 if something is wrong
    Status,
    /// Print the configuration or one of its keys, such as hostname or os.time.zone
    Get {
        /// Key, dotted or as a JSON pointer (/os/time/zone)
        key: Option<String>,
        /// Include passwords and private keys
        #[arg(long)]
        secrets: bool,
    },
    /// Set one key and apply it
    Set {
        /// Key
        key: String,
        /// Value: JSON, or plain text for a key that takes text; - reads it from standard input
        value: String,
        /// Accept an unknown key, for a program of your own that reads it
        #[arg(long)]
        force: bool,
    },
    /// Remove one key and apply its default
    Unset {
        /// Key
        key: String,
    },
    /// Edit the file in an editor ($EDITOR); it is written only if it is valid
    Edit,
    /// Validate a file without applying it; exit code 1 if it is refused
    #[command(alias = "check")]
    Validate {
        /// File; - for standard input
        #[arg(default_value = os_config_model::CONFIG)]
        file: PathBuf,
    },
    /// Compare the file with the configuration in force, or with an earlier version
    Diff {
        /// Version number (see history)
        version: Option<u64>,
    },
    /// List the accepted versions, oldest first
    History,
    /// Return to an earlier version, by default the previous one
    Rollback {
        /// Version number (see history)
        version: Option<u64>,
    },
    /// Apply config.json now (happens automatically when the file changes)
    Apply,
    /// Move passwords and private keys from the boot partition to the state partition
    Seal,
    /// Import a configuration from a directory laid out like a USB stick
    Import {
        /// Directory
        dir: PathBuf,
        /// Only report what would be done
        #[arg(long)]
        check: bool,
    },
    /// Print the JSON Schema of config.json
    Schema,
    /// List every key and what it sets
    Keys,
}

impl Command {
    /// True for what reads nothing that only root may.
    pub(crate) fn is_for_everybody(&self) -> bool {
        matches!(self, Self::Schema | Self::Keys | Self::Validate { .. })
    }
}

pub(crate) async fn run(command: Command, json: bool) -> Result<ExitCode> {
    let store = Store::device();
    match command {
        Command::Status => {
            let status =
                Status::load(Path::new(os_config::STATUS)).context("no result yet; see journalctl -u os-config")?;
            show_status(&status, json)
        }
        Command::Get { key, secrets } => get(&store, key.as_deref(), secrets, json),
        Command::Set { key, value, force } => {
            if !force {
                is_a_key(&key)?;
            }
            let value = edit::value_for(&key, &given(&value)?);
            change(&store, json, |root| edit::set(root, &names(&key), value).map_err(anyhow::Error::msg)).await
        }
        Command::Unset { key } => {
            change(&store, json, |root| {
                let done = edit::unset(root, &names(&key));
                if done { Ok(()) } else { bail!("{key} is not set") }
            })
            .await
        }
        Command::Edit => editor::edit_file(&store, json).await,
        Command::Validate { file } => validate::validate(&file, json),
        Command::Diff { version } => versions::diff(&store, version, json),
        Command::History => versions::history(&store, json),
        Command::Rollback { version } => versions::rollback(&store, version, json).await,
        Command::Apply => show_status(&os_config::apply::run(&Lock::take()?).await?, json),
        Command::Seal => {
            let moved = os_config::apply::seal_now(&store, &Lock::take()?)?;
            if json {
                out::json(&json!({ "sealed": moved }));
            } else {
                os_sys::say!("{moved} secrets were moved into state.");
                if moved > 0 {
                    os_sys::say!("Flash may still hold the old text of the file until its place is used again.");
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Import { dir, check } => {
            let lock = if check { None } else { Some(Lock::take()?) };
            let report = import::import(&store, &dir, None, check)?;
            out::answer(&report, json);
            if let Some(lock) = lock
                && report.taken
                && !report.changed.is_empty()
            {
                let status = os_config::apply::run(&lock).await?;
                status.complaints().iter().for_each(|line| eprintln!("! {line}"));
            }
            Ok(code(report.problems.is_empty()))
        }
        Command::Schema => {
            // A document of another standard, with or without --json.
            os_sys::say!("{:#}", model::schema()?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Keys if json => {
            let row = |key: &os_config_model::keys::Key| {
                json!({
                    "key": dotted(key.pointer), "sets": key.summary, "allowed": key.shape.allowed(),
                    "default": key.default, "applies": key.applies.to_string(),
                })
            };
            out::json(&json!({ "keys": KEYS.iter().map(row).collect::<Vec<_>>() }));
            Ok(ExitCode::SUCCESS)
        }
        Command::Keys => {
            for key in KEYS {
                os_sys::say!("{:<40} {}", dotted(key.pointer), key.summary);
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn show_status(status: &Status, json: bool) -> Result<ExitCode> {
    out::answer(status, json);
    Ok(code(status.is_good()))
}

/// Refuses what is neither a key, nor within one, nor above some.
fn is_a_key(key: &str) -> Result<()> {
    let given = names(key);
    let known = |key: &str| {
        let key = names(key);
        key.starts_with(&given) || given.starts_with(&key)
    };
    let mut all = KEYS.iter().map(|key| key.pointer).chain(WITHOUT_EFFECT.iter().map(|(key, _)| *key));
    if all.any(known) {
        return Ok(());
    }
    let near = model::suggestion(&format!("/{}", given.join("/")));
    let meant = near.map(|key| format!("; did you mean {}?", dotted(key))).unwrap_or_default();
    bail!("{key} is no key{meant} os config keys lists them; --force writes it all the same")
}

/// The file as JSON; the one that is in force where there is none. A file that is refused can still be mended key by key, as
/// long as it is JSON.
fn current(store: &Store) -> Result<Value> {
    match store.read() {
        Ok(bytes) => json::read(&bytes).map_err(|err| {
            anyhow::anyhow!("config.json is {err}; mend it with os config edit, or go back with os config rollback")
        }),
        Err(_) if !store.path().exists() => {
            let kept = store.last_good().map(|bytes| json::read(&bytes).map_err(anyhow::Error::msg));
            kept.unwrap_or_else(|| Ok(json!({})))
        }
        Err(err) => bail!("config.json: {err}"),
    }
}

fn get(store: &Store, key: Option<&str>, secrets: bool, json: bool) -> Result<ExitCode> {
    let mut root = current(store)?;
    if secrets {
        let sealed = store.secrets();
        for key in KEYS {
            if let Some(value) = root.pointer_mut(key.pointer) {
                key.shape.secrets(value, &mut |secret| {
                    let id = secret.as_object().and_then(os_config_model::shape::sealed);
                    if let Some(text) = id.and_then(|id| sealed.get(id)) {
                        *secret = text.as_str().into();
                    }
                });
            }
        }
    } else {
        root = edit::without_secrets(&root);
    }
    let place = key.map(names).unwrap_or_default();
    let found = edit::get(&root, &place);
    if json {
        out::json(&json!({ "key": place.join("."), "set": found.is_some(), "value": found }));
        return Ok(code(found.is_some()));
    }
    match found {
        Some(Value::String(text)) => os_sys::say!("{text}"),
        Some(value) => os_sys::say!("{value:#}"),
        None => {
            let key = key.unwrap_or_default();
            let known = KEYS.iter().find(|k| names(k.pointer) == place);
            match known {
                Some(known) => eprintln!("{key} is not set; the default is: {}", known.default),
                None => is_a_key(key)?,
            }
            return Ok(ExitCode::from(1));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A value from the command line, or from standard input for what should not stand there.
fn given(value: &str) -> Result<String> {
    if value != "-" {
        return Ok(value.to_owned());
    }
    let mut text = String::new();
    std::io::stdin().lock().take(os_config_model::MAX_SIZE).read_to_string(&mut text)?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}
