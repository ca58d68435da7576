//! The entries of a table (UEFI specification, 5.3.3).

use super::NewPartition;
use super::header::Header;
use crate::TableError;
use crate::guid::Guid;

/// Bytes of an entry, and of the largest that is read.
pub(super) const SIZE: u32 = 128;
pub(super) const MAX_SIZE: u32 = 4096;
/// Entries of a table that is made, and of the largest that is read.
pub(super) const COUNT: u32 = 128;
pub(super) const MAX_COUNT: u32 = 1024;
/// UTF-16 units of a name.
const NAME: usize = 36;
/// Legacy BIOS bootable.
const BOOTABLE: u64 = 1 << 2;

/// All entries, used or not, as they are on the disk.
#[derive(Debug)]
pub(super) struct Entries {
    bytes: Vec<u8>,
    size: usize,
}

/// A used one.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    kind: Guid,
    pub(super) guid: Guid,
    /// First and last sector.
    pub(super) first: u64,
    pub(super) last: u64,
    attributes: u64,
    name: [u8; 2 * NAME],
}

impl Entries {
    pub(super) fn empty() -> Self {
        let size = usize::try_from(SIZE).unwrap_or_default();
        Self { bytes: vec![0; size.saturating_mul(usize::try_from(COUNT).unwrap_or_default())], size }
    }

    /// Takes what was read where the header says; its checksum has to be right.
    pub(super) fn parse(bytes: Vec<u8>, header: &Header) -> Result<Self, TableError> {
        if crc32fast::hash(&bytes) != header.entries_sum {
            return Err(TableError::NoGpt("the checksum of its entries is wrong"));
        }
        Ok(Self { bytes, size: usize::try_from(header.entry_size).unwrap_or(usize::MAX) })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn sum(&self) -> u32 {
        crc32fast::hash(&self.bytes)
    }

    /// The used ones with their numbers, from 1.
    pub(super) fn used(&self) -> impl Iterator<Item = (u32, Entry)> + '_ {
        let entries = self.bytes.chunks_exact(self.size).zip(1u32..);
        entries.filter_map(|(bytes, number)| Some((number, Entry::parse(bytes)?)))
    }

    pub(super) fn set(&mut self, number: u32, entry: &Entry) -> Result<(), TableError> {
        let index = number.checked_sub(1).and_then(|index| usize::try_from(index).ok());
        let place = index.and_then(|index| self.bytes.chunks_exact_mut(self.size).nth(index));
        let bytes = entry.bytes();
        let place = place.and_then(|place| place.get_mut(..bytes.len()));
        place.ok_or(TableError::Insane("the table has no entry of this number"))?.copy_from_slice(&bytes);
        Ok(())
    }
}

impl Entry {
    pub(super) fn new(new: &NewPartition<'_>, guid: Guid, first: u64, last: u64) -> Result<Self, TableError> {
        let mut name = [0; 2 * NAME];
        let units: Vec<u8> = new.name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let place = name.get_mut(..units.len()).ok_or(TableError::Insane("the name of a partition is too long"))?;
        place.copy_from_slice(&units);
        Ok(Self { kind: new.kind, guid, first, last, attributes: if new.bootable { BOOTABLE } else { 0 }, name })
    }

    /// None when it is not used.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first_chunk::<16>()?;
        let (guid, rest) = rest.split_first_chunk::<16>()?;
        let (first, rest) = rest.split_first_chunk::<8>()?;
        let (last, rest) = rest.split_first_chunk::<8>()?;
        let (attributes, rest) = rest.split_first_chunk::<8>()?;
        let (name, _) = rest.split_first_chunk()?;
        let used = kind.iter().any(|byte| *byte != 0);
        used.then(|| Self {
            kind: Guid(*kind),
            guid: Guid(*guid),
            first: u64::from_le_bytes(*first),
            last: u64::from_le_bytes(*last),
            attributes: u64::from_le_bytes(*attributes),
            name: *name,
        })
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = [self.kind.0, self.guid.0].concat();
        for number in [self.first, self.last, self.attributes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.name);
        out
    }

    pub(super) fn name(&self) -> String {
        let (units, _) = self.name.as_chunks::<2>();
        let units: Vec<u16> =
            units.iter().map(|unit| u16::from_le_bytes(*unit)).take_while(|unit| *unit != 0).collect();
        String::from_utf16_lossy(&units)
    }
}
