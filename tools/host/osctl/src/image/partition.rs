//! Finds the boot partition in a partition table.

use super::fat::Volume;
use anyhow::{Context, Result, bail};
use os_disk::gpt::Table;
use std::fs::File;
use std::io::Seek;
use std::path::Path;

/// Name of the partition, and label of its filesystem.
const NAME: &str = "os-boot";
const SECTOR: u32 = 512;

/// Where the partition starts, in bytes. GPT names its partitions; in an MBR the label of the filesystem tells.
pub(super) fn find_boot(image: &Path, file: &mut File) -> Result<u64> {
    if let Ok(table) = Table::read(file) {
        let found = table.partitions()?.into_iter().find(|p| p.name == NAME);
        return Ok(found.with_context(|| format!("its GPT has no partition {NAME}"))?.start);
    }
    file.rewind()?;
    let Ok(mbr) = mbrman::MBR::read_from(file, SECTOR) else { bail!("it has neither a GPT nor an MBR") };
    let starts = mbr.iter().filter(|(_, p)| p.is_used()).map(|(_, p)| u64::from(p.starting_lba) * u64::from(SECTOR));
    for start in starts {
        let label = Volume::open(image, start).ok().and_then(|volume| volume.label());
        if label.is_some_and(|label| label.eq_ignore_ascii_case(NAME)) {
            return Ok(start);
        }
    }
    bail!("its MBR has no partition with a FAT filesystem labelled {NAME}")
}
