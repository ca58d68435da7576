//! Carries an update on: asks, decides with [`step`], writes the state, acts.

use crate::health;
use crate::index;
use crate::policy::{Mode, Policy, Trial};
use crate::relay::{Bundle, Relay};
use crate::state::{Phase, State, Store, Target};
use crate::step::{Action, Event, Step, other, step};
use crate::trust::{self, now};
use anyhow::{Context, Result, bail, ensure};
use os_channel::channel::Asking;
use os_channel::{Channel, Choice, Release};
use os_dbus::{Bus, BusError, Slot, Tried, Verb};
use os_fetch::Source;
use os_init::report::{self, Report};
use os_sys::{files, log};
use rustix::fs::{FlockOperation, flock};
use semver::Version;
use serde::Serialize;
use std::cell::Cell;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

/// Held by whoever carries an update on.
const LOCK: &str = "/run/os/update.lock";
/// How long to wait for it where waiting is not wanted.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// Progress of an installation, for `os update status`.
pub const PROGRESS: &str = "/run/os/update-progress.json";
/// The journal of the last boot that failed its health check.
pub const FAILED_JOURNAL: &str = "failed-boot.log";
/// How often a bundle that could not be mounted is tried again at once.
const MOUNT_RETRIES: u32 = 3;
/// Who typed nothing on a console for so long is not there; less than os-rescue.timer waits.
const TYPED: Duration = Duration::from_secs(10 * 60);
const OLD_RAUC: &str = "this RAUC does not say which bundle it was given; updates need RAUC 1.9 or later";
/// Lines of [`FAILED_JOURNAL`].
const JOURNAL_LINES: &str = "400";

/// How far an installation is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Version.
    pub version: String,
    /// Percent, as RAUC counts.
    pub percent: i32,
    /// Bytes that came from the channel.
    pub fetched: u64,
    /// Bytes of the bundle.
    pub size: u64,
    /// What holds it up.
    pub trouble: Option<String>,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The timer: every rule counts.
    Timer,
    /// A person, who wants it now.
    Person,
}

/// What a person may say of a slot.
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
    fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Active => "active",
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// What runs.
    pub running: String,
    /// What is offered.
    pub offered: Option<String>,
    /// For people.
    pub text: String,
}

/// A channel as it is now, and who looks at it.
#[derive(Debug)]
struct Look {
    source: Source,
    list: Channel,
    running: Version,
    compatible: String,
    id: String,
    refused: Vec<String>,
}

impl Look {
    fn choice(&self) -> Choice<'_> {
        let Self { compatible, running, id, refused, .. } = self;
        self.list.choose(Asking { compatible, version: running, id, refused })
    }
}

/// The agent, with the lock held.
#[derive(Debug)]
pub struct Agent {
    bus: Bus,
    store: Store,
    /// Where the update stands.
    pub state: State,
    policy: Policy,
    _lock: File,
}

impl Agent {
    /// Takes the lock and reads everything.
    ///
    /// # Errors
    /// When another one is at work and `wait` does not say to wait for it, or there is no system bus.
    pub async fn new(wait: bool) -> Result<Self> {
        std::fs::create_dir_all("/run/os")?;
        let lock = File::create(LOCK).with_context(|| format!("cannot create {LOCK}; this takes root"))?;
        if wait {
            flock(&lock, FlockOperation::LockExclusive)?;
        } else {
            let start = Instant::now();
            while let Err(err) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                // What only looks at the slots holds it for a moment.
                if start.elapsed() > LOCK_PATIENCE {
                    return Err(err).context("an update is under way already; os update status shows it");
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        let store = Store::device();
        let mut state = store.load();
        if state.lost {
            state.lost = false;
            state.note(now(), "the state of updates was damaged and begins anew");
        }
        Ok(Self { bus: Bus::system().await?, store, state, policy: Policy::load(), _lock: lock })
    }

    /// Looks into the channel; nothing is installed.
    ///
    /// # Errors
    /// When there is no channel, or it cannot be reached or believed.
    pub async fn check(&mut self, from: Option<&Source>) -> Result<Found> {
        let look = self.look(from).await?;
        let (offered, text) = describe(&look.choice(), &look.running);
        Ok(Found { running: look.running.to_string(), offered, text })
    }

    /// Does all that may be done now, and tells `told` before the device restarts: what comes after that may not be heard.
    ///
    /// # Errors
    /// When something that was to be done cannot be.
    pub async fn run(&mut self, asked: Asked, from: Option<&Source>, told: &dyn Fn(&str)) -> Result<String> {
        if asked == Asked::Timer && self.state.paused {
            return Ok("updates are paused; os update resume goes on".to_owned());
        }
        if matches!(self.state.phase, Phase::Trial { .. }) {
            return Ok("a release is on trial; its health check decides".to_owned());
        }
        let look = match self.look(from).await {
            Ok(look) => look,
            Err(err) if asked == Asked::Person && from.is_none() => return self.start_unasked(err).await,
            Err(err) => return Err(err),
        };
        let (source, choice) = (&look.source, look.choice());
        let (_, text) = describe(&choice, &look.running);
        match choice {
            Choice::Offer(release) if !self.is_installed(release) => {
                if let Some(why) = self.objection(asked, source, Some(release)).await? {
                    return Ok(format!("{text}; {why}"));
                }
                self.install(source, release).await?;
            }
            Choice::Offer(_) => {}
            // What was installed yesterday may have been stopped or revoked since.
            Choice::Held { release, .. } if self.is_installed(release) => return Ok(text),
            Choice::Held { .. } | Choice::UpToDate => self.advance(step(&self.state.phase, Event::Withdrawn))?,
        }
        let Phase::Installed { target, .. } = self.state.phase.clone() else { return Ok(text) };
        if asked == Asked::Timer && self.policy.mode != Mode::Automatic {
            return Ok(format!("{} is installed and waits for: os update apply", target.version));
        }
        if let Some(why) = self.objection(asked, source, None).await? {
            return Ok(format!("{} is installed; {why}", target.version));
        }
        told(&format!("{} is installed; restarting into it", target.version));
        self.start_installed().await?;
        Ok(format!("restarting into {}", target.version))
    }

    /// A person may start what is installed although the channel, which may have revoked it, cannot be asked.
    async fn start_unasked(&mut self, why: anyhow::Error) -> Result<String> {
        let Phase::Installed { target, .. } = self.state.phase.clone() else { return Err(why) };
        log::warn(&format!("{why:#}; starting what is installed"));
        self.start_installed().await?;
        Ok(format!("restarting into {}", target.version))
    }

    async fn look(&mut self, from: Option<&Source>) -> Result<Look> {
        let (source, name) = self.channel(from)?;
        let (running, compatible) = (self.running_version().await?, self.compatible().await?);
        let list = self.read_channel(&source, &name)?;
        Ok(Look { source, list, running, compatible, id: device_id(), refused: self.state.refused_digests() })
    }

    /// What speaks against going on; a person's wish is above it.
    async fn objection(&self, asked: Asked, source: &Source, release: Option<&Release>) -> Result<Option<String>> {
        if asked == Asked::Person {
            return Ok(None);
        }
        if let Some(release) = release {
            if self.policy.mode == Mode::Manual {
                return Ok(Some("os update apply installs it".to_owned()));
            }
            let waiting = self.state.waiting.as_ref().filter(|w| w.digest == release.bundle.sha256);
            if waiting.is_some_and(|w| now() < w.until) {
                return Ok(Some(format!("it is tried again later; the last time: {}", self.state.last)));
            }
        }
        Ok(self.policy.objection(&self.bus, release.is_some() && matches!(source, Source::Web(_))).await?)
    }

    fn is_installed(&self, release: &Release) -> bool {
        matches!(&self.state.phase, Phase::Installed { target, .. } if target.digest == release.bundle.sha256)
    }

    async fn install(&mut self, source: &Source, release: &Release) -> Result<()> {
        let target = Target { version: release.version.to_string(), digest: release.bundle.sha256.clone() };
        let transaction = uuid()?;
        let next = step(&self.state.phase, Event::Found(target.clone(), transaction.clone()));
        self.advance(next)?;
        log::info(&format!("installing {}", target.version));
        let relay = Relay::start(Bundle {
            source: source.clone(),
            path: release.bundle.path.clone(),
            size: release.bundle.size,
            limit: self.policy.limit,
        })?;
        let done = self.write_slot(&relay, release, &transaction).await;
        let fetched = relay.fetched();
        let event = match &done {
            Ok(()) => Event::Written,
            Err(err) => {
                self.state.wait_for(now(), &target.digest);
                let trouble = relay.trouble().map(|t| format!(" ({t})")).unwrap_or_default();
                Event::NotWritten(format!("{err:#}{trouble}"))
            }
        };
        if done.is_ok() {
            self.state.waiting = None;
        }
        self.state.note(now(), format!("{} MiB came from the channel", fetched >> 20));
        self.advance(step(&self.state.phase, event))?;
        done.with_context(|| format!("{} was not installed", target.version))
    }

    async fn write_slot(&self, relay: &Relay, release: &Release, transaction: &str) -> Result<()> {
        self.prepare_streaming().await;
        let address = relay.address();
        let found = self.bus.inspect(&address).await?.manifest_hash.context(OLD_RAUC)?;
        // With it the signed list says which bundle this is; RAUC's own signature alone would let an old one through.
        let wanted = &release.bundle.manifest_hash;
        ensure!(&found == wanted, "the channel served another bundle than the one its list names");
        let version = release.version.to_string();
        let seen = || (relay.fetched(), release.bundle.size, relay.trouble());
        self.have_rauc_write(&address, &version, transaction, &seen).await
    }

    /// `seen` tells bytes that came, bytes in all, and what holds it up.
    async fn have_rauc_write(
        &self,
        address: &str,
        version: &str,
        transaction: &str,
        seen: &dyn Fn() -> (u64, u64, Option<String>),
    ) -> Result<()> {
        let last = Cell::new(None);
        let progress = |percent: i32| {
            let (fetched, size, trouble) = seen();
            let progress = Progress { version: version.to_owned(), percent, fetched, size, trouble };
            if let Ok(text) = serde_json::to_vec(&progress) {
                let _ = files::write_if_changed(Path::new(PROGRESS), &text, 0o644);
            }
            // A journal is read by people: tenths of either will do. RAUC says nothing while it looks at a slot, and
            // while it takes blocks from one; os update status has every byte.
            let tenths = Some((percent / 10, fetched.saturating_mul(10).checked_div(size)));
            if last.replace(tenths) != tenths {
                log::info(&percent_of(percent.unsigned_abs().into(), fetched, size));
            }
        };
        match index::forget_unfinished(Path::new(index::DATA)) {
            Ok(true) => log::info("the slot is half written; what is there is not fetched again"),
            Ok(false) => {}
            Err(err) => log::warn(&format!("{err}; more is fetched than must be")),
        }
        let mut left = MOUNT_RETRIES;
        let done = loop {
            match self.bus.install(address, transaction, &progress).await {
                Err(BusError::Refused(why)) if why.contains("mounting bundle") && left > 0 => {
                    left -= 1;
                    log::warn(&format!("{why}; once more"));
                }
                other => break other,
            }
        };
        let _ = std::fs::remove_file(PROGRESS);
        Ok(done?)
    }

    /// Installs a bundle that an operator names, whatever channels say of it: RAUC believes it for its signature, and the
    /// trial decides as always.
    ///
    /// # Errors
    /// When RAUC refuses the bundle or does not write it.
    pub async fn install_by_hand(&mut self, bundle: &str) -> Result<String> {
        self.not_on_trial()?;
        self.prepare_streaming().await;
        let facts = self.bus.inspect(bundle).await?;
        let version = facts.version.context("the bundle names no version")?;
        let target = Target { version: version.clone(), digest: facts.manifest_hash.context(OLD_RAUC)? };
        let transaction = uuid()?;
        self.advance(step(&self.state.phase, Event::Found(target, transaction.clone())))?;
        log::info(&format!("installing {version}, as an operator asks"));
        let done = self.have_rauc_write(bundle, &version, &transaction, &|| (0, 0, None)).await;
        let event = match &done {
            Ok(()) => Event::Written,
            Err(err) => Event::NotWritten(format!("{err:#}")),
        };
        self.advance(step(&self.state.phase, event))?;
        done.with_context(|| format!("{version} was not installed"))?;
        self.start_installed().await?;
        Ok(format!("restarting into {version}"))
    }

    fn not_on_trial(&self) -> Result<()> {
        let trial = matches!(self.state.phase, Phase::Trial { .. });
        ensure!(!trial, "a release is on trial; its health check decides, or os update rollback");
        Ok(())
    }

    /// RAUC reads a bundle through a network block device that goes away when its last reader closes it. udev looks at
    /// every new device, so the module comes early, and a race that udev won is run again.
    async fn prepare_streaming(&self) {
        if let Err(err) = self.bus.unit_job(Verb::Start, "modprobe@nbd.service").await {
            log::warn(&format!("{err}"));
        }
        let _ = os_sys::cmd::Cmd::new("udevadm").args(["settle", "--timeout=20"]).run();
    }

    /// Starts what is installed in the other slot, for a trial.
    async fn start_installed(&mut self) -> Result<()> {
        self.state.before = Some(health::now(&self.bus).await?);
        let slot = other(&booted()?);
        let jump = self.load_kernel(&slot).await;
        let next = step(&self.state.phase, Event::Start { slot, jump });
        self.carry_out(next).await?;
        let next = step(&self.state.phase, Event::Armed);
        self.carry_out(next).await
    }

    /// True when the kernel of a slot is in memory, to be jumped into.
    async fn load_kernel(&self, slot: &str) -> bool {
        if self.policy.trial != Trial::Kexec || matches!(self.state.phase, Phase::Installed { jumped: true, .. }) {
            return false;
        }
        let loaded = self.bus.unit_job(Verb::Restart, &format!("os-kexec@{slot}.service")).await;
        if let Err(err) = &loaded {
            log::warn(&format!("{err}; the bootloader starts the slot instead"));
        }
        loaded.is_ok()
    }

    /// Tells the state machine what this boot is; called in every boot before its health is known.
    ///
    /// # Errors
    /// When the state cannot be written or RAUC does not answer.
    pub async fn booted(&mut self) -> Result<()> {
        let next = step(&self.state.phase, Event::Booted(booted()?));
        self.carry_out(next).await
    }

    /// This boot does what it should.
    ///
    /// # Errors
    /// When the state cannot be written or RAUC does not answer.
    pub async fn healthy(&mut self) -> Result<()> {
        self.booted().await?;
        if let Phase::Trial { target, .. } = &self.state.phase {
            self.state.running = Some(target.clone());
        }
        self.state.before = None;
        let next = step(&self.state.phase, Event::Healthy(booted()?));
        self.carry_out(next).await?;
        match &self.state.phase {
            // After a jump the bootloader was told just now, and the slot is still to be marked.
            Phase::Trial { .. } => {
                let next = step(&self.state.phase, Event::Healthy(booted()?));
                self.carry_out(next).await
            }
            // What was to be started, and did not survive the jump, is started by the bootloader.
            Phase::Installed { jumped: true, .. } => self.start_installed().await,
            _ => Ok(()),
        }
    }

    /// Leaves nothing behind that stays resident; called at the end of every command.
    pub async fn rest(&self) {
        if let Err(err) = self.bus.let_rauc_rest().await {
            log::warn(&format!("RAUC stays: {err}"));
        }
    }

    /// This boot does not do what it should. In a trial the other slot is started again.
    ///
    /// # Errors
    /// When the state cannot be written or RAUC does not answer.
    pub async fn unhealthy(&mut self, reason: &str) -> Result<()> {
        if matches!(self.state.phase, Phase::Trial { .. }) {
            self.keep_journal();
        }
        self.booted().await?;
        let next = step(&self.state.phase, Event::Unhealthy(booted()?, reason.to_owned()));
        if next.actions.is_empty() {
            log::error(&format!("this boot is not healthy: {reason}"));
        }
        self.carry_out(next).await
    }

    /// The journal of this boot is gone with it, unless it is kept now.
    fn keep_journal(&self) {
        let text =
            os_sys::cmd::Cmd::new("journalctl").args(["-b", "--no-pager", "-o", "short", "-n", JOURNAL_LINES]).read();
        let kept = text.map_err(anyhow::Error::from).and_then(|text| {
            Ok(files::write_if_changed(&self.store.dir().join(FAILED_JOURNAL), text.as_bytes(), 0o640)?)
        });
        if let Err(err) = kept {
            log::warn(&format!("the journal of this boot cannot be kept: {err:#}"));
        }
    }

    /// Goes back to the other slot, because a person says so.
    ///
    /// # Errors
    /// When there is nothing to go back to.
    pub async fn go_back(&mut self) -> Result<()> {
        let booted = booted()?;
        if matches!(self.state.phase, Phase::Trial { .. }) {
            return self.unhealthy("an operator went back").await;
        }
        let Phase::Idle = self.state.phase else {
            bail!("the other slot holds a release that was not started yet; there is nothing to go back to");
        };
        let slots = self.bus.slots().await?;
        let back = other(&booted);
        let there = slots.iter().find(|s| s.bootname.as_deref() == Some(&back)).context("RAUC knows no other slot")?;
        ensure!(there.boot_status.as_deref() == Some("good"), "slot {back} holds nothing that may be started");
        if let Some(target) = self.state.running.take() {
            self.state.refuse(now(), target, "an operator went back to what was there before".to_owned());
        }
        let next = step(&self.state.phase, Event::GoBack(back));
        self.carry_out(next).await
    }

    /// Marks a slot because a person says so; nothing restarts.
    ///
    /// # Errors
    /// When a release is on trial, or the bootloader would be left without a slot to start.
    pub async fn mark_by_hand(&mut self, state: Mark, slot: Option<&str>) -> Result<String> {
        self.not_on_trial()?;
        let booted = booted()?;
        let slot = slot.map_or_else(|| booted.clone(), str::to_owned);
        let slots = self.bus.slots().await?;
        let good = |name: &str| {
            slots.iter().any(|s| s.bootname.as_deref() == Some(name) && s.boot_status.as_deref() == Some("good"))
        };
        match state {
            Mark::Bad => {
                ensure!(good(&other(&slot)), "slot {} is not good either; nothing could be started", other(&slot))
            }
            Mark::Active => ensure!(good(&slot), "slot {slot} holds nothing that may be started"),
            Mark::Good => {}
        }
        self.state.note(now(), format!("an operator marked slot {slot} {}", state.word()));
        self.store.save(&self.state)?;
        self.mark(state.word(), &slot).await?;
        Ok(slot)
    }

    /// Has the slot that does not run be started from the next boot on, because a person says so. Unlike
    /// [`Agent::go_back`] it says nothing against the release that runs.
    ///
    /// # Errors
    /// As [`Agent::mark_by_hand`].
    pub async fn switch(&mut self) -> Result<String> {
        self.mark_by_hand(Mark::Active, Some(&other(&booted()?))).await
    }

    /// Leaves the rescue system, which is there for a person, when none comes: power that fails again and again uses up
    /// the tries of a system that is whole.
    ///
    /// # Errors
    /// When the counters cannot be read or written.
    pub async fn leave_rescue(&mut self) -> Result<String> {
        let people = self.bus.people(TYPED).await.unwrap_or_else(|err| {
            log::warn(&format!("{err}; nobody is taken to be logged in"));
            Vec::new()
        });
        if !people.is_empty() {
            return Ok(format!("{} is logged in; the rescue system stays", people.join(", ")));
        }
        let slots = os_slots::give_back(Path::new(os_slots::DIR))?;
        if slots.is_empty() {
            return Ok("no slot needs its tries back; the rescue system stays".to_owned());
        }
        let said = format!("nobody came to the rescue system; slot {} is tried again", slots.join(" and "));
        self.state.note(now(), said.clone());
        // What is said of it must not keep the device here.
        if let Err(err) = self.store.save(&self.state) {
            log::warn(&err.to_string());
        }
        self.bus.queue(Verb::Start, "reboot.target").await?;
        Ok(said)
    }

    /// Writes what follows, before anything of it is done.
    fn advance(&mut self, next: Step) -> Result<()> {
        let at = now();
        if let Some((target, reason)) = next.refuse {
            log::warn(&format!("{} failed: {reason}", target.version));
            self.state.before = None;
            self.state.refuse(at, target, reason);
        }
        if let Some(note) = next.note {
            self.state.note(at, note);
        }
        self.state.phase = next.phase;
        Ok(self.store.save(&self.state)?)
    }

    async fn carry_out(&mut self, next: Step) -> Result<()> {
        let actions = next.actions.clone();
        self.advance(next)?;
        for action in actions {
            match action {
                Action::Install(..) => {}
                Action::Activate(slot) => self.mark("active", &slot).await?,
                Action::MarkBad(slot) => self.mark("bad", &slot).await?,
                Action::MarkGood => self.mark("good", &booted()?).await?,
                Action::Reboot => self.bus.queue(Verb::Start, "reboot.target").await?,
                Action::Jump => self.bus.queue(Verb::Start, "kexec.target").await?,
            }
        }
        Ok(())
    }

    async fn mark(&self, state: &str, bootname: &str) -> Result<()> {
        let slots = self.bus.slots().await?;
        let slot = slots.iter().find(|s| s.bootname.as_deref() == Some(bootname));
        let name = &slot.with_context(|| format!("RAUC knows no slot {bootname}"))?.name;
        let said = self.bus.rauc().await?.mark(state, name).await.tried("RAUC does not mark the slot")?;
        log::info(&format!("slot {bootname} is {state}: {}", said.1));
        Ok(())
    }

    /// Where releases come from, and the name that the channel there has to have.
    fn channel(&self, from: Option<&Source>) -> Result<(Source, String)> {
        let own = match (from, &self.policy.channel) {
            (None, Err(why)) => bail!("{why}"),
            (_, own) => own.as_ref().ok().and_then(Option::as_ref),
        };
        let source = from.or(own).context("no channel is set; os config set os.update.channel ADDRESS does")?;
        Ok((source.clone(), own.unwrap_or(source).name().to_owned()))
    }

    fn read_channel(&mut self, source: &Source, name: &str) -> Result<Channel> {
        let list = trust::read(source, name, Path::new(trust::BUILT_IN), &self.store, &mut self.state);
        self.state.checked = Some(now());
        if let Err(err) = &list {
            self.state.last = format!("{err:#}");
        }
        self.store.save(&self.state)?;
        list
    }

    async fn compatible(&self) -> Result<String> {
        Ok(self.bus.rauc().await?.compatible().await.tried("cannot ask RAUC what this device is")?)
    }

    /// The version that runs: the booted slot's, or the image's where nothing was installed yet.
    async fn running_version(&self) -> Result<Version> {
        let slots = self.bus.slots().await?;
        let installed = slots.iter().find(|s: &&Slot| s.state == "booted").and_then(|s| s.version.clone());
        let text =
            installed.or_else(|| os_sys::release::field("VERSION_ID")).context("os-release has no VERSION_ID")?;
        text.parse().with_context(|| format!("'{text}' is no version that can be compared (semver.org)"))
    }
}

fn booted() -> Result<String> {
    let report = Report::load(Path::new(report::PATH)).context("the initramfs left no report of this boot")?;
    Ok(report.slot)
}

pub(crate) fn device_id() -> String {
    std::fs::read_to_string("/mnt/state/os/device-id").unwrap_or_default().trim().to_owned()
}

fn describe(choice: &Choice<'_>, running: &Version) -> (Option<String>, String) {
    match choice {
        Choice::Offer(release) => (
            Some(release.version.to_string()),
            format!("{} is there ({} MiB); {running} runs", release.version, release.bundle.size >> 20),
        ),
        Choice::UpToDate => (None, format!("{running} runs, and nothing newer is there")),
        Choice::Held { release, why: os_channel::channel::Held::FailedHere } => {
            (None, format!("{} failed on this device and is not tried again; {running} runs", release.version))
        }
        Choice::Held { release, why: os_channel::channel::Held::Rollout } => {
            (None, format!("{} is being rolled out and has not reached this device; {running} runs", release.version))
        }
    }
}

/// Ends RAUC after a look at the slots, unless an update is at work.
pub async fn let_rauc_rest(bus: &Bus) {
    // Only root may create it, and only root may stop units.
    let Ok(lock) = File::create(LOCK) else { return };
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
        let _ = bus.let_rauc_rest().await;
    }
}

/// How far it is, for people. A bundle of unknown size counts no bytes.
pub(crate) fn percent_of(percent: u64, fetched: u64, size: u64) -> String {
    match size {
        0 => format!("{percent} %"),
        _ => format!("{percent} %, {} of {} MiB", fetched >> 20, size >> 20),
    }
}

/// An identifier for RAUC, as RFC 9562 writes random ones.
fn uuid() -> Result<String> {
    Ok(os_disk::gpt::Guid::random()?.to_string())
}
