//! Carries an update on: asks the channel and the policy, has RAUC write, and tells [`crate::course`] what happened.

use crate::course::Course;
use crate::health;
use crate::machine::{Device, Machine};
use crate::outcome::{Done, Found, Outcome, describe};
use crate::policy::Policy;
use crate::state::{Phase, State, Verdict};
use crate::step::Event;
use crate::trust;
use crate::version;
use anyhow::{Context, Result, bail, ensure};
use os_channel::channel::{Asking, Held};
use os_channel::{Channel, Choice, Release};
use os_config_model::types::{Mode, Trial};
use os_dbus::{Bus, RaucSlot, Tried, Verb};
use os_facts::Slot;
use os_facts::clock::now;
use os_sys::{files, log};
use os_transport::Source;
use rustix::fs::{FlockOperation, flock};
use semver::Version;
use std::fs::File;
use std::time::{Duration, Instant};

/// Held by whoever carries an update on.
const LOCK: &str = "/run/os/update.lock";
/// How long to wait for it where waiting is not wanted.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// Whoever installs stops while this is there.
pub(crate) const STOP: &str = "/run/os/update.stop";
/// How long that may take.
const STOP_PATIENCE: Duration = Duration::from_secs(120);
/// How often it is tried again to keep a release, and after how long: RAUC is started for it, on a board that is busy.
const KEEP_RETRIES: u32 = 3;
const KEEP_PAUSE: Duration = if cfg!(test) { Duration::from_millis(5) } else { Duration::from_secs(20) };
/// The journal of the last boot that failed its health check.
pub const FAILED_JOURNAL: &str = "failed-boot.log";
/// Who typed nothing on a console for so long is not there.
const TYPED: Duration = Duration::from_secs(10 * 60);
/// Lines of [`FAILED_JOURNAL`].
const JOURNAL_LINES: &str = "400";

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The timer: every rule counts.
    Timer,
    /// A person, who wants it now.
    Person,
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

/// What is to be said of a failure of somebody who is not root.
fn takes_root() -> &'static str {
    if rustix::process::geteuid().is_root() { "" } else { "; this takes root" }
}

/// Takes the lock. `patience`: at most so long; what only looks at the slots holds it for a moment.
async fn take_lock(machine: &Machine, patience: Option<Duration>) -> Result<File> {
    std::fs::create_dir_all(machine.at("/run/os"))?;
    let lock = File::create(machine.at(LOCK)).with_context(|| format!("cannot create {LOCK}{}", takes_root()))?;
    let Some(patience) = patience else {
        flock(&lock, FlockOperation::LockExclusive)?;
        return Ok(lock);
    };
    let start = Instant::now();
    while let Err(err) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        if start.elapsed() > patience {
            return Err(err).context("an update is under way already; os update status shows it");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(lock)
}

/// The agent, with the lock held.
#[derive(Debug)]
pub struct Agent {
    pub(crate) course: Course<Machine>,
    pub(crate) policy: Policy,
    _lock: File,
}

impl Agent {
    /// Takes the lock and reads everything.
    ///
    /// # Errors
    /// When another one is at work and `wait` does not say to wait for it.
    pub async fn new(wait: bool) -> Result<Self> {
        Self::of(Machine::this(), wait).await
    }

    /// The same for an operator who does not want what is being installed.
    ///
    /// # Errors
    /// When whoever is at work does not stop.
    pub async fn take_over() -> Result<Self> {
        let machine = Machine::this();
        let stop = machine.at(STOP);
        files::write_if_changed(&stop, b"", 0o600)
            .with_context(|| format!("the installation cannot be stopped{}", takes_root()))?;
        let lock = take_lock(&machine, Some(STOP_PATIENCE)).await;
        let _ = std::fs::remove_file(stop);
        Self::with(machine, lock?).await
    }

    async fn of(machine: Machine, wait: bool) -> Result<Self> {
        let lock = take_lock(&machine, if wait { None } else { Some(LOCK_PATIENCE) }).await?;
        Self::with(machine, lock).await
    }

    async fn with(machine: Machine, lock: File) -> Result<Self> {
        let mut state = machine.store.load();
        if state.lost {
            state.lost = false;
            state.note(now(), "the state of updates was damaged and begins anew");
        }
        // Where earlier releases had it.
        if std::mem::take(&mut state.paused)
            && let Err(err) = machine.store.pause(true)
        {
            log::warn(&format!("{err}"));
        }
        let policy = machine.policy();
        let mut agent = Self { course: Course { device: machine, state }, policy, _lock: lock };
        if matches!(agent.course.state.phase, Phase::Installing { .. }) {
            // Whoever held the lock before was killed. What RAUC still writes has lost its source.
            agent.course.device.stop_rauc().await;
            // Whoever comes next finds it again; it keeps nobody from confirming a boot.
            if let Err(err) = agent.course.note(Event::Interrupted) {
                log::warn(&format!("{err:#}"));
            }
        }
        Ok(agent)
    }

    /// Where the update stands.
    pub fn state(&self) -> &State {
        &self.course.state
    }

    /// Remembers something that happened.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub fn remember(&mut self, text: &str) -> Result<()> {
        self.course.state.note(now(), text);
        Ok(self.course.device.store.save(&self.course.state)?)
    }

    pub(crate) async fn bus(&self) -> Result<&Bus> {
        Ok(self.course.device.bus().await?)
    }

    /// Looks into the channel; nothing is installed.
    ///
    /// # Errors
    /// When there is no channel, or it cannot be reached or believed.
    pub async fn check(&mut self, from: Option<&Source>) -> Result<Found> {
        self.notice().await?;
        let look = self.look(from).await?;
        let (offered, text) = describe(&look.choice(), &look.running);
        Ok(Found { running: look.running.to_string(), offered, text })
    }

    /// Does all that may be done now, and tells `told` before the device restarts: what comes after that may not be heard.
    ///
    /// # Errors
    /// When something that was to be done cannot be.
    pub async fn run(&mut self, asked: Asked, from: Option<&Source>, told: &dyn Fn(&str)) -> Result<Done> {
        if asked == Asked::Timer && self.course.device.store.paused() {
            return Ok(Done::new(Outcome::Waiting, "updates are paused; os update resume goes on"));
        }
        self.notice().await?;
        if let Phase::Trial { target, .. } = self.course.state.phase.clone() {
            if self.course.waits_for_restart()? {
                return self.restart_into(&target.version, told).await;
            }
            return Ok(Done::new(Outcome::OnTrial, "a release is on trial; its health check decides"));
        }
        let look = match self.look(from).await {
            Ok(look) => look,
            Err(err) if asked == Asked::Person && from.is_none() => return self.start_unasked(err, told).await,
            Err(err) => return Err(err),
        };
        let (source, choice) = (&look.source, look.choice());
        let (_, text) = describe(&choice, &look.running);
        let found = match choice {
            Choice::Offer(release) => {
                if !self.is_installed(release) && !self.is_left_alone(release, from) {
                    if let Some(why) = self.objection(asked, source, Some(release)).await? {
                        return Ok(Done::new(Outcome::Waiting, format!("{text}; {why}")));
                    }
                    self.install(asked, source, release).await?;
                }
                Outcome::Waiting
            }
            Choice::Held { why: Held::FailedHere, .. } => Outcome::FailedHere,
            Choice::Held { why: Held::Revoked, .. } => Outcome::NotReached,
            // What was installed yesterday may have been stopped or revoked since.
            Choice::Held { release, .. } if self.is_installed(release) => {
                return Ok(Done::new(Outcome::NotReached, text));
            }
            Choice::Held { .. } => Outcome::NotReached,
            Choice::UpToDate => Outcome::UpToDate,
        };
        let by_hand = self.course.state.waits_by_hand().cloned();
        if found != Outcome::Waiting && by_hand.is_none() {
            self.course.note(Event::Withdrawn)?;
        }
        let Phase::Installed { target, .. } = self.course.state.phase.clone() else {
            return Ok(Done::new(found, text));
        };
        let version = &target.version;
        // A channel that somebody names, such as a stick's, is no word about what lies there already.
        if by_hand.is_some() && (asked == Asked::Timer || from.is_some()) {
            let waits = format!("{text}; {version} was installed by hand and waits for: os update apply");
            return Ok(Done::new(Outcome::Waiting, waits));
        }
        if asked == Asked::Timer && self.policy.mode != Mode::Automatic {
            return Ok(Done::new(Outcome::Waiting, format!("{version} is installed and waits for: os update apply")));
        }
        if let Some(why) = self.objection(asked, source, None).await? {
            return Ok(Done::new(Outcome::Waiting, format!("{version} is installed; {why}")));
        }
        self.restart_into(version, told).await
    }

    pub(crate) async fn restart_into(&mut self, version: &str, told: &dyn Fn(&str)) -> Result<Done> {
        told(&format!("{version} is installed; restarting into it"));
        self.start_installed().await?;
        Ok(Done::new(Outcome::Restarting, format!("restarting into {version}")))
    }

    /// A person may start what is installed although the channel, which may have revoked it, cannot be asked.
    async fn start_unasked(&mut self, why: anyhow::Error, told: &dyn Fn(&str)) -> Result<Done> {
        let Phase::Installed { target, .. } = self.course.state.phase.clone() else { return Err(why) };
        log::warn(&format!("{why:#}; starting what is installed"));
        self.restart_into(&target.version, told).await
    }

    async fn look(&mut self, from: Option<&Source>) -> Result<Look> {
        let (source, name) = self.channel(from)?;
        let (running, compatible) = (self.running_version().await?, self.compatible().await?);
        let list = self.read_channel(&source, &name)?;
        self.raise_clock(list.issued).await;
        Ok(Look {
            source,
            list,
            running,
            compatible,
            id: self.course.device.id(),
            refused: self.course.state.refused_digests(),
        })
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
            let waiting = self.course.state.waiting.as_ref().filter(|w| w.digest == release.bundle.sha256);
            if waiting.is_some_and(|w| now() < w.until) {
                return Ok(Some(format!("it is tried again later; the last time: {}", self.course.state.last)));
            }
        }
        Ok(self.policy.objection(self.bus().await?, release.is_some() && source.is_remote()).await?)
    }

    /// What was put there by hand goes by the hash of its manifest.
    fn is_installed(&self, release: &Release) -> bool {
        let digests = [&release.bundle.sha256, &release.bundle.manifest_hash];
        matches!(&self.course.state.phase, Phase::Installed { target, .. } if digests.contains(&&target.digest))
    }

    /// What an operator put into the other slot gives way to something newer, and to a channel that a person names.
    fn is_left_alone(&self, release: &Release, from: Option<&Source>) -> bool {
        let by_hand = self.course.state.waits_by_hand();
        from.is_none() && by_hand.is_some_and(|target| version::of_running(&target.version) >= release.version)
    }

    pub(crate) fn not_on_trial(&self) -> Result<()> {
        let trial = matches!(self.course.state.phase, Phase::Trial { .. });
        ensure!(!trial, "a release is on trial; its health check decides, or os update rollback");
        Ok(())
    }

    /// Starts what is installed in the other slot, for a trial.
    async fn start_installed(&mut self) -> Result<()> {
        self.course.state.before = Some(health::now(self.bus().await?).await?);
        let slot = self.course.device.booted()?.other();
        let jump = self.load_kernel(slot).await;
        self.course.start(slot, jump).await
    }

    /// True when the kernel of a slot is in memory, to be jumped into.
    async fn load_kernel(&self, slot: Slot) -> bool {
        let again = matches!(self.course.state.phase, Phase::Installed { jumped: true, .. } | Phase::Trial { .. });
        if self.policy.trial != Trial::Kexec || again {
            return false;
        }
        let unit = format!("os-kexec@{slot}.service");
        let loaded = async { self.course.device.bus().await?.unit_job(Verb::Restart, &unit).await }.await;
        if let Err(err) = &loaded {
            log::warn(&format!("{err:#}; the bootloader starts the slot instead"));
        }
        loaded.is_ok()
    }

    /// This boot does what it should.
    ///
    /// # Errors
    /// When the state cannot be written or RAUC does not answer.
    pub async fn healthy(&mut self) -> Result<()> {
        if let Err(err) = self.notice().await {
            log::warn(&format!("{err:#}"));
        }
        let mut left = KEEP_RETRIES;
        loop {
            let Err(err) = self.course.healthy().await else { break };
            if !matches!(self.course.state.phase, Phase::Trial { .. }) {
                return Err(err);
            }
            if left == 0 {
                return self.unhealthy(Verdict::failed(format!("the slot cannot be kept: {err:#}"))).await;
            }
            left -= 1;
            log::warn(&format!("{err:#}; once more"));
            tokio::time::sleep(KEEP_PAUSE).await;
        }
        // What was to be started, and did not survive the jump, is started by the bootloader.
        match &self.course.state.phase {
            Phase::Installed { jumped: true, .. } => self.start_installed().await,
            _ => Ok(()),
        }
    }

    /// Leaves nothing behind that stays resident; called at the end of every command.
    pub async fn rest(&self) {
        let rests = async { self.course.device.bus().await?.let_rauc_rest().await };
        if let Err(err) = rests.await {
            log::warn(&format!("RAUC stays: {err:#}"));
        }
    }

    /// This boot does not do what it should. In a trial the other slot is started again.
    ///
    /// # Errors
    /// When the state cannot be written, or the device cannot be restarted.
    pub async fn unhealthy(&mut self, verdict: Verdict) -> Result<()> {
        if matches!(self.course.state.phase, Phase::Trial { .. }) {
            self.keep_journal();
        } else {
            log::error(&format!("this boot is not healthy: {}", verdict.reason));
        }
        self.course.unhealthy(verdict).await
    }

    /// The journal of this boot is gone with it, unless it is kept now.
    fn keep_journal(&self) {
        let text =
            os_sys::cmd::Cmd::new("journalctl").args(["-b", "--no-pager", "-o", "short", "-n", JOURNAL_LINES]).read();
        let kept = text.map_err(anyhow::Error::from).and_then(|text| {
            Ok(files::write_if_changed(&self.course.device.store.dir().join(FAILED_JOURNAL), text.as_bytes(), 0o640)?)
        });
        if let Err(err) = kept {
            log::warn(&format!("the journal of this boot cannot be kept: {err:#}"));
        }
    }

    /// Leaves the rescue system, which is there for a person, when none comes: power that fails again and again uses up
    /// the tries of a system that is whole.
    ///
    /// # Errors
    /// When the counters cannot be read or written.
    pub async fn leave_rescue(&mut self) -> Result<String> {
        let people = async { self.course.device.bus().await?.people(TYPED).await };
        let people = people.await.unwrap_or_else(|err| {
            log::warn(&format!("{err:#}; nobody is taken to be logged in"));
            Vec::new()
        });
        if !people.is_empty() {
            return Ok(format!("{} is logged in; the rescue system stays", people.join(", ")));
        }
        let slots = self.course.device.loader()?.give_back()?;
        if slots.is_empty() {
            return Ok("no slot needs its tries back; the rescue system stays".to_owned());
        }
        let said = format!(
            "nobody came to the rescue system; slot {} is tried again",
            slots.iter().map(Slot::to_string).collect::<Vec<_>>().join(" and ")
        );
        // What is said of it must not keep the device here.
        if let Err(err) = self.remember(&said) {
            log::warn(&format!("{err:#}"));
        }
        self.course.device.restart().await?;
        Ok(said)
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
        let Course { device, state } = &mut self.course;
        let list = trust::read(source, name, &device.at(trust::BUILT_IN), &device.store, state);
        state.checked = Some(now());
        if let Err(err) = &list {
            state.last = format!("{err:#}");
        }
        device.store.save(state)?;
        list
    }

    /// The list was signed at a time that has passed: to a clock that is behind it, certificates are of the future. Only what
    /// was believed gets here, and a clock that a time server set is left alone.
    async fn raise_clock(&self, issued: u64) {
        let clock = trust::clock();
        if clock.set || os_facts::clock::behind(clock.now, issued).is_none() {
            return;
        }
        let raised =
            async { self.bus().await?.unit_job(Verb::Start, "os-clock.service").await.map_err(anyhow::Error::from) };
        if let Err(err) = raised.await {
            log::warn(&format!("the clock is behind, and stays there: {err:#}"));
        }
    }

    async fn compatible(&self) -> Result<String> {
        Ok(self.bus().await?.rauc().await?.compatible().await.tried("cannot ask RAUC what this device is")?)
    }

    /// The version that runs: the booted slot's, or the image's where nothing was installed yet.
    async fn running_version(&mut self) -> Result<Version> {
        let slots = self.bus().await?.slots().await?;
        let booted = slots.iter().find(|s: &&RaucSlot| s.state == "booted");
        let text = match booted.and_then(|slot| slot.version.clone()) {
            Some(installed) => installed,
            None => {
                let shipped = os_sys::release::field("VERSION_ID").context("os-release has no VERSION_ID")?;
                // RAUC knows it of what it installed only, and soon the other slot runs.
                self.course.state.shipped = Some(shipped.clone());
                shipped
            }
        };
        Ok(version::of_running(&text))
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

#[cfg(test)]
mod tests;
