//! Has RAUC write a bundle into the slot that does not run.

use crate::agent::{Asked, STOP};
use crate::index;
use crate::machine::Machine;
use crate::progress::{self, Progress};
use anyhow::{Result, ensure};
use os_dbus::{BusError, RaucSlot, Verb};
use os_sys::log;
use os_transport::relay::Relay;
use std::cell::Cell;
use std::time::Duration;

/// How often is looked whether the installation is to stop.
const STOP_INTERVAL: Duration = Duration::from_secs(1);
/// How often a bundle that could not be mounted is tried again at once.
const MOUNT_RETRIES: u32 = 3;

/// What RAUC is asked to write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writing<'a> {
    /// Path or address of the bundle.
    pub source: &'a str,
    /// Its version.
    pub version: &'a str,
    /// SHA-256 of its manifest, hex, as it was when it was looked at.
    pub hash: &'a str,
    /// RAUC's identifier of this installation.
    pub transaction: &'a str,
    /// Who asks for it.
    pub asked: Asked,
    /// What the bundle comes through, if it does.
    pub relay: Option<&'a Relay>,
}

/// An installation that an operator did not want.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Stopped(&'static str);

impl Machine {
    /// Returns what RAUC says of the slots then.
    ///
    /// # Errors
    /// When RAUC does not write it, or something else than was asked for; when somebody stops it, as [`Stopped`].
    pub(crate) async fn write(&self, writing: &Writing<'_>) -> Result<Vec<RaucSlot>> {
        let Writing { source, version, hash, transaction, asked, relay } = *writing;
        let last = Cell::new(None);
        let told = |progress: &Progress| {
            // A journal is read by people: tenths will do; os update status has every step.
            let tenth = Some((progress.percent / 10, progress.trouble.is_some()));
            if last.replace(tenth) != tenth {
                log::info(&progress.to_string());
            }
        };
        let saved = self.at(progress::PATH);
        let progress = |percent: i32| {
            let progress = Progress::new(version, percent, relay.map(Relay::passed));
            progress.save(&saved);
            told(&progress);
        };
        match index::forget_unfinished(&self.at(index::DATA)) {
            Ok(true) => log::info("the slot is half written; what is there is not fetched again"),
            Ok(false) => {}
            Err(err) => log::warn(&format!("{err}; more is fetched than must be")),
        }
        let bus = self.bus().await?;
        let mut left = MOUNT_RETRIES;
        let install = async {
            loop {
                match bus.install(source, transaction, hash, &progress).await {
                    Err(BusError::Refused(why)) if why.contains("mounting bundle") && left > 0 => {
                        left -= 1;
                        log::warn(&format!("{why}; once more"));
                    }
                    other => return other,
                }
            }
        };
        let done = tokio::select! {
            done = install => done.map_err(anyhow::Error::from),
            stopped = self.stopped(asked) => {
                self.stop_rauc().await;
                Err(stopped.into())
            }
        };
        // Nothing is being installed any more.
        let _ = std::fs::remove_file(&saved);
        done?;
        told(&Progress::new(version, 100, relay.map(|relay| relay.passed().ended())));
        // It was looked at, and read again to be written: in between somebody may have put another one there.
        let slots = bus.slots().await?;
        let mut written = slots.iter().filter(|slot| slot.transaction.as_deref() == Some(transaction)).peekable();
        ensure!(written.peek().is_some(), "RAUC says that it is done, and no slot says so");
        for slot in written {
            let there = slot.manifest_hash.as_deref();
            ensure!(there == Some(hash), "{} holds another bundle than the one that was looked at", slot.name);
        }
        Ok(slots)
    }

    /// Comes when an operator does not want what is being installed.
    async fn stopped(&self, asked: Asked) -> Stopped {
        loop {
            tokio::time::sleep(STOP_INTERVAL).await;
            if self.at(STOP).exists() {
                return Stopped("an operator stopped it");
            }
            if asked == Asked::Timer && self.store.paused() {
                return Stopped("an operator paused updates");
            }
        }
    }

    /// RAUC reads a bundle through a network block device that goes away when its last reader closes it. udev looks at
    /// every new device, so the module comes early, and a race that udev won is run again.
    pub(crate) async fn prepare_streaming(&self) {
        let loaded = async { self.bus().await?.unit_job(Verb::Start, "modprobe@nbd.service").await };
        if let Err(err) = loaded.await {
            log::warn(&format!("{err:#}"));
        }
        let _ = os_sys::cmd::Cmd::new("udevadm").args(["settle", "--timeout=20"]).run();
    }
}
