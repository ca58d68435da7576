//! What an update does to the device: marks for the bootloader, restarts. Each has a way that does without D-Bus and
//! without RAUC: a release that broke them is left by it.

use crate::policy::Policy;
use crate::state::{State, Store};
use anyhow::{Context, Result};
use os_boot::{Fate, Loader, LoaderError, State as Choice};
use os_dbus::{Bus, BusError, Tried, Verb};
use os_facts::Slot;
use os_facts::identity;
use os_facts::place::{STATE, under};
use os_facts::report::{self, Report};
use os_sys::cmd::Cmd;
use os_sys::log;
use std::path::{Path, PathBuf};
use tokio::sync::OnceCell;

/// Status that an operator can give to a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mark {
    /// Bootable; its tries are counted from zero again
    Good,
    /// Not to be booted
    Bad,
    /// To be booted from now on
    Active,
}

impl Mark {
    /// RAUC's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Active => "active",
        }
    }
}

/// What [`crate::course`] needs of a device.
pub(crate) trait Device {
    /// The slot that runs.
    fn booted(&self) -> Result<Slot>;
    /// Writes the state down; it is on the medium when this returns.
    fn save(&self, state: &State) -> Result<()>;
    /// Keeps the state until the next start, where it cannot be written down.
    fn keep_in_ram(&self, state: &State) -> Result<()>;
    /// Why the bootloader did not start a slot that was on trial; none when nothing says so.
    fn fate(&self, slot: Slot) -> Option<Fate>;
    /// Has RAUC tell the bootloader of a slot.
    async fn mark(&self, mark: Mark, slot: Slot) -> Result<()>;
    /// Tells the bootloader without RAUC.
    fn mark_directly(&self, mark: Mark, slot: Slot) -> Result<()>;
    /// Begins to restart.
    async fn restart(&self) -> Result<()>;
    /// Begins to shut down for the jump into the kernel that was loaded.
    async fn jump(&self) -> Result<()>;
}

/// This device.
#[derive(Debug)]
pub(crate) struct Machine {
    root: PathBuf,
    bus: OnceCell<Bus>,
    pub(crate) store: Store,
}

impl Machine {
    pub(crate) fn this() -> Self {
        Self::under(Path::new("/"), None)
    }

    /// One whose root is somewhere else; without a bus it is the system's, once it is needed.
    pub(crate) fn under(root: &Path, bus: Option<Bus>) -> Self {
        Self { root: root.to_owned(), bus: OnceCell::new_with(bus), store: Store::under(root) }
    }

    /// Where a path of the device is.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        under(&self.root, path)
    }

    /// The bootloader.
    pub(crate) fn loader(&self) -> Result<Loader, LoaderError> {
        Loader::under(&self.root)
    }

    pub(crate) fn policy(&self) -> Policy {
        Policy::under(&self.root)
    }

    /// The identifier of the device; empty where it has none.
    pub(crate) fn id(&self) -> String {
        identity::read_id(&self.at(STATE).join(identity::DEVICE_ID)).unwrap_or_default()
    }

    /// The bus, from the first moment that it is needed.
    pub(crate) async fn bus(&self) -> Result<&Bus, BusError> {
        self.bus.get_or_try_init(Bus::system).await
    }

    /// Ends RAUC, whatever it does.
    pub(crate) async fn stop_rauc(&self) {
        let stopped = async { self.bus().await?.unit_job(Verb::Stop, "rauc.service").await };
        if let Err(err) = stopped.await {
            log::warn(&format!("RAUC cannot be stopped: {err}"));
        }
    }
}

impl Device for Machine {
    fn booted(&self) -> Result<Slot> {
        if let Some(report) = Report::load(&self.at(report::PATH)) {
            return Ok(report.slot);
        }
        let cmdline = std::fs::read_to_string(self.at("/proc/cmdline")).unwrap_or_default();
        let slot = cmdline.split_ascii_whitespace().find_map(|word| word.strip_prefix("rauc.slot="));
        Ok(slot.context("neither the initramfs nor the bootloader says which slot this is")?.parse()?)
    }

    fn save(&self, state: &State) -> Result<()> {
        Ok(self.store.save_surely(state)?)
    }

    fn keep_in_ram(&self, state: &State) -> Result<()> {
        Ok(self.store.keep_in_ram(state)?)
    }

    fn fate(&self, slot: Slot) -> Option<Fate> {
        self.loader().ok()?.fate(slot).ok()
    }

    async fn mark(&self, mark: Mark, slot: Slot) -> Result<()> {
        let bus = self.bus().await?;
        let slots = bus.slots().await?;
        let known = slots.iter().find(|s| s.bootname.as_deref() == Some(slot.name()));
        let name = &known.with_context(|| format!("RAUC knows no slot {slot}"))?.name;
        let said = bus.rauc().await?.mark(mark.word(), name).await.tried("RAUC does not mark the slot")?;
        log::info(&format!("slot {slot} is {}: {}", mark.word(), said.1));
        Ok(())
    }

    fn mark_directly(&self, mark: Mark, slot: Slot) -> Result<()> {
        mark_in(&self.loader()?, mark, slot)
    }

    async fn restart(&self) -> Result<()> {
        let queued = async { self.bus().await?.leave("reboot.target").await };
        let Err(err) = queued.await else { return Ok(()) };
        // systemctl has a socket of its own to systemd.
        log::warn(&format!("{err}; restarting without the bus"));
        let systemctl = |options: &[&str]| Cmd::new(self.at("/usr/bin/systemctl")).args(options).arg("reboot").run();
        Ok(systemctl(&["--no-block"]).or_else(|_| systemctl(&["--no-block", "--force"]))?)
    }

    async fn jump(&self) -> Result<()> {
        Ok(self.bus().await?.leave("kexec.target").await?)
    }
}

pub(crate) fn mark_in(loader: &Loader, mark: Mark, slot: Slot) -> Result<()> {
    Ok(match mark {
        Mark::Active => loader.set_primary(slot),
        Mark::Good => loader.set_state(slot, Choice::Good),
        Mark::Bad => loader.set_state(slot, Choice::Bad),
    }?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use os_boot::{Bootloader, counters};

    #[test]
    fn marks_reach_the_bootloader_without_rauc() {
        let boot = tempfile::tempdir().unwrap();
        let loader = Loader::new(Bootloader::Grub, boot.path());
        std::fs::create_dir_all(loader.directory()).unwrap();
        std::fs::write(loader.directory().join(counters::FILE), counters::fresh()).unwrap();
        let next = || loader.counters().unwrap().next();
        mark_in(&loader, Mark::Active, Slot::B).unwrap();
        assert_eq!(next(), Some(Slot::B));
        mark_in(&loader, Mark::Bad, Slot::B).unwrap();
        assert_eq!(next(), Some(Slot::A));
        let nowhere = Loader::new(Bootloader::Grub, Path::new("/nonexistent"));
        assert!(mark_in(&nowhere, Mark::Bad, Slot::B).is_err());
    }
}
