//! Counts checks and prints one line for each, with the reason of a failure.

use crate::harness::deadline;
use anyhow::Result;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// From how many seconds on it is said how long a check took.
const SLOW: Duration = Duration::from_secs(10);

/// How long something took.
#[derive(Debug, Clone)]
pub(crate) struct Took {
    pub(crate) chain: &'static str,
    /// Name of a scenario or a check.
    pub(crate) what: String,
    pub(crate) time: Duration,
}

/// The checks of one chain of scenarios.
#[derive(Debug)]
pub(crate) struct Checks {
    /// What every line begins with: chains run beside each other.
    chain: &'static str,
    start: Instant,
    passed: usize,
    /// Names and reasons.
    failed: Vec<String>,
    /// The same of those that this image cannot pass.
    skipped: Vec<String>,
    slow: Vec<Took>,
}

impl Checks {
    pub(crate) fn new(chain: &'static str) -> Self {
        let (failed, skipped, slow) = (Vec::new(), Vec::new(), Vec::new());
        Self { chain, start: Instant::now(), passed: 0, failed, skipped, slow }
    }

    /// Announces a scenario.
    pub(crate) fn scenario(&self, name: &str) {
        self.say(&format!("== {name} ({:.0} s)", self.start.elapsed().as_secs_f64()));
    }

    /// Prints a line that is no check.
    pub(crate) fn say(&self, text: &str) {
        println!("{:<8} {text}", self.chain);
    }

    /// Runs one check.
    pub(crate) fn check(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        let start = Instant::now();
        let done = deadline::check().and_then(|()| work());
        let time = start.elapsed();
        let took = if time < SLOW { String::new() } else { format!(" ({} s)", time.as_secs()) };
        if time >= SLOW {
            self.slow.push(Took { chain: self.chain, what: name.to_owned(), time });
        }
        match done {
            Ok(()) => {
                self.passed += 1;
                self.say(&format!("ok      {name}{took}"));
            }
            Err(err) => {
                let failure = format!("{name}: {err:#}");
                self.say(&format!("FAILED  {failure}{took}"));
                self.failed.push(failure);
            }
        }
    }

    /// Says that a check makes no sense on this image, and why.
    pub(crate) fn skip(&mut self, name: &str, why: &str) {
        self.say(&format!("skipped {name}: {why}"));
        self.skipped.push(format!("{name}: {why}"));
    }

    /// True when nothing has failed so far.
    pub(crate) fn all_passed(&self) -> bool {
        self.failed.is_empty()
    }

    /// Prints the totals of all chains, with what took long; `unfinished` are scenarios that did not run to their end.
    pub(crate) fn finish(chains: &[Self], scenarios: Vec<Took>, unfinished: &[String]) -> ExitCode {
        let mut totals: Vec<Took> = Vec::new();
        for took in &scenarios {
            match totals.iter_mut().find(|total| total.chain == took.chain) {
                Some(total) => total.time += took.time,
                None => totals.push(Took { what: String::new(), ..took.clone() }),
            }
        }
        table("Scenarios", scenarios);
        table("Slow checks", chains.iter().flat_map(|c| c.slow.clone()).collect());
        table("Chains", totals);
        println!();
        for Self { failed, skipped, chain, .. } in chains {
            for skip in skipped {
                println!("skipped: {chain}: {skip}");
            }
            for failure in failed {
                println!("FAILED: {chain}: {failure}");
            }
        }
        for scenario in unfinished {
            println!("NOT RUN: {scenario}");
        }
        let count = |of: fn(&Self) -> usize| chains.iter().map(of).sum::<usize>();
        let (passed, failed) = (count(|c| c.passed), count(|c| c.failed.len()));
        println!("{passed} passed, {failed} failed, {} skipped", count(|c| c.skipped.len()));
        if failed == 0 && passed > 0 && unfinished.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
    }
}

/// What took longest comes first.
fn table(title: &str, mut rows: Vec<Took>) {
    if rows.is_empty() {
        return;
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.time));
    println!("\n{title}:");
    for Took { chain, what, time } in rows {
        println!("{:7.1} s  {chain:<8} {what}", time.as_secs_f64());
    }
}
