//! Whether this boot is the trial of a release. systemd has to know it without any program of the release, which may be
//! what the release broke: `os-deadline.service` restarts the device when even that cannot be run.

use crate::{Slot, update};
use serde::Deserialize;
use std::path::Path;

/// There while the boot is a trial.
pub const PATH: &str = "/run/os/trial";

/// Where an update stands.
#[derive(Debug, Deserialize)]
struct Update {
    phase: String,
    slot: Option<Slot>,
}

/// True when the state partition, mounted at `state`, says that the release in `slot` is on trial.
pub fn is_in(state: &Path, slot: Slot) -> bool {
    update::read(state).is_some_and(|update: Update| update.phase == "trial" && update.slot == Some(slot))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::STATE;

    #[test]
    fn only_the_slot_that_is_tried_is_on_trial() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_in(dir.path(), Slot::B));
        std::fs::create_dir_all(dir.path().join("os/update")).unwrap();
        for (text, wanted) in [
            (r#"{"phase":"trial","target":{"version":"2.0.0","digest":"d"},"slot":"B","armed":true}"#, true),
            (r#"{"phase":"trial","slot":"A"}"#, false),
            (r#"{"phase":"idle","history":[]}"#, false),
            (r#"{"phase":"trial"}"#, false),
            ("{", false),
        ] {
            std::fs::write(dir.path().join(STATE), text).unwrap();
            assert_eq!(is_in(dir.path(), Slot::B), wanted, "{text}");
        }
    }
}
