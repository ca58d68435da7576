//! Logins: commands on the device, and waiting for what they say.

use super::{ANY_HOST, BOOT_ID, BOOT_LIMIT, PATIENCE, Vm, tail};
use crate::harness::deadline;
use anyhow::{Context, Result, bail};
use os_sys::cmd::Cmd;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
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

    /// Runs a command until it exits with 0, for about [`ROUND`]. The device repeats it by itself: under emulation a login
    /// costs as much as the start of a service.
    fn repeat(&self, command: &str) -> Result<(i32, String)> {
        self.ssh_code(&repeated(command))
    }

    /// Tries to log in with another key.
    pub(crate) fn ssh_refused(&self, key: &Path) -> Result<()> {
        match self.ssh_command(key).arg("true").read() {
            Err(err) if err.to_string().contains("Permission denied") => Ok(()),
            Err(err) => bail!("refused for another reason: {err}"),
            Ok(_) => bail!("the login was accepted"),
        }
    }

    /// Waits until a login works, and keeps it for the commands that follow.
    pub(crate) fn wait_ssh(&mut self) -> Result<()> {
        self.connect(BOOT_LIMIT)
    }

    /// The same, where it may take longer.
    pub(super) fn connect(&mut self, limit: Duration) -> Result<()> {
        let (start, limit, mut last) = (Instant::now(), limit * PATIENCE, String::new());
        self.forget_connection();
        while start.elapsed() < limit {
            let mut master = self.master_command()?.spawn().context("cannot start ssh")?;
            loop {
                if self.control.exists() {
                    self.master = Some(master);
                    return Ok(());
                }
                if let Some(status) = master.try_wait()? {
                    last = format!("ssh ended ({status}): {}", said(&mut master));
                    break;
                }
                let alive = self.alive();
                if alive.is_err() || start.elapsed() > limit {
                    let _ = master.kill();
                    let _ = master.wait();
                    alive?;
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        bail!("no login in {} s: {last}; the end of the console: {}", limit.as_secs(), tail(&self.console()))
    }

    /// The connection that the others go through. It begins as soon as there is somebody to answer.
    fn master_command(&self) -> Result<Command> {
        let own = std::env::current_exe()?;
        let proxy = format!("{} pipe --closed {} {}", own.display(), self.closed_port, self.ssh_port);
        let mut command = Command::new("ssh");
        command.args(["-M", "-N", "-i"]).arg(&self.key);
        // A kernel that is jumped away from closes nothing.
        let alive = ["ServerAliveInterval=10", "ServerAliveCountMax=4"];
        for option in ANY_HOST.into_iter().chain(["BatchMode=yes", "IdentitiesOnly=yes"]).chain(alive) {
            command.args(["-o", option]);
        }
        command.arg("-o").arg(format!("ProxyCommand={proxy}"));
        command.arg("-o").arg(format!("ControlPath={}", self.control.display())).arg("root@127.0.0.1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Ok(command)
    }

    /// True while the shared connection is there.
    fn is_connected(&mut self) -> bool {
        self.control.exists() && self.master.as_mut().is_some_and(|master| matches!(master.try_wait(), Ok(None)))
    }

    /// Waits until the machine has restarted by itself, once or several times, and a login works; `before` is the
    /// identifier of the boot that ends. Returns the identifier of the new one.
    pub(crate) fn wait_restart(&mut self, before: &str, limit: Duration) -> Result<String> {
        let start = Instant::now();
        while start.elapsed() < limit * PATIENCE {
            if !self.is_connected() {
                self.connect(limit)?;
            }
            match self.ssh(BOOT_ID) {
                Ok(id) if id.trim() != before.trim() => return Ok(id),
                Ok(_) => self.pause(3)?,
                Err(_) => self.forget_connection(),
            }
        }
        let limit = limit * PATIENCE;
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
            self.pause(5)?;
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
        let start = Instant::now();
        while start.elapsed() < limit * PATIENCE {
            if !self.is_connected() {
                self.connect(limit)?;
            }
            match self.repeat(command) {
                Ok((0, _)) => return Ok(()),
                Ok(_) => {}
                Err(_) => self.forget_connection(),
            }
            self.alive()?;
        }
        let limit = limit * PATIENCE;
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
            deadline::check()?;
            if start.elapsed() > limit {
                bail!("'{command}' did not succeed in {} s: {last}", limit.as_secs());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// How long a device repeats a command before it says how that went, in seconds.
const ROUND: u32 = 40;

/// A command that the device repeats until it exits with 0. It rests twice as long as the command took, so that most of an
/// emulated processor is left for what is waited for; everything but the command is the shell itself.
fn repeated(command: &str) -> String {
    format!(
        "now() {{ read -r up idle </proc/uptime; now=${{up%.*}}${{up#*.}}; }}; now; end=$((now + {ROUND}00)); \
         while :; do now; began=$now; out=$({command}); code=$?; test $code = 0 && break; now; \
         test $now -gt $end && break; rest=$(((now - began) * 2)); test $rest -lt 30 && rest=30; \
         test $rest -gt 200 && rest=200; sleep $((rest / 100)).$((rest / 10 % 10)); done; \
         printf '%s\\n' \"$out\"; (exit $code)"
    )
}

/// What a program that has ended wrote to its stderr.
fn said(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = stderr.read_to_string(&mut text);
    }
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> (Option<i32>, String) {
        let out = Command::new("sh").args(["-c", script]).output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap())
    }

    #[test]
    fn a_command_is_repeated_until_it_succeeds() {
        let file = std::env::temp_dir().join(format!("os-repeat-{}", std::process::id()));
        let command = format!("echo x >> {0}; wc -l < {0} | tr -d ' '; test $(wc -l < {0}) = 3", file.display());
        let start = Instant::now();
        assert_eq!(run(&repeated(&command)), (Some(0), "3\n".to_owned()));
        assert!(start.elapsed() > Duration::from_millis(500), "it did not rest");
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn one_that_fails_is_given_up_with_its_code() {
        let short = repeated("echo no; (exit 3)").replace(&format!("+ {ROUND}00"), "+ 10");
        assert_eq!(run(&short), (Some(3), "no\n".to_owned()));
    }
}
