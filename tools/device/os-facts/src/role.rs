//! What the partitions of the boot disk are for, whatever its partition table calls them.

use crate::Slot;
use std::fmt;
use std::path::PathBuf;

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Bootloader, `config.json`, counters of tries; readable in any PC.
    Boot,
    /// Kernel and initramfs of a slot, and how they are started.
    Kernel(Slot),
    /// Root of a slot, with its verity tree.
    Root(Slot),
    /// Identity and host configuration.
    State,
    /// Containers and what their owner puts there.
    Data,
}

impl Role {
    /// Each of them, in the order in which they lie on the disk.
    pub const EACH: [Self; 7] = [
        Self::Boot,
        Self::Kernel(Slot::A),
        Self::Kernel(Slot::B),
        Self::Root(Slot::A),
        Self::Root(Slot::B),
        Self::State,
        Self::Data,
    ];

    /// The role that has this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::EACH.into_iter().find(|role| role.to_string() == name)
    }

    /// Its number in an MBR, which has no names: three primary partitions, and logical ones from 5.
    pub const fn mbr_number(self) -> u32 {
        match self {
            Self::Boot => 1,
            Self::Kernel(Slot::A) => 2,
            Self::Kernel(Slot::B) => 3,
            Self::Root(Slot::A) => 5,
            Self::Root(Slot::B) => 6,
            Self::State => 7,
            Self::Data => 8,
        }
    }

    /// The role of a partition of an MBR.
    pub fn of_mbr_number(number: u32) -> Option<Self> {
        Self::EACH.into_iter().find(|role| role.mbr_number() == number)
    }

    /// The device node on the running system; `os-init` has udev make it for the disk that was booted from.
    pub fn device(self) -> PathBuf {
        PathBuf::from(format!("/dev/disk/os/{self}"))
    }
}

/// Its name: that of the partition in a GPT, and the label of its filesystem.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boot => f.write_str("os-boot"),
            Self::Kernel(slot) => write!(f, "os-kernel{slot}"),
            Self::Root(slot) => write!(f, "os-root{slot}"),
            Self::State => f.write_str("os-state"),
            Self::Data => f.write_str("os-data"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_found_by_its_name() {
        for role in Role::EACH {
            assert_eq!(Role::of(&role.to_string()), Some(role));
        }
        assert_eq!(Role::of("os-kernelC"), None);
        let numbers = Role::EACH.map(Role::mbr_number);
        assert_eq!(numbers, [1, 2, 3, 5, 6, 7, 8]);
        assert_eq!(numbers.map(Role::of_mbr_number), Role::EACH.map(Some));
        assert_eq!(Role::of_mbr_number(4), None);
        assert_eq!(Role::Kernel(Slot::B).device(), PathBuf::from("/dev/disk/os/os-kernelB"));
    }
}
