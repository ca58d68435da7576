//! Starts virtual machines with an image: one disk, a watchdog, and UEFI or U-Boot.

use crate::arch::Arch;
use crate::repo::Repo;
use crate::{tools_tree, uboot};
use anyhow::{Context, Result, bail};
use os_sys::cmd::Cmd;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How the processor is emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// Hardware virtualisation; chosen only after it booted this very kernel.
    Kvm,
    /// Software.
    Tcg,
}

impl Accel {
    /// Processors that a machine should have. QEMU's software emulation with more than one loses a race with kernels
    /// that patch their own code, once in some 25 boots: one processor translates an instruction again between the
    /// moment another one declares it changed and the moment it changes, runs into a breakpoint that is long gone, and
    /// the kernel oopses. Seen with 7.2, and with 10.0 too: with two processors and a kernel that is made to patch itself
    /// (writing `sched_schedstats` in a loop) "int3" oopses came after some 600 turns.
    pub fn processors(self) -> u32 {
        match self {
            Self::Kvm => 2,
            Self::Tcg => 1,
        }
    }
}

/// How long the kernel may take to answer under KVM before KVM counts as broken.
const PROBE_LIMIT: Duration = Duration::from_secs(20);

/// A machine to be.
#[derive(Debug, Clone)]
pub struct Machine {
    /// What it is.
    pub arch: Arch,
    /// Disk.
    pub disk: PathBuf,
    /// Form of the disk: `qcow2` or `raw`.
    pub format: &'static str,
    /// The machine's own copy of what its firmware keeps ([`firmware_vars`]).
    pub firmware_vars: PathBuf,
    /// Memory in MiB.
    pub memory: u32,
    /// Processors.
    pub cpus: u32,
    /// Ports of the host that lead into the guest (host, guest), all on 127.0.0.1.
    pub forwards: Vec<(u16, u16)>,
    /// No way out for the guest except the forwards.
    pub isolated: bool,
    /// Services that the guest finds although it is isolated: address and port there, and the program that QEMU starts
    /// for every connection and talks to over its standard input and output.
    pub services: Vec<(String, String)>,
    /// What the guest flushes goes to the medium. Without, it stays in the host's page cache, which outlives QEMU and the
    /// guest but not the host.
    pub sync: bool,
    /// Where to keep a log of every write to the disk, in the form of dm-log-writes.
    pub trace: Option<PathBuf>,
    /// How to emulate.
    pub accel: Accel,
    /// Further arguments.
    pub extra: Vec<String>,
}

impl Machine {
    fn drive(&self) -> String {
        let disk = self.disk.display();
        match &self.trace {
            None => {
                let cache = if self.sync { "writeback" } else { "unsafe" };
                format!("if=none,id=disk,discard=unmap,cache={cache},format={},file={disk}", self.format)
            }
            // The log has to hear of every flush; what is below it need not.
            Some(log) => format!(
                "if=none,id=disk,discard=unmap,driver=blklogwrites,log-sector-size=512,log.driver=file,log.filename={},\
                 log.cache.no-flush={no_flush},file.driver={},file.cache.no-flush={no_flush},file.file.driver=file,\
                 file.file.filename={disk},file.file.cache.no-flush={no_flush}",
                log.display(),
                self.format,
                no_flush = if self.sync { "off" } else { "on" },
            ),
        }
    }

    /// The command line, without console.
    ///
    /// # Errors
    /// When the firmware is not installed.
    pub fn command(&self) -> Result<Command> {
        let mut cmd = Command::new(program(self.arch));
        cmd.args(board(self.arch)).args(match self.accel {
            Accel::Kvm => &["-accel", "kvm", "-cpu", "host"],
            Accel::Tcg => emulated(self.arch),
        });
        cmd.args(["-nodefaults", "-no-user-config", "-vga", "none"]).args([
            "-m",
            &self.memory.to_string(),
            "-smp",
            &self.cpus.to_string(),
        ]);
        match self.arch {
            Arch::X86_64 => {
                let code = format!("if=pflash,format=raw,unit=0,readonly=on,file={}", uefi()?.0.display());
                cmd.arg("-drive").arg(code)
            }
            Arch::Arm64 | Arch::Armv7 => cmd.arg("-bios").arg(uboot::firmware(self.arch)?),
        };
        cmd.arg("-drive")
            .arg(format!("if=pflash,format=raw,unit=1,file={}", self.firmware_vars.display()))
            .arg("-drive")
            .arg(self.drive())
            .args(["-device", "virtio-blk-pci,drive=disk,bootindex=1"])
            .args(["-device", "virtio-rng-pci", "-device", "i6300esb", "-action", "watchdog=reset"]);
        let mut net = "user,id=net".to_owned();
        if self.isolated {
            net.push_str(",restrict=on");
        }
        for (host, guest) in &self.forwards {
            net.push_str(&format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}"));
        }
        for (address, program) in &self.services {
            net.push_str(&format!(",guestfwd=tcp:{address}-cmd:{program}"));
        }
        cmd.args(["-netdev", &net, "-device", "virtio-net-pci,netdev=net,romfile="]);
        cmd.args(&self.extra);
        Ok(cmd)
    }
}

/// The machine.
pub fn board(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::X86_64 => &["-machine", "q35"],
        // U-Boot hands a device tree over, and with ACPI the power button is not in it.
        Arch::Arm64 => &["-machine", "virt,acpi=off"],
        // Debian's kernel has no LPAE: it reaches nothing above 4 GiB.
        Arch::Armv7 => &["-machine", "virt,highmem=off"],
    }
}

/// Its processor in software.
pub fn emulated(arch: Arch) -> &'static [&'static str] {
    match arch {
        // Without the first two "off" QEMU 7.2 makes 6.12 kernels oops at random; 10.0 did not in six boots with
        // cx16, three of them with la57 too, which is no proof, and they cost nothing measurable. Without the others the kernel
        // clears and copies memory by single bytes, which is fast on hardware alone: one sample in sixteen of a boot.
        Arch::X86_64 => &["-accel", "tcg,thread=multi", "-cpu", "max,cx16=off,la57=off,erms=off,fsrm=off"],
        Arch::Arm64 => &["-accel", "tcg,thread=multi", "-cpu", "cortex-a53"],
        Arch::Armv7 => &["-accel", "tcg,thread=multi", "-cpu", "cortex-a15"],
    }
}

/// QEMU for an architecture.
pub fn program(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "qemu-system-x86_64",
        // It has the 32-bit machines, too.
        Arch::Arm64 | Arch::Armv7 => "qemu-system-aarch64",
    }
}

/// The firmware of a machine.
///
/// # Errors
/// When it is not installed.
pub fn firmware(arch: Arch) -> Result<PathBuf> {
    match arch {
        Arch::X86_64 => Ok(uefi()?.0),
        Arch::Arm64 | Arch::Armv7 => uboot::firmware(arch),
    }
}

/// Makes what the firmware of a new machine keeps: UEFI its variables, U-Boot its environment.
///
/// # Errors
/// When the firmware is not installed, or does not start.
pub fn firmware_vars(arch: Arch, path: &Path) -> Result<()> {
    match arch {
        Arch::X86_64 => {
            std::fs::copy(uefi()?.1, path).map(drop).with_context(|| format!("cannot write {}", path.display()))
        }
        Arch::Arm64 | Arch::Armv7 => uboot::settings(arch, path),
    }
}

/// UEFI's image and the template of its variables.
fn uefi() -> Result<(PathBuf, PathBuf)> {
    let dir = tools_tree::root().join("usr/share/OVMF");
    for (code, vars) in [("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"), ("OVMF_CODE.fd", "OVMF_VARS.fd")] {
        let (code, vars) = (dir.join(code), dir.join(vars));
        if code.exists() && vars.exists() {
            return Ok((code, vars));
        }
    }
    bail!("no UEFI firmware for virtual machines in {}; install it with: sudo apt-get install ovmf", dir.display())
}

/// Tells an image from the one that was there before: a build writes a new file.
///
/// # Errors
/// When there is none.
pub fn identity(image: &Path) -> Result<String> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = image.metadata().with_context(|| format!("there is no {}; make image builds it", image.display()))?;
    Ok(format!("{} {}.{:09} {}\n", meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

/// Makes a disk that starts as `image` and keeps its changes in `disk`, `size` bytes large.
///
/// # Errors
/// When qemu-img fails.
pub fn overlay(image: &Path, disk: &Path, size: u64) -> Result<()> {
    let image =
        image.canonicalize().with_context(|| format!("there is no {}; make image builds it", image.display()))?;
    Ok(Cmd::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .arg(&image)
        .arg(disk)
        .arg(size.to_string())
        .run()?)
}

/// KVM if it boots our kernel, else TCG. The answer is kept for this boot of the host.
///
/// # Errors
/// When there is no built slot to probe with.
pub fn accel(repo: &Repo, variant: &str) -> Result<Accel> {
    // The kernel is probed on a PC only.
    if !Path::new("/dev/kvm").exists() || !repo.arch.is_native() || repo.arch != Arch::X86_64 {
        return Ok(Accel::Tcg);
    }
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let record = repo.lab().join("kvm-probe");
    if let Ok(text) = std::fs::read_to_string(&record)
        && let Some(answer) = text.strip_prefix(&boot_id)
    {
        return Ok(if answer == "kvm" { Accel::Kvm } else { Accel::Tcg });
    }
    let slot = repo.lab().join(variant).join("slot");
    let works = kvm_boots(&slot.join("vmlinuz"), &slot.join("initramfs"))?;
    std::fs::write(&record, format!("{boot_id}{}", if works { "kvm" } else { "tcg" }))?;
    Ok(if works { Accel::Kvm } else { Accel::Tcg })
}

/// Boots the kernel under KVM until os-init answers: /dev/kvm exists on many hosts where stock kernels do not run.
///
/// # Errors
/// When QEMU cannot be started.
pub fn kvm_boots(kernel: &Path, initramfs: &Path) -> Result<bool> {
    let mut child = Command::new("qemu-system-x86_64")
        .args(["-machine", "q35", "-nodefaults", "-display", "none", "-vga", "none", "-no-reboot", "-m", "512"])
        .args(["-accel", "kvm", "-cpu", "host", "-serial", "stdio", "-kernel"])
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 panic=-1 os.probe"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start qemu-system-x86_64; install it with: sudo apt-get install qemu-system-x86")?;
    let mut stdout = child.stdout.take().context("no output from QEMU")?;
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(got @ 1..) = stdout.read(&mut buffer) {
            text.extend_from_slice(buffer.get(..got).unwrap_or_default());
            if text.windows(8).any(|w| w == b"probe ok") {
                let _ = send.send(());
                return;
            }
        }
    });
    let start = Instant::now();
    let mut works = false;
    while start.elapsed() < PROBE_LIMIT && !works {
        match receive.recv_timeout(Duration::from_millis(200)) {
            Ok(()) => works = true,
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    Ok(works)
}
