//! QEMU's Raspberry Pi 3 with a flashed SD card: Debian's U-Boot for it, Linux' device tree, the serial console. It has no network.

use crate::harness::deadline;
use crate::harness::lab::Lab;
use crate::harness::vm::{read_console, tail};
use anyhow::{Context, Result, bail, ensure};
use lab::arch::Arch;
use lab::repo::Repo;
use lab::{qemu, tools_tree};
use os_sys::cmd::Cmd;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// U-Boot of Debian's package u-boot-rpi.
const FIRMWARE: &str = "usr/lib/u-boot/rpi_arm64/u-boot.bin";
/// Its device tree in Debian's kernel package.
const DEVICE_TREE: &str = "bcm2837-rpi-3-b.dtb";
/// QEMU takes SD cards whose size is a power of two; in bytes.
const CARD: u64 = 8 << 30;
/// What this machine takes beside the slot's arguments. With Linux' device tree the console is the second serial port. QEMU resets
/// the machine as soon as the watchdog's driver arms it, because its power management has no timer.
pub(crate) const ARGUMENTS: &str = "console=ttyS1,115200 module_blacklist=bcm2835_wdt";

/// The running machine; off when it is dropped.
pub(crate) struct Pi {
    child: Child,
    console: Arc<Mutex<String>>,
}

/// Why there can be none, if that is so.
pub(crate) fn missing() -> Option<String> {
    let firmware = tools_tree::root().join(FIRMWARE);
    (!firmware.exists()).then(|| format!("there is no {}; Debian's package u-boot-rpi has it", firmware.display()))
}

/// The device tree, from the packages that the image is made of.
fn device_tree(dir: &Path) -> Result<PathBuf> {
    let base = Repo::find()?.lab().join("base/base.tar");
    ensure!(base.exists(), "there is no {}, whose kernel has the device tree", base.display());
    Cmd::new("tar")
        .args(["--wildcards", "--strip-components=5", "-xf"])
        .arg(&base)
        .arg("-C")
        .arg(dir)
        .arg(format!("./usr/lib/linux-image-*/broadcom/{DEVICE_TREE}"))
        .run()?;
    Ok(dir.join(DEVICE_TREE))
}

impl Pi {
    /// Switches it on, with the disk of a chain in its slot.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        File::options().write(true).open(&lab.disk.path)?.set_len(CARD)?;
        let tree = device_tree(&lab.dir)?;
        let mut child = Command::new(qemu::program(Arch::Arm64))
            .args(["-M", "raspi3b", "-display", "none", "-no-reboot", "-serial", "null", "-serial", "stdio", "-kernel"])
            .arg(tools_tree::root().join(FIRMWARE))
            .arg("-dtb")
            .arg(tree)
            .arg("-drive")
            .arg(format!("if=sd,format=raw,cache=unsafe,file={}", lab.disk.path.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start qemu-system-aarch64")?;
        deadline::started(child.id());
        let console = Arc::new(Mutex::new(String::new()));
        let from = child.stdout.take().context("no console")?;
        let record = File::create(lab.dir.join("console.log"))?;
        std::thread::spawn({
            let console = Arc::clone(&console);
            move || read_console(from, &console, record)
        });
        Ok(Self { child, console })
    }

    fn said(&self) -> String {
        self.console.lock().map(|text| text.clone()).unwrap_or_default()
    }

    /// Waits until the console says something.
    pub(crate) fn wait(&mut self, text: &str, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while !self.said().contains(text) {
            deadline::check()?;
            if let Some(status) = self.child.try_wait()? {
                bail!("the machine ended ({status}); the end of its console: {}", tail(&self.said()));
            }
            ensure!(
                start.elapsed() < limit,
                "the console did not say '{text}' in {} s; its end: {}",
                limit.as_secs(),
                tail(&self.said())
            );
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    /// Types a command in the shell on the console, and returns what it prints.
    pub(crate) fn type_in(&mut self, command: &str, limit: Duration) -> Result<String> {
        let (begin, stdin) = (self.said().len(), self.child.stdin.as_mut().context("no console")?);
        // The echo of the line has not the sum in it.
        stdin.write_all(format!("{command}; echo end-of-$((6*7))\n").as_bytes())?;
        stdin.flush()?;
        let start = Instant::now();
        loop {
            let text = self.said().get(begin..).unwrap_or_default().to_owned();
            if let Some((output, _)) = text.split_once("end-of-42") {
                return Ok(output.to_owned());
            }
            deadline::check()?;
            ensure!(start.elapsed() < limit, "no answer to '{command}' in {} s: {text}", limit.as_secs());
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

impl Drop for Pi {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        deadline::ended(self.child.id());
    }
}
