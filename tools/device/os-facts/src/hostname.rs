//! The name of the device, before anybody sets it.

use crate::identity::DEVICE_ID;
use os_sys::files::{self, FileError};
use std::fmt;
use std::path::Path;

/// Where the static name lies, below the state partition; `/etc/hostname` is a link to it.
pub const FILE: &str = "os/hostname";

/// How many digits of the device id make the default name.
const SHORT_ID: usize = 7;

/// A host name: one label of RFC 1123, so that `<name>.local` is one too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hostname(String);

/// What a host name may be, in words.
pub const ALLOWED: &str = "1 to 63 letters, digits and hyphens, not starting or ending with a hyphen";

impl Hostname {
    /// Checks a name.
    ///
    /// # Errors
    /// When it is not one label of RFC 1123.
    pub fn parse(text: &str) -> Result<Self, String> {
        let ok = (1..=63).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if ok { Ok(Self(text.to_owned())) } else { Err(format!("is no host name; allowed are {ALLOWED}")) }
    }

    /// The default: the short device id.
    pub fn from_device_id(id: &str) -> Option<Self> {
        Self::parse(id.trim().get(..SHORT_ID)?).ok()
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why the device has no name.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// The device id cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no device id to take the default from.
    #[error("no host name is configured and {DEVICE_ID} on the state partition holds no device id")]
    NoDeviceId,
}

/// The name to use: the wanted one, or the default of this device, whose state partition is at `state`.
///
/// # Errors
/// When none is wanted and the device has no id.
pub fn effective(wanted: Option<&Hostname>, state: &Path) -> Result<Hostname, NameError> {
    match wanted {
        Some(name) => Ok(name.clone()),
        None => Hostname::from_device_id(&files::read_text(&state.join(DEVICE_ID))?).ok_or(NameError::NoDeviceId),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_single_labels() {
        for good in ["a", "kiosk-3", "0123abc", "A", &"x".repeat(63)] {
            assert!(Hostname::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a.b", "a b", "a\n", "ü", "a_b", &"x".repeat(64)] {
            assert!(Hostname::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn default_is_the_short_device_id() {
        let dir = tempfile::tempdir().unwrap();
        let id = dir.path().join(DEVICE_ID);
        assert!(effective(None, dir.path()).is_err());
        std::fs::create_dir_all(id.parent().unwrap()).unwrap();
        std::fs::write(&id, "0123456789abcdef0123456789abcdef\n").unwrap();
        assert_eq!(effective(None, dir.path()).unwrap().as_str(), "0123456");
        let wanted = Hostname::parse("kiosk").unwrap();
        assert_eq!(effective(Some(&wanted), dir.path()).unwrap().as_str(), "kiosk");
        std::fs::write(&id, "01").unwrap();
        assert!(effective(None, dir.path()).is_err());
    }
}
