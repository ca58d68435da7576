//! What an update does to the device: marks for the bootloader, restarts. Each has a way that does without D-Bus and
//! without RAUC: a release that broke them is left by it.

use crate::state::{State, Store};
use anyhow::{Context, Result};
use os_dbus::{Bus, BusError, Tried, Verb};
use os_facts::report::Report;
use os_slots::counters::{Counters, Fate, State as Choice};
use os_sys::cmd::Cmd;
use os_sys::log;
use std::path::Path;
use tokio::sync::OnceCell;

/// What may be said of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mark {
    /// It works; its counter of tries begins anew
    Good,
    /// It is not to be started
    Bad,
    /// It is what the bootloader starts from now on
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
    fn booted(&self) -> Result<String>;
    /// Writes the state down; it is on the medium when this returns.
    fn save(&self, state: &State) -> Result<()>;
    /// Keeps the state until the next start, where it cannot be written down.
    fn keep_in_ram(&self, state: &State) -> Result<()>;
    /// Why the bootloader did not start a slot that was on trial; none when nothing says so.
    fn fate(&self, slot: &str) -> Option<Fate>;
    /// Has RAUC tell the bootloader of a slot.
    async fn mark(&self, mark: Mark, slot: &str) -> Result<()>;
    /// Tells the bootloader without RAUC.
    fn mark_directly(&self, mark: Mark, slot: &str) -> Result<()>;
    /// Begins to restart.
    async fn restart(&self) -> Result<()>;
    /// Begins to shut down for the jump into the kernel that was loaded.
    async fn jump(&self) -> Result<()>;
}

/// This device.
#[derive(Debug)]
pub(crate) struct Machine {
    bus: OnceCell<Bus>,
    pub(crate) store: Store,
}

impl Machine {
    pub(crate) fn new(store: Store) -> Self {
        Self { bus: OnceCell::new(), store }
    }

    /// The system bus, from the first moment that it is needed.
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
    fn booted(&self) -> Result<String> {
        if let Some(report) = Report::of_this_boot() {
            return Ok(report.slot);
        }
        let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let slot = cmdline.split_ascii_whitespace().find_map(|word| word.strip_prefix("rauc.slot="));
        Ok(slot.context("neither the initramfs nor the bootloader says which slot this is")?.to_owned())
    }

    fn save(&self, state: &State) -> Result<()> {
        Ok(self.store.save_surely(state)?)
    }

    fn keep_in_ram(&self, state: &State) -> Result<()> {
        Ok(self.store.keep_in_ram(state)?)
    }

    fn fate(&self, slot: &str) -> Option<Fate> {
        Counters::load(Path::new(os_slots::DIR)).map(|counters| counters.fate(slot)).ok()
    }

    async fn mark(&self, mark: Mark, bootname: &str) -> Result<()> {
        let bus = self.bus().await?;
        let slots = bus.slots().await?;
        let slot = slots.iter().find(|s| s.bootname.as_deref() == Some(bootname));
        let name = &slot.with_context(|| format!("RAUC knows no slot {bootname}"))?.name;
        let said = bus.rauc().await?.mark(mark.word(), name).await.tried("RAUC does not mark the slot")?;
        log::info(&format!("slot {bootname} is {}: {}", mark.word(), said.1));
        Ok(())
    }

    fn mark_directly(&self, mark: Mark, slot: &str) -> Result<()> {
        mark_in(Path::new(os_slots::DIR), mark, slot)
    }

    async fn restart(&self) -> Result<()> {
        let queued = async { self.bus().await?.leave("reboot.target").await };
        let Err(err) = queued.await else { return Ok(()) };
        // systemctl has a socket of its own to systemd.
        log::warn(&format!("{err}; restarting without the bus"));
        let systemctl = |options: &[&str]| Cmd::new("systemctl").args(options).arg("reboot").run();
        Ok(systemctl(&["--no-block"]).or_else(|_| systemctl(&["--no-block", "--force"]))?)
    }

    async fn jump(&self) -> Result<()> {
        Ok(self.bus().await?.leave("kexec.target").await?)
    }
}

/// `dir`: where the bootloader has its counters.
pub(crate) fn mark_in(dir: &Path, mark: Mark, slot: &str) -> Result<()> {
    match mark {
        Mark::Active => os_slots::set_primary(dir, slot),
        Mark::Good => os_slots::set_state(dir, slot, Choice::Good),
        Mark::Bad => os_slots::set_state(dir, slot, Choice::Bad),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_reach_the_bootloader_without_rauc() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(os_slots::counters::FILE), os_slots::counters::fresh()).unwrap();
        let next = || Counters::load(dir.path()).unwrap().next();
        mark_in(dir.path(), Mark::Active, "B").unwrap();
        assert_eq!(next(), Some("B"));
        mark_in(dir.path(), Mark::Bad, "B").unwrap();
        assert_eq!(next(), Some("A"));
        assert!(mark_in(dir.path(), Mark::Bad, "C").is_err());
        assert!(mark_in(Path::new("/nonexistent"), Mark::Bad, "B").is_err());
    }
}
