//! RAUC's index of the blocks of a slot, where it no longer fits.
//!
//! RAUC fetches only blocks that neither slot has, and knows them from an index that it wrote after the last whole
//! installation. While it writes, that index lies under [`UNFINISHED`]. An installation that was cut off leaves it there,
//! and the next would believe it rather than look: everything that was written before would come over the network again.
//! Where there is no index, RAUC reads the slot and makes one.

use os_sys::files::{self, FileError, Written};
use std::path::Path;

/// `data-directory` of RAUC's system.conf.
pub const DATA: &str = "/mnt/state/os/rauc";

/// Below the directory of a slot, whose name begins with `slot.`; named after the checksum of a slot that has none.
const UNFINISHED: &str = "hash-unknown/block-hash-index";

/// Removes the indexes of half-written slots; true when there was one.
///
/// # Errors
/// When one cannot be removed.
pub fn forget_unfinished(data: &Path) -> Result<bool, FileError> {
    let Ok(slots) = std::fs::read_dir(data) else { return Ok(false) };
    let mut found = false;
    for slot in slots.flatten().filter(|slot| slot.file_name().as_encoded_bytes().starts_with(b"slot.")) {
        found |= files::remove_if_there(&slot.path().join(UNFINISHED))? == Written::Changed;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rauc_keeps_its_indexes_there() {
        let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../meta-os/recipes-core/rauc/files/system.conf");
        let text = std::fs::read_to_string(conf).unwrap();
        assert!(text.lines().any(|line| line == format!("data-directory={DATA}")), "{text}");
    }

    #[test]
    fn only_what_was_not_finished_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "index").unwrap();
            path
        };
        let whole = make("slot.rootfs.0/hash-0123/block-hash-index");
        let half = make("slot.rootfs.1/hash-unknown/block-hash-index");
        assert!(forget_unfinished(dir.path()).unwrap());
        assert!(whole.exists() && !half.exists());
        assert!(!forget_unfinished(dir.path()).unwrap());
        assert!(!forget_unfinished(&dir.path().join("not-there")).unwrap());
    }
}
