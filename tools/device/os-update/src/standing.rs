//! Where the updates of this device stand: what `os update status`, `os update log` and `os status` say.

use crate::agent::FAILED_JOURNAL;
use crate::policy::{Policy, Shown};
use crate::progress::{self, Progress};
use crate::state::{Event, Phase, Refused, State, Store, Target};
use os_facts::Slot;
use os_sys::date;
use serde::Serialize;
use std::fmt;
use std::path::Path;

/// The answer of `os update status`. The JSON form is stable; fields are only ever added.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// `idle`, `installing`, `installed` or `trial`.
    pub phase: &'static str,
    /// What runs, where it was installed by an update.
    pub running: Option<Target>,
    /// What is on its way to this device.
    pub release: Option<Target>,
    /// An operator put it into the other slot with RAUC; it is started when somebody asks for it.
    pub by_hand: bool,
    /// Slot that is on trial.
    pub slot: Option<Slot>,
    /// How far the installation is.
    pub progress: Option<Progress>,
    /// Nothing happens by itself.
    pub paused: bool,
    /// What happened last, or what the last look into the channel said.
    pub last: String,
    /// When the channel was last read, seconds since 1970.
    pub checked_at: Option<u64>,
    /// When a release that could not be installed is tried again, seconds since 1970.
    pub retry_at: Option<u64>,
    /// What failed here, or was left by an operator: not installed again by itself.
    pub refused: Vec<Refused>,
    /// The state partition takes nothing: what is known of updates is in RAM, and gone with the next restart.
    pub unsaved: bool,
    /// What is configured.
    pub policy: Shown,
}

impl Standing {
    /// Of this device, as it is written down; nobody is asked.
    pub fn of_device() -> Self {
        let store = Store::device();
        let found = Self::of(store.load(), Progress::load(Path::new(progress::PATH)), Policy::load().shown);
        Self { unsaved: store.is_unsaved(), ..found }
    }

    fn of(state: State, progress: Option<Progress>, policy: Shown) -> Self {
        let phase = state.phase.word();
        let by_hand = state.waits_by_hand().is_some();
        let release = state.phase.target().cloned();
        let slot = match state.phase {
            Phase::Trial { slot, .. } => Some(slot),
            _ => None,
        };
        Self {
            phase,
            running: state.running,
            release,
            by_hand,
            slot,
            progress: progress.filter(|_| phase == "installing"),
            paused: state.paused,
            last: state.last,
            checked_at: state.checked,
            retry_at: state.waiting.map(|waiting| waiting.until),
            refused: state.refused,
            unsaved: false,
            policy,
        }
    }

    /// In one line.
    pub fn headline(&self) -> String {
        let version = self.release.as_ref().map_or("a release", |release| &release.version);
        let phase = match self.phase {
            "installing" => match &self.progress {
                Some(progress) => format!("{version} is being installed: {progress}"),
                None => format!("{version} is being installed"),
            },
            "installed" if self.by_hand => format!("{version} was installed by hand and waits for: os update apply"),
            "installed" => format!("{version} is installed and waits for: os update apply"),
            "trial" => {
                format!("{version} is on trial in slot {}", self.slot.map_or("?", Slot::name))
            }
            _ if self.policy.is_off() => "no channel is set".to_owned(),
            _ => "nothing is under way".to_owned(),
        };
        if self.paused { format!("{phase}; paused, os update resume goes on") } else { phase }
    }

    /// What needs a person, a line each.
    pub fn complaints(&self) -> impl Iterator<Item = String> {
        let unsaved = "what is known of updates cannot be written to the state partition; a release that was kept stays, and its \
                       health is checked again at every start";
        self.unsaved.then(|| unsaved.to_owned()).into_iter()
    }

    /// What did not stay, a line each.
    pub fn refusals(&self) -> impl Iterator<Item = String> {
        self.refused.iter().map(|refused| {
            let (version, verdict) = (&refused.target.version, &refused.verdict);
            match verdict.by_operator {
                true => format!("{version} is not installed by itself: {}", verdict.reason),
                false => format!("{version} failed here: {}", verdict.reason),
            }
        })
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.headline())?;
        if !self.last.is_empty() {
            writeln!(f, "  {}", self.last)?;
        }
        if let Some(at) = self.checked_at {
            writeln!(f, "  the channel was read at {}", date::local(at))?;
        }
        if let Some(at) = self.retry_at {
            writeln!(f, "  tried again by itself from {} on; os update apply does it now", date::local(at))?;
        }
        self.complaints().chain(self.refusals()).try_for_each(|line| writeln!(f, "! {line}"))
    }
}

/// The answer of `os update log`. The JSON form is stable; fields are only ever added.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// What happened, oldest first.
    pub history: Vec<Event>,
    /// The journal of the last boot that failed its health check.
    pub failed_boot: Option<String>,
}

impl Log {
    /// Of this device; `lines`: no more than so many of the journal, the last ones.
    pub fn of_device(lines: Option<usize>) -> Self {
        let store = Store::device();
        let journal = std::fs::read_to_string(store.dir().join(FAILED_JOURNAL)).ok();
        Self { history: store.load().history, failed_boot: journal.map(|journal| last(&journal, lines)) }
    }
}

fn last(text: &str, lines: Option<usize>) -> String {
    let all: Vec<&str> = text.lines().collect();
    let from = lines.map_or(0, |lines| all.len().saturating_sub(lines));
    all.get(from..).unwrap_or_default().join("\n")
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for event in &self.history {
            writeln!(f, "{}  {}", date::local(event.at), event.text)?;
        }
        match &self.failed_boot {
            Some(journal) => {
                writeln!(f, "\nThe end of the journal of the last boot that failed its health check:\n{journal}")
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Verdict;

    fn standing(phase: Phase) -> Standing {
        let mut state = State { phase, paused: true, checked: Some(0), ..State::default() };
        let target = |version: &str| Target { version: version.to_owned(), digest: version.to_owned() };
        state.refuse(0, target("1.5.0"), Verdict::failed("no engine"));
        state.refuse(0, target("1.6.0"), Verdict::by_operator());
        state.wait_for(0, "d");
        Standing::of(state, None, Shown::default())
    }

    #[test]
    fn people_read_what_is_under_way_what_failed_and_when_it_is_tried_again() {
        let target = Target { version: "2.0.0".to_owned(), digest: "d".to_owned() };
        let trial = Phase::Trial { target, slot: Slot::B, armed: true, jump: false, verdict: None };
        let said = standing(trial).to_string();
        assert!(said.starts_with("2.0.0 is on trial in slot B; paused"), "{said}");
        for line in
            ["! 1.5.0 failed here: no engine", "! 1.6.0 is not installed by itself", "tried again by itself from"]
        {
            assert!(said.contains(line), "{line}: {said}");
        }
        assert!(standing(Phase::Idle).headline().starts_with("no channel is set"));
    }

    #[test]
    fn of_a_journal_the_end_is_shown() {
        assert_eq!(last("a\nb\nc\n", Some(2)), "b\nc");
        assert_eq!(last("a\nb\nc\n", None), "a\nb\nc");
        assert_eq!(last("a", Some(9)), "a");
    }
}
