//! What makes this device itself: the machine id, which stays inside (machine-id(5)), and the device id, which names it
//! on the network.

use os_sys::files::{self, FileError};
use std::path::Path;

/// Where the identity lies on the state partition.
pub const MACHINE_ID: &str = "os/machine-id";

/// The public identifier, on the state partition; its first seven digits are the default host name.
pub const DEVICE_ID: &str = "os/device-id";

/// True when the state partition has no identity yet.
pub fn is_missing(state: &Path) -> bool {
    read(state).is_none()
}

/// The machine id, if there is a valid one (machine-id(5): 32 lower-case hex digits).
pub fn read(state: &Path) -> Option<String> {
    read_id(&state.join(MACHINE_ID)).filter(|_| read_id(&state.join(DEVICE_ID)).is_some())
}

/// Reads an identifier of 32 lower-case hex digits.
pub fn read_id(path: &Path) -> Option<String> {
    let text = files::read_limited(path, 64).ok()?;
    let id = String::from_utf8(text).ok()?.trim().to_owned();
    (id.len() == 32 && id.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')) && id.chars().any(|c| c != '0'))
        .then_some(id)
}

/// Makes and stores what is missing of the two.
///
/// # Errors
/// When there are no random numbers or state cannot be written.
pub fn create(state: &Path) -> Result<(), IdentityError> {
    // The machine id last: it is what says that the first boot is complete.
    for name in [DEVICE_ID, MACHINE_ID] {
        let path = state.join(name);
        if read_id(&path).is_none() {
            let id = random_hex(16)?;
            files::write_if_changed(&path, format!("{id}\n").as_bytes(), 0o444)?;
        }
    }
    Ok(())
}

/// `bytes` random bytes as hex digits.
///
/// # Errors
/// When there are no random numbers.
pub fn random_hex(bytes: usize) -> Result<String, IdentityError> {
    let mut buffer = vec![0; bytes];
    getrandom::fill(&mut buffer).map_err(IdentityError::Random)?;
    Ok(os_sys::hex(&buffer))
}

/// Why no identity could be made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No random numbers.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
    /// State cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert!(is_missing(dir.path()));
        create(dir.path()).unwrap();
        let id = read(dir.path()).unwrap();
        create(dir.path()).unwrap();
        assert_eq!(read(dir.path()), Some(id.clone()));
        assert_ne!(read_id(&dir.path().join(DEVICE_ID)), Some(id));
    }

    #[test]
    fn a_torn_identity_counts_as_missing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("os")).unwrap();
        for bad in ["", "abc", &"0".repeat(32), &"Z".repeat(32)] {
            std::fs::write(dir.path().join(MACHINE_ID), bad).unwrap();
            assert!(is_missing(dir.path()), "{bad:?}");
        }
    }
}
