//! Takes a configuration over from a USB stick labelled `CONFIG`, or from a directory `CONFIG` on the boot partition.
//!
//! Everything becomes a change of `config.json` or a profile in `system-connections/`, so that it is checked, applied,
//! remembered and taken back like any other change. Nothing is taken unless all of it together is a good configuration.
//! The medium is hostile: it is read once, in bounds, without following a link, and judged from that copy.

use anyhow::{Context, Result};
use os_config_model::decide::{self, Source};
use os_config_model::json::tame;
use os_config_model::model::{self, Problem};
use os_config_model::store::Store;
use os_config_model::{MAX_SIZE, connections, edit, json};
use os_sys::cmd::Cmd;
use os_sys::files::{self, Written};
use os_sys::hex;
use os_sys::stick;
use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;

mod plan;

use plan::Plan;

/// Name of the directory on the boot partition, and label of a stick.
pub const NAME: &str = "CONFIG";
/// Where a directory on the boot partition goes when it has been taken.
const DONE: &str = "CONFIG.done";
/// Lists what is signed, as sha256sum(1) does.
const MANIFEST: &str = "CONFIG.sha256";
/// Signature of the list: CMS, detached, DER.
const SIGNATURE: &str = "CONFIG.sha256.p7s";
/// Directories that are looked into.
const DIRECTORIES: &[&str] = &["network", "modules", "modprobe", "udev", "certificates"];
/// So many files of each directory.
const MAX_FILES: usize = 64;
/// Size of every file but config.json, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// Everything that was read, by path.
type Files = BTreeMap<String, Vec<u8>>;

/// What was found and what became of it. The JSON form is stable; fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of this form.
    pub version: u32,
    /// Name of the device.
    pub hostname: String,
    /// Release of the device.
    pub release: String,
    /// Everything was taken over.
    pub taken: bool,
    /// Keys of config.json that changed, and profiles.
    pub changed: Vec<String>,
    /// What was found, each with what became of it.
    pub files: Vec<Item>,
    /// Why nothing was taken.
    pub problems: Vec<Problem>,
    /// What went wrong when it was applied.
    pub complaints: Vec<String>,
    /// What is taken, and may not do what its owner expects.
    pub warnings: Vec<Problem>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Path on the medium.
    pub file: String,
    /// Understood, or why not.
    pub result: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.taken, self.changed.as_slice()) {
            (true, []) => "nothing on it is new",
            (true, _) => "taken over",
            (false, _) => "nothing was taken over",
        };
        writeln!(f, "{} ({}): {verdict}", self.hostname, self.release)?;
        for item in &self.files {
            writeln!(f, "  {:<32} {}", item.file, item.result)?;
        }
        for key in &self.changed {
            writeln!(f, "  changed: {key}")?;
        }
        for problem in &self.problems {
            writeln!(f, "! {problem}")?;
        }
        for line in &self.complaints {
            writeln!(f, "! {line}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning: {warning}")?;
        }
        Ok(())
    }
}

/// Whether a medium without a signature is taken.
pub fn signed_only(store: &Store) -> bool {
    let (decision, _) = decide::from_store(store);
    decision.accepted.config.os.import.signed_only.unwrap_or_else(crate::is_production)
}

/// The configuration that is changed: the file, or what is in force when the file is refused.
fn base(store: &Store) -> Value {
    let (decision, file) = decide::from_store(store);
    let text = match decision.source {
        Source::File => file.ok(),
        Source::LastGood => store.last_good(),
        Source::Defaults => None,
    };
    text.and_then(|bytes| json::read(&bytes).ok()).unwrap_or_else(|| json!({}))
}

/// Takes over what a directory holds; with `check`, only says what would be done.
///
/// # Errors
/// When the directory cannot be read or the boot partition not written.
pub fn import(store: &Store, dir: &Path, keyring: Option<&Path>, check: bool) -> Result<Report> {
    let mut report = Report {
        version: 1,
        hostname: os_sys::host_name(),
        release: os_sys::release::field("VERSION_ID").unwrap_or_default(),
        ..Report::default()
    };
    let (files, mut items) = read(dir)?;
    let files = match keyring {
        None => files,
        Some(keyring) => match signed(files, keyring, &mut items) {
            Ok(files) => files,
            Err(err) => {
                report.files = items;
                report.problems.push(Problem::whole(format!("{err:#}")));
                return Ok(report);
            }
        },
    };
    let mut plan = Plan::of(&files);
    items.append(&mut plan.items);
    items.sort_by(|a, b| a.file.cmp(&b.file));
    report.files = items;
    let before = base(store);
    let mut after = before.clone();
    plan.change(&mut after);
    report.problems = plan.problems;
    report.complaints = plan.complaints;
    match model::check(after.clone(), &|id| store.secrets().get(id).cloned()) {
        Ok(accepted) => report.warnings = accepted.warnings,
        Err(problems) => report.problems.extend(problems),
    }
    if !report.problems.is_empty() {
        return Ok(report);
    }
    report.changed = edit::diff(&before, &after).iter().map(|d| json::dotted(&d.key)).collect();
    let connections = store.boot().join("system-connections");
    for (name, text) in &plan.profiles {
        let path = connections.join(name);
        if std::fs::read(&path).ok().as_deref() != Some(text) {
            report.changed.push(format!("system-connections/{}", tame(name, 64)));
            if !check {
                files::write_if_changed(&path, text, 0o644)?;
            }
        }
    }
    if before != after && !check {
        store.write(&edit::to_text(&after))?;
    }
    report.taken = !check;
    Ok(report)
}

/// Reads everything that has a known name.
fn read(dir: &Path) -> Result<(Files, Vec<Item>)> {
    let root = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("cannot open {}", dir.display()))?;
    let (mut files, mut items) = (Files::new(), Vec::new());
    let (mut bundles, mut links, mut others) = (Vec::new(), Vec::new(), Vec::new());
    let mut take = |dir: &OwnedFd, name: &str, path: String, limit: u64| match stick::read(dir, name, limit) {
        Ok(bytes) => {
            files.insert(path, bytes);
        }
        Err(err) => items.push(Item { file: tame(&path, 128), result: format!("left out: {err}") }),
    };
    for name in names(&root)? {
        // FAT keeps letters as they were typed, and Windows hides an ending that it adds.
        let lower = name.to_ascii_lowercase();
        let known = lower.strip_suffix(".txt").unwrap_or(&lower);
        match known {
            "config.json" => take(&root, &name, known.to_owned(), MAX_SIZE),
            "authorized_keys" | "timesyncd.conf" => take(&root, &name, known.to_owned(), MAX_FILE),
            _ if [MANIFEST, SIGNATURE].contains(&name.as_str()) => take(&root, &name, name.clone(), MAX_FILE),
            _ if lower.ends_with(".raucb") => bundles.push(name),
            _ if DIRECTORIES.contains(&lower.as_str()) => match open_dir(&root, &name) {
                Ok(inside) => {
                    for inner in names(&inside)?.into_iter().take(MAX_FILES) {
                        take(&inside, &inner, format!("{lower}/{inner}"), MAX_FILE);
                    }
                }
                Err(_) => links.push(name),
            },
            // What devices wrote there.
            _ if lower.starts_with("report-") => {}
            _ => others.push(name),
        }
    }
    items.extend(others.iter().take(MAX_FILES).map(|name| Item {
        file: tame(name, 128),
        result: "left alone: no part of a configuration has this name".to_owned(),
    }));
    items.extend(links.iter().map(|name| Item { file: name.clone(), result: "left out: no directory".to_owned() }));
    items.extend(bundles.iter().map(|name| Item {
        file: tame(name, 128),
        result: "left alone: an update bundle is no part of a configuration".to_owned(),
    }));
    Ok((files, items))
}

/// Opens a directory below `root`; a link is none.
fn open_dir(root: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(root, name, flags, Mode::empty())
}

/// Plain names in a directory, in order; hidden ones and what editors leave are passed over.
fn names(dir: &OwnedFd) -> Result<Vec<String>> {
    let mut out = BTreeSet::new();
    for entry in rustix::fs::Dir::read_from(dir)?.take(4096) {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if connections::safe_name(&name) && !name.starts_with('.') && !name.ends_with('~') {
            out.insert(name);
        }
    }
    Ok(out.into_iter().collect())
}

/// Keeps what the signed list names and nothing else.
fn signed(files: Files, keyring: &Path, items: &mut Vec<Item>) -> Result<Files> {
    let manifest = files.get(MANIFEST).with_context(|| {
        format!("this device takes signed configurations only, and there is no {MANIFEST} with a {SIGNATURE}")
    })?;
    let signature = files.get(SIGNATURE).with_context(|| format!("there is no {SIGNATURE}"))?;
    let work = tempdir()?;
    let (m, s) = (work.join("manifest"), work.join("signature"));
    files::write_if_changed(&m, manifest, 0o600)?;
    files::write_if_changed(&s, signature, 0o600)?;
    let verified = Cmd::new("openssl")
        .args(["cms", "-verify", "-binary", "-inform", "DER", "-purpose", "any", "-in"])
        .arg(&s)
        .arg("-content")
        .arg(&m)
        .arg("-CAfile")
        .arg(keyring)
        .args(["-no-CApath", "-no-CAstore", "-out", "/dev/null"])
        .run();
    let _ = std::fs::remove_dir_all(&work);
    verified.context("the signature is not by the key that signs updates")?;
    let mut wanted: BTreeMap<&str, &str> = BTreeMap::new();
    for line in std::str::from_utf8(manifest)?.lines() {
        if let Some((hash, path)) = line.split_once([' ']) {
            wanted.insert(path.trim_start_matches([' ', '*']).trim_start_matches("./"), hash);
        }
    }
    let mut out = Files::new();
    for (path, bytes) in &files {
        if [MANIFEST, SIGNATURE].contains(&path.as_str()) {
            continue;
        }
        match wanted.get(path.as_str()) {
            Some(hash) if hash.eq_ignore_ascii_case(&hex(&Sha256::digest(bytes))) => {
                out.insert(path.clone(), bytes.clone());
            }
            Some(_) => anyhow::bail!("{} is not what was signed", tame(path, 128)),
            None => items.push(Item { file: tame(path, 128), result: "left out: not signed".to_owned() }),
        }
    }
    if let Some(missing) = wanted.keys().find(|p| !files.contains_key(**p)) {
        anyhow::bail!("{} is in the signed list and not there", tame(missing, 128));
    }
    Ok(out)
}

/// A directory for what other programs are to look at, in RAM on the device.
pub(crate) fn tempdir() -> Result<std::path::PathBuf> {
    let name = format!("os-config-{:016x}", getrandom::u64()?);
    let run = Path::new("/run/os");
    let dir = if run.is_dir() { run.join(name) } else { std::env::temp_dir().join(name) };
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// A report that waits for the application it asked for.
pub(crate) struct Waiting(Report);

/// Takes over the directory on the boot partition, once in a boot.
pub(crate) fn from_boot_partition(store: &Store) -> Option<Waiting> {
    let dir = store.boot().join(NAME);
    // Not while somebody copies files into it: only what was there when the device started.
    let looked = Path::new("/run/os/config/looked-for-import");
    if files::write_if_changed(looked, b"", 0o600).ok()? == Written::Unchanged || !dir.is_dir() {
        return None;
    }
    let keyring = signed_only(store).then_some(Path::new(crate::KEYRING));
    let report = import(store, &dir, keyring, false).unwrap_or_else(|err| Report {
        version: 1,
        problems: vec![Problem::whole(format!("{err:#}"))],
        ..Report::default()
    });
    for problem in &report.problems {
        os_sys::log::warn(&format!("{NAME}/ on the boot partition: {problem}"));
    }
    Some(Waiting(report))
}

impl Waiting {
    /// Leaves the report beside what was taken, and the directory under another name so that it is not taken again.
    pub(crate) fn leave_on_boot_partition(self, store: &Store) -> Result<()> {
        let (dir, done) = (store.boot().join(NAME), store.boot().join(DONE));
        write_report(&dir, &self.0)?;
        if self.0.taken {
            match std::fs::remove_dir_all(&done) {
                Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(err.into()),
                _ => {}
            }
            files::rename(&dir, &done)?;
        }
        Ok(())
    }
}

/// Writes the report for people and for programs.
///
/// # Errors
/// When the medium takes no file.
pub fn write_report(dir: &Path, report: &Report) -> Result<()> {
    let name = if report.hostname.is_empty() { "device" } else { &report.hostname };
    // A stick may have been prepared so that what has this name is a link, or without end.
    stick::replace(&dir.join(format!("report-{name}.txt")), report.to_string().replace('\n', "\r\n").as_bytes())?;
    stick::replace(&dir.join(format!("report-{name}.json")), &serde_json::to_vec_pretty(report)?)?;
    Ok(())
}

#[cfg(test)]
mod tests;
