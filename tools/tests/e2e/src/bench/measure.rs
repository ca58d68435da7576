//! One boot, watched from power-on until its last milestone.

use super::machine::{INSTRUCTION_NS, Running};
use super::parse;
use super::probe;
use super::results::{Boot, Host, Memory, Milestone, Mode, Sample, Start, System};
use super::visit::Visitor;
use crate::harness::vm::{CLOSED, SSH, free_ports};
use anyhow::{Context, Result, bail, ensure};
use lab::qemu::{Accel, Machine};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// Memory of the machine in MiB.
const MEMORY: u32 = 1024;
/// A boot that comes to nothing is given up after so many processor seconds, or after so long on the wall: a host that
/// others use, too, makes a boot longer and hardly dearer.
const PROCESSOR_LIMIT: f64 = 900.0;
const WALL_LIMIT: Duration = Duration::from_secs(3600);
/// How long a machine may take to turn itself off.
const OFF_LIMIT: Duration = Duration::from_secs(600);
/// How often the guest's clock is looked at: oftener than it wraps.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);
/// Between the first container's page and the look at memory.
const IDLE: Duration = Duration::from_secs(60);

/// What a boot ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// A clean power off: its disk starts once more.
    Off,
    /// Nothing.
    Cut,
}

/// A boot to be.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) system: System,
    pub(super) mode: Mode,
    pub(super) start: Start,
    /// Disk, changed by the boot.
    pub(super) disk: &'a Path,
    /// The firmware's variables, changed as well.
    pub(super) firmware_vars: &'a Path,
    /// Kernel settings for the guest, in the form of sysctl.d.
    pub(super) settings: &'a str,
    /// Where files of the machine may lie.
    pub(super) dir: &'a Path,
    pub(super) accel: Accel,
    pub(super) end: End,
}

/// A machine on its way, and what is known of it.
struct Watch<'a> {
    plan: &'a Plan<'a>,
    running: Running,
    console: String,
    said: Receiver<Vec<u8>>,
    visited: Receiver<Milestone>,
    milestones: BTreeMap<Milestone, Sample>,
    clock_seen: Instant,
}

/// Boots, measures every milestone of the system, and ends the machine.
pub(super) fn boot(plan: &Plan<'_>) -> Result<Boot> {
    let (mut watch, _visitor) = Watch::start(plan)?;
    let before = host_processors()?;
    let host = watch.through().and_then(|()| watch.host(before));
    let boot = host.and_then(|host| watch.result(host)).and_then(|boot| watch.end().map(|()| boot));
    watch.finish(boot)
}

/// The same, and then its memory after a while of idling.
pub(super) fn memory(plan: &Plan<'_>) -> Result<Memory> {
    let (mut watch, _visitor) = Watch::start(plan)?;
    let memory = watch.through().and_then(|()| watch.memory());
    watch.finish(memory)
}

impl<'a> Watch<'a> {
    fn start(plan: &'a Plan<'a>) -> Result<(Self, Option<Visitor>)> {
        let [ssh, closed, web] = free_ports()?;
        let machine = Machine {
            arch: lab::arch::Arch::X86_64,
            services: Vec::new(),
            disk: plan.disk.to_owned(),
            format: "qcow2",
            firmware_vars: plan.firmware_vars.to_owned(),
            memory: MEMORY,
            cpus: if plan.mode == Mode::Counted { 1 } else { plan.accel.processors() },
            forwards: vec![(ssh, if plan.system == System::Debian { 22 } else { SSH }), (closed, CLOSED), (web, 80)],
            isolated: true,
            // What reaches the medium says more of the host's disk, which others use, too.
            sync: false,
            trace: None,
            accel: if plan.mode == Mode::Counted { Accel::Tcg } else { plan.accel },
            extra: probe::arguments(plan.system, plan.settings, plan.dir)?,
        };
        let (send, said) = mpsc::channel();
        let running = Running::start(&machine, plan.mode, plan.dir, &console_log(plan), send)?;
        let (say, visited) = mpsc::channel();
        let visitor =
            plan.system.milestones().contains(&Milestone::Page).then(|| Visitor::start(ssh, closed, web, &say));
        Ok((
            Self {
                plan,
                running,
                console: String::new(),
                said,
                visited,
                milestones: BTreeMap::new(),
                clock_seen: Instant::now(),
            },
            visitor,
        ))
    }

    /// Until every milestone was seen.
    fn through(&mut self) -> Result<()> {
        while self.plan.system.milestones().iter().any(|m| !self.milestones.contains_key(m)) {
            self.look(Duration::from_millis(100))?;
            let seen = self.visited.try_iter().collect::<Vec<_>>().into_iter().chain(said(&self.console));
            for milestone in seen {
                if self.plan.system.milestones().contains(&milestone) && !self.milestones.contains_key(&milestone) {
                    let sample = self.sample()?;
                    self.milestones.insert(milestone, sample);
                }
            }
            let open = || {
                let open = self.plan.system.milestones().iter().filter(|m| !self.milestones.contains_key(m));
                open.map(|m| m.words()).collect::<Vec<_>>().join(", ")
            };
            ensure!(self.running.started.elapsed() < WALL_LIMIT, "given up after {WALL_LIMIT:?}; not seen: {}", open());
            ensure!(!self.running.has_ended()?, "the machine ended; not seen: {}", open());
            let processor = self.running.processor()?;
            ensure!(
                processor < PROCESSOR_LIMIT,
                "given up after {processor:.0} processor seconds; not seen: {}",
                open()
            );
        }
        Ok(())
    }

    /// Reads the console for a while, and returns as soon as it says something.
    fn look(&mut self, wait: Duration) -> Result<()> {
        if let Ok(bytes) = self.said.recv_timeout(wait) {
            self.console.push_str(&String::from_utf8_lossy(&bytes));
        }
        if self.plan.mode == Mode::Counted && self.clock_seen.elapsed() > CLOCK_INTERVAL {
            self.running.clock()?;
            self.clock_seen = Instant::now();
        }
        Ok(())
    }

    fn sample(&mut self) -> Result<Sample> {
        let wall = self.running.started.elapsed().as_secs_f64();
        let processor = self.running.processor()?;
        let counted = self.plan.mode == Mode::Counted;
        let clock = if counted { Some(self.running.clock()?) } else { None };
        let (read, operations) = self.running.reads()?;
        // What the guest's processor waited is no work; only the guest knows it.
        let instructions = match clock {
            Some(clock) => Some((clock - self.idle()?) * 1e9 / INSTRUCTION_NS),
            None => None,
        };
        Ok(Sample { wall, processor, read, operations, instructions })
    }

    /// Seconds that the guest's processor has been idle.
    fn idle(&mut self) -> Result<f64> {
        match self.plan.system {
            // Nothing runs yet that could idle.
            System::Firmware => return Ok(0.0),
            // Says it by itself.
            System::Floor | System::FloorVerity => {}
            System::Ours | System::Debian => self.running.ask(probe::ASK_IDLE)?,
        }
        let from = self.console.len();
        let line = match self.plan.system {
            System::Ours | System::Debian => self.wait_said(probe::IDLE, from)?,
            _ => self.wait_said(probe::IDLE, 0)?,
        };
        Ok(parse::processors(&line)?.idle)
    }

    /// What follows a mark on the console after so many bytes of it.
    fn wait_said(&mut self, mark: &str, from: usize) -> Result<String> {
        let start = Instant::now();
        loop {
            if let Some(found) = self.console.get(from..).and_then(|text| parse::said(text, mark)) {
                return Ok(found.to_owned());
            }
            ensure!(start.elapsed() < Duration::from_secs(300), "the guest did not say {mark}");
            self.look(Duration::from_millis(100))?;
        }
    }

    /// What others did on the host since `before`.
    fn host(&mut self, before: parse::Processors) -> Result<Host> {
        let now = host_processors()?;
        let wall = self.running.started.elapsed().as_secs_f64();
        let others = (now.busy - before.busy - self.running.processor()?) / wall;
        let load = std::fs::read_to_string("/proc/loadavg")?;
        Ok(Host { others: others.max(0.0), load: parse::load(&load).context("/proc/loadavg says no load")? })
    }

    fn result(&self, host: Host) -> Result<Boot> {
        let health = parse::said(&self.console, probe::HEALTHY).map(str::to_owned);
        Ok(Boot {
            system: self.plan.system,
            mode: self.plan.mode,
            start: self.plan.start,
            milestones: self.milestones.clone(),
            host,
            health,
        })
    }

    fn memory(&mut self) -> Result<Memory> {
        let page = self.milestones.get(&Milestone::Page).context("this system serves no page")?.wall;
        while self.running.started.elapsed().as_secs_f64() < page + IDLE.as_secs_f64() {
            self.look(Duration::from_millis(500))?;
        }
        let from = self.console.len();
        self.running.ask(probe::ASK_MEMORY)?;
        self.wait_said(probe::END, from)?;
        let text = self.console.get(from..).unwrap_or_default();
        parse::memory(text)
    }

    fn end(&mut self) -> Result<()> {
        if self.plan.end == End::Cut {
            return Ok(());
        }
        match self.plan.system {
            System::Ours | System::Debian => self.running.power_button()?,
            // Its first process does it without being asked.
            System::Floor | System::FloorVerity => {}
            System::Firmware => bail!("firmware has no clean power off"),
        }
        self.running.wait_off(OFF_LIMIT)
    }

    /// Says the end of the console when something went wrong.
    fn finish<T>(&mut self, result: Result<T>) -> Result<T> {
        while let Ok(bytes) = self.said.try_recv() {
            self.console.push_str(&String::from_utf8_lossy(&bytes));
        }
        result.with_context(|| {
            let lines: Vec<&str> = self.console.lines().collect();
            let end = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join(" | ");
            format!("{}: see {}; its end: {end}", self.plan.system.name(), console_log(self.plan).display())
        })
    }
}

fn console_log(plan: &Plan<'_>) -> PathBuf {
    plan.dir.join(format!("{}-console.log", plan.system.name()))
}

/// The milestones that a console speaks of.
fn said(console: &str) -> Vec<Milestone> {
    let mut out = Vec::new();
    // Either the stub that the firmware starts, or the kernel itself.
    if console.contains("EFI stub: ") || console.contains("Linux version ") {
        out.push(Milestone::Kernel);
    }
    for (mark, milestone) in [(probe::DOCKER, Milestone::Docker), (probe::HEALTHY, Milestone::Healthy)] {
        if parse::said(console, mark).is_some() {
            out.push(milestone);
        }
    }
    out
}

fn host_processors() -> Result<parse::Processors> {
    parse::processors(std::fs::read_to_string("/proc/stat")?.lines().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_speaks_of_milestones() {
        assert_eq!(said("BdsDxe: starting\r\n"), []);
        assert_eq!(said("EFI stub: Loaded initrd\r\n"), [Milestone::Kernel]);
        assert_eq!(said("BENCH-HEALTHY running\r\nBENCH-DOCKER\r\n"), [Milestone::Docker, Milestone::Healthy]);
        assert_eq!(said("BENCH-DOCKER"), []);
    }
}
