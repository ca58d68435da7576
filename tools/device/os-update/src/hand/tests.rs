use super::*;
use crate::state::Verdict;
use proptest::prelude::*;

/// The two slots of a pair as RAUC shows them.
fn pair(name: &str, number: u32, installed: Option<(&str, &str)>, status: &str) -> Vec<RaucSlot> {
    let slot = |class: &str, bootname: Option<&str>| RaucSlot {
        name: format!("{class}.{number}"),
        class: class.to_owned(),
        bootname: bootname.map(str::to_owned),
        state: String::new(),
        boot_status: None,
        version: installed.map(|(version, _)| version.to_owned()),
        transaction: installed.map(|(_, transaction)| transaction.to_owned()),
        manifest_hash: installed.map(|(version, _)| format!("hash of {version}")),
        status: installed.map(|_| status.to_owned()),
    };
    vec![slot("kernel", Some(name)), slot("rootfs", None)]
}

/// RaucSlot A was shipped, slot B holds this.
fn slots(b: Option<(&str, &str)>) -> Vec<RaucSlot> {
    [pair("A", 0, None, ""), pair("B", 1, b, "ok")].concat()
}

fn target(version: &str) -> Target {
    Target { version: version.to_owned(), digest: format!("digest of {version}") }
}

fn by_hand(version: &str) -> Target {
    Target { version: version.to_owned(), digest: format!("hash of {version}") }
}

fn trial(verdict: Option<Verdict>) -> Phase {
    Phase::Trial { target: target("0.2.0"), slot: Slot::B, armed: true, jump: false, verdict }
}

/// This program has put 0.2.0 into slot B.
fn installed(phase: Phase) -> State {
    let mut state = State { looked: true, began: Some("ours".to_owned()), phase, ..State::default() };
    wrote(&mut state, &slots(Some(("0.2.0", "ours"))), Slot::B, &target("0.2.0"));
    state
}

fn waits() -> Phase {
    Phase::Installed { target: target("0.2.0"), jumped: false }
}

#[test]
fn what_nobody_touched_is_as_it_was() {
    for phase in [Phase::Idle, waits(), trial(None)] {
        let mut state = installed(phase);
        let before = state.clone();
        assert_eq!(notice(&mut state, &slots(Some(("0.2.0", "ours"))), Slot::A, None), Vec::<String>::new());
        assert_eq!(state, before);
    }
}

#[test]
fn another_release_in_place_of_what_waited_is_said_and_goes_by_its_own_name() {
    for (phase, version) in [(waits(), "0.3.0"), (waits(), "0.1.0"), (trial(None), "0.3.0"), (Phase::Idle, "0.3.0")] {
        let mut state = installed(phase);
        let said = notice(&mut state, &slots(Some((version, "theirs"))), Slot::A, Some(Fate::Marked));
        assert!(said.len() == 1 && said[0].contains(version) && said[0].contains("by hand"), "{said:?}");
        assert_eq!(state.phase, Phase::Installed { target: by_hand(version), jumped: false });
        assert_eq!(state.waits_by_hand(), Some(&by_hand(version)));
        assert!(notice(&mut state, &slots(Some((version, "theirs"))), Slot::A, None).is_empty(), "it is said once");
    }
}

#[test]
fn the_first_look_takes_what_is_there_and_the_second_notices() {
    let mut state = State::default();
    assert!(notice(&mut state, &slots(Some(("0.2.0", "before"))), Slot::A, None).is_empty());
    assert_eq!(state.phase, Phase::Idle);
    let mut empty = State::default();
    assert!(notice(&mut empty, &slots(None), Slot::A, None).is_empty());
    assert_eq!(notice(&mut empty, &slots(Some(("0.3.0", "theirs"))), Slot::A, None).len(), 1);
    assert_eq!(empty.waits_by_hand(), Some(&by_hand("0.3.0")));
}

#[test]
fn the_same_bundle_once_more_changes_nothing_about_what_becomes_of_it() {
    for phase in [waits(), trial(None)] {
        let mut state = installed(phase);
        assert_eq!(notice(&mut state, &slots(Some(("0.2.0", "theirs"))), Slot::A, Some(Fate::Marked)).len(), 1);
        assert_eq!((&state.phase, state.waits_by_hand()), (&waits(), None));
    }
    let mut other = installed(waits());
    let mut rebuilt = slots(Some(("0.2.0", "theirs")));
    rebuilt.iter_mut().for_each(|slot| slot.manifest_hash = slot.version.as_ref().map(|_| "another".to_owned()));
    notice(&mut other, &rebuilt, Slot::A, None);
    assert_eq!(other.waits_by_hand().map(|target| target.digest.as_str()), Some("another"));
}

#[test]
fn what_was_begun_here_and_not_finished_is_nobody_elses() {
    let mut state = State { looked: true, began: Some("ours".to_owned()), ..State::default() };
    let half = [pair("A", 0, None, ""), pair("B", 1, Some(("0.2.0", "ours")), "pending")].concat();
    assert!(notice(&mut state, &half, Slot::A, None).is_empty());
    // Finished, and the power failed before that was written down.
    assert!(notice(&mut state, &slots(Some(("0.2.0", "ours"))), Slot::A, None).is_empty());
    assert_eq!((&state.phase, state.waits_by_hand()), (&Phase::Idle, None));
}

#[test]
fn a_slot_that_was_half_written_by_hand_holds_nothing_that_is_started() {
    let mut state = installed(waits());
    let half = [pair("A", 0, None, ""), pair("B", 1, Some(("0.3.0", "theirs")), "failed")].concat();
    let said = notice(&mut state, &half, Slot::A, None);
    assert!(said.len() == 1 && said[0].contains("0.2.0 is lost"), "{said:?}");
    assert_eq!(state.phase, Phase::Idle);
}

#[test]
fn what_failed_is_refused_under_its_own_name() {
    // Started by hand in place of what was to be tried: the bootloader gave it up, or its health check did.
    for (verdict, fate) in [(None, Fate::NoTriesLeft), (Some(Verdict::failed("no engine")), Fate::Marked)] {
        let mut state = installed(trial(verdict));
        notice(&mut state, &slots(Some(("0.3.0", "theirs"))), Slot::A, Some(fate));
        assert_eq!(state.phase.target(), Some(&by_hand("0.3.0")));
        assert!(matches!(state.phase, Phase::Trial { .. }));
    }
    let mut state = installed(trial(None));
    let said = notice(&mut state, &slots(Some(("0.3.0", "theirs"))), Slot::B, None);
    assert!(said[0].contains("0.3.0") && said[0].contains("on trial"), "{said:?}");
    assert_eq!(state.phase.target(), Some(&by_hand("0.3.0")));
}

#[test]
fn what_was_started_by_hand_runs_and_waits_no_longer() {
    let mut state = installed(waits());
    let said = notice(&mut state, &slots(Some(("0.2.0", "ours"))), Slot::B, None);
    assert!(said.len() == 1 && said[0].contains("started in slot B by hand"), "{said:?}");
    assert_eq!((&state.phase, &state.running), (&Phase::Idle, &Some(target("0.2.0"))));
    // Back in the slot that was shipped: the other release is not what runs.
    assert!(notice(&mut state, &slots(Some(("0.2.0", "ours"))), Slot::A, None).is_empty());
    assert_eq!(state.running, None);
}

#[test]
fn the_way_back_is_looked_at_when_the_trial_is_over() {
    let mut state = installed(trial(None));
    let all = [pair("A", 0, Some(("0.3.0", "theirs")), "ok"), pair("B", 1, Some(("0.2.0", "ours")), "ok")].concat();
    assert!(notice(&mut state, &all, Slot::B, None).is_empty());
    state.phase = Phase::Idle;
    assert_eq!(notice(&mut state, &all, Slot::B, None).len(), 1);
    assert_eq!(state.waits_by_hand(), Some(&by_hand("0.3.0")));
}

fn phase() -> impl Strategy<Value = Phase> {
    let version = || proptest::sample::select(vec!["0.1.0", "0.2.0", "0.3.0"]).prop_map(target);
    let slot = prop_oneof![Just(Slot::A), Just(Slot::B)];
    prop_oneof![
        Just(Phase::Idle),
        (version(), any::<bool>()).prop_map(|(target, jumped)| Phase::Installed { target, jumped }),
        (version(), slot, any::<bool>(), any::<bool>()).prop_map(|(target, slot, armed, failed)| Phase::Trial {
            target,
            slot,
            armed,
            jump: false,
            verdict: failed.then(|| Verdict::failed("no engine")),
        }),
    ]
}

/// An installation has an identifier of its own.
fn content() -> impl Strategy<Value = Option<(&'static str, &'static str)>> {
    let installations = vec![("0.1.0", "a"), ("0.1.0", "b"), ("0.2.0", "ours"), ("0.2.0", "c"), ("0.3.0", "d")];
    proptest::option::of(proptest::sample::select(installations))
}

proptest! {
    // Whatever is known and whatever RAUC says: it is said once, and what waits or is tried goes by the name of what is there.
    #[test]
    fn what_is_there_decides_and_is_said_once(
        phase in phase(),
        looks in proptest::collection::vec((content(), content(), any::<bool>(), proptest::sample::select(vec!["ok", "pending"])), 1..6),
        here in proptest::sample::select(vec![Slot::A, Slot::B]),
    ) {
        let mut state = State { began: Some("ours".to_owned()), phase, ..State::default() };
        for (a, b, given_up, status) in looks {
            let slots = [pair("A", 0, a, "ok"), pair("B", 1, b, status)].concat();
            let fate = Some(if given_up { Fate::NoTriesLeft } else { Fate::Marked });
            notice(&mut state, &slots, here, fate);
            let before = state.clone();
            prop_assert_eq!(notice(&mut state, &slots, here, fate), Vec::<String>::new());
            prop_assert_eq!(&state, &before);
            let there = here.other();
            let content = if there == Slot::A { a } else { b };
            if let (Some(waits), Some((version, _))) = (state.waits_by_hand(), content)
                && (there == Slot::A || status == "ok")
            {
                prop_assert_eq!(waits.version.as_str(), version);
            }
        }
    }
}
