//! A TPM 2.0 in software (swtpm) for a machine; what it keeps outlives the machine.

use anyhow::{Context, Result};
use lab::arch::Arch;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Why a machine has none, if so.
pub(crate) fn missing(arch: Arch) -> Option<&'static str> {
    match arch {
        Arch::X86_64 => None,
        Arch::Arm64 | Arch::Armv7 => Some("Debian's kernel has no driver for the TPM of QEMU's ARM machine"),
    }
}

/// A running TPM.
#[derive(Debug)]
pub(crate) struct Tpm {
    child: Child,
    socket: PathBuf,
}

impl Tpm {
    /// Starts the TPM that keeps its state in `dir`, where the machine can have one.
    pub(crate) fn start(arch: Arch, dir: &Path) -> Result<Option<Self>> {
        if missing(arch).is_some() {
            return Ok(None);
        }
        std::fs::create_dir_all(dir)?;
        let socket = dir.join("socket");
        let _ = std::fs::remove_file(&socket);
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--tpmstate"])
            .arg(format!("dir={}", dir.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start swtpm; install it with: sudo apt-get install swtpm")?;
        let start = Instant::now();
        while !socket.exists() && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Some(Self { child, socket }))
    }

    /// Arguments for QEMU.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let text = format!(
            "-chardev socket,id=tpm,path={} -tpmdev emulator,id=tpm0,chardev=tpm -device tpm-crb,tpmdev=tpm0",
            self.socket.display()
        );
        text.split(' ').map(str::to_owned).collect()
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
