//! `lab run`: a virtual machine with the image, on this terminal.

use crate::arch::Arch;
use crate::image::{self, wishes::Wishes};
use crate::qemu::{self, Machine};
use crate::repo::Repo;
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// What the machine is like.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// production, development or standalone
    #[arg(long, default_value = "development", value_parser = image::VARIANTS.to_vec())]
    pub variant: String,
    /// Rebuild the image first, with the options of the last build
    #[arg(long)]
    pub build: bool,
    /// Memory in MiB
    #[arg(long, default_value_t = 1024)]
    pub memory: u32,
    /// Number of CPUs [default: 2, or 1 where the emulator is not safe with more]
    #[arg(long)]
    pub cpus: Option<u32>,
    /// Size of the disk in GiB; the data partition grows into it
    #[arg(long, default_value_t = 8)]
    pub disk: u64,
    /// Host port forwarded to SSH in the guest
    #[arg(long, default_value_t = 22222)]
    pub ssh_port: u16,
    /// Host port forwarded to port 80 in the guest
    #[arg(long, default_value_t = 8080)]
    pub web_port: u16,
    /// Further host port and the guest port it is forwarded to, such as 2375:2375; may be given more than once
    #[arg(long, value_name = "PORT:PORT", value_parser = forward)]
    pub forward: Vec<(u16, u16)>,
    /// Start from the image again, discarding the machine's state
    #[arg(long)]
    pub fresh: bool,
    /// Emulate in software even if hardware virtualisation works
    #[arg(long)]
    pub tcg: bool,
    /// Additional arguments for QEMU
    #[arg(last = true)]
    pub qemu: Vec<String>,
}

fn forward(text: &str) -> Result<(u16, u16), String> {
    let ports = text.split_once(':').and_then(|(host, guest)| Some((host.parse().ok()?, guest.parse().ok()?)));
    ports.ok_or_else(|| "allowed is the port of this machine, a colon, and the port in the guest".to_owned())
}

/// Starts the machine and stays until it is off.
///
/// # Errors
/// When there is no image, the machine runs already, or its disk stands on another image.
pub fn run(mut repo: Repo, options: &Options) -> Result<ExitCode> {
    if options.build {
        let (build, taken) = Wishes::again(&mut repo, &options.variant);
        if !taken.is_empty() {
            os_sys::say!("As the image was built before: {}", taken.join(" "));
        }
        image::build(&repo, &build)?;
    }
    let image = repo.image(&options.variant);
    ensure!(image.exists(), "there is no {}; make image V={} builds it", image.display(), options.variant);
    let dir = repo.of_arch("run").join(&options.variant);
    std::fs::create_dir_all(&dir)?;
    let lock = File::create(dir.join("lock"))?;
    let login = login(&repo, options.ssh_port, &dir);
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("this machine runs already, in another terminal. Log in with\n  {login}");
    }
    let (disk, firmware_vars) = prepare(repo.arch, &image, &dir, options)?;
    let accel = if options.tcg { qemu::Accel::Tcg } else { qemu::accel(&repo, &options.variant)? };
    let mut forwards = vec![(options.ssh_port, 22222), (options.web_port, 80)];
    forwards.extend(&options.forward);
    let machine = Machine {
        arch: repo.arch,
        disk,
        format: "qcow2",
        firmware_vars,
        memory: options.memory,
        cpus: options.cpus.unwrap_or_else(|| accel.processors()),
        forwards,
        isolated: false,
        services: Vec::new(),
        sync: true,
        trace: None,
        accel,
        extra: options.qemu.clone(),
    };
    let hint =
        format!("Leave with Ctrl-A X. From another terminal:\n  {login}\n  http://localhost:{}/\n", options.web_port);
    os_sys::say!("{}", hint.trim_end());
    if accel == qemu::Accel::Tcg {
        os_sys::say!("No usable hardware virtualisation: the machine is emulated, a boot takes about a minute.");
    }
    let mut command = machine.command()?;
    command.args(["-display", "none", "-serial", "mon:stdio"]).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| {
        format!("cannot start {}; the tools tree has it (without --host-tools)", qemu::program(repo.arch))
    })?;
    let console = child.stdout.take().context("no console from QEMU")?;
    show(console, &hint);
    Ok(if child.wait()?.success() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// How to log in: the host key of a machine is its own, and changes when it is made anew.
fn login(repo: &Repo, port: u16, dir: &Path) -> String {
    format!(
        "ssh -i {}/keys/ssh_ed25519 -p {port} -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={}/known_hosts root@localhost",
        repo.build.display(),
        dir.display()
    )
}

/// The machine's disk, and the variables of its firmware.
fn prepare(arch: Arch, image: &Path, dir: &Path, options: &Options) -> Result<(PathBuf, PathBuf)> {
    let (disk, firmware_vars) = (dir.join("disk.qcow2"), dir.join("firmware-vars.fd"));
    // The disk holds what differs from the image; over another one it would be neither.
    let (below, identity) = (dir.join("image"), qemu::identity(image)?);
    if disk.exists() && !options.fresh {
        ensure!(
            std::fs::read_to_string(&below).is_ok_and(|kept| kept == identity),
            "{} was built anew after this machine was first started, and its disk stands on the one before. Throw away the disk and \
             all that was done on it with --fresh (make run RUNFLAGS=--fresh); or keep it by building the former image again, and \
             update it with make bundle and os update install",
            image.display()
        );
        return Ok((disk, firmware_vars));
    }
    for stale in [&disk, &dir.join("known_hosts")] {
        let _ = std::fs::remove_file(stale);
    }
    std::fs::write(&below, &identity)?;
    qemu::overlay(image, &disk, options.disk << 30)?;
    qemu::firmware_vars(arch, &firmware_vars)?;
    Ok((disk, firmware_vars))
}

/// How long nothing may come from a machine that starts before it is said that it still does.
const SILENCE: Duration = Duration::from_secs(10);
/// When a console says this, the machine is up.
const UP: &[u8] = b"login";

/// Shows the console. Until the machine is up, what would clear the screen is left out, life is shown where nothing comes,
/// and then how to log in is said again: by that time it has gone from the screen.
fn show(mut console: impl Read + Send + 'static, hint: &str) {
    let (send, pieces) = mpsc::channel::<Vec<u8>>();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(got @ 1..) = console.read(&mut buffer) {
            if send.send(buffer.get(..got).unwrap_or_default().to_vec()).is_err() {
                return;
            }
        }
    });
    let say = |text: &[u8]| {
        let mut out = std::io::stdout().lock();
        // Without a terminal the machine goes on.
        let _ = out.write_all(text).and_then(|()| out.flush());
    };
    let (start, mut screen) = (Instant::now(), Screen::default());
    while !screen.is_up {
        match pieces.recv_timeout(SILENCE) {
            Ok(piece) => say(&screen.without_clearing(&piece)),
            Err(RecvTimeoutError::Timeout) => {
                say(format!("\r\x1b[Kstarting, {} s", start.elapsed().as_secs()).as_bytes());
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
    say(format!("\r\n{}", hint.replace('\n', "\r\n")).as_bytes());
    pieces.iter().for_each(|piece| say(&piece));
}

/// What a machine that starts has said.
#[derive(Debug, Default)]
struct Screen {
    /// An escape sequence of which the end has not come.
    begun: Vec<u8>,
    /// The end of what came, to find [`UP`] in.
    last: Vec<u8>,
    is_up: bool,
}

impl Screen {
    /// The same without what moves the cursor or clears the screen (ECMA-48, control sequences); colours stay.
    fn without_clearing(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        for byte in piece {
            if self.begun.is_empty() && *byte != 0x1b {
                text.push(*byte);
                continue;
            }
            self.begun.push(*byte);
            let ended = match self.begun.as_slice() {
                [_] => false,
                [_, b'['] => false,
                [_, b'[', .., end] => (0x40..=0x7e).contains(end),
                _ => true,
            };
            if ended {
                let sequence = std::mem::take(&mut self.begun);
                if sequence.ends_with(b"m") && sequence.get(1) == Some(&b'[') {
                    text.extend(sequence);
                }
            }
        }
        self.last.extend(&text);
        self.is_up |= self.last.windows(UP.len()).any(|seen| seen == UP);
        self.last.drain(..self.last.len().saturating_sub(UP.len()));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_does_not_clear_what_was_said_before() {
        let mut screen = Screen::default();
        let mut shown = Vec::new();
        for piece in [&b"BdsDxe\x1b[2J\x1b[01;0"[..], b"1Hloading \x1b[0;31mred\x1b", b"[=3h\x1bcend\r\nlog"] {
            shown.extend(screen.without_clearing(piece));
        }
        assert_eq!(String::from_utf8_lossy(&shown), "BdsDxeloading \x1b[0;31mredend\r\nlog");
        assert!(!screen.is_up);
        screen.without_clearing(b"in: ");
        assert!(screen.is_up);
    }

    #[test]
    fn ports_are_two_numbers() {
        assert_eq!(forward("2375:80"), Ok((2375, 80)));
        for wrong in ["", "80", "80:", "a:b", "1:70000", "1:2:3"] {
            assert!(forward(wrong).is_err(), "{wrong}");
        }
    }
}
