//! What is in force: the file, or what was good before.

use crate::model::{self, Accepted, Problem, Unseal};
use crate::store::Store;
use serde::{Deserialize, Serialize};

/// Where the configuration in force comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The file on the boot partition.
    File,
    /// The last copy that was accepted.
    LastGood,
    /// Nothing was ever accepted.
    Defaults,
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What to bring into force.
    pub accepted: Accepted,
    /// Where it comes from.
    pub source: Source,
    /// What is wrong with the file.
    pub problems: Vec<Problem>,
    /// The file is good and differs from the copy: keep it.
    pub keep: bool,
}

/// Decides from what the store holds; also gives the text of the file, or why it could not be read.
pub fn from_store(store: &Store) -> (Decision, Result<Vec<u8>, String>) {
    let (file, last_good, secrets) = (store.read(), store.last_good(), store.secrets());
    let unseal = |id: &str| secrets.get(id).cloned();
    (decide(file.as_deref().map_err(Clone::clone), last_good.as_deref(), &unseal), file)
}

/// Decides. `file` is the content of the file, or why it could not be read.
pub fn decide(file: Result<&[u8], String>, last_good: Option<&[u8]>, unseal: Unseal<'_>) -> Decision {
    let problems = match file {
        // What was accepted by an earlier release is not refused by this one for its spelling.
        Ok(bytes) => match if last_good == Some(bytes) {
            model::parse_kept(bytes, unseal)
        } else {
            model::parse_with(bytes, unseal)
        } {
            Ok(accepted) => {
                let keep = last_good != Some(bytes);
                return Decision { accepted, source: Source::File, problems: Vec::new(), keep };
            }
            Err(problems) => problems,
        },
        Err(reason) => vec![Problem::whole(reason)],
    };
    // The copy was good when it was kept; a newer release may be stricter, and then there is nothing better than defaults.
    match last_good.map(|bytes| model::parse_kept(bytes, unseal)) {
        Some(Ok(accepted)) => Decision { accepted, source: Source::LastGood, problems, keep: false },
        _ => Decision { accepted: Accepted::default(), source: Source::Defaults, problems, keep: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &[u8] = br#"{"hostname":"good"}"#;

    fn decide(file: Result<&[u8], String>, last_good: Option<&[u8]>) -> Decision {
        super::decide(file, last_good, &|_| None)
    }

    fn name(d: &Decision) -> Option<&str> {
        d.accepted.config.hostname.as_deref()
    }

    #[test]
    fn a_good_file_is_in_force_and_kept_once() {
        let d = decide(Ok(GOOD), None);
        assert_eq!((d.source, d.keep, name(&d)), (Source::File, true, Some("good")));
        assert!(!decide(Ok(GOOD), Some(GOOD)).keep);
    }

    #[test]
    fn a_refused_file_leaves_the_last_good_one_in_force() {
        for file in [Ok(&b"{"[..]), Ok(br#"{"hostname":1}"#), Err("the file is missing".to_owned())] {
            let d = decide(file, Some(GOOD));
            assert_eq!((d.source, d.keep, name(&d)), (Source::LastGood, false, Some("good")));
            assert_eq!(d.problems.len(), 1);
        }
    }

    // What only a later release knows for a slip takes no device's configuration away.
    #[test]
    fn a_slip_that_was_accepted_once_stays_in_force_with_a_warning() {
        let old = br#"{"hostname":"localhost","country":"UK","os":{"sshKey":[]}}"#;
        let d = decide(Ok(old), Some(old));
        assert_eq!((d.source, name(&d), d.accepted.warnings.len()), (Source::File, Some("localhost"), 2));
        assert_eq!(decide(Ok(b"{"), Some(old)).source, Source::LastGood);
        assert_eq!(decide(Ok(old), None).problems.len(), 3);
    }

    #[test]
    fn with_nothing_good_there_are_the_defaults() {
        assert_eq!(decide(Ok(b"{"), None).source, Source::Defaults);
        assert_eq!(decide(Ok(b"{"), Some(b"also bad")).source, Source::Defaults);
    }

    proptest! {
        // A write to FAT may be torn at any byte: whatever prefix is there, the device keeps a good configuration.
        #[test]
        fn a_torn_write_never_loses_the_last_good(cut in 0usize..60) {
            let new = br#"{"hostname":"renamed","persistentLogging":true,"ntpServers":"a"}"#;
            let d = decide(Ok(&new[..cut.min(new.len() - 1)]), Some(GOOD));
            prop_assert_eq!((d.source, name(&d)), (Source::LastGood, Some("good")));
        }
    }
}
