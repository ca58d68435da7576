//! What a self test found: the form of `os selftest --json`, which `osctl device selftest` reads, adds to and prints.
//!
//! It is made to be shown to others: it names the board and the release, and no host, address, network or serial number.

use crate::Slot;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What became of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is as it should be.
    Passed,
    /// It is not.
    Failed,
    /// It could not be tested, or this board has no such thing.
    Skipped,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Subject and property, such as `disk.grown`; a stable name.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
    /// What was found, or why it was skipped.
    pub text: String,
    /// What a person can do about it.
    #[serde(default)]
    pub remedy: Option<String>,
}

impl Check {
    /// It is as it should be.
    pub fn passed(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), outcome: Outcome::Passed, text: text.into(), remedy: None }
    }

    /// It is not, and this can be done about it.
    pub fn failed(name: impl Into<String>, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name: name.into(), outcome: Outcome::Failed, text: text.into(), remedy: Some(remedy.into()) }
    }

    /// It was not tested, for this reason.
    pub fn skipped(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { name: name.into(), outcome: Outcome::Skipped, text: reason.into(), remedy: None }
    }
}

/// The system that was tested.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct System {
    /// Name of the OS.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its variant.
    pub variant: String,
    /// Machine that it was built for.
    pub machine: String,
    /// Release of the kernel.
    pub kernel: String,
}

/// The hardware.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hardware {
    /// What it calls itself.
    pub model: Option<String>,
    /// Instruction set, as uname(2) has it.
    pub architecture: String,
    /// Version of the firmware or of U-Boot, where that is told.
    pub firmware: Option<String>,
    /// What starts the kernel.
    pub bootloader: Option<String>,
    /// Memory that the kernel has, in bytes.
    pub memory: Option<u64>,
}

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SelfTest {
    /// The system.
    pub os: System,
    /// The hardware.
    pub board: Hardware,
    /// Slot that was booted.
    pub slot: Option<Slot>,
    /// When it was made, seconds since 1970 as the device's clock has it.
    pub at: u64,
    /// How many checks passed.
    pub passed: usize,
    /// How many failed.
    pub failed: usize,
    /// How many were skipped.
    pub skipped: usize,
    /// Each of them.
    pub checks: Vec<Check>,
}

impl SelfTest {
    /// Adds checks.
    pub fn add(&mut self, checks: impl IntoIterator<Item = Check>) {
        self.checks.extend(checks);
        let count = |outcome| self.checks.iter().filter(|check| check.outcome == outcome).count();
        (self.passed, self.failed, self.skipped) =
            (count(Outcome::Passed), count(Outcome::Failed), count(Outcome::Skipped));
    }

    /// True when nothing failed.
    pub fn is_good(&self) -> bool {
        self.failed == 0
    }
}

impl fmt::Display for SelfTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (os, board) = (&self.os, &self.board);
        let unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        writeln!(f, "Board      {}, {} ({})", unknown(&board.model), os.machine, board.architecture)?;
        writeln!(f, "Firmware   {}, bootloader {}", unknown(&board.firmware), unknown(&board.bootloader))?;
        let slot = self.slot.map_or("unknown", Slot::name);
        writeln!(f, "System     {} {} ({}), kernel {}, slot {slot}", os.name, os.version, os.variant, os.kernel)?;
        writeln!(f)?;
        for Check { name, outcome, text, remedy } in &self.checks {
            let word = match outcome {
                Outcome::Passed => "passed",
                Outcome::Failed => "FAILED",
                Outcome::Skipped => "skipped",
            };
            writeln!(f, "{word:<8} {name:<20} {text}")?;
            if let Some(remedy) = remedy {
                writeln!(f, "{:<8} {:<20} > {remedy}", "", "")?;
            }
        }
        writeln!(f, "\n{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_counted_read_back_and_shown_with_its_remedy() {
        let mut test = SelfTest::default();
        test.add([Check::passed("disk.grown", "29 GiB"), Check::skipped("wifi.scan", "there is no radio")]);
        assert!(test.is_good());
        test.add([Check::failed("machine.power", "the voltage was too low", "use another power supply")]);
        assert_eq!((test.passed, test.failed, test.skipped, test.is_good()), (1, 1, 1, false));
        let said = test.to_string();
        for line in
            ["passed   disk.grown", "skipped  wifi.scan", "> use another power", "1 passed, 1 failed, 1 skipped"]
        {
            assert!(said.contains(line), "{line}: {said}");
        }
        let mut json = serde_json::to_value(&test).unwrap();
        // Whoever reads it knows more or less than whoever wrote it.
        json["later"] = true.into();
        json["checks"][0].as_object_mut().unwrap().remove("remedy");
        assert_eq!(serde_json::from_value::<SelfTest>(json).unwrap(), test);
    }
}
