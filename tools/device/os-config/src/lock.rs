//! One change of the configuration at a time.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

const PATH: &str = "/run/os/config.lock";

/// The lock cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot lock {}: {cause}{}", .path.display(), root(.cause))]
pub struct LockError {
    path: PathBuf,
    cause: io::Error,
}

fn root(cause: &io::Error) -> &'static str {
    if cause.kind() == io::ErrorKind::PermissionDenied { "; this takes root" } else { "" }
}

/// Held by whoever applies the configuration, and by whoever reads `config.json` to write it again: two people, a
/// stick and the watcher of the file may ask at the same time, and none of them may lose what another one wrote.
///
/// Whoever holds it must not wait for `os-config.service`, which takes it too.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until nobody else has it.
    ///
    /// # Errors
    /// When the file cannot be made, which takes root.
    pub fn take() -> Result<Self, LockError> {
        Self::at(Path::new(PATH))
    }

    fn at(path: &Path) -> Result<Self, LockError> {
        let file = || {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            let file = File::create(path)?;
            file.lock()?;
            Ok(file)
        };
        file().map(|file| Self { _file: file }).map_err(|cause| LockError { path: path.to_owned(), cause })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_loses_what_another_one_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let (lock, file) = (dir.path().join("run/lock"), dir.path().join("number"));
        std::fs::write(&file, "0").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _lock = Lock::at(&lock).unwrap();
                        let number: u32 = std::fs::read_to_string(&file).unwrap().parse().unwrap();
                        std::fs::write(&file, (number + 1).to_string()).unwrap();
                    }
                });
            }
        });
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "400");
    }
}
