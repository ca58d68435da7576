//! `osctl channel`: a channel is a plain directory that any web server, bucket or USB stick can hold.
//!
//! - [`keys`] make and use the keys
//! - [`bundle`] says what is in a bundle, from its signed manifest
//! - [`signature`] says whether devices will take a bundle
//! - [`pages`] are for people: an index page, and a list for Raspberry Pi Imager
//! - [`mirror`] follows another channel without being able to change it
//! - [`serve`] is a web server for a bench
//!
//! What devices must not see half of is written first, `channel.json` last.

pub mod bundle;
pub mod keys;
pub mod mirror;
pub mod pages;
pub mod serve;
pub mod signature;

use anyhow::{Context, Result, bail, ensure};
use keys::SecretKey;
use os_channel::channel::{Bundle, Clock};
use os_channel::{CHANNEL_FILE, Channel, Envelope, MAX_SIZE, ROOT_FILE, Release, Role, Root, Seen, root_file};
use os_facts::clock::now;
use os_sys::files;
use semver::Version;
use std::path::{Path, PathBuf};

const DAY: u64 = 86_400;
/// A list is believed for so long. CI renews it daily or weekly; a device that is kept from new lists notices after it.
pub const LIST_DAYS: u64 = 14;
/// A root is believed for so long.
pub const ROOT_DAYS: u64 = 730;

/// A channel on this machine.
#[derive(Debug)]
pub struct Directory {
    /// Where it is.
    pub path: PathBuf,
    /// The newest root.
    pub root: Root,
    /// The list.
    pub list: Channel,
}

/// What is published beside the bundle itself.
#[derive(Debug, Clone, Default)]
pub struct Publish {
    /// Release notes.
    pub notes: Option<PathBuf>,
    /// Devices of a hundred.
    pub rollout: u8,
    /// Older devices must go through it.
    pub stepping_stone: bool,
    /// The certificates that devices have; without them the signature is not checked.
    pub keyring: Option<PathBuf>,
}

impl Directory {
    /// Makes an empty channel, named as its directory, from a root that [`new_root`] made.
    ///
    /// # Errors
    /// When there is one already, the root does not believe the key, or something cannot be written.
    pub fn init(path: &Path, root_file: &[u8], key: &SecretKey) -> Result<Self> {
        let file = path.join(CHANNEL_FILE);
        ensure!(!file.exists(), "{} is a channel already", path.display());
        let root = Root::built_in(root_file).context("the root cannot be trusted")?;
        let path = std::path::absolute(path)?;
        std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let name = path.file_name().and_then(|n| n.to_str()).context("the directory has no name")?.to_owned();
        place_root(&path, root.version, root_file)?;
        let list = Channel { kind: Channel::KIND.to_owned(), name, serial: 0, issued: 0, expires: 0, releases: vec![] };
        let mut directory = Self { path, root, list };
        directory.save(key)?;
        Ok(directory)
    }

    /// Opens a channel; nothing in it is believed that its own root's keys did not sign.
    ///
    /// # Errors
    /// When it is none, or is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path)?;
        let read = |name: &str| {
            files::read_limited(&path.join(name), MAX_SIZE)
                .with_context(|| format!("{} is no channel; osctl channel init makes one", path.display()))
        };
        let root = Root::built_in(&read(ROOT_FILE)?).with_context(|| format!("{ROOT_FILE} cannot be trusted"))?;
        let envelope = Envelope::parse(&read(CHANNEL_FILE)?)?;
        let text = envelope.verified(&root.channel).with_context(|| format!("{CHANNEL_FILE} cannot be trusted"))?;
        let list = serde_json::from_str(text).with_context(|| format!("{CHANNEL_FILE} cannot be read"))?;
        Ok(Self { path, root, list })
    }

    /// Checks that lists signed with a key are believed.
    ///
    /// # Errors
    /// When the key is not one of the channel's.
    pub fn expects(&self, key: &SecretKey) -> Result<()> {
        ensure!(
            self.root.channel.keys.contains(&key.public()),
            "this key is not one of the channel's; devices would refuse the list"
        );
        Ok(())
    }

    /// Signs the list with a new serial and date, and writes it with the pages made from it.
    ///
    /// # Errors
    /// When the key is not one of the channel's, or something cannot be written.
    pub fn save(&mut self, key: &SecretKey) -> Result<()> {
        self.expects(key)?;
        self.list.serial += 1;
        self.list.issued = now();
        self.list.expires = self.list.issued + LIST_DAYS * DAY;
        self.list.releases.sort_by(|a, b| (&a.compatible, &a.version).cmp(&(&b.compatible, &b.version)));
        let signed = serde_json::to_string_pretty(&self.list)?;
        let envelope = Envelope { signatures: vec![key.sign(&signed)?], signed };
        pages::write(&self.path, &self.list)?;
        write(&self.path.join(CHANNEL_FILE), &serde_json::to_vec_pretty(&envelope)?)
    }

    /// Copies a bundle into the channel and lists it.
    ///
    /// # Errors
    /// When the bundle cannot be read, or its version is there already.
    pub fn publish(&mut self, bundle: &Path, options: &Publish) -> Result<&Release> {
        let facts = bundle::read(bundle)?;
        if let Some(keyring) = &options.keyring {
            bundle::verify(bundle, keyring).context("nothing was published")?;
        }
        let same = |r: &Release| r.compatible == facts.compatible && r.version == facts.version;
        if self.list.releases.iter().any(same) {
            bail!(
                "{} {} is published already; every release has a version of its own",
                facts.compatible,
                facts.version
            );
        }
        let name = format!("bundles/{}-{}.raucb", facts.compatible, facts.version);
        copy(bundle, &self.path.join(&name))?;
        let notes = match &options.notes {
            // An empty file says nothing, and devices take an empty answer for a broken one.
            Some(notes) if notes.metadata().is_ok_and(|file| file.len() == 0) => None,
            Some(notes) => {
                let name = format!("notes/{}-{}.md", facts.compatible, facts.version);
                copy(notes, &self.path.join(&name))?;
                Some(name)
            }
            None => None,
        };
        self.list.releases.push(Release {
            compatible: facts.compatible,
            version: facts.version,
            build: facts.build,
            bundle: Bundle { path: name, size: facts.size, sha256: facts.sha256, manifest_hash: facts.manifest_hash },
            published: now(),
            notes,
            rollout: options.rollout,
            stepping_stone: options.stepping_stone,
            revoked: None,
        });
        self.list.releases.last().context("nothing was published")
    }

    /// Changes every release of a version, whatever devices it is for.
    ///
    /// # Errors
    /// When there is none.
    pub fn change(&mut self, version: &Version, change: impl Fn(&mut Release)) -> Result<()> {
        let mut found = false;
        for release in self.list.releases.iter_mut().filter(|r| r.version == *version) {
            change(release);
            found = true;
        }
        ensure!(found, "there is no release {version} in {}", self.path.display());
        Ok(())
    }

    /// Takes over what another channel published under a version.
    ///
    /// # Errors
    /// When the other one has no such release, or this one has it.
    pub fn promote(&mut self, from: &Directory, version: &Version, rollout: u8) -> Result<()> {
        let found: Vec<&Release> = from.list.releases.iter().filter(|r| r.version == *version).collect();
        ensure!(!found.is_empty(), "there is no release {version} in {}", from.path.display());
        for release in found {
            ensure!(release.revoked.is_none(), "{version} is revoked there");
            ensure!(
                !self.list.releases.iter().any(|r| r.compatible == release.compatible && r.version == *version),
                "{} {version} is here already",
                release.compatible
            );
            for name in std::iter::once(&release.bundle.path).chain(&release.notes) {
                copy(&from.path.join(name), &self.path.join(name))?;
            }
            self.list.releases.push(Release { rollout, published: now(), ..release.clone() });
        }
        Ok(())
    }

    /// Replaces the keys: the new root is signed by the old root key and the new one. Devices follow by themselves.
    ///
    /// # Errors
    /// When the old key is not the root's.
    pub fn rotate(&mut self, old: &SecretKey, new: &SecretKey, channel_key: &SecretKey) -> Result<()> {
        ensure!(self.root.root.keys.contains(&old.public()), "the old key is not one of root {}'s", self.root.version);
        self.root = root(self.root.version + 1, new, channel_key);
        // The same key on both sides: only the dates or the channel's key change.
        let signers = if old.public() == new.public() { vec![old] } else { vec![old, new] };
        place_root(&self.path, self.root.version, &seal(&self.root, &signers)?)?;
        self.save(channel_key)
    }

    /// Checks everything a device would, and every file, against a root that is believed.
    ///
    /// # Errors
    /// What a device would say.
    pub fn verify(path: &Path, trusted: Option<&Path>) -> Result<Self> {
        let directory = Self::open(path)?;
        let first = match trusted {
            Some(root) => files::read_limited(root, MAX_SIZE)?,
            None => files::read_limited(&directory.path.join(root_file(1)), MAX_SIZE).context("there is no root 1")?,
        };
        let mut root = Root::built_in(&first).context("the given root cannot be trusted")?;
        while root.version < directory.root.version {
            let next = root_file(root.version + 1);
            let bytes = files::read_limited(&directory.path.join(&next), MAX_SIZE);
            root =
                root.successor(&bytes.with_context(|| format!("{next} is missing"))?).with_context(|| next.clone())?;
        }
        ensure!(root == directory.root, "{ROOT_FILE} is not the end of the chain that starts at the trusted root");
        let bytes = files::read_limited(&directory.path.join(CHANNEL_FILE), MAX_SIZE)?;
        Channel::accept(&bytes, &root, &directory.list.name, &Seen::default(), Clock { now: now(), set: true })
            .context(CHANNEL_FILE)?;
        for release in &directory.list.releases {
            let path = directory.path.join(&release.bundle.path);
            // A mirror keeps no bundle that nobody takes any more.
            if release.revoked.is_some() && !path.exists() {
                continue;
            }
            let facts = bundle::read(&path)?;
            ensure!(
                facts.sha256 == release.bundle.sha256 && facts.manifest_hash == release.bundle.manifest_hash,
                "{} is not the bundle that was published",
                path.display()
            );
            // Devices install what the bundle says it is, or nothing.
            ensure!(
                facts.compatible == release.compatible && facts.version == release.version,
                "the list calls {} {} {}, the bundle itself {} {}",
                path.display(),
                release.compatible,
                release.version,
                facts.compatible,
                facts.version
            );
        }
        Ok(directory)
    }

    /// Checks the signatures of all bundles that devices may take.
    ///
    /// # Errors
    /// What a device would say.
    pub fn verify_bundles(&self, keyring: &Path) -> Result<()> {
        let offered = self.list.releases.iter().filter(|release| release.revoked.is_none());
        offered.into_iter().try_for_each(|release| bundle::verify(&self.path.join(&release.bundle.path), keyring))
    }
}

/// A first root: one key for roots, one for lists.
///
/// # Errors
/// When minisign fails.
pub fn new_root(root_key: &SecretKey, key: &SecretKey) -> Result<Vec<u8>> {
    seal(&root(1, root_key, key), &[root_key])
}

fn root(version: u32, root_key: &SecretKey, key: &SecretKey) -> Root {
    let role = |key: &SecretKey| Role { keys: vec![key.public()], threshold: 1 };
    let expires = now() + ROOT_DAYS * DAY;
    Root { kind: Root::KIND.to_owned(), version, expires, root: role(root_key), channel: role(key) }
}

fn seal(root: &Root, signers: &[&SecretKey]) -> Result<Vec<u8>> {
    let signed = serde_json::to_string_pretty(root)?;
    let signatures = signers.iter().map(|key| key.sign(&signed)).collect::<Result<_>>()?;
    Ok(serde_json::to_vec_pretty(&Envelope { signed, signatures })?)
}

fn place_root(path: &Path, version: u32, bytes: &[u8]) -> Result<()> {
    write(&path.join(root_file(version)), bytes)?;
    write(&path.join(ROOT_FILE), bytes)
}

/// A web server must be able to read it.
fn write(path: &Path, content: &[u8]) -> Result<()> {
    Ok(files::write_if_changed(path, content, 0o644).map(drop)?)
}

/// A file is there whole or not at all.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(dir) = to.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let part = to.with_extension("part");
    std::fs::copy(from, &part).with_context(|| format!("cannot copy {} to {}", from.display(), part.display()))?;
    Ok(std::fs::rename(&part, to)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(dir: &Path) -> (Directory, SecretKey, SecretKey) {
        let (root, ci) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        (Directory::init(&dir.join("stable"), &new_root(&root, &ci).unwrap(), &ci).unwrap(), root, ci)
    }

    #[test]
    fn a_channel_is_made_once_and_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        let (made, root, ci) = channel(dir.path());
        assert_eq!((made.list.name.as_str(), made.list.serial), ("stable", 1));
        assert!(Directory::init(&dir.path().join("stable"), &new_root(&root, &ci).unwrap(), &ci).is_err());
        let opened = Directory::verify(&dir.path().join("stable"), None).unwrap();
        assert_eq!(opened.list, made.list);
        let mut stranger = Directory::open(&dir.path().join("stable")).unwrap();
        assert!(stranger.save(&SecretKey::generate().unwrap()).is_err());
    }

    #[test]
    fn keys_are_replaced_and_the_chain_holds() {
        let dir = tempfile::tempdir().unwrap();
        let (mut made, root, ci) = channel(dir.path());
        let path = dir.path().join("stable");
        let (new_root, new_ci) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        assert!(made.rotate(&new_root, &new_root, &new_ci).is_err());
        made.rotate(&root, &new_root, &new_ci).unwrap();
        assert!(made.save(&ci).is_err());
        Directory::verify(&path, Some(&path.join("roots/1.json"))).unwrap();
        // A root that was not signed by the one before it does not pass.
        let other = tempfile::tempdir().unwrap();
        channel(other.path());
        assert!(Directory::verify(&path, Some(&other.path().join("stable/root.json"))).is_err());
    }

    /// A server that has a channel, and its own answer for what it does not have.
    fn serves(dir: &Path, missing: &'static str) -> os_transport::Source {
        use std::io::{BufRead, BufReader, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let dir = dir.to_owned();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut line = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                reader.read_line(&mut line).unwrap();
                let path = line.split(' ').nth(1).unwrap_or("/").trim_start_matches('/');
                let answer = match std::fs::read(dir.join(path)) {
                    Ok(bytes) => {
                        [format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len()).into_bytes(), bytes]
                            .concat()
                    }
                    Err(_) => missing.as_bytes().to_vec(),
                };
                let _ = stream.write_all(&answer);
            }
        });
        os_transport::Source::parse(&format!("http://127.0.0.1:{port}/stable")).unwrap()
    }

    #[test]
    fn a_device_believes_a_channel_whatever_its_server_says_of_roots_that_are_not_there() {
        use os_update::state::{State, Store};
        let page = "HTTP/1.0 200 OK\r\n\r\n<!doctype html><html></html>";
        let moved = "HTTP/1.0 302 Found\r\nLocation: /stable/channel.json\r\n\r\n";
        for missing in [
            "HTTP/1.0 404 Not Found\r\n\r\n",
            "HTTP/1.0 403 Forbidden\r\n\r\n<Error><Code>AccessDenied</Code></Error>",
            "HTTP/1.0 401 Unauthorized\r\n\r\n",
            "HTTP/1.0 400 Bad Request\r\n\r\n",
            "HTTP/1.0 500 Internal Server Error\r\n\r\n",
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\n{}",
            page,
            moved,
        ] {
            let dir = tempfile::tempdir().unwrap();
            let (mut made, root, ci) = channel(dir.path());
            let built_in = dir.path().join("built-in.json");
            std::fs::copy(dir.path().join("stable/roots/1.json"), &built_in).unwrap();
            let source = serves(dir.path(), missing);
            let store = Store::at(&dir.path().join("state"));
            let mut state = State::default();
            let mut read = || os_update::trust::read(&source, "stable", &built_in, &store, &mut state);
            assert_eq!(read().unwrap_or_else(|err| panic!("{missing}: {err:#}")).serial, 1);
            // The next one is followed when it comes.
            made.rotate(&root, &SecretKey::generate().unwrap(), &ci).unwrap();
            assert_eq!(read().unwrap_or_else(|err| panic!("{missing}: {err:#}")).serial, made.list.serial);
        }
        let dir = tempfile::tempdir().unwrap();
        channel(dir.path());
        let built_in = dir.path().join("stable/roots/1.json");
        let source = serves(&dir.path().join("nothing"), page);
        let store = Store::at(&dir.path().join("state"));
        let said = os_update::trust::read(&source, "stable", &built_in, &store, &mut State::default()).unwrap_err();
        assert!(said.to_string().contains("a web page"), "{said:#}");
    }

    #[test]
    fn a_tampered_list_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        channel(dir.path());
        let path = dir.path().join("stable");
        let file = path.join(CHANNEL_FILE);
        let text = std::fs::read_to_string(&file).unwrap().replace("\\\"serial\\\": 1", "\\\"serial\\\": 9");
        std::fs::write(&file, text).unwrap();
        let err = Directory::open(&path).unwrap_err();
        assert!(format!("{err:#}").contains("it has 0 of 1"), "{err:#}");
    }
}
