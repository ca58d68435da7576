//! The data partition as it is flashed.

use crate::size::Room;
use crate::{SlotError, kernel::blank};
use os_sys::cmd::{Cmd, CmdError};
use std::path::Path;

/// Name of the filesystem.
const LABEL: &str = "os-data";

/// Makes the filesystem of a directory. `mke2fs` is the program, started so that it sees files as root's; `options` are those of
/// the distribution (OS_DATA_MKFS_OPTIONS).
///
/// # Errors
/// When the files do not fit, or mke2fs fails.
pub fn image(mke2fs: Cmd, tree: &Path, image: &Path, room: &Room, options: &str) -> Result<(), SlotError> {
    blank(image, room)?;
    let made = mke2fs
        .args(["-q", "-F", "-t", "ext4"])
        .args(options.split_ascii_whitespace())
        .args(["-L", LABEL, "-E", "root_owner=0:0", "-d"])
        .arg(tree)
        .arg(image)
        .run();
    match made {
        Err(cause @ CmdError::Failed { .. }) => Err(SlotError::Full {
            what: tree.display().to_string(),
            image: image.to_owned(),
            size: below(tree)?,
            room: room.clone(),
            cause: Box::new(cause),
        }),
        other => Ok(other?),
    }
}

/// Bytes of all files of a directory.
fn below(dir: &Path) -> Result<u64, SlotError> {
    let failed = || SlotError::file("read", dir);
    let mut size = 0;
    for entry in std::fs::read_dir(dir).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        let meta = path.symlink_metadata().map_err(SlotError::file("read", &path))?;
        size += if meta.is_dir() { below(&path)? } else { meta.len() };
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filesystem_holds_the_tree_and_what_does_not_fit_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, out) = (dir.path().join("tree"), dir.path().join("data.ext4"));
        std::fs::create_dir_all(tree.join("preload")).unwrap();
        std::fs::write(tree.join("preload/app.tar"), vec![1; 3 << 20]).unwrap();
        let make = |size: &str| {
            let room = Room::of("OS_DATA_SIZE", size).unwrap();
            image(Cmd::new("mke2fs"), &tree, &out, &room, "-T default -b 4096 -O metadata_csum_seed")
        };
        make("16M").unwrap();
        let debugfs = |request: &str| Cmd::new("debugfs").args(["-R", request]).arg(&out).read().unwrap();
        assert!(debugfs("stat preload/app.tar").contains("Size: 3145728"));
        assert!(debugfs("show_super_stats -h").contains("Filesystem volume name:   os-data"));
        let said = make("2M").unwrap_err().to_string();
        assert!(
            said.contains("3072 KiB in all") && said.contains("OS_DATA_SIZE (os-layout.inc) gives 2048 KiB"),
            "{said}"
        );
    }
}
