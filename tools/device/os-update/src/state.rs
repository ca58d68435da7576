//! Where an update stands, kept on the state partition: written before anything is done, so that whatever a power cut
//! interrupts is known afterwards.

use os_channel::Seen;
use os_facts::Slot;
use os_facts::place::under;
use os_sys::files::{self, FileError, Written};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Directory on the state partition.
pub const DIR: &str = "/mnt/state/os/update";
/// The file in it.
const FILE: &str = "state.json";
/// What holds the state while the state partition takes nothing.
const RAM: &str = "/run/os/update-state.json";
/// The file that pauses; see [`Store::paused`].
const PAUSED: &str = "paused";
/// So many events are remembered.
const HISTORY: usize = 50;
/// So many releases that failed are remembered.
const REFUSED: usize = 32;
/// A larger file is damaged, in bytes.
const MAX: u64 = 1 << 20;

/// A release on its way to this device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Version, for people.
    pub version: String,
    /// What identifies it: SHA-256 of its bundle, hex.
    pub digest: String,
}

/// Where an update stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case", tag = "phase", rename_all_fields = "camelCase")]
pub enum Phase {
    /// Nothing is under way.
    #[default]
    Idle,
    /// RAUC writes the other slot.
    Installing {
        /// What.
        target: Target,
        /// RAUC's identifier of it.
        transaction: String,
    },
    /// It is in the other slot, and waits to be started.
    Installed {
        /// What.
        target: Target,
        /// A kernel that was jumped into did not get far; it is the bootloader's turn.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        jumped: bool,
    },
    /// The other slot is what the bootloader starts; whether it stays is not decided.
    Trial {
        /// What.
        target: Target,
        /// Slot that is tried.
        slot: Slot,
        /// The bootloader knows, or does not have to. Without it the trial has not begun.
        armed: bool,
        /// By kexec: the bootloader still starts the other slot.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        jump: bool,
        /// It did not pass, and the other slot is to run again. Kept until that runs: no boot of this slot is good any
        /// more, whatever happens in between.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        verdict: Option<Verdict>,
    },
}

impl Phase {
    /// The word for it, which programs read.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Installing { .. } => "installing",
            Self::Installed { .. } => "installed",
            Self::Trial { .. } => "trial",
        }
    }

    /// The release on its way to this device.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Idle => None,
            Self::Installing { target, .. } | Self::Installed { target, .. } | Self::Trial { target, .. } => {
                Some(target)
            }
        }
    }
}

/// Why a release does not stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// For people.
    pub reason: String,
    /// The release did nothing wrong: an operator went back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_operator: bool,
}

impl Verdict {
    /// The health check said no, or nothing came up that could have asked it.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), by_operator: false }
    }

    /// An operator went back.
    pub fn by_operator() -> Self {
        Self { reason: "an operator went back to what ran before".to_owned(), by_operator: true }
    }
}

/// A release that failed here, or that an operator left. It is not installed again by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// What.
    #[serde(flatten)]
    pub target: Target,
    /// Why.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// When, seconds since 1970.
    pub at: u64,
}

/// A release that could not be installed. It is tried again, less and less often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// Which.
    pub digest: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Not by itself before this, seconds since 1970.
    pub until: u64,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When, seconds since 1970.
    pub at: u64,
    /// What, for people.
    pub text: String,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// Where the update stands.
    #[serde(flatten)]
    pub phase: Phase,
    /// What was seen of each channel, by name.
    pub seen: BTreeMap<String, Seen>,
    /// What failed here.
    pub refused: Vec<Refused>,
    /// What happened, oldest first.
    pub history: Vec<Event>,
    /// The release that runs, where this program installed it.
    pub running: Option<Target>,
    /// Version that a slot has held since the device was flashed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shipped: Option<String>,
    /// What lies in the slots, as far as RAUC installed it.
    pub slots: BTreeMap<Slot, crate::hand::Held>,
    /// [`State::slots`] was filled at least once.
    pub looked: bool,
    /// RAUC's identifier of the last installation that this program began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub began: Option<String>,
    /// What waits in the other slot, where an operator put it there with RAUC: nothing is done with it that nobody asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_hand: Option<Target>,
    /// A release that could not be installed, and when to try again.
    pub waiting: Option<Waiting>,
    /// What the device did before the trial, which it has to do again.
    pub before: Option<crate::health::Before>,
    /// Nothing is installed or started by itself. Earlier releases wrote it here; now it is a file, see [`Store::paused`].
    #[serde(skip_serializing)]
    pub paused: bool,
    /// When a channel was last read, seconds since 1970.
    pub checked: Option<u64>,
    /// What the last check, or the last attempt, said.
    pub last: String,
    /// The state was damaged and began anew.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}

/// The file that holds it.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    /// What holds it instead until the next start, while the medium takes nothing.
    ram: PathBuf,
}

impl Store {
    /// The device's own.
    pub fn device() -> Self {
        Self::under(Path::new("/"))
    }

    /// That of a device whose root is somewhere else.
    pub(crate) fn under(root: &Path) -> Self {
        Self { dir: under(root, DIR), ram: under(root, RAM) }
    }

    /// In another directory.
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), ram: dir.with_extension("ram.json") }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads the state. One that is damaged is begun anew: it says so, and an update that was under way is forgotten,
    /// which the slots survive.
    pub fn load(&self) -> State {
        let path = self.dir.join(FILE);
        let read =
            |path: &Path| files::read_limited(path, MAX).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut state = match (read(&self.ram), path.exists()) {
            (Some(newer), _) => newer,
            (None, true) => read(&path).unwrap_or_else(|| State { lost: true, ..State::default() }),
            (None, false) => State::default(),
        };
        state.paused |= self.paused();
        state
    }

    /// Nothing is installed or started by itself. A file of its own, which is made and removed without the lock: an
    /// installation that is under way sees it and stops.
    pub fn paused(&self) -> bool {
        self.dir.join(PAUSED).exists()
    }

    /// Pauses or resumes.
    ///
    /// # Errors
    /// When the state partition cannot be written.
    pub fn pause(&self, paused: bool) -> Result<Written, FileError> {
        let path = self.dir.join(PAUSED);
        if paused { files::write_if_changed(&path, b"", 0o644) } else { files::remove_if_there(&path) }
    }

    /// Writes the state; it is on the medium when this returns.
    ///
    /// # Errors
    /// When the state partition cannot be written.
    pub fn save(&self, state: &State) -> Result<(), FileError> {
        self.save_by(state, false, write)
    }

    /// The same for what becomes of an update: where the partition is full, its reserve is given up for it.
    ///
    /// # Errors
    /// As [`Store::save`].
    pub fn save_surely(&self, state: &State) -> Result<(), FileError> {
        self.save_by(state, true, write)
    }

    fn save_by(
        &self,
        state: &State,
        surely: bool,
        write: impl Fn(&Path, &[u8]) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        let text = serde_json::to_vec_pretty(state).unwrap_or_default();
        let path = self.dir.join(FILE);
        match write(&path, &text) {
            Err(err) if surely && err.is_full() && self.give_up_reserve() => write(&path, &text)?,
            written => written?,
        }
        // What is on the medium is newer now.
        let _ = files::remove_if_there(&self.ram);
        Ok(())
    }

    /// True when there was one.
    fn give_up_reserve(&self) -> bool {
        let reserve = Path::new(os_facts::place::STATE_RESERVE).file_name().map(|name| self.dir.join(name));
        let given_up = reserve.is_some_and(|path| matches!(files::remove_if_there(&path), Ok(Written::Changed)));
        if given_up {
            os_sys::log::warn("the state partition is full; what was set aside for updates is used");
        }
        given_up
    }

    /// Keeps the state in RAM until the next start, where [`Store::save`] failed: for what has been done already.
    ///
    /// # Errors
    /// When that fails too.
    pub fn keep_in_ram(&self, state: &State) -> Result<(), FileError> {
        files::write_if_changed(&self.ram, &serde_json::to_vec_pretty(state).unwrap_or_default(), 0o644).map(drop)
    }

    /// True while what is known is in RAM only.
    pub fn is_unsaved(&self) -> bool {
        self.ram.exists()
    }
}

fn write(path: &Path, text: &[u8]) -> Result<(), FileError> {
    files::write_if_changed(path, text, 0o644).map(drop)
}

impl State {
    /// Remembers something that happened.
    pub fn note(&mut self, at: u64, text: impl Into<String>) {
        let text = text.into();
        self.last.clone_from(&text);
        self.history.push(Event { at, text });
        let more = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..more);
    }

    /// Remembers that a release failed here, or that an operator left it.
    pub fn refuse(&mut self, at: u64, target: Target, verdict: Verdict) {
        self.note(
            at,
            match verdict.by_operator {
                true => format!("{}; {} is not installed again by itself", verdict.reason, target.version),
                false => format!("{} failed here and is not tried again: {}", target.version, verdict.reason),
            },
        );
        self.refused.retain(|r| r.target.digest != target.digest);
        self.refused.push(Refused { target, verdict, at });
        let more = self.refused.len().saturating_sub(REFUSED);
        self.refused.drain(..more);
    }

    /// Remembers that a release could not be installed: the next attempt is an hour away, then two, four, up to a day.
    pub fn wait_for(&mut self, at: u64, digest: &str) {
        let earlier = self.waiting.take().filter(|w| w.digest == digest).map_or(0, |w| w.attempts);
        let hours = 1u64.checked_shl(earlier).unwrap_or(24).min(24);
        let attempts = earlier.saturating_add(1);
        self.waiting = Some(Waiting { digest: digest.to_owned(), attempts, until: at.saturating_add(hours * 3600) });
    }

    /// What waits to be started was put there by an operator.
    pub fn waits_by_hand(&self) -> Option<&Target> {
        match &self.phase {
            Phase::Installed { target, .. } => Some(target).filter(|target| self.by_hand.as_ref() == Some(target)),
            _ => None,
        }
    }

    /// Digests of what failed here.
    pub fn refused_digests(&self) -> Vec<String> {
        self.refused.iter().map(|r| r.target.digest.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target { version: "2.0.0".to_owned(), digest: "d".to_owned() }
    }

    #[test]
    fn every_phase_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        assert_eq!(store.load(), State::default());
        for phase in [
            Phase::Idle,
            Phase::Installing { target: target(), transaction: "t".to_owned() },
            Phase::Installed { target: target(), jumped: false },
            Phase::Installed { target: target(), jumped: true },
            Phase::Trial { target: target(), slot: Slot::B, armed: true, jump: false, verdict: None },
            Phase::Trial { target: target(), slot: Slot::B, armed: true, jump: true, verdict: None },
            Phase::Trial {
                target: target(),
                slot: Slot::B,
                armed: true,
                jump: false,
                verdict: Some(Verdict::failed("why")),
            },
        ] {
            let mut state = State { phase, ..State::default() };
            state.refuse(7, target(), Verdict::by_operator());
            state.refuse(7, target(), Verdict::failed("why"));
            store.save(&state).unwrap();
            assert_eq!(store.load(), state);
        }
    }

    #[test]
    fn what_earlier_releases_wrote_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"phase":"trial","target":{"version":"2.0.0","digest":"d"},"slot":"B","armed":true,"paused":true,
            "refused":[{"version":"1.0.0","digest":"e","reason":"no engine","at":7}]}"#;
        std::fs::write(dir.path().join("state.json"), text).unwrap();
        let state = Store::at(dir.path()).load();
        assert!(matches!(state.phase, Phase::Trial { verdict: None, .. }) && state.paused && !state.lost);
        assert_eq!(state.refused[0].verdict, Verdict::failed("no engine"));
    }

    #[test]
    fn the_initramfs_knows_a_trial_by_what_is_written_here() {
        let state = tempfile::tempdir().unwrap();
        let below = Path::new(DIR).strip_prefix("/mnt/state").unwrap();
        let store = Store::at(&state.path().join(below));
        let phase = Phase::Trial { target: target(), slot: Slot::B, armed: true, jump: false, verdict: None };
        store.save(&State { phase, ..State::default() }).unwrap();
        assert!(os_facts::trial::is_in(state.path(), Slot::B) && !os_facts::trial::is_in(state.path(), Slot::A));
        store.save(&State::default()).unwrap();
        assert!(!os_facts::trial::is_in(state.path(), Slot::B));
    }

    #[test]
    fn a_pause_needs_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        for (paused, changed) in [(false, false), (true, true), (true, false), (false, true)] {
            let written = if changed { Written::Changed } else { Written::Unchanged };
            assert_eq!((store.pause(paused).unwrap(), store.paused()), (written, paused));
        }
    }

    #[test]
    fn a_full_medium_takes_the_state_once_its_reserve_is_given_up_and_ram_holds_it_where_nothing_helps() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(&dir.path().join("update"));
        let reserve = store.dir().join(Path::new(os_facts::place::STATE_RESERVE).file_name().unwrap());
        assert_eq!(
            Path::new(DIR).join(reserve.file_name().unwrap()),
            Path::new(os_facts::place::STATE).join(os_facts::place::STATE_RESERVE)
        );
        let old = State { last: "old".to_owned(), ..State::default() };
        store.save(&old).unwrap();
        let new = State { last: "new".to_owned(), ..State::default() };
        let errno = |path: &Path, errno| Err(FileError::writing(path, std::io::Error::from_raw_os_error(errno)));
        let full = |path: &Path, text: &[u8]| match reserve.exists() {
            true => errno(path, 28),
            false => write(path, text),
        };
        std::fs::write(&reserve, "space").unwrap();
        assert!(store.save_by(&new, false, full).is_err() && reserve.exists());
        store.save_by(&new, true, full).unwrap();
        assert_eq!((store.load(), store.is_unsaved()), (new, false));
        // No reserve any more, read-only, damaged: nothing is lost before the next start, and nothing is said to be saved.
        for number in [28, 30, 5] {
            let newer = State { last: number.to_string(), ..State::default() };
            assert!(store.save_by(&newer, true, |path, _| errno(path, number)).is_err());
            assert_ne!(store.load(), newer);
            store.keep_in_ram(&newer).unwrap();
            assert_eq!((store.load(), store.is_unsaved()), (newer.clone(), true));
            store.save(&newer).unwrap();
            assert_eq!((store.load(), store.is_unsaved()), (newer, false));
        }
    }

    #[test]
    fn a_damaged_state_begins_anew_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "{", "[]", r#"{"phase":"dancing"}"#] {
            std::fs::write(dir.path().join("state.json"), text).unwrap();
            let state = Store::at(dir.path()).load();
            assert!(state.lost && state.phase == Phase::Idle, "{text}");
        }
    }

    #[test]
    fn attempts_get_rarer_and_another_release_begins_at_once() {
        let mut state = State::default();
        let mut hours = Vec::new();
        for _ in 0..7 {
            state.wait_for(0, "d");
            hours.push(state.waiting.as_ref().unwrap().until / 3600);
        }
        assert_eq!(hours, [1, 2, 4, 8, 16, 24, 24]);
        state.wait_for(0, "e");
        assert_eq!(state.waiting.unwrap().attempts, 1);
    }

    #[test]
    fn memory_has_an_end_and_keeps_what_is_newest() {
        let mut state = State::default();
        for n in 0..100 {
            state.refuse(n, Target { version: n.to_string(), digest: n.to_string() }, Verdict::failed(""));
        }
        assert_eq!((state.history.len(), state.refused.len()), (HISTORY, REFUSED));
        assert_eq!(state.refused.last().map(|r| r.at), Some(99));
    }
}
