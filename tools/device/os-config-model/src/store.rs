//! Where the configuration lies, and how it is written so that a power cut never loses it.
//!
//! The boot partition is FAT: it has no journal, and a rename over a file may be seen half done after a power cut. So
//! the new text is first written whole under a name that carries its checksum, `config.json.<checksum>.new`. Whoever
//! reads takes `config.json` when it is JSON. When it is not there, or is what a cut leaves of a text that we know, a `.new` file
//! whose checksum is right is taken; what a person wrote with a slip stays, and is refused. The last text that was accepted, the
//! history and the sealed secrets lie in the state partition (ext4).

use crate::{MAX_SIZE, json};
use os_facts::place;
use os_sys::files::{self, FileError, ReadError, Written};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Name of the file on the boot partition.
pub const NAME: &str = "config.json";

/// Directories on the boot partition beside it.
const DIRECTORIES: &[&str] = &["system-connections", "dispatcher.d", "system-proxy"];

/// So many accepted texts are kept.
const HISTORY: usize = 20;

/// The places.
#[derive(Debug, Clone)]
pub struct Store {
    boot: PathBuf,
    state: PathBuf,
}

/// One text that was accepted at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Grows by one with every accepted text.
    pub number: u64,
    /// When it was accepted, by the device's clock.
    pub time: Option<SystemTime>,
    path: PathBuf,
}

impl Store {
    /// The device's own.
    pub fn device() -> Self {
        Self::under(Path::new("/"))
    }

    /// That of a device whose root is somewhere else.
    pub fn under(root: &Path) -> Self {
        Self::at(&place::under(root, place::BOOT), &place::under(root, place::STATE).join("os/config"))
    }

    /// A boot partition and a state directory anywhere.
    pub fn at(boot: &Path, state: &Path) -> Self {
        Self { boot: boot.to_owned(), state: state.to_owned() }
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.boot.join(NAME)
    }

    /// The boot partition.
    pub fn boot(&self) -> &Path {
        &self.boot
    }

    /// Makes the directories that a person may put files into: what is there can be watched.
    pub fn make_directories(&self) {
        for dir in DIRECTORIES {
            let _ = std::fs::create_dir(self.boot.join(dir));
        }
    }

    /// Changes when anything changes that a person may have written.
    pub fn fingerprint(&self) -> u64 {
        let mut text = self.read().unwrap_or_default();
        for dir in DIRECTORIES {
            let mut entries: Vec<_> = std::fs::read_dir(self.boot.join(dir)).into_iter().flatten().flatten().collect();
            entries.sort_by_key(std::fs::DirEntry::file_name);
            for entry in entries {
                text.extend(entry.file_name().as_encoded_bytes());
                if let Ok(meta) = entry.metadata() {
                    text.extend(format!("/{}/{:?}/", meta.len(), meta.modified()).into_bytes());
                }
            }
        }
        checksum(&text)
    }

    /// Reads the file, or what a write that a power cut ended left whole.
    ///
    /// # Errors
    /// When there is none, as a sentence for people.
    pub fn read(&self) -> Result<Vec<u8>, String> {
        let file = files::read_limited(&self.path(), MAX_SIZE);
        if let Ok(bytes) = &file
            && json::read(bytes).is_ok()
        {
            return Ok(bytes.clone());
        }
        if let Some(whole) = self.left_whole()
            && file.as_ref().map_or(true, |bytes| self.is_torn(bytes, &whole))
        {
            return Ok(whole);
        }
        match file {
            Ok(bytes) => Ok(bytes),
            Err(ReadError::File(err)) if err.is_not_found() => {
                Err("the file is missing; put one with at least {} there".to_owned())
            }
            Err(err) => Err(err.to_string()),
        }
    }

    /// A cut leaves the beginning of a text, with noise or nothing where clusters were not written.
    fn is_torn(&self, bytes: &[u8], whole: &[u8]) -> bool {
        let last_good = self.last_good().unwrap_or_default();
        bytes.contains(&0) || whole.starts_with(bytes) || last_good.starts_with(bytes)
    }

    fn leftovers(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.boot).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = entries
            .map(|e| e.path())
            .filter(|p| {
                p.file_name()
                    .and_then(|n| n.to_str())
                    .and_then(|n| n.trim_start_matches('.').strip_prefix(NAME))
                    // The second is what the file was called before it was whole.
                    .is_some_and(|rest| {
                        matches!(rest.len(), 21 | 25) && rest.starts_with('.') && rest.ends_with(".new")
                    })
            })
            .collect();
        found.sort();
        found
    }

    fn left_whole(&self) -> Option<Vec<u8>> {
        self.leftovers().into_iter().find_map(|path| {
            let bytes = files::read_limited(&path, MAX_SIZE).ok()?;
            (path == self.new_path(&bytes) && json::read(&bytes).is_ok()).then_some(bytes)
        })
    }

    fn new_path(&self, bytes: &[u8]) -> PathBuf {
        self.boot.join(format!("{NAME}.{:016x}.new", checksum(bytes)))
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When the boot partition cannot be written; the former text is then still there.
    pub fn write(&self, bytes: &[u8]) -> Result<(), FileError> {
        let new = self.new_path(bytes);
        files::write_if_changed(&new, bytes, 0o644)?;
        files::rename(&new, &self.path())?;
        self.clean()
    }

    /// Finishes a write that a power cut ended: puts `text`, which [`Store::read`] gave, into the file and removes what
    /// was left.
    ///
    /// # Errors
    /// When the boot partition cannot be written.
    pub fn mend(&self, text: &[u8]) -> Result<(), FileError> {
        if self.leftovers().is_empty() {
            return Ok(());
        }
        if std::fs::read(self.path()).is_ok_and(|file| file == text) { self.clean() } else { self.write(text) }
    }

    fn clean(&self) -> Result<(), FileError> {
        self.leftovers().iter().try_for_each(|path| files::remove_if_there(path).map(drop))
    }

    fn last_good_path(&self) -> PathBuf {
        self.state.join("last-good.json")
    }

    /// The last text that was accepted.
    pub fn last_good(&self) -> Option<Vec<u8>> {
        files::read_limited(&self.last_good_path(), MAX_SIZE).ok()
    }

    /// Keeps an accepted text.
    ///
    /// # Errors
    /// When state cannot be written.
    pub fn keep(&self, bytes: &[u8]) -> Result<(), FileError> {
        if files::write_if_changed(&self.last_good_path(), bytes, 0o600)? == Written::Unchanged {
            return Ok(());
        }
        let history = self.history();
        let number = history.last().map_or(1, |v| v.number.saturating_add(1));
        let path = self.state.join("history").join(format!("{number:06}.json"));
        files::write_if_changed(&path, bytes, 0o600)?;
        for old in history.iter().rev().skip(HISTORY - 1) {
            files::remove_if_there(&old.path)?;
        }
        Ok(())
    }

    /// The accepted texts that are kept, oldest first.
    pub fn history(&self) -> Vec<Version> {
        let entries = std::fs::read_dir(self.state.join("history")).into_iter().flatten().flatten();
        let mut found: Vec<Version> = entries
            .filter_map(|entry| {
                let number = entry.file_name().to_str()?.strip_suffix(".json")?.parse().ok()?;
                Some(Version { number, time: entry.metadata().and_then(|m| m.modified()).ok(), path: entry.path() })
            })
            .collect();
        found.sort_by_key(|v| v.number);
        found
    }

    /// The text of a version.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn text(&self, version: &Version) -> Result<Vec<u8>, ReadError> {
        files::read_limited(&version.path, MAX_SIZE)
    }

    fn ssh_keys_path(&self) -> PathBuf {
        self.state.join("ssh-keys.json")
    }

    /// The keys for ssh that a configuration named last. They outlive one that names none, so that nobody is locked out by what
    /// a file lacks.
    pub fn ssh_keys(&self) -> Option<Vec<String>> {
        serde_json::from_slice(&files::read_limited(&self.ssh_keys_path(), MAX_SIZE).ok()?).ok()
    }

    /// Remembers the keys that a configuration names.
    ///
    /// # Errors
    /// When state cannot be written.
    pub fn keep_ssh_keys(&self, keys: &[String]) -> Result<(), FileError> {
        let text = serde_json::to_vec(keys).unwrap_or_default();
        files::write_if_changed(&self.ssh_keys_path(), &text, 0o600).map(drop)
    }

    /// Where the proxy is remembered that the files of balenaOS made last.
    pub fn system_proxy_path(&self) -> PathBuf {
        self.state.join("system-proxy.json")
    }

    fn secrets_path(&self) -> PathBuf {
        self.state.join("secrets.json")
    }

    /// The sealed secrets by their references.
    pub fn secrets(&self) -> BTreeMap<String, String> {
        let bytes = files::read_limited(&self.secrets_path(), MAX_SIZE).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Writes the sealed secrets, without those that no kept text refers to.
    ///
    /// # Errors
    /// When state cannot be written.
    pub fn write_secrets(&self, secrets: &BTreeMap<String, String>, texts: &[&[u8]]) -> Result<(), FileError> {
        let mut kept: Vec<Vec<u8>> = self.history().iter().filter_map(|v| self.text(v).ok()).collect();
        kept.extend(self.last_good());
        kept.extend(texts.iter().map(|t| t.to_vec()));
        let kept: BTreeSet<&str> =
            kept.iter().flat_map(|t| secrets.keys().filter(|id| holds(t, id))).map(String::as_str).collect();
        let secrets: BTreeMap<_, _> = secrets.iter().filter(|(id, _)| kept.contains(id.as_str())).collect();
        let text = serde_json::to_vec(&secrets).unwrap_or_default();
        files::write_if_changed(&self.secrets_path(), &text, 0o600).map(drop)
    }
}

fn holds(text: &[u8], word: &str) -> bool {
    text.windows(word.len()).any(|w| w == word.as_bytes())
}

/// FNV-1a, 64 bits: tells a torn text from a whole one, and is not meant to withstand anybody.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Seconds since 1970, for people and JSON.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map(|d: Duration| d.as_secs()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn store(dir: &Path) -> Store {
        std::fs::create_dir_all(dir.join("boot")).unwrap();
        Store::at(&dir.join("boot"), &dir.join("state"))
    }

    #[test]
    fn a_write_leaves_the_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        assert!(store.read().unwrap_err().contains("missing"));
        store.write(b"{}").unwrap();
        store.write(b"{\"hostname\":\"a\"}").unwrap();
        assert_eq!(store.read().unwrap(), b"{\"hostname\":\"a\"}");
        assert_eq!(std::fs::read_dir(store.boot()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_person_wrote_with_a_slip_is_not_taken_for_a_cut() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let (older, slip) = (br#"{"hostname":"older"}"#, br#"{"hostname":"mine",}"#);
        // A cut left the text of a change, and then somebody took the card out and edited the file.
        std::fs::write(store.new_path(older), older).unwrap();
        std::fs::write(store.boot().join(".config.json.0123456789abcdef.new.new"), "{").unwrap();
        std::fs::write(store.path(), slip).unwrap();
        assert_eq!(store.read().unwrap(), slip);
        std::fs::write(store.path(), "{}").unwrap();
        store.mend(&store.read().unwrap()).unwrap();
        assert_eq!(std::fs::read_dir(store.boot()).unwrap().count(), 1);
    }

    #[test]
    fn every_change_of_a_persons_files_shows() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        store.write(b"{}").unwrap();
        store.make_directories();
        let mut seen = vec![store.fingerprint()];
        assert_eq!(store.fingerprint(), seen[0]);
        std::fs::write(store.boot().join("system-connections/a"), "x").unwrap();
        seen.push(store.fingerprint());
        std::fs::write(store.boot().join("system-connections/a"), "xy").unwrap();
        seen.push(store.fingerprint());
        store.write(b"{ }").unwrap();
        seen.push(store.fingerprint());
        std::fs::remove_file(store.boot().join("system-connections/a")).unwrap();
        seen.push(store.fingerprint());
        let different: std::collections::BTreeSet<_> = seen.iter().collect();
        assert_eq!(different.len(), seen.len());
    }

    #[test]
    fn history_grows_to_its_limit_and_numbers_stay() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        for n in 0..HISTORY + 5 {
            store.keep(format!("{{\"n\":{n}}}").as_bytes()).unwrap();
            store.keep(format!("{{\"n\":{n}}}").as_bytes()).unwrap();
        }
        let history = store.history();
        assert_eq!((history.len(), history[0].number, history[HISTORY - 1].number), (HISTORY, 6, 25));
        assert_eq!(store.text(&history[0]).unwrap(), b"{\"n\":5}");
        assert_eq!(store.last_good().unwrap(), b"{\"n\":24}");
    }

    #[test]
    fn secrets_live_as_long_as_a_text_that_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let all = BTreeMap::from([("aaaa".to_owned(), "x".to_owned()), ("bbbb".to_owned(), "y".to_owned())]);
        store.write_secrets(&all, &[b"{\"$sealed\":\"aaaa\"}"]).unwrap();
        assert_eq!(store.secrets().keys().collect::<Vec<_>>(), ["aaaa"]);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(store.secrets_path()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    /// What a power cut may leave of a write, as FAT shows it afterwards.
    #[derive(Debug, Clone)]
    enum Cut {
        /// While the new name was written: any part of it, perhaps with noise where clusters were not written yet.
        InNew(usize, bool),
        /// The new name is whole, the rename has not begun.
        BeforeRename,
        /// The old entry is gone, the new name still has its own.
        Unlinked,
        /// The file is there with any part of either text, the new name is whole.
        Torn(usize, bool),
        /// The file is whole and the new name is still there (two entries for the same clusters).
        Both,
    }

    fn cuts() -> impl Strategy<Value = Cut> {
        prop_oneof![
            (0usize..80, any::<bool>()).prop_map(|(n, noise)| Cut::InNew(n, noise)),
            Just(Cut::BeforeRename),
            Just(Cut::Unlinked),
            (0usize..80, any::<bool>()).prop_map(|(n, new)| Cut::Torn(n, new)),
            Just(Cut::Both),
        ]
    }

    proptest! {
        #[test]
        fn whatever_the_power_cut_leaves_the_old_or_the_new_text_is_read(cut in cuts()) {
            const OLD: &[u8] = br#"{"hostname":"old","ntpServers":"192.0.2.1"}"#;
            const NEW: &[u8] = br#"{"hostname":"renamed","persistentLogging":true,"os":{"watchdog":20}}"#;
            let dir = tempfile::tempdir().unwrap();
            let store = store(dir.path());
            store.keep(OLD).unwrap();
            let new = store.new_path(NEW);
            let part = |text: &[u8], n: usize| text[..n.min(text.len())].to_vec();
            match cut {
                Cut::InNew(n, noise) => {
                    std::fs::write(store.path(), OLD).unwrap();
                    let mut text = part(NEW, n);
                    if noise { text.resize(NEW.len(), 0xe5); }
                    std::fs::write(&new, text).unwrap();
                }
                Cut::BeforeRename => { std::fs::write(store.path(), OLD).unwrap(); std::fs::write(&new, NEW).unwrap(); }
                Cut::Unlinked => std::fs::write(&new, NEW).unwrap(),
                Cut::Torn(n, of_new) => {
                    std::fs::write(store.path(), part(if of_new { NEW } else { OLD }, n)).unwrap();
                    std::fs::write(&new, NEW).unwrap();
                }
                Cut::Both => { std::fs::write(store.path(), NEW).unwrap(); std::fs::write(&new, NEW).unwrap(); }
            }
            let read = store.read().unwrap();
            prop_assert!(read == OLD || read == NEW, "{:?}", String::from_utf8_lossy(&read));
            store.mend(&read).unwrap();
            prop_assert_eq!(store.read().unwrap(), read);
            prop_assert_eq!(std::fs::read_dir(store.boot()).unwrap().count(), 1);
        }
    }
}
