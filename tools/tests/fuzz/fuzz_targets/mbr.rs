//! The MBR of a disk that somebody plugged in, and what it links to.
#![no_main]

use libfuzzer_sys::fuzz_target;
use os_disk::mbr::Table;
use std::io::Cursor;

/// Sectors of the disk: every link that stays on it leads to a sector with entries.
const SECTORS: usize = 64;
/// Bytes of the disk; what lies behind those sectors is empty.
const SIZE: usize = 4 << 20;

fuzz_target!(|bytes: &[u8]| {
    let mut disk = vec![0; SIZE];
    for (sector, entries) in disk.chunks_exact_mut(512).take(SECTORS).zip(bytes.chunks(64)) {
        sector[446..446 + entries.len()].copy_from_slice(entries);
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
    }
    let mut disk = Cursor::new(disk);
    let Ok(mut table) = Table::read(&mut disk) else { return };
    let before = table.partitions();
    let last = before.iter().map(|part| part.number).max().unwrap_or(1);
    if table.grow(last, None).is_ok() && table.randomize().is_ok() && table.write(&mut disk).is_ok() {
        let after = Table::read(&mut disk).map(|table| table.partitions()).unwrap_or_default();
        for (old, new) in before.iter().zip(&after) {
            assert!((old.number, old.start) == (new.number, new.start) && old.size <= new.size);
        }
        assert_eq!(before.len(), after.len());
    }
});
