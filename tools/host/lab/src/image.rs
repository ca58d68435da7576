//! Builds the disk image of the lab lane: Debian's binary packages, our tools, our tree, our layout.
//!
//! - [`base`] is the Debian part, cached by its package list
//! - `cross` makes programs for another architecture than the host's
//! - [`compose`] makes the root tree of it (under fakeroot, in a process of its own)
//! - [`initramfs`] collects os-init and what it calls, [`modules`] knows the kernel's modules
//! - [`slot`] makes the two partition images of a slot, with verity
//! - [`boot`], [`data`], [`disk`] make the rest
//! - [`budget`] is how large the device binary may be
//! - [`keys`] are the keys of a developer's machine

pub mod base;
pub mod boot;
pub mod budget;
pub mod bundle;
pub mod compose;
pub(crate) mod cross;
pub mod data;
pub mod disk;
pub mod initramfs;
pub mod keys;
pub mod modules;
pub mod slot;
pub mod wishes;

use crate::image::wishes::Wishes;
use crate::repo::Repo;
use crate::step::{Inputs, Steps};
use crate::tools_tree;
use anyhow::{Context, Result, bail};
use os_sys::cmd::Cmd;
use std::path::{Path, PathBuf};
use std::thread::ScopedJoinHandle;
use std::time::Instant;

/// What to build.
#[derive(Debug, Clone)]
pub struct Options {
    /// `production`, `development` or `standalone`.
    pub variant: String,
    /// `config.json` for the boot partition; without it one with the developer's ssh key.
    pub config: Option<PathBuf>,
    /// Container archives (as `docker save` writes them) that come with the system.
    pub preload: Vec<PathBuf>,
}

/// Variants there are.
pub const VARIANTS: &[&str] = &["production", "development", "standalone"];

/// File in the lab's directory with the seconds of the last build that fetched Debian: a build from nothing.
pub const COLD_BUILD: &str = "cold-build-seconds";

/// Free space that a build from nothing needs, in bytes.
const NEEDED_SPACE: u64 = 6 << 30;

/// Builds the image and returns its path.
///
/// # Errors
/// When a step fails; everything that was finished before it stays and is not done again.
pub fn build(repo: &Repo, options: &Options) -> Result<PathBuf> {
    if !VARIANTS.contains(&options.variant.as_str()) {
        bail!("variant '{}'; there are {}", options.variant, VARIANTS.join(", "));
    }
    // Minutes of work end in no typing mistake.
    slot::preloads(&options.preload)?;
    if let Some(config) = &options.config {
        boot::check(config)?;
    }
    check_host(repo)?;
    cross::check(repo.arch)?;
    let start = Instant::now();
    let lab = repo.lab();
    let steps = Steps::new(&lab.join(&options.variant));
    let machine = repo.arch.machine();
    os_sys::say!("Building the {} image for {machine} in {}", options.variant, repo.build.display());
    let vars = repo.vars()?;
    let keys = keys::ensure(repo)?;
    // What does not need one another is made side by side: cargo compiles while Debian is fetched and unpacked.
    let (tools, base, boot, data) = std::thread::scope(|scope| {
        let tools = scope.spawn(|| {
            let tools = build_tools(repo, &steps, "lab")?;
            budget::check(&tools.join(BINARY), budget::LAB)?;
            Ok(tools)
        });
        let boot = scope.spawn(|| boot::build(repo, &vars, options, &keys, &steps));
        let debian = base::build(repo, &steps).and_then(|base| {
            let data = data::build(repo, &vars, options, &base, &steps)?;
            Ok((base, data))
        });
        let (tools, boot) = (joined(tools), joined(boot));
        let (base, data) = debian?;
        anyhow::Ok((tools?, base, boot?, data))
    })?;
    let slot = slot::build(repo, &vars, options, &keys, &tools, &base, &steps)?;
    let image = disk::build(repo, &vars, options, &disk::Parts { slot, boot, data }, &steps)?;
    Wishes::now(repo, options).save(repo, &options.variant)?;
    if steps.did(base::STEP) {
        std::fs::write(lab.join(COLD_BUILD), start.elapsed().as_secs().to_string())?;
    }
    let meta = std::fs::metadata(&image)?;
    os_sys::say!(
        "{}\n  {} MiB, {} MiB of them on disk, in {:.1} s",
        image.display(),
        meta.len() >> 20,
        (std::os::unix::fs::MetadataExt::blocks(&meta) * 512) >> 20,
        start.elapsed().as_secs_f64()
    );
    Ok(image)
}

fn check_host(repo: &Repo) -> Result<()> {
    const TOOLS: &[(&str, &str)] = &[
        ("mmdebstrap", "mmdebstrap"),
        ("mkfs.erofs", "erofs-utils"),
        ("veritysetup", "cryptsetup-bin"),
        ("mke2fs", "e2fsprogs"),
        ("mkfs.vfat", "dosfstools"),
        ("mcopy", "mtools"),
        ("grub-mkimage", "grub-common"),
        ("cpio", "cpio"),
        ("lz4", "lz4"),
        ("depmod", "kmod"),
        ("xz", "xz-utils"),
        ("systemctl", "systemd"),
        ("openssl", "openssl"),
        ("ssh-keygen", "openssh-client"),
        ("fakeroot", "fakeroot"),
        ("make", "make"),
    ];
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let missing: Vec<&str> = TOOLS
        .iter()
        .filter(|(tool, _)| !path.split(':').any(|dir| Path::new(dir).join(tool).exists()))
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        bail!(
            "programs are missing; install them with: sudo apt-get install {}{}",
            missing.join(" "),
            if tools_tree::in_use() { "" } else { " (the tools tree has most of them: leave out --host-tools)" }
        );
    }
    std::fs::create_dir_all(&repo.build).with_context(|| format!("cannot create {}", repo.build.display()))?;
    let stat = rustix::fs::statvfs(&repo.build)?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < NEEDED_SPACE && !repo.lab().exists() {
        bail!(
            "{} has {} MiB free and a build takes up to {} MiB; free some, or set OS_BUILD_DIR to another disk",
            repo.build.display(),
            free >> 20,
            NEEDED_SPACE >> 20
        );
    }
    Ok(())
}

/// A program that must see files owned by root: run as it is by root, under fakeroot by anybody else.
pub fn as_root(program: impl AsRef<std::ffi::OsStr>) -> Cmd {
    if rustix::process::geteuid().is_root() { Cmd::new(program) } else { Cmd::new("fakeroot").arg("--").arg(program) }
}

/// What a thread came to.
fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| bail!("a step panicked; what it said stands above"))
}

/// File name of the device binary.
const BINARY: &str = "os-tools";

/// Builds the device binary as it ships, and compares its size with what it may have.
///
/// # Errors
/// When it does not build, or is larger than its budget.
pub fn size(repo: &Repo) -> Result<()> {
    let tools = build_tools(repo, &Steps::new(&repo.lab()), "release")?;
    let size = budget::check(&tools.join(BINARY), budget::SHIPPED)?;
    os_sys::say!("{BINARY}: {size} bytes, of {} that it may have", budget::SHIPPED);
    Ok(())
}

/// Builds the device binary with a profile of `tools/Cargo.toml`, and returns its directory; cargo decides what is out of
/// date.
fn build_tools(repo: &Repo, steps: &Steps, profile: &str) -> Result<PathBuf> {
    let dir = repo.root.join("tools");
    steps.always("tools (cargo)", || {
        cross::cargo(repo.arch)
            .dir(&dir)
            .args(["build", "--quiet", "--locked", "--profile", profile, "--package", BINARY])
            .args(cross::target(repo.arch))
            .run()
            .context("cannot build the tools")
    })?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| dir.join("target"), PathBuf::from);
    Ok(target.join(cross::output(repo.arch)).join(profile))
}

/// Adds a list file to the inputs of a step.
fn with_list(inputs: Inputs, repo: &Repo, name: &str) -> Result<Inputs> {
    inputs.path(&repo.data(name))
}
