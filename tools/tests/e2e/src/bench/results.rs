//! What was measured: kept as JSON, so that two runs compare.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    /// The built image.
    Ours,
    /// A Debian as its installer leaves it, with docker.io.
    Debian,
    /// Our kernel and root slot with nothing but the engine.
    Floor,
    /// The same with dm-verity under the root.
    FloorVerity,
    /// Firmware and GRUB, until the kernel says something.
    Firmware,
}

impl System {
    pub(super) const ALL: [Self; 5] = [Self::Firmware, Self::Floor, Self::FloorVerity, Self::Debian, Self::Ours];

    /// Name of its files.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Debian => "debian",
            Self::Floor => "floor",
            Self::FloorVerity => "floor-verity",
            Self::Firmware => "firmware",
        }
    }

    /// Head of its column.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Debian => "Debian",
            Self::Floor => "floor",
            Self::FloorVerity => "floor, root verified",
            Self::Firmware => "firmware",
        }
    }

    /// What is waited for.
    pub(super) fn milestones(self) -> &'static [Milestone] {
        match self {
            Self::Ours | Self::Debian => &[Milestone::Login, Milestone::Docker, Milestone::Page, Milestone::Healthy],
            Self::Floor | Self::FloorVerity => &[Milestone::Docker],
            Self::Firmware => &[Milestone::Kernel],
        }
    }
}

/// What a boot comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Milestone {
    /// The kernel's first output.
    Kernel,
    /// The ssh server says its name.
    Login,
    /// `docker version` ends well in the guest.
    Docker,
    /// The first container serves its page.
    Page,
    /// The system says that everything is well.
    Healthy,
}

impl Milestone {
    pub(super) const ALL: [Self; 5] = [Self::Kernel, Self::Login, Self::Docker, Self::Page, Self::Healthy];

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Kernel => "kernel's first output",
            Self::Login => "log-in possible",
            Self::Docker => "Docker answers",
            Self::Page => "first container's page",
            Self::Healthy => "all health confirmed",
        }
    }
}

/// How a machine is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// As fast as the host can.
    Plain,
    /// Every instruction takes the same time of the guest's clock, which then counts them.
    Counted,
    /// The disk is as slow as an SD card.
    Card,
}

impl Mode {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Plain => "as fast as it goes",
            Self::Counted => "counting instructions",
            Self::Card => "disk as slow as an SD card",
        }
    }
}

/// Which boot of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Start {
    /// As flashed or installed.
    First,
    /// After a clean power off.
    Second,
}

/// What it took until a milestone, from power-on.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Sample {
    /// Seconds on the wall.
    pub(super) wall: f64,
    /// Processor seconds of QEMU, user and system.
    pub(super) processor: f64,
    /// Bytes that the guest read from its disk.
    pub(super) read: u64,
    /// Operations it took.
    pub(super) operations: u64,
    /// Instructions of the guest, where they are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) instructions: Option<f64>,
}

/// What else the host did meanwhile.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Host {
    /// Processors that others than this machine used, on average.
    pub(super) others: f64,
    /// The load of the last minute at the end.
    pub(super) load: f64,
}

/// Memory of an idle system, in KiB.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Memory {
    /// `MemTotal` - `MemAvailable`.
    pub(super) used: u64,
    /// Resident memory of our own processes.
    pub(super) own: u64,
    /// Proportional share of every program, by name.
    pub(super) programs: BTreeMap<String, u64>,
}

/// One boot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Boot {
    pub(super) system: System,
    pub(super) mode: Mode,
    pub(super) start: Start,
    pub(super) milestones: BTreeMap<Milestone, Sample>,
    pub(super) host: Host,
    /// What the system said of itself when all was confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) health: Option<String>,
}

/// A system whose memory is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Idler {
    Ours,
    /// As it was installed.
    Debian,
    /// With our kernel settings of the memory management.
    DebianEqual,
}

impl Idler {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Debian => "Debian as installed",
            Self::DebianEqual => "Debian with our vm.* settings",
        }
    }
}

/// The memory of one of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Idle {
    pub(super) system: Idler,
    pub(super) memory: Memory,
}

/// One run of the command.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Results {
    /// What it ran on.
    pub(super) machine: String,
    /// Rows of the table of sizes and build times.
    #[serde(default)]
    pub(super) sizes: Vec<(String, String)>,
    #[serde(default)]
    pub(super) boots: Vec<Boot>,
    /// Whether Debian ran the very kernel of our slot; none when Debian was not measured.
    #[serde(default)]
    pub(super) same_kernel: Option<bool>,
    #[serde(default)]
    pub(super) idle: Vec<Idle>,
    /// The sections about updates.
    #[serde(default)]
    pub(super) updates: String,
}
