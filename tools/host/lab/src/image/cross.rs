//! Programs for another architecture than this host's: cargo with a cross linker, and Debian's packages unpacked under emulation.

use crate::arch::Arch;
use crate::tools_tree;
use anyhow::{Result, bail};
use os_sys::cmd::Cmd;
use std::path::Path;

/// Where the kernel lists the emulators that it starts for foreign programs.
const EMULATORS: &str = "/proc/sys/fs/binfmt_misc";

/// cargo, with the linker for an architecture.
pub(crate) fn cargo(arch: Arch) -> Cmd {
    let cargo = Cmd::new("cargo");
    if arch.is_native() {
        return cargo;
    }
    cargo.env(&variable(arch, "LINKER"), linker(arch))
}

/// cargo's variable for programs of an architecture.
pub(crate) fn variable(arch: Arch, what: &str) -> String {
    format!("CARGO_TARGET_{}_{what}", arch.target().replace('-', "_").to_uppercase())
}

/// cargo's arguments for an architecture.
pub(crate) fn target(arch: Arch) -> Vec<&'static str> {
    if arch.is_native() { Vec::new() } else { vec!["--target", arch.target()] }
}

/// Where cargo puts what it makes, below its own directory.
pub(crate) fn output(arch: Arch) -> &'static str {
    if arch.is_native() { "" } else { arch.target() }
}

fn linker(arch: Arch) -> String {
    format!("{}-gcc", arch.gnu())
}

/// Says what is missing to make programs for an architecture.
///
/// # Errors
/// When something is.
pub(crate) fn check(arch: Arch) -> Result<()> {
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
pub(crate) fn emulation(arch: Arch) -> Vec<String> {
    if arch.is_native() {
        return Vec::new();
    }
    let mut arguments = vec![format!("--architectures={}", arch.debian())];
    let name = format!("qemu-{}", arch.qemu());
    if Path::new(EMULATORS).join(&name).exists() {
        return arguments;
    }
    let qemu = tools_tree::root().join("usr/bin").join(&name);
    // Header of the architecture's programs, and which of its bits count (elf(5): class, byte order, type, machine). F: the
    // kernel opens QEMU now, so that it need not be in the new system.
    let (class, machine) = arch.elf();
    let magic = format!(r"\x7fELF\x{class:02x}\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x{machine:02x}\x00");
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
