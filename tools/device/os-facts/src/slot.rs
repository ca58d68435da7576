//! The two slots that the system is in.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// One of the two: a kernel partition and a root partition, which are written and started together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Slot {
    /// The one that an image is made with.
    #[default]
    A,
    /// The other one.
    B,
}

/// A name that no slot has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no slot; there are A and B")]
pub struct NoSlot(String);

impl Slot {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The other one of the two.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Its name: what the bootloader, RAUC and `os.slot=` call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Slot {
    type Err = NoSlot;

    fn from_str(text: &str) -> Result<Self, NoSlot> {
        Self::BOTH.into_iter().find(|slot| slot.name() == text).ok_or_else(|| NoSlot(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_its_name_everywhere() {
        for slot in Slot::BOTH {
            assert_eq!(slot.name().parse(), Ok(slot));
            assert_eq!(serde_json::to_string(&slot).unwrap(), format!("\"{slot}\""));
            assert_ne!(slot.other(), slot);
            assert_eq!(slot.other().other(), slot);
        }
        for text in ["", "a", "C", "A "] {
            assert!(text.parse::<Slot>().is_err(), "{text:?}");
        }
    }
}
