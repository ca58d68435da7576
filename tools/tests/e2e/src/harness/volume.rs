//! Files and partitions of a disk that no machine has.

use anyhow::Result;
use os_sys::cmd::Cmd;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A filesystem that begins somewhere in a file, as the tools of ext4 name it.
pub(crate) fn at(image: &Path, offset: u64) -> PathBuf {
    PathBuf::from(format!("{}?offset={offset}", image.display()))
}

/// Names in a directory of an ext4 filesystem that nobody has mounted.
pub(crate) fn list(volume: &Path, dir: &str) -> Result<Vec<String>> {
    let text = Cmd::new("debugfs").arg("-R").arg(format!("ls -p {dir}")).arg(volume).read()?;
    // /inode/mode/owner/group/name/size/
    let names = text.lines().filter_map(|line| line.split('/').nth(5));
    Ok(names.filter(|name| !matches!(*name, "" | "." | "..")).map(str::to_owned).collect())
}

/// A file of an ext4 filesystem that nobody has mounted.
pub(crate) fn dump(volume: &Path, name: &str, to: &Path) -> Result<Vec<u8>> {
    // Left over from before, it would pass for a file that is not there.
    let _ = std::fs::remove_file(to);
    Cmd::new("debugfs").arg("-R").arg(format!("dump {name} {}", to.display())).arg(volume).run()?;
    Ok(std::fs::read(to)?)
}

/// True when the disk holds `image` from `start` on.
pub(crate) fn same(disk: &File, start: u64, image: &Path) -> Result<bool> {
    let image = File::open(image)?;
    let size = image.metadata()?.len();
    let (mut one, mut two) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    while at < size {
        let length = usize::try_from((size - at).min(1 << 20))?;
        one.truncate(length);
        two.truncate(length);
        disk.read_exact_at(&mut one, start + at)?;
        image.read_exact_at(&mut two, at)?;
        if one != two {
            return Ok(false);
        }
        at += length as u64;
    }
    Ok(true)
}

/// Copies a part of a sparse file into a sparse file.
pub(crate) fn extract(file: &File, start: u64, size: u64, to: &Path) -> Result<()> {
    use rustix::fs::{SeekFrom, seek};
    let _ = std::fs::remove_file(to);
    let copy = File::create(to)?;
    copy.set_len(size)?;
    let end = start + size;
    let mut at = start;
    while let Ok(data) = seek(file, SeekFrom::Data(at)) {
        if data >= end {
            break;
        }
        let hole = seek(file, SeekFrom::Hole(data))?.min(end);
        at = data;
        while at < hole {
            let length = usize::try_from((hole - at).min(1 << 20))?;
            let mut part = vec![0; length];
            file.read_exact_at(&mut part, at)?;
            copy.write_all_at(&part, at - start)?;
            at += length as u64;
        }
    }
    Ok(())
}
