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
use std::path::Path;
use std::process::ExitCode;

/// Key slots are 0 to 31; the recovery key has two of its own: a new one is there before the old one goes.
const RECOVERY_SLOTS: [u32; 2] = [31, 30];
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
    let dump = Cmd::new("cryptsetup").args(["luksDump", "--dump-json-metadata"]).arg(&data).read()?;
    let header = Header::parse(&dump).context("cryptsetup says something else of a header than JSON")?;
    let (slot, old) = slots(|slot| header.has_key(slot));
    if header.has_key(slot) {
        remove(slot)?;
    }
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
    if let Some(old) = old {
        remove(old).context("the new recovery key is added, and the earlier one cannot be removed")?;
    }
    Ok(key)
}

/// The slot for a new key, and the one whose key it replaces. `taken`: a key is in that slot.
fn slots(taken: impl Fn(u32) -> bool) -> (u32, Option<u32>) {
    let [first, second] = RECOVERY_SLOTS;
    match (taken(first), taken(second)) {
        (false, old) => (first, old.then_some(second)),
        // Both are there when the power was cut between the two steps.
        (true, _) => (second, Some(first)),
    }
}

/// Eight digits and a dash: people read it aloud.
fn in_groups(digits: &str) -> String {
    let groups: Vec<String> = digits.as_bytes().chunks(8).map(|g| String::from_utf8_lossy(g).into_owned()).collect();
    groups.join("-")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_new_recovery_key_is_there_before_the_old_one_goes() {
        let slots = |taken: &[u32]| super::slots(|slot| taken.contains(&slot));
        assert_eq!(slots(&[0]), (31, None));
        assert_eq!(slots(&[0, 31]), (30, Some(31)));
        assert_eq!(slots(&[0, 30]), (31, Some(30)));
        assert_eq!(slots(&[0, 30, 31]), (30, Some(31)));
    }

    #[test]
    fn a_recovery_key_is_read_in_groups() {
        assert_eq!(super::in_groups("0123456789abcdef"), "01234567-89abcdef");
    }
}
