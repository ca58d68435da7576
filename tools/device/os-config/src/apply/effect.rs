//! Doing only what changed, and doing again what failed.

use anyhow::Result;
use os_sys::files::{self, FileError, Written};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where it is remembered what was done in this boot.
const MEMORY: &str = "/run/os/config";

/// What bringing a key into force did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Something was changed now.
    Changed,
    /// It was in force already.
    Unchanged,
    /// It will be in force after a reboot.
    AtBoot,
}

/// The result for a key.
pub(super) type Applied = Result<Effect>;

impl From<Written> for Effect {
    fn from(written: Written) -> Self {
        match written {
            Written::Changed => Self::Changed,
            Written::Unchanged => Self::Unchanged,
        }
    }
}

/// Either of two.
pub(super) fn either(a: Written, b: Written) -> Written {
    if a == Written::Changed { a } else { b }
}

/// Writes a file, or removes it when there is nothing to say.
pub(super) fn write(path: &str, content: Option<&str>, mode: u32) -> Result<Written, FileError> {
    let path = Path::new(path);
    match content {
        Some(text) => files::write_if_changed(path, text.as_bytes(), mode),
        None => files::remove_if_there(path),
    }
}

/// Runs what has to follow a change, and again at the next application when it failed.
pub(super) async fn then(name: &str, written: Written, action: impl Future<Output = Result<()>>) -> Applied {
    let owed = Path::new(MEMORY).join(format!("owed-{name}"));
    if written == Written::Unchanged && !owed.exists() {
        return Ok(Effect::Unchanged);
    }
    files::write_if_changed(&owed, b"", 0o600)?;
    action.await?;
    files::remove_if_there(&owed)?;
    Ok(Effect::Changed)
}

/// Sets something that has no file to compare with. `None` is its default, which nothing has to be done for at boot.
pub(super) async fn set(
    name: &str,
    wanted: Option<&str>,
    action: impl AsyncFnOnce(Option<&str>) -> Result<()>,
) -> Applied {
    let memory = Path::new(MEMORY).join(format!("set-{name}"));
    if std::fs::read_to_string(&memory).ok().as_deref() == wanted {
        return Ok(Effect::Unchanged);
    }
    action(wanted).await?;
    match wanted {
        Some(text) => files::write_if_changed(&memory, text.as_bytes(), 0o600)?,
        None => files::remove_if_there(&memory)?,
    };
    Ok(Effect::Changed)
}

/// What [`own`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Owned {
    /// Names that are new or have another content.
    pub(super) changed: Vec<String>,
    /// Names that were ours and are gone.
    pub(super) removed: Vec<String>,
}

impl Owned {
    pub(super) fn written(&self) -> Written {
        if self.changed.is_empty() && self.removed.is_empty() { Written::Unchanged } else { Written::Changed }
    }
}

/// Brings our files in a directory in line. Files there that are not ours are never touched.
pub(super) fn own(name: &str, dir: &Path, wanted: &BTreeMap<String, String>, mode: u32) -> Result<Owned> {
    own_with(&memory(&format!("own-{name}")), dir, wanted, mode)
}

fn own_with(record: &PathBuf, dir: &Path, wanted: &BTreeMap<String, String>, mode: u32) -> Result<Owned> {
    let before = std::fs::read_to_string(record).unwrap_or_default();
    let before: BTreeSet<&str> = before.lines().collect();
    for (file, content) in wanted.iter().filter(|(file, _)| !before.contains(file.as_str())) {
        let path = dir.join(file);
        if path.exists() && std::fs::read(&path).ok().as_deref() != Some(content.as_bytes()) {
            anyhow::bail!("{} is the image's or somebody else's; choose another name", path.display());
        }
    }
    // First the names that may come, then the files: whatever is interrupted, none is left that nobody owns.
    let names = |list: BTreeSet<&str>| list.iter().map(|n| format!("{n}\n")).collect::<String>();
    let both = before.iter().copied().chain(wanted.keys().map(String::as_str)).collect();
    files::write_if_changed(record, names(both).as_bytes(), 0o600)?;
    let mut out = Owned::default();
    for (file, content) in wanted {
        if files::write_if_changed(&dir.join(file), content.as_bytes(), mode)? == Written::Changed {
            out.changed.push(file.clone());
        }
    }
    for file in before.iter().filter(|f| !wanted.contains_key(**f)) {
        if files::remove_if_there(&dir.join(file))? == Written::Changed {
            out.removed.push((*file).to_owned());
        }
    }
    files::write_if_changed(record, names(wanted.keys().map(String::as_str).collect()).as_bytes(), 0o600)?;
    Ok(out)
}

/// True for a file that [`own`] laid there.
pub(super) fn is_own(name: &str, file: &str) -> bool {
    std::fs::read_to_string(memory(&format!("own-{name}"))).is_ok_and(|record| record.lines().any(|line| line == file))
}

/// The directory in which it is remembered what this boot did.
pub(super) fn memory(name: &str) -> PathBuf {
    Path::new(MEMORY).join(name)
}

/// A file as the image has it, below what this boot wrote over it.
pub(super) fn of_image(path: &str) -> PathBuf {
    Path::new(os_facts::place::IMAGE_ETC).join(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_change_and_go_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (record, target) = (dir.path().join("record"), dir.path().join("d"));
        std::fs::create_dir_all(&target).unwrap();
        std::fs::write(target.join("foreign"), "x").unwrap();
        let want = |names: &[&str]| names.iter().map(|n| ((*n).to_owned(), "text".to_owned())).collect();
        let first = own_with(&record, &target, &want(&["a", "b"]), 0o600).unwrap();
        assert_eq!(first.changed, ["a", "b"]);
        assert_eq!(own_with(&record, &target, &want(&["a", "b"]), 0o600).unwrap().written(), Written::Unchanged);
        let third = own_with(&record, &target, &want(&["b"]), 0o600).unwrap();
        assert_eq!((third.changed.len(), third.removed), (0, vec!["a".to_owned()]));
        assert!(own_with(&record, &target, &want(&["foreign"]), 0o600).unwrap_err().to_string().contains("foreign"));
        own_with(&record, &target, &BTreeMap::new(), 0o600).unwrap();
        assert_eq!(std::fs::read_dir(&target).unwrap().count(), 1);
    }
}
