//! Tables as we write them, as others may, and as attackers would.

use super::*;
use crate::test_disks::{Bounded, Recorder};
use std::io::Cursor;

fn image(size: usize) -> Cursor<Vec<u8>> {
    const MIB: u64 = 1 << 20;
    let mut disk = Cursor::new(vec![0; 6 << 20]);
    let mut table = Table::new(&mut disk).unwrap();
    let kind = Guid::parse("0fc63daf-8483-4772-8e79-3d69d8477de4").unwrap();
    for (number, name, start) in [(1, "os-boot", MIB), (2, "os-data", 3 * MIB)] {
        table.add(&NewPartition { number, name, kind, start, size: 2 * MIB, bootable: false }).unwrap();
    }
    table.write(&mut disk).unwrap();
    disk.get_mut().resize(size, 0);
    disk
}

#[test]
fn last_partition_grows_to_the_end_and_only_once() {
    let mut disk = image(64 << 20);
    let mut table = Table::read(&mut disk).unwrap();
    assert_eq!(table.growth(1).unwrap(), 0);
    let more = table.growth(2).unwrap();
    assert!(more > 50 << 20, "{more}");
    table.grow(2, Some(1)).unwrap();
    assert_eq!(table.growth(2).unwrap(), more);
    table.grow(2, Some((4 << 20) + 1)).unwrap();
    assert_eq!(table.growth(2).unwrap(), more - (3 << 20));
    table.grow(2, None).unwrap();
    table.write(&mut disk).unwrap();
    let again = Table::read(&mut disk).unwrap();
    assert_eq!(again.growth(2).unwrap(), 0);
    let parts = again.partitions().unwrap();
    assert_eq!(parts[1].size, (2 << 20) + more);
    assert_eq!((parts[1].start + parts[1].size) % crate::MIN_ALIGN, 0);
}

#[test]
fn new_identifiers_keep_names_and_places() {
    let mut disk = image(8 << 20);
    let mut table = Table::read(&mut disk).unwrap();
    let before = table.partitions().unwrap();
    table.randomize().unwrap();
    table.write(&mut disk).unwrap();
    let after = Table::read(&mut disk).unwrap().partitions().unwrap();
    for (old, new) in before.iter().zip(&after) {
        assert_ne!(old.guid, new.guid);
        assert_eq!((&old.name, old.start, old.size), (&new.name, new.start, new.size));
    }
}

#[test]
fn a_disk_that_is_smaller_than_its_table_says_is_told() {
    let mut disk = image(6 << 20);
    assert_eq!(Table::read(&mut disk).unwrap().missing().unwrap(), 0);
    disk.get_mut().truncate(4 << 20);
    let table = Table::read(&mut disk).unwrap();
    assert_eq!((table.partitions().unwrap().len(), table.missing().unwrap()), (2, 1 << 20));
}

#[test]
fn torn_primary_is_replaced_by_the_backup() {
    let mut disk = image(6 << 20);
    let size = disk.get_ref().len();
    let mut table = Table::read(&mut disk).unwrap();
    table.grow(2, None).unwrap();
    table.write(&mut disk).unwrap();
    assert_eq!(size, disk.get_ref().len());
    disk.get_mut()[512..1024].fill(0xff);
    let parts = Table::read(&mut disk).unwrap().partitions().unwrap();
    assert_eq!(parts.len(), 2);
}

#[test]
fn whatever_part_of_a_write_reaches_the_medium_a_whole_table_is_left() {
    // The first boot on a larger disk has no backup at its end; later ones have.
    for (size, grown) in [(8 << 20, false), (16 << 20, false), (16 << 20, true)] {
        let mut disk = image(size);
        let mut table = Table::read(&mut disk).unwrap();
        if grown {
            table.grow(2, None).unwrap();
            table.write(&mut disk).unwrap();
        }
        table.grow(2, None).unwrap();
        table.randomize().unwrap();
        let mut recorder = Recorder::new(disk);
        table.write(&mut recorder).unwrap();
        for pair in recorder.epochs.windows(2) {
            let [before, after] = pair else { unreachable!() };
            let changed: Vec<usize> =
                (0..size).step_by(512).filter(|at| before[*at..at + 512] != after[*at..at + 512]).collect();
            assert!(changed.len() < 12, "{} sectors", changed.len());
            for subset in 0u32..1 << changed.len() {
                let mut torn = before.clone();
                for (bit, at) in changed.iter().enumerate() {
                    if subset >> bit & 1 == 1 {
                        torn[*at..at + 512].copy_from_slice(&after[*at..at + 512]);
                    }
                }
                let parts = Table::read(&mut Cursor::new(torn)).and_then(|table| table.partitions()).unwrap();
                assert_eq!(parts.len(), 2, "{subset:b} of {changed:?}");
            }
        }
    }
}

/// Gives both copies of what claims to be a table right checksums.
fn mend(disk: &mut [u8], place: usize) {
    let number = |disk: &[u8], at: usize| u32::from_le_bytes(disk[at..at + 4].try_into().unwrap()) as usize;
    let header = place * 512;
    let entries = (number(disk, header + 72)).saturating_mul(512);
    let length = number(disk, header + 80).saturating_mul(number(disk, header + 84));
    if let Some(bytes) = disk.get(entries..entries.saturating_add(length)) {
        let sum = crc32fast::hash(bytes);
        disk[header + 88..header + 92].copy_from_slice(&sum.to_le_bytes());
    }
    let size = number(disk, header + 12).min(512);
    disk[header + 16..header + 20].fill(0);
    let sum = crc32fast::hash(&disk[header..header + size]);
    disk[header + 16..header + 20].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn entries_of_another_size_are_read() {
    // What the specification allows, and an earlier reader ended the machine for.
    let mut disk = image(6 << 20);
    let bytes = disk.get_mut();
    let entry = bytes[1024..1152].to_vec();
    bytes[1024..1024 + 128 * 128].fill(0);
    bytes[1024 + 256..1024 + 256 + 128].copy_from_slice(&entry);
    bytes[512 + 84..512 + 88].copy_from_slice(&256u32.to_le_bytes());
    bytes[512 + 80..512 + 84].copy_from_slice(&64u32.to_le_bytes());
    mend(bytes, 1);
    let parts = Table::read(&mut disk).unwrap().partitions().unwrap();
    assert_eq!((parts.len(), parts[0].number, parts[0].name.as_str()), (1, 2, "os-boot"));
}

#[test]
fn a_table_without_end_is_an_error() {
    let mut disk = image(6 << 20);
    let bytes = disk.get_mut();
    bytes[512 + 80..512 + 84].fill(0xff);
    mend(bytes, 1);
    let size = bytes.len();
    bytes[size - 512..].fill(0);
    assert!(Table::read(&mut disk).is_err());
}

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    // What an attacker writes has right checksums.
    #[test]
    fn no_table_ends_the_machine(
        changes in proptest::collection::vec((512usize..2048, any::<u8>()), 1..12),
        wide in proptest::collection::vec((prop_oneof![Just(24), Just(32), Just(40), Just(48), Just(72), Just(80),
            Just(544), Just(552)], any::<u64>()), 0..3),
    ) {
        let mut disk = image(6 << 20);
        let bytes = disk.get_mut();
        for (at, value) in changes {
            bytes[at] = value;
        }
        for (at, value) in wide {
            bytes[512 + at..512 + at + 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes[512..520].copy_from_slice(b"EFI PART");
        mend(bytes, 1);
        if let Ok(mut table) = Table::read(&mut disk) {
            let _ = table.partitions();
            let _ = table.growth(2);
            if table.grow(2, None).is_ok() && table.randomize().is_ok() {
                // Far beyond the end there is no memory for this disk.
                let _ = table.write(&mut Bounded(disk));
            }
        }
    }
}

#[test]
fn no_table_is_an_error() {
    assert!(Table::read(&mut Cursor::new(vec![0; 1 << 20])).is_err());
    assert!(Table::read(&mut Cursor::new(Vec::new())).is_err());
}
