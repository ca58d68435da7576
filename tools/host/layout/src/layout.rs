//! From a parsed kickstart file to byte offsets on a disk, checked, and to a partition table.

use crate::kickstart::{Kickstart, Part, TableType};
use os_disk::MIN_ALIGN;
use os_disk::gpt::{Barrier, GptError, Guid, NewPartition, Table};
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
    /// MBR images are made by wic only so far.
    #[error("this writer makes GPT images only; build an MBR board's image with kas")]
    Msdos,
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
}

impl Placed {
    /// The GPT name.
    pub fn name(&self) -> &str {
        self.part.part_name.as_deref().unwrap_or_default()
    }
}

/// Every partition in its place, and the size of the disk that holds them.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Partitions in disk order.
    pub parts: Vec<Placed>,
    /// Bytes of the whole image, both tables included.
    pub disk_size: u64,
}

impl Layout {
    /// Places the partitions one after the other.
    ///
    /// # Errors
    /// When names clash or sizes overflow.
    pub fn plan(kickstart: &Kickstart) -> Result<Self, LayoutError> {
        if kickstart.table != TableType::Gpt {
            return Err(LayoutError::Msdos);
        }
        let mut parts: Vec<Placed> = Vec::new();
        let mut next = MIN_ALIGN;
        for (part, number) in kickstart.parts.iter().zip(1..) {
            let line = part.line;
            let Some(name) = &part.part_name else { return Err(LayoutError::NoName { line }) };
            if name.encode_utf16().count() > 36 {
                return Err(LayoutError::LongName { line, name: name.clone() });
            }
            if parts.iter().any(|p| p.name() == name) {
                return Err(LayoutError::DuplicateName { line, name: name.clone() });
            }
            let too_large = || LayoutError::TooLarge { line };
            let start = next.checked_next_multiple_of(part.align).ok_or_else(too_large)?;
            next = start.checked_add(part.size).ok_or_else(too_large)?;
            parts.push(Placed { number, start, part: part.clone() });
        }
        let end = next.checked_next_multiple_of(MIN_ALIGN).and_then(|end| end.checked_add(MIN_ALIGN));
        let disk_size = end.ok_or(LayoutError::TooLarge { line: parts.last().map_or(0, |p| p.part.line) })?;
        Ok(Self { parts, disk_size })
    }

    /// The partition with this GPT name.
    pub fn find(&self, name: &str) -> Option<&Placed> {
        self.parts.iter().find(|p| p.name() == name)
    }

    /// Writes protective MBR and both GPT copies. Identifiers are random: a device replaces them at its first boot
    /// anyway, so an image has none worth keeping.
    ///
    /// # Errors
    /// When the disk cannot be written or a type GUID is wrong.
    pub fn write_table<D: Read + Write + Seek + Barrier>(&self, disk: &mut D) -> Result<(), GptError> {
        let mut table = Table::new(disk)?;
        for placed in &self.parts {
            let kind = placed.part.part_type.as_deref().unwrap_or(LINUX_TYPE);
            table.add(&NewPartition {
                number: placed.number,
                name: placed.name(),
                kind: Guid::parse(kind).map_err(|_| GptError::Insane("a type GUID is malformed"))?,
                start: placed.start,
                size: placed.part.size,
                bootable: placed.part.active,
            })?;
        }
        table.write(disk)
    }
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
}
