//! The data partition behind LUKS2, when config.json asks for it.
//!
//! The key lies in the state partition, or is sealed to the machine's TPM; which of the two is config.json's to say. A
//! partition is encrypted in place as long as its filesystem leaves room for the header, which is so until a device's
//! first boot has grown it; after that, when data is wiped. Encrypting in place goes on at the next boot where a power
//! cut stopped it: cryptsetup keeps its place in the header, and the key is in state before the first byte changes.
//!
//! The header takes the place of the first bytes of the filesystem, which cryptsetup moves to the end of the partition
//! before, without waiting for the medium. So they are brought there, for good, before it begins; and as long as state has
//! the header that it made, that header is put in place again, whatever the partition looks like.
//!
//! The programs are the root slot's, run inside it, so that the initramfs stays small.

use crate::console;
use crate::needs::{self, When};
use crate::storage;
use anyhow::{Context, Result, bail, ensure};
use os_disk::luks::Header;
use os_facts::identity;
use os_facts::protection::{KEY, PBKDF, Protection, RECOVERY_COPY};
use os_sys::cmd::Cmd;
use os_sys::files;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The key on its way past a wipe of state, on the boot partition.
const KEY_IN_TRANSIT: &str = "data.key";
/// A recovery key that a person brings, on the boot partition. Used once.
const RECOVERY: &str = "recovery-key";
/// The directory on the state partition in which cryptsetup makes a header before it puts it in place.
const WORK: &str = "os/encryption";
/// The opened partition.
pub const MAPPED: &str = "/dev/mapper/os-data";
/// What LUKS2 needs in front of the data and for moving them, in bytes (cryptsetup-reencrypt(8), --reduce-device-size).
pub const ROOM: u64 = 32 << 20;
/// What the header takes, half of [`ROOM`]; so much of the filesystem is moved.
const HEADER: u64 = ROOM / 2;
/// `LUKS`, 0xba, 0xbe, version 2 (LUKS2 On-Disk Format Specification, 2.1).
const MAGIC: [u8; 8] = [b'L', b'U', b'K', b'S', 0xba, 0xbe, 0, 2];
/// The second header begins with this, at one of these places.
const SECOND_MAGIC: [u8; 8] = [b'S', b'K', b'U', b'L', 0xba, 0xbe, 0, 2];
const SECOND: [u64; 9] = [16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20];

/// The data partition before it is mounted.
#[derive(Debug)]
pub struct Data<'a> {
    /// The partition.
    pub device: &'a Path,
    /// The root slot.
    pub sysroot: &'a Path,
    /// The mounted state partition; `None` when a temporary one stands in.
    pub state: Option<&'a Path>,
    /// The mounted boot partition.
    pub boot: &'a Path,
    /// What config.json asks for.
    pub wanted: Option<Protection>,
}

/// True when the device has a LUKS2 header. The second one counts as well: a power cut, or worn flash, may have taken the
/// first, and what is behind it must never be repaired as if it were a filesystem. [`storage::format`] removes both.
pub fn is_luks(device: &Path) -> bool {
    let Ok(mut file) = File::open(device) else { return false };
    let mut is_at = |place: u64, magic: [u8; 8]| {
        let mut start = [0; 8];
        let read = file.seek(SeekFrom::Start(place)).and_then(|_| file.read_exact(&mut start));
        read.is_ok() && start == magic
    };
    is_at(0, MAGIC) || SECOND.iter().any(|place| is_at(*place, SECOND_MAGIC))
}

/// Saves the key of data on the boot partition, because the state partition is about to be formatted.
///
/// # Errors
/// When there is a key and the boot partition does not take it.
pub fn carry_key(state: &Path, boot: &Path) -> Result<()> {
    if !state.join(KEY).exists() {
        return Ok(());
    }
    let key = files::read_limited(&state.join(KEY), 1024)?;
    Ok(files::write_if_changed(&boot.join(KEY_IN_TRANSIT), &key, 0o600).map(drop)?)
}

/// Puts a key back that [`carry_key`] saved.
///
/// # Errors
/// When the state partition cannot be written.
pub fn return_key(state: &Path, boot: &Path) -> Result<()> {
    let Ok(key) = files::read_limited(&boot.join(KEY_IN_TRANSIT), 1024) else { return Ok(()) };
    if !state.join(KEY).exists() {
        files::write_if_changed(&state.join(KEY), &key, 0o400)?;
    }
    Ok(files::remove_if_there(&boot.join(KEY_IN_TRANSIT)).map(drop)?)
}

impl Data<'_> {
    /// Makes an empty filesystem, encrypted when that is wanted.
    ///
    /// # Errors
    /// When a program fails, or there is no place for the key.
    pub fn format(&self) -> Result<()> {
        self.remove_work()?;
        if self.wanted.is_none() {
            return Ok(storage::format(self.device, "os-data")?);
        }
        let key = self.new_key()?;
        self.load_modules();
        let format = self.cryptsetup().args(["luksFormat", "--type", "luks2", "--label", "os-data"]);
        format.args(PBKDF).arg(self.device).arg(self.inside(&key)).run()?;
        self.unlock(&["--key-file", &self.inside(&key)])?;
        let formatted = storage::format(Path::new(MAPPED), "os-data");
        self.cryptsetup().args(["close", "os-data"]).run()?;
        Ok(formatted?)
    }

    /// Begins to encrypt in place what is a plain filesystem, when that is wanted; `grow` makes the partition as large
    /// as it is told, if it can. [`Data::finish_encrypting`] does the rest.
    ///
    /// # Errors
    /// When there is no room, no place for the key, or a program fails.
    pub fn encrypt(&self, grow: impl FnOnce(u64) -> Result<()>) -> Result<()> {
        if self.wanted.is_none() || is_luks(self.device) {
            return Ok(());
        }
        // What its owner put there is not ours to move.
        if let storage::Content::Foreign(what) = storage::content(self.device)? {
            bail!("os-data holds {what} and is not encrypted");
        }
        let used = ext4_size(self.device).context("os-data holds no filesystem that can be encrypted in place")?;
        let needed = used.saturating_add(ROOM);
        if size(self.device)? < needed {
            grow(needed)?;
        }
        ensure!(
            size(self.device)? >= needed,
            "the filesystem fills the partition and leaves no room for a header; data is encrypted when it is wiped: \
             os wipe data"
        );
        self.load_modules();
        let checked = storage::check(self.device);
        ensure!(
            matches!(checked, storage::Check::Clean | storage::Check::Repaired),
            "os-data cannot be checked, and is not encrypted: {checked:?}"
        );
        let key = self.new_key()?;
        let work = self.new_work()?;
        copy_start_to_end(self.device).context("cannot make room for a header on os-data")?;
        let reduce = format!("{}M", ROOM >> 20);
        // Two steps: when the second begins, the header made in `work` is gone for good and cannot be put back by `open`.
        self.cryptsetup_in(&work)
            .args(["reencrypt", "--encrypt", "--init-only", "--type", "luks2", "--label", "os-data"])
            .args(["--reduce-device-size", &reduce, "--key-file", &self.inside(&key)])
            .args(PBKDF)
            .arg(self.device)
            .run()
            .context("cannot encrypt os-data")?;
        self.remove_work()
    }

    /// Finishes encrypting where a power cut, or the beginning, left it.
    ///
    /// # Errors
    /// When the key is gone or a program fails. The partition must not grow then: it is in the middle of moving.
    pub fn finish_encrypting(&self) -> Result<()> {
        self.load_modules();
        if !self.header(self.device)?.is_reencrypting() {
            return Ok(());
        }
        let key = self.key().filter(|key| key.exists()).context("encrypting os-data stopped and its key is gone")?;
        console::warn(&format!("encrypting os-data, as config.json asks ({} MiB)", size(self.device)? >> 20));
        let key = self.inside(&key);
        // A power cut may have torn the piece that was on its way; without one there is nothing to repair, and whatever
        // cannot be repaired keeps the next step from going on.
        let _ = self.cryptsetup().args(["repair", "--key-file", &key]).arg(self.device).run();
        let resume = self.cryptsetup().args(["reencrypt", "--resume-only", "--key-file", &key]);
        resume.arg(self.device).run().context("cannot go on encrypting os-data")
    }

    /// The header at the beginning of a device, or in a file of its own.
    fn header(&self, at: impl AsRef<OsStr>) -> Result<Header> {
        Ok(Header::read(self.cryptsetup(), at)?)
    }

    /// Opens what is encrypted.
    ///
    /// # Errors
    /// When neither the key, nor the TPM, nor a recovery key opens it.
    pub fn open(&self) -> Result<Protection> {
        let mut tried = Vec::new();
        let header = self.header(self.device)?;
        if let Some(key) = self.key().filter(|key| key.exists()) {
            match self.unlock(&["--key-file", &self.inside(&key)]) {
                Ok(()) => return Ok(Protection::Key),
                Err(err) => tried.push(format!("the key in state: {err:#}")),
            }
        }
        if header.has_tpm() {
            match self.unlock(&["--token-only"]) {
                Ok(()) => return Ok(Protection::Tpm2),
                Err(err) => tried.push(format!("the TPM: {err:#}")),
            }
        }
        if let Ok(bytes) = files::read_limited(&self.boot.join(RECOVERY), 1024) {
            files::write_if_changed(Path::new(RECOVERY_COPY), bytes.trim_ascii(), 0o600)?;
            match self.unlock(&["--key-file", RECOVERY_COPY]) {
                Ok(()) => return Ok(Protection::Recovery),
                Err(err) => tried.push(format!("the recovery key: {err:#}")),
            }
        }
        if tried.is_empty() {
            tried.push("there is no key in state and none in a TPM".to_owned());
        }
        bail!(
            "os-data is encrypted and cannot be opened ({}). Put the recovery key into the file {RECOVERY} on the boot \
             partition",
            tried.join("; ")
        )
    }

    /// Brings the place of the key in line with what is wanted, after [`Data::open`]; returns where it is now.
    ///
    /// # Errors
    /// When a program fails. The way that opened the partition in this boot goes on to do so.
    pub fn settle(&self, opened: Protection) -> Result<Protection> {
        let settled = match (self.wanted, opened) {
            (Some(Protection::Tpm2), Protection::Key | Protection::Recovery) => self.seal(opened)?,
            (Some(Protection::Key), Protection::Tpm2 | Protection::Recovery) => self.unseal(opened)?,
            (_, same) => same,
        };
        if settled == Protection::Tpm2 {
            // Left there by a power cut between the enrolment and the removal, or by an earlier wish.
            if let Some(key) = self.key() {
                files::remove_if_there(&key)?;
            }
        }
        if settled != Protection::Recovery {
            files::remove_if_there(&self.boot.join(RECOVERY))?;
        }
        Ok(settled)
    }

    fn seal(&self, opened: Protection) -> Result<Protection> {
        let unlock = self.unlocking_file(opened)?;
        // PCR 7 is what the firmware trusts (TCG PC Client, Secure Boot policy); an update of the OS does not change it.
        self.tool("systemd-cryptenroll")
            .arg(format!("--unlock-key-file={unlock}"))
            .args(["--wipe-slot=tpm2", "--tpm2-device=auto", "--tpm2-pcrs=7"])
            .arg(self.device)
            .run()
            .context("the TPM does not take the key of os-data; it stays where it is")?;
        self.cryptsetup()
            .args(["open", "--test-passphrase", "--token-only"])
            .arg(self.device)
            .run()
            .context("the TPM took the key of os-data but does not give it back; it stays where it is")?;
        if opened == Protection::Key {
            self.cryptsetup().arg("luksRemoveKey").arg(self.device).arg(unlock).run()?;
        }
        Ok(Protection::Tpm2)
    }

    fn unseal(&self, opened: Protection) -> Result<Protection> {
        let key = self.new_key()?;
        let add = self.cryptsetup().arg("luksAddKey").args(PBKDF);
        let add = match opened {
            Protection::Recovery => add.args(["--key-file", RECOVERY_COPY]),
            _ => add.arg("--token-only"),
        };
        add.arg(self.device).arg(self.inside(&key)).run().context("cannot add a key for os-data")?;
        // The TPM may be the one that failed: its slot goes in any case.
        self.tool("systemd-cryptenroll").arg("--wipe-slot=tpm2").arg(self.device).run()?;
        Ok(Protection::Key)
    }

    /// The file that opened the partition, as the programs see it.
    fn unlocking_file(&self, opened: Protection) -> Result<String> {
        match (opened, self.key()) {
            (Protection::Recovery, _) => Ok(RECOVERY_COPY.to_owned()),
            (_, Some(key)) => Ok(self.inside(&key)),
            (_, None) => bail!("the state partition is not usable"),
        }
    }

    /// A power cut came while the partition was being encrypted in place, before its header was.
    pub fn is_unfinished(&self) -> bool {
        self.state.is_some_and(|state| state.join(WORK).exists())
    }

    /// A power cut may have come while cryptsetup put a header in place that it had made in [`WORK`]: it is put there
    /// again. One that is not whole was not being put anywhere yet. To be called before anything else is done with the
    /// partition.
    ///
    /// # Errors
    /// When the header cannot be put in place. The partition is not to be touched then.
    pub fn recover(&self) -> Result<()> {
        let Some(work) = self.state.map(|state| state.join(WORK)).filter(|work| work.exists()) else { return Ok(()) };
        for entry in std::fs::read_dir(&work)?.flatten() {
            let header = self.inside(&entry.path());
            // cryptsetup writes this last.
            if !self.header(&header).is_ok_and(|made| made.is_reencrypting()) {
                continue;
            }
            let restore = self.cryptsetup().args(["luksHeaderRestore", "--header-backup-file"]);
            let restored = restore.arg(header).arg(self.device).run();
            restored.context("cannot put the header of os-data in place")?;
        }
        self.remove_work()
    }

    fn new_work(&self) -> Result<PathBuf> {
        let work = self.state.context("the state partition is not usable")?.join(WORK);
        self.remove_work()?;
        std::fs::create_dir_all(&work)?;
        Ok(work)
    }

    fn remove_work(&self) -> Result<()> {
        let Some(state) = self.state else { return Ok(()) };
        match std::fs::remove_dir_all(state.join(WORK)) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(err.into()),
            _ => {}
        }
        Ok(rustix::fs::syncfs(File::open(state)?)?)
    }

    fn key(&self) -> Option<PathBuf> {
        self.state.map(|state| state.join(KEY))
    }

    fn new_key(&self) -> Result<PathBuf> {
        let key = self.key().context("the state partition is not usable, so there is no place for a key")?;
        let secret = identity::random_hex(32)?;
        files::remove_if_there(&key)?;
        files::write_if_changed(&key, secret.as_bytes(), 0o400)?;
        Ok(key)
    }

    fn load_modules(&self) {
        let _ = self.tool("modprobe").args(["-a", "-q"]).args(needs::modules(When::Encryption)).run();
    }

    fn unlock(&self, how: &[&str]) -> Result<()> {
        // The free blocks of flash are told to the medium: which ones are free is no secret here.
        let open = self.cryptsetup().args(["open", "--allow-discards"]).args(how);
        Ok(open.arg(self.device).arg("os-data").run()?)
    }

    fn cryptsetup(&self) -> Cmd {
        self.tool("cryptsetup").arg("--batch-mode")
    }

    fn cryptsetup_in(&self, dir: &Path) -> Cmd {
        self.tool_in(&self.inside(dir), "cryptsetup").arg("--batch-mode")
    }

    fn tool(&self, name: &str) -> Cmd {
        self.tool_in("/run", name)
    }

    /// A program of the root slot, inside it. `/dev`, `/proc`, `/sys` and `/run` have to be mounted there too.
    fn tool_in(&self, dir: &str, name: &str) -> Cmd {
        if self.sysroot == Path::new("/") {
            return Cmd::new(name).env("DM_DISABLE_UDEV", "1").dir(dir);
        }
        let root = format!("--root={}", self.sysroot.display());
        // Without a udev to answer, device-mapper must make its node itself.
        Cmd::new("unshare").env("DM_DISABLE_UDEV", "1").arg(root).arg(format!("--wd={dir}")).arg(name).named(name)
    }

    /// A path as a program inside the root slot sees it.
    fn inside(&self, path: &Path) -> String {
        let inside = path.strip_prefix(self.sysroot).map(|p| Path::new("/").join(p));
        inside.unwrap_or_else(|_| path.to_owned()).display().to_string()
    }
}

/// Brings to the end of the partition, and onto the medium, what cryptsetup is going to move there.
fn copy_start_to_end(device: &Path) -> std::io::Result<()> {
    let mut file = File::options().read(true).write(true).open(device)?;
    let mut start = Vec::new();
    Read::by_ref(&mut file).take(HEADER).read_to_end(&mut start)?;
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(end.saturating_sub(HEADER)))?;
    file.write_all(&start)?;
    file.sync_all()
}

fn size(device: &Path) -> std::io::Result<u64> {
    File::open(device)?.seek(SeekFrom::End(0))
}

/// Bytes of an ext4 filesystem (the kernel's Documentation/filesystems/ext4/super.rst); `None` when there is none.
fn ext4_size(device: &Path) -> Option<u64> {
    let mut block = [0; 1024];
    let mut file = File::open(device).ok()?;
    file.seek(SeekFrom::Start(1024)).ok()?;
    file.read_exact(&mut block).ok()?;
    let word = |at: usize| Some(u32::from_le_bytes(block.get(at..at + 4)?.try_into().ok()?));
    if block.get(0x38..0x3a)? != [0x53, 0xef] {
        return None;
    }
    let has_64bit = word(0x60)? & 0x80 != 0;
    let high = if has_64bit { u64::from(word(0x150)?) } else { 0 };
    let blocks = high << 32 | u64::from(word(0x4)?);
    blocks.checked_mul(1024u64.checked_shl(word(0x18)?).filter(|size| *size <= 64 << 10)?)
}

#[cfg(test)]
mod tests;
