//! Has RAUC write a bundle into the slot that does not run, from a channel or by hand.

use crate::agent::{Agent, Asked, STOP};
use crate::hand;
use crate::index;
use crate::machine::Device;
use crate::outcome::Done;
use crate::progress::{self, Progress};
use crate::relay::{Bundle, Relay};
use crate::state::Target;
use crate::step::Event;
use crate::trust::{self, now};
use crate::version;
use anyhow::{Context, Result, ensure};
use os_channel::Release;
use os_dbus::{BusError, RaucSlot, Verb};
use os_fetch::address::AddressError;
use os_fetch::{Address, Source};
use os_sys::log;
use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

/// How often is looked whether the installation is to stop.
const STOP_INTERVAL: Duration = Duration::from_secs(1);
/// How often a bundle that could not be mounted is tried again at once.
const MOUNT_RETRIES: u32 = 3;

/// What a bundle is called that an operator names by its address.
const BUNDLE: &str = "bundle";

const OLD_RAUC: &str = "this RAUC does not say which bundle it was given; updates need RAUC 1.9 or later";

/// What RAUC is asked to write.
#[derive(Debug, Clone, Copy)]
struct Writing<'a> {
    /// Path or address of the bundle.
    source: &'a str,
    version: &'a str,
    /// SHA-256 of its manifest, hex, as it was when it was looked at.
    hash: &'a str,
    transaction: &'a str,
    asked: Asked,
}

/// An installation that an operator did not want.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Stopped(&'static str);

impl Agent {
    pub(crate) async fn install(&mut self, asked: Asked, source: &Source, release: &Release) -> Result<()> {
        let target = Target { version: release.version.to_string(), digest: release.bundle.sha256.clone() };
        let transaction = uuid()?;
        self.course.state.began = Some(transaction.clone());
        self.course.note(Event::Found(target.clone(), transaction.clone()))?;
        log::info(&format!("installing {}", target.version));
        let relay = Relay::start(Bundle {
            source: source.clone(),
            path: release.bundle.path.clone(),
            size: release.bundle.size,
            limit: self.policy.limit,
        })?;
        let done = self.write_slot(&relay, release, &transaction, asked).await;
        let passed = relay.passed();
        let event = match &done {
            Ok(slots) => self.wrote(slots, &target)?,
            Err(err) => {
                // It is no fault of the release, nor of the channel, when somebody stops it.
                if err.downcast_ref::<Stopped>().is_none() {
                    self.course.state.wait_for(now(), &target.digest);
                }
                let trouble = passed.trouble.as_ref().map(|t| format!(" ({t})")).unwrap_or_default();
                Event::NotWritten(format!("{err:#}{trouble}"))
            }
        };
        if done.is_ok() {
            self.course.state.waiting = None;
        }
        self.course.state.note(now(), format!("{} MiB came from the channel", passed.fetched >> 20));
        self.course.note(event)?;
        done.map(drop).with_context(|| format!("{} was not installed", target.version))
    }

    /// What RAUC wrote is known by name from now on.
    fn wrote(&mut self, slots: &[RaucSlot], target: &Target) -> Result<Event> {
        let slot = self.course.device.booted()?.other();
        hand::wrote(&mut self.course.state, slots, slot, target);
        Ok(Event::Written)
    }

    async fn write_slot(
        &self,
        relay: &Relay,
        release: &Release,
        transaction: &str,
        asked: Asked,
    ) -> Result<Vec<RaucSlot>> {
        self.prepare_streaming().await;
        let address = relay.address();
        let facts = self.bus().await?.inspect(&address).await.map_err(|err| trust::with_doubt(err.into()))?;
        // With it the signed list says which bundle this is; RAUC's own signature alone would let an old one through.
        let wanted = &release.bundle.manifest_hash;
        let found = facts.manifest_hash.context(OLD_RAUC)?;
        ensure!(&found == wanted, "the channel served another bundle than the one its list names");
        // Whoever can sign lists only cannot pass an old bundle off as a new release.
        let version = release.version.to_string();
        let inside = facts.version.context("the bundle names no version")?;
        ensure!(inside == version, "the list calls the bundle {version}, the bundle itself {inside}");
        let writing = Writing { source: &address, version: &version, hash: wanted, transaction, asked };
        self.have_rauc_write(&writing, Some(relay)).await
    }

    /// Returns what RAUC says of the slots then. `relay` is what the bundle comes through, if it does.
    async fn have_rauc_write(&self, writing: &Writing<'_>, relay: Option<&Relay>) -> Result<Vec<RaucSlot>> {
        let Writing { source, version, hash, transaction, asked } = *writing;
        let last = Cell::new(None);
        let told = |progress: &Progress| {
            // A journal is read by people: tenths will do; os update status has every step.
            let tenth = Some((progress.percent / 10, progress.trouble.is_some()));
            if last.replace(tenth) != tenth {
                log::info(&progress.to_string());
            }
        };
        let progress = |percent: i32| {
            let progress = Progress::new(version, percent, relay.map(Relay::passed));
            progress::save(&progress);
            told(&progress);
        };
        match index::forget_unfinished(Path::new(index::DATA)) {
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
                self.course.device.stop_rauc().await;
                Err(stopped.into())
            }
        };
        progress::end();
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
            if Path::new(STOP).exists() {
                return Stopped("an operator stopped it");
            }
            if asked == Asked::Timer && self.course.device.store.paused() {
                return Stopped("an operator paused updates");
            }
        }
    }

    /// Installs a bundle that an operator names, whatever channels say of it: RAUC believes it for its signature, and the
    /// trial decides as always.
    ///
    /// # Errors
    /// When RAUC refuses the bundle or does not write it.
    pub async fn install_by_hand(&mut self, bundle: &str, told: &dyn Fn(&str)) -> Result<Done> {
        self.notice().await?;
        self.not_on_trial()?;
        let relay = self.relay_of(bundle)?;
        let source = relay.as_ref().map_or_else(|| bundle.to_owned(), Relay::address);
        self.prepare_streaming().await;
        let trouble = || relay.as_ref().and_then(|relay| relay.passed().trouble);
        let facts = self.bus().await?.inspect(&source).await.map_err(|err| {
            let err = trust::with_doubt(err.into());
            trouble().into_iter().fold(err, anyhow::Error::context)
        })?;
        let version = facts.version.context("the bundle names no version")?;
        // No channel could go on from another one.
        version::strict(&version).map_err(anyhow::Error::msg).context("nothing was installed")?;
        let hash = facts.manifest_hash.context(OLD_RAUC)?;
        let target = Target { version: version.clone(), digest: hash.clone() };
        let transaction = uuid()?;
        self.course.state.began = Some(transaction.clone());
        self.course.note(Event::Found(target.clone(), transaction.clone()))?;
        log::info(&format!("installing {version}, as an operator asks"));
        let writing = Writing {
            source: &source,
            version: &version,
            hash: &hash,
            transaction: &transaction,
            asked: Asked::Person,
        };
        let done = self.have_rauc_write(&writing, relay.as_ref()).await;
        let event = match &done {
            Ok(slots) => self.wrote(slots, &target)?,
            Err(err) => {
                let trouble = trouble().map(|t| format!(" ({t})")).unwrap_or_default();
                Event::NotWritten(format!("{err:#}{trouble}"))
            }
        };
        self.course.note(event)?;
        done.with_context(|| format!("{version} was not installed"))?;
        self.restart_into(&version, told).await
    }

    /// What brings a bundle from an address; none for a file. RAUC itself knows no proxy, and says addresses with all that is
    /// secret of them.
    fn relay_of(&self, bundle: &str) -> Result<Option<Relay>> {
        let address = match Address::parse(bundle) {
            Err(AddressError::Scheme) => return Ok(None),
            other => other.context("the address of the bundle cannot work")?,
        };
        let (path, source) = (address.name().to_owned(), Source::File(address));
        let size = source
            .size(BUNDLE)
            .map_err(|err| trust::with_doubt(err.into()).context(format!("{path} cannot be read")))?;
        let bundle = Bundle { source, path: BUNDLE.to_owned(), size, limit: self.policy.limit };
        Ok(Some(Relay::start(bundle)?))
    }

    /// RAUC reads a bundle through a network block device that goes away when its last reader closes it. udev looks at
    /// every new device, so the module comes early, and a race that udev won is run again.
    async fn prepare_streaming(&self) {
        let loaded = async { self.course.device.bus().await?.unit_job(Verb::Start, "modprobe@nbd.service").await };
        if let Err(err) = loaded.await {
            log::warn(&format!("{err:#}"));
        }
        let _ = os_sys::cmd::Cmd::new("udevadm").args(["settle", "--timeout=20"]).run();
    }
}

/// An identifier for RAUC, as RFC 9562 writes random ones.
fn uuid() -> Result<String> {
    Ok(os_disk::gpt::Guid::random()?.to_string())
}
