//! The architectures that the lab builds for, and what differs between them.

use anyhow::{Result, bail};

/// What an image runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arch {
    /// A PC with UEFI; GRUB starts it.
    #[default]
    X86_64,
    /// QEMU's arm64 machine `virt`; U-Boot starts it.
    Arm64,
}

/// Variable of the environment that names one.
pub const VARIABLE: &str = "OS_ARCH";

impl Arch {
    const ALL: [Self; 2] = [Self::X86_64, Self::Arm64];

    /// What [`VARIABLE`] says.
    ///
    /// # Errors
    /// When it names none that there is.
    pub fn wanted() -> Result<Self> {
        match std::env::var(VARIABLE) {
            Ok(word) if !word.is_empty() => Self::parse(&word),
            _ => Ok(Self::default()),
        }
    }

    fn parse(word: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|arch| arch.word() == word) {
            Some(arch) => Ok(arch),
            None => bail!("{VARIABLE} is '{word}'; there are {}", Self::ALL.map(Self::word).join(", ")),
        }
    }

    /// That of a machine; none where the lab has no such machine.
    pub fn of_machine(machine: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|arch| arch.machine() == machine)
    }

    /// Its name here.
    pub fn word(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }

    /// The machine whose disk is built; the same name and layout as the Yocto machine.
    pub fn machine(self) -> &'static str {
        match self {
            Self::X86_64 => "qemux86-64",
            Self::Arm64 => "qemuarm64",
        }
    }

    /// Debian's name, and that of container images.
    pub fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Rust's target.
    pub fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Prefix of the C tools that make programs for it, as Debian names them.
    pub fn gnu(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
        }
    }

    /// The directory of the program loader, where programs name it.
    pub fn loader_dir(self) -> &'static str {
        match self {
            Self::X86_64 => "usr/lib64",
            Self::Arm64 => "usr/lib",
        }
    }

    /// QEMU's name.
    pub fn qemu(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// True when this host runs its programs itself.
    pub fn is_native(self) -> bool {
        std::env::consts::ARCH == self.qemu()
    }

    /// Files of meta-os with machine facts that differ from what the distribution assumes.
    pub fn includes(self) -> &'static [&'static str] {
        match self {
            Self::X86_64 => &[],
            Self::Arm64 => &["conf/machine/include/os-qemuarm64.inc", "conf/machine/include/os-u-boot.inc"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_is_named_by_its_word_and_others_are_answered_with_those_there_are() {
        for arch in Arch::ALL {
            assert_eq!(Arch::parse(arch.word()).unwrap(), arch);
            assert_eq!(Arch::of_machine(arch.machine()), Some(arch));
        }
        assert_eq!(Arch::parse("riscv64").unwrap_err().to_string(), "OS_ARCH is 'riscv64'; there are x86_64, arm64");
    }
}
