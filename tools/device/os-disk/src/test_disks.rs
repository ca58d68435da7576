//! Disks in memory for tests.

use crate::Barrier;
use std::io::{Cursor, Read, Seek, SeekFrom, Write};

/// A disk that remembers what it was at each barrier.
pub(crate) struct Recorder {
    disk: Cursor<Vec<u8>>,
    pub(crate) epochs: Vec<Vec<u8>>,
}

impl Recorder {
    pub(crate) fn new(disk: Cursor<Vec<u8>>) -> Self {
        Self { epochs: vec![disk.get_ref().clone()], disk }
    }
}

impl Barrier for Recorder {
    fn barrier(&mut self) -> std::io::Result<()> {
        self.epochs.push(self.disk.get_ref().clone());
        Ok(())
    }
}

impl Read for Recorder {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.disk.read(buf)
    }
}

impl Write for Recorder {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.disk.write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Seek for Recorder {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.disk.seek(to)
    }
}

/// A disk with an end.
pub(crate) struct Bounded(pub(crate) Cursor<Vec<u8>>);

impl Read for Bounded {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Bounded {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let (at, end) = (self.0.position(), self.0.get_ref().len() as u64);
        if at + buf.len() as u64 > end { Err(std::io::ErrorKind::StorageFull.into()) } else { self.0.write(buf) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Seek for Bounded {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.0.seek(to)
    }
}

impl Barrier for Bounded {
    fn barrier(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
