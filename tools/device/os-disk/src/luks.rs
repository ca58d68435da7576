//! The header of an encrypted partition, as `cryptsetup luksDump --dump-json-metadata` prints it (LUKS2 On-Disk Format
//! Specification, 3: the JSON area).

use os_sys::cmd::{Cmd, CmdError};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use std::ffi::OsStr;

/// What is read of a header.
#[derive(Debug, Clone, Deserialize)]
pub struct Header {
    #[serde(default)]
    keyslots: BTreeMap<String, IgnoredAny>,
    #[serde(default)]
    tokens: BTreeMap<String, Token>,
    #[serde(default)]
    config: Config,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Token {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
struct Config {
    #[serde(default)]
    requirements: Requirements,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
struct Requirements {
    #[serde(default)]
    mandatory: Vec<String>,
}

/// A header cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// cryptsetup does not print one.
    #[error(transparent)]
    Program(#[from] CmdError),
    /// It prints something else.
    #[error("cryptsetup describes the header in an unknown form: {0}")]
    Form(#[from] serde_json::Error),
}

impl Header {
    /// Reads the header at the beginning of a device, or in a file of its own. `cryptsetup` is the program, however it is
    /// started.
    ///
    /// # Errors
    /// When there is none, or cryptsetup fails.
    pub fn read(cryptsetup: Cmd, at: impl AsRef<OsStr>) -> Result<Self, HeaderError> {
        Ok(Self::parse(&cryptsetup.args(["luksDump", "--dump-json-metadata"]).arg(at).read()?)?)
    }

    /// Reads what cryptsetup prints.
    ///
    /// # Errors
    /// When it is no such JSON.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// The partition is in the middle of being encrypted. Later versions of the requirement have a number behind its name.
    pub fn is_reencrypting(&self) -> bool {
        self.config.requirements.mandatory.iter().any(|name| name.starts_with("online-reencrypt"))
    }

    /// A key is in this slot.
    pub fn has_key(&self, slot: u32) -> bool {
        self.keyslots.contains_key(&slot.to_string())
    }

    /// A TPM holds one of its keys, as systemd-cryptenroll(1) puts it there.
    pub fn has_tpm(&self) -> bool {
        self.tokens.values().any(|token| token.kind == "systemd-tpm2")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_says_what_is_under_way_and_who_holds_a_key() {
        let plain = r#"{"keyslots":{},"tokens":{},"segments":{},"digests":{},"config":{"json_size":"12288","keyslots_size":"16744448"}}"#;
        let header = Header::parse(plain).unwrap();
        assert!(!header.is_reencrypting() && !header.has_tpm());
        let busy = r#"{"keyslots":{"0":{"type":"luks2","key_size":64},"31":{"type":"luks2"}},"tokens":{"0":{"type":"systemd-tpm2","keyslots":["1"]},"1":{"type":"luks2-keyring"}},
            "config":{"requirements":{"mandatory":["online-reencrypt-v2"]}}}"#;
        let header = Header::parse(busy).unwrap();
        assert!(header.is_reencrypting() && header.has_tpm());
        assert!(header.has_key(0) && header.has_key(31) && !header.has_key(3));
        // A name that only looks like it, where a person may write one.
        let named = r#"{"tokens":{"0":{"type":"mine","note":"systemd-tpm2 online-reencrypt"}},"config":{}}"#;
        let header = Header::parse(named).unwrap();
        assert!(!header.is_reencrypting() && !header.has_tpm());
        assert!(Header::parse("LUKS header information").is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[\\[\\]{}\",:a-z0-9]{0,60}") {
            let _ = Header::parse(&text);
        }
    }
}
