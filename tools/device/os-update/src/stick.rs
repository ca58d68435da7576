//! Updates without a network: a channel on a USB stick labelled `UPDATE`. It is the same directory that a web server
//! serves, believed for the same signatures, and the stick is told what became of it.

use crate::agent::Asked;
use crate::policy::Policy;
use anyhow::{Context, Result, bail};
use os_facts::clock::now;
use os_sys::stick::{self, Stick};
use os_transport::Source;
use std::path::{Path, PathBuf};

/// Where it is mounted, for this unit alone.
const AT: &str = "/run/os/update-stick";
/// The file that makes a directory a channel.
const LIST: &str = "channel.json";
/// So many directories of a stick are looked at.
const MAX_DIRECTORIES: usize = 256;

/// Installs what the stick offers and restarts into it; whoever plugs it in wants that now.
///
/// # Errors
/// When the stick cannot be read or nothing on it is believed; the stick says why.
pub async fn update(device: &Path) -> Result<String> {
    let stick = Stick::mount(device, Path::new(AT))?;
    let report = |text: &str| {
        let written = stick.write().map_err(Into::into).and_then(|_writing| write_report(stick.dir(), text));
        if let Err(err) = written {
            os_sys::log::warn(&format!("no report on the stick: {err:#}"));
        }
    };
    let done = install(stick.dir(), &report).await;
    match &done {
        Ok(text) => report(text),
        Err(err) => report(&format!("nothing was installed: {err:#}")),
    }
    stick.release()?;
    done
}

async fn install(dir: &Path, report: &dyn Fn(&str)) -> Result<String> {
    let own = Policy::load().channel.ok().flatten();
    let source = Source::Directory(choose(channels(dir)?, own.as_ref().map(Source::name))?);
    Ok(crate::agent(true, async |agent| agent.run(Asked::Person, Some(&source), report).await).await?.text)
}

/// Directories of the stick that are channels.
fn channels(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).context("the stick cannot be read")?.take(MAX_DIRECTORIES) {
        let entry = entry?;
        // A link could lead anywhere on the device.
        if entry.file_type()?.is_dir() && entry.path().join(LIST).symlink_metadata().is_ok_and(|m| m.is_file()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn choose(found: Vec<PathBuf>, own: Option<&str>) -> Result<PathBuf> {
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names = found.iter().map(name).collect::<Vec<_>>().join(", ");
    match own {
        Some(own) => found
            .into_iter()
            .find(|path| name(path) == own)
            .with_context(|| format!("this device follows the channel '{own}'; on the stick there are: [{names}]")),
        None => match <[PathBuf; 1]>::try_from(found) {
            Ok([only]) => Ok(only),
            Err(other) if other.is_empty() => bail!("no directory of the stick is a channel; copy a whole one"),
            Err(_) => bail!("this device follows no channel and the stick holds several: {names}"),
        },
    }
}

fn write_report(dir: &Path, text: &str) -> Result<()> {
    let host = os_sys::host_name();
    let path = dir.join(format!("update-{}.txt", if host.is_empty() { "device" } else { &host }));
    let line = format!("{} {host} ({}): {text}\r\n", os_sys::date::local(now()), crate::machine::Machine::this().id());
    // What earlier devices and earlier times said stays.
    stick::append(&path, &line).with_context(|| format!("cannot add to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_devices_own_channel_is_taken_or_the_only_one() {
        let dir = tempfile::tempdir().unwrap();
        let found = || channels(dir.path()).unwrap();
        assert!(choose(found(), None).unwrap_err().to_string().contains("no directory of the stick is a channel"));
        for name in ["stable", "beta"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join(LIST), "").unwrap();
            if name == "stable" {
                assert_eq!(choose(found(), None).unwrap(), dir.path().join("stable"));
            }
        }
        std::fs::create_dir(dir.path().join("photos")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        assert_eq!(found().len(), 2);
        assert_eq!(choose(found(), Some("beta")).unwrap(), dir.path().join("beta"));
        assert!(choose(found(), None).unwrap_err().to_string().contains("several"));
        let other = choose(found(), Some("edge")).unwrap_err().to_string();
        assert!(other.contains("'edge'") && other.contains("beta, stable"), "{other}");
    }

    #[test]
    fn a_report_reads_and_writes_nothing_but_itself() {
        let dir = tempfile::tempdir().unwrap();
        write_report(dir.path(), "one").unwrap();
        let report = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "correct horse").unwrap();
        std::fs::remove_file(&report).unwrap();
        std::os::unix::fs::symlink(&secret, &report).unwrap();
        assert!(write_report(dir.path(), "two").is_err());
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "correct horse");
        assert!(report.is_symlink());
    }

    #[test]
    fn reports_add_up() {
        let dir = tempfile::tempdir().unwrap();
        write_report(dir.path(), "one").unwrap();
        write_report(dir.path(), "two").unwrap();
        let file = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.lines().count() == 2 && text.contains(": one\r\n") && text.ends_with(": two\r\n"), "{text}");
    }
}
