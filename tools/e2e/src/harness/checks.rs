//! Counts checks and prints one line for each, with the reason of a failure.

use anyhow::Result;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// From how many seconds on it is said how long a check took.
const SLOW: u64 = 10;

/// The checks of one chain of scenarios.
#[derive(Debug)]
pub(crate) struct Checks {
    /// What every line begins with: chains run beside each other.
    chain: &'static str,
    start: Instant,
    /// How long all of them took.
    took: Duration,
    passed: usize,
    /// Names and reasons.
    failed: Vec<String>,
}

impl Checks {
    pub(crate) fn new(chain: &'static str) -> Self {
        Self { chain, start: Instant::now(), took: Duration::ZERO, passed: 0, failed: Vec::new() }
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
        let done = work();
        let took = match start.elapsed().as_secs() {
            ..SLOW => String::new(),
            seconds => format!(" ({seconds} s)"),
        };
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

    /// Says that there are no more.
    pub(crate) fn end(&mut self) {
        self.took = self.start.elapsed();
    }

    /// Prints the totals of all chains.
    pub(crate) fn finish(chains: Vec<Self>) -> ExitCode {
        println!();
        for Self { chain, took, failed, .. } in &chains {
            println!("{chain}: {:.0} s", took.as_secs_f64());
            for failure in failed {
                println!("FAILED: {failure}");
            }
        }
        let passed: usize = chains.iter().map(|c| c.passed).sum();
        let failed: usize = chains.iter().map(|c| c.failed.len()).sum();
        println!("{passed} passed, {failed} failed");
        if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
    }
}
