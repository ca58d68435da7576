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
//! A trial that fails keeps its verdict until the other slot runs, and only that boot refuses the release: a power cut, or
//! a call that fails, while the bootloader is told leaves a boot that goes back again, never one that is found good.
//!
//! With kexec the kernel of the other slot is jumped into, and the bootloader hears of it only when the trial has passed:
//!
//! ```text
//! installed ── start, jump ──> trial (jump) ── healthy ──> trial, the bootloader is told ── healthy ──> idle
//!     ^                             │
//!     └──── jumped, not again ──────┴─ not healthy: as above
//! ```
//!
//! The caller does [`Step::first`], writes [`Step::phase`] to the medium, and does [`Step::then`]. A power cut anywhere
//! leaves a phase from which the next boot goes on ([`Event::Booted`]).

use crate::state::{Phase, Target, Verdict};
use os_boot::Fate;
use os_facts::Slot;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A release is to be installed, under this identifier: whoever says so has it written.
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
        slot: Slot,
        /// Its kernel is loaded and can be jumped into.
        jump: bool,
    },
    /// The bootloader was told.
    Armed,
    /// A boot, in this slot. Where the other one was on trial: why the bootloader did not start that, if it says so.
    Booted(Slot, Option<Fate>),
    /// The boot in this slot does what it should.
    Healthy(Slot),
    /// The boot in this slot does not, and why.
    Unhealthy(Slot, Verdict),
    /// Whoever installed it was killed.
    Interrupted,
    /// An operator wants what was there before, in this slot.
    GoBack(Slot),
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Have the bootloader start this slot from now on.
    Activate(Slot),
    /// Take this slot out of the bootloader's choice.
    MarkBad(Slot),
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
    /// Done first: what has to be true before the phase may be.
    pub first: Vec<Action>,
    /// Where the update stands from now on; written then.
    pub phase: Phase,
    /// Done last, in this order.
    pub then: Vec<Action>,
    /// A release that does not stay, and why.
    pub refuse: Option<(Target, Verdict)>,
    /// What to remember, for people.
    pub note: Option<String>,
}

/// What follows from an event. An event that means nothing where the update stands changes nothing.
pub fn step(phase: &Phase, event: Event) -> Step {
    let stay = || Step { phase: phase.clone(), ..Step::default() };
    let note = |text: String| Step { note: Some(text), ..Step::default() };
    match (phase.clone(), event) {
        // Who holds the lock is the only one that installs: what was being installed no longer is.
        (Phase::Idle | Phase::Installed { .. } | Phase::Installing { .. }, Event::Found(target, transaction)) => Step {
            note: Some(format!("installing {}", target.version)),
            phase: Phase::Installing { target, transaction },
            ..Step::default()
        },
        (Phase::Installing { target, .. }, Event::Written) => Step {
            phase: Phase::Installed { target: target.clone(), jumped: false },
            ..note(format!("{} is installed and waits to be started", target.version))
        },
        (Phase::Installing { target, .. }, Event::NotWritten(reason)) => {
            note(format!("{} was not installed: {reason}", target.version))
        }
        // RAUC marks a slot bad before it writes there, so nothing can start what is half written.
        (Phase::Installing { target, .. }, Event::Booted(..) | Event::Interrupted) => {
            note(format!("installing {} was interrupted", target.version))
        }
        (Phase::Installed { target, .. }, Event::Withdrawn) => {
            note(format!("{} is installed, but the channel offers it no more; it is not started", target.version))
        }
        (Phase::Installed { target, jumped: false }, Event::Start { slot, jump: true }) => Step {
            then: vec![Action::Jump],
            ..note(format!("jumping into {} in slot {slot}", target.version)).at(trial(target, slot, true, true))
        },
        (Phase::Installed { target, .. }, Event::Start { slot, .. }) => Step {
            then: vec![Action::Activate(slot)],
            ..note(format!("starting {} in slot {slot}", target.version)).at(trial(target, slot, false, false))
        },
        (Phase::Trial { target, slot, armed, jump, verdict }, event) => {
            Trial { target, slot, armed, jump, verdict }.step(phase, event).unwrap_or_else(stay)
        }
        (Phase::Idle, Event::GoBack(slot)) => Step {
            note: Some(format!("an operator goes back to slot {slot}")),
            first: vec![Action::Activate(slot)],
            then: vec![Action::Reboot],
            ..Step::default()
        },
        (_, Event::Healthy(_)) => Step { then: vec![Action::MarkGood], ..stay() },
        _ => stay(),
    }
}

/// A release on trial, as in [`Phase::Trial`].
struct Trial {
    target: Target,
    slot: Slot,
    armed: bool,
    jump: bool,
    verdict: Option<Verdict>,
}

fn trial(target: Target, slot: Slot, armed: bool, jump: bool) -> Phase {
    Phase::Trial { target, slot, armed, jump, verdict: None }
}

impl Trial {
    /// What follows from an event; none when nothing does.
    fn step(self, phase: &Phase, event: Event) -> Option<Step> {
        let Self { target, slot, armed, jump, verdict } = self;
        let here = matches!(&event, Event::Booted(s, _) | Event::Healthy(s) | Event::Unhealthy(s, _) if *s == slot);
        let back = |slot: Slot| vec![Action::Activate(slot.other()), Action::MarkBad(slot), Action::Reboot];
        Some(match (event, verdict) {
            // It was decided in an earlier boot, and the bootloader has not heard of it, or the restart did not come.
            (Event::Booted(..) | Event::Healthy(_) | Event::Unhealthy(..), Some(_)) if here => {
                Step { phase: phase.clone(), then: back(slot), ..Step::default() }
            }
            (Event::Unhealthy(_, verdict), None) if here => Step {
                note: Some(format!("{} does not stay: {}", target.version, verdict.reason)),
                phase: Phase::Trial { target, slot, armed, jump, verdict: Some(verdict) },
                then: back(slot),
                ..Step::default()
            },
            (Event::Booted(..), Some(verdict)) => {
                Step { first: vec![Action::MarkBad(slot)], refuse: Some((target, verdict)), ..Step::default() }
            }
            (Event::Armed, None) if !jump => {
                Step { phase: trial(target, slot, true, false), then: vec![Action::Reboot], ..Step::default() }
            }
            // The power was cut, or the kernel does not survive the jump on this board, or the release is bad: the
            // bootloader's way tells.
            (Event::Booted(..), None) if !here && jump => Step {
                note: Some(format!("{} did not come up after the jump; the bootloader starts it", target.version)),
                phase: Phase::Installed { target, jumped: true },
                ..Step::default()
            },
            // The power was cut before, or while, the bootloader was told.
            (Event::Booted(..), None) if !here && !armed => {
                Step { phase: Phase::Installed { target, jumped: false }, ..Step::default() }
            }
            // Nothing but a choice at the bootloader's menu is between this boot and the trial, or the restart has not come yet.
            (Event::Booted(_, Some(Fate::NotStarted)), None) if !here => return None,
            (Event::Booted(_, fate), None) if !here => {
                let verdict = not_reached(slot, fate);
                Step { first: vec![Action::MarkBad(slot)], refuse: Some((target, verdict)), ..Step::default() }
            }
            // Written down as a trial that goes on, so that a power cut before the bootloader was told loses nothing.
            (Event::Healthy(_), None) if here && jump => {
                Step { phase: trial(target, slot, false, false), then: vec![Action::Activate(slot)], ..Step::default() }
            }
            // The bootloader is told first: a release is kept when it is, and not before.
            (Event::Healthy(_), None) if here => Step {
                note: Some(format!("{} passed its health check and stays", target.version)),
                first: vec![Action::MarkGood],
                ..Step::default()
            },
            (Event::Healthy(_), _) => Step { phase: phase.clone(), then: vec![Action::MarkGood], ..Step::default() },
            _ => return None,
        })
    }
}

/// Why a trial ended of which no boot wrote down how.
fn not_reached(slot: Slot, fate: Option<Fate>) -> Verdict {
    match fate {
        Some(Fate::PassedOver) => Verdict {
            reason: format!("slot {} was put first by hand while slot {slot} was on trial", slot.other()),
            by_operator: true,
        },
        Some(Fate::Marked) => {
            Verdict::failed(format!("slot {slot} was marked bad, by hand or by a boot that could not write down why"))
        }
        _ => Verdict::failed(format!("slot {slot} did not get to its health check in three boots")),
    }
}

impl Step {
    fn at(self, phase: Phase) -> Self {
        Self { phase, ..self }
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
        super::trial(target(), Slot::B, armed, false)
    }

    fn jump() -> Phase {
        super::trial(target(), Slot::B, true, true)
    }

    fn unhealthy() -> Event {
        Event::Unhealthy(Slot::B, Verdict::failed("no engine"))
    }

    fn back() -> Vec<Action> {
        vec![Action::Activate(Slot::A), Action::MarkBad(Slot::B), Action::Reboot]
    }

    const FATES: [Fate; 4] = [Fate::NoTriesLeft, Fate::Marked, Fate::PassedOver, Fate::NotStarted];

    fn start(jump: bool) -> Event {
        Event::Start { slot: Slot::B, jump }
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
            Event::Booted(Slot::B, None),
            Event::Healthy(Slot::B),
        ] {
            let next = step(&phase, event);
            assert_eq!(next.refuse, None);
            done.extend(next.first);
            done.extend(next.then);
            phase = next.phase;
        }
        assert_eq!(done, [Action::Activate(Slot::B), Action::Reboot, Action::MarkGood]);
        assert_eq!(phase, Phase::Idle);
    }

    #[test]
    fn a_release_that_is_not_healthy_goes_back_and_is_refused_when_the_other_slot_runs() {
        let failed = step(&trial(true), unhealthy());
        assert_eq!((&failed.refuse, &failed.then), (&None, &back()));
        // The bootloader has not heard of it: that boot is not asked for its health any more.
        for event in [Event::Booted(Slot::B, None), Event::Healthy(Slot::B), unhealthy()] {
            let again = step(&failed.phase, event);
            assert_eq!((&again.phase, again.then, again.refuse), (&failed.phase, back(), None));
        }
        let home = step(&failed.phase, Event::Booted(Slot::A, None));
        assert_eq!((home.phase, home.refuse), (Phase::Idle, Some((target(), Verdict::failed("no engine")))));
        assert_eq!((home.first, home.then), (vec![Action::MarkBad(Slot::B)], vec![]));
    }

    #[test]
    fn a_release_that_does_not_boot_is_refused_by_the_boot_that_comes_instead() {
        let next = step(&trial(true), Event::Booted(Slot::A, None));
        assert_eq!((next.phase, next.refuse.is_some()), (Phase::Idle, true));
        assert_eq!(next.first, [Action::MarkBad(Slot::B)]);
    }

    #[test]
    fn a_trial_that_ended_unseen_ends_for_the_reason_that_the_bootloader_tells() {
        let ended = |fate| step(&trial(true), Event::Booted(Slot::A, Some(fate))).refuse.map(|(_, why)| why);
        let said = |fate| ended(fate).unwrap();
        assert!(said(Fate::NoTriesLeft).reason.contains("three boots"));
        assert!(said(Fate::Marked).reason.contains("marked bad"));
        assert!(said(Fate::PassedOver).by_operator && said(Fate::PassedOver).reason.contains("slot A was put first"));
        // It may still be started: nothing is said against it.
        let next = step(&trial(true), Event::Booted(Slot::A, Some(Fate::NotStarted)));
        assert_eq!((next.phase, next.refuse, next.first), (trial(true), None, vec![]));
    }

    #[test]
    fn a_power_cut_before_the_bootloader_was_told_is_no_failure_of_the_release() {
        let next = step(&trial(false), Event::Booted(Slot::A, None));
        assert_eq!((next.phase, next.refuse), (Phase::Installed { target: target(), jumped: false }, None));
        // After it was told, and before that was written down: the trial goes on.
        assert_eq!(step(&trial(false), Event::Booted(Slot::B, None)).phase, trial(false));
        let good = step(&trial(false), Event::Healthy(Slot::B));
        assert_eq!((good.phase, good.first), (Phase::Idle, vec![Action::MarkGood]));
    }

    #[test]
    fn after_a_jump_the_bootloader_hears_of_it_when_the_trial_has_passed() {
        let installed = Phase::Installed { target: target(), jumped: false };
        let next = step(&installed, start(true));
        assert_eq!((&next.phase, next.then), (&jump(), vec![Action::Jump]));
        assert_eq!(step(&jump(), Event::Booted(Slot::B, None)).phase, jump());
        let told = step(&jump(), Event::Healthy(Slot::B));
        assert_eq!((&told.phase, told.then), (&trial(false), vec![Action::Activate(Slot::B)]));
        let kept = step(&told.phase, Event::Healthy(Slot::B));
        assert_eq!((kept.phase, kept.first, kept.refuse), (Phase::Idle, vec![Action::MarkGood], None));
    }

    #[test]
    fn a_jump_that_leads_nowhere_is_not_the_releases_fault_and_not_tried_twice() {
        let next = step(&jump(), Event::Booted(Slot::A, None));
        assert_eq!((next.refuse, next.then), (None, vec![]));
        let again = step(&next.phase, start(true));
        assert_eq!((again.phase, again.then), (trial(false), vec![Action::Activate(Slot::B)]));
    }

    #[test]
    fn what_was_withdrawn_before_it_was_started_is_not_started_and_may_come_back() {
        let next = step(&Phase::Installed { target: target(), jumped: false }, Event::Withdrawn);
        assert_eq!((next.phase, next.refuse, next.then), (Phase::Idle, None, vec![]));
        assert_eq!(step(&trial(true), Event::Withdrawn).phase, trial(true));
    }

    #[test]
    fn an_interrupted_installation_is_not_taken_for_the_next_one() {
        let phase = Phase::Installing { target: target(), transaction: "t".to_owned() };
        for event in [Event::Booted(Slot::A, None), Event::Interrupted] {
            let next = step(&phase, event);
            assert_eq!((next.phase, next.refuse, next.then), (Phase::Idle, None, vec![]));
        }
        let newer = Target { version: "3.0.0".to_owned(), digest: "d3".to_owned() };
        let next = step(&phase, Event::Found(newer.clone(), "u".to_owned()));
        let written = step(&next.phase, Event::Written);
        assert_eq!(written.phase, Phase::Installed { target: newer, jumped: false });
    }

    fn event() -> impl Strategy<Value = Event> {
        let slot = prop_oneof![Just(Slot::A), Just(Slot::B)];
        let fate = proptest::option::of(proptest::sample::select(FATES.as_slice()));
        prop_oneof![
            Just(Event::Found(target(), "t".to_owned())),
            Just(Event::Written),
            Just(Event::NotWritten(String::new())),
            any::<bool>().prop_map(start),
            Just(Event::Armed),
            Just(Event::Withdrawn),
            (slot.clone(), fate).prop_map(|(s, fate)| Event::Booted(s, fate)),
            slot.clone().prop_map(Event::Healthy),
            slot.prop_map(|s| Event::Unhealthy(s, Verdict::failed(""))),
            Just(Event::Interrupted),
            Just(Event::GoBack(Slot::A)),
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
                for action in next.first.iter().chain(&next.then) {
                    match action {
                        Action::Activate(slot) if *slot == Slot::B => {
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
