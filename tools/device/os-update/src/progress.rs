//! How far an installation is. Whoever installs writes it down; `os update status` and the bus read it.

use os_sys::files;
use os_transport::relay::Passed;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// Where it is written down, in RAM.
pub const PATH: &str = "/run/os/update-progress.json";

/// How far an installation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Version of the release.
    pub version: String,
    /// Percent of the bundle that are in the slot, or of RAUC's steps where its size is not known.
    pub percent: u64,
    /// Bytes of the bundle; 0 where that is not known.
    pub size: u64,
    /// Bytes that came from the channel. What the device has already does not have to.
    pub fetched: u64,
    /// What holds it up.
    pub trouble: Option<String>,
}

impl Progress {
    /// `rauc` is RAUC's percent, which counts steps of very different length; a relay knows better.
    pub fn new(version: &str, rauc: i32, passed: Option<Passed>) -> Self {
        let version = version.to_owned();
        match passed {
            None => Self { version, percent: rauc.unsigned_abs().into(), size: 0, fetched: 0, trouble: None },
            Some(passed) => Self {
                version,
                percent: passed.percent(),
                size: passed.size,
                fetched: passed.fetched,
                trouble: passed.trouble,
            },
        }
    }

    /// Writes it down. It is no reason to stop when that fails.
    pub(crate) fn save(&self, path: &Path) {
        if let Ok(text) = serde_json::to_vec(self) {
            let _ = files::write_if_changed(path, &text, 0o644);
        }
    }

    /// What was written down last; none when nothing is being installed.
    pub fn load(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.percent)?;
        if self.size > 0 {
            let done = u128::from(self.size) * u128::from(self.percent) / 100;
            write!(f, ", {} of {} MiB; {} MiB came from the channel", done >> 20, self.size >> 20, self.fetched >> 20)?;
        }
        match &self.trouble {
            Some(trouble) => write!(f, "; {trouble}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_and_bytes_say_the_same_and_reach_the_end() {
        let passed = |reached| Passed { reached, fetched: 14 << 20, size: 282 << 20, trouble: None };
        let said = |passed| Progress::new("2.0.0", 43, Some(passed)).to_string();
        assert_eq!(said(passed(0)), "0 %, 0 of 282 MiB; 14 MiB came from the channel");
        assert_eq!(said(passed(140 << 20)), "50 %, 141 of 282 MiB; 14 MiB came from the channel");
        assert_eq!(said(passed(282 << 20)), "99 %, 279 of 282 MiB; 14 MiB came from the channel");
        assert_eq!(said(passed(0).ended()), "100 %, 282 of 282 MiB; 14 MiB came from the channel");
        assert_eq!(Progress::new("2.0.0", 43, None).to_string(), "43 %");
        let stuck = Passed { trouble: Some("no route".to_owned()), ..passed(0) };
        assert!(said(stuck).ends_with("; no route"));
    }
}
