//! What a wipe erases: the words of `os wipe`, `os.wipe` and the request on the boot partition.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What to erase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WipeScope {
    /// Containers and images; logs and the rest of data stay.
    Apps,
    /// Identity and host configuration.
    State,
    /// Containers, apps and logs.
    Data,
    /// State and data.
    All,
}

/// A word that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' cannot be erased; there are apps, state, data and all")]
pub struct NoScope(String);

impl WipeScope {
    /// Each of them.
    pub const EACH: [Self; 4] = [Self::Apps, Self::State, Self::Data, Self::All];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Apps => "apps",
            Self::State => "state",
            Self::Data => "data",
            Self::All => "all",
        }
    }

    /// True when this includes the state partition.
    pub fn state(self) -> bool {
        matches!(self, Self::State | Self::All)
    }

    /// True when this includes the data partition.
    pub fn data(self) -> bool {
        matches!(self, Self::Data | Self::All)
    }
}

impl fmt::Display for WipeScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for WipeScope {
    type Err = NoScope;

    fn from_str(text: &str) -> Result<Self, NoScope> {
        Self::EACH.into_iter().find(|scope| scope.word() == text.trim()).ok_or_else(|| NoScope(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_its_word_everywhere() {
        for scope in WipeScope::EACH {
            assert_eq!(scope.word().parse(), Ok(scope));
            assert_eq!(format!("{scope}\r\n").parse(), Ok(scope));
            assert_eq!(serde_json::to_string(&scope).unwrap(), format!("\"{scope}\""));
        }
        for text in ["", "everything", "Data", "data all"] {
            assert!(text.parse::<WipeScope>().is_err(), "{text:?}");
        }
    }
}
