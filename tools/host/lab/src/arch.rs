//! The architectures that the lab builds for, and what differs between them.

use anyhow::{Result, bail};
use os_boot::Bootloader;

/// What an image runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arch {
    /// A PC with UEFI; GRUB starts it.
    #[default]
    X86_64,
    /// QEMU's arm64 machine `virt`; U-Boot starts it.
    Arm64,
    /// The same with a 32-bit processor.
    Armv7,
}

/// Variable of the environment that names one.
pub const VARIABLE: &str = "OS_ARCH";

impl Arch {
    const ALL: [Self; 3] = [Self::X86_64, Self::Arm64, Self::Armv7];

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
            Self::Armv7 => "armv7",
        }
    }

    /// The machine whose disk is built; the same name and layout as the Yocto machine.
    pub fn machine(self) -> &'static str {
        match self {
            Self::X86_64 => "qemux86-64",
            Self::Arm64 => "qemuarm64",
            Self::Armv7 => "qemuarm",
        }
    }

    /// Debian's name.
    pub fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
            Self::Armv7 => "armhf",
        }
    }

    /// That of container images: architecture, and variant where there is one (OCI image index, `platform`).
    pub fn container(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::X86_64 => ("amd64", None),
            Self::Arm64 => ("arm64", None),
            Self::Armv7 => ("arm", Some("v7")),
        }
    }

    /// Debian's kernel, without "linux-image-".
    pub fn kernel(self) -> &'static str {
        match self {
            Self::X86_64 | Self::Arm64 => self.debian(),
            Self::Armv7 => "armmp",
        }
    }

    /// Rust's target.
    pub fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
            Self::Armv7 => "armv7-unknown-linux-gnueabihf",
        }
    }

    /// Prefix of the C tools that make programs for it, as Debian names them.
    pub fn gnu(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
            Self::Armv7 => "arm-linux-gnueabihf",
        }
    }

    /// The directory of the program loader, where programs name it.
    pub fn loader_dir(self) -> &'static str {
        match self {
            Self::X86_64 => "usr/lib64",
            Self::Arm64 | Self::Armv7 => "usr/lib",
        }
    }

    /// QEMU's name.
    pub fn qemu(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "aarch64",
            Self::Armv7 => "arm",
        }
    }

    /// Class and machine in the header of its programs (elf.h: `ELFCLASS*`, `EM_*`).
    pub fn elf(self) -> (u8, u8) {
        match self {
            Self::X86_64 => (2, 62),
            Self::Arm64 => (2, 183),
            Self::Armv7 => (1, 40),
        }
    }

    /// True when this host runs its programs itself.
    pub fn is_native(self) -> bool {
        std::env::consts::ARCH == self.qemu()
    }

    /// Files of meta-os with machine facts that differ from what the distribution assumes; `bootloader` is the one that the builder
    /// wishes for.
    pub fn includes(self, bootloader: Option<&str>) -> &'static [&'static str] {
        match self {
            Self::X86_64 => &[],
            // The end-to-end suite stands in for that firmware.
            Self::Arm64 if bootloader == Some(Bootloader::RpiTryboot.word()) => {
                &["conf/machine/include/os-qemuarm64.inc", "conf/machine/include/os-rpi-tryboot.inc"]
            }
            Self::Arm64 => &["conf/machine/include/os-qemuarm64.inc", "conf/machine/include/os-u-boot.inc"],
            Self::Armv7 => &["conf/machine/include/os-qemuarm.inc", "conf/machine/include/os-u-boot.inc"],
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
        assert_eq!(
            Arch::parse("riscv64").unwrap_err().to_string(),
            "OS_ARCH is 'riscv64'; there are x86_64, arm64, armv7"
        );
    }
}
