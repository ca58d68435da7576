//! The disk that was booted from, and the medium that it is.

use super::root::Root;
use os_facts::Role;
use os_facts::report::{Report, Volume};
use os_facts::selftest::Check;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const PARTITIONS: &str = "disk.partitions";
const ALIGNMENT: &str = "disk.alignment";
const GROWN: &str = "disk.grown";
const VOLUMES: &str = "disk.volumes";
const DISCARD: &str = "disk.discard";
const WEAR: &str = "disk.wear";
const SPEED: &str = "disk.speed";

/// sysfs counts in sectors of this size, whatever the disk has, in bytes.
const SECTOR: u64 = 512;
/// Partitions begin at multiples of it, and the last one may end that far before the end of the disk, in bytes.
const MIB: u64 = 1 << 20;
/// How much is read to measure the medium, in bytes, and how long that may take.
const SAMPLE: u64 = 64 * MIB;
const SAMPLE_TIME: Duration = Duration::from_secs(10);
/// A slower medium is not what it is sold as, in MiB/s: every SD card with a speed class above the lowest reads faster.
const SLOWEST: f64 = 4.0;

/// The disk and its partitions, as the kernel has them.
#[derive(Debug)]
pub(super) struct Disk<'a> {
    root: Root<'a>,
    name: &'a str,
}

impl<'a> Disk<'a> {
    /// By its kernel name, such as `mmcblk0`.
    pub(super) fn new(root: Root<'a>, name: &'a str) -> Self {
        Self { root, name }
    }

    fn dir(&self) -> PathBuf {
        PathBuf::from("/sys/class/block").join(self.name)
    }

    /// Kernel name of the partition with a role.
    fn partition(&self, role: Role) -> Option<String> {
        self.root.leads_to(role.device())
    }

    /// Begin and size of a partition, in bytes.
    fn extent(&self, role: Role) -> Option<(u64, u64)> {
        let dir = self.dir().join(self.partition(role)?);
        let bytes = |name: &str| self.root.number::<u64>(dir.join(name))?.checked_mul(SECTOR);
        Some((bytes("start")?, bytes("size")?))
    }

    fn size(&self) -> Option<u64> {
        self.root.number::<u64>(self.dir().join("size"))?.checked_mul(SECTOR)
    }

    /// What the medium calls itself: kind and model, without a serial number.
    fn medium(&self) -> String {
        let say = |name: &str| self.root.text(self.dir().join("device").join(name));
        // SD and eMMC have a type in words and a name, disks a type in numbers and a model.
        let kind = say("type").filter(|kind| kind.parse::<u32>().is_err());
        let parts: Vec<String> = [kind, say("name"), say("model")].into_iter().flatten().collect();
        if parts.is_empty() { "unknown medium".to_owned() } else { parts.join(" ") }
    }

    /// Every partition is there, on this disk.
    pub(super) fn partitions(&self) -> Check {
        let elsewhere = |role: &Role| match self.partition(*role) {
            Some(name) => !self.root.has(self.dir().join(name)),
            None => true,
        };
        let wrong: Vec<String> = Role::EACH.iter().filter(|role| elsewhere(role)).map(Role::to_string).collect();
        let size = self.size().map_or_else(|| "unknown".to_owned(), |size| format!("{} MiB", size / MIB));
        match wrong.is_empty() {
            true => Check::passed(PARTITIONS, format!("all on {} ({}, {size})", self.name, self.medium())),
            false => Check::failed(
                PARTITIONS,
                format!("not on {}, which was booted: {}", self.name, wrong.join(" ")),
                "ls -l /dev/disk/os shows where each one is",
            ),
        }
    }

    /// Every partition begins where flash and disks with large sectors like it.
    pub(super) fn alignment(&self) -> Check {
        let starts = Role::EACH.iter().filter_map(|role| Some((role, self.extent(*role)?.0)));
        let starts: Vec<(&Role, u64)> = starts.collect();
        let wrong: Vec<String> =
            starts.iter().filter(|(_, start)| start % MIB != 0).map(|(role, _)| role.to_string()).collect();
        match (starts.is_empty(), wrong.is_empty()) {
            (true, _) => Check::failed(ALIGNMENT, "no partition says where it begins", "see disk.partitions"),
            (_, true) => Check::passed(ALIGNMENT, "every partition begins at a multiple of 1 MiB"),
            (_, false) => Check::failed(
                ALIGNMENT,
                format!("not at a multiple of 1 MiB: {}", wrong.join(" ")),
                "writes are slow and wear the medium; write the image anew",
            ),
        }
    }

    /// Data reaches to the end of the disk, and its filesystem, of so many bytes, to the end of data.
    pub(super) fn grown(&self, filesystem: Option<u64>) -> Check {
        let remedy = "journalctl -b -o cat | grep os-init says why; it is tried again at every start";
        let (Some((start, size)), Some(disk)) = (self.extent(Role::Data), self.size()) else {
            return Check::failed(GROWN, "the data partition has no size", "see disk.partitions");
        };
        // A GPT has a copy in the last sectors, and the partition ends at a multiple.
        let left = disk.saturating_sub(start.saturating_add(size));
        if left > 2 * MIB {
            return Check::failed(GROWN, format!("{} MiB behind the data partition are not used", left / MIB), remedy);
        }
        let Some(filesystem) = filesystem else {
            return Check::failed(GROWN, "data is not mounted", "os status says why");
        };
        // What ext4 and an encryption keep for themselves is far less.
        if filesystem < size / 4 * 3 {
            let text = format!("the data partition has {} MiB, its filesystem {}", size / MIB, filesystem / MIB);
            return Check::failed(GROWN, text, remedy);
        }
        Check::passed(GROWN, format!("data reaches to the end of the disk: {} MiB", size / MIB))
    }

    /// Freed blocks are told to the medium.
    pub(super) fn discard(&self) -> Check {
        match self.root.number::<u64>(self.dir().join("queue/discard_max_bytes")) {
            Some(1..) => Check::passed(DISCARD, "the medium takes it"),
            _ => Check::skipped(DISCARD, "the medium, or what it is plugged into, does not know it"),
        }
    }

    /// How worn an eMMC says that it is (JEDEC eMMC 5.0: `DEVICE_LIFE_TIME_EST`, `PRE_EOL_INFO`).
    pub(super) fn wear(&self) -> Check {
        let hex = |word: &str| u8::from_str_radix(word.trim_start_matches("0x"), 16).ok();
        let say = |name: &str| self.root.text(self.dir().join("device").join(name));
        let life: Vec<u8> = say("life_time").iter().flat_map(|text| text.split_whitespace().filter_map(hex)).collect();
        let spare = say("pre_eol_info").and_then(|text| hex(&text)).unwrap_or(0);
        // Two kinds of memory, each in tenths; 0 where it does not say.
        let Some(most) = life.into_iter().max().filter(|most| *most > 0) else {
            return Check::skipped(WEAR, "only an eMMC tells how worn it is, and this medium is none or does not tell");
        };
        let text = format!("{} to {} % of its life used", u32::from(most - 1) * 10, u32::from(most) * 10);
        match (most, spare) {
            (..=9, ..=1) => Check::passed(WEAR, text),
            (..=10, ..=2) => Check::failed(WEAR, format!("{text}, or most of its spare blocks"), "replace it soon"),
            _ => Check::failed(WEAR, "its life is used up, or its spare blocks are", "replace it"),
        }
    }

    /// How fast it is read. The root's partition, below dm-verity: nobody else reads it through this cache.
    pub(super) fn speed(&self, partition: Role) -> Check {
        match sample(&self.root.path(partition.device())) {
            Err(err) => Check::failed(SPEED, format!("cannot read it: {err}"), "journalctl -k says more"),
            Ok((bytes, time)) => speed(bytes, time),
        }
    }
}

fn speed(bytes: u64, time: Duration) -> Check {
    // MiB of at most 64: exact.
    let mib = f64::from(u32::try_from(bytes / MIB).unwrap_or(u32::MAX));
    let rate = mib / time.as_secs_f64().max(0.001);
    let text = format!("{rate:.0} MiB/s read, one after the other");
    match rate >= SLOWEST {
        true => Check::passed(SPEED, text),
        false => {
            Check::failed(SPEED, text, "try another card, reader or cable: this one is broken, worn or no original")
        }
    }
}

fn sample(path: &std::path::Path) -> std::io::Result<(u64, Duration)> {
    use rustix::fs::{Advice, fadvise};
    let mut file = std::fs::File::open(path)?;
    // What an earlier test left in memory. One that cannot be forgotten only makes the medium look fast.
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    let (start, mut buffer, mut bytes) = (Instant::now(), vec![0; 1 << 20], 0);
    while bytes < SAMPLE && start.elapsed() < SAMPLE_TIME {
        match file.read(&mut buffer)? {
            0 => break,
            got => bytes += got as u64,
        }
    }
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    Ok((bytes, start.elapsed()))
}

/// State and data can be used. What was repaired, or else is worth a word, does not make them fail, as in `os status`.
pub(super) fn volumes(report: &Report) -> Check {
    let volumes = [("state", report.state), ("data", report.data)];
    let unusable: Vec<&str> = volumes.iter().filter(|(_, is)| *is == Volume::Unusable).map(|(name, _)| *name).collect();
    let said = [&[String::new()], report.messages.as_slice()].concat().join("; ");
    match unusable.is_empty() {
        true => Check::passed(VOLUMES, format!("state and data are checked and mounted{said}")),
        false => {
            let text = format!("cannot be used: {}{said}", unusable.join(" and "));
            Check::failed(VOLUMES, text, "os status and docs/troubleshooting.md")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::tests::Fake;
    use super::*;
    use os_facts::selftest::Outcome::{Failed, Passed, Skipped};

    /// A card of 1 GiB with seven partitions of 64 MiB each, and data up to its end.
    fn card() -> Fake {
        let fake = Fake::with(&[
            ("/sys/class/block/mmcblk0/size", "2097152\n"),
            ("/sys/class/block/mmcblk0/device/type", "SD\n"),
            ("/sys/class/block/mmcblk0/device/name", "SC32G\n"),
            ("/sys/class/block/mmcblk0/queue/discard_max_bytes", "4194304\n"),
        ]);
        for (number, role) in Role::EACH.into_iter().enumerate() {
            let dir = format!("/sys/class/block/mmcblk0/mmcblk0p{}", number + 1);
            let (start, size) = (2048 + number * 131_072, 131_072);
            let size = if role == Role::Data { 2_097_152 - 2048 - start } else { size };
            fake.write(&format!("{dir}/start"), &start.to_string());
            fake.write(&format!("{dir}/size"), &size.to_string());
            fake.link(&role.device().to_string_lossy(), &format!("../../mmcblk0p{}", number + 1));
        }
        fake
    }

    #[test]
    fn partitions_of_another_disk_and_crooked_ones_are_found() {
        let fake = card();
        let disk = Disk::new(fake.root(), "mmcblk0");
        assert_eq!(disk.partitions(), Check::passed(PARTITIONS, "all on mmcblk0 (SD SC32G, 1024 MiB)"));
        assert_eq!(disk.alignment().outcome, Passed);
        fake.write("/sys/class/block/mmcblk0/mmcblk0p3/start", "63");
        let check = disk.alignment();
        assert!(check.outcome == Failed && check.text.contains("os-kernelB"), "{check:?}");
        fake.link("/dev/disk/os/os-data", "../../sda7");
        let check = disk.partitions();
        assert!(check.outcome == Failed && check.text.contains("os-data"), "{check:?}");
        assert_eq!(Disk::new(fake.root(), "sda").alignment().outcome, Failed);
    }

    #[test]
    fn data_that_was_not_grown_is_found() {
        let fake = card();
        let disk = Disk::new(fake.root(), "mmcblk0");
        let outcome = |filesystem| disk.grown(filesystem).outcome;
        assert_eq!((outcome(Some(600 * MIB)), outcome(Some(64 * MIB)), outcome(None)), (Passed, Failed, Failed));
        fake.write("/sys/class/block/mmcblk0/mmcblk0p7/size", "131072");
        let check = disk.grown(Some(60 * MIB));
        assert!(check.outcome == Failed && check.text.starts_with("57"), "{check:?}");
    }

    #[test]
    fn an_emmc_says_how_worn_it_is() {
        let fake = card();
        let wear = |life: &str, spare: &str| {
            fake.write("/sys/class/block/mmcblk0/device/life_time", life);
            fake.write("/sys/class/block/mmcblk0/device/pre_eol_info", spare);
            Disk::new(fake.root(), "mmcblk0").wear()
        };
        assert_eq!(wear("0x02 0x01\n", "0x01\n"), Check::passed(WEAR, "10 to 20 % of its life used"));
        for (life, spare) in
            [("0x0a 0x01", "0x01"), ("0x01 0x01", "0x02"), ("0x0b 0x01", "0x01"), ("0x01 0x01", "0x03")]
        {
            assert_eq!(wear(life, spare).outcome, Failed, "{life} {spare}");
        }
        assert_eq!(wear("0x00 0x00", "0x00").outcome, Skipped);
        let card = card();
        assert_eq!(Disk::new(card.root(), "mmcblk0").wear().outcome, Skipped);
    }

    #[test]
    fn discard_is_known_or_not() {
        let fake = card();
        let disk = Disk::new(fake.root(), "mmcblk0");
        assert_eq!(disk.discard().outcome, Passed);
        fake.write("/sys/class/block/mmcblk0/queue/discard_max_bytes", "0");
        assert_eq!(disk.discard().outcome, Skipped);
    }

    #[test]
    fn a_medium_is_read_and_a_slow_one_is_called_so() {
        assert_eq!(speed(64 * MIB, Duration::from_secs(2)), Check::passed(SPEED, "32 MiB/s read, one after the other"));
        assert_eq!(speed(20 * MIB, SAMPLE_TIME).outcome, Failed);
        let fake = card();
        let disk = Disk::new(fake.root(), "mmcblk0");
        assert!(disk.speed(Role::Boot).text.starts_with("cannot read it"));
        fake.write("/dev/mmcblk0p1", &"x".repeat(3 << 20));
        assert_eq!(disk.speed(Role::Boot).outcome, Passed);
    }

    #[test]
    fn a_volume_that_cannot_be_used_is_named() {
        let good = Report { state: Volume::Ok, data: Volume::Repaired, ..Report::default() };
        assert_eq!(volumes(&good).outcome, Passed);
        let check = volumes(&Report { data: Volume::Unusable, ..good.clone() });
        assert!(check.outcome == Failed && check.text.contains("data"), "{check:?}");
        let full = volumes(&Report { messages: vec!["os-data is full".to_owned()], ..good });
        assert!(full.outcome == Passed && full.text.ends_with("mounted; os-data is full"), "{full:?}");
    }
}
