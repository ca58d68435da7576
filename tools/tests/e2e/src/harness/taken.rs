//! What the bootloader of a powered-off machine keeps on the boot partition: taken into a directory, where `os-boot` reads and
//! changes it, and put back.

use crate::harness::fat::Fat;
use anyhow::Result;
use os_boot::{Bootloader, Loader, arguments, counters, tryboot};
use std::path::Path;
use tempfile::TempDir;

/// The files, as `os-boot` finds them below a boot partition.
pub(crate) struct Taken {
    fat: Fat,
    bootloader: Bootloader,
    dir: TempDir,
}

impl Taken {
    /// Takes those that are there.
    pub(crate) fn from(fat: &Fat, bootloader: Bootloader) -> Result<Self> {
        let taken = Self { fat: fat.clone(), bootloader, dir: tempfile::tempdir()? };
        std::fs::create_dir(taken.loader().directory())?;
        for name in taken.names() {
            if let Ok(bytes) = fat.read(&name) {
                std::fs::write(taken.dir.path().join(name), bytes)?;
            }
        }
        Ok(taken)
    }

    /// Paths from the top of the boot partition.
    fn names(&self) -> Vec<String> {
        let own = [counters::FILE, counters::COPY, arguments::FILE];
        let own = own.map(|name| format!("{}/{name}", self.bootloader.directory()));
        own.into_iter().chain([tryboot::FILE.to_owned()]).collect()
    }

    /// The directory that stands for the boot partition.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn loader(&self) -> Loader {
        Loader::new(self.bootloader, self.path())
    }

    /// Tells the bootloader something, as a device does, and puts its files back.
    pub(crate) fn tell<E: Into<anyhow::Error>>(self, tell: impl FnOnce(&Loader) -> Result<(), E>) -> Result<()> {
        tell(&self.loader()).map_err(Into::into)?;
        for name in self.names() {
            if let Ok(bytes) = std::fs::read(self.path().join(&name)) {
                self.fat.write(&name, &bytes)?;
            }
        }
        Ok(())
    }
}
