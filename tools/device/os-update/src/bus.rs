//! The D-Bus interface `os.Update1`: every call is a command of `os-update`, whose lock and rules count for it too.

use crate::progress::{self, Progress};
use crate::state::Store;
use os_dbus::updates::{Status, Updates};
use os_sys::cmd::{Cmd, CmdError};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What answers.
#[derive(Debug)]
pub(crate) struct Service {
    program: PathBuf,
    store: Store,
    progress: PathBuf,
}

impl Service {
    /// The device's own.
    pub(crate) fn device() -> Self {
        Self { program: "os-update".into(), store: Store::device(), progress: progress::PATH.into() }
    }

    fn command(&self, words: &[&str], channel: &str) -> Result<String, String> {
        let mut cmd = Cmd::new(&self.program).args(words);
        if !channel.is_empty() {
            // One word: nothing that a caller says becomes another option.
            cmd = cmd.arg(format!("--from={channel}"));
        }
        match cmd.read() {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(CmdError::Failed { stderr, .. }) if !stderr.is_empty() => Err(stderr),
            Err(err) => Err(err.to_string()),
        }
    }
}

impl Updates for Service {
    fn status(&self) -> Status {
        let state = self.store.load();
        Status {
            phase: state.phase.word().to_owned(),
            version: state.phase.target().map(|target| target.version.clone()).unwrap_or_default(),
            percent: percent(&self.progress),
            paused: state.paused,
            last: state.last,
        }
    }

    fn check(&self, channel: &str) -> Result<(String, String), String> {
        let found: Value =
            serde_json::from_str(&self.command(&["--json", "check"], channel)?).map_err(|err| err.to_string())?;
        let text = |name: &str| found.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok((text("offered"), text("text")))
    }

    fn apply(&self, channel: &str) -> Result<String, String> {
        self.command(&["apply"], channel)
    }

    fn rollback(&self) -> Result<(), String> {
        self.command(&["rollback", "--yes"], "").map(drop)
    }

    fn pause(&self, paused: bool) -> Result<(), String> {
        self.command(&[if paused { "pause" } else { "resume" }], "").map(drop)
    }
}

/// Of the installation that is under way; -1 without one.
fn percent(progress: &Path) -> i32 {
    Progress::load(progress).and_then(|progress| i32::try_from(progress.percent).ok()).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Phase, State, Target};
    use os_dbus::fake::PrivateBus;
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Child, ChildStdout, Command, Stdio};
    use std::time::{Duration, Instant};

    /// A private bus, and a program that says what it was called with.
    struct Desk {
        dir: tempfile::TempDir,
        bus: PrivateBus,
    }

    impl Desk {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let program = dir.path().join("os-update");
            let script = r#"#!/bin/sh
                case "$*" in
                    "--json check") echo '{"running":"1.0.0","offered":"1.1.0","text":"1.1.0 is there"}' ;;
                    "--json check --from=/no -x") echo 'there is no channel' >&2; exit 1 ;;
                    *) echo "$@" ;;
                esac"#;
            std::fs::write(&program, script).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            let bus = PrivateBus::start(dir.path()).unwrap();
            Self { dir, bus }
        }

        fn service(&self) -> Service {
            Service {
                program: self.dir.path().join("os-update"),
                store: Store::at(self.dir.path()),
                progress: self.dir.path().join("progress.json"),
            }
        }

        /// Asks as any program would; what it said, or its error.
        fn ask(&self, words: &[&str]) -> String {
            let out =
                Command::new("busctl").arg(format!("--address={}", self.bus.address())).args(words).output().unwrap();
            String::from_utf8([out.stdout, out.stderr].concat()).unwrap().trim().to_owned()
        }

        /// Everything that is said on the bus from now on, a line of JSON each.
        fn listen(&self) -> (Child, BufReader<ChildStdout>) {
            let mut child = Command::new("busctl")
                .arg(format!("--address={}", self.bus.address()))
                .args(["monitor", "--json=short"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut said = String::new();
            BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
            assert!(said.contains("Monitoring"), "busctl does not listen: {said}");
            let lines = BufReader::new(child.stdout.take().unwrap());
            (child, lines)
        }

        fn call(&self, method: &[&str]) -> String {
            self.ask(&[&["call", "os.Update1", "/os/Update1", "os.Update1"], method].concat())
        }
    }

    #[test]
    fn a_program_on_the_bus_asks_for_updates_and_the_service_goes_when_nobody_does() {
        let desk = Desk::new();
        let service = desk.service();
        let address = desk.bus.address().to_owned();
        let serving = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(os_dbus::updates::serve_at(&address, service, Duration::from_secs(3)))
        });
        let start = Instant::now();
        while !desk.ask(&["list"]).contains("os.Update1") {
            assert!(start.elapsed() < Duration::from_secs(20), "it does not come up");
        }
        assert_eq!(desk.call(&["Check", "s", ""]), r#"ss "1.1.0" "1.1.0 is there""#);
        assert!(desk.call(&["Check", "s", "/no -x"]).contains("there is no channel"));
        assert_eq!(desk.call(&["Apply", "s", "/media/stick"]), r#"s "apply --from=/media/stick""#);
        assert_eq!(desk.call(&["Rollback"]), "");
        assert_eq!(desk.call(&["Pause"]), "");
        let get = ["get-property", "os.Update1", "/os/Update1", "os.Update1", "Phase", "Version", "Percent", "Paused"];
        assert_eq!(desk.ask(&get), "s \"idle\"\ns \"\"\ni -1\nb false");
        let mut listener = desk.listen();
        let target = Target { version: "1.1.0".to_owned(), digest: String::new() };
        let phase = Phase::Installing { target, transaction: String::new() };
        let store = Store::at(desk.dir.path());
        store.pause(true).unwrap();
        store.save(&State { phase, ..State::default() }).unwrap();
        std::fs::write(
            desk.dir.path().join("progress.json"),
            r#"{"version": "1.1.0", "percent": 40, "size": 0, "fetched": 0, "trouble": null}"#,
        )
        .unwrap();
        assert_eq!(desk.ask(&get), "s \"installing\"\ns \"1.1.0\"\ni 40\nb true");
        // Whoever listens is told the same, at once or one after the other, and no more.
        let mut told = serde_json::Map::new();
        while told.len() < 4 {
            let mut line = String::new();
            assert_ne!(listener.1.read_line(&mut line).unwrap(), 0, "no more is said than {told:?}");
            let said: Value = serde_json::from_str(&line).unwrap();
            if said["member"] == "PropertiesChanged" {
                assert_eq!(said["payload"]["data"][0], "os.Update1");
                told.extend(said["payload"]["data"][1].as_object().unwrap().clone());
            }
        }
        listener.0.kill().unwrap();
        listener.0.wait().unwrap();
        let mut told: Vec<_> = told.iter().map(|(name, value)| format!("{name} {}", value["data"])).collect();
        told.sort();
        assert_eq!(told, ["Paused true", "Percent 40", "Phase \"installing\"", "Version \"1.1.0\""]);
        let asked = Instant::now();
        serving.join().unwrap().unwrap();
        assert!(asked.elapsed() >= Duration::from_secs(3), "it went too early");
        assert!(!desk.ask(&["list"]).contains("os.Update1"));
    }
}
