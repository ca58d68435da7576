//! The MBR of a disk, with logical partitions: reading, making, growing, giving it a new signature.
//!
//! There is no standard. What counts is how Linux reads one (`block/partitions/msdos.c`): four entries at the end of sector 0,
//! of which one may be an extended partition; in it a chain of sectors of the same form, each with a logical partition, numbered
//! from 5, and the place of the next. What is read here is what Linux sees or the first part of it: a chain ends where it is
//! damaged or makes no sense, and a table with such a chain is not grown.
//!
//! Boards that have one start what lies before the first partition. Of sector 0 only its end is written, and of the sectors
//! behind it none.

mod sector;

use crate::{Barrier, MIN_ALIGN, SECTOR, TableError};
use sector::{Entry, Sector};
use std::io::{Read, Seek, SeekFrom, Write};

/// One partition; the extended one, which only holds others, is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Number, from 1; logical ones from 5.
    pub number: u32,
    /// First byte on the disk.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
}

/// A partition to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewPartition {
    /// What it is for, such as [`FAT32`].
    pub kind: u8,
    /// First byte on the disk; a multiple of the sector size.
    pub start: u64,
    /// Length in bytes; a multiple of the sector size.
    pub size: u64,
    /// The one that a boot program of old starts.
    pub active: bool,
}

/// Type of a FAT filesystem, addressed by sectors.
pub const FAT32: u8 = 0x0c;
/// Type of a plain Linux partition.
pub const LINUX: u8 = 0x83;
/// Type of an extended partition, addressed by sectors.
const EXTENDED: u8 = 0x0f;
/// Type of a link to the next logical partition.
const LINK: u8 = 0x05;

/// The number of the first logical partition.
const FIRST_LOGICAL: u32 = 5;
/// Partitions of a table that is made before the extended one.
pub const PRIMARIES: usize = 3;
/// Logical partitions that are read at most.
const MAX_LOGICAL: usize = 64;
/// Sectors before a logical partition that hold its entry; as many as wic leaves.
pub const EBR_SECTORS: u64 = 2;
/// What a table can address, in bytes: 2^32 sectors.
pub const MAX_SIZE: u64 = SECTOR << 32;

/// A table that was read, with what it takes to write it back.
#[derive(Debug)]
pub struct Table {
    disk_size: u64,
    main: Sector,
    chain: Vec<Sector>,
    /// Why the chain ends before its end.
    broken: Option<&'static str>,
}

/// Whether the MBR protects a GPT and has partitions beside.
///
/// # Errors
/// When the disk cannot be read.
pub fn is_hybrid<D: Read + Seek>(disk: &mut D) -> std::io::Result<bool> {
    let entries = match Sector::read(disk, 0) {
        Ok(sector) => sector.entries(),
        Err(TableError::Io(err)) => return Err(err),
        Err(_) => return Ok(false),
    };
    let has = |protective: bool| entries.iter().any(|entry| entry.is_used() && entry.protects_gpt() == protective);
    Ok(has(true) && has(false))
}

/// First sector and the one behind the last.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: u64,
    end: u64,
}

impl Table {
    /// Reads the table of a disk with sectors of 512 bytes.
    ///
    /// # Errors
    /// When there is none, or it only protects a GPT.
    pub fn read<D: Read + Seek>(disk: &mut D) -> Result<Self, TableError> {
        let disk_size = disk.seek(SeekFrom::End(0))?;
        let main = Sector::read(disk, 0)?;
        let entries = main.entries();
        if entries.iter().any(Entry::is_strange) {
            return Err(TableError::NoMbr("an entry is neither active nor inactive"));
        }
        if entries.iter().any(Entry::protects_gpt) {
            return Err(TableError::NoMbr("it protects a GUID partition table"));
        }
        if !entries.iter().any(Entry::is_used) {
            return Err(TableError::NoMbr("it has no partition"));
        }
        let several = entries.iter().filter(|entry| entry.is_used() && entry.is_extended()).count() > 1;
        let mut table = Self { disk_size, main, chain: Vec::new(), broken: None };
        if entries.iter().any(|entry| entry.is_used() && entry.span(0).first == 0) {
            table.broken = Some("a partition begins with the table itself");
        } else if several {
            table.broken = Some("it has several extended partitions");
        } else if let Some((_, extended)) = table.extended() {
            table.broken = table.follow(disk, extended).err();
        }
        Ok(table)
    }

    /// Reads the logical partitions; why it stopped before the last one is the error.
    fn follow<D: Read + Seek>(&mut self, disk: &mut D, extended: Span) -> Result<(), &'static str> {
        let mut at = extended.first;
        loop {
            if self.chain.len() == MAX_LOGICAL {
                return Err("it has too many logical partitions");
            }
            let sector = Sector::read(disk, at).map_err(|_| "the entry of a logical partition cannot be read")?;
            let [data, link, rest @ ..] = sector.entries();
            if rest.iter().any(Entry::is_used) || data.is_extended() {
                return Err("the entry of a logical partition has no known form");
            }
            if !data.is_used() {
                // As an extended partition begins in which nothing was made yet.
                let empty = self.chain.is_empty() && !link.is_used();
                return if empty { Ok(()) } else { Err("a logical partition is missing") };
            }
            let span = data.span(at);
            if span.first == at || span.end > extended.end {
                return Err("a logical partition lies outside the extended one");
            }
            self.chain.push(sector);
            if !link.is_used() {
                return Ok(());
            }
            at = link.span(extended.first).first;
            // Each lies behind the one before, so that a chain has an end.
            if !link.is_extended() || at < span.end || at >= extended.end {
                return Err("the logical partitions are not in order");
            }
        }
    }

    /// Place in sector 0 and extent of the extended partition.
    fn extended(&self) -> Option<(usize, Span)> {
        let found =
            self.main.entries().into_iter().enumerate().find(|(_, entry)| entry.is_used() && entry.is_extended());
        found.map(|(index, entry)| (index, entry.span(0)))
    }

    /// Number, place and extent of each partition.
    fn spans(&self) -> Vec<(u32, Span)> {
        let primary =
            self.main.entries().into_iter().zip(1..).filter(|(entry, _)| entry.is_used() && !entry.is_extended());
        let primary = primary.map(|(entry, number)| (number, entry.span(0)));
        let logical = self.chain.iter().zip(FIRST_LOGICAL..).map(|(sector, number)| {
            let [data, ..] = sector.entries();
            (number, data.span(sector.place))
        });
        primary.chain(logical).collect()
    }

    /// The partitions in order of their number.
    pub fn partitions(&self) -> Vec<Partition> {
        let bytes = |sectors: u64| sectors.saturating_mul(SECTOR);
        let part = |(number, span): (u32, Span)| Partition {
            number,
            start: bytes(span.first),
            size: bytes(span.end.saturating_sub(span.first)),
        };
        self.spans().into_iter().map(part).collect()
    }

    /// The signature of the disk, from which Linux and bootloaders make the identifiers of partitions.
    pub fn signature(&self) -> u32 {
        self.main.signature()
    }

    /// Bytes that the table lies beyond the end of the disk: it was copied from a larger one.
    pub fn missing(&self) -> u64 {
        let ends = self.spans().into_iter().map(|(_, span)| span.end).chain(self.extended().map(|(_, span)| span.end));
        ends.max().unwrap_or(0).saturating_mul(SECTOR).saturating_sub(self.disk_size)
    }

    /// The sector behind the last one that a partition may have: of the disk, as far as the table can address it, aligned down
    /// to 1 MiB.
    fn end(&self) -> u64 {
        let addressed = self.disk_size.min(MAX_SIZE);
        addressed / MIN_ALIGN * MIN_ALIGN / SECTOR
    }

    /// Bytes that partition `number` could still grow by if it is the last on the disk; 0 for any other.
    ///
    /// # Errors
    /// When not all of the table could be read.
    pub fn growth(&self, number: u32) -> Result<u64, TableError> {
        if let Some(why) = self.broken {
            return Err(TableError::Insane(why));
        }
        let spans = self.spans();
        let Some((_, this)) = spans.iter().find(|(n, _)| *n == number) else { return Ok(0) };
        let mut others = spans.iter().filter(|(n, _)| *n != number).map(|(_, span)| *span).collect::<Vec<_>>();
        if number < FIRST_LOGICAL {
            others.extend(self.extended().map(|(_, span)| span));
        }
        if others.iter().any(|other| other.end > this.first) {
            return Ok(0);
        }
        Ok(self.end().saturating_sub(this.end).saturating_mul(SECTOR))
    }

    /// Lets partition `number` have `size` bytes, or as many as the disk has, and with it the extended partition that it lies
    /// in. A partition never shrinks, and only the last one grows.
    ///
    /// # Errors
    /// As [`Table::growth`].
    pub fn grow(&mut self, number: u32, size: Option<u64>) -> Result<(), TableError> {
        if self.growth(number)? == 0 {
            return Ok(());
        }
        let Some((_, this)) = self.spans().into_iter().find(|(n, _)| *n == number) else { return Ok(()) };
        let wanted = size.map_or(self.end(), |size| {
            this.first.saturating_add(size.div_ceil(MIN_ALIGN).saturating_mul(MIN_ALIGN) / SECTOR).min(self.end())
        });
        let end = wanted.max(this.end);
        let Some(index) = number.checked_sub(FIRST_LOGICAL).and_then(|index| usize::try_from(index).ok()) else {
            let index = usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
            return self.main.stretch(index, 0, end);
        };
        let Some((place, extended)) = self.extended() else { return Ok(()) };
        self.main.stretch(place, 0, end.max(extended.end))?;
        if let Some(before) = index.checked_sub(1).and_then(|before| self.chain.get_mut(before)) {
            before.stretch(1, extended.first, end)?;
        }
        self.chain.get_mut(index).map_or(Ok(()), |sector| sector.stretch(0, sector.place, end))
    }

    /// Gives the disk, and with it every partition, a new identifier.
    ///
    /// # Errors
    /// When the kernel gives no random numbers.
    pub fn randomize(&mut self) -> Result<(), TableError> {
        let old = self.signature();
        let mut bytes = [0; 4];
        // Zero means that there is none.
        while u32::from_le_bytes(bytes) == 0 || u32::from_le_bytes(bytes) == old {
            getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        }
        self.main.sign(bytes);
        Ok(())
    }

    /// A table of [`PRIMARIES`] partitions and, in an extended one, of all others, for an empty disk. They are in order, and
    /// before each logical one [`EBR_SECTORS`] are free.
    ///
    /// # Errors
    /// When they are not in order or too far behind for a table of this kind, or the kernel gives no random numbers.
    pub fn new<D: Seek>(disk: &mut D, parts: &[NewPartition]) -> Result<Self, TableError> {
        let insane = || TableError::Insane("a partition that is to be made has no room where it is to be");
        let disk_size = disk.seek(SeekFrom::End(0))?;
        let (primary, logical) = parts.split_at_checked(PRIMARIES).unwrap_or((parts, &[]));
        let mut table = Self { disk_size, main: Sector::empty(0), chain: Vec::new(), broken: None };
        table.randomize()?;
        let span = |part: &NewPartition| {
            let end = part.start.checked_add(part.size).filter(|end| *end <= disk_size).ok_or_else(insane)?;
            Ok::<_, TableError>(Span { first: part.start / SECTOR, end: end / SECTOR })
        };
        let mut free = 1;
        for (index, part) in primary.iter().enumerate() {
            let span = span(part)?;
            table.main.set(index, &Entry::new(part.kind, part.active, 0, span.first, span.end)?);
            if span.first < free {
                return Err(insane());
            }
            free = span.end;
        }
        let Some((first, last)) = logical.first().zip(logical.last()) else { return Ok(table) };
        let begin = span(first)?.first.saturating_sub(EBR_SECTORS);
        table.main.set(PRIMARIES, &Entry::new(EXTENDED, false, 0, begin, span(last)?.end)?);
        for part in logical {
            let span = span(part)?;
            let place = span.first.checked_sub(EBR_SECTORS).filter(|place| *place >= free).ok_or_else(insane)?;
            if let Some(before) = table.chain.last_mut() {
                before.set(1, &Entry::new(LINK, false, begin, place, span.end)?);
            }
            let mut sector = Sector::empty(place);
            sector.set(0, &Entry::new(part.kind, part.active, place, span.first, span.end)?);
            table.chain.push(sector);
            free = span.end;
        }
        Ok(table)
    }

    /// Writes what was changed, sector by sector: the extended partition has grown before what lies in it has, so that after
    /// each of them every partition is there.
    ///
    /// # Errors
    /// When the disk cannot be written.
    pub fn write<D: Write + Seek + Barrier>(&mut self, disk: &mut D) -> Result<(), TableError> {
        for sector in std::iter::once(&mut self.main).chain(&mut self.chain) {
            sector.write(disk)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
