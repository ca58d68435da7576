//! The Debian part of the image, as one tar archive.

use crate::lab::with_list;
use crate::repo::{self, Repo};
use crate::step::{Inputs, Output, Steps};
use anyhow::{Context, Result};
use os_sys::cmd::Cmd;

/// Debian release the lab is made from.
pub const SUITE: &str = "trixie";

/// Name of the step that fetches Debian.
pub const STEP: &str = "Debian packages";

/// Debian packages of the list, sorted.
///
/// # Errors
/// When the list cannot be read or has a line without a colon.
pub fn packages(repo: &Repo) -> Result<Vec<String>> {
    let path = repo.root.join("tools/osctl/lab/packages.txt");
    let mut names = Vec::new();
    for line in repo::list(&path)? {
        let (debian, _) = line.split_once(':').with_context(|| format!("{}: no colon in: {line}", path.display()))?;
        names.extend(debian.split_ascii_whitespace().filter(|n| *n != "-").map(str::to_owned));
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Makes `base.tar`. `OS_DEBIAN_MIRROR` names another mirror, or a file in sources.list format.
///
/// # Errors
/// When mmdebstrap fails, mostly for want of network.
pub fn build(repo: &Repo, steps: &mut Steps) -> Result<Output> {
    let mirror = std::env::var("OS_DEBIAN_MIRROR").ok().filter(|m| !m.is_empty());
    let inputs = with_list(Inputs::new().text(SUITE).text(mirror.as_deref().unwrap_or("")), repo, "packages.txt")?;
    let out = repo.lab().join("base");
    // One base serves every variant: its record must not lie with one of them.
    let mut shared = Steps::new(&repo.lab());
    let identity = shared.run(STEP, inputs, &out, |dir| {
        let mut cmd = Cmd::new("mmdebstrap")
            .args(["--variant=minbase", "--aptopt=APT::Install-Recommends \"false\""])
            .arg(format!("--include={}", packages(repo)?.join(",")));
        for excluded in ["man", "doc", "locale", "info"] {
            cmd = cmd.arg(format!("--dpkgopt=path-exclude=/usr/share/{excluded}/*"));
        }
        // The kernel package would make an initramfs that nobody uses.
        cmd = cmd.arg("--essential-hook=mkdir -p \"$1/etc/kernel/postinst.d\"");
        cmd = cmd.arg(SUITE).arg(dir.join("base.tar"));
        if let Some(mirror) = &mirror {
            cmd = cmd.arg(mirror);
        }
        cmd.run().context(
            "mmdebstrap could not fetch or unpack Debian; check the network, or name a mirror in OS_DEBIAN_MIRROR",
        )
    })?;
    steps.times.append(&mut shared.times);
    Ok(Output { path: out.join("base.tar"), identity })
}
