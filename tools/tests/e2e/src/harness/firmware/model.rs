//! os-boot and the firmware's rules together: every state of a device that installs, tries, fails and loses power at any write.

use super::start;
use os_boot::tryboot::{self, Choice, Started};
use os_boot::{Bootloader, Counters, Loader, State, counters};
use os_facts::Slot;
use std::collections::BTreeSet;
use std::path::Path;

/// What a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holds {
    /// A release that works.
    Good,
    /// Nothing that the firmware could start: an empty slot, or one that is being written.
    Nothing,
    /// A kernel that never gets to its initramfs.
    Dies,
    /// A root that cannot be mounted.
    NoRoot,
    /// A system that does not pass its health check.
    Unhealthy,
}

impl Holds {
    const EACH: [Self; 5] = [Self::Good, Self::Nothing, Self::Dies, Self::NoRoot, Self::Unhealthy];
}

/// A device that is off, or restarts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Device {
    /// The counters, their copy, `autoboot.txt`.
    files: [Vec<u8>; 3],
    slots: [Holds; 2],
    /// The flag that the restart has set.
    flag: bool,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let block = String::from_utf8_lossy(&self.files[0]);
        let variables: Vec<_> = block.lines().filter(|line| line.contains('=') && !line.starts_with('#')).collect();
        write!(f, "{variables:?}, {:?} is kept, slots {:?}, flag {}", self.committed(), self.slots, self.flag)
    }
}

/// What came of a start.
enum Came {
    /// It restarts, or is stuck until its watchdog does that.
    Down(Device),
    /// A system is up in a slot.
    Up(Device, Slot),
    /// Nothing starts.
    Dead,
}

fn of(slot: Slot) -> usize {
    usize::from(slot == Slot::B)
}

impl Device {
    fn new() -> Self {
        let files = [counters::fresh(), counters::fresh(), tryboot::text(Slot::A).into_bytes()];
        Self { files, slots: [Holds::Good, Holds::Nothing], flag: false }
    }

    fn holding(&self, slot: Slot, holds: Holds) -> Self {
        let mut slots = self.slots;
        slots[of(slot)] = holds;
        Self { slots, ..self.clone() }
    }

    fn flagged(self, flag: bool) -> Self {
        Self { flag, ..self }
    }

    /// Does something with the boot partition, in a slot; returns the device after it, what came of it, and every device that a
    /// power cut may leave: with any of the files written, in whichever order they go to the medium.
    fn does<T>(&self, running: Slot, act: impl FnOnce(&Loader) -> T) -> (Self, T, Vec<Self>) {
        let dir = tempfile::tempdir().unwrap();
        let loader = Loader::new(Bootloader::RpiTryboot, dir.path()).running(Some(running));
        std::fs::create_dir_all(loader.directory()).unwrap();
        let paths = [
            loader.directory().join(counters::FILE),
            loader.directory().join(counters::COPY),
            dir.path().join(tryboot::FILE),
        ];
        for (path, bytes) in paths.iter().zip(&self.files) {
            std::fs::write(path, bytes).unwrap();
        }
        let came = act(&loader);
        let files = paths.map(|path| std::fs::read(path).unwrap());
        let after = Self { files, flag: false, ..self.clone() };
        let cut = |written: usize| {
            let mut files = self.files.clone();
            for at in (0..3).filter(|at| written & 1 << at != 0) {
                files[at].clone_from(&after.files[at]);
            }
            Self { files, flag: false, slots: self.slots }
        };
        let cuts = (0..8).map(cut).collect();
        (after, came, cuts)
    }

    fn counters(&self) -> Counters {
        self.does(Slot::A, |loader| loader.counters().unwrap()).1
    }

    fn committed(&self) -> Option<Slot> {
        Slot::BOTH.into_iter().find(|slot| tryboot::text(*slot).as_bytes() == self.files[2])
    }

    /// Firmware, kernel, initramfs.
    fn starts(&self) -> (Came, Vec<Self>) {
        let read = |partition: u32, name: &str| {
            let slot = Slot::BOTH.into_iter().find(|slot| tryboot::partition(*slot) == partition);
            match (slot, name) {
                (None, "autoboot.txt") if partition == 1 => Some(self.files[2].clone()),
                (Some(slot), "config.txt") if self.slots[of(slot)] != Holds::Nothing => Some(Vec::new()),
                _ => None,
            }
        };
        let Some(found) = start(&read, self.flag) else { return (Came::Dead, Vec::new()) };
        let slot = Slot::BOTH.into_iter().find(|slot| tryboot::partition(*slot) == found.partition).unwrap();
        let holds = self.slots[of(slot)];
        if holds == Holds::Dies {
            return (Came::Down(self.clone().flagged(false)), Vec::new());
        }
        let started = Started { slot, tried: found.tryboot };
        let (after, choice, cuts) = self.does(slot, |loader| loader.choose(started).unwrap());
        let came = match choice {
            Choice::Restart(argument) => Came::Down(after.flagged(argument == Some(tryboot::TRY))),
            _ if holds == Holds::NoRoot => Came::Down(after),
            // os-rescue.timer.
            Choice::Rescue => Came::Down(after.does(slot, |loader| loader.give_back().unwrap()).0),
            Choice::Run => Came::Up(after, slot),
        };
        (came, cuts)
    }

    /// What the system in a slot does first: it passes its health check, or goes back. None where it does neither.
    fn settles(&self, slot: Slot) -> (Option<Self>, Vec<Self>) {
        match self.slots[of(slot)] {
            Holds::Good => {
                let (after, done, cuts) = self.does(slot, |loader| loader.set_state(slot, State::Good));
                done.unwrap();
                (Some(after), cuts)
            }
            _ => {
                let (after, done, mut cuts) = self.does(slot, |loader| loader.set_primary(slot.other()));
                done.unwrap();
                let (marked, done, more) = after.does(slot, |loader| loader.set_state(slot, State::Bad));
                done.unwrap();
                cuts.extend(more);
                cuts.push(marked);
                (None, cuts)
            }
        }
    }

    /// What an operator or the agent may do with a system that is up and good, each with a restart behind it.
    fn goes_on(&self, slot: Slot) -> Vec<Self> {
        let mut all = vec![self.clone()];
        let other = slot.other();
        let (marked, done, cuts) = self.does(slot, |loader| loader.set_state(other, State::Bad));
        done.unwrap();
        all.extend(cuts);
        // RAUC writes from here on: it may stop anywhere.
        for holds in Holds::EACH {
            let written = marked.holding(other, holds);
            let (active, done, cuts) = written.does(slot, |loader| loader.set_primary(other));
            done.unwrap();
            all.extend(cuts);
            all.extend([written, active]);
        }
        if self.counters().state(other) == State::Good {
            let (switched, done, cuts) = self.does(slot, |loader| loader.set_primary(other));
            done.unwrap();
            all.extend(cuts);
            all.push(switched);
        }
        all
    }

    /// Every device that one start may lead to.
    fn next(&self) -> Vec<Self> {
        let (came, mut all) = self.starts();
        match came {
            Came::Down(device) => all.push(device),
            Came::Up(device, slot) => {
                // A watchdog, a panic, a person who restarts it.
                all.push(device.clone());
                let (settled, cuts) = device.settles(slot);
                all.extend(cuts);
                all.extend(settled.into_iter().flat_map(|settled| settled.goes_on(slot)));
            }
            Came::Dead => {}
        }
        all
    }

    /// Starts again and again, with nothing in the way, until a system is up and good; how many starts it took.
    fn left_alone(&self) -> Option<(Self, Slot, usize)> {
        let mut device = self.clone();
        for starts in 1..=20 {
            match device.starts().0 {
                Came::Dead => return None,
                Came::Down(next) => device = next,
                Came::Up(up, slot) => match up.settles(slot) {
                    (Some(settled), _) => return Some((settled, slot, starts)),
                    (None, mut cuts) => device = cuts.pop()?,
                },
            }
        }
        None
    }
}

/// Every device that a new one can become.
fn reachable() -> BTreeSet<Device> {
    let mut known = BTreeSet::from([Device::new()]);
    let mut open = vec![Device::new()];
    while let Some(device) = open.pop() {
        for next in device.next() {
            if known.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    known
}

#[test]
fn whatever_fails_the_firmware_starts_a_good_release_and_a_good_one_is_kept() {
    let all = reachable();
    let (mut most, mut kept) = (0, 0);
    for device in &all {
        let committed = device.committed().expect("autoboot.txt is one of ours");
        assert_eq!(device.slots[of(committed)], Holds::Good, "the firmware starts another: {device:?}");
        let (settled, slot, starts) = device.left_alone().unwrap_or_else(|| panic!("nothing comes up: {device:?}"));
        assert_eq!(settled.committed(), Some(slot), "{device:?}");
        most = most.max(starts);
        // What the counters name, or what was counted for the start that comes; a trial that power cuts took every try from is
        // given up as everywhere.
        let next = if device.flag { Some(committed.other()) } else { device.counters().next() };
        if let Some(next) = next.filter(|next| device.slots[of(*next)] == Holds::Good) {
            assert_eq!(slot, next, "a good release is not kept: {device:?}");
            kept += 1;
        }
    }
    println!("{} devices, {kept} of them with a good release to be kept, at most {most} starts", all.len());
    assert!(all.len() > 500 && kept > 100, "{} {kept}", all.len());
}

/// Both slots good, one of them kept by the firmware.
fn settled_twice() -> (Device, Slot) {
    let a = Device::new().left_alone().unwrap().0;
    let written =
        a.does(Slot::A, |loader| loader.set_state(Slot::B, State::Bad).unwrap()).0.holding(Slot::B, Holds::Good);
    let active = written.does(Slot::A, |loader| loader.set_primary(Slot::B).unwrap()).0;
    let (settled, slot, starts) = active.left_alone().unwrap();
    assert_eq!((slot, starts, settled.committed()), (Slot::B, 2, Some(Slot::B)));
    (settled, slot)
}

#[test]
fn a_slot_that_breaks_later_is_left_for_the_other() {
    for broken in [Holds::Nothing, Holds::NoRoot] {
        let (device, slot) = settled_twice();
        let (settled, up, starts) = device.holding(slot, broken).left_alone().unwrap();
        assert_eq!((up, settled.committed()), (slot.other(), Some(slot.other())), "{broken:?}");
        assert!(starts <= 5, "{broken:?}: {starts}");
        assert_eq!(settled.left_alone().unwrap().2, 1, "it starts at once from then on");
    }
}

/// What is documented as a limit: the firmware does not know that the kernel which it starts gets nowhere.
#[test]
fn a_kept_kernel_that_stops_to_reach_its_initramfs_is_started_for_ever() {
    let (device, slot) = settled_twice();
    assert!(device.holding(slot, Holds::Dies).left_alone().is_none());
}

#[test]
fn the_model_reads_the_files_where_os_boot_writes_them() {
    assert_eq!(Loader::new(Bootloader::RpiTryboot, Path::new("/b")).directory(), Path::new("/b/os"));
}
