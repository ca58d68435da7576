//! Programs for another architecture than this host's: cargo with a cross linker, and Debian's packages unpacked under emulation.

use crate::arch::Arch;
use crate::tools_tree;
use anyhow::{Result, bail};
use os_sys::cmd::Cmd;
use std::path::Path;

/// Where the kernel lists the emulators that it starts for foreign programs.
const EMULATORS: &str = "/proc/sys/fs/binfmt_misc";

/// cargo, with the linker for an architecture.
pub(super) fn cargo(arch: Arch) -> Cmd {
    let cargo = Cmd::new("cargo");
    if arch.is_native() {
        return cargo;
    }
    let name = arch.target().replace('-', "_").to_uppercase();
    cargo.env(&format!("CARGO_TARGET_{name}_LINKER"), linker(arch))
}

/// cargo's arguments for an architecture.
pub(super) fn target(arch: Arch) -> Vec<&'static str> {
    if arch.is_native() { Vec::new() } else { vec!["--target", arch.target()] }
}

/// Where cargo puts what it makes, below its own directory.
pub(super) fn output(arch: Arch) -> &'static str {
    if arch.is_native() { "" } else { arch.target() }
}

fn linker(arch: Arch) -> String {
    format!("{}-gcc", arch.gnu())
}

/// Says what is missing to make programs for an architecture.
///
/// # Errors
/// When something is.
pub(super) fn check(arch: Arch) -> Result<()> {
    if arch.is_native() {
        return Ok(());
    }
    let libraries = Cmd::new("rustc").args(["--print", "target-libdir", "--target", arch.target()]).read();
    if !libraries.is_ok_and(|dir| Path::new(dir.trim()).is_dir()) {
        bail!("Rust's standard library for {} is missing; add it with: rustup target add {0}", arch.target());
    }
    if Cmd::new(linker(arch)).arg("--version").read().is_err() {
        bail!(
            "the linker for {} is missing; install it with: sudo apt-get install gcc-{} libc6-dev-{}-cross",
            arch.word(),
            arch.gnu(),
            arch.debian()
        );
    }
    Ok(())
}

/// mmdebstrap's arguments for an architecture. The programs of its packages are run by QEMU: the host's, if it is registered, or
/// that of the tools tree, registered in the namespace of this one call (Linux 6.7; Documentation/admin-guide/binfmt-misc.rst).
pub(super) fn emulation(arch: Arch) -> Vec<String> {
    if arch.is_native() {
        return Vec::new();
    }
    let mut arguments = vec![format!("--architectures={}", arch.debian())];
    let name = format!("qemu-{}", arch.qemu());
    if Path::new(EMULATORS).join(&name).exists() {
        return arguments;
    }
    let qemu = tools_tree::root().join("usr/bin").join(&name);
    // Header of the architecture's programs, and which of its bits count. F: the kernel opens QEMU now, so that it need not be
    // in the new system.
    let magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
    let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
    arguments.extend([
        "--mode=unshare".to_owned(),
        "--skip=check/qemu".to_owned(),
        format!(
            "--setup-hook=mount -t binfmt_misc binfmt_misc {EMULATORS} && \
             printf '%s' ':{name}:M::{magic}:{mask}:{}:OCF' >{EMULATORS}/register",
            qemu.display()
        ),
    ]);
    arguments
}
