//! Takes NetworkManager profiles over from `system-connections/` on the boot partition, and finds the scripts of
//! `dispatcher.d/`.
//!
//! A profile that appears or changes there is copied; one that disappears there is removed again. Profiles made on the
//! device by other means are never touched.

use crate::text;
use os_sys::files::{self, FileError, Written};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Ending of a profile's name.
const ENDING: &str = ".nmconnection";

/// A larger profile is left out, in bytes.
const MAX_PROFILE: u64 = 64 << 10;

/// At most so many profiles are taken over: the boot partition is anybody's to write.
const MAX_PROFILES: usize = 64;

/// A profile that is new, or whose file is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its file.
    pub file: String,
    /// It describes another connection, not only when it is to be chosen.
    pub other: bool,
}

/// What was taken over.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Import {
    /// Something changed.
    pub changed: bool,
    /// The profiles that did; one that went away is none of them.
    pub changes: Vec<Change>,
    /// Files of the profiles that are there, in the target.
    pub files: Vec<String>,
    /// Profiles that were left out, and why.
    pub refused: Vec<String>,
}

/// Brings `target` in line with `source`; `record` remembers which files came from there.
///
/// # Errors
/// When the target cannot be written.
pub fn import(source: &Path, target: &Path, record: &Path) -> Result<Import, FileError> {
    let mut out = Import::default();
    let mut now = BTreeSet::new();
    let mut names: Vec<_> = std::fs::read_dir(source).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
    names.sort();
    for name in names {
        let Some(name) = name.to_str().filter(|n| safe_name(n)) else {
            out.refused.push(format!("{}: not a plain file name", name.to_string_lossy().escape_debug()));
            continue;
        };
        if is_passed_over(name) {
            continue;
        }
        if now.len() >= MAX_PROFILES {
            out.refused.push(format!("{name}: more than {MAX_PROFILES} profiles"));
            continue;
        }
        match files::read_limited(&source.join(name), MAX_PROFILE) {
            Ok(bytes) => match text::read(&bytes) {
                Ok(text) if text.contains("[connection]") => {
                    // NetworkManager passes over names that look like somebody's temporary file, such as lan0.static.
                    let name = if name.ends_with(ENDING) { name.to_owned() } else { format!("{name}{ENDING}") };
                    let file = target.join(&name);
                    let before = std::fs::read_to_string(&file).unwrap_or_default();
                    if files::write_if_changed(&file, text.as_bytes(), 0o600)? == Written::Changed {
                        let file = file.to_string_lossy().into_owned();
                        out.changes.push(Change { file, other: is_other(&before, &text) });
                        out.changed = true;
                    }
                    now.insert(name);
                }
                // What is not called a profile and is none: a certificate, or somebody's notes.
                _ if !name.ends_with(ENDING) => {}
                Ok(_) => out.refused.push(format!("{name}: no NetworkManager keyfile, it has no [connection] section")),
                Err(why) => out.refused.push(format!("{name} {why}")),
            },
            Err(err) => out.refused.push(err.to_string()),
        }
    }
    let before = std::fs::read_to_string(record).unwrap_or_default();
    for gone in before.lines().filter(|n| safe_name(n) && !now.contains(*n)) {
        out.changed |= files::remove_if_there(&target.join(gone))? == Written::Changed;
    }
    let list: String = now.iter().map(|n| format!("{n}\n")).collect();
    files::write_if_changed(record, list.as_bytes(), 0o600)?;
    out.files = now.iter().map(|name| target.join(name).to_string_lossy().into_owned()).collect();
    Ok(out)
}

/// True when two texts of a profile describe connections that differ: their name, and when NetworkManager chooses them, are
/// no part of that.
pub fn is_other(before: &str, after: &str) -> bool {
    let meaning = |text: &str| {
        let (mut section, mut lines) = (String::new(), BTreeSet::new());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let key = line.split('=').next().unwrap_or_default().trim();
            if line.starts_with('[') {
                section = line.to_owned();
                lines.insert(section.clone());
            } else if section != "[connection]"
                || !(key.starts_with("autoconnect") || ["id", "timestamp"].contains(&key))
            {
                lines.insert(format!("{section}{line}"));
            }
        }
        lines
    };
    meaning(before) != meaning(after)
}

/// What editors and people leave beside profiles: hidden files, backups, read-me files (`README.ignore` is on every card of
/// balenaOS).
fn is_passed_over(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.starts_with('.')
        || lower.starts_with("readme")
        || [".ignore", "~", ".bak", ".old", ".orig", ".swp", ".tmp"].iter().any(|ending| lower.ends_with(ending))
}

/// The scripts in a directory, and what was left out, with the reason.
pub fn scripts(source: &Path) -> (BTreeMap<String, String>, Vec<String>) {
    let (mut found, mut refused) = (BTreeMap::new(), Vec::new());
    for entry in std::fs::read_dir(source).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_passed_over(&name) {
            continue;
        }
        // NetworkManager-dispatcher(8) takes no other names.
        let plain = name.len() <= 128 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        match read_small(&entry.path()) {
            _ if !plain || found.len() >= MAX_PROFILES => refused.push(format!("{}: not taken", name.escape_debug())),
            Ok(text) if text.starts_with("#!") => {
                found.insert(name, text);
            }
            Ok(_) => refused.push(format!("{name}: no script, it does not start with #!")),
            Err(err) => refused.push(err.to_string()),
        }
    }
    (found, refused)
}

/// Reads a small text file of a person's.
///
/// # Errors
/// When it cannot be read, is larger than 64 KiB or not UTF-8.
pub fn read_small(path: &Path) -> anyhow::Result<String> {
    let bytes = files::read_limited(path, MAX_PROFILE)?;
    text::read(&bytes).map_err(|why| anyhow::anyhow!("{} {why}", path.display()))
}

/// True for a name that cannot lead out of its directory.
pub fn safe_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && name != ".."
        && name != "."
        && !name.chars().any(|c| c == '/' || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_told_from_other_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("10-a"), "#!/bin/sh\r\ntrue\r\n").unwrap();
        std::fs::write(dir.path().join("notes"), "hello").unwrap();
        std::fs::write(dir.path().join("a b"), "#!/bin/sh\n").unwrap();
        let (found, refused) = scripts(dir.path());
        assert_eq!(found, BTreeMap::from([("10-a".to_owned(), "#!/bin/sh\ntrue\n".to_owned())]));
        assert_eq!(refused.len(), 2);
        assert!(scripts(&dir.path().join("none")).0.is_empty());
    }

    #[test]
    fn when_a_profile_is_chosen_is_no_part_of_its_connection() {
        let text = "[connection]\nid=a\nuuid=1\nautoconnect-priority=1\n\n[ipv4]\nmethod=auto\n";
        for same in ["# note\n[connection]\nid=b\nuuid=1\nautoconnect=false\n[ipv4]\n method=auto", text] {
            assert!(!is_other(text, same), "{same}");
        }
        for other in
            ["", "[connection]\nuuid=1\n[ipv6]\nmethod=auto\n", "[connection]\nuuid=1\n[ipv4]\nmethod=auto\nid=a\n"]
        {
            assert!(is_other(text, other), "{other}");
        }
    }

    #[test]
    fn profiles_come_change_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target, record) = (dir.path().join("s"), dir.path().join("t"), dir.path().join("r"));
        std::fs::create_dir_all(&source).unwrap();
        std::fs::create_dir_all(&target).unwrap();
        std::fs::write(target.join("own"), "[connection]\n").unwrap();
        std::fs::write(source.join("wifi"), "\u{feff}[connection]\r\nid=a\r\n").unwrap();
        for (name, text) in [
            ("notes.nmconnection", "hello"),
            ("README.ignore", "hello"),
            ("ca.pem", "-----BEGIN CERTIFICATE-----"),
            ("wifi.nmconnection.bak", "[connection]\n"),
            ("photo", "\u{0}\u{1}"),
        ] {
            std::fs::write(source.join(name), text).unwrap();
        }
        let first = import(&source, &target, &record).unwrap();
        assert!(first.changed && first.files == [target.join("wifi.nmconnection").to_string_lossy()]);
        assert_eq!(first.refused, ["notes.nmconnection: no NetworkManager keyfile, it has no [connection] section"]);
        assert_eq!(std::fs::read_to_string(target.join("wifi.nmconnection")).unwrap(), "[connection]\nid=a\n");
        let file = target.join("wifi.nmconnection").to_string_lossy().into_owned();
        assert_eq!(first.changes, [Change { file: file.clone(), other: true }]);
        assert!(!import(&source, &target, &record).unwrap().changed);
        std::fs::write(source.join("wifi"), "[connection]\nid=a\nautoconnect-priority=1\n").unwrap();
        assert_eq!(import(&source, &target, &record).unwrap().changes, [Change { file, other: false }]);
        std::fs::remove_file(source.join("wifi")).unwrap();
        assert!(import(&source, &target, &record).unwrap().changed);
        assert!(!target.join("wifi.nmconnection").exists() && target.join("own").exists());
    }
}
