//! Sizes of what was built, and how long building takes.

use super::VARIANT;
use anyhow::{Context, Result};
use lab::image::{self, bundle};
use lab::repo::{self, Repo};
use os_sys::cmd::Cmd;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Rows of the table.
pub(super) fn rows(repo: &Repo) -> Result<Vec<(String, String)>> {
    let cold = std::fs::read_to_string(repo.lab().join(image::COLD_BUILD)).ok();
    let cold = cold.map_or("not measured in this build directory".to_owned(), |seconds| format!("{seconds} s"));
    let start = Instant::now();
    Cmd::new(std::env::current_exe()?.with_file_name("lab")).args(["build", "--variant", VARIANT]).run()?;
    let again = start.elapsed().as_secs_f64();
    let bundle = bundle::build(repo, VARIANT)?;
    let slot = repo.lab().join(VARIANT).join("slot");
    let vars = repo.vars()?;
    let name = |variable| repo::need(&vars, variable);
    let mut rows = vec![
        ("build from nothing: Debian fetched, tools compiled (the lab itself is there)".to_owned(), cold),
        ("build again, nothing changed".to_owned(), format!("{again:.1} s")),
    ];
    for (words, path) in [
        (format!("root slot ({})", name("OS_ROOT_COMPRESSION")?), slot.join(name("OS_ROOT_IMAGE")?)),
        ("kernel".to_owned(), slot.join("vmlinuz")),
        ("initramfs".to_owned(), slot.join("initramfs")),
        ("tools on the device, one binary (lab profile, no LTO)".to_owned(), tools(repo)),
        ("disk image, sparse".to_owned(), repo.image(VARIANT)),
        ("update bundle".to_owned(), bundle),
    ] {
        rows.push((words, mib(&path)?));
    }
    Ok(rows)
}

fn mib(path: &Path) -> Result<String> {
    let bytes = std::fs::metadata(path).with_context(|| format!("there is no {}", path.display()))?.len();
    Ok(format!("{:.1} MiB", bytes as f64 / 1048576.0))
}

fn tools(repo: &Repo) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| repo.root.join("tools/target"), PathBuf::from)
        .join("lab/os-tools")
}
