//! The rules by which the Raspberry Pi's firmware starts a kernel, for a machine that has another firmware or none.
//!
//! Sources are pages of the Raspberry Pi's documentation ("autoboot.txt", "Conditional filters", "Boot options", "Bootloader
//! configuration", "Fail-safe OS updates") and the release notes of its bootloader (rpi-eeprom, firmware-2712). What is modelled is a
//! Raspberry Pi 5 with the defaults of its bootloader.

pub(crate) mod board;
mod device_tree;
#[cfg(test)]
mod model;

use std::collections::BTreeMap;

/// The first partition, which has `autoboot.txt`.
const FIRST: u32 = 1;
/// "Partition walk: … up to 8."
const LAST: u32 = 8;
/// "autoboot.txt is limited to 512 bytes."
const AUTOBOOT_LIMIT: usize = 512;

/// What a text in the form of `config.txt` says in one start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Config(BTreeMap<String, String>);

impl Config {
    /// Reads a text; `tryboot` is the flag of this start. Later lines replace earlier ones, and what is not understood is passed
    /// over.
    pub(crate) fn parse(text: &[u8], tryboot: bool) -> Self {
        let text = String::from_utf8_lossy(text);
        let mut found = BTreeMap::new();
        // "Filters of the same type replace each other", others are combined, and [all] resets all of them.
        let (mut none, mut trial, mut board) = (false, true, true);
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            if let Some(filter) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                match filter {
                    "all" => (none, trial, board) = (false, true, true),
                    "none" => none = true,
                    "tryboot" => trial = tryboot,
                    other => board = other == "pi5",
                }
                continue;
            }
            // "initramfs uses different syntax from all the other options": no "=" behind its name.
            let pair = match line.strip_prefix("initramfs ") {
                Some(rest) => Some(("initramfs", rest.split_ascii_whitespace().next().unwrap_or_default())),
                None => line.split_once('='),
            };
            if let Some((name, value)) = pair.filter(|_| !none && trial && board) {
                found.insert(name.to_owned(), value.to_owned());
            }
        }
        Self(found)
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.0.get(name)?.parse().ok()
    }

    /// A file of the operating system: "any value in os_prefix is prepended to the name of any operating system files"; one that
    /// begins with "/" bypasses it.
    fn file(&self, name: &str, default: &str) -> Option<String> {
        let file = self.0.get(name).map_or(default, String::as_str);
        let prefix = self.0.get("os_prefix").map_or("", String::as_str);
        let path = file.strip_prefix('/').map_or_else(|| format!("{prefix}{file}"), str::to_owned);
        Some(path).filter(|path| !path.is_empty())
    }

    /// The kernel.
    pub(crate) fn kernel(&self) -> Option<String> {
        self.file("kernel", "kernel_2712.img")
    }

    /// Its initramfs, where there is one.
    pub(crate) fn initramfs(&self) -> Option<String> {
        self.file("initramfs", "")
    }

    /// The file with its arguments.
    pub(crate) fn cmdline(&self) -> Option<String> {
        self.file("cmdline", "cmdline.txt")
    }
}

/// What the firmware starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    /// `/chosen/bootloader/partition`.
    pub(crate) partition: u32,
    /// `/chosen/bootloader/tryboot`.
    pub(crate) tryboot: bool,
    /// What is read there.
    pub(crate) config: Config,
}

/// What the firmware starts from a disk; `read` has the files of its partitions, `tryboot` is the flag that the restart before it set
/// (and which is gone then: "a one-shot flag"). None where nothing is started.
pub(crate) fn start(read: &dyn Fn(u32, &str) -> Option<Vec<u8>>, tryboot: bool) -> Option<Start> {
    let mut text = read(FIRST, "autoboot.txt").unwrap_or_default();
    text.truncate(AUTOBOOT_LIMIT);
    let autoboot = Config::parse(&text, tryboot);
    // "Specifying partition 0 means boot from the default partition which is the first bootable FAT partition."
    let wanted = autoboot.number("boot_partition").filter(|number| *number != 0).unwrap_or(FIRST);
    // "Bootable partitions … contain a config.txt file on Raspberry Pi 5." Since 2025-01-27, with PARTITION_WALK=1, which is the
    // default: "check each partition in turn … and wrapping", and "autoboot.txt files are not processed" there.
    let walk = (wanted..=LAST).chain(FIRST..wanted);
    let partition = walk.into_iter().find(|partition| read(*partition, "config.txt").is_some())?;
    // "tryboot_a_b: set this property to 1 to load the normal config.txt … instead of tryboot.txt when the tryboot flag is set."
    let is_partition_tried = autoboot.number("tryboot_a_b") == Some(1);
    let name = if tryboot && !is_partition_tried { "tryboot.txt" } else { "config.txt" };
    let config = Config::parse(&read(partition, name)?, tryboot);
    Some(Start { partition, tryboot, config })
}

/// True when the kernel said at its end that it restarts with the flag. Its driver looks for the word behind a space
/// (raspberrypi/linux, drivers/firmware/raspberrypi.c, `rpi_firmware_notify_reboot`); a panic, a watchdog and a power cut say
/// nothing.
pub(crate) fn flagged(console: &str) -> bool {
    let mut lines =
        console.lines().rev().filter_map(|line| line.split_once("reboot: Restarting system with command '"));
    lines.next().is_some_and(|(_, command)| command.contains(" tryboot"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use os_boot::tryboot;
    use os_facts::Slot;
    use proptest::prelude::*;

    const CONFIG: &str = include_str!("../../../../../../meta-os/recipes-bsp/rpi-tryboot/files/config.txt");

    /// A disk of files.
    fn disk<'a>(files: &'a [(u32, &'a str, &'a str)]) -> impl Fn(u32, &str) -> Option<Vec<u8>> + 'a {
        move |partition, name| {
            let found = files.iter().find(|file| (file.0, file.1) == (partition, name));
            found.map(|file| file.2.as_bytes().to_vec())
        }
    }

    #[test]
    fn our_files_start_a_slot_and_try_the_other() {
        for slot in Slot::BOTH {
            let text = tryboot::text(slot);
            let files = [(1, "autoboot.txt", text.as_str()), (2, "config.txt", CONFIG), (3, "config.txt", CONFIG)];
            let found = |flag| start(&disk(&files), flag).unwrap();
            assert_eq!(found(false).partition, tryboot::partition(slot));
            assert_eq!(found(true).partition, tryboot::partition(slot.other()));
            let config = found(true).config;
            assert_eq!(config.kernel().as_deref(), Some("vmlinuz"));
            assert_eq!(config.initramfs().as_deref(), Some("initramfs"));
            assert_eq!(config.cmdline().as_deref(), Some("cmdline.txt"));
        }
    }

    #[test]
    fn a_partition_that_cannot_be_started_is_passed_over() {
        let text = tryboot::text(Slot::B);
        let found = |files: &[(u32, &str, &str)], flag| start(&disk(files), flag).map(|found| found.partition);
        assert_eq!(found(&[(1, "autoboot.txt", &text), (2, "config.txt", "")], false), Some(2));
        assert_eq!(found(&[(1, "autoboot.txt", &text), (3, "config.txt", "")], true), Some(3));
        assert_eq!(found(&[(2, "config.txt", ""), (3, "config.txt", "")], false), Some(2), "without autoboot.txt");
        assert_eq!(found(&[(1, "autoboot.txt", &text)], false), None);
        // Without tryboot_a_b the files of the partition are tried, and ours has none for that.
        assert_eq!(found(&[(1, "autoboot.txt", "boot_partition=2"), (2, "config.txt", "")], true), None);
        let late = format!("{}\nboot_partition=3\n", "#".repeat(600));
        assert_eq!(found(&[(1, "autoboot.txt", &late), (2, "config.txt", ""), (3, "config.txt", "")], false), Some(2));
    }

    #[test]
    fn filters_combine_and_are_reset() {
        let text = "a=1\n[tryboot]\na=2\n[none]\na=3\n[all]\nb=1\n[pi4]\nb=2\n[pi5]\nc=1\n[tryboot]\nc=2\n#c=3\n[all]\nd=x=y\n";
        let found = |flag| {
            let config = Config::parse(text.as_bytes(), flag);
            ["a", "b", "c", "d"].map(|name| config.0.get(name).cloned().unwrap_or_default()).join(" ")
        };
        assert_eq!((found(false), found(true)), ("1 1 1 x=y".to_owned(), "2 1 2 x=y".to_owned()));
        let prefixed = Config::parse(b"os_prefix=slot/\nkernel=/k\ninitramfs i followkernel\ncmdline=\n", false);
        let names = [prefixed.kernel(), prefixed.initramfs(), prefixed.cmdline()].map(Option::unwrap_or_default);
        assert_eq!(names, ["k", "slot/i", "slot/"]);
    }

    #[test]
    fn the_flag_is_what_the_kernel_said_last() {
        let with = "[  733.344212] reboot: Restarting system with command '0 tryboot'\n";
        assert!(flagged(&format!("booting\n{with}")));
        for other in [
            "",
            "reboot: Restarting system\n",
            "reboot: Restarting system with command 'tryboot'\n",
            "Kernel panic - not syncing: 0 tryboot\n",
        ] {
            assert!(!flagged(other), "{other}");
        }
        assert!(!flagged(&format!("{with}[    1.0] reboot: Restarting system with command ''\n")));
    }

    proptest! {
        #[test]
        fn hostile_text_is_read_or_passed_over(bytes in proptest::collection::vec(any::<u8>(), 0..700), flag: bool) {
            let read = |_: u32, name: &str| Some(if name == "autoboot.txt" { bytes.clone() } else { Vec::new() });
            let found = start(&read, flag);
            prop_assert!(found.is_none_or(|found| (FIRST..=LAST).contains(&found.partition)));
        }

        #[test]
        fn lines_in_any_order_are_read(text in "(\\[(all|none|tryboot|pi5|x)?\\]?\n|(boot_partition|tryboot_a_b|initramfs)[= ]?[0-9]{0,11}\n){0,20}", flag: bool) {
            let _ = start(&|_, _| Some(text.clone().into_bytes()), flag);
        }
    }
}
