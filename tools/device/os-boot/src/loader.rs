//! The bootloader of a disk, as it is told things: by files on its boot partition.

use crate::arguments::{self, ArgumentsError};
use crate::counters::{Counters, CountersError, Fate, State, Tries};
use crate::tryboot::{self, Choice, Started};
use os_facts::Slot;
use os_facts::board::{self, Board, BoardError};
use os_facts::place;
use os_facts::report::{self, Report};
use os_sys::files::Written;
use std::path::{Path, PathBuf};

/// The bootloaders that boards have. A new one is a variant here, and the compiler names what it has to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bootloader {
    /// GNU GRUB, started by EFI.
    Grub,
    /// U-Boot, which runs our boot script.
    UBoot,
    /// The Raspberry Pi's firmware; the initramfs counts ([`tryboot`]).
    RpiTryboot,
}

impl Bootloader {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Grub, Self::UBoot, Self::RpiTryboot];

    /// That of this device's kind.
    ///
    /// # Errors
    /// As [`Loader::of_this_device`].
    pub fn of_this_device() -> Result<Self, LoaderError> {
        Self::named(&Board::of_this_device()?.bootloader)
    }

    /// The one that a board names (`OS_BOOTLOADER`).
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn named(word: &str) -> Result<Self, LoaderError> {
        let known = Self::ALL.into_iter().find(|known| known.word() == word);
        known.ok_or_else(|| LoaderError::Unknown { found: word.to_owned() })
    }

    /// Its name in `board.conf` (`OS_BOOTLOADER`).
    pub fn word(self) -> &'static str {
        match self {
            Self::Grub => "grub",
            Self::UBoot => "u-boot",
            Self::RpiTryboot => "rpi-tryboot",
        }
    }

    /// Where its files are, from the top of the boot partition.
    pub fn directory(self) -> &'static str {
        match self {
            Self::Grub => "EFI/BOOT",
            Self::UBoot | Self::RpiTryboot => "os",
        }
    }
}

/// The bootloader cannot be asked or told.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// Nothing says which one it is.
    #[error(transparent)]
    Board(#[from] BoardError),
    /// A board with another one than this release knows.
    #[error("'{found}' is no bootloader that this release knows; there are {}", Bootloader::ALL.map(Bootloader::word).join(", "))]
    Unknown {
        /// What `board.conf` says.
        found: String,
    },
    /// Its counters cannot be read or written.
    #[error(transparent)]
    Counters(#[from] CountersError),
}

/// The bootloader of one disk.
#[derive(Debug, Clone)]
pub struct Loader {
    bootloader: Bootloader,
    boot: PathBuf,
    directory: PathBuf,
    running: Option<Slot>,
}

impl Loader {
    /// That of this device, with its boot partition where it is mounted.
    ///
    /// # Errors
    /// When `board.conf` does not name one that is known.
    pub fn of_this_device() -> Result<Self, LoaderError> {
        Self::under(Path::new("/"))
    }

    /// That of a device whose root is somewhere else.
    ///
    /// # Errors
    /// As [`Loader::of_this_device`].
    pub fn under(root: &Path) -> Result<Self, LoaderError> {
        let loader = Self::of(Board::load(&place::under(root, board::PATH))?, &place::under(root, place::BOOT))?;
        Ok(loader.running(Report::load(&place::under(root, report::PATH)).map(|report| report.slot)))
    }

    /// That of this device's kind, with the boot partition of some disk mounted at `boot`.
    ///
    /// # Errors
    /// As [`Loader::of_this_device`].
    pub fn on(boot: &Path) -> Result<Self, LoaderError> {
        Self::of(Board::of_this_device()?, boot)
    }

    fn of(board: Board, boot: &Path) -> Result<Self, LoaderError> {
        Ok(Self::new(Bootloader::named(&board.bootloader)?, boot))
    }

    /// One of some kind, with its boot partition mounted at `boot`.
    pub fn new(bootloader: Bootloader, boot: &Path) -> Self {
        Self { bootloader, boot: boot.to_owned(), directory: boot.join(bootloader.directory()), running: None }
    }

    /// With the slot that runs.
    #[must_use]
    pub fn running(self, running: Option<Slot>) -> Self {
        Self { running, ..self }
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Order, goodness and tries of the slots.
    ///
    /// # Errors
    /// When the boot partition has none that are whole.
    pub fn counters(&self) -> Result<Counters, CountersError> {
        Counters::load(&self.directory)
    }

    /// The tries of both slots.
    ///
    /// # Errors
    /// As [`Loader::counters`].
    pub fn tries(&self) -> Result<Tries, CountersError> {
        Ok(self.counters()?.tries())
    }

    /// What became of a slot that is on trial, when another one was started.
    ///
    /// # Errors
    /// As [`Loader::counters`].
    pub fn fate(&self, slot: Slot) -> Result<Fate, CountersError> {
        Ok(self.counters()?.fate(slot))
    }

    /// Has a slot started from the next boot on.
    ///
    /// # Errors
    /// When the counters cannot be read or written.
    pub fn set_primary(&self, slot: Slot) -> Result<(), CountersError> {
        self.change(|counters| counters.set_primary(slot))
    }

    /// Says whether a slot may be started; its tries begin anew.
    ///
    /// # Errors
    /// As [`Loader::set_primary`].
    pub fn set_state(&self, slot: Slot, state: State) -> Result<(), CountersError> {
        self.change(|counters| counters.set_state(slot, state))?;
        let Some(running) = self.running.filter(|_| self.bootloader == Bootloader::RpiTryboot) else { return Ok(()) };
        // What runs is called good, or the other one bad, because it does not work or is about to be written.
        if (slot == running) == (state == State::Good) { tryboot::commit(&self.boot, running) } else { Ok(()) }
    }

    /// Chooses the slot to start and counts its try, in the initramfs that a firmware started which does neither.
    ///
    /// # Errors
    /// As [`Loader::set_primary`].
    pub fn choose(&self, started: Started) -> Result<Choice, CountersError> {
        tryboot::choose(&self.boot, &self.directory, started)
    }

    /// Gives the slots that were never called bad their tries back, and says which; for when none is left to start.
    ///
    /// # Errors
    /// As [`Loader::set_primary`].
    pub fn give_back(&self) -> Result<Vec<Slot>, CountersError> {
        let mut counters = self.counters()?;
        let slots = counters.give_back();
        if !slots.is_empty() {
            counters.save(&self.directory)?;
        }
        Ok(slots)
    }

    /// The kernel arguments that a person added; none where nobody ever did.
    pub fn arguments(&self) -> Option<String> {
        arguments::read(&self.directory)
    }

    /// Replaces the kernel arguments that a person added; in force from the next boot on.
    ///
    /// # Errors
    /// When there are too many of them, or the boot partition does not take them.
    pub fn set_arguments(&self, text: &str) -> Result<Written, ArgumentsError> {
        if self.bootloader == Bootloader::RpiTryboot && !text.is_empty() {
            return Err(ArgumentsError::Unsupported);
        }
        arguments::write(&self.directory, text)
    }

    fn change(&self, change: impl FnOnce(&mut Counters)) -> Result<(), CountersError> {
        let mut counters = self.counters()?;
        change(&mut counters);
        counters.save(&self.directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters;

    #[test]
    fn what_it_is_told_is_what_it_starts() {
        for bootloader in Bootloader::ALL {
            let boot = tempfile::tempdir().unwrap();
            let loader = Loader::new(bootloader, boot.path());
            assert!(loader.counters().is_err());
            std::fs::create_dir_all(loader.directory()).unwrap();
            std::fs::write(loader.directory().join(counters::FILE), counters::fresh()).unwrap();
            let next = || loader.counters().unwrap().next();
            loader.set_primary(Slot::B).unwrap();
            assert_eq!((next(), loader.fate(Slot::B).unwrap()), (Some(Slot::B), Fate::NotStarted));
            loader.set_state(Slot::B, State::Bad).unwrap();
            assert_eq!((next(), loader.fate(Slot::B).unwrap()), (Some(Slot::A), Fate::Marked));
            assert_eq!(loader.give_back().unwrap(), []);
            assert_eq!(loader.tries().unwrap().to_string(), "0,0");
            assert_eq!(loader.set_arguments("quiet").is_ok(), bootloader != Bootloader::RpiTryboot);
            assert!(loader.set_arguments("").is_ok());
        }
    }
}
