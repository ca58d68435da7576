//! Logins: commands on the device, and waiting for what they say.

use super::{ANY_HOST, BOOT_ID, BOOT_LIMIT, PATIENCE, Vm, tail};
use anyhow::{Context, Result, bail};
use os_sys::cmd::Cmd;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

impl Vm {
    fn ssh_command(&self, key: &Path) -> Cmd {
        let options = ANY_HOST.into_iter().chain(["BatchMode=yes", "IdentitiesOnly=yes", "ConnectTimeout=20"]);
        let mut cmd =
            Cmd::new("timeout").args(["120", "ssh", "-p", &self.ssh_port.to_string(), "-i"]).arg(key).named("ssh");
        for option in options {
            cmd = cmd.args(["-o", option]);
        }
        // Without a master, or when it is gone, ssh connects by itself.
        let control = if key == self.key { self.control.as_path() } else { Path::new("none") };
        cmd.arg("-o").arg(format!("ControlPath={}", control.display())).arg("root@127.0.0.1")
    }

    /// Runs a shell command as root and returns what it prints.
    pub(crate) fn ssh(&self, command: &str) -> Result<String> {
        self.ssh_command(&self.key).arg(command).read().with_context(|| format!("on the device: {command}"))
    }

    /// Runs a command that may fail and returns what it prints with its exit code.
    pub(crate) fn ssh_code(&self, command: &str) -> Result<(i32, String)> {
        let text = self.ssh(&format!("{command}; echo \"code $?\""))?;
        let (out, code) = text.trim_end().rsplit_once("code ").context("no exit code came back")?;
        Ok((code.trim().parse()?, out.to_owned()))
    }

    /// Runs a command until it exits with 0, for about a minute. The device repeats it by itself: under emulation a login
    /// costs as much as the start of a service.
    fn repeat(&self, command: &str) -> Result<(i32, String)> {
        self.ssh_code(&format!(
            "for i in $(seq 20); do out=$({command}); code=$?; test $code = 0 && break; sleep 2; done; \
             printf '%s\\n' \"$out\"; (exit $code)"
        ))
    }

    /// Tries to log in with another key.
    pub(crate) fn ssh_refused(&self, key: &Path) -> Result<()> {
        match self.ssh_command(key).arg("true").read() {
            Err(err) if err.to_string().contains("Permission denied") => Ok(()),
            Err(err) => bail!("refused for another reason: {err}"),
            Ok(_) => bail!("the login was accepted"),
        }
    }

    /// Waits until a login works.
    pub(crate) fn wait_ssh(&mut self) -> Result<()> {
        let (mut last, limit) = (String::new(), BOOT_LIMIT * PATIENCE);
        while self.started.elapsed() < limit {
            self.alive()?;
            match self.ssh("true") {
                Ok(_) => return self.share_connection(),
                Err(err) => last = format!("{err:#}"),
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        bail!("no login in {} s: {last}; the end of the console: {}", limit.as_secs(), tail(&self.console()))
    }

    /// Waits until the machine has restarted by itself, once or several times, and a login works; `before` is the
    /// identifier of the boot that ends. Returns the identifier of the new one.
    pub(crate) fn wait_restart(&mut self, before: &str, limit: Duration) -> Result<String> {
        let (start, limit) = (Instant::now(), limit * PATIENCE);
        self.forget_connection();
        while start.elapsed() < limit {
            if let Ok(id) = self.ssh(BOOT_ID)
                && id.trim() != before.trim()
            {
                self.share_connection()?;
                return Ok(id);
            }
            self.pause(3)?;
        }
        bail!("no new boot in {} s; the end of the console: {}", limit.as_secs(), tail(&self.console()))
    }

    /// The same after `unit` was told to restart the machine; that it ended without is said at once.
    pub(crate) fn wait_restart_by(&mut self, unit: &str, before: &str, limit: Duration) -> Result<String> {
        let active = format!(
            "systemctl is-active {unit} | grep -qE '^(de)?activ' || systemctl is-system-running | grep -q stopping"
        );
        let (start, restarts, mut looks) = (Instant::now(), self.restarts, 0);
        while start.elapsed() < limit * PATIENCE && self.restarts == restarts && looks < 3 {
            // A restart takes a moment to begin.
            match self.ssh_code(&active) {
                Ok((0, _)) => looks = 0,
                Ok(_) => looks += 1,
                Err(_) => break,
            }
            self.pause(10)?;
        }
        if looks == 3 && self.restarts == restarts && self.ssh(BOOT_ID)?.trim() == before.trim() {
            bail!(
                "{unit} ended, and nothing restarted: {}",
                self.ssh(&format!("journalctl -b -u {unit} -o cat | tail -5"))?
            );
        }
        self.wait_restart(before, limit)
    }

    /// Waits until a command on the device exits with 0, in whatever boot that is.
    pub(crate) fn wait_through_restarts(&mut self, command: &str, limit: Duration) -> Result<()> {
        let (start, limit) = (Instant::now(), limit * PATIENCE);
        self.forget_connection();
        while start.elapsed() < limit {
            if matches!(self.repeat(command), Ok((0, _))) {
                return self.share_connection();
            }
            self.pause(3)?;
        }
        bail!("'{command}' did not succeed in {} s; the end of the console: {}", limit.as_secs(), tail(&self.console()))
    }

    /// Logs out. The next command logs in again.
    pub(crate) fn forget_connection(&mut self) {
        if let Some(mut master) = self.master.take() {
            let _ = master.kill();
            let _ = master.wait();
        }
        let _ = std::fs::remove_file(&self.control);
    }

    pub(super) fn share_connection(&mut self) -> Result<()> {
        let mut command = std::process::Command::new("ssh");
        command.args(["-M", "-N", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
        command.args(["-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i"]).arg(&self.key);
        command.arg("-o").arg(format!("ControlPath={}", self.control.display()));
        command.args(["-p", &self.ssh_port.to_string(), "root@127.0.0.1"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        self.master = Some(child);
        let start = Instant::now();
        while !self.control.exists() && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Waits until a command on the device exits with 0; returns what it printed last.
    pub(crate) fn wait_for(&self, command: &str, limit: Duration) -> Result<String> {
        let (start, limit) = (Instant::now(), limit * PATIENCE);
        let mut last;
        loop {
            match self.repeat(command) {
                Ok((0, text)) => return Ok(text),
                Ok((code, text)) => last = format!("exit code {code}: {text}"),
                Err(err) => last = format!("{err:#}"),
            }
            if start.elapsed() > limit {
                bail!("'{command}' did not succeed in {} s: {last}", limit.as_secs());
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}
