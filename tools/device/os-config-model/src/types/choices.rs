//! Values that are one of a few words, which [`KEYS`](crate::keys::KEYS) lists for people.

use serde::{Deserialize, Serialize};

/// How much of an update happens by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Install and start.
    #[default]
    Automatic,
    /// Install.
    Download,
    /// Say that there is one.
    Manual,
}

/// How a release is started for its trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Trial {
    /// By the bootloader, which counts tries.
    #[default]
    Restart,
    /// By jumping into its kernel; the bootloader hears of it when it passed.
    Kexec,
}

/// Who answers for names on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Resolver {
    /// The system's own.
    #[default]
    Local,
    /// Nobody: port 53 is for a container.
    Off,
}

/// Whom the broker listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Listen {
    /// The device itself, and the containers on the engine's own bridge.
    #[default]
    Local,
    /// The network too.
    All,
}
