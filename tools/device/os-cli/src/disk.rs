//! `os disk`: the encryption of the data partition.

use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use os_disk::luks::Header;
use os_facts::Role;
use os_facts::identity;
use os_facts::protection::{self, Protection};
use os_facts::report::Report;
use os_sys::cmd::Cmd;
use os_sys::{files, out};
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::ExitCode;

/// Key slots are 0 to 31, and programs take the lowest free one; the recovery key is in one of these.
const RECOVERY_SLOTS: RangeInclusive<u32> = 24..=31;
/// In RAM.
const NEW_KEY: &str = "/run/os/recovery-key.new";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show where the key of the data partition is kept: none, key, tpm2 or recovery
    Encryption,
    /// Create a recovery key, which opens the data partition if the TPM or the state partition is lost
    ///
    /// It is shown once, stored nowhere and replaces any earlier recovery key. To use it, write it to the file recovery-key
    /// on the boot partition.
    RecoveryKey,
}

pub(crate) fn run(command: &Command, json: bool) -> Result<ExitCode> {
    let facts = Report::of_this_boot().context("the initramfs left no report of this boot")?.encryption;
    match command {
        Command::Encryption if json => out::json(&facts),
        Command::Encryption => {
            os_sys::say!("{}", facts.found.word());
            if let Some(problem) = &facts.problem {
                os_sys::say!("! {problem}");
            }
        }
        Command::RecoveryKey => {
            let key = new_recovery_key(facts.found)?;
            if json {
                out::json(&serde_json::json!({ "recoveryKey": key }));
            } else {
                os_sys::say!("{key}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn new_recovery_key(found: Protection) -> Result<String> {
    ensure!(found != Protection::None, "the data partition is not encrypted; see os.encryption.data in config.json");
    let data = Role::Data.device();
    let cryptsetup = || Cmd::new("cryptsetup").arg("--batch-mode");
    let remove = |slot: u32| cryptsetup().arg("luksKillSlot").arg(&data).arg(slot.to_string()).run();
    let header = Header::read(cryptsetup(), &data)?;
    let (slot, earlier) = slots(|slot| header.has_key(slot));
    let slot = slot.context("no key slot is free for the recovery key; cryptsetup luksKillSlot frees one")?;
    let add = cryptsetup().args(["luksAddKey", "--new-key-slot", &slot.to_string()]);
    let state_key = Path::new(os_facts::place::STATE).join(protection::KEY);
    let add = match found {
        Protection::Recovery => add.arg("--key-file").arg(protection::RECOVERY_COPY),
        _ if state_key.exists() => add.arg("--key-file").arg(&state_key),
        _ => add.arg("--token-only"),
    };
    let key = in_groups(&identity::random_hex(32)?);
    files::write_if_changed(Path::new(NEW_KEY), key.as_bytes(), 0o600)?;
    let added = add.args(protection::PBKDF).arg(&data).arg(NEW_KEY).run();
    files::remove_if_there(Path::new(NEW_KEY))?;
    added.context("cannot add the recovery key; an earlier one still opens the partition")?;
    // Only now: until here one that its owner knows opens the partition. A power cut leaves both, and the next run clears up.
    for slot in earlier {
        remove(slot).context("the new recovery key is added, and the earlier one cannot be removed")?;
    }
    Ok(key)
}

/// A free slot for a new key, and those of the keys that it replaces.
fn slots(taken: impl Fn(u32) -> bool) -> (Option<u32>, Vec<u32>) {
    let (earlier, free): (Vec<u32>, Vec<u32>) = RECOVERY_SLOTS.partition(|slot| taken(*slot));
    (free.last().copied(), earlier)
}

/// Eight digits and a dash: people read it aloud.
fn in_groups(digits: &str) -> String {
    let groups: Vec<String> = digits.as_bytes().chunks(8).map(|g| String::from_utf8_lossy(g).into_owned()).collect();
    groups.join("-")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_new_recovery_key_takes_a_free_slot_and_replaces_all_earlier_ones() {
        let slots = |taken: &[u32]| super::slots(|slot| taken.contains(&slot));
        assert_eq!(slots(&[0]), (Some(31), vec![]));
        assert_eq!(slots(&[0, 31]), (Some(30), vec![31]));
        assert_eq!(slots(&[0, 30]), (Some(31), vec![30]));
        // Left by a power cut: which one its owner knows, nobody can tell.
        assert_eq!(slots(&[0, 30, 31]), (Some(29), vec![30, 31]));
        assert_eq!(slots(&(24..=31).collect::<Vec<_>>()).0, None);
    }

    #[test]
    fn a_recovery_key_is_read_in_groups() {
        assert_eq!(super::in_groups("0123456789abcdef"), "01234567-89abcdef");
    }
}
