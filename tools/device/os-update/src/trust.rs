//! What this device believes of a channel: the root of its image, the roots that followed it, and what was seen.

use crate::state::{State, Store};
use anyhow::{Context, Result, ensure};
use os_channel::channel::Clock;
use os_channel::{CHANNEL_FILE, Channel, MAX_SIZE, Root, root_file};
use os_dbus::BusError;
use os_facts::clock::now;
use os_facts::report::Report;
use os_sys::{date, files, log};
use os_transport::{FetchError, Source};
use std::path::Path;

/// The root that the image brings.
pub const BUILT_IN: &str = "/etc/os/channel-root.json";
/// A chain has no more links: a server that never ends does not hold the device up.
const MAX_CHAIN: u32 = 256;

/// systemd-timesyncd leaves it when a time server set the clock.
pub const SYNCHRONIZED: &str = "/run/systemd/timesync/synchronized";

/// The device's clock, and whether a time server set it.
pub(crate) fn clock() -> Clock {
    Clock { now: now(), set: Path::new(SYNCHRONIZED).exists() }
}

/// What speaks against the clock, for people; nothing when a time server set it, or it ran on while the device was off.
pub fn doubt() -> Option<String> {
    let was = Report::of_this_boot().and_then(|report| report.clock_was);
    doubt_of(clock(), was, os_facts::clock::floor(Path::new("/"), Path::new(os_facts::place::STATE)))
}

/// `was`: what the clock said when the device started, where that was before `floor`.
fn doubt_of(clock: Clock, was: Option<u64>, floor: u64) -> Option<String> {
    let unset = was.is_some() || os_facts::clock::behind(clock.now, floor).is_some();
    (!clock.set && unset).then(|| format!("the clock is not set (it says {})", date::local(clock.now)))
}

/// Adds what the clock has to do with a failure, where certificates or dates are what it is about.
pub(crate) fn with_doubt(err: anyhow::Error) -> anyhow::Error {
    match doubt().filter(|_| is_dated(&err)) {
        Some(doubt) => err.context(doubt),
        None => err,
    }
}

/// True when a clock that is set right might have let it pass.
fn is_dated(err: &anyhow::Error) -> bool {
    use os_channel::Error::{Expired, Future};
    err.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(FetchError::Certificate { .. }))
            || matches!(cause.downcast_ref(), Some(Expired { .. } | Future { .. }))
            // RAUC's answer has no number that tells one refusal from another; its words come from OpenSSL.
            || matches!(cause.downcast_ref(), Some(BusError::Refused(said)) if said.contains("certificate"))
    })
}

/// Reads a channel's list and decides whether it is believed. What was learnt is in `state`, which is not saved here, and
/// in the newest root beside it.
///
/// # Errors
/// When the channel cannot be reached or believed.
pub fn read(source: &Source, name: &str, built_in: &Path, store: &Store, state: &mut State) -> Result<Channel> {
    read_dated(source, name, built_in, store, state).map_err(with_doubt)
}

fn read_dated(source: &Source, name: &str, built_in: &Path, store: &Store, state: &mut State) -> Result<Channel> {
    let mut root = root(built_in, store)?;
    let mut passed_over = None;
    for _ in 0..MAX_CHAIN {
        let next = root_file(root.version.saturating_add(1));
        match successor(source, &root, &next) {
            Ok((newer, bytes)) => {
                root = newer;
                files::write_if_changed(&store.dir().join("root.json"), &bytes, 0o644)?;
            }
            Err(why) => {
                passed_over = why.map(|why| format!("{next} was passed over: {why:#}"));
                if let Some(said) = &passed_over {
                    log::warn(said);
                }
                break;
            }
        }
    }
    let bytes =
        source.read(CHANNEL_FILE, MAX_SIZE).with_context(|| format!("the channel {source} cannot be reached"))?;
    ensure!(
        !is_page(&bytes),
        "the server answered with a web page in place of {CHANNEL_FILE} (the log-in of a network?)"
    );
    let seen = state.seen.get(name).cloned().unwrap_or_default();
    let (list, seen) = Channel::accept(&bytes, &root, name, &seen, clock()).with_context(|| {
        format!(
            "{CHANNEL_FILE} of the channel is not trusted{}",
            passed_over.map(|said| format!("; {said}")).unwrap_or_default()
        )
    })?;
    state.seen.insert(name.to_owned(), seen);
    Ok(list)
}

/// The root that follows another one. A name that is not there yet is answered in many ways: 404, 403 by buckets whose names
/// nobody may list, the start page by hosts of single-page applications. So whatever is no root is none, and only what could
/// have been one is worth a word.
fn successor(source: &Source, root: &Root, next: &str) -> Result<(Root, Vec<u8>), Option<anyhow::Error>> {
    let bytes = match source.read(next, MAX_SIZE) {
        Ok(bytes) => bytes,
        Err(FetchError::NotFound(_) | FetchError::Http { .. } | FetchError::Certificate { .. }) => return Err(None),
        Err(err) => return Err(Some(err.into())),
    };
    if is_page(&bytes) {
        return Err(None);
    }
    let newer = root.successor(&bytes).map_err(|err| Some(err.into()))?;
    Ok((newer, bytes))
}

/// True for HTML, which no file of a channel is.
fn is_page(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().first() == Some(&b'<')
}

/// The newest root that is believed: the image's, or one that followed it here.
fn root(built_in: &Path, store: &Store) -> Result<Root> {
    ensure!(
        built_in.exists(),
        "this image contains no root of a channel ({}), so no channel is trusted; it is added when the image is built",
        built_in.display()
    );
    let image = Root::built_in(&files::read_limited(built_in, MAX_SIZE)?)
        .with_context(|| format!("{} is damaged", built_in.display()))?;
    // Only this program writes there, and only what it has verified; a new image may be ahead of it.
    let kept = files::read_limited(&store.dir().join("root.json"), MAX_SIZE).ok();
    let kept = kept.and_then(|bytes| Root::built_in(&bytes).ok()).filter(|kept| kept.version > image.version);
    Ok(kept.unwrap_or(image))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_doubted_where_nothing_kept_it_and_nobody_set_it() {
        const FLOOR: u64 = 1_767_225_600;
        let doubt = |now, set, was| doubt_of(Clock { now, set }, was, FLOOR);
        // It began in 1970, and was moved to the floor.
        let said = doubt(FLOOR + 60, false, Some(30)).unwrap();
        assert!(said.starts_with("the clock is not set (it says 202"), "{said}");
        assert!(doubt(5, false, None).is_some(), "somebody set it back");
        // A clock that ran on needs no time server, and what a time server said needs no clock.
        assert_eq!(doubt(FLOOR + 60, false, None), None);
        assert_eq!(doubt(FLOOR + 60, true, Some(30)), None);
        assert_eq!(doubt(5, true, None), None);
    }

    #[test]
    fn only_what_a_clock_decides_is_put_down_to_it() {
        let wrapped = |err: anyhow::Error| is_dated(&err.context("the certificate of the channel expired"));
        let what = || "channel.json".to_owned();
        assert!(wrapped(FetchError::Certificate { what: what(), said: "(60) it is not yet valid".to_owned() }.into()));
        assert!(wrapped(os_channel::Error::Expired { expires: 1, now: 2 }.into()));
        assert!(wrapped(BusError::Refused("signature verification failed: certificate has expired".to_owned()).into()));
        assert!(!wrapped(FetchError::Network { what: what(), said: "(28) it timed out".to_owned() }.into()));
        assert!(!wrapped(os_channel::Error::TooLarge(1).into()));
        assert!(!wrapped(BusError::Refused("no space left".to_owned()).into()));
    }
}
