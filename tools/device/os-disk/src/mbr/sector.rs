//! A sector with four entries: the first of the disk, and one for each logical partition.

use super::Span;
use crate::TableError;
use crate::{Barrier, SECTOR};
use std::io::{Read, Seek, SeekFrom, Write};

/// Where the signature of the disk begins in sector 0. A boot program may take everything before it.
const SIGNATURE: u64 = 440;
/// From there to the first entry.
const BEFORE_ENTRIES: usize = 6;
const ENTRY: usize = 16;
const LENGTH: usize = BEFORE_ENTRIES + 4 * ENTRY + MAGIC.len();
const MAGIC: [u8; 2] = [0x55, 0xaa];

/// Types of an extended partition, and of a link.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
/// Type of what a GPT says to programs that do not know it.
const PROTECTIVE: u8 = 0xee;
/// Cylinder, head and sector of what these cannot say: Linux and bootloaders count sectors.
const BEYOND: [u8; 3] = [0xfe, 0xff, 0xff];

/// The end of a sector, from the signature on.
#[derive(Debug)]
pub(super) struct Sector {
    /// Its number on the disk.
    pub(super) place: u64,
    bytes: [u8; LENGTH],
    changed: bool,
}

/// One entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry([u8; ENTRY]);

impl Entry {
    /// One that lies there; sectors are counted from `base`.
    pub(super) fn new(kind: u8, active: bool, base: u64, first: u64, end: u64) -> Result<Self, TableError> {
        let [a, b, c, d] = count(base, first)?.to_le_bytes();
        let [e, f, g, h] = count(first, end)?.to_le_bytes();
        let flags = if active { 0x80 } else { 0 };
        let [x, y, z] = BEYOND;
        Ok(Self([flags, x, y, z, kind, x, y, z, a, b, c, d, e, f, g, h]))
    }

    fn kind(&self) -> u8 {
        let [_, _, _, _, kind, ..] = self.0;
        kind
    }

    fn first(&self) -> u32 {
        let [.., a, b, c, d, _, _, _, _] = self.0;
        u32::from_le_bytes([a, b, c, d])
    }

    fn sectors(&self) -> u32 {
        let [.., a, b, c, d] = self.0;
        u32::from_le_bytes([a, b, c, d])
    }

    pub(super) fn is_used(&self) -> bool {
        self.sectors() != 0
    }

    pub(super) fn is_extended(&self) -> bool {
        EXTENDED.contains(&self.kind())
    }

    pub(super) fn protects_gpt(&self) -> bool {
        self.kind() == PROTECTIVE
    }

    /// As the text of a filesystem's boot program is, which has the same magic number.
    pub(super) fn is_strange(&self) -> bool {
        let [flags, ..] = self.0;
        flags & 0x7f != 0
    }

    /// Its extent on the disk, counted from sector `base`.
    pub(super) fn span(&self, base: u64) -> Span {
        let first = base.saturating_add(self.first().into());
        Span { first, end: first.saturating_add(self.sectors().into()) }
    }
}

fn count(from: u64, to: u64) -> Result<u32, TableError> {
    let far = TableError::Insane("a partition lies beyond the 2 TiB that an MBR can address");
    to.checked_sub(from).and_then(|sectors| u32::try_from(sectors).ok()).ok_or(far)
}

impl Sector {
    pub(super) fn empty(place: u64) -> Self {
        let mut bytes = [0; LENGTH];
        if let Some(magic) = bytes.last_chunk_mut() {
            *magic = MAGIC;
        }
        Self { place, bytes, changed: true }
    }

    pub(super) fn read<D: Read + Seek>(disk: &mut D, place: u64) -> Result<Self, TableError> {
        let mut bytes = [0; LENGTH];
        disk.seek(SeekFrom::Start(at(place)))?;
        disk.read_exact(&mut bytes).map_err(|err| match err.kind() {
            std::io::ErrorKind::UnexpectedEof => TableError::NoMbr("the disk ends before it"),
            _ => err.into(),
        })?;
        if !bytes.ends_with(&MAGIC) {
            return Err(TableError::NoMbr("its magic number is missing"));
        }
        Ok(Self { place, bytes, changed: false })
    }

    pub(super) fn entries(&self) -> [Entry; 4] {
        let mut out = [Entry([0; ENTRY]); 4];
        let entries = self.bytes.get(BEFORE_ENTRIES..).unwrap_or_default();
        for (entry, bytes) in out.iter_mut().zip(entries.chunks_exact(ENTRY)) {
            entry.0.copy_from_slice(bytes);
        }
        out
    }

    pub(super) fn set(&mut self, index: usize, entry: &Entry) {
        let entries = self.bytes.get_mut(BEFORE_ENTRIES..).unwrap_or_default();
        if let Some(place) = entries.chunks_exact_mut(ENTRY).nth(index)
            && *place != entry.0
        {
            place.copy_from_slice(&entry.0);
            self.changed = true;
        }
    }

    /// Lets an entry, which counts from sector `base`, end at a sector.
    pub(super) fn stretch(&mut self, index: usize, base: u64, end: u64) -> Result<(), TableError> {
        let entries = self.entries();
        let Some(old) = entries.get(index).filter(|old| old.span(base).end != end) else { return Ok(()) };
        let [a, b, c, d] = count(old.span(base).first, end)?.to_le_bytes();
        let [flags, h, s, t, kind, _, _, _, i, j, k, l, ..] = old.0;
        let [x, y, z] = BEYOND;
        self.set(index, &Entry([flags, h, s, t, kind, x, y, z, i, j, k, l, a, b, c, d]));
        Ok(())
    }

    pub(super) fn signature(&self) -> u32 {
        self.bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    pub(super) fn sign(&mut self, signature: [u8; 4]) {
        if let Some(place) = self.bytes.first_chunk_mut() {
            *place = signature;
            self.changed = true;
        }
    }

    /// Returns when it is on the medium, if there is something to write.
    pub(super) fn write<D: Write + Seek + Barrier>(&mut self, disk: &mut D) -> std::io::Result<()> {
        if self.changed {
            disk.seek(SeekFrom::Start(at(self.place)))?;
            disk.write_all(&self.bytes)?;
            disk.barrier()?;
            self.changed = false;
        }
        Ok(())
    }
}

/// The byte at which what is known of a sector begins.
fn at(place: u64) -> u64 {
    place.saturating_mul(SECTOR).saturating_add(SIGNATURE)
}
