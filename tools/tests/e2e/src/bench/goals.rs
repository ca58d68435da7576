//! The numbers to reach, and whether they were. A goal that is not met fails nothing: a busy host is no defect.

use super::results::{Boot, Idler, Milestone, Mode, Results, Sample, Start, System};
use super::stats::Spread;

/// A goal, and what was found.
#[derive(Debug, PartialEq)]
pub(super) struct Goal {
    pub(super) words: &'static str,
    /// At most so many times the other.
    pub(super) limit: f64,
    /// None when one of the two was not measured.
    pub(super) found: Option<f64>,
}

impl Goal {
    pub(super) fn verdict(&self) -> &'static str {
        match self.found {
            None => "not measured",
            Some(found) if found <= self.limit => "met",
            Some(_) => "not met",
        }
    }
}

/// What a number is taken from.
pub(super) type Value = fn(&Sample) -> Option<f64>;

pub(super) const PROCESSOR: Value = |sample| Some(sample.processor);
pub(super) const WALL: Value = |sample| Some(sample.wall);
pub(super) const INSTRUCTIONS: Value = |sample| sample.instructions;
pub(super) const READ: Value = |sample| Some(sample.read as f64);
pub(super) const OPERATIONS: Value = |sample| Some(sample.operations as f64);

/// A number of every boot of a kind.
pub(super) fn of(
    boots: &[Boot],
    (system, mode, start): (System, Mode, Start),
    milestone: Milestone,
    value: Value,
) -> Option<Spread> {
    let these = boots.iter().filter(|boot| (boot.system, boot.mode, boot.start) == (system, mode, start));
    Spread::of(these.filter_map(|boot| value(boot.milestones.get(&milestone)?)))
}

/// All of them for one boot of the disk.
pub(super) fn boots(boots: &[Boot], start: Start) -> Vec<Goal> {
    let median =
        |system, start, mode, milestone, value| Some(of(boots, (system, mode, start), milestone, value)?.median);
    let beside = |mode, milestone, value| -> Option<f64> {
        Some(
            median(System::Ours, start, mode, milestone, value)?
                / median(System::Debian, start, mode, milestone, value)?,
        )
    };
    let floor = || -> Option<f64> {
        // It is taken from power-on, so firmware is in it.
        let floor = median(System::Floor, Start::First, Mode::Plain, Milestone::Docker, PROCESSOR)?;
        Some(median(System::Ours, start, Mode::Plain, Milestone::Docker, PROCESSOR)? / floor)
    };
    vec![
        Goal {
            words: "processor time to Docker, of Debian's",
            limit: 0.5,
            found: beside(Mode::Plain, Milestone::Docker, PROCESSOR),
        },
        Goal { words: "processor time to Docker, of the floor with firmware", limit: 2.0, found: floor() },
        Goal {
            words: "instructions to Docker, of Debian's",
            limit: 0.6,
            found: beside(Mode::Counted, Milestone::Docker, INSTRUCTIONS),
        },
        Goal {
            words: "bytes read until Docker, of Debian's",
            limit: 0.45,
            found: beside(Mode::Plain, Milestone::Docker, READ),
        },
        Goal {
            words: "processor time to the first container's page, of Debian's",
            limit: 0.6,
            found: beside(Mode::Plain, Milestone::Page, PROCESSOR),
        },
    ]
}

/// The one of memory: Debian has our kernel settings, so that a setting does not count as thrift.
pub(super) fn memory(results: &Results) -> Goal {
    let used = |system| {
        let found = results.idle.iter().find(|idle| idle.system == system);
        found.map(|idle| idle.memory.used as f64)
    };
    let found = used(Idler::Ours).zip(used(Idler::DebianEqual)).map(|(ours, debian)| ours / debian);
    Goal { words: "memory at idle, of Debian's with our vm.* settings", limit: 0.85, found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::Host;
    use std::collections::BTreeMap;

    fn boot(system: System, mode: Mode, processor: f64, instructions: Option<f64>) -> Boot {
        let sample = Sample { wall: 1.0, processor, read: 100, operations: 10, instructions };
        Boot {
            system,
            mode,
            start: Start::First,
            milestones: BTreeMap::from([(Milestone::Docker, sample)]),
            host: Host { others: 0.0, load: 1.0 },
            health: None,
        }
    }

    #[test]
    fn goals_compare_medians_of_the_same_kind() {
        let found = boots(
            &[
                boot(System::Ours, Mode::Plain, 40.0, None),
                boot(System::Ours, Mode::Plain, 90.0, None),
                boot(System::Ours, Mode::Plain, 50.0, None),
                boot(System::Debian, Mode::Plain, 100.0, None),
                boot(System::Floor, Mode::Plain, 20.0, None),
                boot(System::Ours, Mode::Counted, 1000.0, Some(3e9)),
                boot(System::Debian, Mode::Counted, 1.0, Some(6e9)),
            ],
            Start::First,
        );
        let found: Vec<_> = found.iter().map(|goal| (goal.found, goal.verdict())).collect();
        assert_eq!(
            found,
            [
                (Some(0.5), "met"),
                (Some(2.5), "not met"),
                (Some(0.5), "met"),
                (Some(1.0), "not met"),
                (None, "not measured")
            ]
        );
    }

    #[test]
    fn nothing_measured_is_no_goal_met() {
        assert!(boots(&[], Start::Second).iter().all(|goal| goal.verdict() == "not measured"));
    }
}
