//! What a look into the channel, or a wish for an update, came to: for people, and for programs.

use os_channel::Choice;
use os_channel::channel::Held;
use semver::Version;
use serde::Serialize;

/// What became of a wish for an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The device restarts into it.
    Restarting,
    /// There is nothing newer.
    UpToDate,
    /// There is something newer, and this device's turn has not come.
    NotReached,
    /// What is newer failed on this device.
    FailedHere,
    /// A release is on trial.
    OnTrial,
    /// A rule of the device speaks against it now.
    Waiting,
}

/// What became of a wish for an update, and a sentence about it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// For programs.
    pub outcome: Outcome,
    /// For people.
    pub text: String,
}

impl Done {
    pub(crate) fn new(outcome: Outcome, text: impl Into<String>) -> Self {
        Self { outcome, text: text.into() }
    }

    /// It restarts, or there is nothing to be done.
    pub fn is_yes(&self) -> bool {
        matches!(self.outcome, Outcome::Restarting | Outcome::UpToDate | Outcome::NotReached)
    }
}

/// What a check found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// What runs.
    pub running: String,
    /// What is offered.
    pub offered: Option<String>,
    /// For people.
    pub text: String,
}

/// What a choice means: the version on offer, and a sentence.
pub(crate) fn describe(choice: &Choice<'_>, running: &Version) -> (Option<String>, String) {
    match choice {
        Choice::Offer(release) => (
            Some(release.version.to_string()),
            format!("{} is there ({} MiB); {running} runs", release.version, release.bundle.size >> 20),
        ),
        Choice::UpToDate => (None, format!("{running} runs, and nothing newer is there")),
        Choice::Held { release, why: Held::FailedHere } => (
            None,
            format!(
                "{} failed on this device and is not tried again by itself; os update install BUNDLE tries it. {running} runs",
                release.version
            ),
        ),
        Choice::Held { release, why: Held::Revoked } => (
            None,
            format!(
                "the way forward leads through {}, which was revoked; {running} runs until another one is there",
                release.version
            ),
        ),
        Choice::Held { release, why: Held::Rollout } => {
            (None, format!("{} is being rolled out and has not reached this device; {running} runs", release.version))
        }
    }
}
