//! What the initramfs found and did, for `os status` and the health gate.

use crate::Slot;
use crate::protection::Encryption;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Where the report lies on the running device.
pub const PATH: &str = "/run/os/init.json";

/// Condition of a writable partition after the boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Volume {
    /// Checked and mounted.
    Ok,
    /// It had errors; they were repaired.
    Repaired,
    /// It was formatted in this boot: blank, or a wipe was asked for.
    Formatted,
    /// It cannot be used. For state a temporary filesystem stands in.
    #[default]
    Unusable,
}

/// The report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Booted slot.
    pub slot: Slot,
    /// Kernel name of the boot disk.
    pub disk: String,
    /// The root is protected by dm-verity.
    pub verity: bool,
    /// The device made its identity in this boot.
    pub first_boot: bool,
    /// State was still mounted when the device went off the last time: power was cut, or it was reset.
    #[serde(default)]
    pub unclean: bool,
    /// State partition.
    pub state: Volume,
    /// Data partition.
    pub data: Volume,
    /// Encryption of the data partition.
    #[serde(default)]
    pub encryption: Encryption,
    /// Size of the compressed swap that config.json asked for, in percent of RAM; none for the default.
    #[serde(default)]
    pub zram_swap: Option<u32>,
    /// What the clock said, seconds since 1970, where that was before dates that have passed for certain: nothing keeps it while
    /// the device is off, and it was moved forward to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_was: Option<u64>,
    /// What is wrong, in order.
    pub messages: Vec<String>,
    /// What was done because somebody asked for it.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Report {
    /// The report of this boot; `None` when there is none or it cannot be read.
    pub fn of_this_boot() -> Option<Self> {
        Self::load(Path::new(PATH))
    }

    /// Reads a report; `None` when there is none or it cannot be read.
    pub fn load(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }
}
