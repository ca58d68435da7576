//! The FAT filesystem of the boot partition inside an image, through mtools(1): no root, and nothing is mounted.

use anyhow::{Context, Result, bail};
use os_sys::cmd::Cmd;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

/// The filesystem.
pub(super) struct Volume {
    /// Image and offset as mtools takes them.
    drive: String,
}

impl Volume {
    pub(super) fn open(image: &Path, start: u64) -> Result<Self> {
        let image: PathBuf = image.canonicalize()?;
        let volume = Self { drive: format!("{}@@{}", image.display(), start) };
        volume.mtools("mdir").arg("-b").arg("::/").run().context(
            "the boot partition cannot be read; this takes mtools (sudo apt-get install mtools), and a FAT filesystem",
        )?;
        Ok(volume)
    }

    fn mtools(&self, program: &str) -> Cmd {
        // A geometry that does not fit the partition is no reason to stop: only DOS ever cared.
        Cmd::new(program).env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(&self.drive)
    }

    fn exists(&self, path: &str) -> bool {
        self.mtools("mdir").arg("-b").arg(format!("::{path}")).run().is_ok()
    }

    /// The label.
    pub(super) fn label(&self) -> Option<String> {
        let text = self.mtools("mlabel").args(["-s", "::"]).read().ok()?;
        let (_, label) = text.trim().split_once("is ")?;
        Some(label.split(" (").next().unwrap_or(label).trim().to_owned())
    }

    /// The content of a file of at most `limit` bytes; none when there is no such file.
    pub(super) fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        if !self.exists(path) {
            return Ok(None);
        }
        let copy = tempfile::NamedTempFile::new()?;
        self.mtools("mcopy").args(["-n", "-o"]).arg(format!("::{path}")).arg(copy.path()).run()?;
        Ok(Some(os_sys::files::read_limited(copy.path(), limit)?))
    }

    /// Writes a file under a new name first: a card that is pulled out keeps the old or the new text, and the device
    /// understands both (see [`os_config_model::store`]).
    pub(super) fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        if path.contains(['"', '\\', '*', '?', ':', '[']) {
            bail!("{path} is no name that a FAT filesystem holds");
        }
        let wrong = || format!("cannot write {path} in the image");
        if let Some((dir, _)) = path.rsplit_once('/')
            && !self.exists(dir)
        {
            self.mtools("mmd").arg(format!("::{dir}")).run().with_context(wrong)?;
        }
        // Only its owner can read it: it may hold a password.
        let mut copy = tempfile::NamedTempFile::new()?;
        copy.write_all(content)?;
        copy.rewind()?;
        let new = format!("::{path}.{:016x}.new", os_config_model::store::checksum(content));
        self.mtools("mcopy").arg("-o").arg(copy.path()).arg(&new).run().with_context(wrong)?;
        if self.exists(path) {
            self.mtools("mdel").arg(format!("::{path}")).run().with_context(wrong)?;
        }
        self.mtools("mren").arg(&new).arg(format!("::{path}")).run().with_context(wrong)
    }
}
