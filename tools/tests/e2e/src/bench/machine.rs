//! A machine that is measured, and what can be read of it from outside: QEMU's own processor time, what its disk was
//! asked for, and the guest's clock.

use super::parse::{self, Clock};
use super::results::Mode;
use anyhow::{Context, Result, bail, ensure};
use lab::qemu::{Accel, Machine};
use os_sys::cmd::Cmd;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// An instruction takes this many nanoseconds of the guest's clock when they are counted: 2 to the power of the shift.
pub(super) const INSTRUCTION_NS: f64 = 2.0;
const ICOUNT: &str = "shift=1,sleep=on";
/// Where the firmware of this machine puts the ACPI timer.
const PM_TIMER: &str = "i/w 0x608";

/// An SD card of the better kind: bytes and operations a second.
pub(super) const CARD: (u32, u32) = (20_000_000, 1000);

/// What the measurements are taken on.
pub(super) fn words(accel: Accel) -> Result<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model =
        cpu.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("unknown").trim_matches([' ', '\t', ':']);
    let cores = cpu.lines().filter(|l| l.starts_with("processor")).count();
    let qemu = Cmd::new("qemu-system-x86_64").arg("--version").read()?;
    let qemu = qemu.split_ascii_whitespace().nth(3).unwrap_or("of an unknown version");
    Ok(format!(
        "Host: {cores} × {model}. Guest: {} processor(s), 1 GiB, QEMU {qemu}, emulation {accel:?}.",
        accel.processors()
    ))
}

/// QEMU and the ways into it. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    qmp: Qmp,
    clock: Clock,
    ask: UnixStream,
    pub(super) started: Instant,
}

impl Running {
    /// Starts a machine; what its console says goes to `said` and into the file `console`.
    pub(super) fn start(
        machine: &Machine,
        mode: Mode,
        dir: &Path,
        console: &Path,
        said: Sender<Vec<u8>>,
    ) -> Result<Self> {
        let mut console = File::create(console)?;
        let (qmp, ask) = (dir.join("qmp"), dir.join("ask"));
        for socket in [&qmp, &ask] {
            let _ = std::fs::remove_file(socket);
        }
        let mut command = how(machine.command()?, mode)?;
        command
            .args(["-display", "none", "-no-reboot", "-serial", "stdio"])
            .arg("-chardev")
            .arg(format!("socket,id=ask,path={},server=on,wait=off", ask.display()))
            .args(["-serial", "chardev:ask", "-qmp"])
            .arg(format!("unix:{},server=on,wait=off", qmp.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(dir.join("qemu.log"))?);
        let started = Instant::now();
        let mut child = command.spawn().context("cannot start qemu-system-x86_64")?;
        let mut stdout = child.stdout.take().context("no console")?;
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(got @ 1..) = stdout.read(&mut buffer) {
                let text = buffer.get(..got).unwrap_or_default();
                if console.write_all(text).is_err() || said.send(text.to_vec()).is_err() {
                    return;
                }
            }
        });
        let connected = || -> Result<(Qmp, UnixStream)> { Ok((Qmp::connect(&qmp)?, connect(&ask)?)) }();
        match connected {
            Ok((qmp, ask)) => Ok(Self { child, qmp, clock: Clock::default(), ask, started }),
            Err(err) => {
                let _ = child.kill();
                let _ = child.wait();
                let log = std::fs::read_to_string(dir.join("qemu.log")).unwrap_or_default();
                Err(err.context(format!("QEMU did not start: {}", log.trim())))
            }
        }
    }

    /// Processor seconds of QEMU so far.
    pub(super) fn processor(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).context("QEMU has ended")?;
        parse::process_seconds(&stat)
    }

    /// Bytes and operations that the guest read from its disk so far.
    pub(super) fn reads(&mut self) -> Result<(u64, u64)> {
        parse::reads(&self.qmp.ask("query-blockstats", json!({}))?, "disk")
    }

    /// Seconds of the guest's clock since power-on. It must be looked at every few seconds.
    pub(super) fn clock(&mut self) -> Result<f64> {
        let answer = self.qmp.ask("human-monitor-command", json!({ "command-line": PM_TIMER }))?;
        if let Some(timer) = answer.as_str().and_then(parse::port) {
            self.clock.look(timer);
        }
        Ok(self.clock.seconds())
    }

    /// Asks the probe in the guest for something.
    pub(super) fn ask(&mut self, what: &str) -> Result<()> {
        writeln!(self.ask, "{what}").context("the guest's second serial port is gone")
    }

    pub(super) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Presses the power button.
    pub(super) fn power_button(&mut self) -> Result<()> {
        self.qmp.ask("system_powerdown", json!({})).map(drop)
    }

    /// Waits until the guest has turned the machine off.
    pub(super) fn wait_off(&mut self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if self.has_ended()? {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the machine is still on {} s after it was to turn itself off", limit.as_secs())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same command, run in that mode.
fn how(command: Command, mode: Mode) -> Result<Command> {
    let mut out = Command::new(command.get_program());
    let (mut single, threads) = (false, "tcg,thread=multi");
    for arg in command.get_args() {
        if mode == Mode::Counted && arg == threads {
            single = true;
            out.arg("tcg,thread=single");
        } else {
            out.arg(arg);
        }
    }
    match mode {
        Mode::Plain => {}
        Mode::Counted => {
            ensure!(
                single,
                "instructions are counted by software emulation alone, and '{threads}' is not in the command"
            );
            out.args(["-icount", ICOUNT]);
        }
        Mode::Card => {
            let (bytes, operations) = CARD;
            out.arg("-set").arg(format!("drive.disk.throttling.bps-total={bytes}"));
            out.arg("-set").arg(format!("drive.disk.throttling.iops-total={operations}"));
        }
    }
    Ok(out)
}

fn connect(socket: &PathBuf) -> Result<UnixStream> {
    let start = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(err) if start.elapsed() > Duration::from_secs(20) => {
                return Err(err).with_context(|| format!("cannot connect to {}", socket.display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// QEMU's monitor, connected once: a look at a milestone must not come late.
#[derive(Debug)]
struct Qmp {
    lines: BufReader<UnixStream>,
}

impl Qmp {
    fn connect(socket: &PathBuf) -> Result<Self> {
        let stream = connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut qmp = Self { lines: BufReader::new(stream) };
        qmp.line()?;
        qmp.ask("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        ensure!(self.lines.read_line(&mut line)? > 0, "QEMU has ended");
        Ok(serde_json::from_str(&line)?)
    }

    fn ask(&mut self, command: &str, arguments: Value) -> Result<Value> {
        writeln!(self.lines.get_mut(), "{}", json!({ "execute": command, "arguments": arguments }))?;
        loop {
            let mut answer = self.line()?;
            if let Some(error) = answer.get("error") {
                bail!("{command}: {error}");
            }
            // Events come in between.
            if let Some(found) = answer.get_mut("return") {
                return Ok(found.take());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(mode: Mode) -> Result<Vec<String>> {
        let mut command = Command::new("qemu");
        command.args(["-accel", "tcg,thread=multi", "-m", "1024"]);
        Ok(how(command, mode)?.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect())
    }

    #[test]
    fn a_mode_changes_what_it_must() {
        let plain = arguments(Mode::Plain).unwrap();
        assert_eq!(plain, ["-accel", "tcg,thread=multi", "-m", "1024"]);
        let counted = arguments(Mode::Counted).unwrap();
        assert!(counted.contains(&"tcg,thread=single".to_owned()) && counted.contains(&ICOUNT.to_owned()));
        assert!(arguments(Mode::Card).unwrap().contains(&"drive.disk.throttling.iops-total=1000".to_owned()));
        let mut hardware = Command::new("qemu");
        hardware.args(["-accel", "kvm"]);
        assert!(how(hardware, Mode::Counted).is_err());
    }
}
