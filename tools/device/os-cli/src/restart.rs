//! How the last run of the device ended, where nobody asked for it.

use serde::Serialize;
use std::path::Path;

/// `WDIOF_CARDRESET`: the watchdog has reset the machine (the kernel's include/uapi/linux/watchdog.h).
const CARD_RESET: u32 = 0x20;

/// The end of the run before this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Last {
    /// It was shut down.
    Orderly,
    /// Power was cut, or somebody or something reset it.
    Unclean,
    /// The watchdog reset it.
    Watchdog,
}

impl Last {
    /// Asks the drivers of watchdogs; `unclean` is what the boot found on the disk.
    pub(crate) fn of_device(unclean: bool) -> Self {
        Self::read(unclean, Path::new("/sys/class/watchdog"))
    }

    fn read(unclean: bool, watchdogs: &Path) -> Self {
        let reset = || {
            let entries = std::fs::read_dir(watchdogs).into_iter().flatten().flatten();
            let mut status = entries.filter_map(|dir| std::fs::read_to_string(dir.path().join("bootstatus")).ok());
            // Some drivers keep saying so until power is cut.
            status.any(|text| text.trim().parse::<u32>().is_ok_and(|bits| bits & CARD_RESET != 0))
        };
        match unclean {
            false => Self::Orderly,
            true if reset() => Self::Watchdog,
            true => Self::Unclean,
        }
    }

    /// What a person should know of it, and whether something is wrong.
    pub(crate) fn words(self) -> Option<(bool, &'static str)> {
        match self {
            Self::Orderly => None,
            Self::Unclean => {
                Some((false, "the device was not shut down before this start: power was cut, or it was reset"))
            }
            Self::Watchdog => Some((
                true,
                "the watchdog restarted the device, which did not answer any more. A container that takes all memory is the \
                 usual reason; docker run --memory gives it a limit",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_named_only_where_it_was_it() {
        let dir = tempfile::tempdir().unwrap();
        let say = |name: &str, text: &str| {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("bootstatus"), text).unwrap();
        };
        let read = |unclean| Last::read(unclean, dir.path());
        assert_eq!((read(false), read(true)), (Last::Orderly, Last::Unclean));
        say("watchdog0", "0\n");
        say("watchdog1", "not a number");
        assert_eq!((read(false), read(true)), (Last::Orderly, Last::Unclean));
        say("watchdog2", "33\n");
        assert_eq!((read(false), read(true)), (Last::Orderly, Last::Watchdog));
        assert_eq!(Last::read(true, &dir.path().join("none")), Last::Unclean);
    }
}
