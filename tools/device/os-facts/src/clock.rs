//! The least that the clock may be. A board without a clock that runs on begins in 1970, and to it every certificate is one of
//! the future; two dates are known to have passed: that of the image, and that of the newest list of releases that was signed
//! by keys which this device believes. The clock is moved forward to them and never back.

use crate::update;
use rustix::time::{ClockId, Timespec, clock_settime};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Its date is the image's (systemd(1) reads it too).
pub const IMAGE: &str = "usr/lib/clock-epoch";
/// A date further from the image's is nobody's, in seconds: systemd takes a clock back that is 15 years ahead.
const FURTHEST: u64 = 14 * 365 * 86_400;

/// What was seen of channels.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Known {
    seen: BTreeMap<String, Seen>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Seen {
    issued: u64,
}

/// The latest date that has passed for certain, in seconds since 1970. `root` holds the image, `state` is the state partition.
pub fn floor(root: &Path, state: &Path) -> u64 {
    let image = std::fs::metadata(root.join(IMAGE)).map_or(0, |meta| u64::try_from(meta.mtime()).unwrap_or(0));
    let known: Known = update::read(state).unwrap_or_default();
    let seen = known.seen.into_values().map(|seen| seen.issued).max().unwrap_or(0);
    if seen > image.saturating_add(FURTHEST) { image } else { image.max(seen) }
}

/// What the clock says, in seconds since 1970; before that, 0.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Where the clock is to be moved to; none when it is not behind.
pub fn behind(now: u64, floor: u64) -> Option<u64> {
    (now < floor).then_some(floor)
}

/// Moves the clock forward where it is behind; what it said before.
///
/// # Errors
/// When this process may not.
pub fn raise(floor: u64) -> io::Result<Option<u64>> {
    let was = now();
    let Some(to) = behind(was, floor) else { return Ok(None) };
    let time = Timespec { tv_sec: i64::try_from(to).map_err(io::Error::other)?, tv_nsec: 0 };
    clock_settime(ClockId::Realtime, time)?;
    Ok(Some(was))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::STATE;
    use proptest::prelude::*;

    fn device(image: Option<u64>, state: &str) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let (root, partition) = (dir.path().join("root"), dir.path().join("state"));
        if let Some(image) = image {
            let path = root.join(IMAGE);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = std::fs::File::create(path).unwrap();
            file.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(image)).unwrap();
        }
        std::fs::create_dir_all(partition.join(STATE).parent().unwrap()).unwrap();
        std::fs::write(partition.join(STATE), state).unwrap();
        floor(&root, &partition)
    }

    #[test]
    fn the_later_of_the_images_date_and_the_newest_list_counts() {
        const IMAGE: u64 = 1_767_225_600;
        let seen =
            |issued: u64| format!(r#"{{"phase":"idle","seen":{{"a":{{"issued":5}},"b":{{"issued":{issued}}}}}}}"#);
        assert_eq!(device(Some(IMAGE), &seen(IMAGE + 99)), IMAGE + 99);
        assert_eq!(device(Some(IMAGE), &seen(IMAGE - 99)), IMAGE);
        assert_eq!(device(None, &seen(99)), 99);
        // Whoever signs lists does not take a device to the end of time.
        assert_eq!(device(Some(IMAGE), &seen(u64::MAX)), IMAGE);
        for damaged in ["", "{", "[]", r#"{"seen":7}"#] {
            assert_eq!(device(Some(IMAGE), damaged), IMAGE, "{damaged}");
            assert_eq!(device(None, damaged), 0, "{damaged}");
        }
    }

    proptest! {
        #[test]
        fn a_clock_is_moved_forward_or_left_alone(now in any::<u64>(), floor in any::<u64>()) {
            match behind(now, floor) {
                Some(to) => prop_assert!(to > now && to == floor),
                None => prop_assert!(now >= floor),
            }
        }
    }
}
