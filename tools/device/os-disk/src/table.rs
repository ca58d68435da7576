//! The partition table of a disk that the OS lies on: a GPT, or an MBR on boards whose boot ROM needs the first sectors.

use crate::gpt;
use crate::guid::Guid;
use crate::mbr;
use crate::{Barrier, TableError};
use os_facts::Role;
use std::fmt;
use std::io::{Read, Seek, Write};

/// Identifier of a partition (PARTUUID), as the kernel, U-Boot and GRUB write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartId {
    /// In a GPT.
    Gpt(Guid),
    /// In an MBR: the signature of the disk, and the partition's number.
    Mbr {
        /// Signature of the disk.
        signature: u32,
        /// Number, from 1.
        number: u32,
    },
}

impl PartId {
    /// Parses a GUID, or `SSSSSSSS-NN` with hexadecimal digits, any case.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(guid) = Guid::parse(text) {
            return Some(Self::Gpt(guid));
        }
        let hex = |text: &str, length: usize| {
            let fits = text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            fits.then(|| u32::from_str_radix(text, 16).ok()).flatten()
        };
        let (signature, number) = text.split_once('-')?;
        Some(Self::Mbr { signature: hex(signature, 8)?, number: hex(number, 2)? })
    }
}

impl fmt::Display for PartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpt(guid) => guid.fmt(f),
            Self::Mbr { signature, number } => write!(f, "{signature:08x}-{number:02x}"),
        }
    }
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Number, from 1.
    pub number: u32,
    /// Its name in a GPT. An MBR has none: there it is that of its role.
    pub name: String,
    /// What it is for, by its name or number; none where that is none of ours.
    pub role: Option<Role>,
    /// Identifier (PARTUUID).
    pub id: PartId,
    /// First byte on the disk.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
}

/// A table that was read, with what it takes to write it back.
#[derive(Debug)]
pub enum Table {
    /// A GPT.
    Gpt(gpt::Table),
    /// An MBR.
    Mbr(mbr::Table),
}

impl Table {
    /// Reads the table that the kernel takes: an MBR with partitions goes before what is left of an older GPT, such as its copy
    /// at the end of the disk, unless it says itself that there is a GPT.
    ///
    /// # Errors
    /// When there is no usable table.
    pub fn read<D: Read + Seek>(disk: &mut D) -> Result<Self, TableError> {
        let mbr = match mbr::Table::read(disk) {
            Ok(table) => return Ok(Self::Mbr(table)),
            Err(err @ TableError::NoMbr(_)) => err,
            Err(err) => return Err(err),
        };
        match gpt::Table::read(disk) {
            Ok(table) => Ok(Self::Gpt(table)),
            Err(gpt @ TableError::NoGpt(_)) => Err(TableError::Neither { mbr: mbr.into(), gpt: gpt.into() }),
            Err(err) => Err(err),
        }
    }

    /// The partitions in order of their number.
    ///
    /// # Errors
    /// When a number in the table makes no sense.
    pub fn partitions(&self) -> Result<Vec<Partition>, TableError> {
        match self {
            Self::Gpt(table) => {
                let part = |gpt::Partition { number, name, guid, start, size }| Partition {
                    role: Role::of(&name),
                    id: PartId::Gpt(guid),
                    number,
                    name,
                    start,
                    size,
                };
                Ok(table.partitions()?.into_iter().map(part).collect())
            }
            Self::Mbr(table) => {
                let signature = table.signature();
                let part = |mbr::Partition { number, start, size }| {
                    let role = Role::of_mbr_number(number);
                    let name = role.map(|role| role.to_string()).unwrap_or_default();
                    Partition { number, name, role, id: PartId::Mbr { signature, number }, start, size }
                };
                Ok(table.partitions().into_iter().map(part).collect())
            }
        }
    }

    /// Bytes that the table lies beyond the end of the disk: it was copied from a larger one.
    ///
    /// # Errors
    /// As [`Table::partitions`].
    pub fn missing(&self) -> Result<u64, TableError> {
        match self {
            Self::Gpt(table) => table.missing(),
            Self::Mbr(table) => Ok(table.missing()),
        }
    }

    /// Bytes that partition `number` could still grow by if it is the last on the disk; 0 for any other.
    ///
    /// # Errors
    /// When the table cannot be grown.
    pub fn growth(&self, number: u32) -> Result<u64, TableError> {
        match self {
            Self::Gpt(table) => table.growth(number),
            Self::Mbr(table) => table.growth(number),
        }
    }

    /// Lets partition `number` have `size` bytes, or as many as the disk has. A partition never shrinks.
    ///
    /// # Errors
    /// When the table cannot be grown.
    pub fn grow(&mut self, number: u32, size: Option<u64>) -> Result<(), TableError> {
        match self {
            Self::Gpt(table) => table.grow(number, size),
            Self::Mbr(table) => table.grow(number, size),
        }
    }

    /// Gives the disk and every partition a new random identifier.
    ///
    /// # Errors
    /// When the kernel gives no random numbers.
    pub fn randomize(&mut self) -> Result<(), TableError> {
        match self {
            Self::Gpt(table) => table.randomize(),
            Self::Mbr(table) => table.randomize(),
        }
    }

    /// Writes the table in such an order that at any moment a whole one is on the medium.
    ///
    /// # Errors
    /// When the disk cannot be written.
    pub fn write<D: Read + Write + Seek + Barrier>(&mut self, disk: &mut D) -> Result<(), TableError> {
        match self {
            Self::Gpt(table) => table.write(disk),
            Self::Mbr(table) => table.write(disk),
        }
    }
}

#[cfg(test)]
mod tests;
