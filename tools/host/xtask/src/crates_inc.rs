//! Writes what the Yocto recipe takes of `Cargo.lock`: the part of it that the device needs, and its list of crates.
//!
//! The recipe is given `tools/device` alone, so that no test and no program of the workstation is a reason to build the
//! device binary again. There the workspace has fewer members, and cargo would refuse a lock file with more. BitBake's crate
//! fetcher wants every crate as `crate://crates.io/NAME/VERSION` with its checksum; cargo then builds from them without network.
//! Both are committed, and a check compares them with the lock file.

use anyhow::{Context, Result, bail};
use lab::repo::Repo;
use os_sys::cmd::Cmd;
use os_sys::files;
use std::path::Path;
use std::process::ExitCode;

/// Writes both, or compares them with what is committed.
///
/// # Errors
/// When the lock file cannot be cut, or one of them not be written.
pub fn run(repo: &Repo, check: bool) -> Result<ExitCode> {
    let tools = repo.root.join("tools");
    let lock = device_lock(&tools)?;
    let list = generate(&lock)?;
    let files = [
        (tools.join("device/Cargo.lock"), lock),
        (repo.meta_os().join("recipes-core/os-tools/os-tools-crates.inc"), list),
    ];
    for (path, text) in &files {
        if !check {
            files::write_if_changed(path, text.as_bytes(), 0o644)?;
        } else if std::fs::read_to_string(path).unwrap_or_default() != *text {
            eprintln!("xtask: {} is out of date; run: xtask crates", path.display());
            return Ok(ExitCode::from(1));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The lock file of the device's crates, from that of the whole workspace in `tools`; cargo leaves out what nothing asks for.
///
/// # Errors
/// When cargo is not there, or the lock file does not hold what the crates ask for.
fn device_lock(tools: &Path) -> Result<String> {
    let dir = tempfile::tempdir()?;
    for name in ["Cargo.toml", "Cargo.lock"] {
        std::fs::copy(tools.join(name), dir.path().join(name)).with_context(|| format!("cannot read tools/{name}"))?;
    }
    std::os::unix::fs::symlink(tools.join("device").canonicalize()?, dir.path().join("device"))?;
    Cmd::new("cargo")
        .args(["metadata", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(dir.path().join("Cargo.toml"))
        .run()?;
    Ok(files::read_text(&dir.path().join("Cargo.lock"))?)
}

/// Makes the text of the include file from the text of `Cargo.lock` (version 4).
///
/// # Errors
/// When a package has a source other than crates.io, or no checksum: the fetcher could not verify it.
fn generate(lock: &str) -> Result<String> {
    let mut crates = Vec::new();
    for block in lock.split("[[package]]").skip(1) {
        let field =
            |name: &str| block.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"'));
        let name = field("name").context("Cargo.lock: a package without a name")?;
        let version = field("version").with_context(|| format!("Cargo.lock: {name} without a version"))?;
        // Our own crates have no source.
        let Some(source) = field("source") else { continue };
        if !source.starts_with("registry+") {
            bail!("Cargo.lock: {name} comes from {source}; only crates from crates.io can be built offline");
        }
        let sum = field("checksum").with_context(|| format!("Cargo.lock: {name} {version} without a checksum"))?;
        crates.push((name, version, sum));
    }
    if crates.is_empty() {
        bail!("Cargo.lock names no crate");
    }
    let mut out =
        String::from("# Made from tools/device/Cargo.lock by 'xtask crates'; do not edit.\n\nSRC_URI += \"\\\n");
    for (name, version, _) in &crates {
        out.push_str(&format!("    crate://crates.io/{name}/{version} \\\n"));
    }
    out.push_str("\"\n\n");
    for (name, version, sum) in &crates {
        out.push_str(&format!("SRC_URI[{name}-{version}.sha256sum] = \"{sum}\"\n"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_with_checksums_are_listed_and_ours_are_not() {
        let lock = "version = 4\n\n[[package]]\nname = \"os-sys\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"anyhow\"\n\
                    version = \"1.0.1\"\nsource = \"registry+https://x\"\nchecksum = \"ab\"\ndependencies = [\n \"x\",\n]\n";
        let text = generate(lock).unwrap();
        assert!(text.contains("    crate://crates.io/anyhow/1.0.1 \\\n"), "{text}");
        assert!(text.contains("SRC_URI[anyhow-1.0.1.sha256sum] = \"ab\"\n") && !text.contains("os-sys"));
    }

    #[test]
    fn what_cannot_be_verified_is_refused() {
        assert!(generate("[[package]]\nname = \"a\"\nversion = \"1\"\nsource = \"git+https://x\"\n").is_err());
        assert!(generate("[[package]]\nname = \"a\"\nversion = \"1\"\nsource = \"registry+x\"\n").is_err());
        assert!(generate("").is_err());
    }
}
