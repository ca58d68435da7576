//! The device's name: set through hostnamed, announced as `<name>.local` by Avahi.
//!
//! The root is read-only, so `/etc/hostname` is a link to [`FILE`] on state; hostnamed and systemd read it there at
//! every boot, before anything else of ours runs.

use clap::Parser;
use os_dbus::{Bus, BusError, Tried};
use os_sys::files::{self, FileError, Written};
use os_sys::log;
use std::fmt;
use std::path::Path;

/// Where the static name lies.
pub const FILE: &str = "/mnt/state/os/hostname";

/// Where the public device id lies (made by the initramfs).
pub const DEVICE_ID: &str = "/mnt/state/os/device-id";

/// The name as the kernel has it.
const KERNEL: &str = "/proc/sys/kernel/hostname";

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

/// Why the name was not set.
#[derive(Debug, thiserror::Error)]
pub enum HostnameError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// hostnamed or Avahi.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// There is no device id to take the default from.
    #[error("no host name is configured and {DEVICE_ID} holds no device id")]
    NoDeviceId,
}

/// The name to use: the wanted one, or the default of this device.
///
/// # Errors
/// When none is wanted and the device has no id.
pub fn effective(wanted: Option<&Hostname>, device_id: &Path) -> Result<Hostname, HostnameError> {
    match wanted {
        Some(name) => Ok(name.clone()),
        None => Hostname::from_device_id(&files::read_text(device_id)?).ok_or(HostnameError::NoDeviceId),
    }
}

/// Sets the name everywhere it is not set yet; restarts nothing.
///
/// # Errors
/// When the file cannot be written or hostnamed refuses. Avahi takes the name by itself when it starts later.
pub async fn apply(bus: &Bus, wanted: Option<&Hostname>) -> Result<Written, HostnameError> {
    let name = effective(wanted, Path::new(DEVICE_ID))?;
    let mut written = files::write_if_changed(Path::new(FILE), format!("{name}\n").as_bytes(), 0o644)?;
    // hostnamed sets the kernel's name, so that tells without starting hostnamed.
    if files::read_text(Path::new(KERNEL))?.trim() != name.as_str() {
        let hostnamed = bus.hostnamed().await?;
        hostnamed.set_hostname(name.as_str(), false).await.tried("hostnamed refused the name")?;
        written = Written::Changed;
    }
    if let Some(avahi) = bus.avahi().await?
        && avahi.get_host_name().await.tried("cannot ask avahi for the name")? != name.as_str()
    {
        avahi.set_host_name(name.as_str()).await.tried("avahi refused the name")?;
        written = Written::Changed;
    }
    Ok(written)
}

/// Has Avahi take the name back that it gave up, unless another device has it now.
///
/// Avahi calls itself `<name>-2` when something else answers for its name. That is another device, or Avahi's own voice:
/// when an address of an interface gives way to another in the moment in which it was announced, the announcement comes
/// back to Avahi as a stranger's. It never tries the old name again by itself.
///
/// # Errors
/// When Avahi does not answer or refuses the name.
pub async fn take_back(bus: &Bus) -> Result<(), HostnameError> {
    let Some(avahi) = bus.avahi().await? else { return Ok(()) };
    let name = files::read_text(Path::new(KERNEL))?;
    let name = name.trim();
    let announced = avahi.get_host_name().await.tried("cannot ask avahi for the name")?;
    if announced == name {
        return Ok(());
    }
    if let Some(address) = bus.who_answers_for(name).await? {
        log::warn(&format!(
            "{name}.local is {address}; this device is {announced}.local as long as that one is there; another name is \
             set by os config set hostname NAME"
        ));
        return Ok(());
    }
    avahi.set_host_name(name).await.tried("avahi refused the name")?;
    log::info(&format!("nobody else is {name}.local; this device is no longer {announced}.local"));
    Ok(())
}

/// Set the host name of this device.
#[derive(Debug, Parser)]
#[command(name = "os-hostname", version)]
pub struct Args {
    /// The name; without it the short device id
    name: Option<String>,
    /// Set nothing: have the name announced again where Avahi gave it up and nobody else has it
    #[arg(long, conflicts_with = "name")]
    take_back: bool,
}

/// The applet.
///
/// # Errors
/// When the name is refused or cannot be set.
pub async fn main(args: Args) -> anyhow::Result<()> {
    if args.take_back {
        return Ok(take_back(&Bus::system().await?).await?);
    }
    let wanted = args.name.as_deref().map(Hostname::parse).transpose().map_err(|e| anyhow::anyhow!("the name {e}"))?;
    apply(&Bus::system().await?, wanted.as_ref()).await?;
    Ok(())
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
        let path = dir.path().join("id");
        std::fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
        assert_eq!(effective(None, &path).unwrap().as_str(), "0123456");
        let wanted = Hostname::parse("kiosk").unwrap();
        assert_eq!(effective(Some(&wanted), &path).unwrap().as_str(), "kiosk");
        std::fs::write(&path, "01").unwrap();
        assert!(effective(None, &path).is_err());
    }
}
