//! Which slot was booted, and whether everybody who has to know agrees.

use super::root::Root;
use os_boot::counters::{COPY, FILE};
use os_boot::{Loader, LoaderError};
use os_dbus::RaucSlot;
use os_facts::report::Report;
use os_facts::selftest::Check;
use os_facts::{Role, Slot};
use std::path::Path;

const BOOTED: &str = "slots.booted";
const COMMITTED: &str = "slots.committed";
const COUNTERS: &str = "slots.counters";
const RAUC: &str = "slots.rauc";
/// What os-init calls the verified root.
const VERIFIED: &str = "os-root";

/// How far this start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// A release is on trial.
    Trial,
    /// Its health is being checked.
    Checking,
    /// It counts as a good one.
    Committed,
    /// It does not.
    Uncommitted,
}

/// The argument of the kernel, the mounted root, and the report of the initramfs name one slot.
pub(super) fn booted(root: Root<'_>, report: &Report) -> Check {
    let slot = report.slot;
    let cmdline = root.text("/proc/cmdline").unwrap_or_default();
    let argument = cmdline.split_ascii_whitespace().find_map(|word| word.strip_prefix("os.slot="));
    let wrong = |text: String| Check::failed(BOOTED, text, "journalctl -b -o cat | grep os-init says what was mounted");
    if argument != Some(slot.name()) {
        let said = argument.unwrap_or("none");
        return wrong(format!("the initramfs mounted slot {slot}, and the kernel was started with os.slot={said}"));
    }
    if !report.verity {
        return wrong(format!("slot {slot}, and its root is not verified"));
    }
    let below = below_root(root);
    let partition = root.leads_to(Role::Root(slot).device());
    match (below, partition) {
        (Some(below), Some(partition)) if below.contains(&partition) => {
            Check::passed(BOOTED, format!("slot {slot}, its root on {partition} is verified by dm-verity"))
        }
        (below, partition) => wrong(format!(
            "the root is on {}, and the partition of slot {slot} is {}",
            below.map_or_else(|| "no verified device".to_owned(), |below| below.join(" ")),
            partition.as_deref().unwrap_or("not there")
        )),
    }
}

/// The devices below the verified root; none when `/` is another one (proc_pid_mountinfo(5)).
fn below_root(root: Root<'_>) -> Option<Vec<String>> {
    let mounts = root.text("/proc/self/mountinfo")?;
    // What is mounted over another comes later.
    let mut rows = mounts.lines().rev().map(|line| line.split(' ').collect::<Vec<_>>());
    let row = rows.find(|row| row.get(4) == Some(&"/"))?;
    let dir = Path::new("/sys/dev/block").join(row.get(2)?);
    (root.text(dir.join("dm/name")).as_deref() == Some(VERIFIED)).then(|| root.names(dir.join("slaves")))
}

/// The bootloader's counters and their copy are whole and say the same.
pub(super) fn counters(loader: &Result<Loader, LoaderError>) -> Check {
    const REMEDY: &str = "os slot mark good writes both anew";
    let loader = match loader {
        Ok(loader) => loader,
        Err(err) => return Check::failed(COUNTERS, err.to_string(), "the image was built for another board"),
    };
    let counters = match loader.counters() {
        Ok(counters) => counters,
        Err(err) => return Check::failed(COUNTERS, err.to_string(), REMEDY),
    };
    let read = |name: &str| std::fs::read(loader.directory().join(name)).ok();
    let order: Vec<&str> = counters.order().into_iter().map(Slot::name).collect();
    match (read(FILE), read(COPY)) {
        (Some(file), Some(copy)) if file == copy => {
            Check::passed(COUNTERS, format!("order {}, attempts {}", order.join(" "), counters.tries()))
        }
        // A new device has its copy from the first commit on.
        _ => Check::failed(COUNTERS, "the boot counters and their copy differ", REMEDY),
    }
}

/// The start counts, and the next one is of this slot.
pub(super) fn committed(loader: &Result<Loader, LoaderError>, slot: Slot, start: Start) -> Check {
    match start {
        Start::Trial => return Check::skipped(COMMITTED, "a release is on trial; os update status says how far it is"),
        Start::Checking => return Check::skipped(COMMITTED, "the device still starts; test again when it is up"),
        Start::Uncommitted => {
            let remedy = "os status says what the health check waits for; journalctl -u os-health -u os-commit";
            return Check::failed(COMMITTED, "this start was not committed", remedy);
        }
        Start::Committed => {}
    }
    let next = loader.as_ref().ok().and_then(|loader| loader.counters().ok()?.next());
    match next {
        Some(next) if next == slot => Check::passed(COMMITTED, format!("slot {slot} is booted next, too")),
        Some(next) => {
            Check::failed(COMMITTED, format!("slot {next} is booted next"), "os slot mark active keeps this one")
        }
        None => Check::failed(COMMITTED, "no slot is booted next", "os slot mark good"),
    }
}

/// RAUC knows both slots, and which of them is booted.
pub(super) fn rauc(slots: Option<Result<Vec<RaucSlot>, String>>, slot: Slot) -> Check {
    const REMEDY: &str = "journalctl -u rauc; /etc/rauc/system.conf names the slots";
    let slots = match slots {
        None => return Check::skipped(RAUC, "a release is being installed"),
        Some(Err(err)) => return Check::failed(RAUC, err, REMEDY),
        Some(Ok(slots)) => slots,
    };
    let known = |slot: Slot| slots.iter().find(|found| found.bootname.as_deref() == Some(slot.name()));
    match (known(slot), known(slot.other())) {
        (Some(this), Some(_)) if this.state == "booted" => Check::passed(
            RAUC,
            format!("both slots known, {slot} booted and {}", this.boot_status.as_deref().unwrap_or("?")),
        ),
        (Some(this), Some(_)) => {
            Check::failed(RAUC, format!("slot {slot} is booted, and RAUC calls it {}", this.state), REMEDY)
        }
        _ => Check::failed(RAUC, "RAUC does not know both slots", REMEDY),
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::tests::Fake;
    use super::*;
    use os_boot::{Bootloader, State, counters};
    use os_facts::selftest::Outcome::{self, Failed, Passed, Skipped};

    fn device() -> (Fake, Report) {
        let fake = Fake::with(&[
            ("/proc/cmdline", "os.slot=B rauc.slot=B quiet"),
            (
                "/proc/self/mountinfo",
                "22 1 0:5 / /dev rw - devtmpfs dev rw\n21 1 254:0 / / ro - erofs /dev/mapper/os-root ro\n",
            ),
            ("/sys/dev/block/254:0/dm/name", "os-root\n"),
            ("/sys/dev/block/254:0/slaves/mmcblk0p5", ""),
        ]);
        fake.link("/dev/disk/os/os-rootB", "../../mmcblk0p5");
        (fake, Report { slot: Slot::B, verity: true, ..Report::default() })
    }

    #[test]
    fn whoever_names_another_slot_is_found() {
        let (fake, report) = device();
        let check = booted(fake.root(), &report);
        assert_eq!((check.outcome, check.text.contains("mmcblk0p5")), (Passed, true), "{check:?}");
        let outcome = |report: &Report| booted(fake.root(), report).outcome;
        assert_eq!(outcome(&Report { slot: Slot::A, ..report.clone() }), Failed);
        assert_eq!(outcome(&Report { verity: false, ..report.clone() }), Failed);
        fake.link("/dev/disk/os/os-rootB", "../../sda5");
        assert_eq!(outcome(&report), Failed);
        fake.link("/dev/disk/os/os-rootB", "../../mmcblk0p5");
        fake.write("/sys/dev/block/254:0/dm/name", "another");
        assert_eq!(outcome(&report), Failed);
    }

    #[test]
    fn counters_have_to_be_whole_alike_and_in_favour_of_this_slot() {
        let boot = tempfile::tempdir().unwrap();
        let loader = Ok(Loader::new(Bootloader::UBoot, boot.path()));
        let dir = boot.path().join(Bootloader::UBoot.directory());
        assert_eq!(counters(&loader).outcome, Failed);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(FILE), counters::fresh()).unwrap();
        assert!(counters(&loader).text.contains("differ"));
        loader.as_ref().unwrap().set_primary(Slot::A).unwrap();
        assert_eq!(counters(&loader), Check::passed(COUNTERS, "order A B, attempts 0,0"));
        let outcome = |slot, start| committed(&loader, slot, start).outcome;
        assert_eq!(outcome(Slot::A, Start::Committed), Passed);
        assert_eq!(outcome(Slot::B, Start::Committed), Failed);
        assert_eq!(outcome(Slot::A, Start::Uncommitted), Failed);
        assert_eq!((outcome(Slot::B, Start::Trial), outcome(Slot::A, Start::Checking)), (Skipped, Skipped));
        loader.as_ref().unwrap().set_state(Slot::A, State::Bad).unwrap();
        assert_eq!(outcome(Slot::A, Start::Committed), Failed);
        let unknown = Bootloader::named("lilo").map(|loader| Loader::new(loader, boot.path()));
        assert!(counters(&unknown).text.contains("lilo"));
    }

    #[test]
    fn rauc_has_to_know_both_slots_and_the_booted_one() {
        let slot = |bootname: &str, state: &str| os_dbus::fake::slot("kernel.0", bootname, state);
        let outcome = |slots: &[RaucSlot]| -> Outcome { rauc(Some(Ok(slots.to_vec())), Slot::A).outcome };
        assert_eq!(outcome(&[slot("A", "booted"), slot("B", "inactive")]), Passed);
        assert_eq!(outcome(&[slot("A", "inactive"), slot("B", "booted")]), Failed);
        assert_eq!(outcome(&[slot("A", "booted")]), Failed);
        assert_eq!(rauc(None, Slot::A).outcome, Skipped);
        assert_eq!(rauc(Some(Err("no answer".to_owned())), Slot::A).outcome, Failed);
    }
}
