//! Disks with both kinds of table, and with what is left of another.

use super::*;
use crate::guid::Guid;
use std::io::Cursor;

const MIB: u64 = 1 << 20;
const SIZE: usize = 24 << 20;

fn gpt() -> Cursor<Vec<u8>> {
    let mut disk = Cursor::new(vec![0; SIZE]);
    let mut table = gpt::Table::new(&mut disk).unwrap();
    let kind = Guid::parse("0fc63daf-8483-4772-8e79-3d69d8477de4").unwrap();
    for (number, name) in (1..).zip(["os-boot", "os-data"]) {
        let start = u64::from(number) * 4 * MIB;
        table.add(&gpt::NewPartition { number, name, kind, start, size: MIB, bootable: false }).unwrap();
    }
    table.write(&mut disk).unwrap();
    disk
}

fn mbr(disk: &mut Cursor<Vec<u8>>) {
    let part = |start: u64| mbr::NewPartition { kind: mbr::LINUX, start: start * MIB, size: MIB, active: false };
    mbr::Table::new(disk, &[4, 5, 6, 8, 10, 12, 14].map(part)).unwrap().write(disk).unwrap();
}

#[test]
fn both_tables_say_what_is_what() {
    let roles = |disk: &mut Cursor<Vec<u8>>| {
        let parts = Table::read(disk).unwrap().partitions().unwrap();
        parts.into_iter().map(|part| part.role).collect::<Vec<_>>()
    };
    assert_eq!(roles(&mut gpt()), [Some(Role::Boot), Some(Role::Data)]);
    let mut disk = Cursor::new(vec![0; SIZE]);
    mbr(&mut disk);
    assert_eq!(roles(&mut disk), Role::EACH.map(Some));
    let parts = Table::read(&mut disk).unwrap().partitions().unwrap();
    assert_eq!(parts[3].name, "os-rootA");
    let signature = u32::from_le_bytes(disk.get_ref()[440..444].try_into().unwrap());
    assert_eq!(parts[6].id.to_string(), format!("{signature:08x}-08"));
    assert_eq!(PartId::parse(&parts[6].id.to_string()), Some(parts[6].id));
}

#[test]
fn what_is_left_of_an_older_gpt_is_no_table() {
    // The copy at the end of a card outlives the next image, and here the first one does, too.
    let mut disk = gpt();
    mbr(&mut disk);
    assert!(gpt::Table::read(&mut disk).is_ok());
    assert!(matches!(Table::read(&mut disk).unwrap(), Table::Mbr(_)));
    // A GPT whose protective MBR was lost is one all the same.
    let mut disk = gpt();
    disk.get_mut()[..512].fill(0);
    assert!(matches!(Table::read(&mut disk).unwrap(), Table::Gpt(_)));
    assert!(matches!(Table::read(&mut Cursor::new(vec![0; SIZE])), Err(TableError::Neither { .. })));
}

#[test]
fn a_hybrid_mbr_stays_as_it_is() {
    // As wic makes it: the boot partition for a boot ROM that knows no GPT, then what protects the table.
    let mut disk = gpt();
    let hybrid = [
        [0x80, 0, 0x82, 3, 0x0c, 0, 0, 0, 0, 0x20, 0, 0, 0, 8, 0, 0],
        [0, 0, 2, 0, 0xee, 1, 3, 0, 1, 0, 0, 0, 34, 0, 0, 0],
    ]
    .concat();
    disk.get_mut()[446..478].copy_from_slice(&hybrid);
    disk.get_mut().resize(2 * SIZE, 0);
    let sector = disk.get_ref()[..512].to_vec();
    let mut table = Table::read(&mut disk).unwrap();
    assert!(matches!(table, Table::Gpt(_)));
    assert!(table.growth(2).unwrap() > 0);
    table.grow(2, None).unwrap();
    table.randomize().unwrap();
    table.write(&mut disk).unwrap();
    assert_eq!(disk.get_ref()[..512], sector);
    assert_eq!(Table::read(&mut disk).unwrap().growth(2).unwrap(), 0);
}

#[test]
fn identifiers_are_read_as_bootloaders_write_them() {
    let id = |text| PartId::parse(text);
    assert_eq!(id("9c86e402-01"), Some(PartId::Mbr { signature: 0x9c86_e402, number: 1 }));
    assert_eq!(id("9C86E402-0a"), Some(PartId::Mbr { signature: 0x9c86_e402, number: 10 }));
    let guid = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
    assert_eq!(id(guid).unwrap().to_string(), guid);
    for text in
        ["", "-", "9c86e402", "9c86e402-1", "9c86e402-001", "+c86e402-01", "9c86e40g-01", "9c86e402-01-01", "ä6e402-01"]
    {
        assert_eq!(id(text), None, "{text}");
    }
}
