//! Tables as we write them, as others do, and as attackers would; and other programs' reading of them.

use super::*;
use crate::test_disks::{Bounded, Recorder};
use os_sys::cmd::Cmd;
use proptest::prelude::*;
use std::fs::File;
use std::io::Cursor;
use std::path::Path;

const MIB: u64 = 1 << 20;

fn place(at: u64) -> usize {
    usize::try_from(at).unwrap()
}

fn number(of: u64) -> u32 {
    u32::try_from(of).unwrap()
}

/// First MiB and MiB of the partitions 1, 2, 3, 5, 6, 7, 8.
const LAYOUT: [(u64, u64); 7] = [(4, 2), (8, 1), (12, 1), (20, 1), (24, 1), (28, 2), (32, 3)];
const NUMBERS: [u32; 7] = [1, 2, 3, 5, 6, 7, 8];
const SIZE: u64 = 35 * MIB;

/// What the device must not touch: a boot program in sector 0, and what lies behind it.
fn bootloader() -> Vec<u8> {
    (0..=250).cycle().take(64 << 10).collect()
}

fn put_bootloader(disk: &mut [u8]) {
    let program = bootloader();
    disk[..440].copy_from_slice(&program[..440]);
    disk[512..program.len()].copy_from_slice(&program[512..]);
}

fn is_bootloader_whole(disk: &[u8]) -> bool {
    let program = bootloader();
    disk[..440] == program[..440] && disk[512..program.len()] == program[512..]
}

/// As the lab makes it, of partitions that are counted in such units.
fn ours_of(unit: u64, size: u64) -> Cursor<Vec<u8>> {
    let mut disk = Cursor::new(vec![0; place(SIZE / MIB * unit)]);
    let parts = LAYOUT.map(|(start, size)| NewPartition {
        kind: LINUX,
        start: start * unit,
        size: size * unit,
        active: start == 4,
    });
    Table::new(&mut disk, &parts).unwrap().write(&mut disk).unwrap();
    put_bootloader(disk.get_mut());
    disk.get_mut().resize(place(size), 0);
    disk
}

fn ours(size: u64) -> Cursor<Vec<u8>> {
    ours_of(MIB, size)
}

/// As util-linux makes it: the entry of a logical partition is in the sector before it.
fn sfdisk(size: u64) -> Cursor<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let (path, script) = (dir.path().join("disk"), dir.path().join("script"));
    File::create(&path).unwrap().set_len(SIZE).unwrap();
    let mut text = "label: dos\nunit: sectors\n".to_owned();
    for ((start, size), number) in LAYOUT.iter().zip(NUMBERS) {
        if number == 5 {
            let first = 20 * MIB / SECTOR - 2;
            text += &format!("4: start={first}, size={}, type=f\n", SIZE / SECTOR - first);
        }
        text += &format!("{number}: start={}, size={}, type=83\n", start * MIB / SECTOR, size * MIB / SECTOR);
    }
    std::fs::write(&script, text).unwrap();
    Cmd::new("sfdisk").args(["-q", "--no-tell-kernel"]).arg(&path).stdin(File::open(&script).unwrap()).run().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    put_bootloader(&mut bytes);
    bytes.resize(place(size), 0);
    Cursor::new(bytes)
}

/// As wic makes it: parted has the first one 2 sectors before its partition, each other one 128.
fn wic(size: u64) -> Cursor<Vec<u8>> {
    let mut disk = ours(SIZE);
    let bytes = disk.get_mut();
    let begin = 20 * MIB / SECTOR - 2;
    let logical = &LAYOUT[3..];
    for (index, (start, _)) in logical.iter().enumerate().skip(1) {
        let (old, new) = (start * MIB / SECTOR - 2, start * MIB / SECTOR - 128);
        let sector = bytes[place(old * SECTOR)..][..512].to_vec();
        bytes[place(old * SECTOR)..][..512].fill(0);
        let new_at = place(new * SECTOR);
        bytes[new_at..new_at + 512].copy_from_slice(&sector);
        bytes[new_at + 454..new_at + 458].copy_from_slice(&128u32.to_le_bytes());
        let before = if index == 1 { begin } else { logical[index - 1].0 * MIB / SECTOR - 128 };
        let link = place(before * SECTOR) + 462;
        bytes[link + 8..link + 12].copy_from_slice(&number(new - begin).to_le_bytes());
        let end = (start + logical[index].1) * MIB / SECTOR;
        bytes[link + 12..link + 16].copy_from_slice(&number(end - new).to_le_bytes());
    }
    bytes.resize(place(size), 0);
    disk
}

fn each(size: u64) -> [(&'static str, Cursor<Vec<u8>>); 3] {
    [("ours", ours(size)), ("sfdisk", sfdisk(size)), ("wic", wic(size))]
}

fn read(bytes: &[u8]) -> Table {
    Table::read(&mut Cursor::new(bytes)).unwrap()
}

/// Number, first sector and sectors of each partition, as libblkid reads them, which follows the kernel.
fn partx(bytes: &[u8], dir: &Path) -> Vec<(u32, u64, u64)> {
    let path = dir.join("partx");
    std::fs::write(&path, bytes).unwrap();
    let text = Cmd::new("partx").args(["--show", "-g", "-o", "NR,START,SECTORS"]).arg(&path).read().unwrap();
    let numbers = |line: &str| line.split_ascii_whitespace().map(|n| n.parse().unwrap()).collect::<Vec<u64>>();
    let all = text
        .lines()
        .map(|line| if let [n, start, size] = numbers(line)[..] { (number(n), start, size) } else { panic!("{line}") });
    all.filter(|(n, ..)| *n != 4).collect()
}

fn as_partx(table: &Table) -> Vec<(u32, u64, u64)> {
    table.partitions().iter().map(|part| (part.number, part.start / SECTOR, part.size / SECTOR)).collect()
}

#[test]
fn tables_of_each_maker_are_read_as_other_programs_read_them() {
    let dir = tempfile::tempdir().unwrap();
    for (maker, disk) in each(SIZE) {
        let table = read(disk.get_ref());
        let found = table.partitions();
        let found: Vec<_> = found.iter().map(|part| (part.number, part.start / MIB, part.size / MIB)).collect();
        let wanted: Vec<_> = NUMBERS.iter().zip(LAYOUT).map(|(number, (start, size))| (*number, start, size)).collect();
        assert_eq!(found, wanted, "{maker}");
        assert_eq!(as_partx(&table), partx(disk.get_ref(), dir.path()), "{maker}");
        assert_eq!((table.missing(), table.growth(8).unwrap()), (0, 0), "{maker}");
        let path = dir.path().join("partx");
        let verdict = Cmd::new("sfdisk").arg("--verify").arg(&path).read().unwrap();
        assert!(verdict.contains("No errors"), "{maker}: {verdict}");
        let id = Cmd::new("sfdisk").arg("--disk-id").arg(&path).read().unwrap();
        assert_eq!(id.trim(), format!("0x{:08x}", table.signature()), "{maker}");
    }
}

#[test]
fn the_last_partition_grows_to_the_end_and_only_once() {
    let dir = tempfile::tempdir().unwrap();
    for (maker, mut disk) in each(64 * MIB + 5 * SECTOR) {
        let mut table = Table::read(&mut disk).unwrap();
        for number in [1, 2, 3, 4, 5, 6, 7, 9] {
            assert_eq!(table.growth(number).unwrap(), 0, "{maker} {number}");
        }
        assert_eq!(table.growth(8).unwrap(), 29 * MIB, "{maker}");
        table.grow(7, None).unwrap();
        table.grow(8, Some(1)).unwrap();
        assert_eq!(table.growth(8).unwrap(), 29 * MIB, "{maker}");
        table.grow(8, Some(10 * MIB - 1)).unwrap();
        assert_eq!(table.growth(8).unwrap(), 22 * MIB, "{maker}");
        table.grow(8, None).unwrap();
        table.write(&mut disk).unwrap();
        let again = read(disk.get_ref());
        assert_eq!((again.growth(8).unwrap(), again.partitions()[6].size), (0, 32 * MIB), "{maker}");
        assert_eq!(as_partx(&again), partx(disk.get_ref(), dir.path()), "{maker}");
        let verdict = Cmd::new("sfdisk").arg("--verify").arg(dir.path().join("partx")).read().unwrap();
        assert!(verdict.contains("No errors"), "{maker}: {verdict}");
        assert!(is_bootloader_whole(disk.get_ref()), "{maker}");
    }
}

#[test]
fn a_primary_partition_grows_if_nothing_lies_behind_it() {
    let mut disk = Cursor::new(vec![0; place(SIZE)]);
    let part = |start, size| NewPartition { kind: LINUX, start: start * MIB, size: size * MIB, active: false };
    Table::new(&mut disk, &[part(1, 1), part(2, 1)]).unwrap().write(&mut disk).unwrap();
    let mut table = Table::read(&mut disk).unwrap();
    assert_eq!((table.growth(1).unwrap(), table.growth(2).unwrap()), (0, 32 * MIB));
    table.grow(2, None).unwrap();
    table.write(&mut disk).unwrap();
    assert_eq!(read(disk.get_ref()).partitions()[1].size, 33 * MIB);
    // An extended partition without content counts, too.
    let mut disk = ours(SIZE);
    let begin = place(20 * MIB - 2 * SECTOR);
    disk.get_mut()[begin + 446..begin + 510].fill(0);
    let table = Table::read(&mut disk).unwrap();
    assert_eq!((table.partitions().len(), table.growth(3).unwrap()), (3, 0));
}

#[test]
fn whatever_part_of_the_writes_reaches_the_medium_every_partition_is_left() {
    let dir = tempfile::tempdir().unwrap();
    for (maker, mut disk) in each(64 * MIB) {
        let before = read(disk.get_ref());
        let mut table = Table::read(&mut disk).unwrap();
        let mut recorder = Recorder::new(disk);
        table.randomize().unwrap();
        table.write(&mut recorder).unwrap();
        table.grow(8, None).unwrap();
        table.write(&mut recorder).unwrap();
        // The signature; the extended partition, the link to the last one, the last one.
        assert_eq!(recorder.epochs.len(), 5, "{maker}");
        for (at, pair) in recorder.epochs.windows(2).enumerate() {
            // A sector is written or not: there is nothing in between.
            let changed: Vec<usize> =
                (0..pair[0].len()).step_by(512).filter(|at| pair[0][*at..at + 512] != pair[1][*at..at + 512]).collect();
            assert_eq!(changed.len(), 1, "{maker} {at}");
        }
        for (at, epoch) in recorder.epochs.iter().enumerate() {
            let table = read(epoch);
            assert_eq!(as_partx(&table), partx(epoch, dir.path()), "{maker} {at}");
            for (old, new) in before.partitions().iter().zip(table.partitions()) {
                assert_eq!((old.number, old.start), (new.number, new.start), "{maker} {at}");
                assert!(if old.number == 8 { new.size >= old.size } else { new.size == old.size }, "{maker} {at}");
            }
            assert_eq!(table.partitions().len(), 7, "{maker} {at}");
            assert_eq!(table.signature() == before.signature(), at == 0, "{maker} {at}");
            assert!(is_bootloader_whole(epoch), "{maker} {at}");
            // The next boot goes on where this one was cut.
            let mut again = read(epoch);
            let mut disk = Cursor::new(epoch.clone());
            again.grow(8, None).unwrap();
            again.write(&mut disk).unwrap();
            assert_eq!(
                as_partx(&read(disk.get_ref())),
                as_partx(&read(recorder.epochs.last().unwrap())),
                "{maker} {at}"
            );
        }
    }
}

#[test]
fn a_disk_that_is_smaller_than_its_table_says_is_told() {
    let mut disk = ours(SIZE);
    disk.get_mut().truncate(33 << 20);
    let mut table = read(disk.get_ref());
    assert_eq!((table.partitions().len(), table.missing(), table.growth(8).unwrap()), (7, 2 * MIB, 0));
    table.grow(8, None).unwrap();
    // The entry of the last one is beyond the end.
    disk.get_mut().truncate(30 << 20);
    let table = read(disk.get_ref());
    assert_eq!((table.partitions().len(), table.missing()), (6, 5 * MIB));
    assert!(table.growth(7).is_err());
}

#[test]
fn nothing_lies_beyond_two_tebibytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, ours(SIZE).get_ref()).unwrap();
    let mut file = File::options().read(true).write(true).open(&path).unwrap();
    file.set_len(3 << 40).unwrap();
    let mut table = Table::read(&mut file).unwrap();
    table.grow(8, None).unwrap();
    table.write(&mut file).unwrap();
    let table = Table::read(&mut file).unwrap();
    let last = table.partitions().pop().unwrap();
    assert_eq!((last.start + last.size, table.growth(8).unwrap()), (2 << 40, 0));
    let read = Cmd::new("partx").args(["--show", "-g", "-o", "SIZE", "-b", "--nr", "8"]).arg(&path).read().unwrap();
    assert_eq!(read.trim(), last.size.to_string());
    let part = |start: u64| NewPartition { kind: LINUX, start, size: MIB, active: false };
    assert!(Table::new(&mut file, &[part((2 << 40) + MIB)]).is_err());
}

#[test]
fn a_chain_ends_where_it_is_damaged() {
    let whole = ours(SIZE);
    let third = place(28 * MIB - 2 * SECTOR);
    let begin = place(20 * MIB - 2 * SECTOR);
    let word = |value: u32| value.to_le_bytes().to_vec();
    // Where, what, and how many partitions are left.
    let cases: [(usize, Vec<u8>, usize); 11] = [
        // The first partition, or the extended one, at the table itself.
        (446 + 8, word(0), 3),
        (446 + 3 * 16 + 8, word(0), 3),
        (third + 510, vec![0, 0], 5),
        (third + 446 + 4, vec![0x05], 5),
        (third + 446 + 8, word(0), 5),
        (third + 446 + 8, word(u32::MAX), 5),
        (third + 446 + 12, word(u32::MAX), 5),
        (third + 478 + 12, word(1), 5),
        // A link to itself, to the first one, and out of the extended partition.
        (third + 462 + 8, word(u32::try_from((third - begin) / 512).unwrap()), 6),
        (third + 462 + 8, word(0), 6),
        (third + 462 + 8, word(u32::MAX), 6),
    ];
    for (at, bytes, left) in cases {
        let mut disk = whole.clone();
        disk.get_mut()[at..at + bytes.len()].copy_from_slice(&bytes);
        let mut table = Table::read(&mut disk).unwrap();
        assert_eq!(table.partitions().len(), left, "{at} {bytes:?}");
        assert!(table.growth(8).is_err() && table.grow(6, None).is_err(), "{at} {bytes:?}");
        // It can have a signature of its own all the same.
        table.randomize().unwrap();
        table.write(&mut disk).unwrap();
        let mut old = whole.get_ref().clone();
        old[at..at + bytes.len()].copy_from_slice(&bytes);
        assert!(disk.get_ref()[512..] == old[512..], "{at} {bytes:?}");
    }
}

#[test]
fn what_is_no_mbr_is_an_error() {
    let refused = |bytes: Vec<u8>| matches!(Table::read(&mut Cursor::new(bytes)), Err(TableError::NoMbr(_)));
    assert!(refused(Vec::new()) && refused(vec![0; 511]) && refused(vec![0; 1 << 20]));
    let with = |at: usize, byte: u8| {
        let mut bytes = ours(SIZE).into_inner();
        bytes[at] = byte;
        bytes
    };
    assert!(refused(with(510, 0)) && refused(with(446, 0x20)) && refused(with(466, 0xee)));
    let mut empty = ours(SIZE).into_inner();
    empty[446..510].fill(0);
    assert!(refused(empty));
}

#[test]
fn partitions_that_have_no_room_are_not_made() {
    let part = |start: u64, size| NewPartition { kind: LINUX, start: start * MIB, size: size * MIB, active: false };
    let mut disk = Cursor::new(vec![0; place(SIZE)]);
    for parts in [
        &[part(0, 1)][..],
        &[part(4, 2), part(5, 1)],
        &[part(4, 1), part(5, 1), part(6, 1), part(7, 1)],
        &[part(4, 1), part(5, 1), part(6, 1), part(8, 1), part(9, 1)],
        &[part(34, 2)],
    ] {
        assert!(Table::new(&mut disk, parts).is_err(), "{parts:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn no_table_ends_the_machine(
        changes in proptest::collection::vec((0usize..5, 440usize..512, any::<u8>()), 0..8),
        numbers in proptest::collection::vec((0usize..5, 0usize..4, any::<bool>(),
            prop_oneof![any::<u32>(), 0u32..1200, Just(0), Just(u32::MAX)]), 0..6),
    ) {
        const UNIT: u64 = 16 << 10;
        let mut disk = ours_of(UNIT, SIZE / MIB * UNIT);
        let places = [0, 20, 24, 28, 32].map(|start| place((start * UNIT).saturating_sub(2 * SECTOR)));
        for (sector, at, byte) in changes {
            disk.get_mut()[places[sector] + at] = byte;
        }
        for (sector, entry, size, value) in numbers {
            let at = places[sector] + 446 + 16 * entry + if size { 12 } else { 8 };
            disk.get_mut()[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        for at in places {
            disk.get_mut()[at + 510..at + 512].copy_from_slice(&MAGIC);
        }
        disk.get_mut().resize(1 << 20, 0);
        if let Ok(mut table) = Table::read(&mut disk) {
            let before = table.partitions();
            prop_assert!(before.len() <= 4 + MAX_LOGICAL);
            let last = before.iter().map(|part| part.number).max().unwrap_or(1);
            let grown = table.grow(last, None).is_ok() && table.randomize().is_ok();
            if grown && table.write(&mut Bounded(disk.clone())).is_ok() {
                table.randomize().unwrap();
                table.write(&mut disk).unwrap();
                let mut again = Table::read(&mut disk).unwrap();
                again.grow(last, None).unwrap();
                // Nothing is lost and nothing moves.
                for (old, new) in before.iter().zip(again.partitions()) {
                    prop_assert_eq!((old.number, old.start), (new.number, new.start));
                    prop_assert!(new.size >= old.size);
                }
                prop_assert!(is_bootloader_whole(disk.get_ref()));
            }
        }
    }
}

/// What every sector with entries ends with.
const MAGIC: [u8; 2] = [0x55, 0xaa];
