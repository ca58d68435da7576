//! Writes what a Yocto recipe takes of `Cargo.lock`: the part of it that its crates need, and the list of those of others.
//!
//! A recipe is given its own crates alone, so that no test and no other program is a reason to build it again. There the
//! workspace has fewer members, and cargo would refuse a lock file with more. BitBake's crate fetcher wants every crate as
//! `crate://crates.io/NAME/VERSION` with its checksum; cargo then builds from them without network. Both are committed, and a
//! check compares them with the lock file.

use anyhow::{Context, Result, bail};
use lab::repo::Repo;
use os_sys::cmd::Cmd;
use os_sys::files;
use std::path::Path;
use std::process::ExitCode;

/// A recipe that builds a part of the workspace.
pub struct Recipe {
    /// The file that says what the recipe is given, below the checkout as everything here.
    pub recipe: &'static str,
    /// The crates that it is given, or rooms full of them: paths below `tools/`.
    pub sources: &'static [&'static str],
    lock: &'static str,
    list: &'static str,
}

/// Every recipe that builds something of the workspace.
pub const RECIPES: [Recipe; 2] = [
    Recipe {
        recipe: "meta-os/recipes-core/os-tools/os-tools-source.inc",
        sources: &["device"],
        lock: "tools/device/Cargo.lock",
        list: "meta-os/recipes-core/os-tools/os-tools-crates.inc",
    },
    Recipe {
        recipe: "meta-os/recipes-devtools/os-slotmake/os-slotmake-native.bb",
        sources: &["device/os-sys", "host/slotmake"],
        lock: "meta-os/recipes-devtools/os-slotmake/files/Cargo.lock",
        list: "meta-os/recipes-devtools/os-slotmake/os-slotmake-crates.inc",
    },
];

/// Writes lock files and lists, or compares them with what is committed.
///
/// # Errors
/// When the lock file cannot be cut, or something cannot be written.
pub fn run(repo: &Repo, check: bool) -> Result<ExitCode> {
    for recipe in &RECIPES {
        let lock = lock(&repo.root.join("tools"), recipe.sources)?;
        let list = generate(&lock, recipe.lock)?;
        for (path, text) in [(recipe.lock, lock), (recipe.list, list)] {
            let full = repo.root.join(path);
            if !check {
                files::write_if_changed(&full, text.as_bytes(), 0o644)?;
            } else if std::fs::read_to_string(&full).unwrap_or_default() != text {
                eprintln!("xtask: {path} is out of date; run: xtask crates");
                return Ok(ExitCode::from(1));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The lock file of some crates, from that of the whole workspace in `tools`; cargo leaves out what nothing asks for.
///
/// # Errors
/// When cargo is not there, or the lock file does not hold what the crates ask for.
fn lock(tools: &Path, sources: &[&str]) -> Result<String> {
    let dir = tempfile::tempdir()?;
    for name in ["Cargo.toml", "Cargo.lock"] {
        std::fs::copy(tools.join(name), dir.path().join(name)).with_context(|| format!("cannot read tools/{name}"))?;
    }
    for source in sources {
        let link = dir.path().join(source);
        std::fs::create_dir_all(link.parent().context("a source lies in tools/")?)?;
        let found = tools.join(source).canonicalize().with_context(|| format!("there is no tools/{source}"))?;
        std::os::unix::fs::symlink(found, link)?;
    }
    // It needs the index alone. Other commands want every crate unpacked, also those of platforms that nobody built for.
    Cmd::new("cargo")
        .args(["update", "--quiet", "--workspace", "--offline", "--manifest-path"])
        .arg(dir.path().join("Cargo.toml"))
        .run()?;
    Ok(files::read_text(&dir.path().join("Cargo.lock"))?)
}

/// Makes the text of the include file from the text of `Cargo.lock` (version 4).
///
/// # Errors
/// When a package has a source other than crates.io, or no checksum: the fetcher could not verify it.
fn generate(lock: &str, made_from: &str) -> Result<String> {
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
    let mut out = format!("# Made from {made_from} by 'xtask crates'; do not edit.\n\nSRC_URI += \"\\\n");
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
        let text = generate(lock, "Cargo.lock").unwrap();
        assert!(text.contains("    crate://crates.io/anyhow/1.0.1 \\\n"), "{text}");
        assert!(text.contains("SRC_URI[anyhow-1.0.1.sha256sum] = \"ab\"\n") && !text.contains("os-sys"));
    }

    #[test]
    fn what_cannot_be_verified_is_refused() {
        assert!(generate("[[package]]\nname = \"a\"\nversion = \"1\"\nsource = \"git+https://x\"\n", "").is_err());
        assert!(generate("[[package]]\nname = \"a\"\nversion = \"1\"\nsource = \"registry+x\"\n", "").is_err());
        assert!(generate("", "").is_err());
    }
}
