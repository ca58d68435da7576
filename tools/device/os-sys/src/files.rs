//! Files that a power cut leaves whole: the old content or the new, never half of either.

use rustix::fs::{Mode, OFlags};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What a write did. Callers reload a service only on [`Written::Changed`], and flash is spared on the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The file had this content already; nothing was written.
    Unchanged,
    /// The content is new.
    Changed,
}

/// A file operation that failed, with the path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {cause}", .path.display())]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    cause: io::Error,
}

impl FileError {
    /// True when the file does not exist.
    pub fn is_not_found(&self) -> bool {
        self.cause.kind() == io::ErrorKind::NotFound
    }

    /// True when the partition has no space left.
    pub fn is_full(&self) -> bool {
        matches!(self.cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// True when another user may do it.
    pub fn is_forbidden(&self) -> bool {
        self.cause.kind() == io::ErrorKind::PermissionDenied
    }

    /// For tests of what becomes of a write that fails.
    pub fn writing(path: &Path, cause: io::Error) -> Self {
        at("write", path)(cause)
    }
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |cause| FileError { action, path, cause }
}

/// Writes `content` to `path` through a temporary name in the same directory: written, flushed, renamed, directory
/// flushed. The directory is created when missing. Does nothing when the file has this content and `mode`.
///
/// # Errors
/// When any step fails; the file then still has its former content, and nothing else is left of the attempt.
pub fn write_if_changed(path: &Path, content: &[u8], mode: u32) -> Result<Written, FileError> {
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if std::fs::read(path).is_ok_and(|old| old == content) {
        return set_mode(path, mode);
    }
    std::fs::create_dir_all(dir).map_err(at("create directory", dir))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temp = dir.join(format!(".{name}.new"));
    // A temporary name that was left behind by a power cut is ours to replace.
    match std::fs::remove_file(&temp) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at("remove", &temp)(e)),
        _ => {}
    }
    let written = fill(&temp, path, content, mode).and_then(|()| rename(&temp, path));
    if let Err(err) = written {
        // Half of a file takes the last space that there is.
        let _ = std::fs::remove_file(&temp);
        return Err(err);
    }
    Ok(Written::Changed)
}

/// Errors name the file that was wanted: its temporary name says nothing to anybody.
fn fill(temp: &Path, path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(temp).map_err(at("write", path))?;
    file.set_permissions(Permissions::from_mode(mode)).map_err(at("set mode of", path))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(at("write", path))
}

/// Gives a file its mode. A filesystem that has no modes, FAT above all, takes the call and changes nothing.
fn set_mode(path: &Path, mode: u32) -> Result<Written, FileError> {
    let has = || std::fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o7777 == mode);
    if has() {
        return Ok(Written::Unchanged);
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(at("set mode of", path))?;
    Ok(if has() { Written::Changed } else { Written::Unchanged })
}

/// Removes a file; one that is not there is [`Written::Unchanged`].
///
/// # Errors
/// When the file is there and cannot be removed.
pub fn remove_if_there(path: &Path) -> Result<Written, FileError> {
    match std::fs::remove_file(path) {
        Ok(()) => {
            if let Some(dir) = path.parent() {
                sync_dir(dir)?;
            }
            Ok(Written::Changed)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Written::Unchanged),
        Err(e) => Err(at("remove", path)(e)),
    }
}

/// Renames a file over another in the same directory, and flushes the directory.
///
/// # Errors
/// When the rename fails.
pub fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    std::fs::rename(from, to).map_err(at("replace", to))?;
    to.parent().map_or(Ok(()), sync_dir)
}

fn sync_dir(dir: &Path) -> Result<(), FileError> {
    // FAT refuses fsync on a directory on some kernels; there the file's own fsync is all there is.
    let fd = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)
        .map_err(at("open directory", dir))?;
    match rustix::fs::fsync(fd) {
        Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
        Err(e) => Err(at("flush directory", dir)(e.into())),
    }
}

/// Why a size-limited read gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be opened or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is larger than the limit; it was not read.
    #[error("{} is larger than {limit} bytes", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
}

/// Reads a whole file of at most `limit` bytes.
///
/// # Errors
/// When it cannot be read, or is larger.
pub fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let file = File::open(path).map_err(at("open", path))?;
    let mut content = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut content).map_err(at("read", path))?;
    if content.len() as u64 > limit {
        return Err(ReadError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(content)
}

/// Reads a whole text file.
///
/// # Errors
/// When it cannot be read or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    std::fs::read_to_string(path).map_err(at("read", path))
}

/// True when something is mounted exactly at `path` (proc_pid_mountinfo(5)).
pub fn is_mount_point(path: &str) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_write_of_the_same_content_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/file");
        assert_eq!(write_if_changed(&path, b"one", 0o600).unwrap(), Written::Changed);
        assert_eq!(write_if_changed(&path, b"one", 0o600).unwrap(), Written::Unchanged);
        assert_eq!(write_if_changed(&path, b"one", 0o644).unwrap(), Written::Changed);
        assert_eq!(write_if_changed(&path, b"two", 0o644).unwrap(), Written::Changed);
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
    }

    #[test]
    fn leftover_of_an_interrupted_write_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(dir.path().join(".file.new"), b"half").unwrap();
        write_if_changed(&path, b"whole", 0o644).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert!(!dir.path().join(".file.new").exists());
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_and_names_the_file_that_was_wanted() {
        let dir = tempfile::tempdir().unwrap();
        // A directory that is not empty cannot be replaced by a file.
        let path = dir.path().join("file");
        std::fs::create_dir_all(path.join("sub")).unwrap();
        let said = write_if_changed(&path, b"one", 0o644).unwrap_err().to_string();
        assert!(said.contains(&format!("{}:", path.display())), "{said}");
        assert!(!dir.path().join(".file.new").exists());
        for (errno, words) in [(28, "No space left"), (30, "Read-only"), (5, "os error 5")] {
            let err = FileError::writing(&path, io::Error::from_raw_os_error(errno));
            assert!(err.to_string().contains(words) && err.is_full() == (errno == 28), "{err}");
        }
    }

    #[test]
    fn reading_stops_at_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![0; 11]).unwrap();
        assert!(matches!(read_limited(&path, 10), Err(ReadError::TooLarge { limit: 10, .. })));
        assert_eq!(read_limited(&path, 11).unwrap().len(), 11);
    }

    #[test]
    fn a_mount_point_is_told_from_a_directory() {
        assert!(is_mount_point("/proc"));
        assert!(!is_mount_point("/proc/self"));
    }

    #[test]
    fn removing_what_is_not_there_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(remove_if_there(&dir.path().join("none")).unwrap(), Written::Unchanged);
    }
}
