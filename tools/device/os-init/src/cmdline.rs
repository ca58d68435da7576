//! The kernel arguments that the initramfs obeys.

use os_boot::Tries;
use os_disk::table::PartId;
use os_facts::{Slot, WipeScope};
use std::time::Duration;

/// How long to wait for the boot disk when `os.wait` does not say, in seconds. Slow USB bridges need about 20.
const DEFAULT_WAIT_SECS: u64 = 60;

/// dm-verity parameters of the root slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verity {
    /// Root hash, hex.
    pub root_hash: String,
    /// Bytes of the filesystem; the hash tree starts there.
    pub data_size: u64,
}

/// The arguments that concern us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cmdline {
    /// Slot to boot.
    pub slot: Slot,
    /// Identifier of the boot partition that the bootloader came from.
    pub boot: Option<PartId>,
    /// What the bootloader has written to the counters of its disk before it started us.
    pub tries: Option<Tries>,
    /// Verity parameters; none only where the image was built without.
    pub verity: Option<Verity>,
    /// One-time wipe asked for by hand.
    pub wipe: Option<WipeScope>,
    /// Drop to a shell when booting fails.
    pub rescue: bool,
    /// Only prove that this kernel runs, then power off.
    pub probe: bool,
    /// How long to wait for the disk.
    pub wait: Duration,
    /// Arguments of ours that were not understood; said on the console, never fatal.
    pub complaints: Vec<String>,
}

impl Cmdline {
    /// Reads the text of `/proc/cmdline`.
    pub fn parse(text: &str) -> Self {
        let mut out = Self {
            slot: Slot::A,
            boot: None,
            tries: None,
            verity: None,
            wipe: None,
            rescue: false,
            probe: false,
            wait: Duration::from_secs(DEFAULT_WAIT_SECS),
            complaints: Vec::new(),
        };
        let (mut root_hash, mut data_size) = (None, None);
        for word in text.split_ascii_whitespace().filter(|w| w.starts_with("os.")) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let understood = match name {
                "os.slot" => value.parse().map(|slot| out.slot = slot).is_ok(),
                "os.boot" => {
                    out.boot = PartId::parse(value);
                    out.boot.is_some()
                }
                "os.tries" => {
                    out.tries = Tries::parse(value);
                    out.tries.is_some()
                }
                "os.roothash" => {
                    let hex = value.len() == 64 && value.chars().all(|c| c.is_ascii_hexdigit());
                    hex.then(|| root_hash = Some(value.to_owned())).is_some()
                }
                "os.rootsize" => value.parse().map(|size| data_size = Some(size)).is_ok(),
                "os.wipe" => {
                    out.wipe = value.parse().ok();
                    out.wipe.is_some() || value.is_empty()
                }
                "os.rescue" => matches!(value, "" | "1").then(|| out.rescue = true).is_some() || value == "0",
                "os.probe" => {
                    out.probe = true;
                    true
                }
                "os.wait" => value.parse().map(|secs| out.wait = Duration::from_secs(secs)).is_ok(),
                _ => false,
            };
            if !understood {
                out.complaints.push(word.to_owned());
            }
        }
        if let (Some(root_hash), Some(data_size)) = (root_hash, data_size) {
            out.verity = Some(Verity { root_hash, data_size });
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_bootloader_passes() {
        let hash = "ab".repeat(32);
        let line = format!(
            "console=ttyS0 os.slot=B os.boot=c12a7328-f81f-11d2-ba4b-00a0c93ec93b os.tries=0,2 os.roothash={hash} os.rootsize=4096 \
             os.wipe=data quiet"
        );
        let c = Cmdline::parse(&line);
        assert_eq!(c.slot, Slot::B);
        assert_eq!(c.boot.unwrap().to_string(), "C12A7328-F81F-11D2-BA4B-00A0C93EC93B");
        assert_eq!(c.tries, Tries::parse("0,2"));
        assert_eq!(c.verity, Some(Verity { root_hash: hash, data_size: 4096 }));
        assert_eq!(c.wipe, Some(WipeScope::Data));
        assert!(c.complaints.is_empty());
        assert!(!c.rescue);
    }

    #[test]
    fn a_boot_partition_in_an_mbr_has_a_short_identifier() {
        let boot = Cmdline::parse("os.boot=9c86e402-01").boot;
        assert_eq!(boot, Some(PartId::Mbr { signature: 0x9c86_e402, number: 1 }));
    }

    #[test]
    fn nonsense_is_reported_and_harmless() {
        let c = Cmdline::parse(
            "os.slot=C os.boot=x os.roothash=zz os.rootsize=-1 os.wipe=everything os.typo=1 os.wait=soon os.tries=1",
        );
        assert_eq!(c.complaints.len(), 8);
        assert_eq!((c.slot, c.wipe, c.verity), (Slot::A, None, None));
        assert_eq!(Cmdline::parse("os.wipe=").complaints, Vec::<String>::new());
    }

    #[test]
    fn a_root_hash_without_a_size_is_no_verity() {
        assert_eq!(Cmdline::parse(&format!("os.roothash={}", "0".repeat(64))).verity, None);
    }
}
