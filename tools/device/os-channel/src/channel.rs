//! The list of releases, and which of them a device takes.

use crate::envelope::content;
use crate::{Envelope, Error, Root};
use os_sys::hex;
use semver::Version;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// `channel`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of the channel, the last part of its URL. A mirror cannot pass one off as another.
    pub name: String,
    /// Counts up with every change.
    pub serial: u64,
    /// When it was signed, seconds since 1970. No device's clock is believed to be before it.
    pub issued: u64,
    /// Not believed after this, seconds since 1970.
    pub expires: u64,
    /// Every release that devices may need, in any order.
    pub releases: Vec<Release>,
}

/// One release for one kind of device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Which devices it is for (RAUC's compatible).
    pub compatible: String,
    /// Version (semver.org).
    pub version: Version,
    /// What else tells two builds of a version apart; for people.
    #[serde(default)]
    pub build: String,
    /// The bundle.
    pub bundle: Bundle,
    /// When it was published, seconds since 1970.
    pub published: u64,
    /// Release notes, relative to the channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// How many of a hundred devices take it.
    pub rollout: u8,
    /// Devices that are older must go through it.
    #[serde(default)]
    pub stepping_stone: bool,
    /// Nobody takes it any more, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<String>,
}

/// A bundle of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    /// Relative to the channel.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the whole file, hex.
    pub sha256: String,
    /// RAUC's hash of the signed manifest, hex: with it the list says which bundle is installed, whoever serves it.
    pub manifest_hash: String,
}

/// What a device remembers of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Highest serial.
    pub serial: u64,
    /// SHA-256 of the list with that serial, hex.
    pub digest: String,
    /// When that was issued.
    pub issued: u64,
    /// Whose word that is: the keys that lists were signed by then. What other keys said counts no more (TUF 5.3.11): who stole
    /// one could have used it to make every list of the owner look old. Earlier releases did not write it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub keys: String,
}

/// The time, as a device has it.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Seconds since 1970.
    pub now: u64,
    /// It was set by a time server; without one it may stand anywhere in the past.
    pub set: bool,
}

/// A list is good for no longer, in seconds: three months, where [`Channel`]s that osctl signs are good for two weeks.
const LONGEST: u64 = 92 * DAY;
/// A list may be issued so much later than a clock that is set, in seconds.
const AHEAD: u64 = DAY;
const DAY: u64 = 24 * 3600;

/// A device that asks.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// RAUC's compatible.
    pub compatible: &'a str,
    /// What runs.
    pub version: &'a Version,
    /// Something that stays the same for this device and differs from others'.
    pub id: &'a str,
    /// Digests of bundles that failed here; of one that came by hand, the hash of its manifest.
    pub refused: &'a [String],
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice<'a> {
    /// This one.
    Offer(&'a Release),
    /// Nothing newer.
    UpToDate,
    /// Something newer that this device does not take now.
    Held {
        /// The release.
        release: &'a Release,
        /// Why.
        why: Held,
    },
}

/// Why a newer release is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Held {
    /// It failed on this device.
    FailedHere,
    /// The rollout has not reached this device.
    Rollout,
    /// It is a stepping stone that nobody takes any more.
    Revoked,
}

impl Channel {
    /// The value of `type`.
    pub const KIND: &'static str = "channel";

    /// Reads a list and decides whether it is believed; returns it with what is to be remembered.
    ///
    /// What was seen before moves the clock forward where it is behind.
    ///
    /// # Errors
    /// When it is not signed by the root's keys, older than one seen before, expired, from the future, or of another channel.
    pub fn accept(bytes: &[u8], root: &Root, name: &str, seen: &Seen, clock: Clock) -> Result<(Self, Seen), Error> {
        let envelope = Envelope::parse(bytes)?;
        let text = envelope.verified(&root.channel)?;
        let list: Self = content(text, Self::KIND)?;
        if list.name != name {
            return Err(Error::OtherChannel { found: list.name, wanted: name.to_owned() });
        }
        let keys = root.channel.fingerprint();
        let none = Seen::default();
        let seen = if seen.keys.is_empty() || seen.keys == keys { seen } else { &none };
        if list.serial < seen.serial {
            return Err(Error::Older { found: list.serial, seen: seen.serial });
        }
        let digest = hex(&Sha256::digest(text.as_bytes()));
        if list.serial == seen.serial && !seen.digest.is_empty() && digest != seen.digest {
            return Err(Error::TwoFaced(list.serial));
        }
        if list.expires.checked_sub(list.issued).is_none_or(|life| life > LONGEST) {
            return Err(Error::Malformed(format!(
                "it is valid for more than {} days, or for less than none",
                LONGEST / DAY
            )));
        }
        if clock.set && list.issued > clock.now.saturating_add(AHEAD) {
            return Err(Error::Future { issued: list.issued, now: clock.now });
        }
        // A clock that starts in 1970 must not make an old list look fresh.
        let now = clock.now.max(seen.issued).max(list.issued);
        root.in_date(now)?;
        if now > list.expires {
            return Err(Error::Expired { expires: list.expires, now });
        }
        let seen = Seen { serial: list.serial, digest, issued: list.issued.max(seen.issued), keys };
        Ok((list, seen))
    }

    /// Which release a device takes next.
    pub fn choose(&self, asking: Asking<'_>) -> Choice<'_> {
        let mut newer: Vec<&Release> = self
            .releases
            .iter()
            .filter(|r| r.compatible == asking.compatible && r.version > *asking.version)
            // A stepping stone that nobody takes any more lies in the way until a later one takes its place: what is behind it
            // has not become safe.
            .filter(|r| r.revoked.is_none() || r.stepping_stone && !self.is_replaced(r))
            .collect();
        newer.sort_by(|a, b| a.version.cmp(&b.version).then(a.published.cmp(&b.published)));
        let mut held = None;
        let mut best = None;
        for release in newer {
            if release.revoked.is_some() {
                held = Some(Choice::Held { release, why: Held::Revoked });
            } else if [&release.bundle.sha256, &release.bundle.manifest_hash].iter().any(|d| asking.refused.contains(d))
            {
                held = Some(Choice::Held { release, why: Held::FailedHere });
            } else if !release.reaches(asking.id) {
                held = Some(Choice::Held { release, why: Held::Rollout });
            } else {
                best = Some(release);
            }
            // Nothing behind a stepping stone is looked at, taken or not.
            if release.stepping_stone {
                break;
            }
        }
        match (best, held) {
            (Some(release), _) => Choice::Offer(release),
            (None, Some(held)) => held,
            (None, None) => Choice::UpToDate,
        }
    }
}

impl Channel {
    fn is_replaced(&self, stone: &Release) -> bool {
        let later = |r: &Release| r.compatible == stone.compatible && r.version > stone.version;
        self.releases.iter().any(|r| later(r) && r.stepping_stone && r.revoked.is_none())
    }
}

impl Release {
    /// True when the rollout has reached a device. Which devices come first differs from release to release.
    pub fn reaches(&self, id: &str) -> bool {
        let digest = Sha256::digest(format!("{id} {}", self.bundle.sha256).as_bytes());
        let number = digest.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        number % 100 < u64::from(self.rollout)
    }
}
