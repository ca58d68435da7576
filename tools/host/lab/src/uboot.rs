//! U-Boot for QEMU's ARM machines, as Debian builds it, and its boot script.

use crate::arch::Arch;
use crate::{qemu, tools_tree};
use anyhow::{Context, Result, bail};
use os_sys::cmd::Cmd;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Size of the flash that it keeps its environment in, in bytes.
const FLASH: u64 = 64 << 20;
/// What is typed once and saved: only our script is looked for, at once. Without it, its EFI part would write a file of its own
/// to the boot partition. Boards have it in their configuration.
const SETTINGS: &str = "setenv bootmeths script; setenv bootdelay 0; saveenv\n";
/// How long it may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Where it is.
///
/// # Errors
/// When it is not installed, or U-Boot does not start such machines.
pub fn firmware(arch: Arch) -> Result<PathBuf> {
    // Directories of Debian's package u-boot-qemu.
    let path = match arch {
        Arch::Arm64 => "usr/lib/u-boot/qemu_arm64/u-boot.bin",
        Arch::Armv7 => "usr/lib/u-boot/qemu_arm/u-boot.bin",
        Arch::X86_64 => bail!("UEFI starts machines of {}, not U-Boot", arch.word()),
    };
    let path = tools_tree::root().join(path);
    if !path.exists() {
        bail!("no U-Boot for virtual machines ({}); install it with: sudo apt-get install u-boot-qemu", path.display());
    }
    Ok(path)
}

/// Makes the script that U-Boot runs of its text.
///
/// # Errors
/// When mkimage fails.
pub fn script(text: &Path, script: &Path) -> Result<()> {
    let made = Cmd::new("mkimage")
        .args(["-A", "arm64", "-T", "script", "-C", "none", "-n", "os", "-d"])
        .arg(text)
        .arg(script)
        .read();
    made.context("no boot script; install mkimage with: sudo apt-get install u-boot-tools")?;
    Ok(())
}

/// The machine with U-Boot and no disk, its environment in `flash`; the console is its standard input and output.
///
/// # Errors
/// When U-Boot is not installed.
pub fn machine(arch: Arch, flash: &Path) -> Result<Command> {
    let mut cmd = Command::new(qemu::program(arch));
    cmd.args(qemu::board(arch))
        .args(qemu::emulated(arch))
        .args(["-m", "256", "-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-serial", "stdio", "-no-reboot", "-bios"])
        .arg(firmware(arch)?)
        .arg("-drive")
        .arg(format!("if=pflash,format=raw,unit=1,file={}", flash.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    Ok(cmd)
}

/// Makes the flash with U-Boot's environment: U-Boot itself writes it.
///
/// # Errors
/// When U-Boot does not start or does not save it.
pub fn settings(arch: Arch, flash: &Path) -> Result<()> {
    let _ = std::fs::remove_file(flash);
    File::create(flash)?.set_len(FLASH)?;
    let mut child = machine(arch, flash)?
        .spawn()
        .context("cannot start qemu-system-aarch64; install it with: sudo apt-get install qemu-system-arm")?;
    let saved = read_until(&mut child, &["Hit any key"], LIMIT).and_then(|_| {
        let stdin = child.stdin.as_mut().context("no console")?;
        // The first key stops it; a line is read when its prompt is there.
        stdin.write_all(b" ")?;
        std::thread::sleep(Duration::from_millis(500));
        stdin.write_all(format!("\n{SETTINGS}").as_bytes())?;
        stdin.flush()?;
        read_until(&mut child, &["OK\n", "OK\r\n"], LIMIT)
    });
    let _ = child.kill();
    let _ = child.wait();
    saved.context("U-Boot does not save its environment")?;
    Ok(())
}

/// Reads a console until it says one of these.
///
/// # Errors
/// When it ends or time is up before.
pub fn read_until(child: &mut Child, texts: &[&str], limit: Duration) -> Result<String> {
    let stdout = child.stdout.as_mut().context("no console")?;
    let (mut said, mut buffer, start) = (String::new(), [0; 4096], Instant::now());
    loop {
        let got = stdout.read(&mut buffer)?;
        said.push_str(&String::from_utf8_lossy(buffer.get(..got).unwrap_or_default()));
        if texts.iter().any(|text| said.contains(text)) {
            return Ok(said);
        }
        if got == 0 || start.elapsed() > limit {
            let lines: Vec<_> = said.lines().collect();
            let end = lines.iter().skip(lines.len().saturating_sub(8)).copied().collect::<Vec<_>>().join(" | ");
            bail!("U-Boot did not say '{}'; its last lines: {end}", texts.join("' or '"));
        }
    }
}
