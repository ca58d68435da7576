//! Disks as a power cut leaves them: the writes of a [`Trace`], with those that were not flushed dropped, applied in
//! part, or torn in the middle. Each is asked what a device would do with it.
//!
//! A disk may write what is not flushed in any order and stop anywhere; a sector is written whole or not at all. That is
//! what the drivers and the filesystems of Linux are written for, so nothing worse is tried here.

use crate::harness::artifacts::Artifacts;
use crate::harness::deadline;
use crate::harness::fat::Fat;
use crate::harness::random::Random;
use crate::harness::release::Known;
use crate::harness::trace::{Kind, SECTOR, Trace};
use crate::harness::volume::{dump, extract, same};
use anyhow::{Context, Result, bail, ensure};
use os_boot::counters::{self, Counters};
use os_disk::table::Table;
use os_facts::Slot;
use os_init::storage::Check;
use os_slotmake::slot::FILES;
use os_update::state::{Phase, Store};
use os_update::step::{Event, step};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What is known of the disk before the first write.
#[derive(Debug)]
pub(crate) struct Crash<'a> {
    pub(crate) artifacts: &'a Artifacts,
    /// What may be in a slot.
    pub(crate) known: &'a [Known],
    /// For copies of partitions.
    pub(crate) work: &'a Path,
    /// From this entry on the device was settled: state and data hold what the owner put there, in these files.
    pub(crate) settled: usize,
    /// File on state, file on data, and what they begin with.
    pub(crate) kept: &'a [(&'static str, String)],
}

/// How the crashes went.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Disks that were looked at.
    pub(crate) disks: usize,
    /// What the device would start, and where its update stands, with how often.
    pub(crate) seen: BTreeMap<String, usize>,
    /// What went wrong: the first few.
    pub(crate) wrong: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} disks as a power cut leaves them:", self.disks)?;
        for (what, times) in &self.seen {
            writeln!(f, "{times:6}  {what}")?;
        }
        for wrong in &self.wrong {
            writeln!(f, " wrong  {wrong}")?;
        }
        Ok(())
    }
}

const MAX_WRONG: usize = 10;

impl Crash<'_> {
    /// Replays `trace` on `disk`, which is what it was before the first write, and cuts the power at `points` moments.
    /// Writes to the boot partition are few and decide most: half of the moments are among them.
    pub(crate) fn replay(&self, trace: &Trace, disk: &Path, points: usize, seed: u64) -> Result<Outcome> {
        let mut random = Random(seed);
        let cuts = self.choose(trace, points, &mut random)?;
        let file = File::options().read(true).write(true).open(disk)?;
        let mut outcome = Outcome::default();
        let mut durable = 0;
        for cut in cuts {
            deadline::check()?;
            // What was flushed before the cut stays whatever happens.
            let flushed = trace.entries.iter().take(cut).rposition(|e| e.kind == Kind::Flush).map_or(0, |at| at + 1);
            for entry in trace.entries.iter().take(flushed).skip(durable) {
                match entry.kind {
                    Kind::Write => file.write_all_at(&trace.data(entry)?, entry.start)?,
                    Kind::Discard => punch(&file, entry.start, entry.size)?,
                    Kind::Flush => {}
                }
            }
            durable = durable.max(flushed);
            let pending: Vec<_> =
                trace.entries.iter().take(cut).skip(flushed).filter(|e| e.kind == Kind::Write).collect();
            let mut undo = Vec::new();
            let fate = Fate::any(&mut random);
            for entry in &pending {
                let torn = match fate {
                    Fate::Dropped => break,
                    Fate::Kept => false,
                    Fate::InPart if random.below(2) == 0 => continue,
                    Fate::InPart => false,
                    Fate::Torn => true,
                };
                let bytes = trace.data(entry)?;
                let mut before = vec![0; bytes.len()];
                file.read_exact_at(&mut before, entry.start)?;
                undo.push((entry.start, before));
                if !torn {
                    file.write_all_at(&bytes, entry.start)?;
                    continue;
                }
                for (sector, part) in bytes.chunks(usize::try_from(SECTOR)?).enumerate() {
                    if random.below(2) == 0 {
                        file.write_all_at(part, entry.start + sector as u64 * SECTOR)?;
                    }
                }
            }
            outcome.disks += 1;
            match self.look(disk, cut >= self.settled, true) {
                Ok(seen) => *outcome.seen.entry(seen).or_default() += 1,
                Err(err) => {
                    let text = format!(
                        "power cut after request {cut} of {}, {} writes not flushed, {fate:?}: {err:#}",
                        trace.entries.len(),
                        pending.len()
                    );
                    outcome.wrong.push(text);
                    if outcome.wrong.len() >= MAX_WRONG {
                        break;
                    }
                }
            }
            for (start, before) in undo.iter().rev() {
                file.write_all_at(before, *start)?;
            }
        }
        Ok(outcome)
    }

    fn choose(&self, trace: &Trace, points: usize, random: &mut Random) -> Result<Vec<usize>> {
        let boot = self.artifacts.part("os-boot")?;
        let near: Vec<usize> = (trace.entries.iter().enumerate())
            .filter(|(_, e)| e.touches(boot.start, boot.size))
            .map(|(at, _)| at + 1)
            .collect();
        let mut cuts: Vec<usize> = Vec::new();
        for n in 0..points {
            let any = usize::try_from(random.below(trace.entries.len() as u64))?;
            let close = near.get(usize::try_from(random.below(near.len() as u64))?).copied();
            cuts.push(if n % 2 == 0 { close.unwrap_or(any) } else { any });
        }
        cuts.sort_unstable();
        Ok(cuts)
    }

    /// What a device does with the disk; an error is something that must not happen. `good`: what is on trial is a good
    /// release, and no power cut may make the device refuse it.
    pub(crate) fn look(&self, disk: &Path, settled: bool, good: bool) -> Result<String> {
        let mut file = File::open(disk)?;
        let table = Table::read(&mut file).context("no partition table is whole")?;
        let parts = table.partitions().context("the partition table cannot be read")?;
        for wanted in &self.artifacts.parts {
            let found = parts.iter().find(|p| p.name == wanted.name);
            let found = found.with_context(|| format!("there is no partition {} any more", wanted.name))?;
            ensure!(found.start == wanted.start, "{} is somewhere else", wanted.name);
        }
        let dir = self.work.join("counters");
        std::fs::create_dir_all(&dir)?;
        for name in [counters::FILE, counters::COPY] {
            std::fs::write(
                dir.join(name),
                self.boot_file(disk, &format!("{}/{name}", self.artifacts.loader_dir)).unwrap_or_default(),
            )?;
        }
        let mut counters = Counters::load(&dir)?;
        // Starts that were cut three times in a row; the rescue system gives the tries back.
        let rescue = !counters.give_back().is_empty();
        let slot = counters.next().context("the device has no slot to start")?;
        let version = self.whole(disk, &file, slot)?;
        // Before that, state and data are made anew where they are broken.
        let mut phase = "before the first boot was over".to_owned();
        if settled {
            let state = self.volume(&file, &parts, "os-state")?;
            let data = self.volume(&file, &parts, "os-data")?;
            for (volume, (name, content)) in [&state, &data].into_iter().zip(self.kept) {
                let found = dump(volume, name, &self.work.join("kept")).with_context(|| format!("{name} is lost"))?;
                ensure!(found.starts_with(content.as_bytes()), "{name} is damaged");
            }
            let dir = self.work.join("update");
            std::fs::create_dir_all(&dir)?;
            let text = dump(&state, "/os/update/state.json", &self.work.join("known")).unwrap_or_default();
            // Before the first check there is none.
            if text.is_empty() {
                let _ = std::fs::remove_file(dir.join("state.json"));
            } else {
                std::fs::write(dir.join("state.json"), &text)?;
            }
            let known = Store::at(&dir).load();
            ensure!(!known.lost, "the state of updates is damaged");
            let fate = match &known.phase {
                Phase::Trial { slot: tried, .. } if *tried != slot => Some(counters.fate(*tried)),
                _ => None,
            };
            let next = step(&known.phase, Event::Booted(slot, fate));
            if let Some((target, verdict)) = next.refuse
                && good
            {
                bail!("a power cut makes the device refuse {}: {}", target.version, verdict.reason);
            }
            phase = match next.phase {
                Phase::Idle => "nothing under way",
                Phase::Installing { .. } => bail!("an installation never ends"),
                Phase::Installed { .. } => "installed, not started",
                Phase::Trial { .. } => "on trial",
            }
            .to_owned();
        }
        let by = if rescue { RESCUE } else { "" };
        Ok(format!("{by}starts {version} from slot {slot}, {phase}"))
    }

    fn boot_file(&self, disk: &Path, name: &str) -> Result<Vec<u8>> {
        Fat::new(disk, self.artifacts.part("os-boot")?.start).read(name)
    }

    /// The release that is in a slot, all of it.
    fn whole(&self, disk: &Path, file: &File, slot: Slot) -> Result<&str> {
        let start = |name: &str| Ok::<_, anyhow::Error>(self.artifacts.part(name)?.start);
        let (kernel, root) = (start(&format!("os-kernel{slot}"))?, start(&format!("os-root{slot}"))?);
        let kernel = Fat::new(disk, kernel);
        'releases: for known in self.known {
            for name in FILES {
                let wanted = Fat::new(&known.kernel, 0).read(name)?;
                let found = kernel.read(name);
                if found.is_err() || found.is_ok_and(|found| found != wanted) {
                    continue 'releases;
                }
            }
            ensure!(same(file, root, &known.root)?, "slot {slot} has the kernel of {} and not its root", known.version);
            return Ok(&known.version);
        }
        bail!("slot {slot} is what the device starts, and it holds no whole kernel")
    }

    /// A copy of a partition after what every boot does to it.
    fn volume(&self, file: &File, parts: &[os_disk::table::Partition], name: &str) -> Result<PathBuf> {
        let part = parts.iter().find(|p| p.name == name).with_context(|| format!("no {name}"))?;
        let copy = self.work.join(name);
        extract(file, part.start, part.size, &copy)?;
        match os_init::storage::check(&copy) {
            Check::Broken => bail!("{name} cannot be mended"),
            _ => Ok(copy),
        }
    }
}

/// What [`Crash::look`] says first when the device would start its rescue system.
pub(crate) const RESCUE: &str = "by way of the rescue system ";

/// What becomes of writes that were not flushed.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Dropped,
    Kept,
    InPart,
    Torn,
}

impl Fate {
    fn any(random: &mut Random) -> Self {
        match random.below(4) {
            0 => Self::Dropped,
            1 => Self::Kept,
            2 => Self::InPart,
            _ => Self::Torn,
        }
    }
}

fn punch(file: &File, start: u64, size: u64) -> Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    Ok(fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, start, size)?)
}
