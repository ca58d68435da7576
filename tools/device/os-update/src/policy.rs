//! May an update be installed, or started, now?

use crate::eos;
use os_config_model::types::{Mode, Trial, Update};
use os_config_model::window::Window;
use os_dbus::{Bus, BusError};
use os_facts::place::under;
use os_sys::cmd::{Cmd, CmdError};
use os_transport::Source;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Where a channel of the image's own stands.
const BUILT_IN_CHANNEL: &str = "/etc/os/channel";
/// Whoever puts a file here asks for no update now; the name of the file says who.
pub const INHIBIT: &str = "/run/os/update-inhibit";
/// Programs that may object, by ending with another code than 0: batteries, machines at work.
const HOOKS: &[&str] = &["/usr/lib/os/update-allow.d", "/mnt/state/os/update-allow.d"];

/// What config.json says of updates.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Where releases come from, if anybody said it, or what is wrong with what was said. That must not keep the device
    /// from confirming its boot, so it is no error of [`Policy::load`].
    pub channel: Result<Option<Source>, String>,
    /// What happens by itself.
    pub mode: Mode,
    /// How a release is started.
    pub trial: Trial,
    window: Option<Window>,
    metered: bool,
    /// Bytes per second; 0 for no limit.
    pub limit: u64,
    /// The same as config.json says it, and where releases come from.
    pub shown: Shown,
    root: PathBuf,
}

/// What is in force, for `os update status`. The form is stable; fields are only ever added.
#[derive(Debug, Clone, Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    channel: Option<String>,
    mode: Mode,
    window: Option<String>,
    metered: bool,
    rate_limit: u64,
    trial: Trial,
}

impl Shown {
    /// No channel is set.
    pub(crate) fn is_off(&self) -> bool {
        self.channel.is_none()
    }
}

impl Policy {
    /// Reads what is in force.
    pub fn load() -> Self {
        Self::under(Path::new("/"))
    }

    /// The same of a device whose root is somewhere else.
    pub(crate) fn under(root: &Path) -> Self {
        let (decision, _) = os_config_model::decide::from_store(&os_config_model::store::Store::under(root));
        let Update { channel, mode, window, metered, rate_limit, trial } = decision.accepted.config.os.update;
        let file = |path: &str| std::fs::read_to_string(under(root, path)).ok();
        let channel = address(channel, file(eos::PATH), file(BUILT_IN_CHANNEL));
        let (mode, trial) = (mode.unwrap_or_default(), trial.unwrap_or_default());
        let (metered, rate_limit) = (metered == Some(true), rate_limit.unwrap_or(0));
        let parsed = |text: Option<String>| {
            text.as_deref().map(Source::parse).transpose().map_err(|err| format!("the channel: {err}"))
        };
        let channel = channel.and_then(parsed);
        let shown = channel.as_ref().ok().and_then(Option::as_ref).map(ToString::to_string);
        Self {
            channel,
            mode,
            trial,
            window: window.as_deref().and_then(Window::parse),
            metered,
            limit: rate_limit.saturating_mul(1024),
            shown: Shown { channel: shown, mode, window, metered, rate_limit, trial },
            root: root.to_owned(),
        }
    }

    /// What speaks against installing or starting now, for people; none when nothing does.
    ///
    /// # Errors
    /// When NetworkManager does not answer.
    pub async fn objection(&self, bus: &Bus, over_network: bool) -> Result<Option<String>, BusError> {
        if let Some(window) = &self.window
            && !local_time().is_none_or(|(day, minute)| window.is_open(day, minute))
        {
            return Ok(Some("it is not the time that os.update.window gives".to_owned()));
        }
        if over_network && !self.metered && bus.is_metered().await? {
            return Ok(Some("the connection is metered; os.update.metered allows it".to_owned()));
        }
        let hooks = || HOOKS.iter().find_map(|dir| refusal(&under(&self.root, dir)));
        Ok(inhibitor(&under(&self.root, INHIBIT)).or_else(hooks))
    }
}

/// The address of the channel: config.json's, or else a file's of EOS, or else the one that the image was built with.
fn address(config: Option<String>, eos: Option<String>, built_in: Option<String>) -> Result<Option<String>, String> {
    let text = |text: Option<String>| text.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
    match (text(config), eos) {
        (Some(config), _) => Ok(Some(config)),
        (None, Some(eos)) => eos::channel(&eos).map(Some).map_err(|err| err.to_string()),
        (None, None) => Ok(text(built_in)),
    }
}

/// Who asks for no update now.
fn inhibitor(dir: &Path) -> Option<String> {
    let first = std::fs::read_dir(dir).ok()?.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).min()?;
    Some(format!("{first} asks for no update now ({})", dir.join(&first).display()))
}

/// What a hook says against it.
fn refusal(dir: &Path) -> Option<String> {
    programs(dir)
        .into_iter()
        .find_map(|program| Some(format!("{} says no: {}", program.display(), objects(&program, 60)?)))
}

/// Runs a program that may object; what it says when it does, in one line. `seconds`: how long it may take.
pub(crate) fn objects(program: &Path, seconds: u64) -> Option<String> {
    /// Exit code of timeout(1) for a program that took too long.
    const TOOK_TOO_LONG: i32 = 124;
    let run = Cmd::new("timeout").arg("--kill-after=5").arg(seconds.to_string()).arg(program);
    match run.hear().err()? {
        CmdError::Failed { code: Some(TOOK_TOO_LONG), .. } => Some(format!("no answer in {seconds} seconds")),
        CmdError::Failed { status, stderr, .. } if stderr.is_empty() => Some(status),
        CmdError::Failed { status, stderr, .. } => {
            Some(format!("{status}: {}", stderr.lines().map(str::trim).collect::<Vec<_>>().join("; ")))
        }
        err @ CmdError::Start { .. } => Some(err.to_string()),
    }
}

/// The programs of a drop-in directory, in order.
pub(crate) fn programs(dir: &Path) -> Vec<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let mut found: Vec<_> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
        .collect();
    found.sort();
    found
}

/// Day (0 is Monday) and minute, in the device's time zone. The C library knows the zone, and `date` asks it.
fn local_time() -> Option<(usize, u16)> {
    let text = Cmd::new("date").arg("+%u %H %M").read().ok()?;
    let mut words = text.split_whitespace();
    let mut next = || words.next()?.parse::<u16>().ok();
    let (day, hour, minute) = (next()?, next()?, next()?);
    Some((usize::from(day.checked_sub(1)?), hour * 60 + minute))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn who_asks_for_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(inhibitor(dir.path()), None);
        std::fs::write(dir.path().join("welding"), "").unwrap();
        assert!(inhibitor(dir.path()).unwrap().starts_with("welding asks"));
    }

    #[test]
    fn a_hook_that_fails_objects_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let hook = |name: &str, text: &str, mode: u32| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        hook("10-fine", "#!/bin/sh\n", 0o755);
        hook("20-no-program", "#!/bin/sh\nexit 1\n", 0o644);
        assert_eq!(refusal(dir.path()), None);
        hook("30-battery", "#!/bin/sh\necho only 20 percent >&2; exit 1\n", 0o755);
        assert!(refusal(dir.path()).unwrap().contains("only 20 percent"));
    }

    #[test]
    fn the_owner_says_where_releases_come_from_before_the_image_does() {
        let some = |text: &str| Some(text.to_owned());
        let yml = some("update: {server: https://u.example, name: a}");
        let image = || some("https://image.example/a\n");
        assert_eq!(address(some("https://o.example/a"), yml.clone(), image()), Ok(some("https://o.example/a")));
        assert_eq!(address(None, yml, image()), Ok(some("https://u.example/a")));
        assert_eq!(address(None, None, image()), Ok(some("https://image.example/a")));
        assert_eq!(address(None, None, some(" \n")), Ok(None));
        assert!(address(None, some("update: {"), image()).unwrap_err().contains("YAML"));
    }

    #[test]
    fn local_time_is_a_time() {
        let (day, minute) = local_time().unwrap();
        assert!(day < 7 && minute < 24 * 60);
    }
}
