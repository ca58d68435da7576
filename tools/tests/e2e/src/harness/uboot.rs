//! QEMU's arm64 machine with U-Boot, and a disk of which U-Boot's part alone is real: a boot partition, and two kernel partitions
//! without a kernel.

use crate::harness::deadline;
use crate::harness::fat::Fat;
use crate::harness::trace::{Kind, SECTOR, Trace};
use anyhow::{Context, Result, bail, ensure};
use os_boot::arguments;
use os_boot::{Bootloader, Counters, CountersError, Loader, counters};
use os_facts::Slot;
use os_sys::cmd::Cmd;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What is tested.
const SCRIPT: &str = include_str!("../../../../../meta-os/recipes-bsp/u-boot/files/boot.cmd");
/// U-Boot of Debian's package u-boot-qemu.
const FIRMWARE: &str = "usr/lib/u-boot/qemu_arm64/u-boot.bin";
/// How long U-Boot may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
/// Where the partitions begin, in bytes: boot, kernel A, kernel B.
const BOOT: u64 = 1 << 20;
const KERNELS: [u64; 2] = [17 << 20, 25 << 20];
const TABLE: &str = "label: gpt\nstart=2048, size=32768, type=uefi, name=os-boot\n\
                     start=34816, size=16384, name=os-kernelA\nstart=51200, size=16384, name=os-kernelB\n";
/// Size of its environment's flash, in bytes.
const FLASH: u64 = 64 << 20;
/// What is typed once and saved: only our script is looked for, at once. Boards have it in their configuration.
const SETTINGS: &str = "setenv bootmeths script; setenv bootdelay 0; saveenv\n";

/// What U-Boot said of a boot.
#[derive(Debug)]
pub(crate) struct Boot {
    pub(crate) slot: Slot,
    pub(crate) rescue: bool,
    pub(crate) tries: String,
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
        ensure!(word("os.boot=")?.len() == 36, "the boot partition has no identifier: {arguments}");
        ensure!(word("os.slot=")? == word("rauc.slot=")?, "{arguments}");
        Ok(Self {
            slot: word("os.slot=")?.parse()?,
            rescue: arguments.contains("systemd.unit=os-rescue.target"),
            tries: word("os.tries=")?.to_owned(),
            arguments: arguments.clone(),
        })
    }
}

/// The machine, powered off.
pub(crate) struct Board {
    dir: PathBuf,
    disk: PathBuf,
    flash: PathBuf,
}

impl Board {
    /// Why there can be none on this host, if that is so.
    pub(crate) fn missing() -> Option<String> {
        let firmware = lab::tools_tree::root().join(FIRMWARE);
        let qemu = Command::new("qemu-system-aarch64").arg("--version").output();
        match (firmware.exists(), qemu) {
            (true, Ok(_)) => None,
            (false, _) => Some("no U-Boot for QEMU; sudo apt-get install u-boot-qemu".to_owned()),
            (_, Err(err)) => Some(format!("qemu-system-aarch64: {err}; sudo apt-get install qemu-system-arm")),
        }
    }

    /// One with our boot script and the counters of a new device.
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let board = Self { dir: dir.to_owned(), disk: dir.join("uboot.raw"), flash: dir.join("uboot.env") };
        board.make_disk()?;
        let _ = std::fs::remove_file(&board.flash);
        File::create(&board.flash)?.set_len(FLASH)?;
        let mut child = board.start(None)?;
        let typed = board.read_until(&mut child, &["Hit any key"]).and_then(|_| {
            let stdin = child.stdin.as_mut().context("no console")?;
            // The first key stops it; a line is read when its prompt is there.
            stdin.write_all(b" ")?;
            std::thread::sleep(Duration::from_millis(500));
            stdin.write_all(b"\n")?;
            stdin.write_all(SETTINGS.as_bytes())?;
            Ok(stdin.flush()?)
        });
        let saved = typed.and_then(|()| board.read_until(&mut child, &["OK\n", "OK\r\n"]));
        end(&mut child);
        saved.context("U-Boot does not save its environment")?;
        Ok(board)
    }

    fn make_disk(&self) -> Result<()> {
        let _ = std::fs::remove_file(&self.disk);
        File::create(&self.disk)?.set_len(64 << 20)?;
        let [table, source, script] = ["uboot.table", "boot.cmd", "boot.scr"].map(|name| self.dir.join(name));
        std::fs::write(&table, TABLE)?;
        std::fs::write(&source, SCRIPT)?;
        Cmd::new("sfdisk").arg("-q").arg(&self.disk).stdin(File::open(&table)?).run()?;
        Cmd::new("mkimage")
            .args(["-A", "arm64", "-T", "script", "-C", "none", "-n", "os", "-d"])
            .arg(&source)
            .arg(&script)
            .read()?;
        for (start, kib) in [(BOOT, "16384"), (KERNELS[0], "8192"), (KERNELS[1], "8192")] {
            let offset = format!("--offset={}", start / SECTOR);
            Cmd::new("mkfs.fat").arg(&offset).arg(&self.disk).arg(kib).run()?;
        }
        let boot = self.boot_partition();
        boot.write("boot.scr", &std::fs::read(&script)?)?;
        boot.make_dir("os")?;
        for (slot, start) in ["A", "B"].into_iter().zip(KERNELS) {
            let environment = format!("os_slot_args=os.roothash={slot} console=ttyAMA0 quiet\n");
            Fat::new(&self.disk, start).write("slot.env", environment.as_bytes())?;
        }
        for name in [counters::FILE, counters::COPY] {
            self.put(name, &counters::fresh())?;
        }
        Ok(())
    }

    fn boot_partition(&self) -> Fat {
        Fat::new(&self.disk, BOOT)
    }

    /// Replaces a file of the counters' directory.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.boot_partition().write(&format!("os/{name}"), bytes)
    }

    /// The counters' directory of a disk, as `os-boot` finds it below the boot partition that is returned.
    fn taken_from(&self, disk: &Path) -> Result<tempfile::TempDir> {
        let dir = tempfile::tempdir()?;
        std::fs::create_dir(dir.path().join("os"))?;
        for name in [counters::FILE, counters::COPY, arguments::FILE] {
            if let Ok(bytes) = Fat::new(disk, BOOT).read(&format!("os/{name}")) {
                std::fs::write(dir.path().join("os").join(name), bytes)?;
            }
        }
        Ok(dir)
    }

    pub(crate) fn counters(&self) -> Result<Counters> {
        let dir = self.taken_from(&self.disk)?;
        Ok(Loader::new(Bootloader::UBoot, dir.path()).counters()?)
    }

    /// Tells the bootloader something, as a device does.
    pub(crate) fn tell(&self, tell: impl FnOnce(&Loader) -> Result<(), CountersError>) -> Result<()> {
        let dir = self.taken_from(&self.disk)?;
        tell(&Loader::new(Bootloader::UBoot, dir.path()))?;
        for name in [counters::FILE, counters::COPY] {
            self.put(name, &std::fs::read(dir.path().join("os").join(name))?)?;
        }
        Ok(())
    }

    pub(crate) fn tell_arguments(&self, text: &str) -> Result<()> {
        let dir = self.taken_from(&self.disk)?;
        Loader::new(Bootloader::UBoot, dir.path()).set_arguments(text)?;
        self.put(arguments::FILE, &std::fs::read(dir.path().join("os").join(arguments::FILE))?)
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
        let said = self.read_until(&mut child, &["cannot be started"]);
        end(&mut child);
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
        let child = Command::new("qemu-system-aarch64")
            .args(["-M", "virt", "-cpu", "cortex-a53", "-m", "256", "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-serial", "stdio", "-no-reboot", "-drive"])
            .arg(format!("if=pflash,format=raw,unit=0,readonly=on,file={}", self.firmware()?.display()))
            .arg("-drive")
            .arg(format!("if=pflash,format=raw,unit=1,file={}", self.flash.display()))
            .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk,romfile="])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start qemu-system-aarch64")?;
        deadline::started(child.id());
        Ok(child)
    }

    /// U-Boot, in a flash as large as the machine's.
    fn firmware(&self) -> Result<PathBuf> {
        let path = self.dir.join("uboot.bin");
        if !path.exists() {
            std::fs::copy(lab::tools_tree::root().join(FIRMWARE), &path)?;
            File::options().write(true).open(&path)?.set_len(FLASH)?;
        }
        Ok(path)
    }

    /// Reads the console until it says one of these.
    fn read_until(&self, child: &mut Child, texts: &[&str]) -> Result<String> {
        let mut stdout = child.stdout.take().context("no console")?;
        let (mut said, mut buffer, start) = (String::new(), [0; 4096], Instant::now());
        let done = loop {
            let got = stdout.read(&mut buffer)?;
            said.push_str(&String::from_utf8_lossy(buffer.get(..got).unwrap_or_default()));
            if texts.iter().any(|text| said.contains(text)) {
                break Ok(said);
            }
            if got == 0 || start.elapsed() > LIMIT || deadline::passed() {
                let end = said.lines().rev().take(8).collect::<Vec<_>>();
                let end = end.into_iter().rev().collect::<Vec<_>>().join(" | ");
                break Err(anyhow::anyhow!("U-Boot did not say '{}'; its last lines: {end}", texts.join("' or '")));
            }
        };
        child.stdout = Some(stdout);
        done
    }

    /// One boot whose writes reach the medium up to each of them in turn, and in part; `look` is given the boot partition of each
    /// such disk, as a directory. Returns how many there were.
    pub(crate) fn cut_everywhere(&self, look: impl Fn(&Path) -> Result<()>) -> Result<usize> {
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
            let dir = self.taken_from(&cut)?;
            look(dir.path()).with_context(|| format!("the power was cut {what}"))
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
        if tried == 1 {
            bail!("nothing was written");
        }
        Ok(tried)
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
    deadline::ended(child.id());
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
