//! QEMU's arm64 machine as a board that this firmware starts: each start is a new QEMU, with the kernel of the partition that the
//! rules name.

use super::{Start, device_tree, flagged, start};
use crate::harness::deadline;
use crate::harness::fat::Fat;
use crate::harness::lab::Lab;
use anyhow::{Context, Result, bail, ensure};
use lab::arch::Arch;
use os_boot::tryboot;
use os_facts::{Role, Slot};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The board, powered off.
pub(crate) struct Board<'a> {
    lab: &'a Lab,
    /// First bytes of the partitions of the firmware, by number from 1.
    starts: [u64; 3],
    /// What the last restart has set.
    flag: bool,
}

impl<'a> Board<'a> {
    /// Why there can be none with this image, if that is so.
    pub(crate) fn missing(lab: &Lab) -> Option<String> {
        let is_ours = lab.artifacts.arch == Arch::Arm64 && lab.disk.fat.read(tryboot::FILE).is_ok();
        (!is_ours)
            .then(|| "the image is started otherwise (make image ARCH=arm64 OS_BOOTLOADER=rpi-tryboot)".to_owned())
    }

    pub(crate) fn new(lab: &'a Lab) -> Result<Self> {
        let start = |role: Role| Ok::<_, anyhow::Error>(lab.artifacts.part(&role.to_string())?.start);
        let starts = [start(Role::Boot)?, start(Role::Kernel(Slot::A))?, start(Role::Kernel(Slot::B))?];
        Ok(Self { lab, starts, flag: false })
    }

    fn file(&self, partition: u32, name: &str) -> Option<Vec<u8>> {
        let at = usize::try_from(partition).ok()?.checked_sub(1)?;
        Fat::new(&self.lab.disk.path, *self.starts.get(at)?).read(name).ok()
    }

    /// Starts the board, and again whenever it restarts, until `done`, when the power is cut; what the firmware has started, in
    /// order. `limit` is for each start.
    pub(crate) fn run(&mut self, limit: Duration, done: &impl Fn() -> Result<bool>) -> Result<Vec<Start>> {
        let mut all = Vec::new();
        loop {
            ensure!(all.len() < 12, "the board restarts again and again: {all:?}");
            let flag = std::mem::take(&mut self.flag);
            let began = start(&|partition, name| self.file(partition, name), flag);
            let began = began.context("the firmware finds nothing to start")?;
            println!("partition {}, tryboot {}", began.partition, began.tryboot);
            all.push(began.clone());
            let (mut child, console) = self.power_on(&began)?;
            let came = Self::wait(&mut child, limit, done);
            let _ = child.kill();
            let _ = child.wait();
            deadline::ended(child.id());
            let said = String::from_utf8_lossy(&std::fs::read(&console)?).into_owned();
            match came.with_context(|| format!("the console is {}", console.display()))? {
                true => return Ok(all),
                false => self.flag = flagged(&said),
            }
        }
    }

    /// True when it is done, false when the machine has ended.
    fn wait(child: &mut Child, limit: Duration, done: &impl Fn() -> Result<bool>) -> Result<bool> {
        let began = Instant::now();
        while began.elapsed() < limit {
            deadline::check()?;
            if child.try_wait()?.is_some() {
                return Ok(false);
            }
            if done()? {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_secs(2));
        }
        bail!("nothing came of a start in {} s", limit.as_secs())
    }

    fn power_on(&self, began: &Start) -> Result<(Child, PathBuf)> {
        let named = |name: Option<String>| {
            let name = name.context("config.txt names no file")?;
            self.file(began.partition, &name).with_context(|| format!("partition {} has no {name}", began.partition))
        };
        let [kernel, initramfs, tree, console] =
            ["kernel", "initramfs", "tree", "console"].map(|name| self.lab.dir.join(format!("board.{name}")));
        std::fs::write(&kernel, named(began.config.kernel())?)?;
        std::fs::write(&initramfs, named(began.config.initramfs())?)?;
        let arguments = String::from_utf8(named(began.config.cmdline())?)?;
        let _ = std::fs::remove_file(&tree);
        let dumped = self.machine(&format!("virt,dumpdtb={}", tree.display())).output().context("cannot start QEMU")?;
        ensure!(tree.exists(), "QEMU gives no device tree: {}", String::from_utf8_lossy(&dumped.stderr));
        let given = device_tree::with_bootloader(&std::fs::read(&tree)?, began.partition, began.tryboot)?;
        std::fs::write(&tree, given)?;
        let child = self
            .machine("virt")
            .args(["-no-reboot", "-serial", &format!("file:{}", console.display())])
            .arg("-kernel")
            .arg(&kernel)
            .arg("-initrd")
            .arg(&initramfs)
            .arg("-dtb")
            .arg(&tree)
            .args(["-append", arguments.trim()])
            .spawn()
            .context("cannot start QEMU")?;
        deadline::started(child.id());
        Ok((child, console))
    }

    fn machine(&self, machine: &str) -> Command {
        let drive = format!("if=none,id=disk,format=raw,cache=unsafe,file={}", self.lab.disk.path.display());
        let mut command = Command::new(lab::qemu::program(Arch::Arm64));
        command
            .args(["-machine", machine, "-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none"])
            .args(["-accel", "tcg,thread=multi", "-cpu", "cortex-a53", "-m", "1024", "-smp", "1"])
            .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk,romfile="])
            .args(["-device", "virtio-rng-pci", "-device", "i6300esb", "-action", "watchdog=reset"])
            .args(["-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile="])
            .stdin(Stdio::null());
        command
    }
}
