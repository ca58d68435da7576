//! Where the key of the data partition is, and what became of encryption in this boot.

use serde::{Deserialize, Serialize};

/// The key, on the state partition.
pub const KEY: &str = "os/data.key";
/// A recovery key that a person has brought, without the newline that an editor leaves.
pub const RECOVERY_COPY: &str = "/run/os/recovery-key";
/// The key is as random as the volume key, so stretching it would only cost time.
pub const PBKDF: &[&str] = &["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];

/// Where the key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// Not encrypted.
    #[default]
    None,
    /// In the state partition.
    Key,
    /// Sealed to the TPM.
    Tpm2,
    /// Opened with a recovery key: the key itself could not be had.
    Recovery,
}

/// What became of encryption in this boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Encryption {
    /// What config.json asked for.
    pub wanted: Option<String>,
    /// What is so.
    pub found: Protection,
    /// Why it is not what was asked for.
    pub problem: Option<String>,
}

impl Protection {
    /// Reads the word of config.json.
    pub fn wanted(word: Option<&str>) -> Option<Self> {
        [Self::Key, Self::Tpm2].into_iter().find(|p| Some(p.word()) == word)
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Key => "key",
            Self::Tpm2 => "tpm2",
            Self::Recovery => "recovery",
        }
    }
}
