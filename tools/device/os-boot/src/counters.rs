//! Order, goodness and tries of the slots, as `grub.cfg` reads and counts them.

use crate::block::{Block, BlockError};
use os_facts::Slot;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What GRUB reads and counts in.
pub const FILE: &str = "grubenv";
/// What GRUB reads when it cannot read the other one.
pub const COPY: &str = "grubenv.copy";
/// So many boots that nobody calls good end with the other slot.
const TRIES: u32 = 3;

/// Whether a slot may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum State {
    /// Bootable, with tries left.
    Good,
    /// Not bootable.
    Bad,
}

/// The counters cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CountersError {
    /// Neither the file nor its copy.
    #[error("{path}: {cause}, and neither is its copy whole")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: BlockError,
    },
    /// There is no room for them.
    #[error("the environment block of the bootloader: {0}")]
    Block(#[from] BlockError),
    /// The boot partition does not take them.
    #[error("cannot write {path}: {cause}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel answered.
        cause: io::Error,
    },
}

/// What is known of the slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters(Block);

/// How often each slot was started since it was last confirmed, as the bootloader hands it over: `1,0` for one try of A and none
/// of B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tries([u32; 2]);

impl Tries {
    /// Reads the argument of the kernel; a number that the bootloader has none for counts as 0.
    pub fn parse(text: &str) -> Option<Self> {
        let (a, b) = text.split_once(',')?;
        let number = |text: &str| if text.is_empty() { Some(0) } else { text.parse().ok() };
        Some(Self([number(a)?, number(b)?]))
    }
}

impl std::fmt::Display for Tries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self([a, b]) = self;
        write!(f, "{a},{b}")
    }
}

/// Why the bootloader did not start a slot, as the counters tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It used up its tries.
    NoTriesLeft,
    /// Somebody marked it bad.
    Marked,
    /// It may be started, and somebody put the other one before it.
    PassedOver,
    /// It may be started, and is the first: the boot that came instead was chosen at the bootloader's menu.
    NotStarted,
}

/// The variables of a new device: slot A holds the system, slot B nothing.
pub const FRESH: [&str; 5] = ["ORDER=A B", "A_OK=1", "A_TRY=0", "B_OK=0", "B_TRY=0"];

/// The block of a new device.
pub fn fresh() -> Vec<u8> {
    let mut block = Block::default();
    for (name, value) in FRESH.iter().filter_map(|line| line.split_once('=')) {
        block.set(name, value);
    }
    block.bytes().unwrap_or_default()
}

impl Counters {
    /// Reads the counters, or their copy.
    ///
    /// # Errors
    /// When neither is whole.
    pub fn load(dir: &Path) -> Result<Self, CountersError> {
        let read = |name: &str| Block::parse(&std::fs::read(dir.join(name)).unwrap_or_default());
        let whole = |block: &Block| block.get("ORDER").is_some();
        match read(FILE) {
            Ok(block) if whole(&block) => Ok(Self(block)),
            other => match read(COPY) {
                Ok(block) if whole(&block) => Ok(Self(block)),
                _ => Err(CountersError::Damaged {
                    path: dir.join(FILE),
                    cause: other.err().unwrap_or(BlockError::Signature),
                }),
            },
        }
    }

    /// Writes the counters and then their copy; both are on the medium when this returns.
    ///
    /// # Errors
    /// When the boot partition does not take them. The copy is for a file that gets damaged: that there is no space for one
    /// is no reason to say that a slot was not marked.
    pub fn save(&self, dir: &Path) -> Result<(), CountersError> {
        let bytes = self.0.bytes()?;
        let path = dir.join(FILE);
        write(&path, &bytes).map_err(|cause| CountersError::Write { path, cause })?;
        let copy = dir.join(COPY);
        if let Err(err) = write(&copy, &bytes) {
            os_sys::log::warn(&format!("{}: {err}; the bootloader's counters have no copy", copy.display()));
        }
        Ok(())
    }

    /// The slot that GRUB starts next; `None` is the rescue system.
    pub fn next(&self) -> Option<Slot> {
        self.order().into_iter().find(|slot| self.state(*slot) == State::Good)
    }

    /// The slots, preferred first.
    pub fn order(&self) -> Vec<Slot> {
        let order = self.0.get("ORDER").unwrap_or_default();
        order.split(' ').filter_map(|word| word.parse().ok()).collect()
    }

    /// What became of a slot that is on trial, when another one was started.
    pub fn fate(&self, slot: Slot) -> Fate {
        match (self.0.get(&format!("{slot}_OK")), self.state(slot)) {
            (Some("1"), State::Bad) => Fate::NoTriesLeft,
            (Some("1"), State::Good) if self.order().first().is_some_and(|first| *first != slot) => Fate::PassedOver,
            (Some("1"), State::Good) => Fate::NotStarted,
            _ => Fate::Marked,
        }
    }

    /// Whether a slot may be started.
    pub fn state(&self, slot: Slot) -> State {
        if self.number(slot, "OK") == 1 && self.number(slot, "TRY") < TRIES { State::Good } else { State::Bad }
    }

    /// The tries of both slots.
    pub fn tries(&self) -> Tries {
        Tries(Slot::BOTH.map(|slot| self.number(slot, "TRY")))
    }

    fn number(&self, slot: Slot, name: &str) -> u32 {
        self.0.get(&format!("{slot}_{name}")).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// Has a slot started first, with all its tries.
    pub fn set_primary(&mut self, slot: Slot) {
        self.0.set("ORDER", &format!("{slot} {}", slot.other()));
        self.set_state(slot, State::Good);
    }

    /// Gives the slots that nobody called bad their tries back, and says which. None when there is one that has tries
    /// left.
    pub fn give_back(&mut self) -> Vec<Slot> {
        if self.next().is_some() {
            return Vec::new();
        }
        let mut slots = self.order();
        slots.retain(|slot| self.0.get(&format!("{slot}_OK")) == Some("1"));
        for slot in &slots {
            self.set_state(*slot, State::Good);
        }
        slots
    }

    /// Counts a try of a slot.
    pub(crate) fn count(&mut self, slot: Slot) {
        let tries = self.number(slot, "TRY") + 1;
        self.0.set(&format!("{slot}_TRY"), &tries.to_string());
    }

    /// Says whether a slot may be started; its tries begin anew.
    pub fn set_state(&mut self, slot: Slot, state: State) {
        self.0.set(&format!("{slot}_OK"), if state == State::Good { "1" } else { "0" });
        self.0.set(&format!("{slot}_TRY"), "0");
    }
}

/// In place: nothing but the bytes changes, no size, no allocation. All variables are in the first of the two sectors,
/// which a disk writes whole or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let in_place = path.metadata().is_ok_and(|m| m.len() == bytes.len() as u64);
    if in_place {
        let file = File::options().write(true).open(path)?;
        file.write_all_at(bytes, 0)?;
        return file.sync_data();
    }
    let written = File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if written.is_err() && path.is_file() {
        // An empty one would only look like counters.
        let _ = std::fs::remove_file(path);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::SIZE;

    fn counters(lines: &str) -> Counters {
        let mut block = Block::default();
        for (name, value) in lines.split('\n').filter_map(|l| l.split_once('=')) {
            block.set(name, value);
        }
        Counters(block)
    }

    #[test]
    fn the_slot_is_chosen_as_grub_cfg_does() {
        for (lines, slot) in [
            ("ORDER=A B\nA_OK=1\nA_TRY=0", Some(Slot::A)),
            ("ORDER=B A\nA_OK=1\nA_TRY=0\nB_OK=1\nB_TRY=2", Some(Slot::B)),
            ("ORDER=B A\nA_OK=1\nA_TRY=0\nB_OK=1\nB_TRY=3", Some(Slot::A)),
            ("ORDER=B A\nA_OK=1\nA_TRY=0\nB_OK=0\nB_TRY=0", Some(Slot::A)),
            ("ORDER=A B\nA_OK=1\nA_TRY=3\nB_OK=1\nB_TRY=3", None),
            ("ORDER=A B\nA_OK=1", Some(Slot::A)),
        ] {
            assert_eq!(counters(lines).next(), slot, "{lines}");
        }
    }

    #[test]
    fn tries_are_handed_over_as_grub_cfg_does() {
        let found = counters("ORDER=B A\nA_OK=1\nA_TRY=2\nB_OK=1").tries();
        assert_eq!(found.to_string(), "2,0");
        assert_eq!(Tries::parse("2,"), Some(found));
        assert_eq!(Tries::parse("2,0"), Some(found));
        for bad in ["", "2", "2,0,0", "-1,0", "a,b", "99999999999,0"] {
            assert_eq!(Tries::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_new_primary_has_all_its_tries_and_the_other_comes_after() {
        let mut found = counters("ORDER=A B\nA_OK=1\nA_TRY=1\nB_OK=0\nB_TRY=3");
        found.set_primary(Slot::B);
        assert_eq!((found.next(), found.order()), (Some(Slot::B), vec![Slot::B, Slot::A]));
        found.set_state(Slot::B, State::Bad);
        assert_eq!((found.next(), found.state(Slot::B)), (Some(Slot::A), State::Bad));
    }

    #[test]
    fn the_counters_tell_why_a_slot_was_not_started() {
        for (lines, fate) in [
            ("ORDER=B A\nA_OK=1\nA_TRY=0\nB_OK=1\nB_TRY=3", Fate::NoTriesLeft),
            ("ORDER=A B\nA_OK=1\nA_TRY=0\nB_OK=0\nB_TRY=0", Fate::Marked),
            ("ORDER=A B\nA_OK=1\nA_TRY=0\nB_OK=1\nB_TRY=1", Fate::PassedOver),
            ("ORDER=B A\nA_OK=1\nA_TRY=0\nB_OK=1\nB_TRY=1", Fate::NotStarted),
            ("ORDER=B A", Fate::Marked),
        ] {
            assert_eq!(counters(lines).fate(Slot::B), fate, "{lines}");
        }
    }

    #[test]
    fn a_copy_that_cannot_be_written_keeps_no_slot_from_being_marked() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), fresh()).unwrap();
        std::fs::create_dir(dir.path().join(COPY)).unwrap();
        let mut found = Counters::load(dir.path()).unwrap();
        found.set_primary(Slot::B);
        found.save(dir.path()).unwrap();
        assert_eq!(Counters::load(dir.path()).unwrap().next(), Some(Slot::B));
    }

    #[test]
    fn tries_come_back_where_none_are_left_and_what_is_bad_stays_bad() {
        let mut found = counters("ORDER=B A\nA_OK=1\nA_TRY=3\nB_OK=0\nB_TRY=3");
        assert_eq!(found.give_back(), [Slot::A]);
        assert_eq!((found.next(), found.state(Slot::B)), (Some(Slot::A), State::Bad));
        let mut both = counters("ORDER=B A\nA_OK=1\nA_TRY=3\nB_OK=1\nB_TRY=3");
        assert_eq!((both.give_back(), both.next()), (vec![Slot::B, Slot::A], Some(Slot::B)));
        let mut one = counters("ORDER=B A\nA_OK=1\nA_TRY=2\nB_OK=1\nB_TRY=3");
        let before = one.clone();
        assert!(one.give_back().is_empty());
        assert_eq!(one, before);
        assert!(counters("ORDER=A B\nA_OK=0\nB_OK=0").give_back().is_empty());
    }

    #[test]
    fn the_copy_serves_when_the_file_is_damaged_and_both_are_whole_again_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), fresh()).unwrap();
        let mut found = Counters::load(dir.path()).unwrap();
        found.set_primary(Slot::B);
        found.save(dir.path()).unwrap();
        for damage in [&b""[..], &[0; SIZE], &[b'#'; SIZE]] {
            std::fs::write(dir.path().join(FILE), damage).unwrap();
            let copy = Counters::load(dir.path()).unwrap();
            assert_eq!(copy, found);
            copy.save(dir.path()).unwrap();
            assert_eq!(std::fs::read(dir.path().join(FILE)).unwrap(), std::fs::read(dir.path().join(COPY)).unwrap());
        }
        std::fs::write(dir.path().join(FILE), b"").unwrap();
        std::fs::write(dir.path().join(COPY), b"").unwrap();
        assert!(Counters::load(dir.path()).is_err());
    }

    #[test]
    fn every_variable_is_in_the_first_sector() {
        let bytes = fresh();
        assert!(bytes.get(512..).unwrap().iter().all(|b| *b == b'#'));
    }
}
