//! Metadata of an update channel, shared by the device that believes it and the workstation that writes it.
//!
//! A channel is a directory of static files. Two of them are signed, both in an [`envelope`]:
//!
//! - `root.json` ([`root`]) names the keys that are believed, and is replaced by a successor that the old keys sign;
//!   `roots/N.json` keeps them all, so that a device that slept for years can follow
//! - `channel.json` ([`channel`]) names every release, and is the only file that says anything about them
//!
//! The design is The Update Framework's (<https://theupdateframework.io>) with its roles folded into these two, because
//! everything a channel says fits into one small file: what cannot be split cannot be mixed. The threat model stands in
//! `docs/update.md`.

pub mod channel;
pub mod envelope;
pub mod root;

pub use channel::{Channel, Choice, Release, Seen};
pub use envelope::Envelope;
pub use root::{Role, Root};

/// Larger metadata is refused, in bytes. A release takes about 600.
pub const MAX_SIZE: u64 = 1 << 20;

/// Name of the signed list of releases in a channel's directory.
pub const CHANNEL_FILE: &str = "channel.json";

/// Name of the newest root in a channel's directory.
pub const ROOT_FILE: &str = "root.json";

/// Where the root of one version lies in a channel's directory.
pub fn root_file(version: u32) -> String {
    format!("roots/{version}.json")
}

/// Why metadata is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// More than [`MAX_SIZE`].
    #[error("it has {0} bytes; at most {MAX_SIZE} are read")]
    TooLarge(u64),
    /// No envelope, or something else in it than was expected.
    #[error("it is malformed: {0}")]
    Malformed(String),
    /// Too few signatures by trusted keys.
    #[error("it has {valid} of {needed} required signatures by trusted keys")]
    Signatures {
        /// Good ones.
        valid: usize,
        /// Threshold.
        needed: usize,
    },
    /// An older list than one that was seen.
    #[error("it is older than the last one seen (serial {found}, seen {seen}): a stale mirror or a replay attack")]
    Older {
        /// Serial of the file.
        found: u64,
        /// Highest serial that was accepted.
        seen: u64,
    },
    /// Two different lists with one serial.
    #[error("serial {0} was seen before with different content")]
    TwoFaced(u64),
    /// Past its date.
    #[error(
        "it expired {} days ago (local date: {}): it was not renewed, newer ones are withheld, or the clock is wrong",
        (.now.saturating_sub(*.expires)) / 86400,
        day(*.now)
    )]
    Expired {
        /// Its date, seconds since 1970.
        expires: u64,
        /// The device's idea of now.
        now: u64,
    },
    /// Issued after now.
    #[error(
        "it is dated {} days in the future: the clock of its signer is wrong, or the local one ({})",
        (.issued.saturating_sub(*.now)) / 86400 + 1,
        day(*.now)
    )]
    Future {
        /// Its date, seconds since 1970.
        issued: u64,
        /// The device's idea of now.
        now: u64,
    },
    /// A root that is not the next one.
    #[error("root {found} cannot follow root {trusted}")]
    NotNext {
        /// Version of the file.
        found: u32,
        /// Version that is believed.
        trusted: u32,
    },
    /// The list of another channel.
    #[error("it is the list of channel '{found}', not of '{wanted}'")]
    OtherChannel {
        /// Its name.
        found: String,
        /// The wanted name.
        wanted: String,
    },
}

fn day(at: u64) -> String {
    let date = os_sys::date::local(at);
    date.split_once(' ').map_or(date.as_str(), |(day, _)| day).to_owned()
}

#[cfg(test)]
mod tests;
