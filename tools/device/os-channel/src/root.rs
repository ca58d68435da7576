//! Which keys are believed.

use crate::envelope::content;
use crate::{Envelope, Error};
use os_sys::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The keys for one purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Public keys, as minisign writes them (the line without the comment).
    pub keys: Vec<String>,
    /// So many of them have to sign.
    pub threshold: usize,
}

impl Role {
    /// What tells these keys from others, hex.
    pub fn fingerprint(&self) -> String {
        let mut keys: Vec<&str> = self.keys.iter().map(String::as_str).collect();
        keys.sort_unstable();
        hex(&Sha256::digest(format!("{} {}", self.threshold, keys.join(" ")).as_bytes()))
    }
}

/// The root of trust: a device has one in its image and follows its successors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// `root`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Counts up by one.
    pub version: u32,
    /// Not believed after this, seconds since 1970.
    pub expires: u64,
    /// Who signs roots. These keys are kept offline.
    pub root: Role,
    /// Who signs lists of releases. These keys are CI's.
    pub channel: Role,
}

impl Root {
    /// The value of `type`.
    pub const KIND: &'static str = "root";

    /// Reads the root that an image brings: it is believed because the image is.
    ///
    /// # Errors
    /// When it is no root, or its own keys did not sign it.
    pub fn built_in(bytes: &[u8]) -> Result<Self, Error> {
        let envelope = Envelope::parse(bytes)?;
        let root: Self = content(&envelope.signed, Self::KIND)?;
        envelope.verified(&root.root)?;
        Ok(root)
    }

    /// Reads the root that follows this one: enough keys of this one and of itself signed it.
    ///
    /// # Errors
    /// When it is not the next one or not signed so.
    pub fn successor(&self, bytes: &[u8]) -> Result<Self, Error> {
        let envelope = Envelope::parse(bytes)?;
        let next: Self = content(envelope.verified(&self.root)?, Self::KIND)?;
        envelope.verified(&next.root)?;
        if Some(next.version) != self.version.checked_add(1) {
            return Err(Error::NotNext { found: next.version, trusted: self.version });
        }
        Ok(next)
    }

    /// Checks the date. A chain is followed to its end first: only the last one has to be in date.
    ///
    /// # Errors
    /// When it is past.
    pub fn in_date(&self, now: u64) -> Result<(), Error> {
        if now > self.expires { Err(Error::Expired { expires: self.expires, now }) } else { Ok(()) }
    }
}
