//! What follows from what: the whole of an update as a function without side effects.
//!
//! ```text
//! idle ── found ──> installing ── written ──> installed ── start ──> trial ── healthy ──> idle (committed)
//!   ^                   │                         ^                    │
//!   ├──── failed ───────┘                         ├─ not armed ────────┤
//!   ├──── withdrawn ──────────────────────────────┘                    │
//!   └──── fell back, or not healthy: refused, the old slot stays ──────┘
//! ```
//!
//! With kexec the kernel of the other slot is jumped into, and the bootloader hears of it only when the trial has passed:
//!
//! ```text
//! installed ── start, jump ──> trial (jump) ── healthy ──> trial, the bootloader is told ── healthy ──> idle
//!     ^                             │
//!     └──── jumped, not again ──────┴─ not healthy: as above
//! ```
//!
//! The caller writes [`Step::phase`] to the medium before it does [`Step::actions`]. A power cut anywhere leaves a phase
//! from which the next boot goes on ([`Event::Booted`]).

use crate::state::{Phase, Target};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A release is to be installed.
    Found(Target, String),
    /// RAUC has written it.
    Written,
    /// RAUC has not, and why. Never the release's fault: whoever is between it and the device could make it look so, and
    /// keep the device from it for good.
    NotWritten(String),
    /// The channel offers it no more.
    Withdrawn,
    /// What was installed is to be started, from this slot in the other one.
    Start {
        /// Slot to try.
        slot: String,
        /// Its kernel is loaded and can be jumped into.
        jump: bool,
    },
    /// The bootloader was told.
    Armed,
    /// A boot, in this slot.
    Booted(String),
    /// The boot in this slot does what it should.
    Healthy(String),
    /// The boot in this slot does not, and why.
    Unhealthy(String, String),
    /// An operator wants what was there before, in this slot.
    GoBack(String),
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Have RAUC install it.
    Install(Target, String),
    /// Have the bootloader start this slot from now on.
    Activate(String),
    /// Take this slot out of the bootloader's choice.
    MarkBad(String),
    /// This boot is good: reset the bootloader's counter.
    MarkGood,
    /// Restart.
    Reboot,
    /// Shut down, and jump into the kernel that was loaded.
    Jump,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// Where the update stands from now on; written first.
    pub phase: Phase,
    /// Then done, in this order.
    pub actions: Vec<Action>,
    /// A release that failed here, and why.
    pub refuse: Option<(Target, String)>,
    /// What to remember, for people.
    pub note: Option<String>,
}

/// The other one of two.
pub fn other(slot: &str) -> String {
    if slot == "A" { "B" } else { "A" }.to_owned()
}

/// What follows from an event. An event that means nothing where the update stands changes nothing.
pub fn step(phase: &Phase, event: Event) -> Step {
    let stay = || Step { phase: phase.clone(), ..Step::default() };
    match (phase.clone(), event) {
        (Phase::Idle | Phase::Installed { .. }, Event::Found(target, transaction)) => Step {
            note: Some(format!("installing {}", target.version)),
            actions: vec![Action::Install(target.clone(), transaction.clone())],
            phase: Phase::Installing { target, transaction },
            refuse: None,
        },
        (Phase::Installing { target, .. }, Event::Written) => Step {
            note: Some(format!("{} is installed and waits to be started", target.version)),
            phase: Phase::Installed { target, jumped: false },
            ..Step::default()
        },
        (Phase::Installing { target, .. }, Event::NotWritten(reason)) => {
            Step { note: Some(format!("{} was not installed: {reason}", target.version)), ..Step::default() }
        }
        // RAUC marks a slot bad before it writes there, so nothing can start what is half written.
        (Phase::Installing { target, .. }, Event::Booted(_)) => {
            Step { note: Some(format!("installing {} was interrupted", target.version)), ..Step::default() }
        }
        (Phase::Installed { target, .. }, Event::Withdrawn) => Step {
            note: Some(format!(
                "{} is installed, but the channel offers it no more; it is not started",
                target.version
            )),
            ..Step::default()
        },
        (Phase::Installed { target, jumped: false }, Event::Start { slot, jump: true }) => Step {
            note: Some(format!("jumping into {} in slot {slot}", target.version)),
            phase: Phase::Trial { target, slot, armed: true, jump: true },
            actions: vec![Action::Jump],
            refuse: None,
        },
        (Phase::Installed { target, .. }, Event::Start { slot, .. }) => Step {
            note: Some(format!("starting {} in slot {slot}", target.version)),
            phase: Phase::Trial { target, slot: slot.clone(), armed: false, jump: false },
            actions: vec![Action::Activate(slot)],
            refuse: None,
        },
        (Phase::Trial { target, slot, jump: false, .. }, Event::Armed) => Step {
            phase: Phase::Trial { target, slot, armed: true, jump: false },
            actions: vec![Action::Reboot],
            ..Step::default()
        },
        // The power was cut, or the kernel does not survive the jump on this board, or the release is bad: the
        // bootloader's way tells.
        (Phase::Trial { target, slot, jump: true, .. }, Event::Booted(booted)) if booted != slot => Step {
            note: Some(format!("{} did not come up after the jump; the bootloader starts it", target.version)),
            phase: Phase::Installed { target, jumped: true },
            ..Step::default()
        },
        // The power was cut before, or while, the bootloader was told.
        (Phase::Trial { target, slot, armed: false, .. }, Event::Booted(booted)) if booted != slot => {
            Step { phase: Phase::Installed { target, jumped: false }, ..Step::default() }
        }
        (Phase::Trial { target, slot, armed: true, .. }, Event::Booted(booted)) if booted != slot => Step {
            refuse: Some((target, format!("slot {slot} did not get to its health check in three boots"))),
            actions: vec![Action::MarkBad(slot)],
            ..Step::default()
        },
        // Written down as a trial that goes on, so that a power cut before the bootloader was told loses nothing.
        (Phase::Trial { target, slot, jump: true, .. }, Event::Healthy(booted)) if booted == slot => Step {
            phase: Phase::Trial { target, slot: slot.clone(), armed: false, jump: false },
            actions: vec![Action::Activate(slot)],
            ..Step::default()
        },
        (Phase::Trial { target, slot, .. }, Event::Healthy(booted)) if booted == slot => Step {
            note: Some(format!("{} passed its health check and stays", target.version)),
            actions: vec![Action::MarkGood],
            ..Step::default()
        },
        (Phase::Trial { target, slot, .. }, Event::Unhealthy(booted, reason)) if booted == slot => Step {
            refuse: Some((target, reason)),
            actions: vec![Action::Activate(other(&slot)), Action::MarkBad(slot), Action::Reboot],
            ..Step::default()
        },
        (Phase::Idle, Event::GoBack(slot)) => Step {
            note: Some(format!("an operator goes back to slot {slot}")),
            actions: vec![Action::Activate(slot), Action::Reboot],
            ..Step::default()
        },
        (_, Event::Healthy(_)) => Step { actions: vec![Action::MarkGood], ..stay() },
        _ => stay(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target() -> Target {
        Target { version: "2.0.0".to_owned(), digest: "d2".to_owned() }
    }

    fn trial(armed: bool) -> Phase {
        Phase::Trial { target: target(), slot: "B".to_owned(), armed, jump: false }
    }

    fn jump() -> Phase {
        Phase::Trial { target: target(), slot: "B".to_owned(), armed: true, jump: true }
    }

    fn start(jump: bool) -> Event {
        Event::Start { slot: "B".to_owned(), jump }
    }

    #[test]
    fn a_good_release_goes_all_the_way() {
        let mut phase = Phase::Idle;
        let mut done = Vec::new();
        for event in [
            Event::Found(target(), "t".to_owned()),
            Event::Written,
            start(false),
            Event::Armed,
            Event::Booted("B".to_owned()),
            Event::Healthy("B".to_owned()),
        ] {
            let next = step(&phase, event);
            assert_eq!(next.refuse, None);
            done.extend(next.actions);
            phase = next.phase;
        }
        let install = Action::Install(target(), "t".to_owned());
        assert_eq!(done, [install, Action::Activate("B".to_owned()), Action::Reboot, Action::MarkGood]);
        assert_eq!(phase, Phase::Idle);
    }

    #[test]
    fn a_release_that_is_not_healthy_goes_back_and_is_refused() {
        let next = step(&trial(true), Event::Unhealthy("B".to_owned(), "no engine".to_owned()));
        assert_eq!(next.phase, Phase::Idle);
        assert_eq!(next.refuse, Some((target(), "no engine".to_owned())));
        let wanted = [Action::Activate("A".to_owned()), Action::MarkBad("B".to_owned()), Action::Reboot];
        assert_eq!(next.actions, wanted);
    }

    #[test]
    fn a_release_that_does_not_boot_is_refused_by_the_boot_that_comes_instead() {
        let next = step(&trial(true), Event::Booted("A".to_owned()));
        assert_eq!((next.phase, next.refuse.is_some()), (Phase::Idle, true));
        assert_eq!(next.actions, [Action::MarkBad("B".to_owned())]);
    }

    #[test]
    fn a_power_cut_before_the_bootloader_was_told_is_no_failure_of_the_release() {
        let next = step(&trial(false), Event::Booted("A".to_owned()));
        assert_eq!((next.phase, next.refuse), (Phase::Installed { target: target(), jumped: false }, None));
        // After it was told, and before that was written down: the trial goes on.
        assert_eq!(step(&trial(false), Event::Booted("B".to_owned())).phase, trial(false));
        let good = step(&trial(false), Event::Healthy("B".to_owned()));
        assert_eq!((good.phase, good.actions), (Phase::Idle, vec![Action::MarkGood]));
    }

    #[test]
    fn after_a_jump_the_bootloader_hears_of_it_when_the_trial_has_passed() {
        let installed = Phase::Installed { target: target(), jumped: false };
        let next = step(&installed, start(true));
        assert_eq!((&next.phase, next.actions), (&jump(), vec![Action::Jump]));
        assert_eq!(step(&jump(), Event::Booted("B".to_owned())).phase, jump());
        let told = step(&jump(), Event::Healthy("B".to_owned()));
        assert_eq!((&told.phase, told.actions), (&trial(false), vec![Action::Activate("B".to_owned())]));
        let kept = step(&told.phase, Event::Healthy("B".to_owned()));
        assert_eq!((kept.phase, kept.actions, kept.refuse), (Phase::Idle, vec![Action::MarkGood], None));
    }

    #[test]
    fn a_jump_that_leads_nowhere_is_not_the_releases_fault_and_not_tried_twice() {
        let next = step(&jump(), Event::Booted("A".to_owned()));
        assert_eq!((next.refuse, next.actions), (None, vec![]));
        let again = step(&next.phase, start(true));
        assert_eq!((again.phase, again.actions), (trial(false), vec![Action::Activate("B".to_owned())]));
    }

    #[test]
    fn what_was_withdrawn_before_it_was_started_is_not_started_and_may_come_back() {
        let next = step(&Phase::Installed { target: target(), jumped: false }, Event::Withdrawn);
        assert_eq!((next.phase, next.refuse, next.actions), (Phase::Idle, None, vec![]));
        assert_eq!(step(&trial(true), Event::Withdrawn).phase, trial(true));
    }

    #[test]
    fn an_interrupted_installation_begins_again() {
        let phase = Phase::Installing { target: target(), transaction: "t".to_owned() };
        let next = step(&phase, Event::Booted("A".to_owned()));
        assert_eq!((next.phase, next.refuse, next.actions), (Phase::Idle, None, vec![]));
    }

    fn event() -> impl Strategy<Value = Event> {
        let slot = prop_oneof![Just("A".to_owned()), Just("B".to_owned())];
        prop_oneof![
            Just(Event::Found(target(), "t".to_owned())),
            Just(Event::Written),
            Just(Event::NotWritten(String::new())),
            any::<bool>().prop_map(start),
            Just(Event::Armed),
            Just(Event::Withdrawn),
            slot.clone().prop_map(Event::Booted),
            slot.clone().prop_map(Event::Healthy),
            slot.prop_map(|s| Event::Unhealthy(s, String::new())),
            Just(Event::GoBack("A".to_owned())),
        ]
    }

    proptest! {
        // Whatever comes in whatever order: the bootloader is told to start a slot only from "installed", by a jump
        // that passed, or back from a trial that failed; and nothing restarts the device but a trial that begins or ends, or an operator.
        #[test]
        fn no_order_of_events_starts_what_was_not_installed(events in proptest::collection::vec(event(), 0..40)) {
            let mut phase = Phase::Idle;
            for event in events {
                let (before, by_hand) = (phase.clone(), matches!(event, Event::GoBack(_)));
                let next = step(&phase, event);
                for action in &next.actions {
                    match action {
                        Action::Activate(slot) if slot == "B" => {
                            let installed = matches!(before, Phase::Installed { .. } | Phase::Trial { jump: true, .. });
                            prop_assert!(installed);
                        }
                        Action::Jump => {
                            let installed = matches!(before, Phase::Installed { jumped: false, .. });
                            prop_assert!(installed);
                        }
                        Action::Activate(_) | Action::Reboot if !by_hand => {
                            let trial = matches!(before, Phase::Trial { .. });
                            prop_assert!(trial);
                        }
                        _ => {}
                    }
                }
                if next.refuse.is_some() {
                    prop_assert_eq!(&next.phase, &Phase::Idle);
                }
                phase = next.phase;
            }
        }
    }
}
