//! The partition table of a disk that somebody plugged in, with checksums that are right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use os_disk::gpt::Table;
use std::io::Cursor;

/// Sectors of the disk; a table of 128 entries and its copy fit.
const SECTORS: usize = 160;

fuzz_target!(|bytes: &[u8]| {
    let mut disk = vec![0; SECTORS * 512];
    disk[512..520].copy_from_slice(b"EFI PART");
    // Header and entries as they come.
    let length = bytes.len().min(disk.len() - 520);
    disk[520..520 + length].copy_from_slice(&bytes[..length]);
    mend(&mut disk);
    let mut disk = Cursor::new(disk);
    if let Ok(mut table) = Table::read(&mut disk) {
        let _ = table.partitions();
        let _ = table.growth(1);
        let _ = table.grow(1, None);
        let _ = table.randomize();
    }
});

fn mend(disk: &mut [u8]) {
    let number = |disk: &[u8], at: usize| u32::from_le_bytes([disk[at], disk[at + 1], disk[at + 2], disk[at + 3]]) as usize;
    disk[524..528].copy_from_slice(&92u32.to_le_bytes());
    disk[536..544].copy_from_slice(&1u64.to_le_bytes());
    let entries = number(disk, 512 + 72).saturating_mul(512);
    let length = number(disk, 512 + 80).saturating_mul(number(disk, 512 + 84));
    if let Some(sum) = disk.get(entries..entries.saturating_add(length)).map(crc32fast::hash) {
        disk[600..604].copy_from_slice(&sum.to_le_bytes());
    }
    disk[528..532].fill(0);
    let sum = crc32fast::hash(&disk[512..604]);
    disk[528..532].copy_from_slice(&sum.to_le_bytes());
}
