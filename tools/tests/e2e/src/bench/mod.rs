//! Measures what `docs/benchmarks.md` says, and writes it.
//!
//! - [`machine`] is a virtual machine that is measured, [`measure`] one boot of it, [`probe`] and [`visit`] look at it from
//!   inside and from outside
//! - [`debian`] and [`floor`] are the systems beside ours
//! - [`sizes`] are sizes and build times
//! - [`deltas`] are the bytes of an update, [`installs`] its installation on a device
//! - [`parse`] and [`stats`] make numbers of what was said, [`results`] are the numbers, [`goals`] those to reach,
//!   [`report`] is the document

mod debian;
mod deltas;
mod floor;
mod goals;
mod installs;
mod machine;
mod measure;
mod parse;
mod probe;
mod report;
mod results;
mod sizes;
mod stats;
mod visit;

pub(crate) use deltas::{filesystems, section as deltas};
pub(crate) use installs::section as installs;

use anyhow::Result;
use lab::qemu::{self, Accel};
use lab::repo::Repo;
use measure::{End, Plan};
use results::{Boot, Idle, Idler, Memory, Mode, Results, Start, System};
use std::path::{Path, PathBuf};

const VARIANT: &str = "development";
/// Size of every disk.
const DISK: u64 = 6 << 30;

/// What to measure. Without any of these it is everything, and `docs/benchmarks.md` is written.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Only this section
    #[arg(long)]
    only: Option<Section>,
    /// Number of boots of each system
    #[arg(long, default_value_t = TURNS, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
    /// Boot these systems only
    #[arg(long, value_delimiter = ',')]
    systems: Vec<System>,
    /// Boot in these modes only
    #[arg(long, value_delimiter = ',')]
    modes: Vec<Mode>,
    /// Disk image to measure instead of the built one
    #[arg(long)]
    image: Option<PathBuf>,
}

const TURNS: u32 = 3;

/// A section of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Section {
    /// Sizes and build times
    Sizes,
    /// Boots
    Boot,
    /// Memory of an idle system
    Memory,
    /// Updates: their bytes, and their installation on a device
    Updates,
}

impl Options {
    fn wants(&self, section: Section) -> bool {
        self.only.is_none_or(|only| only == section)
    }

    fn everything(&self) -> bool {
        self.only.is_none()
            && self.systems.is_empty()
            && self.modes.is_empty()
            && self.image.is_none()
            && self.turns == TURNS
    }

    fn system(&self, system: System) -> bool {
        self.systems.is_empty() || self.systems.contains(&system)
    }
}

pub(crate) fn run(repo: &Repo, options: &Options) -> Result<()> {
    let dir = repo.build.join("bench");
    std::fs::create_dir_all(&dir)?;
    let image = options.image.clone().unwrap_or_else(|| repo.image(VARIANT));
    let bench = Bench { repo, dir: &dir, image: &image, accel: qemu::accel(repo, VARIANT)? };
    let mut results = Results {
        machine: machine::words(bench.accel)?,
        sizes: Vec::new(),
        boots: Vec::new(),
        same_kernel: None,
        idle: Vec::new(),
        updates: String::new(),
    };
    if options.wants(Section::Sizes) {
        results.sizes = sizes::rows(repo)?;
    }
    if options.wants(Section::Boot) {
        bench.boots(options, &mut results)?;
    }
    if options.wants(Section::Memory) {
        bench.memory(options, &mut results)?;
    }
    if options.wants(Section::Updates) {
        results.updates = deltas(repo)?;
        if deltas::old_mirror().is_some() {
            results.updates.push_str(&installs(repo)?);
        }
    }
    let name = if options.everything() { "results.json" } else { "results-part.json" };
    std::fs::write(dir.join(name), serde_json::to_vec_pretty(&results)?)?;
    let text = report::document(&results);
    println!("\n{text}\nIn numbers: {}", dir.join(name).display());
    if options.everything() {
        os_sys::files::write_if_changed(&repo.root.join("docs/benchmarks.md"), text.as_bytes(), 0o644)?;
    }
    Ok(())
}

struct Bench<'a> {
    repo: &'a Repo,
    dir: &'a Path,
    image: &'a Path,
    accel: Accel,
}

impl Bench<'_> {
    /// Every system in turns, so that a busy moment of the host meets them all.
    fn boots(&self, options: &Options, results: &mut Results) -> Result<()> {
        let floors = floor::build(self.image, self.dir)?;
        let debian = self.debian(options, results)?;
        for (mode, turns) in [(Mode::Plain, options.turns), (Mode::Counted, 1), (Mode::Card, 1)] {
            if !options.modes.is_empty() && !options.modes.contains(&mode) {
                continue;
            }
            for turn in 1..=turns {
                for system in System::ALL.into_iter().filter(|system| options.system(*system)) {
                    let image = match system {
                        System::Ours => self.image,
                        System::Debian => match &debian {
                            Some(debian) => debian,
                            None => continue,
                        },
                        System::Floor => &floors.plain,
                        System::FloorVerity => &floors.verity,
                        System::Firmware => &floors.firmware,
                    };
                    let starts = starts(system, mode, turn);
                    if !starts.is_empty() {
                        println!("{}, {}, turn {turn} of {turns} …", system.name(), mode.words());
                        results.boots.extend(self.boot(system, mode, image, starts)?);
                    }
                }
            }
        }
        Ok(())
    }

    fn debian(&self, options: &Options, results: &mut Results) -> Result<Option<PathBuf>> {
        if !options.system(System::Debian) {
            return Ok(None);
        }
        let image = debian::build(self.repo, self.image, self.dir)?;
        results.same_kernel = Some(debian::same_kernel(self.image, self.dir)?);
        Ok(Some(image))
    }

    /// Boots a fresh disk once, or turns it off and boots it again.
    fn boot(&self, system: System, mode: Mode, image: &Path, starts: &[Start]) -> Result<Vec<Boot>> {
        let (disk, firmware_vars) = self.fresh(system, image)?;
        let mut out = Vec::new();
        for (index, start) in starts.iter().enumerate() {
            let plan = Plan {
                system,
                mode,
                start: *start,
                disk: &disk,
                firmware_vars: &firmware_vars,
                settings: "",
                dir: self.dir,
                accel: self.accel,
                end: if index + 1 < starts.len() { End::Off } else { End::Cut },
            };
            let boot = measure::boot(&plan)?;
            println!("  {}", report::line(&boot));
            out.push(boot);
        }
        Ok(out)
    }

    /// A fresh disk, and firmware that has seen nothing yet.
    fn fresh(&self, system: System, image: &Path) -> Result<(PathBuf, PathBuf)> {
        let disk = self.dir.join(format!("{}.qcow2", system.name()));
        let _ = std::fs::remove_file(&disk);
        qemu::overlay(image, &disk, DISK)?;
        let firmware_vars = self.dir.join(format!("{}-vars.fd", system.name()));
        qemu::firmware_vars(lab::arch::Arch::X86_64, &firmware_vars)?;
        Ok((disk, firmware_vars))
    }

    fn memory(&self, options: &Options, results: &mut Results) -> Result<()> {
        let debian = self.debian(options, results)?;
        let settings = debian::settings(self.repo)?;
        let mut idlers = vec![(Idler::Ours, System::Ours, self.image, "")];
        if let Some(debian) = &debian {
            idlers.push((Idler::DebianEqual, System::Debian, debian, &settings));
            idlers.push((Idler::Debian, System::Debian, debian, ""));
        }
        for (idler, system, image, settings) in idlers {
            if options.system(system) {
                println!("{}, memory …", idler.words());
                let memory = self.idle(system, image, settings)?;
                println!("  {} MiB used", memory.used >> 10);
                results.idle.push(Idle { system: idler, memory });
            }
        }
        Ok(())
    }

    fn idle(&self, system: System, image: &Path, settings: &str) -> Result<Memory> {
        let (disk, firmware_vars) = self.fresh(system, image)?;
        measure::memory(&Plan {
            system,
            mode: Mode::Plain,
            start: Start::First,
            disk: &disk,
            firmware_vars: &firmware_vars,
            settings,
            dir: self.dir,
            accel: self.accel,
            end: End::Cut,
        })
    }
}

/// Which boots of a system say something. A floor keeps nothing that a second one could find, which one boot of it shows;
/// dm-verity is there for its instructions.
fn starts(system: System, mode: Mode, turn: u32) -> &'static [Start] {
    let once: &[Start] = &[Start::First];
    let twice: &[Start] = &[Start::First, Start::Second];
    match system {
        System::Ours | System::Debian => twice,
        System::Floor if mode == Mode::Plain && turn == 1 => twice,
        System::Floor | System::Firmware => once,
        System::FloorVerity if mode != Mode::Card && turn == 1 => once,
        System::FloorVerity => &[],
    }
}
