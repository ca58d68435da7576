//! Profiles of NetworkManager that changed, on devices that are connected: they are connected again, and when that does not
//! work, what was connected before is.

use super::effect::memory;
use anyhow::{Context, Result};
use os_config_model::connections::Change;
use os_config_model::store::checksum;
use os_dbus::{Bus, Link, Profile, Tried};
use os_sys::files;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a connection may take: DHCP alone is given 45 seconds by NetworkManager.
const CONNECTS: Duration = Duration::from_secs(60);
/// NetworkManager goes back by itself when nothing more is heard of us.
const GOES_BACK: Duration = Duration::from_secs(150);

/// Has NetworkManager read its profiles, and connects those of `changes` that a connected device has or should have now.
/// One that cannot be connected is remembered ([`not_connected`]).
pub(super) async fn bring(bus: &Bus, changes: &[Change]) -> Result<()> {
    let Some(settings) = bus.network_settings().await? else { return Ok(()) };
    // Once in a boot is enough to be cut off for a minute.
    let fresh: Vec<&Change> = changes.iter().filter(|change| !marker(&change.file).exists()).collect();
    if fresh.is_empty() && !changes.is_empty() {
        return Ok(());
    }
    // Before the profiles are read: what is gone back to are the profiles as they were.
    let links = if fresh.is_empty() { Vec::new() } else { bus.links().await? };
    let checkpoint = bus.remember(&links, GOES_BACK).await?;
    let done = async {
        settings.reload_connections().await.tried("NetworkManager cannot reload its profiles")?;
        let (links, profiles) = (bus.links().await?, bus.profiles().await?);
        for (link, profile) in due(&links, &profiles, &fresh) {
            connect(bus, link, profile).await?;
        }
        Ok(())
    };
    let done: Result<()> = done.await;
    match (&done, checkpoint) {
        (_, None) => done,
        (Ok(()), Some(checkpoint)) => Ok(bus.forget(&checkpoint).await?),
        (Err(_), Some(checkpoint)) => {
            bus.go_back(&checkpoint).await?;
            // The marker says it, until the profile is another one.
            if fresh.iter().any(|change| marker(&change.file).exists()) { Ok(()) } else { done }
        }
    }
}

async fn connect(bus: &Bus, link: &Link, profile: &Profile) -> Result<()> {
    let marker = marker(&profile.file);
    let why = match bus.connect(profile, link, CONNECTS).await {
        Ok(true) => return Ok(()),
        Ok(false) => "it does not come up".to_owned(),
        Err(err) => err.to_string(),
    };
    let name = Path::new(&profile.file).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let why = format!(
        "{name}: {} cannot be connected with it ({why}); it stays connected as it was, and the next boot tries the profile again",
        link.interface
    );
    files::write_if_changed(&marker, why.as_bytes(), 0o600).context("cannot remember a profile that failed")?;
    Err(anyhow::Error::msg(why))
}

/// Where it is remembered, for this boot, that the profile in a file could not be connected as it is now.
fn marker(file: &str) -> PathBuf {
    let text = std::fs::read(file).unwrap_or_default();
    memory(&format!("not-connected-{:016x}", checksum(&[file.as_bytes(), b"\n", &text].concat())))
}

/// What is to be said of these profiles that could not be connected.
pub(super) fn not_connected(files: &[String]) -> Vec<String> {
    files.iter().filter_map(|file| std::fs::read_to_string(marker(file)).ok()).collect()
}

/// Which profile has to be connected where: the connected one when it says something else now, or a changed one that
/// NetworkManager would prefer to it at the next boot.
fn due<'a>(links: &'a [Link], profiles: &'a [Profile], changes: &[&Change]) -> Vec<(&'a Link, &'a Profile)> {
    let change = |profile: &Profile| changes.iter().find(|change| change.file == profile.file);
    let best = |link: &Link, than: Option<i32>, any: bool| {
        profiles
            .iter()
            .filter(|p| {
                p.autoconnect && than.is_none_or(|than| p.priority > than) && link.available.contains(&p.object)
            })
            .filter(|p| any || change(p).is_some())
            .max_by_key(|p| p.priority)
    };
    let of_link = |link: &'a Link| {
        let now = profiles.iter().find(|p| p.object == link.profile);
        let changed = now.and_then(change).is_some_and(|change| change.other);
        let profile = match now {
            Some(now) if changed && link.available.contains(&now.object) => Some(now),
            // It is for another device now.
            Some(_) if changed => best(link, None, true),
            _ => best(link, now.map(|now| now.priority), false),
        };
        profile.map(|profile| (link, profile))
    };
    links.iter().filter(|link| link.interface != "lo").filter_map(of_link).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use os_dbus::ObjectPath;

    fn object(name: &str) -> ObjectPath {
        ObjectPath::try_from(format!("/{name}")).unwrap()
    }

    fn profile(name: &str, priority: i32) -> Profile {
        Profile { object: object(name), file: format!("/d/{name}"), id: name.to_owned(), autoconnect: true, priority }
    }

    fn link(interface: &str, profile: &str, available: &[&str]) -> Link {
        Link {
            device: object(interface),
            interface: interface.to_owned(),
            profile: object(profile),
            available: available.iter().map(|name| object(name)).collect(),
        }
    }

    fn changed(name: &str, other: bool) -> Change {
        Change { file: format!("/d/{name}"), other }
    }

    #[track_caller]
    fn check(links: &[Link], profiles: &[Profile], changes: &[Change], wanted: &[(&str, &str)]) {
        let changes: Vec<&Change> = changes.iter().collect();
        let found: Vec<_> =
            due(links, profiles, &changes).into_iter().map(|(l, p)| (l.interface.as_str(), p.id.as_str())).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn only_what_changed_for_a_connected_device_is_connected_again() {
        let links = [link("eth0", "a", &["a", "b"]), link("eth1", "c", &["c"]), link("lo", "lo", &["lo"])];
        let profiles = [profile("a", 0), profile("b", 0), profile("c", 0), profile("lo", 0)];
        check(&links, &profiles, &[changed("a", true)], &[("eth0", "a")]);
        check(&links, &profiles, &[changed("a", true), changed("c", true)], &[("eth0", "a"), ("eth1", "c")]);
        // Nothing of the connection itself, a profile that is not connected, a device that is nobody's.
        check(&links, &profiles, &[changed("a", false), changed("b", true), changed("lo", true)], &[]);
    }

    #[test]
    fn a_profile_that_the_next_boot_would_prefer_is_connected_now() {
        let links = [link("eth0", "auto", &["auto", "office", "late"])];
        let mut profiles = vec![profile("auto", -999), profile("office", 0), profile("late", 5)];
        check(&links, &profiles, &[changed("office", true)], &[("eth0", "office")]);
        // Its priority alone has changed.
        check(&links, &profiles, &[changed("office", true), changed("late", false)], &[("eth0", "late")]);
        profiles[2].autoconnect = false;
        check(&links, &profiles, &[changed("late", true)], &[]);
        // For another device.
        check(&[link("eth0", "auto", &["auto"])], &profiles, &[changed("office", true)], &[]);
    }

    #[test]
    fn a_profile_that_is_for_another_device_now_makes_room() {
        let profiles = [profile("moved", 0), profile("auto", -999)];
        check(&[link("eth0", "moved", &["auto"])], &profiles, &[changed("moved", true)], &[("eth0", "auto")]);
        check(&[link("eth0", "moved", &[])], &profiles, &[changed("moved", true)], &[]);
    }
}
