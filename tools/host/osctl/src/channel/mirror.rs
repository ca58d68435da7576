//! Follows a channel on another server: what is copied is checked as a device checks it, so a mirror can serve nothing
//! that the publisher did not sign, and a broken download never replaces a good file.

use crate::channel::bundle;
use anyhow::{Context, Result, ensure};
use os_channel::channel::Clock;
use os_channel::{CHANNEL_FILE, Channel, MAX_SIZE, ROOT_FILE, Release, Root, Seen, root_file};
use os_facts::clock::now;
use os_sys::files;
use os_transport::{FetchError, Part, Source};
use serde::Serialize;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// What a run did, kept in `mirror-status.json` beside the list. The form is stable; fields are only ever added.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// When, seconds since 1970.
    pub checked: u64,
    /// Serial of the list that is served now.
    pub serial: u64,
    /// Date after which devices do not believe it.
    pub expires: u64,
    /// Bundles that are here.
    pub bundles: Vec<String>,
    /// Bytes that this run fetched.
    pub fetched: u64,
}

/// Brings `dir` in line with `from`.
///
/// `trusted` is the root to start from, needed the first time only; later the mirror's own is followed.
///
/// # Errors
/// When the origin cannot be reached or believed; `dir` serves what it served before.
pub fn run(from: &Source, dir: &Path, trusted: Option<&Path>) -> Result<Status> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let own = dir.join(ROOT_FILE);
    let start = match trusted {
        Some(path) if !own.exists() => path,
        _ => &own,
    };
    let bytes = files::read_limited(start, MAX_SIZE).with_context(|| {
        format!("no root to start from; give the publisher's root.json with --root ({})", start.display())
    })?;
    let mut root = Root::built_in(&bytes).context("the root to start from cannot be trusted")?;
    super::write(&dir.join(root_file(root.version)), &bytes)?;
    let mut newest = bytes;
    let mut fetched = 0;
    loop {
        let name = root_file(root.version + 1);
        let bytes = match from.read(&name, MAX_SIZE) {
            Ok(bytes) => bytes,
            // A name that is not there is answered with many a status, and by some with a page.
            Err(FetchError::NotFound(_) | FetchError::Http { .. } | FetchError::Certificate { .. }) => break,
            Err(err) => return Err(err.into()),
        };
        let Ok(newer) = root.successor(&bytes) else { break };
        root = newer;
        fetched += bytes.len() as u64;
        super::write(&dir.join(&name), &bytes)?;
        newest = bytes;
    }
    let bytes = from.read(CHANNEL_FILE, MAX_SIZE)?;
    fetched += bytes.len() as u64;
    let seen = served(dir, &root, from.name()).unwrap_or_default();
    let (list, _) =
        Channel::accept(&bytes, &root, from.name(), &seen, Clock { now: now(), set: true }).context(CHANNEL_FILE)?;
    let wanted: Vec<&Release> = list.releases.iter().filter(|r| r.revoked.is_none()).collect();
    for release in &wanted {
        fetched += fetch_bundle(from, dir, release)?;
        if let Some(notes) = &release.notes {
            let text = from.read(notes, MAX_SIZE)?;
            super::write(&dir.join(notes), &text)?;
        }
    }
    // What devices must not see half of comes last, the list after the root that it needs.
    super::write(&own, &newest)?;
    super::pages::write(dir, &list)?;
    super::write(&dir.join(CHANNEL_FILE), &bytes)?;
    let bundles: Vec<String> = wanted.iter().map(|r| r.bundle.path.clone()).collect();
    remove_others(dir, &bundles)?;
    let status = Status { checked: now(), serial: list.serial, expires: list.expires, bundles, fetched };
    super::write(&dir.join("mirror-status.json"), &serde_json::to_vec_pretty(&status)?)?;
    Ok(status)
}

/// What this mirror serves already: an origin that goes back in time is not followed.
fn served(dir: &Path, root: &Root, name: &str) -> Option<Seen> {
    let bytes = files::read_limited(&dir.join(CHANNEL_FILE), MAX_SIZE).ok()?;
    Channel::accept(&bytes, root, name, &Seen::default(), Clock { now: 0, set: false }).ok().map(|(_, seen)| seen)
}

/// Fetches a bundle that is not there, going on where an earlier run was cut off; returns the bytes fetched.
fn fetch_bundle(from: &Source, dir: &Path, release: &Release) -> Result<u64> {
    let path = dir.join(&release.bundle.path);
    if path.exists() {
        return Ok(0);
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let part = path.with_extension("part");
    let mut file = File::options().append(true).create(true).open(&part)?;
    let mut have = file.metadata()?.len();
    if have > release.bundle.size {
        file.set_len(0)?;
        have = 0;
    }
    let missing = release.bundle.size - have;
    let mut fetched = 0;
    if missing > 0 {
        let part = Part { first: have, length: missing, whole: Some(release.bundle.size), fresh: false };
        let mut stream = from.open(&release.bundle.path, part)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let got = stream.read(&mut buffer)?;
            if got == 0 {
                break;
            }
            file.write_all(buffer.get(..got).unwrap_or_default())?;
            fetched += got as u64;
        }
        stream.finish()?;
    }
    file.sync_all()?;
    let found = bundle::digest(&part)?;
    if found != release.bundle.sha256 {
        std::fs::remove_file(&part)?;
        ensure!(false, "{} is not what the list says it is; it was thrown away", release.bundle.path);
    }
    std::fs::rename(&part, &path)?;
    Ok(fetched)
}

fn remove_others(dir: &Path, wanted: &[String]) -> Result<()> {
    for entry in std::fs::read_dir(dir.join("bundles")).into_iter().flatten().flatten() {
        let name = format!("bundles/{}", entry.file_name().to_string_lossy());
        if name.ends_with(".raucb") && !wanted.contains(&name) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::keys::SecretKey;
    use crate::channel::{Directory, Publish, new_root};

    #[test]
    fn a_mirror_follows_and_is_not_fooled() {
        let dir = tempfile::tempdir().unwrap();
        let origin = dir.path().join("origin/stable");
        let mirror = dir.path().join("mirror/stable");
        let (root, ci) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        let mut channel = Directory::init(&origin, &new_root(&root, &ci).unwrap(), &ci).unwrap();
        let all = Publish { rollout: 100, ..Publish::default() };
        channel.publish(&bundle::make(dir.path(), "1.0.0"), &all).unwrap();
        channel.save(&ci).unwrap();
        let source = Source::Directory(origin.clone());
        assert!(run(&source, &mirror, None).is_err(), "a mirror needs a root to start from");
        run(&source, &mirror, Some(&origin.join(ROOT_FILE))).unwrap();
        Directory::verify(&mirror, Some(&origin.join("roots/1.json"))).unwrap();
        let old = std::fs::read(origin.join(CHANNEL_FILE)).unwrap();
        // New keys and a new release; the old one goes away.
        let (new_root, new_ci) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        channel.rotate(&root, &new_root, &new_ci).unwrap();
        channel.publish(&bundle::make(dir.path(), "2.0.0"), &all).unwrap();
        channel.change(&"1.0.0".parse().unwrap(), |r| r.revoked = Some("old".to_owned())).unwrap();
        channel.save(&new_ci).unwrap();
        let status = run(&source, &mirror, None).unwrap();
        assert_eq!(status.bundles, ["bundles/os-test-2.0.0.raucb"]);
        assert!(!mirror.join("bundles/os-test-1.0.0.raucb").exists());
        Directory::verify(&mirror, None).unwrap();
        // Again: nothing but the list is fetched.
        assert!(run(&source, &mirror, None).unwrap().fetched < 10_000);
        // The origin plays an old list back, signed by a key that is gone.
        std::fs::write(origin.join(CHANNEL_FILE), old).unwrap();
        assert!(run(&source, &mirror, None).is_err());
    }

    #[test]
    fn a_bundle_that_is_another_one_is_thrown_away_and_the_list_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (origin, mirror) = (dir.path().join("origin/stable"), dir.path().join("mirror"));
        let (root, ci) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        let mut channel = Directory::init(&origin, &new_root(&root, &ci).unwrap(), &ci).unwrap();
        let source = Source::Directory(origin.clone());
        run(&source, &mirror, Some(&origin.join(ROOT_FILE))).unwrap();
        let before = std::fs::read(mirror.join(CHANNEL_FILE)).unwrap();
        let all = Publish { rollout: 100, ..Publish::default() };
        let name = channel.publish(&bundle::make(dir.path(), "1.0.0"), &all).unwrap().bundle.path.clone();
        channel.save(&ci).unwrap();
        let mut bytes = std::fs::read(origin.join(&name)).unwrap();
        bytes[100] ^= 1;
        std::fs::write(origin.join(&name), &bytes).unwrap();
        let err = run(&source, &mirror, None).unwrap_err();
        assert!(err.to_string().contains("thrown away"), "{err:#}");
        assert_eq!(std::fs::read(mirror.join(CHANNEL_FILE)).unwrap(), before);
        // Cut off half way: the next run goes on there.
        bytes[100] ^= 1;
        std::fs::write(mirror.join(&name).with_extension("part"), &bytes[..bytes.len() / 2]).unwrap();
        std::fs::write(origin.join(&name), &bytes).unwrap();
        let status = run(&source, &mirror, None).unwrap();
        assert!(status.fetched < bytes.len() as u64, "{}", status.fetched);
        Directory::verify(&mirror, None).unwrap();
    }
}
