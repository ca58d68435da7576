//! The GUID partition table of a disk or image (UEFI specification, chapter 5): reading, making, growing, giving it new
//! identifiers.
//!
//! Every disk that a device sees is read in the first process of its initramfs, whose end is the machine's end. So nothing
//! of a table is believed before it was checked, sizes have limits, and numbers are computed with checks: damaged and
//! hostile tables are errors.

mod entry;
mod header;

pub use crate::guid::Guid;
use crate::{Barrier, TableError};
use entry::{Entries, Entry};
use header::Header;
use std::io::{Read, Seek, SeekFrom, Write};

/// One used entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Number, from 1.
    pub number: u32,
    /// Partition name (PARTLABEL).
    pub name: String,
    /// Identifier (PARTUUID).
    pub guid: Guid,
    /// First byte on the disk.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
}

/// A partition to be made.
#[derive(Debug)]
pub struct NewPartition<'a> {
    /// Number, from 1.
    pub number: u32,
    /// Partition name (PARTLABEL), of at most 36 UTF-16 units.
    pub name: &'a str,
    /// What it is for.
    pub kind: Guid,
    /// First byte on the disk; a multiple of the sector size.
    pub start: u64,
    /// Length in bytes; a multiple of the sector size.
    pub size: u64,
    /// The attribute "legacy BIOS bootable".
    pub bootable: bool,
}

/// Sector sizes that disks have, in bytes.
const SECTORS: [u64; 2] = [crate::SECTOR, 4096];

/// A table that was read, with what it takes to write it back.
#[derive(Debug)]
pub struct Table {
    sector: u64,
    disk_size: u64,
    header: Header,
    entries: Entries,
}

impl Table {
    /// An empty table for a disk, with sectors of 512 bytes.
    ///
    /// # Errors
    /// When the disk is too small, or the kernel gives no random numbers.
    pub fn new<D: Seek>(disk: &mut D) -> Result<Self, TableError> {
        let ([sector, _], disk_size) = (SECTORS, disk.seek(SeekFrom::End(0))?);
        let entries = Entries::empty();
        let mut header = Header::new(Guid::random()?, &entries, sector);
        header.move_to_end(disk_size, sector)?;
        Ok(Self { sector, disk_size, header, entries })
    }

    /// Reads the table; a damaged primary is replaced by the backup.
    ///
    /// # Errors
    /// When there is no usable table.
    pub fn read<D: Read + Seek>(disk: &mut D) -> Result<Self, TableError> {
        let disk_size = disk.seek(SeekFrom::End(0))?;
        let mut why = "no sector holds one";
        for sector in SECTORS {
            let last = (disk_size / sector).saturating_sub(1);
            for place in [1, last] {
                match read_copy(disk, sector, place) {
                    Ok((header, entries)) => {
                        return Ok(Self { sector, disk_size, header: header.into_primary(), entries });
                    }
                    Err(TableError::NoGpt(reason)) => why = if reason == header::NO_SIGNATURE { why } else { reason },
                    // The end of a disk that is shorter than its table says.
                    Err(TableError::Io(err)) if err.kind() == std::io::ErrorKind::UnexpectedEof => {}
                    Err(err) => return Err(err),
                }
            }
        }
        Err(TableError::NoGpt(why))
    }

    /// The used partitions in order of their number.
    ///
    /// # Errors
    /// When an entry ends before it starts or lies beyond what a byte offset can say.
    pub fn partitions(&self) -> Result<Vec<Partition>, TableError> {
        let insane = || TableError::Insane("a partition lies outside the disk");
        let mut out = Vec::new();
        for (number, entry) in self.entries.used() {
            let sectors = entry.last.checked_sub(entry.first).and_then(|n| n.checked_add(1)).ok_or_else(insane)?;
            out.push(Partition {
                number,
                name: entry.name(),
                guid: entry.guid,
                start: entry.first.checked_mul(self.sector).ok_or_else(insane)?,
                size: sectors.checked_mul(self.sector).ok_or_else(insane)?,
            });
        }
        Ok(out)
    }

    /// Bytes that the table lies beyond the end of the disk: it was copied from a larger one.
    ///
    /// # Errors
    /// As [`Table::partitions`].
    pub fn missing(&self) -> Result<u64, TableError> {
        let end = self.partitions()?.iter().map(|part| part.start.saturating_add(part.size)).max();
        Ok(end.unwrap_or(0).saturating_sub(self.disk_size))
    }

    /// Adds a partition.
    ///
    /// # Errors
    /// When its number or name is too large, or the kernel gives no random numbers.
    pub fn add(&mut self, new: &NewPartition<'_>) -> Result<(), TableError> {
        let insane = || TableError::Insane("a partition that is to be made lies outside the disk");
        let first = new.start / self.sector;
        let last = first.checked_add(new.size / self.sector).and_then(|end| end.checked_sub(1)).ok_or_else(insane)?;
        let entry = Entry::new(new, Guid::random()?, first, last)?;
        self.entries.set(new.number, &entry)
    }

    /// Bytes that partition `number` could still grow by if it is the last on the disk; 0 for any other.
    ///
    /// # Errors
    /// When the disk is too small for the table.
    pub fn growth(&self, number: u32) -> Result<u64, TableError> {
        let last = self.last_usable()?;
        let Some((_, entry)) = self.entries.used().find(|(n, _)| *n == number) else { return Ok(0) };
        if self.entries.used().any(|(n, e)| n != number && e.first > entry.first) {
            return Ok(0);
        }
        Ok(last.saturating_sub(entry.last).saturating_mul(self.sector))
    }

    /// The last usable sector of the disk as it is now, aligned down to 1 MiB.
    fn last_usable(&self) -> Result<u64, TableError> {
        let small = TableError::Insane("the disk is too small");
        let end = self.header.last_usable_at_end(self.disk_size, self.sector)?.saturating_add(1);
        let aligned = end.saturating_mul(self.sector) / crate::MIN_ALIGN * crate::MIN_ALIGN;
        (aligned / self.sector).checked_sub(1).ok_or(small)
    }

    /// Lets partition `number` have `size` bytes, or as many as the disk has, and moves the backup table to the end of
    /// the disk. A partition never shrinks.
    ///
    /// # Errors
    /// When the disk is too small for the table.
    pub fn grow(&mut self, number: u32, size: Option<u64>) -> Result<(), TableError> {
        let last = self.last_usable()?;
        self.header.move_to_end(self.disk_size, self.sector)?;
        let Some((_, mut entry)) = self.entries.used().find(|(n, _)| *n == number) else { return Ok(()) };
        let wanted = size.map_or(last, |size| {
            let sectors = size.div_ceil(crate::MIN_ALIGN).saturating_mul(crate::MIN_ALIGN) / self.sector;
            entry.first.saturating_add(sectors).saturating_sub(1).min(last)
        });
        entry.last = entry.last.max(wanted);
        self.entries.set(number, &entry)
    }

    /// Gives the disk and every partition a new random identifier.
    ///
    /// # Errors
    /// When the kernel gives no random numbers.
    pub fn randomize(&mut self) -> Result<(), TableError> {
        self.header.disk = Guid::random()?;
        let used: Vec<_> = self.entries.used().collect();
        for (number, mut entry) in used {
            entry.guid = Guid::random()?;
            self.entries.set(number, &entry)?;
        }
        Ok(())
    }

    /// Writes both copies of the table, the backup first; at any moment at least one of them is whole on the medium.
    ///
    /// # Errors
    /// When the disk cannot be written.
    pub fn write<D: Read + Write + Seek + Barrier>(&mut self, disk: &mut D) -> Result<(), TableError> {
        self.header.seal(&self.entries);
        for header in [self.header.backup(self.sector)?, self.header.clone()] {
            self.put(disk, header.entries_at, self.entries.bytes())?;
            self.put(disk, header.place, &header.bytes())?;
            disk.barrier()?;
        }
        self.protect(disk)?;
        Ok(disk.barrier()?)
    }

    fn put<D: Write + Seek>(&self, disk: &mut D, place: u64, bytes: &[u8]) -> Result<(), TableError> {
        let at = place.checked_mul(self.sector).ok_or(TableError::Insane("the table lies outside the disk"))?;
        disk.seek(SeekFrom::Start(at))?;
        Ok(disk.write_all(bytes)?)
    }

    /// Writes the protective MBR, which tells older programs that the disk is in use. A boot program in it stays, and so does
    /// a hybrid one, whose other entries are for a boot ROM that knows no GPT.
    fn protect<D: Read + Write + Seek>(&self, disk: &mut D) -> Result<(), TableError> {
        if crate::mbr::is_hybrid(disk)? {
            return Ok(());
        }
        let sectors = u32::try_from((self.disk_size / self.sector).saturating_sub(1)).unwrap_or(u32::MAX);
        let [a, b, c, d] = sectors.to_le_bytes();
        // One entry: no flags, first sector as cylinder, head and sector, type, last sector, first sector, sectors.
        let entry = [0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, a, b, c, d];
        let wanted = [&entry[..], &[0; 48], &[0x55, 0xaa]].concat();
        let mut found = [0u8; 66];
        disk.seek(SeekFrom::Start(446))?;
        disk.read_exact(&mut found)?;
        if found[..] != wanted[..] {
            disk.seek(SeekFrom::Start(446))?;
            disk.write_all(&wanted)?;
        }
        Ok(())
    }
}

/// Reads the copy of the table whose header is in this sector.
fn read_copy<D: Read + Seek>(disk: &mut D, sector: u64, place: u64) -> Result<(Header, Entries), TableError> {
    let outside = || TableError::NoGpt("it lies outside the disk");
    let mut read = |at: u64, length: u64| -> Result<Vec<u8>, TableError> {
        disk.seek(SeekFrom::Start(at.checked_mul(sector).ok_or_else(outside)?))?;
        let mut bytes = Vec::new();
        disk.by_ref().take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == length { Ok(bytes) } else { Err(outside()) }
    };
    let header = Header::parse(&read(place, sector)?, place, sector)?;
    let entries = Entries::parse(read(header.entries_at, header.entries_length())?, &header)?;
    Ok((header, entries))
}

#[cfg(test)]
mod tests;
