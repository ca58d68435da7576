//! A request to erase, as it travels to the initramfs: the file `wipe` on the boot partition.
//!
//! Its first line says what to erase. A request that comes from config.json, which stays, carries a mark in the second;
//! the initramfs leaves that mark in `wipe.last` before it removes the request. So a request is carried out again when
//! the power is cut in the middle, and never again once it is done.

use os_facts::WipeScope;
use os_sys::files::{self, FileError, Written};
use std::path::Path;

/// Name of the request on the boot partition.
pub const REQUEST: &str = "wipe";
/// Name of the file that holds the mark of the last request that was carried out.
pub const LAST: &str = "wipe.last";
/// Starts the second line.
const FROM: &str = "config.json ";
/// A larger request is no request, in bytes.
const MAX: u64 = 256;

/// A request as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What to erase, as the file says it.
    pub what: String,
    /// Its mark, when it comes from config.json.
    pub mark: Option<String>,
}

/// What a wipe of apps takes, below the data partition: what the engine keeps, archives that wait to be loaded, and what says
/// which ones of the system were.
pub const APPS: &[&str] = &["docker", "containerd", "preload", "os/preloaded"];

/// What [`request`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Something is erased at the next boot.
    Pending,
    /// Nothing is.
    No,
}

/// Reads the request.
pub fn read(boot: &Path) -> Option<Found> {
    let bytes = files::read_limited(&boot.join(REQUEST), MAX).ok()?;
    let text = String::from_utf8(bytes).unwrap_or_default();
    let mut lines = text.lines().map(str::trim);
    let what = lines.next().unwrap_or_default().to_owned();
    Some(Found { what, mark: lines.next().and_then(|l| l.strip_prefix(FROM)).map(str::to_owned) })
}

/// The mark of the last request that was carried out.
pub fn last(boot: &Path) -> Option<String> {
    let bytes = files::read_limited(&boot.join(LAST), MAX).ok()?;
    String::from_utf8(bytes).ok().map(|t| t.trim().to_owned())
}

/// Brings the request in line with config.json.
///
/// A device's first boot obeys none: a configuration that is copied to a new card would erase what came with the image.
///
/// # Errors
/// When the boot partition cannot be written.
pub fn request(boot: &Path, wanted: Option<(WipeScope, &str)>, first_boot: bool) -> Result<Asked, FileError> {
    let found = read(boot);
    let from_config = found.as_ref().is_some_and(|f| f.mark.is_some());
    let Some((what, mark)) = wanted.filter(|(_, mark)| last(boot).as_deref() != Some(*mark)) else {
        // Taken back, or done. A request that a person left there stays.
        if from_config {
            files::remove_if_there(&boot.join(REQUEST))?;
        }
        return Ok(if found.is_some() && !from_config { Asked::Pending } else { Asked::No });
    };
    if first_boot {
        done(boot, mark)?;
        return Ok(Asked::No);
    }
    // One with this mark may be what is left of it.
    if found.is_none_or(|found| found.mark.is_some_and(|before| before != mark)) {
        ask(boot, what, Some(mark))?;
    }
    Ok(Asked::Pending)
}

/// Writes a request, with the mark of config.json where it comes from there.
///
/// # Errors
/// When the boot partition cannot be written.
pub fn ask(boot: &Path, what: WipeScope, mark: Option<&str>) -> Result<Written, FileError> {
    let from = mark.map(|mark| format!("{FROM}{mark}\n")).unwrap_or_default();
    files::write_if_changed(&boot.join(REQUEST), format!("{what}\n{from}").as_bytes(), 0o644)
}

/// Remembers that a request was carried out.
///
/// # Errors
/// When the boot partition cannot be written.
pub fn done(boot: &Path, mark: &str) -> Result<Written, FileError> {
    files::write_if_changed(&boot.join(LAST), format!("{mark}\n").as_bytes(), 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_made_once_for_each_mark() {
        let dir = tempfile::tempdir().unwrap();
        let boot = dir.path();
        let ask = |mark| request(boot, Some((WipeScope::Data, mark)), false).unwrap();
        assert_eq!((ask("1"), ask("1")), (Asked::Pending, Asked::Pending));
        assert_eq!(read(boot).unwrap(), Found { what: "data".to_owned(), mark: Some("1".to_owned()) });
        done(boot, "1").unwrap();
        assert_eq!(ask("1"), Asked::No);
        assert_eq!(read(boot), None);
        assert_eq!(ask("2"), Asked::Pending);
        assert_eq!(request(boot, None, false).unwrap(), Asked::No);
        assert_eq!(read(boot), None);
    }

    #[test]
    fn a_persons_own_request_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(REQUEST), "all\r\n").unwrap();
        assert_eq!(request(dir.path(), Some((WipeScope::Data, "1")), false).unwrap(), Asked::Pending);
        assert_eq!(request(dir.path(), None, false).unwrap(), Asked::Pending);
        assert_eq!(read(dir.path()).unwrap().what, "all");
    }

    #[test]
    fn a_new_device_erases_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(request(dir.path(), Some((WipeScope::All, "1")), true).unwrap(), Asked::No);
        assert_eq!(request(dir.path(), Some((WipeScope::All, "1")), false).unwrap(), Asked::No);
        assert_eq!(read(dir.path()), None);
    }
}
