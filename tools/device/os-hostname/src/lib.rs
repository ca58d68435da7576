//! The device's name: set through hostnamed, announced as `<name>.local` by Avahi.
//!
//! The root is read-only, so `/etc/hostname` is a link to [`hostname::FILE`] on state; hostnamed and systemd read it there at
//! every boot, before anything else of ours runs.

use clap::Parser;
use os_dbus::{Bus, BusError, Tried};
use os_facts::hostname::{self, Hostname, NameError};
use os_facts::place::STATE;
use os_sys::files::{self, FileError, Written};
use os_sys::log;
use std::path::Path;

/// The name as the kernel has it.
const KERNEL: &str = "/proc/sys/kernel/hostname";

/// Why the name was not set.
#[derive(Debug, thiserror::Error)]
pub enum HostnameError {
    /// There is none to set.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// hostnamed or Avahi.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// Sets the name everywhere it is not set yet; restarts nothing.
///
/// # Errors
/// When the file cannot be written or hostnamed refuses. Avahi takes the name by itself when it starts later.
pub async fn apply(bus: &Bus, wanted: Option<&Hostname>) -> Result<Written, HostnameError> {
    let state = Path::new(STATE);
    let name = hostname::effective(wanted, state)?;
    let mut written = files::write_if_changed(&state.join(hostname::FILE), format!("{name}\n").as_bytes(), 0o644)?;
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
    /// Host name; by default the short device id
    name: Option<String>,
    /// Set nothing, only have Avahi announce the name again if it gave it up and no other device uses it
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
