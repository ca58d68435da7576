//! What a machine wrote to its disk and in which order: the log that QEMU's `blklogwrites` keeps, in the form of Linux'
//! dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst and drivers/md/dm-log-writes.c).

use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Size of a sector, in bytes: what a disk writes whole or not at all.
pub(crate) const SECTOR: u64 = 512;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;

/// What an entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Writes bytes.
    Write,
    /// Says that bytes are needed no more.
    Discard,
    /// Everything before it is on the medium when it is over.
    Flush,
}

/// One request to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// Where on the disk, in bytes.
    pub(crate) start: u64,
    /// How much, in bytes.
    pub(crate) size: u64,
    /// Which log the bytes are in.
    log: usize,
    /// And where.
    data: u64,
}

impl Entry {
    /// True when it touches any of `size` bytes from `start`.
    pub(crate) fn touches(&self, start: u64, size: u64) -> bool {
        self.kind != Kind::Flush && self.start < start + size && start < self.start + self.size
    }
}

/// One log after the other.
#[derive(Debug)]
pub(crate) struct Trace {
    files: Vec<File>,
    pub(crate) entries: Vec<Entry>,
}

impl Trace {
    /// Makes an empty log for QEMU to write.
    pub(crate) fn create(path: &Path) -> Result<()> {
        // It must have its size from the beginning; nothing of it takes space before it is written.
        Ok(File::create(path)?.set_len(64 << 30)?)
    }

    /// Reads what is there, also while QEMU goes on writing.
    pub(crate) fn read(paths: &[PathBuf]) -> Result<Self> {
        let mut trace = Self { files: Vec::new(), entries: Vec::new() };
        for path in paths {
            trace.add(path)?;
        }
        Ok(trace)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path).with_context(|| format!("there is no {}", path.display()))?;
        let log = self.files.len();
        let mut word = Reader { file: &file, at: 0 };
        ensure!(word.next()? == MAGIC && word.next()? == VERSION, "{} is no log of writes", path.display());
        let mut at = SECTOR;
        loop {
            let mut word = Reader { file: &file, at };
            let (sector, sectors, flags) = (word.next()?, word.next()?, word.next()?);
            // The number of entries in the header is late; what was never written is zero.
            if sectors == 0 && flags == 0 {
                break;
            }
            let kind = match flags {
                f if f & DISCARD != 0 => Kind::Discard,
                _ if sectors == 0 => Kind::Flush,
                _ => Kind::Write,
            };
            let (start, size) = (sector * SECTOR, sectors * SECTOR);
            let entry = Entry { kind, start, size, log, data: at + SECTOR };
            self.entries.push(entry);
            if kind == Kind::Write && flags & FLUSH != 0 {
                self.entries.push(Entry { kind: Kind::Flush, start: 0, size: 0, ..entry });
            }
            at += SECTOR + if kind == Kind::Write { size } else { 0 };
        }
        self.files.push(file);
        Ok(())
    }

    /// The bytes of a write.
    pub(crate) fn data(&self, entry: &Entry) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(entry.size)?];
        self.files.get(entry.log).context("no such log")?.read_exact_at(&mut bytes, entry.data)?;
        Ok(bytes)
    }
}

struct Reader<'a> {
    file: &'a File,
    at: u64,
}

impl Reader<'_> {
    fn next(&mut self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, self.at)?;
        self.at += 8;
        Ok(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(words: &[u64]) -> Vec<u8> {
        let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        bytes.resize(512, 0);
        bytes
    }

    #[test]
    fn a_log_is_read_to_its_end() {
        let path = std::env::temp_dir().join(format!("os-trace-{}", std::process::id()));
        Trace::create(&path).unwrap();
        let mut log = sector(&[MAGIC, VERSION, 0, 512]);
        log.extend(sector(&[8, 2, 0, 1024]));
        log.extend([7; 1024]);
        log.extend(sector(&[0, 0, FLUSH, 0]));
        log.extend(sector(&[4096, 100, DISCARD, 0]));
        log.extend(sector(&[0, 1, FLUSH, 512]));
        log.extend([9; 512]);
        File::options().write(true).open(&path).unwrap().write_all_at(&log, 0).unwrap();
        let trace = Trace::read(std::slice::from_ref(&path)).unwrap();
        let kinds: Vec<Kind> = trace.entries.iter().map(|e| e.kind).collect();
        assert_eq!(kinds, [Kind::Write, Kind::Flush, Kind::Discard, Kind::Write, Kind::Flush]);
        assert_eq!(trace.data(&trace.entries[0]).unwrap(), [7; 1024]);
        assert_eq!(trace.data(&trace.entries[3]).unwrap(), [9; 512]);
        assert!(trace.entries[0].touches(4096, 1) && !trace.entries[0].touches(0, 4096));
        std::fs::remove_file(path).unwrap();
    }
}
