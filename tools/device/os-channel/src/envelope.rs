//! A text and its signatures, in one file, so that no mirror can serve the one without the other.
//!
//! ```json
//! { "signed": "{ … }", "signatures": ["untrusted comment: …\nRU…\ntrusted comment: …\n…"] }
//! ```
//!
//! The text is a string: what is signed is exactly its bytes, and nothing has to be written in a canonical form. The
//! signatures are minisign's (<https://jedisct1.github.io/minisign/>), so the keys are those of its own tool.

use crate::{Error, MAX_SIZE, Role};
use minisign_verify::{PublicKey, Signature};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// More signatures are not looked at: each costs time.
const MAX_SIGNATURES: usize = 16;

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// What is signed.
    pub signed: String,
    /// Signatures in minisign's form.
    pub signatures: Vec<String>,
}

impl Envelope {
    /// Reads a file. Nothing in it is believed yet.
    ///
    /// # Errors
    /// When it is too large or no envelope.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let size = bytes.len() as u64;
        if size > MAX_SIZE {
            return Err(Error::TooLarge(size));
        }
        serde_json::from_slice(bytes).map_err(|err| Error::Malformed(err.to_string()))
    }

    /// The text, when enough keys of the role signed it. Each key counts once.
    ///
    /// # Errors
    /// When there are too few.
    pub fn verified(&self, role: &Role) -> Result<&str, Error> {
        let keys: BTreeSet<&str> = role.keys.iter().map(String::as_str).collect();
        let signatures: Vec<Signature> =
            self.signatures.iter().take(MAX_SIGNATURES).filter_map(|s| Signature::decode(s).ok()).collect();
        let signed_by = |key: &&&str| {
            PublicKey::from_base64(key)
                .is_ok_and(|key| signatures.iter().any(|s| key.verify(self.signed.as_bytes(), s, false).is_ok()))
        };
        let (valid, needed) = (keys.iter().filter(signed_by).count(), role.threshold.max(1));
        if valid < needed { Err(Error::Signatures { valid, needed }) } else { Ok(&self.signed) }
    }
}

/// Reads a verified text of the expected kind.
pub(crate) fn content<'a, T: Deserialize<'a>>(text: &'a str, kind: &str) -> Result<T, Error> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: String,
    }
    let malformed = |err: serde_json::Error| Error::Malformed(err.to_string());
    let found: Kind = serde_json::from_str(text).map_err(malformed)?;
    if found.kind != kind {
        return Err(Error::Malformed(format!("it is a '{}', expected a '{kind}'", found.kind)));
    }
    serde_json::from_str(text).map_err(malformed)
}
