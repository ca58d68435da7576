//! `lab unit`: the tests of the crates that run on devices, as programs of the image's architecture. QEMU runs them on another
//! one: 32-bit integers, other system calls, other C types.

use crate::image::cross;
use crate::repo::Repo;
use crate::tools_tree;
use anyhow::{Context, Result, ensure};
use std::os::fd::AsFd as _;

/// A test that needs the answer of execve(2) in the child of a vfork(2), which QEMU makes a fork(2).
const NOT_EMULATED: &str = "cmd::tests::missing_program_is_named";

/// Compiles and runs them.
///
/// # Errors
/// When one fails, or what makes such programs is missing.
pub fn run(repo: &Repo) -> Result<()> {
    cross::check(repo.arch)?;
    let tools = repo.root.join("tools");
    let mut crates = Vec::new();
    for entry in std::fs::read_dir(tools.join("device"))? {
        let dir = entry?;
        if dir.path().join("Cargo.toml").exists() {
            crates.push(dir.file_name().into_string().ok().context("a crate whose name is no text")?);
        }
    }
    crates.sort();
    ensure!(!crates.is_empty(), "{} has no crates", tools.join("device").display());
    let mut cargo = cross::cargo(repo.arch)
        .dir(&tools)
        .args(["test", "--quiet", "--locked", "--no-fail-fast"])
        .args(cross::target(repo.arch));
    if !repo.arch.is_native() {
        let qemu = tools_tree::root().join("usr/bin").join(format!("qemu-{}", repo.arch.qemu()));
        // Debian's cross compilers have the libraries there.
        let runner = format!("{} -L /usr/{}", qemu.display(), repo.arch.gnu());
        cargo = cargo.env(&cross::variable(repo.arch, "RUNNER"), runner);
    }
    for name in &crates {
        cargo = cargo.args(["--package", name]);
    }
    if !repo.arch.is_native() {
        cargo = cargo.args(["--", "--skip", NOT_EMULATED]);
        os_sys::say!("skipped: {NOT_EMULATED} (QEMU does not tell a program why another one cannot be started)");
    }
    // What failed, and why, is said there.
    let shown = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    cargo.stdout(shown).run().with_context(|| format!("the tests of the device's crates on {}", repo.arch.word()))
}
