//! QEMU's ARM machines with U-Boot, and a disk of which U-Boot's part alone is real: a boot partition, and two kernel partitions
//! without a kernel.

use crate::harness::deadline;
use crate::harness::fat::Fat;
use crate::harness::taken::Taken;
use crate::harness::trace::{Kind, SECTOR, Trace};
use anyhow::{Context, Result, ensure};
use lab::arch::Arch;
use os_boot::{Bootloader, Counters, CountersError, Loader, counters};
use os_disk::table::{PartId, Table};
use os_facts::Slot;
use os_sys::cmd::Cmd;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

/// What is tested.
const SCRIPT: &str = include_str!("../../../../../meta-os/recipes-bsp/u-boot/files/boot.cmd");
/// How long U-Boot may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
/// Where the partitions begin, in bytes: boot, kernel A, kernel B.
const BOOT: u64 = 1 << 20;
const KERNELS: [u64; 2] = [17 << 20, 25 << 20];
const GPT: &str = "label: gpt\nstart=2048, size=32768, type=uefi, name=os-boot\n\
                     start=34816, size=16384, name=os-kernelA\nstart=51200, size=16384, name=os-kernelB\n";
const MBR: &str =
    "label: dos\nstart=2048, size=32768, type=c, bootable\nstart=34816, size=16384\nstart=51200, size=16384\n";

/// What U-Boot said of a boot.
#[derive(Debug)]
pub(crate) struct Boot {
    pub(crate) slot: Slot,
    pub(crate) rescue: bool,
    pub(crate) tries: String,
    /// The boot partition, as U-Boot names it.
    pub(crate) id: PartId,
    /// All of the kernel's arguments.
    pub(crate) arguments: String,
}

impl Boot {
    /// From what the script says on the console.
    fn parse(console: &str) -> Result<Self> {
        let mut lines = console.lines().filter_map(|line| line.trim_end().strip_prefix("OS: os.slot="));
        let rest = lines.next().context("U-Boot says nothing of a slot")?;
        let arguments = format!("os.slot={rest}");
        let word = |name: &str| {
            let found = arguments.split_ascii_whitespace().find_map(|word| word.strip_prefix(name));
            found.with_context(|| format!("no {name} in {arguments}"))
        };
        let id = PartId::parse(word("os.boot=")?);
        let id = id.with_context(|| format!("the boot partition has no identifier: {arguments}"))?;
        ensure!(word("os.slot=")? == word("rauc.slot=")?, "{arguments}");
        Ok(Self {
            slot: word("os.slot=")?.parse()?,
            rescue: arguments.contains("systemd.unit=os-rescue.target"),
            tries: word("os.tries=")?.to_owned(),
            id,
            arguments: arguments.clone(),
        })
    }
}

/// The machine, powered off.
pub(crate) struct Board {
    arch: Arch,
    dir: PathBuf,
    disk: PathBuf,
    flash: PathBuf,
}

impl Board {
    /// Why there can be none on this host, if that is so.
    pub(crate) fn missing() -> Option<String> {
        let qemu =
            Cmd::new(lab::qemu::program(Arch::Arm64)).arg("--version").read().map(drop).map_err(anyhow::Error::from);
        lab::uboot::firmware(Arch::Arm64).and(qemu).err().map(|err| format!("{err:#}"))
    }

    /// One with our boot script and the counters of a new device.
    pub(crate) fn new(arch: Arch, dir: &Path) -> Result<Self> {
        let board = Self { arch, dir: dir.to_owned(), disk: dir.join("uboot.raw"), flash: dir.join("uboot.env") };
        board.make_disk()?;
        lab::uboot::settings(arch, &board.flash)?;
        Ok(board)
    }

    fn make_disk(&self) -> Result<()> {
        let _ = std::fs::remove_file(&self.disk);
        File::create(&self.disk)?.set_len(64 << 20)?;
        let [source, script] = ["boot.cmd", "boot.scr"].map(|name| self.dir.join(name));
        std::fs::write(&source, SCRIPT)?;
        self.put_table(GPT)?;
        lab::uboot::script(&source, &script)?;
        for (start, kib) in [(BOOT, "16384"), (KERNELS[0], "8192"), (KERNELS[1], "8192")] {
            let offset = format!("--offset={}", start / SECTOR);
            Cmd::new("mkfs.fat").arg(&offset).arg(&self.disk).arg(kib).run()?;
        }
        let boot = self.boot_partition();
        boot.write("boot.scr", &std::fs::read(&script)?)?;
        boot.make_dir(Bootloader::UBoot.directory())?;
        for (slot, start) in ["A", "B"].into_iter().zip(KERNELS) {
            let environment = format!("os_slot_args=os.roothash={slot} console=ttyAMA0 quiet\n");
            Fat::new(&self.disk, start).write("slot.env", environment.as_bytes())?;
        }
        for name in [counters::FILE, counters::COPY] {
            self.put(name, &counters::fresh())?;
        }
        Ok(())
    }

    fn put_table(&self, table: &str) -> Result<()> {
        let path = self.dir.join("uboot.table");
        std::fs::write(&path, table)?;
        let sfdisk = Cmd::new("sfdisk").args(["-q", "--wipe=always", "--wipe-partitions=never"]);
        Ok(sfdisk.arg(&self.disk).stdin(File::open(&path)?).run()?)
    }

    /// Gives the disk an MBR; the partitions stay where they are.
    pub(crate) fn put_mbr(&self) -> Result<()> {
        self.put_table(MBR)
    }

    /// The identifier of the boot partition.
    pub(crate) fn id(&self) -> Result<PartId> {
        let parts = Table::read(&mut File::open(&self.disk)?)?.partitions()?;
        Ok(parts.first().context("there is no partition")?.id)
    }

    fn boot_partition(&self) -> Fat {
        Fat::new(&self.disk, BOOT)
    }

    /// Replaces a file of the counters' directory.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.boot_partition().write(&at(name), bytes)
    }

    fn taken(&self) -> Result<Taken> {
        Taken::from(&self.boot_partition(), Bootloader::UBoot)
    }

    pub(crate) fn counters(&self) -> Result<Counters> {
        Ok(self.taken()?.loader().counters()?)
    }

    /// Tells the bootloader something, as a device does.
    pub(crate) fn tell(&self, tell: impl FnOnce(&Loader) -> Result<(), CountersError>) -> Result<()> {
        self.taken()?.tell(tell)
    }

    pub(crate) fn tell_arguments(&self, text: &str) -> Result<()> {
        self.taken()?.tell(|loader| loader.set_arguments(text).map(drop))
    }

    /// Every file of the boot partition, in the order of the alphabet.
    pub(crate) fn files(&self) -> Result<Vec<String>> {
        let image = format!("{}@@{BOOT}", self.disk.display());
        let text = Cmd::new("mdir").args(["-i", &image, "-b", "-/", "::"]).read()?;
        let mut names: Vec<String> = (text.lines())
            .filter_map(|line| line.trim().strip_prefix("::/"))
            .filter(|name| !name.ends_with('/'))
            .map(str::to_owned)
            .collect();
        names.sort();
        Ok(names)
    }

    /// One boot, until the script has decided. `log`: where to keep what is written to the disk.
    pub(crate) fn boot(&self, log: Option<&Path>) -> Result<Boot> {
        let mut child = self.start(log)?;
        let said = lab::uboot::read_until(&mut child, &["cannot be started"], LIMIT);
        let _ = child.kill();
        let _ = child.wait();
        deadline::ended(child.id());
        Boot::parse(&said?)
    }

    fn start(&self, log: Option<&Path>) -> Result<Child> {
        let disk = self.disk.display();
        let drive = match log {
            None => format!("if=none,id=disk,format=raw,file={disk}"),
            Some(log) => format!(
                "if=none,id=disk,driver=blklogwrites,log-sector-size=512,log.driver=file,log.filename={},\
                 file.driver=raw,file.file.driver=file,file.file.filename={disk}",
                log.display()
            ),
        };
        let child = lab::uboot::machine(self.arch, &self.flash)?
            .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk,romfile="])
            .spawn()
            .context("cannot start qemu-system-aarch64")?;
        deadline::started(child.id());
        Ok(child)
    }

    /// One boot whose writes reach the medium up to each of them in turn, and in part; `look` is given the bootloader of each
    /// such disk. Returns how many there were.
    pub(crate) fn cut_everywhere(&self, look: impl Fn(&Loader) -> Result<()>) -> Result<usize> {
        let (log, cut) = (self.dir.join("uboot.writes"), self.dir.join("uboot.cut"));
        let before = std::fs::read(&self.disk)?;
        Trace::create(&log)?;
        self.boot(Some(&log))?;
        let trace = Trace::read(&[log])?;
        let writes: Vec<_> = trace.entries.iter().filter(|entry| entry.kind == Kind::Write).collect();
        std::fs::write(&cut, &before)?;
        let file = File::options().write(true).open(&cut)?;
        let mut tried = 0;
        let mut look = |what: &str| -> Result<()> {
            tried += 1;
            let taken = Taken::from(&Fat::new(&cut, BOOT), Bootloader::UBoot)?;
            look(&taken.loader()).with_context(|| format!("the power was cut {what}"))
        };
        look("before the first write")?;
        for (number, entry) in writes.iter().enumerate() {
            let bytes = trace.data(entry)?;
            // A sector is written whole or not at all, in any order: from either end.
            let sectors: Vec<_> = bytes.chunks(usize::try_from(SECTOR)?).enumerate().collect();
            let put = |at: usize, part: &[u8]| file.write_all_at(part, entry.start + at as u64 * SECTOR);
            let mut old = vec![0; bytes.len()];
            File::open(&cut)?.read_exact_at(&mut old, entry.start)?;
            for (at, part) in sectors.iter().rev().take(sectors.len().saturating_sub(1)) {
                put(*at, part)?;
                look(&format!("in write {number}, which had come to sector {at} from its end"))?;
            }
            file.write_all_at(&old, entry.start)?;
            for (at, part) in &sectors {
                put(*at, part)?;
                look(&format!("in write {number}, after sector {at}"))?;
            }
        }
        Ok(tried)
    }
}

/// A file of the counters' directory, from the top of the boot partition.
fn at(name: &str) -> String {
    format!("{}/{name}", Bootloader::UBoot.directory())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_script_says_is_understood() {
        let id = "07b76afb-b3bd-ba47-8d5d-9750629e17e8";
        let line = format!("OS: os.slot=B rauc.slot=B os.boot={id} os.tries=3,1 loglevel=7  os.roothash=B quiet");
        let boot =
            Boot::parse(&format!("OS: order A B: slot B \r\n{line}\r\nOS: slot B cannot be started\r\n")).unwrap();
        assert_eq!((boot.slot, boot.rescue, boot.tries.as_str()), (Slot::B, false, "3,1"));
        assert!(Boot::parse("OS: order A B: slot A").is_err());
        assert!(Boot::parse("OS: os.slot=A rauc.slot=B").is_err());
    }
}
