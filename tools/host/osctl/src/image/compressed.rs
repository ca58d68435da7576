//! Compressed images, through the programs that everybody packs them with.

use anyhow::{Context, Result};
use os_sys::cmd::Cmd;
use std::fs::File;
use std::path::Path;

/// How an image is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Zstd,
    Gzip,
    Xz,
}

impl Compression {
    /// By the ending of the name; none for a raw image.
    pub(super) fn of(image: &Path) -> Option<Self> {
        match image.extension()?.to_str()? {
            "zst" => Some(Self::Zstd),
            "gz" => Some(Self::Gzip),
            "xz" => Some(Self::Xz),
            _ => None,
        }
    }

    fn program(self) -> Cmd {
        match self {
            Self::Zstd => Cmd::new("zstd").arg("-T0"),
            Self::Gzip => Cmd::new("gzip"),
            Self::Xz => Cmd::new("xz").arg("-T0"),
        }
    }

    /// A raw copy beside the image.
    pub(super) fn unpack(self, image: &Path) -> Result<tempfile::NamedTempFile> {
        let raw = beside(image)?;
        let packed = File::open(image)?;
        self.program()
            .args(["-d", "-c"])
            .stdin(packed)
            .stdout(raw.reopen()?)
            .run()
            .context("cannot unpack the image")?;
        Ok(raw)
    }

    /// Replaces the image when the new one is whole.
    pub(super) fn pack(self, raw: &Path, image: &Path) -> Result<()> {
        let packed = beside(image)?;
        self.program()
            .arg("-c")
            .stdin(File::open(raw)?)
            .stdout(packed.reopen()?)
            .run()
            .context("cannot pack the image")?;
        packed.as_file().sync_all()?;
        let mode = std::fs::metadata(image)?.permissions();
        packed.as_file().set_permissions(mode)?;
        packed.persist(image).with_context(|| format!("cannot replace {}", image.display()))?;
        Ok(())
    }
}

fn beside(image: &Path) -> Result<tempfile::NamedTempFile> {
    let dir = image.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::NamedTempFile::new_in(dir).with_context(|| format!("cannot write beside {}", image.display()))
}
