//! `os config`: look at the configuration and change it. Every change is a change of the file, checked as a whole before
//! it is written, and applied at once.

use crate::code;
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use os_config::import;
use os_config::lock::Lock;
use os_config::status::{Outcome, Row, Status};
use os_config_model::edit::{self, Difference};
use os_config_model::json::{self, dotted, names};
use os_config_model::keys::{KEYS, WITHOUT_EFFECT};
use os_config_model::model::{self, Problem};
use os_config_model::store::{self, Store, Version};
use os_sys::files::FileError;
use os_sys::{date, out};
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Result per key of the last application; exit code 1 when something is wrong
    Status,
    /// Print the configuration or one key of it, such as hostname or os.time.zone
    Get {
        /// The key, with dots or as a JSON pointer (/os/time/zone)
        key: Option<String>,
        /// Show passwords and private keys too
        #[arg(long)]
        secrets: bool,
    },
    /// Change one key and apply it
    Set {
        /// The key
        key: String,
        /// The value: JSON, or plain text where the key takes text; - reads it from standard input
        value: String,
        /// Write it even though no key has this name, for a program of your own that reads it
        #[arg(long)]
        force: bool,
    },
    /// Take one key out and apply its default
    Unset {
        /// The key
        key: String,
    },
    /// Change the file in an editor ($EDITOR); it is written only when it is good
    Edit,
    /// Check a file without applying it; exit code 1 when it is refused
    #[command(alias = "check")]
    Validate {
        /// The file; - for standard input
        #[arg(default_value = os_config_model::CONFIG)]
        file: PathBuf,
    },
    /// What differs between the file and what is in force, or an earlier version
    Diff {
        /// Number of the version, see history
        version: Option<u64>,
    },
    /// The versions that were accepted, oldest first
    History,
    /// Go back to an earlier version, by default the one before
    Rollback {
        /// Number of the version, see history
        version: Option<u64>,
    },
    /// Apply config.json now (this happens by itself when the file changes)
    Apply,
    /// Move passwords and private keys from the boot partition into state, where only this device reads them
    Seal,
    /// Take a configuration over from a directory laid out like a USB stick
    Import {
        /// The directory
        dir: PathBuf,
        /// Only say what would be done
        #[arg(long)]
        check: bool,
    },
    /// JSON Schema of config.json
    Schema,
    /// Every key with what it sets
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
        Command::Edit => edit_file(&store, json).await,
        Command::Validate { file } => validate(&file, json),
        Command::Diff { version } => diff(&store, version, json),
        Command::History => history(&store, json),
        Command::Rollback { version } => rollback(&store, version, json).await,
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

async fn change(store: &Store, json: bool, make: impl FnOnce(&mut Value) -> Result<()>) -> Result<ExitCode> {
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

async fn write(store: &Store, lock: &Lock, before: &Value, after: &Value, text: &[u8], json: bool) -> Result<ExitCode> {
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

async fn edit_file(store: &Store, json: bool) -> Result<ExitCode> {
    if !std::io::stdin().is_terminal() {
        bail!(
            "os config edit needs a terminal; in a script use os config set, or write the file and run os config apply"
        );
    }
    let given = std::env::var("VISUAL").or_else(|_| std::env::var("EDITOR")).ok();
    let editor = given
        .or_else(|| {
            ["/usr/bin/nano", "/usr/bin/vi", "/bin/vi"].iter().find(|p| Path::new(p).exists()).map(|p| (*p).to_owned())
        })
        .context("no editor: set EDITOR, or use os config set")?;
    let before = store.read().unwrap_or_else(|_| b"{\n}\n".to_vec());
    // On RAM: the file may hold passwords.
    let work = Path::new("/run/os").join(format!("edit-{}.json", std::process::id()));
    os_sys::files::write_if_changed(&work, &before, 0o600)?;
    let result = edit_until_good(store, &editor, &work, &before, json).await;
    let _ = os_sys::files::remove_if_there(&work);
    result
}

async fn edit_until_good(store: &Store, editor: &str, work: &Path, before: &[u8], json: bool) -> Result<ExitCode> {
    let secrets = store.secrets();
    loop {
        let words: Vec<&str> = editor.split_ascii_whitespace().collect();
        let (program, arguments) = words.split_first().context("EDITOR is empty")?;
        let status = std::process::Command::new(program).args(arguments).arg(work).status();
        if !status.with_context(|| format!("cannot start {program}"))?.success() {
            bail!("the editor ended with an error; nothing was changed");
        }
        let text = os_sys::files::read_limited(work, os_config_model::MAX_SIZE)?;
        if text == before {
            os_sys::say!("Nothing was changed.");
            return Ok(ExitCode::SUCCESS);
        }
        match model::parse_with(&text, &|id| secrets.get(id).cloned()) {
            Ok(_) => {
                let lock = Lock::take()?;
                if store.read().is_ok_and(|now| now != before) {
                    let kept = work.with_extension("kept.json");
                    os_sys::files::rename(work, &kept)?;
                    bail!(
                        "somebody else changed config.json meanwhile, and it stays as it is; what you wrote is in {} until the \
                         next restart: take it over with os config edit",
                        kept.display()
                    );
                }
                let value = |bytes: &[u8]| json::read(bytes).unwrap_or_default();
                return write(store, &lock, &value(before), &value(&text), &text, json).await;
            }
            Err(problems) => {
                problems.iter().for_each(|problem| os_sys::say!("{problem}"));
                out::print(format_args!("Edit again? [Y/n] "));
                std::io::stdout().flush()?;
                let mut answer = String::new();
                std::io::stdin().read_line(&mut answer)?;
                if answer.trim().eq_ignore_ascii_case("n") || answer.is_empty() {
                    os_sys::say!("Nothing was changed.");
                    return Ok(ExitCode::from(1));
                }
            }
        }
    }
}

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

fn validate(file: &Path, json: bool) -> Result<ExitCode> {
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
        os_sys::say!("{} is a good configuration", file.display());
    }
    Ok(code(found.good))
}

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

fn diff(store: &Store, version: Option<u64>, json: bool) -> Result<ExitCode> {
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

fn history(store: &Store, json: bool) -> Result<ExitCode> {
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

async fn rollback(store: &Store, version: Option<u64>, json: bool) -> Result<ExitCode> {
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
