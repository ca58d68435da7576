//! Reserves of space, which are given up when nothing else is left. On the data partition: an engine that finds no space does
//! not start, and without it nothing can be removed. On the state partition: what becomes of an update has to be written down.

use os_facts::place::STATE_RESERVE;
use std::fs::File;
use std::io;
use std::path::Path;

/// Name of the file, below the data partition.
const NAME: &str = "os/reserve";
/// How much is kept, at most and as a part of the partition.
const MOST: u64 = 64 << 20;
const PART: u64 = 50;
/// With less than this free the engine does not start.
const NEEDED: u64 = 16 << 20;

/// Several times what is known of updates.
const STATE_SIZE: u64 = 256 << 10;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Put so many bytes aside.
    Keep(u64),
    /// Give it up.
    GiveUp,
    /// Nothing.
    Leave,
}

/// Decides from the sizes of the partition, of what is free of it, and of the reserve that is there, in bytes.
pub fn decide(total: u64, free: u64, reserve: u64) -> Act {
    let size = MOST.min(total / PART);
    if reserve > 0 && free < NEEDED {
        Act::GiveUp
    } else if reserve == 0 && free > size.saturating_mul(4) {
        Act::Keep(size)
    } else {
        Act::Leave
    }
}

/// Keeps the reserve of a mounted partition, or gives it up; says so for people in that case.
///
/// # Errors
/// When the partition cannot be written.
pub fn tend(data: &Path) -> io::Result<Option<String>> {
    let path = data.join(NAME);
    let stat = rustix::fs::statvfs(data)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    let there = path.metadata().map_or(0, |meta| meta.len());
    // Free for whoever is not root's filesystem alone: containers are root, and the blocks that ext4 keeps for root are theirs.
    match decide(bytes(stat.f_blocks), bytes(stat.f_bfree), there) {
        Act::Leave => Ok(None),
        Act::GiveUp => {
            std::fs::remove_file(&path)?;
            Ok(Some(format!(
                "os-data is full: {} MiB that were kept for this were freed, so that the engine starts; docker system df shows what \
                 takes the space",
                there >> 20
            )))
        }
        Act::Keep(size) => set_aside(&path, size).map(|()| None),
    }
}

/// Keeps the reserve of a mounted state partition, where there is space for it again.
///
/// # Errors
/// When the partition cannot be written.
pub fn keep_state(state: &Path) -> io::Result<()> {
    let path = state.join(STATE_RESERVE);
    let stat = rustix::fs::statvfs(state)?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if path.exists() || free < STATE_SIZE.saturating_mul(4) { Ok(()) } else { set_aside(&path, STATE_SIZE) }
}

fn set_aside(path: &Path, size: u64) -> io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    // By another name until all of it is there: half a reserve would be none.
    let new = path.with_extension("new");
    let made = File::create(&new)
        .and_then(|file| Ok(rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size)?))
        .and_then(|()| std::fs::rename(&new, path));
    if made.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_while_there_is_space_and_given_up_when_there_is_none() {
        const GIB: u64 = 1 << 30;
        assert_eq!(decide(30 * GIB, 20 * GIB, 0), Act::Keep(MOST));
        assert_eq!(decide(GIB, GIB / 2, 0), Act::Keep(GIB / PART));
        assert_eq!(decide(30 * GIB, 20 * GIB, MOST), Act::Leave);
        assert_eq!(decide(30 * GIB, 100 << 20, 0), Act::Leave);
        assert_eq!(decide(30 * GIB, 100 << 20, MOST), Act::Leave);
        assert_eq!(decide(30 * GIB, 0, MOST), Act::GiveUp);
        // Given up, and still full: it does not come back, and nothing goes round in circles.
        assert_eq!(decide(30 * GIB, MOST, 0), Act::Leave);
    }

    #[test]
    fn the_state_partition_has_one_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        keep_state(dir.path()).unwrap();
        assert_eq!(dir.path().join(STATE_RESERVE).metadata().unwrap().len(), STATE_SIZE);
        keep_state(dir.path()).unwrap();
        let names: Vec<_> = std::fs::read_dir(dir.path().join("os/update")).unwrap().flatten().collect();
        assert_eq!(names.len(), 1);
    }

    #[test]
    fn a_file_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(tend(dir.path()).unwrap(), None);
        let made = dir.path().join(NAME).metadata().map_or(0, |meta| meta.len());
        assert!(made == 0 || made <= MOST, "{made}");
        assert_eq!(tend(dir.path()).unwrap(), None);
    }
}
