//! Finds the boot partition in a partition table.

use super::fat::Volume;
use anyhow::{Context, Result, bail};
use os_disk::table::Table;
use os_facts::Role;
use std::fs::File;
use std::path::Path;

/// Where the partition starts, in bytes. A GPT names its partitions; in an MBR, which may be of any system, the label of the
/// filesystem tells.
pub(super) fn find_boot(image: &Path, file: &mut File) -> Result<u64> {
    let name = Role::Boot.to_string();
    let table = Table::read(file).context("it has neither a GPT nor an MBR")?;
    let parts = table.partitions()?;
    if let Table::Gpt(_) = table {
        let found = parts.into_iter().find(|part| part.role == Some(Role::Boot));
        return Ok(found.with_context(|| format!("its GPT has no partition {name}"))?.start);
    }
    for part in parts {
        let label = Volume::open(image, part.start).ok().and_then(|volume| volume.label());
        if label.is_some_and(|label| label.eq_ignore_ascii_case(&name)) {
            return Ok(part.start);
        }
    }
    bail!("its MBR has no partition with a FAT filesystem labelled {name}")
}
