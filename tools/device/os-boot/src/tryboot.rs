//! The Raspberry Pi's firmware, which starts one of two partitions and counts nothing.
//!
//! `autoboot.txt` on the boot partition names the partition to start, and the other one for a start with the flag "tryboot". A
//! restart sets the flag for one start (`reboot "0 tryboot"`); after a panic, a watchdog or a power cut it is not there
//! (Raspberry Pi's documentation, "autoboot.txt" and "Fail-safe OS updates"). So whatever happens, the firmware comes back to the
//! slot in `autoboot.txt`, which is always one that has passed its health check. Its initramfs does there what `grub.cfg` does
//! elsewhere ([`choose`]): it counts in the same block, and where the counters name the other slot, it restarts with the flag.

use crate::counters::{Counters, CountersError, write};
use os_facts::Slot;
use std::ffi::CStr;
use std::path::Path;

/// The file, at the top of the boot partition: the firmware reads 512 bytes of it, one sector.
pub const FILE: &str = "autoboot.txt";
/// Where the device tree has what the firmware did (the same documentation, "/chosen/bootloader").
pub const CHOSEN: &str = "/proc/device-tree/chosen/bootloader";
/// What a restart says for the other slot to be tried.
pub const TRY: &CStr = c"0 tryboot";

/// What the firmware has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// From which slot's partition.
    pub slot: Slot,
    /// With the flag.
    pub tried: bool,
}

impl Started {
    /// Reads the firmware's words, which are in `chosen` ([`CHOSEN`]). None where it names no slot's partition.
    pub fn read(chosen: &Path) -> Option<Self> {
        let number = |name: &str| Some(u32::from_be_bytes(std::fs::read(chosen.join(name)).ok()?.try_into().ok()?));
        let partition = number("partition")?;
        let slot = Slot::BOTH.into_iter().find(|slot| self::partition(*slot) == partition)?;
        Some(Self { slot, tried: number("tryboot").is_some_and(|flag| flag != 0) })
    }
}

/// What the initramfs is to do with a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Go on.
    Run,
    /// Go on to the rescue system: no slot has tries left.
    Rescue,
    /// Restart, with [`TRY`] where something is said.
    Restart(Option<&'static CStr>),
}

/// Number of a slot's kernel partition.
pub fn partition(slot: Slot) -> u32 {
    match slot {
        Slot::A => 2,
        Slot::B => 3,
    }
}

/// `autoboot.txt` that has a slot started, and the other one tried. Both are of one size: the file is written in place.
pub fn text(slot: Slot) -> String {
    format!(
        "# Slots by partition: the first is started, the second is tried. os-boot writes this file.\n\
         [all]\ntryboot_a_b=1\nboot_partition={}\n[tryboot]\nboot_partition={}\n",
        partition(slot),
        partition(slot.other())
    )
}

/// The slot that the firmware starts. None where the file is none of ours.
pub fn committed(boot: &Path) -> Option<Slot> {
    let found = std::fs::read(boot.join(FILE)).ok()?;
    Slot::BOTH.into_iter().find(|slot| text(*slot).as_bytes() == found)
}

/// Has the firmware start a slot from now on; it is on the medium when this returns.
///
/// # Errors
/// When the boot partition does not take it.
pub fn commit(boot: &Path, slot: Slot) -> Result<(), CountersError> {
    if committed(boot) == Some(slot) {
        return Ok(());
    }
    let path = boot.join(FILE);
    write(&path, text(slot).as_bytes()).map_err(|cause| CountersError::Write { path, cause })
}

/// Chooses the slot to start and counts the try, as `grub.cfg` does. A start with the flag was counted by the one before it.
///
/// Every restart has used up a try, so that they end where the flag is not heard: with a kernel that does not pass it on, or a
/// partition that the firmware cannot start.
pub(crate) fn choose(boot: &Path, directory: &Path, started: Started) -> Result<Choice, CountersError> {
    // With the flag, and the partition to try cannot be started: the firmware goes on to the next.
    if started.tried && committed(boot) != Some(started.slot) {
        return Ok(Choice::Run);
    }
    let mut counters = Counters::load(directory)?;
    let Some(slot) = counters.next() else { return Ok(Choice::Rescue) };
    counters.count(slot);
    // Saved before the jump: a kernel that hangs has used up its try.
    counters.save(directory)?;
    if slot == started.slot {
        return Ok(Choice::Run);
    }
    match committed(boot) {
        // The firmware was told to start this one, or could not start the other.
        Some(committed) if committed == slot => Ok(Choice::Restart(None)),
        Some(_) => Ok(Choice::Restart(Some(TRY))),
        None => {
            commit(boot, started.slot)?;
            Ok(Choice::Restart(Some(TRY)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::{self, Tries};
    use crate::loader::{Bootloader, Loader};
    use crate::{Fate, State};

    const SHIPPED: &str = include_str!("../../../../meta-os/recipes-bsp/rpi-tryboot/files/autoboot.txt");

    fn plain(slot: Slot) -> Started {
        Started { slot, tried: false }
    }

    fn tried(slot: Slot) -> Started {
        Started { slot, tried: true }
    }

    fn device(boot: &Path, running: Slot) -> Loader {
        Loader::new(Bootloader::RpiTryboot, boot).running(Some(running))
    }

    fn new() -> tempfile::TempDir {
        let boot = tempfile::tempdir().unwrap();
        let directory = boot.path().join(Bootloader::RpiTryboot.directory());
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(counters::FILE), counters::fresh()).unwrap();
        std::fs::write(boot.path().join(FILE), SHIPPED).unwrap();
        boot
    }

    #[test]
    fn both_files_are_one_sector_of_one_size_and_an_image_starts_slot_a() {
        assert_eq!(SHIPPED, text(Slot::A));
        assert_eq!(text(Slot::A).len(), text(Slot::B).len());
        assert!(SHIPPED.len() <= 512);
    }

    #[test]
    fn a_file_of_somebody_else_names_no_slot_and_is_replaced() {
        let boot = new();
        for foreign in ["", "boot_partition=3\n", &text(Slot::B).replace("[all]", "[pi5]")] {
            std::fs::write(boot.path().join(FILE), foreign).unwrap();
            assert_eq!(committed(boot.path()), None, "{foreign}");
            commit(boot.path(), Slot::B).unwrap();
            assert_eq!(committed(boot.path()), Some(Slot::B));
        }
        std::fs::remove_file(boot.path().join(FILE)).unwrap();
        assert_eq!(committed(boot.path()), None);
    }

    #[test]
    fn what_the_firmware_did_is_read_from_its_device_tree() {
        let chosen = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| std::fs::write(chosen.path().join(name), bytes).unwrap();
        assert_eq!(Started::read(chosen.path()), None);
        put("partition", &[0, 0, 0, 3]);
        assert_eq!(Started::read(chosen.path()), Some(plain(Slot::B)));
        put("tryboot", &[0, 0, 0, 1]);
        assert_eq!(Started::read(chosen.path()), Some(tried(Slot::B)));
        put("partition", &[0, 0, 0, 2]);
        put("tryboot", &[0, 0, 0, 0]);
        assert_eq!(Started::read(chosen.path()), Some(plain(Slot::A)));
        for bytes in [&[0, 0, 0, 1][..], &[2, 0, 0, 0], &[2], &[]] {
            put("partition", bytes);
            assert_eq!(Started::read(chosen.path()), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_trial_has_three_tries_and_is_kept_only_when_it_is_called_good() {
        let boot = new();
        device(boot.path(), Slot::A).set_primary(Slot::B).unwrap();
        for left in ["0,1", "0,2", "0,3"] {
            let loader = device(boot.path(), Slot::A);
            assert_eq!(loader.choose(plain(Slot::A)).unwrap(), Choice::Restart(Some(TRY)));
            assert_eq!(loader.tries().unwrap(), Tries::parse(left).unwrap());
            // Comes up, and goes down again.
            assert_eq!(device(boot.path(), Slot::B).choose(tried(Slot::B)).unwrap(), Choice::Run);
            assert_eq!(committed(boot.path()), Some(Slot::A));
        }
        let home = device(boot.path(), Slot::A);
        assert_eq!(home.choose(plain(Slot::A)).unwrap(), Choice::Run);
        assert_eq!(home.fate(Slot::B).unwrap(), Fate::NoTriesLeft);
        home.set_primary(Slot::B).unwrap();
        assert_eq!(home.choose(plain(Slot::A)).unwrap(), Choice::Restart(Some(TRY)));
        device(boot.path(), Slot::B).set_state(Slot::B, State::Good).unwrap();
        assert_eq!(committed(boot.path()), Some(Slot::B));
        assert_eq!(device(boot.path(), Slot::B).choose(plain(Slot::B)).unwrap(), Choice::Run);
    }

    #[test]
    fn the_firmware_starts_what_has_passed_and_never_what_is_about_to_be_written() {
        for (running, slot, state, kept) in [
            (Slot::B, Slot::B, State::Good, Slot::B),
            (Slot::B, Slot::A, State::Bad, Slot::B),
            (Slot::B, Slot::B, State::Bad, Slot::A),
            (Slot::B, Slot::A, State::Good, Slot::A),
            (Slot::A, Slot::B, State::Good, Slot::A),
            (Slot::A, Slot::B, State::Bad, Slot::A),
        ] {
            let boot = new();
            device(boot.path(), running).set_state(slot, state).unwrap();
            assert_eq!(committed(boot.path()), Some(kept), "{slot} is called {state:?} in {running}");
        }
        let boot = new();
        Loader::new(Bootloader::RpiTryboot, boot.path()).set_state(Slot::B, State::Good).unwrap();
        assert_eq!(committed(boot.path()), Some(Slot::A), "nobody knows what runs");
    }

    #[test]
    fn restarts_end_where_the_flag_is_not_heard() {
        let boot = new();
        device(boot.path(), Slot::A).set_primary(Slot::B).unwrap();
        let starts: Vec<_> = (0..5).map(|_| device(boot.path(), Slot::A).choose(plain(Slot::A)).unwrap()).collect();
        let again = Choice::Restart(Some(TRY));
        assert_eq!(starts, [again, again, again, Choice::Run, Choice::Run]);
        assert_eq!(device(boot.path(), Slot::A).choose(plain(Slot::A)).unwrap(), Choice::Run);
        assert_eq!(device(boot.path(), Slot::A).choose(plain(Slot::A)).unwrap(), Choice::Rescue);
    }

    #[test]
    fn a_slot_that_the_firmware_starts_in_place_of_another_is_left_for_it_as_long_as_it_has_tries() {
        let boot = new();
        // The partition of A cannot be started: the firmware goes on to the next.
        device(boot.path(), Slot::A).set_state(Slot::B, State::Good).unwrap();
        let starts: Vec<_> = (0..4).map(|_| device(boot.path(), Slot::B).choose(plain(Slot::B)).unwrap()).collect();
        assert_eq!(starts, [Choice::Restart(None), Choice::Restart(None), Choice::Restart(None), Choice::Run]);
    }

    #[test]
    fn without_its_file_the_firmware_starts_the_first_slot_which_gets_on_to_the_right_one() {
        let boot = new();
        device(boot.path(), Slot::B).set_primary(Slot::B).unwrap();
        std::fs::remove_file(boot.path().join(FILE)).unwrap();
        assert_eq!(device(boot.path(), Slot::A).choose(plain(Slot::A)).unwrap(), Choice::Restart(Some(TRY)));
        assert_eq!(committed(boot.path()), Some(Slot::A));
    }

    #[test]
    fn a_start_is_not_chosen_where_the_counters_are_lost() {
        let boot = new();
        let loader = device(boot.path(), Slot::A);
        std::fs::write(loader.directory().join(counters::FILE), b"").unwrap();
        assert!(loader.choose(plain(Slot::A)).is_err());
        assert_eq!(loader.choose(tried(Slot::B)).unwrap(), Choice::Run);
    }

    #[test]
    fn a_slot_that_the_firmware_cannot_start_uses_up_its_tries() {
        let boot = new();
        device(boot.path(), Slot::A).set_primary(Slot::B).unwrap();
        let first = device(boot.path(), Slot::A).choose(plain(Slot::A)).unwrap();
        let others: Vec<_> = (0..3).map(|_| device(boot.path(), Slot::A).choose(tried(Slot::A)).unwrap()).collect();
        let again = Choice::Restart(Some(TRY));
        assert_eq!((first, &others[..]), (again, &[again, again, Choice::Run][..]));
    }
}
