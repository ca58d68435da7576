//! What a crate says it depends on, it uses: each dependency costs a build and a look at what it brings.

use crate::walk;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Names the dependencies of the crates in `tools` that no source of theirs mentions.
///
/// # Errors
/// When there are any, or a manifest cannot be read.
pub fn check(tools: &Path) -> Result<()> {
    let mut unused = BTreeSet::new();
    for room in ["device", "host", "tests"].map(|room| tools.join(room)) {
        for dir in std::fs::read_dir(&room).with_context(|| format!("cannot read {}", room.display()))?.flatten() {
            let Ok(manifest) = std::fs::read_to_string(dir.path().join("Cargo.toml")) else { continue };
            let sources = ["src", "fuzz_targets"].map(|name| sources(&dir.path().join(name)));
            let sources = sources.into_iter().collect::<Result<String>>()?;
            let name = dir.file_name().to_string_lossy().into_owned();
            unused
                .extend(unmentioned(&manifest, &sources).into_iter().map(|dependency| format!("{name}: {dependency}")));
        }
    }
    ensure!(unused.is_empty(), "dependencies that nothing uses: {}", unused.into_iter().collect::<Vec<_>>().join(", "));
    Ok(())
}

/// The texts of all Rust files below a directory; none where it is not there.
fn sources(dir: &Path) -> Result<String> {
    let files = if dir.is_dir() { walk::files(dir)? } else { Vec::new() };
    let is_rust = |path: &&PathBuf| path.extension().is_some_and(|kind| kind == "rs");
    files.iter().filter(is_rust).map(|path| Ok(os_sys::files::read_text(path)?)).collect()
}

fn unmentioned(manifest: &str, sources: &str) -> Vec<String> {
    let words: BTreeSet<&str> = sources.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let mut section = "";
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
        let is_dependency = ["[dependencies]", "[dev-dependencies]"].contains(&section) && line.contains('=');
        if is_dependency && !line.starts_with('#') && !words.contains(name.replace('-', "_").as_str()) {
            found.push(name.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_that_no_source_mentions_is_named() {
        let manifest = "[package]\nname = \"x\"\n\n[dependencies]\n# Why.\nos-sys.workspace = true\ntar = { version = \"1\" }\n\n\
                        [dev-dependencies]\ntempfile.workspace = true\n\n[lints]\nworkspace = true\n";
        assert_eq!(unmentioned(manifest, "use os_sys::cmd;\nlet guitar = tempfile::tempdir();"), ["tar"]);
        assert!(unmentioned(manifest, "os_sys tar tempfile").is_empty());
    }
}
