//! The Debian part of the image, as one tar archive.

use crate::image::{cross, with_list};
use crate::repo::{self, Repo};
use crate::step::{Inputs, Output, Steps};
use anyhow::{Context, Result};
use os_sys::cmd::Cmd;
use std::fs;

/// Debian release the lab is made from.
pub const SUITE: &str = "trixie";

/// Name of the step that fetches Debian.
pub const STEP: &str = "Debian packages";

/// The list of packages of every variant, in `lab/`.
pub const LIST: &str = "packages.txt";
/// The list of what the development variant has beside it.
pub const DEVELOPMENT: &str = "packages-development.txt";

/// Debian packages of a list, sorted.
///
/// # Errors
/// When the list cannot be read or has a line without a colon.
pub fn packages(repo: &Repo, list: &str) -> Result<Vec<String>> {
    let path = repo.data(list);
    let mut names = Vec::new();
    for line in repo::list(&path)? {
        let (debian, _) = line.split_once(':').with_context(|| format!("{}: no colon in: {line}", path.display()))?;
        let name = |name: &str| name.replace("@KERNEL@", repo.arch.kernel());
        names.extend(debian.split_ascii_whitespace().filter(|n| *n != "-").map(name));
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Makes `base.tar`. `OS_DEBIAN_MIRROR` names another mirror, or a file in sources.list format. Packages are kept in
/// `packages/` of the build directory and not fetched again.
///
/// # Errors
/// When mmdebstrap fails, mostly for want of network.
pub fn build(repo: &Repo, steps: &Steps) -> Result<Output> {
    let mirror = std::env::var("OS_DEBIAN_MIRROR").ok().filter(|m| !m.is_empty());
    let mut inputs = Inputs::new().text(SUITE).text(repo.arch.debian()).text(mirror.as_deref().unwrap_or(""));
    for hook in [DPKG, NO_INITRD, NO_INITRD_END, LEFT_OVER] {
        inputs = inputs.text(hook);
    }
    let inputs = with_list(with_list(inputs, repo, LIST)?, repo, DEVELOPMENT)?;
    let out = repo.lab().join("base");
    // One base serves every variant: its record must not lie with one of them.
    let identity = steps.kept_in(&repo.lab()).run(STEP, inputs, &out, |dir| {
        let cache = repo.build.canonicalize()?.join("packages");
        fs::create_dir_all(&cache)?;
        let cache = cache.to_str().filter(|path| !path.contains('\''));
        let cache = cache.with_context(|| format!("a path that mmdebstrap cannot take: {}", repo.build.display()))?;
        let mut cmd = Cmd::new("mmdebstrap")
            .args(["--variant=minbase", "--aptopt=APT::Install-Recommends \"false\""])
            .arg(format!("--include={}", [packages(repo, LIST)?, packages(repo, DEVELOPMENT)?].concat().join(",")))
            .args(cross::emulation(repo.arch))
            .arg(format!("--setup-hook={DPKG}"))
            // Packages that were fetched before. apt checks them.
            .arg("--setup-hook=mkdir -p \"$1/var/cache/apt/archives\"")
            .arg(format!("--setup-hook=sync-in '{cache}' /var/cache/apt/archives"))
            .arg("--setup-hook=ls \"$1/var/cache/apt/archives\" >\"$1/var/cache/apt/known\"")
            .arg("--skip=essential/unlink")
            .arg(format!("--essential-hook={NO_INITRD}"))
            .arg(format!("--customize-hook={NO_INITRD_END}"))
            .arg(format!("--customize-hook={NEW_PACKAGES}"))
            .arg(format!("--customize-hook=sync-out /var/cache/apt/new '{cache}'"))
            .arg(format!("--customize-hook={LEFT_OVER}"))
            .arg(SUITE)
            .arg(dir.join("base.tar"));
        if let Some(mirror) = &mirror {
            cmd = cmd.arg(mirror);
        }
        cmd.run().context(
            "mmdebstrap could not fetch or unpack Debian; check the network, or name a mirror in OS_DEBIAN_MIRROR",
        )
    })?;
    Ok(Output { path: out.join("base.tar"), identity })
}

/// What dpkg need not do: unpack documentation, and wait for the disk after each file of a tree that is thrown away when
/// something goes wrong. Not by `--dpkgopt`, for which mmdebstrap filters every essential package through a program of
/// its own: a sixth of the step's time. What these have of documentation is removed in the end.
const DPKG: &str = r#"mkdir -p "$1/etc/dpkg/dpkg.cfg.d" && printf '%s\n' force-unsafe-io \
    'path-exclude=/usr/share/man/*' 'path-exclude=/usr/share/doc/*' 'path-exclude=/usr/share/locale/*' \
    'path-exclude=/usr/share/info/*' >"$1/etc/dpkg/dpkg.cfg.d/lab""#;

/// The kernel's package would make an initramfs that nobody uses: nearly half of the step's time.
const NO_INITRD: &str = r#"chroot "$1" dpkg-divert --quiet --local --rename --add /usr/sbin/update-initramfs &&
    ln -s /bin/true "$1/usr/sbin/update-initramfs""#;

/// Puts things back as the packages have them.
const NO_INITRD_END: &str = r#"rm "$1/usr/sbin/update-initramfs" &&
    chroot "$1" dpkg-divert --quiet --local --rename --remove /usr/sbin/update-initramfs"#;

/// Gathers what was not in the cache.
const NEW_PACKAGES: &str = r#"cd "$1/var/cache/apt/archives" && mkdir ../new && for package in *.deb; do
    grep -qxF "$package" ../known || ln "$package" ../new/; done"#;

/// Removes what the archive need not have.
const LEFT_OVER: &str = r#"rm -r "$1/var/cache/apt/new" "$1/var/cache/apt/known" \
    "$1/usr/share/man" "$1/usr/share/doc" "$1/usr/share/locale" "$1/usr/share/info""#;
