//! The GUID partition table of a real disk or image: reading, growing, giving it new identifiers.

use gptman::GPT;
use std::fmt;
use std::io::{Read, Seek, SeekFrom, Write};

/// Why a table could not be used.
#[derive(Debug, thiserror::Error)]
pub enum GptError {
    /// Reading or writing the table failed, or it is damaged.
    #[error("partition table: {0}")]
    Table(#[from] gptman::Error),
    /// The device itself failed.
    #[error("disk: {0}")]
    Io(#[from] std::io::Error),
    /// A number in the table makes no sense.
    #[error("partition table: {0}")]
    Insane(&'static str),
}

/// A GUID in its on-disk byte order (the first three fields little endian).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// Parses `XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX`, any case.
    ///
    /// # Errors
    /// When the text is not of that form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}' is no GUID");
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        if lengths != [8, 4, 4, 4, 12] || !text.is_ascii() {
            return Err(bad());
        }
        let hex: String = text.chars().filter(|c| *c != '-').collect();
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
        let [i, j, k, l, m, n, o, p] = rest;
        Ok(Self([d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]))
    }

    /// A new random GUID (version 4).
    ///
    /// # Errors
    /// When the kernel gives no random numbers.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        let [a, b, c, d, e, f, g, h, i, rest @ ..] = bytes;
        let [j, k, l, m, n, o, p] = rest;
        Ok(Self([a, b, c, d, e, f, g, h & 0x0f | 0x40, i & 0x3f | 0x80, j, k, l, m, n, o, p]))
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p] = self.0;
        write!(
            out,
            "{a:02X}{b:02X}{c:02X}{d:02X}-{e:02X}{f:02X}-{g:02X}{h:02X}-{i:02X}{j:02X}-\
             {k:02X}{l:02X}{m:02X}{n:02X}{o:02X}{p:02X}"
        )
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

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

/// A table that was read, with what it takes to write it back.
#[derive(Debug)]
pub struct Table {
    gpt: GPT,
    disk_size: u64,
}

impl Table {
    /// Reads the table; a damaged primary is replaced by the backup.
    ///
    /// # Errors
    /// When there is no usable table.
    pub fn read<D: Read + Seek>(disk: &mut D) -> Result<Self, GptError> {
        let disk_size = disk.seek(SeekFrom::End(0))?;
        disk.rewind()?;
        let gpt = GPT::find_from(disk)?;
        let header = &gpt.header;
        if header.first_usable_lba > header.last_usable_lba || gpt.sector_size == 0 {
            return Err(GptError::Insane("usable area is empty"));
        }
        Ok(Self { gpt, disk_size })
    }

    /// The used partitions in order of their number.
    ///
    /// # Errors
    /// When an entry ends before it starts or lies beyond what a byte offset can say.
    pub fn partitions(&self) -> Result<Vec<Partition>, GptError> {
        let sector = self.gpt.sector_size;
        let mut out = Vec::new();
        for (number, entry) in self.gpt.iter().filter(|(_, e)| e.is_used()) {
            let insane = || GptError::Insane("a partition lies outside the disk");
            out.push(Partition {
                number,
                name: entry.partition_name.as_str().to_owned(),
                guid: Guid(entry.unique_partition_guid),
                start: entry.starting_lba.checked_mul(sector).ok_or_else(insane)?,
                size: entry.size()?.checked_mul(sector).ok_or_else(insane)?,
            });
        }
        Ok(out)
    }

    /// Bytes that partition `number` could still grow by if it is the last on the disk; 0 for any other.
    ///
    /// # Errors
    /// When the disk is too small for the table.
    pub fn growth(&self, number: u32) -> Result<u64, GptError> {
        let last = self.last_usable_lba()?;
        let Some((_, entry)) = self.gpt.iter().find(|(n, e)| *n == number && e.is_used()) else { return Ok(0) };
        if self.gpt.iter().any(|(n, e)| n != number && e.is_used() && e.starting_lba > entry.starting_lba) {
            return Ok(0);
        }
        Ok(last.saturating_sub(entry.ending_lba).saturating_mul(self.gpt.sector_size))
    }

    /// The last usable sector of the disk as it is now, aligned down to 1 MiB.
    fn last_usable_lba(&self) -> Result<u64, GptError> {
        let sector = self.gpt.sector_size;
        let entries = u64::from(self.gpt.header.number_of_partition_entries)
            .saturating_mul(u64::from(self.gpt.header.size_of_partition_entry));
        let tail = entries.div_ceil(sector).saturating_add(1).saturating_mul(sector);
        let end = self.disk_size.checked_sub(tail).ok_or(GptError::Insane("disk is too small"))?;
        let aligned = end / crate::MIN_ALIGN * crate::MIN_ALIGN;
        (aligned / sector).checked_sub(1).ok_or(GptError::Insane("disk is too small"))
    }

    /// Lets partition `number` have `size` bytes, or as many as the disk has, and moves the backup table to the end of
    /// the disk. A partition never shrinks.
    ///
    /// # Errors
    /// When the disk is too small for the table.
    pub fn grow<D: Read + Seek>(&mut self, disk: &mut D, number: u32, size: Option<u64>) -> Result<(), GptError> {
        let last = self.last_usable_lba()?;
        let sector = self.gpt.sector_size;
        self.gpt.header.update_from(disk, sector)?;
        for (n, entry) in self.gpt.iter_mut() {
            if n == number && entry.is_used() {
                let wanted = size.map_or(last, |size| {
                    let sectors = size.div_ceil(crate::MIN_ALIGN).saturating_mul(crate::MIN_ALIGN) / sector;
                    entry.starting_lba.saturating_add(sectors).saturating_sub(1).min(last)
                });
                entry.ending_lba = entry.ending_lba.max(wanted);
            }
        }
        Ok(())
    }

    /// Gives the disk and every partition a new random identifier.
    ///
    /// # Errors
    /// When the kernel gives no random numbers.
    pub fn randomize(&mut self) -> Result<(), GptError> {
        self.gpt.header.disk_guid = Guid::random()?.0;
        for (_, entry) in self.gpt.iter_mut() {
            if entry.is_used() {
                entry.unique_partition_guid = Guid::random()?.0;
            }
        }
        Ok(())
    }

    /// Writes both copies of the table; at any moment at least one of them is whole.
    ///
    /// # Errors
    /// When the disk cannot be written.
    pub fn write<D: Read + Write + Seek>(&mut self, disk: &mut D) -> Result<(), GptError> {
        self.gpt.write_into(disk)?;
        GPT::write_protective_mbr_into(disk, self.gpt.sector_size)?;
        disk.flush()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kickstart, layout::Layout};
    use std::io::Cursor;

    fn image(size: usize) -> Cursor<Vec<u8>> {
        let text = "bootloader --ptable gpt\npart --part-name os-boot --fixed-size 2M\npart --part-name os-data --fixed-size 2M\n";
        let layout = Layout::plan(&kickstart::parse("x", text).unwrap()).unwrap();
        let mut disk = Cursor::new(vec![0; usize::try_from(layout.disk_size).unwrap()]);
        layout.write_table(&mut disk).unwrap();
        disk.get_mut().resize(size, 0);
        disk
    }

    #[test]
    fn guid_text_round_trips() {
        let text = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
        let guid = Guid::parse(text).unwrap();
        assert_eq!(guid.to_string(), text);
        assert_eq!(guid.0[0], 0x28);
        assert!(Guid::parse("C12A7328F81F11D2BA4B00A0C93EC93B").is_err());
        assert!(Guid::parse("ä12A7328-F81F-11D2-BA4B-00A0C93EC9B").is_err());
        assert_ne!(Guid::random().unwrap(), Guid::random().unwrap());
    }

    #[test]
    fn last_partition_grows_to_the_end_and_only_once() {
        let mut disk = image(64 << 20);
        let mut table = Table::read(&mut disk).unwrap();
        assert_eq!(table.growth(1).unwrap(), 0);
        let more = table.growth(2).unwrap();
        assert!(more > 50 << 20, "{more}");
        table.grow(&mut disk, 2, Some(1)).unwrap();
        assert_eq!(table.growth(2).unwrap(), more);
        table.grow(&mut disk, 2, Some((4 << 20) + 1)).unwrap();
        assert_eq!(table.growth(2).unwrap(), more - (3 << 20));
        table.grow(&mut disk, 2, None).unwrap();
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
    fn torn_primary_is_replaced_by_the_backup() {
        let mut disk = image(6 << 20);
        let size = disk.get_ref().len();
        let mut table = Table::read(&mut disk).unwrap();
        table.grow(&mut disk, 2, None).unwrap();
        table.write(&mut disk).unwrap();
        assert_eq!(size, disk.get_ref().len());
        disk.get_mut()[512..1024].fill(0xff);
        let parts = Table::read(&mut disk).unwrap().partitions().unwrap();
        assert_eq!(parts.len(), 2);
    }

    #[test]
    fn no_table_is_an_error() {
        assert!(Table::read(&mut Cursor::new(vec![0; 1 << 20])).is_err());
        assert!(Table::read(&mut Cursor::new(Vec::new())).is_err());
    }
}
