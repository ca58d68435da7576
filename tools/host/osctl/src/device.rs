//! A device on the network, over ssh.

mod options;
pub mod selftest;

use anyhow::{Context, Result, bail, ensure};
use os_transport::Source;
use os_transport::relay::{Bundle, Relay};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Says which boot this is.
const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

/// How long a device may take to restart, pass its health check or come back from a release that does not.
const LIMIT: Duration = Duration::from_secs(3600);

/// How to log in.
#[derive(Debug, Clone, clap::Args)]
pub struct Ssh {
    /// SSH port
    #[arg(long, default_value_t = 22222)]
    pub port: u16,
    /// Private key; by default those of ssh and its agent
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Further ssh(1) option, such as StrictHostKeyChecking=accept-new; may be given more than once
    #[arg(short = 'o', long = "option", value_name = "OPTION")]
    pub options: Vec<String>,
}

impl Ssh {
    fn command(&self) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(["-p", &self.port.to_string(), "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=10"]);
        if let Some(identity) = &self.identity {
            ssh.arg("-i").arg(identity);
        }
        for option in &self.options {
            ssh.arg("-o").arg(option);
        }
        ssh.args(["-l", "root"]);
        ssh
    }

    fn read(&self, host: &str, command: &str) -> Result<String> {
        let out =
            self.command().args(["-o", "BatchMode=yes", "--", host, command]).output().context("cannot run ssh")?;
        let said = String::from_utf8_lossy(&out.stderr);
        // A device that was never logged in to, or was flashed anew.
        let hint = match said.contains("Host key verification failed") {
            true if said.contains("HAS CHANGED") => "; if it was flashed anew: ssh-keygen -R with its address",
            true => "; to trust it from now on: -o StrictHostKeyChecking=accept-new",
            false => "",
        };
        ensure!(out.status.success(), "{}{hint}", said.trim());
        Ok(String::from_utf8(out.stdout)?)
    }
}

/// Has a device install a bundle that it reads from here, through ssh, and waits until it has decided about it.
///
/// # Errors
/// When the device refuses the bundle, or goes back to what ran before.
pub fn update(host: &str, bundle: &Path, ssh: &Ssh) -> Result<String> {
    let size = bundle.metadata().with_context(|| format!("there is no {}", bundle.display()))?.len();
    let bundle = bundle.canonicalize()?;
    let (Some(dir), Some(name)) = (bundle.parent(), bundle.file_name().and_then(|n| n.to_str())) else {
        bail!("{} is no file", bundle.display());
    };
    let relay =
        Relay::start(Bundle { source: Source::Directory(dir.to_owned()), path: name.to_owned(), size, limit: 0 })?;
    let (before, earlier) = status(ssh, host).with_context(|| format!("cannot log in to {host}"))?;
    // On the device's own loopback; a port that is taken there makes ssh fail and nothing else.
    let port = 40_000 + std::process::id() % 20_000;
    let address = relay.address();
    let (here, path) = address.trim_start_matches("http://").split_once('/').context("the relay has no address")?;
    // In a unit of its own, which ends the login with the restart and not the other way round.
    let install = format!(
        "systemd-run --quiet --pipe --wait --collect --unit=os-update-by-hand os update install http://127.0.0.1:{port}/{path}"
    );
    let mut running = ssh
        .command()
        .args(["-o", "ExitOnForwardFailure=yes", "-R", &format!("127.0.0.1:{port}:{here}"), "--", host, &install])
        .spawn()
        .context("cannot run ssh")?;
    let ended = running.wait()?;
    // ssh's own exit code says nothing when the device restarts under it.
    let start = Instant::now();
    let mut restarted = false;
    while start.elapsed() < LIMIT {
        std::thread::sleep(Duration::from_secs(5));
        // Any login may be cut off by the restart.
        let Ok((now, status)) = status(ssh, host) else { continue };
        if now != before && !restarted {
            os_sys::say!("{host} has restarted; its health check decides now");
            restarted = true;
        }
        if status.pointer("/phase").and_then(Value::as_str) == Some("idle") {
            ensure!(restarted, refusal(&status, ended.code()));
            let last = status.pointer("/last").and_then(Value::as_str).unwrap_or_default().to_owned();
            // A release that does not stay is refused from then on, whoever decided that.
            let stays = status.get("refused") == earlier.get("refused");
            ensure!(stays, "{host} went back: {last}; os update log there says more");
            return Ok(format!("{host}: {last}"));
        }
    }
    bail!("{host} has not decided within {} minutes", LIMIT.as_secs() / 60)
}

fn refusal(status: &Value, code: Option<i32>) -> String {
    let last = status.pointer("/last").and_then(Value::as_str).filter(|last| !last.is_empty());
    format!("nothing was installed (exit code {}): {}", code.unwrap_or(-1), last.unwrap_or("the lines above say why"))
}

/// The boot, and what it says of updates; one login for both.
fn status(ssh: &Ssh, host: &str) -> Result<(String, Value)> {
    let text = ssh.read(host, &format!("{BOOT_ID}; os update status --json"))?;
    let (boot, status) = text.split_once('\n').context("no answer")?;
    Ok((boot.trim().to_owned(), serde_json::from_str(status)?))
}
