//! Counts checks and prints one line for each, with the reason of a failure.

use anyhow::Result;
use std::process::ExitCode;
use std::time::Instant;

/// The checks so far.
#[derive(Debug)]
pub(crate) struct Checks {
    start: Instant,
    passed: usize,
    failed: Vec<String>,
}

impl Checks {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), passed: 0, failed: Vec::new() }
    }

    /// Announces a scenario.
    pub(crate) fn scenario(&self, name: &str) {
        println!("\n== {name} ({:.0} s)", self.start.elapsed().as_secs_f64());
    }

    /// Runs one check.
    pub(crate) fn check(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        match work() {
            Ok(()) => {
                self.passed += 1;
                println!("  ok      {name}");
            }
            Err(err) => {
                println!("  FAILED  {name}: {err:#}");
                self.failed.push(name.to_owned());
            }
        }
    }

    /// Prints the totals.
    pub(crate) fn finish(self) -> ExitCode {
        println!("\nIn {:.0} s.", self.start.elapsed().as_secs_f64());
        for name in &self.failed {
            println!("FAILED: {name}");
        }
        println!("{} passed, {} failed", self.passed, self.failed.len());
        if self.failed.is_empty() && self.passed > 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
    }
}
