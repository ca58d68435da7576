//! A running machine and the ways into it: [`ssh`] are logins, [`qmp`] is what QEMU itself is asked, [`knock`] finds out
//! that somebody is in.

pub(crate) mod knock;
mod qmp;
mod ssh;

use crate::harness::deadline;
use crate::harness::disk::Disk;
use crate::harness::trace::Trace;
use anyhow::{Context, Result, anyhow, bail, ensure};
use lab::qemu::{Accel, Machine};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Says which boot this is.
pub(crate) const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

/// How long a boot may take.
pub(crate) const BOOT_LIMIT: Duration = Duration::from_secs(240);

/// Every limit is for software emulation on a host with nothing else to do, and is multiplied by this: a host that
/// others use, too, is no reason to fail.
pub(crate) const PATIENCE: u32 = 4;

/// What a machine is started with.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    pub(crate) arch: lab::arch::Arch,
    pub(crate) disk: &'a Disk,
    pub(crate) dir: &'a Path,
    pub(crate) key: &'a Path,
    pub(crate) accel: Accel,
    /// Memory, in MiB.
    pub(crate) memory: u32,
    /// Port of the guest for [`Vm::page`], if it has one.
    pub(crate) page: Option<u16>,
    /// Further arguments for QEMU.
    pub(crate) extra: Vec<String>,
    /// Web servers of this machine: where the guest finds each, and its port here.
    pub(crate) web: Vec<(&'static str, u16)>,
    /// Keep a log of every write to the disk; see [`Vm::traces`].
    pub(crate) trace: bool,
    /// What a restart of the guest does.
    pub(crate) restart: Restart,
    /// Goes on where [`Vm::freeze`] left a machine, from this file, with the firmware's variables that are there.
    pub(crate) frozen: Option<&'a Path>,
}

/// What a restart of the guest does to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    /// It ends.
    Ends,
    /// It starts anew.
    Restarts,
}

/// Where the guest finds the web server of this machine that is honest.
pub(crate) const WEB: &str = "10.0.2.100";
/// And one that is not.
pub(crate) const LIAR: &str = "10.0.2.101";

/// Port of ssh on every device.
pub(crate) const SSH: u16 = 22222;
/// And one behind which nobody listens (RFC 863); see [`knock`].
pub(crate) const CLOSED: u16 = 9;

/// Options of ssh for a device that is made anew for every run.
const ANY_HOST: [&str; 3] = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"];

/// A running machine. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Vm {
    machine: Machine,
    traces: Vec<PathBuf>,
    restart: Restart,
    dir: PathBuf,
    child: Child,
    console: Arc<Mutex<String>>,
    /// What it said in the boots before this one.
    consoles: String,
    qmp: PathBuf,
    key: PathBuf,
    ssh_port: u16,
    closed_port: u16,
    page_port: u16,
    /// One connection that the others go through: under emulation every handshake costs seconds.
    master: Option<Child>,
    control: PathBuf,
    /// How often it restarted since it was started.
    restarts: u32,
    /// When it was started, or restarted last.
    pub(crate) started: Instant,
}

impl Vm {
    pub(crate) fn start(options: &Start<'_>) -> Result<Self> {
        let [ssh_port, closed_port, page_port] = free_ports()?;
        let firmware_vars = Self::firmware_vars(options.dir);
        let mut extra = options.extra.clone();
        if let Some(frozen) = options.frozen {
            extra.extend(["-incoming".to_owned(), format!("exec:cat {}", frozen.display())]);
        } else if !firmware_vars.exists() {
            lab::qemu::firmware_vars(options.arch, &firmware_vars)?;
        }
        let qmp = options.dir.join("qmp");
        let own = std::env::current_exe()?;
        let mut traces = Vec::new();
        let machine = Machine {
            arch: options.arch,
            disk: options.disk.path.clone(),
            format: "raw",
            firmware_vars,
            memory: options.memory,
            cpus: options.accel.processors(),
            forwards: [(ssh_port, SSH), (closed_port, CLOSED)]
                .into_iter()
                .chain(options.page.map(|port| (page_port, port)))
                .collect(),
            // No test may need the internet, and the device must not either.
            isolated: true,
            services: (options.web.iter())
                .map(|(address, port)| (format!("{address}:80"), format!("{} pipe {port}", own.display())))
                .collect(),
            // The plug is pulled by ending QEMU: what it gave to the host's page cache is on the disk then.
            sync: false,
            trace: options.trace.then(|| new_trace(options.dir, &mut traces)).transpose()?,
            accel: options.accel,
            extra,
        };
        let console = Arc::new(Mutex::new(String::new()));
        let child = spawn(&machine, options.dir, &console)?;
        let key = options.key.to_owned();
        let control = options.dir.join(format!("ssh-{ssh_port}"));
        let (dir, started) = (options.dir.to_owned(), Instant::now());
        let mut vm = Self {
            machine,
            traces,
            restart: options.restart,
            dir,
            child,
            console,
            consoles: String::new(),
            qmp,
            key,
            ssh_port,
            closed_port,
            page_port,
            master: None,
            control,
            restarts: 0,
            started,
        };
        if options.frozen.is_some() {
            vm.thaw()?;
        }
        Ok(vm)
    }

    /// The variables of the firmware, which a machine that is started in `dir` finds as the last one left them.
    pub(crate) fn firmware_vars(dir: &Path) -> PathBuf {
        dir.join("firmware-vars.fd")
    }

    fn thaw(&mut self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(100));
            if self.qmp("query-status").is_ok_and(|s| s["return"]["status"] == "paused") {
                self.qmp("cont")?;
                // What follows when the guest restarts is an ordinary start.
                if let Some(at) = self.machine.extra.iter().position(|a| a == "-incoming") {
                    self.machine.extra.truncate(at);
                }
                return Ok(());
            }
            self.alive()?;
        }
        bail!("the frozen machine did not go on")
    }

    /// Stops the machine and keeps its memory in a file; its disk is then what the memory needs.
    pub(crate) fn freeze(&mut self, to: &Path) -> Result<()> {
        self.forget_connection();
        self.qmp("stop")?;
        self.qmp_with("migrate", serde_json::json!({ "uri": format!("exec:cat > {}", to.display()) }))?;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(120) {
            let answer = self.qmp("query-migrate")?;
            match answer["return"]["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed") => bail!("the machine cannot be frozen: {answer}"),
                _ => std::thread::sleep(Duration::from_millis(200)),
            }
        }
        bail!("the machine was not frozen in time")
    }

    /// Lets a machine that was frozen go on by itself.
    pub(crate) fn go_on(&mut self) -> Result<()> {
        self.qmp("cont")?;
        self.connect(BOOT_LIMIT)
    }

    /// Lets it run for a while, through restarts.
    pub(crate) fn watch(&mut self, time: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < time {
            self.alive()?;
            std::thread::sleep((time.saturating_sub(start.elapsed())).min(Duration::from_millis(100)));
        }
        Ok(())
    }

    /// Waits until the machine restarts, without looking into it.
    pub(crate) fn wait_next_start(&mut self, limit: Duration) -> Result<()> {
        let (start, limit, before) = (Instant::now(), limit * PATIENCE, self.restarts);
        while self.restarts == before {
            ensure!(start.elapsed() < limit, "no restart in {} s", limit.as_secs());
            self.watch(Duration::from_millis(200))?;
        }
        Ok(())
    }

    /// Waits until the machine has ended by itself.
    pub(crate) fn wait_end(&mut self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        let limit = limit * PATIENCE;
        while start.elapsed() < limit {
            if self.child.try_wait()?.is_some() {
                deadline::ended(self.child.id());
                return Ok(());
            }
            deadline::check()?;
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the machine is still on after {} s; the end of its console: {}", limit.as_secs(), tail(&self.console()))
    }

    /// Does something that lasts through restarts of the machine, on a thread of its own.
    pub(crate) fn through_restarts<T: Send>(&mut self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.forget_connection();
        let done = std::thread::scope(|scope| {
            let work = scope.spawn(work);
            while !work.is_finished() {
                self.alive()?;
                std::thread::sleep(Duration::from_millis(200));
            }
            work.join().map_err(|_| anyhow!("it panicked"))?
        })?;
        self.connect(BOOT_LIMIT)?;
        Ok(done)
    }

    /// How a workstation logs in.
    pub(crate) fn login(&self) -> osctl::device::Ssh {
        osctl::device::Ssh {
            port: self.ssh_port,
            identity: Some(self.key.clone()),
            options: ANY_HOST.map(str::to_owned).into(),
        }
    }

    /// Logs of what was written to the disk, one for each start of the machine.
    pub(crate) fn traces(&self) -> &[PathBuf] {
        &self.traces
    }

    /// Deletes these logs, and keeps none of what is written after the next restart: a log is as large as all that is
    /// written.
    pub(crate) fn end_traces(&mut self) {
        self.machine.trace = None;
        // The machine goes on writing to the last one, which takes its space with it when it ends.
        for path in self.traces.drain(..) {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Everything the console said so far.
    pub(crate) fn console(&self) -> String {
        self.console.lock().map(|c| c.clone()).unwrap_or_default()
    }

    /// The same, with all that it said before its restarts.
    pub(crate) fn consoles(&self) -> String {
        self.consoles.clone() + &self.console()
    }

    /// Waits until the console says something.
    pub(crate) fn wait_console(&mut self, text: &str, limit: Duration) -> Result<()> {
        let (start, limit) = (Instant::now(), limit * PATIENCE);
        while start.elapsed() < limit {
            if self.console().contains(text) {
                return Ok(());
            }
            self.alive()?;
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the console did not say '{text}' in {} s", limit.as_secs())
    }

    /// Waits a while, or until the machine restarts.
    fn pause(&mut self, seconds: u64) -> Result<()> {
        let (start, before) = (Instant::now(), self.restarts);
        while start.elapsed() < Duration::from_secs(seconds) && self.restarts == before {
            self.alive()?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn alive(&mut self) -> Result<()> {
        deadline::check()?;
        if let Some(status) = self.child.try_wait()? {
            deadline::ended(self.child.id());
            // UEFI in QEMU does not always come through a warm reset, so a restart is a machine of its own.
            if self.restart == Restart::Restarts {
                if let Ok(mut text) = self.console.lock() {
                    self.consoles.push_str(&std::mem::take(&mut *text));
                }
                if self.machine.trace.is_some() {
                    self.machine.trace = Some(new_trace(&self.dir, &mut self.traces)?);
                }
                self.child = spawn(&self.machine, &self.dir, &self.console)?;
                self.restarts += 1;
                self.started = Instant::now();
                return Ok(());
            }
            let said = std::fs::read_to_string(self.dir.join("qemu.log")).unwrap_or_default();
            bail!("the machine ended ({status}) {}; the end of its console: {}", said.trim(), tail(&self.console()));
        }
        Ok(())
    }
    /// Gets a page from the port of [`Start::page`].
    pub(crate) fn page(&self) -> Result<String> {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.page_port))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(b"GET / HTTP/1.0\r\nHost: device\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Presses the power button and waits until the machine is off.
    pub(crate) fn power_off(mut self) -> Result<()> {
        self.restart = Restart::Ends;
        self.qmp("system_powerdown")?;
        self.wait_end(Duration::from_secs(90)).context("the power button was pressed")
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.forget_connection();
        let _ = self.child.kill();
        let _ = self.child.wait();
        deadline::ended(self.child.id());
    }
}

fn new_trace(dir: &Path, traces: &mut Vec<PathBuf>) -> Result<PathBuf> {
    let path = dir.join(format!("writes-{}", traces.len()));
    Trace::create(&path)?;
    traces.push(path.clone());
    Ok(path)
}

fn spawn(machine: &Machine, dir: &Path, console: &Arc<Mutex<String>>) -> Result<Child> {
    let qmp = dir.join("qmp");
    let _ = std::fs::remove_file(&qmp);
    let log = std::fs::File::create(dir.join("qemu.log"))?;
    let mut child = machine
        .command()?
        .args(["-display", "none", "-serial", "stdio", "-no-reboot", "-qmp"])
        .arg(format!("unix:{},server=on,wait=off", qmp.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    deadline::started(child.id());
    let stdout = child.stdout.take().context("no console")?;
    let record = std::fs::File::create(dir.join("console.log"))?;
    std::thread::spawn({
        let console = Arc::clone(console);
        move || read_console(stdout, &console, record)
    });
    Ok(child)
}

/// Keeps what a console says, for those who wait and in a file.
pub(crate) fn read_console(mut from: impl Read, console: &Mutex<String>, mut record: std::fs::File) {
    let mut buffer = [0; 4096];
    while let Ok(got @ 1..) = from.read(&mut buffer) {
        let bytes = buffer.get(..got).unwrap_or_default();
        let _ = record.write_all(bytes);
        if let Ok(mut text) = console.lock() {
            text.push_str(&String::from_utf8_lossy(bytes));
        }
    }
}

/// Ports that nobody listens on, none of them twice: all are held until the last one is there.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0"));
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(held.iter()) {
        let listener = listener.as_ref().map_err(|err| anyhow!("no port is free: {err}"))?;
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

/// The last lines of a text.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(12)).copied().collect::<Vec<_>>().join(" | ")
}
