//! The beginning of a boot's log, which nothing that is written later pushes out.
//!
//! The journal in RAM is one for all: without this, a container that writes without end leaves nothing of the kernel's and the
//! boot's messages. journald closes a file when it is full, and removes the oldest of those that have the name of a closed one
//! ([`CLOSED`]); readers take any file. So the first files of a boot are given another name. `os-boot-log.path` calls when
//! there is one.

use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where journald keeps a journal in RAM, in a directory with the machine's id.
const JOURNALS: &str = "/run/log/journal";
/// What is kept, in bytes: a quarter of what the journal may take. A boot takes about half of it.
const KEPT: u64 = 2 << 20;
/// What a closed file is called, before and after an id, a number and a time.
const CLOSED: (&str, &str) = ("system@", ".journal");
/// Lengths of the three, in hexadecimal digits.
const PARTS: [usize; 3] = [32, 16, 16];
/// What it is called then, before its number. Readers take it for a file of the system because of the '@'.
const OURS: &str = "system@boot";

/// Keeps what there is of the beginning; true when that is enough.
///
/// # Errors
/// When a file cannot be renamed.
pub fn keep() -> Result<bool> {
    let machine = fs::read_to_string("/etc/machine-id").context("cannot read /etc/machine-id")?;
    keep_in(&Path::new(JOURNALS).join(machine.trim()), KEPT)
}

fn keep_in(dir: &Path, limit: u64) -> Result<bool> {
    let (mut closed, mut kept, mut size): (Vec<(String, PathBuf)>, u32, u64) = (Vec::new(), 0, 0);
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if let Some(number) = number_of_closed(&name) {
            closed.push((number, path));
        } else if name.to_str().is_some_and(|name| name.starts_with(OURS)) {
            (kept, size) = (kept.saturating_add(1), size.saturating_add(taken(&path)));
        }
    }
    closed.sort();
    for (_, path) in closed {
        if size >= limit {
            break;
        }
        let to = dir.join(format!("{OURS}{kept}{}", CLOSED.1));
        match fs::rename(&path, &to) {
            Ok(()) => (kept, size) = (kept.saturating_add(1), size.saturating_add(taken(&to))),
            // journald was faster.
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
            Err(err) => return Err(err).with_context(|| format!("cannot rename {}", path.display())),
        }
    }
    Ok(size >= limit)
}

/// What a file takes: journald leaves holes where nothing was written.
fn taken(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.blocks().saturating_mul(512))
}

/// The number of the first entry in a file that journald has closed; none for another file.
fn number_of_closed(name: &OsStr) -> Option<String> {
    let inner = name.to_str()?.strip_prefix(CLOSED.0)?.strip_suffix(CLOSED.1)?;
    let parts: Vec<&str> = inner.split('-').collect();
    let fits = |(part, length): (&&str, usize)| part.len() == length && part.bytes().all(|b| b.is_ascii_hexdigit());
    (parts.len() == PARTS.len() && parts.iter().zip(PARTS).all(fits)).then(|| parts.get(1).map(|&n| n.to_owned()))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "c0e3513807e0411e9c3f0ab206850f04";

    fn closed(number: u32) -> String {
        format!("system@{ID}-{number:016x}-000661439b57e3c9.journal")
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    }

    #[test]
    fn the_first_files_are_kept_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| fs::write(dir.path().join(name), vec![1; 64 << 10]).unwrap();
        for name in [&closed(7), &closed(300), "system.journal", "user-1000.journal", "system@0006.journal~"] {
            write(name);
        }
        assert!(!keep_in(dir.path(), 256 << 10).unwrap());
        assert!(names(dir.path()).contains(&"system@boot1.journal".to_owned()));
        // The next call goes on where the last one stopped.
        write(&closed(0x1000));
        write(&closed(0xfff));
        write(&closed(0x2000));
        assert!(keep_in(dir.path(), 256 << 10).unwrap());
        let left: Vec<String> = names(dir.path()).into_iter().filter(|name| !name.starts_with(OURS)).collect();
        assert_eq!(left, ["system.journal", "system@0006.journal~", &closed(0x2000), "user-1000.journal"]);
        assert!(keep_in(dir.path(), 256 << 10).unwrap());
        assert!(names(dir.path()).contains(&closed(0x2000)));
    }

    #[test]
    fn only_what_journald_has_closed_is_touched() {
        assert_eq!(number_of_closed(closed(0xab).as_ref()).unwrap(), "00000000000000ab");
        for name in ["system.journal", "system@boot0.journal", "user-1000.journal", "system@a-b-c.journal", "x"] {
            assert_eq!(number_of_closed(name.as_ref()), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_looked_at(name in "system@[0-9a-f-]{0,70}\\.journal|.{0,40}") {
            let _ = number_of_closed(name.as_ref());
        }
    }
}
