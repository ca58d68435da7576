//! From a parsed kickstart file to byte offsets on a disk, checked, and to a partition table.

use crate::kickstart::{FsType, Kickstart, Part, TableType};
use os_disk::TableError;
use os_disk::{Barrier, MIN_ALIGN, SECTOR, gpt, mbr};
use os_facts::Role;
use std::io::{Read, Seek, Write};

/// GPT type of a plain Linux partition.
pub const LINUX_TYPE: &str = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";

/// A layout that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Two partitions share a name.
    #[error("line {line}: partition name {name} is used twice")]
    DuplicateName {
        /// Line of the second one.
        line: usize,
        /// The name.
        name: String,
    },
    /// A GPT partition without a name could not be found by the device.
    #[error("line {line}: a GPT partition needs --part-name")]
    NoName {
        /// Its line.
        line: usize,
    },
    /// GPT names hold 36 UTF-16 units.
    #[error("line {line}: partition name {name} is longer than 36 characters")]
    LongName {
        /// Its line.
        line: usize,
        /// The name.
        name: String,
    },
    /// The sizes overflow.
    #[error("line {line}: the disk would be too large")]
    TooLarge {
        /// The partition it happened at.
        line: usize,
    },
    /// wic refuses what an MBR has no room for.
    #[error("line {line}: an MBR has neither --part-name nor --part-type")]
    NotInMbr {
        /// Its line.
        line: usize,
    },
    /// In an MBR the number says what a partition is for.
    #[error("an MBR has the partitions {} in this order; here are {found}", roles())]
    NotTheRoles {
        /// How many there are.
        found: usize,
    },
    /// A filesystem is called like its partition.
    #[error("line {line}: this is the partition {role}, and --label is {label}")]
    OtherLabel {
        /// Its line.
        line: usize,
        /// What it is by its number.
        role: Role,
        /// What its label says.
        label: String,
    },
    /// An MBR counts sectors with 32 bits.
    #[error("the disk has {0} bytes; an MBR can address 2 TiB")]
    TooLargeForMbr(u64),
}

fn roles() -> String {
    Role::EACH.map(|role| role.to_string()).join(" ")
}

/// One partition with its place on the disk.
#[derive(Debug, Clone)]
pub struct Placed {
    /// Number, from 1.
    pub number: u32,
    /// First byte.
    pub start: u64,
    /// What the template says.
    pub part: Part,
    name: String,
}

impl Placed {
    /// Its name in a GPT; in an MBR, that of its role.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Every partition in its place, and the size of the disk that holds them.
#[derive(Debug, Clone)]
pub struct Layout {
    /// What kind of partition table it has.
    pub table: TableType,
    /// Partitions in disk order.
    pub parts: Vec<Placed>,
    /// Bytes of the whole image, every copy of the table included.
    pub disk_size: u64,
}

impl Layout {
    /// Places the partitions one after the other.
    ///
    /// # Errors
    /// When names clash, sizes overflow, or an MBR has other partitions than those of the OS.
    pub fn plan(kickstart: &Kickstart) -> Result<Self, LayoutError> {
        let table = kickstart.table;
        let mut parts: Vec<Placed> = Vec::new();
        let mut next = MIN_ALIGN;
        for (index, part) in kickstart.parts.iter().enumerate() {
            let line = part.line;
            let too_large = || LayoutError::TooLarge { line };
            let (number, name) = match table {
                TableType::Gpt => (u32::try_from(index + 1).map_err(|_| too_large())?, gpt_name(part)?),
                TableType::Msdos => {
                    let role = mbr_role(part, index, kickstart.parts.len())?;
                    (role.mbr_number(), role.to_string())
                }
            };
            if parts.iter().any(|p| p.name == name) {
                return Err(LayoutError::DuplicateName { line, name });
            }
            // As wic does, which leaves room for the entry of each logical partition.
            let before = if is_logical(table, index) { mbr::EBR_SECTORS.saturating_mul(SECTOR) } else { 0 };
            let free = next.checked_add(before).ok_or_else(too_large)?;
            let start = free.checked_next_multiple_of(part.align).ok_or_else(too_large)?;
            next = start.checked_add(part.size).ok_or_else(too_large)?;
            parts.push(Placed { number, start, part: part.clone(), name });
        }
        if table == TableType::Msdos {
            if parts.len() != Role::EACH.len() {
                return Err(LayoutError::NotTheRoles { found: parts.len() });
            }
            if next > mbr::MAX_SIZE {
                return Err(LayoutError::TooLargeForMbr(next));
            }
            return Ok(Self { table, parts, disk_size: next });
        }
        let end = next.checked_next_multiple_of(MIN_ALIGN).and_then(|end| end.checked_add(MIN_ALIGN));
        let disk_size = end.ok_or(LayoutError::TooLarge { line: parts.last().map_or(0, |p| p.part.line) })?;
        Ok(Self { table, parts, disk_size })
    }

    /// The partition with this name.
    pub fn find(&self, name: &str) -> Option<&Placed> {
        self.parts.iter().find(|p| p.name() == name)
    }

    /// Writes the partition table. Identifiers are random: a device replaces them at its first boot anyway, so an image has none
    /// worth keeping.
    ///
    /// # Errors
    /// When the disk cannot be written or a type GUID is wrong.
    pub fn write_table<D: Read + Write + Seek + Barrier>(&self, disk: &mut D) -> Result<(), TableError> {
        match self.table {
            TableType::Gpt => Ok(self.write_gpt(disk)?),
            TableType::Msdos => Ok(self.write_mbr(disk)?),
        }
    }

    fn write_gpt<D: Read + Write + Seek + Barrier>(&self, disk: &mut D) -> Result<(), TableError> {
        let mut table = gpt::Table::new(disk)?;
        for placed in &self.parts {
            let kind = placed.part.part_type.as_deref().unwrap_or(LINUX_TYPE);
            table.add(&gpt::NewPartition {
                number: placed.number,
                name: placed.name(),
                kind: gpt::Guid::parse(kind).map_err(|_| TableError::Insane("a type GUID is malformed"))?,
                start: placed.start,
                size: placed.part.size,
                bootable: placed.part.active,
            })?;
        }
        table.write(disk)
    }

    fn write_mbr<D: Read + Write + Seek + Barrier>(&self, disk: &mut D) -> Result<(), TableError> {
        let kind = |part: &Part| if part.fstype == FsType::Vfat { mbr::FAT32 } else { mbr::LINUX };
        let parts: Vec<_> = self
            .parts
            .iter()
            .map(|Placed { start, part, .. }| mbr::NewPartition {
                kind: kind(part),
                start: *start,
                size: part.size,
                active: part.active,
            })
            .collect();
        mbr::Table::new(disk, &parts)?.write(disk)
    }
}

fn gpt_name(part: &Part) -> Result<String, LayoutError> {
    let line = part.line;
    let Some(name) = &part.part_name else { return Err(LayoutError::NoName { line }) };
    if name.encode_utf16().count() > 36 {
        return Err(LayoutError::LongName { line, name: name.clone() });
    }
    Ok(name.clone())
}

/// What a partition of an MBR is for: their order says it.
fn mbr_role(part: &Part, index: usize, found: usize) -> Result<Role, LayoutError> {
    let line = part.line;
    if part.part_name.is_some() || part.part_type.is_some() {
        return Err(LayoutError::NotInMbr { line });
    }
    let role = *Role::EACH.get(index).ok_or(LayoutError::NotTheRoles { found })?;
    match &part.label {
        Some(label) if *label != role.to_string() => Err(LayoutError::OtherLabel { line, role, label: label.clone() }),
        _ => Ok(role),
    }
}

fn is_logical(table: TableType, index: usize) -> bool {
    table == TableType::Msdos && index >= mbr::PRIMARIES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kickstart;

    fn plan(text: &str) -> Result<Layout, LayoutError> {
        Layout::plan(&kickstart::parse("x", text).unwrap())
    }

    #[test]
    fn partitions_follow_each_other_aligned() {
        let l = plan(
            "bootloader --ptable gpt\npart --fstype none --part-name a --fixed-size 3M --align 4096\n\
             part --fstype none --part-name b --fixed-size 5M --align 4096\n",
        )
        .unwrap();
        assert_eq!(l.parts[0].start, 4 << 20);
        assert_eq!(l.parts[1].start, 8 << 20);
        assert_eq!(l.disk_size, 14 << 20);
        assert_eq!(l.find("b").unwrap().number, 2);
    }

    #[test]
    fn clashes_are_refused() {
        let twice = "bootloader --ptable gpt\npart --fstype none --part-name a --fixed-size 1M\npart --fstype none --part-name a --fixed-size 1M\n";
        assert!(matches!(plan(twice), Err(LayoutError::DuplicateName { line: 3, .. })));
        assert!(matches!(
            plan("bootloader --ptable gpt\npart --fstype none --fixed-size 1M\n"),
            Err(LayoutError::NoName { line: 2 })
        ));
        let huge = "bootloader --ptable gpt\npart --fstype none --part-name a --fixed-size 17179869183G\npart --fstype none --part-name b --fixed-size 1G\n";
        assert!(matches!(plan(huge), Err(LayoutError::TooLarge { .. })));
    }

    /// The template, with small partitions.
    fn mbr_text() -> String {
        let part = |label: &str, size| format!("part --fstype none {label} --fixed-size {size}M --align 4096\n");
        let mut text = "bootloader --ptable msdos\n".to_owned();
        text +=
            "part --source bootimg-partition --fstype vfat --label os-boot --active --fixed-size 16M --align 4096\n";
        for size in [8, 8, 12, 12] {
            text += &part("", size);
        }
        text + &part("--label os-state", 10) + &part("", 7)
    }

    #[test]
    fn an_mbr_is_laid_out_as_wic_does_it() {
        let layout = plan(&mbr_text()).unwrap();
        let placed: Vec<_> =
            layout.parts.iter().map(|p| (p.number, p.name(), p.start / 512, p.part.size / 512)).collect();
        // What sfdisk read of the image that wic made of this template.
        let wic = [
            (1, "os-boot", 8192, 32768),
            (2, "os-kernelA", 40960, 16384),
            (3, "os-kernelB", 57344, 16384),
            (5, "os-rootA", 81920, 24576),
            (6, "os-rootB", 114_688, 24576),
            (7, "os-state", 147_456, 20480),
            (8, "os-data", 172_032, 14336),
        ];
        assert_eq!(placed, wic);
        assert_eq!(layout.disk_size, 95_420_416);
        let mut disk = std::io::Cursor::new(vec![0; 95_420_416]);
        layout.write_table(&mut disk).unwrap();
        let found = os_disk::table::Table::read(&mut disk).unwrap().partitions().unwrap();
        let found: Vec<_> = found.iter().map(|p| (p.number, p.name.as_str(), p.start / 512, p.size / 512)).collect();
        assert_eq!(found, wic);
        // Type and flag of the boot partition, of a kernel, of the extended one.
        let bytes = disk.get_ref();
        assert_eq!([bytes[446], bytes[450], bytes[462], bytes[466], bytes[498]], [0x80, 0x0c, 0, 0x83, 0x0f]);
    }

    #[test]
    fn what_an_mbr_cannot_hold_is_refused() {
        let good = mbr_text();
        let with = |from: &str, to: &str| plan(&good.replacen(from, to, 1));
        assert!(matches!(with("--fstype none", "--part-name x --fstype none"), Err(LayoutError::NotInMbr { line: 3 })));
        assert!(matches!(with("os-state", "os-data"), Err(LayoutError::OtherLabel { line: 7, .. })));
        assert!(matches!(with(" --fixed-size 7M", " --fixed-size 4096G"), Err(LayoutError::TooLargeForMbr(_))));
        let error = plan(good.rsplit_once("part").unwrap().0).unwrap_err().to_string();
        assert!(error.contains("os-boot os-kernelA") && error.contains("here are 6"), "{error}");
        let more = format!("{good}part --fstype none --fixed-size 1M\n");
        assert!(matches!(plan(&more), Err(LayoutError::NotTheRoles { found: 8 })));
    }
}
