//! The header of one copy of a table (UEFI specification, 5.3.2).

use super::entry::{self, Entries};
use crate::TableError;
use crate::guid::Guid;

/// Said of what is no table at all.
pub(super) const NO_SIGNATURE: &str = "no signature";

/// What a table begins with.
const SIGNATURE: &[u8; 8] = b"EFI PART";
const REVISION: u32 = 0x0001_0000;
/// Bytes that are defined.
const SIZE: u32 = 92;

/// A header that was checked.
#[derive(Debug, Clone)]
pub(super) struct Header {
    /// Sector that it is in.
    pub(super) place: u64,
    /// Sector of the other copy's header.
    other: u64,
    first_usable: u64,
    last_usable: u64,
    /// Identifier of the disk.
    pub(super) disk: Guid,
    /// First sector of the entries.
    pub(super) entries_at: u64,
    pub(super) count: u32,
    pub(super) entry_size: u32,
    pub(super) entries_sum: u32,
    /// Sectors of the entries, rounded up.
    entries_sectors: u64,
}

/// Reads numbers one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], TableError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(TableError::NoGpt("its header is too short"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, TableError> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, TableError> {
        self.bytes().map(u64::from_le_bytes)
    }
}

impl Header {
    /// For a table that is made.
    pub(super) fn new(disk: Guid, entries: &Entries, sector: u64) -> Self {
        let (count, entry_size) = (entry::COUNT, entry::SIZE);
        let entries_sectors = u64::from(count).saturating_mul(u64::from(entry_size)).div_ceil(sector);
        let first_usable = entries_sectors.saturating_add(2);
        let entries_sum = entries.sum();
        Self {
            place: 1,
            other: 0,
            first_usable,
            last_usable: 0,
            disk,
            entries_at: 2,
            count,
            entry_size,
            entries_sum,
            entries_sectors,
        }
    }

    /// Reads and checks the header that was found in a sector.
    pub(super) fn parse(bytes: &[u8], place: u64, sector: u64) -> Result<Self, TableError> {
        let damaged = TableError::NoGpt;
        let mut fields = Fields(bytes);
        if &fields.bytes::<8>()? != SIGNATURE {
            return Err(damaged(NO_SIGNATURE));
        }
        let (_revision, size, sum, _reserved) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let used = bytes.get(..size).filter(|used| used.len() >= 92).ok_or(damaged("its header has no sane size"))?;
        if checksum(used) != sum {
            return Err(damaged("the checksum of its header is wrong"));
        }
        let (own, other, first_usable, last_usable) = (fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?);
        let disk = Guid(fields.bytes()?);
        let (entries_at, count, entry_size, entries_sum) = (fields.u64()?, fields.u32()?, fields.u32()?, fields.u32()?);
        if own != place {
            return Err(damaged("its header belongs somewhere else"));
        }
        let whole = entry_size.is_power_of_two() && (entry::SIZE..=entry::MAX_SIZE).contains(&entry_size);
        if !whole || count == 0 || count > entry::MAX_COUNT {
            return Err(damaged("number or size of its entries make no sense"));
        }
        let entries_sectors = u64::from(count).saturating_mul(u64::from(entry_size)).div_ceil(sector);
        if first_usable > last_usable || first_usable < 2 || entries_at < 2 {
            return Err(damaged("its usable area is empty"));
        }
        Ok(Self {
            place,
            other,
            first_usable,
            last_usable,
            disk,
            entries_at,
            count,
            entry_size,
            entries_sum,
            entries_sectors,
        })
    }

    /// Bytes of the entries.
    pub(super) fn entries_length(&self) -> u64 {
        u64::from(self.count).saturating_mul(u64::from(self.entry_size))
    }

    /// The same table's header at the beginning of the disk.
    pub(super) fn into_primary(self) -> Self {
        if self.place == 1 {
            return self;
        }
        Self { other: self.place, place: 1, entries_at: 2, ..self }
    }

    /// The same table's header where its copy is.
    pub(super) fn backup(&self, sector: u64) -> Result<Self, TableError> {
        let sectors = self.entries_length().div_ceil(sector);
        let outside = TableError::Insane("the backup of the table lies outside the disk");
        let entries_at = self.other.checked_sub(sectors).filter(|at| *at > self.last_usable).ok_or(outside)?;
        Ok(Self { place: self.other, other: 1, entries_at, ..self.clone() })
    }

    /// The last usable sector when the copy is at the end of a disk of so many bytes.
    pub(super) fn last_usable_at_end(&self, disk_size: u64, sector: u64) -> Result<u64, TableError> {
        // The copy's entries, and its header.
        let tail = self.entries_sectors.saturating_add(2);
        let last = (disk_size / sector).checked_sub(tail).filter(|last| *last >= self.first_usable);
        last.ok_or(TableError::Insane("the disk is too small"))
    }

    /// Has the copy at the end of a disk of so many bytes.
    pub(super) fn move_to_end(&mut self, disk_size: u64, sector: u64) -> Result<(), TableError> {
        self.last_usable = self.last_usable_at_end(disk_size, sector)?;
        self.other = (disk_size / sector).saturating_sub(1);
        Ok(())
    }

    /// Takes over the checksum of the entries.
    pub(super) fn seal(&mut self, entries: &Entries) {
        self.entries_sum = entries.sum();
    }

    /// As it is written.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let with = |sum: u32| {
            let mut out = SIGNATURE.to_vec();
            for number in [REVISION, SIZE, sum, 0] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            for number in [self.place, self.other, self.first_usable, self.last_usable] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(&self.disk.0);
            out.extend_from_slice(&self.entries_at.to_le_bytes());
            for number in [self.count, self.entry_size, self.entries_sum] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out
        };
        with(crc32fast::hash(&with(0)))
    }
}

/// The checksum of a header: its own field counts as zero.
fn checksum(used: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    let (head, rest) = used.split_at_checked(16).unwrap_or_default();
    sum.update(head);
    sum.update(&[0; 4]);
    sum.update(rest.get(4..).unwrap_or_default());
    sum.finalize()
}
