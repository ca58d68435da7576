//! The document.

use super::goals::{self, INSTRUCTIONS, OPERATIONS, PROCESSOR, READ, Value, WALL};
use super::machine::{CARD, INSTRUCTION_NS};
use super::results::{Boot, Idle, Idler, Milestone, Mode, Results, Start, System};
use super::stats::Spread;
use lab::image::base::SUITE;
use std::collections::BTreeSet;

const MIB: f64 = 1_048_576.0;
/// When others use more than so many processors, seconds are not to be trusted: those that remain are shared, and so are
/// their caches.
const BUSY: f64 = 0.5;
/// How many programs the table of memory names for each system.
const PROGRAMS: usize = 12;

/// One boot in a line, while others still run.
pub(super) fn line(boot: &Boot) -> String {
    let seen = boot.milestones.iter().map(|(milestone, sample)| {
        let counted = sample.instructions.map_or(String::new(), |n| format!(", {:.2} G instructions", n / 1e9));
        format!(
            "{}: {:.1} s processor, {:.1} s wall, {:.1} MiB read{counted}",
            milestone.words(),
            sample.processor,
            sample.wall,
            sample.read as f64 / MIB,
        )
    });
    let seen = seen.collect::<Vec<_>>().join("; ");
    let health = boot.health.as_ref().map_or(String::new(), |health| format!(" ({health})"));
    format!("{}: {seen}{health}; others used {:.1} processors", words(boot.start), boot.host.others)
}

fn words(start: Start) -> &'static str {
    match start {
        Start::First => "first boot",
        Start::Second => "second boot",
    }
}

/// All of it.
pub(super) fn document(results: &Results) -> String {
    let mut text = format!("# Benchmarks\n\nMade by `make bench`; do not edit.\n\n{}\n", results.machine);
    if !results.sizes.is_empty() {
        text.push_str("\n| | |\n|---|---|\n");
        text.extend(results.sizes.iter().map(|(words, value)| format!("| {words} | {value} |\n")));
    }
    if !results.boots.is_empty() || !results.idle.is_empty() {
        text.push_str(&goals_section(results));
    }
    if !results.boots.is_empty() {
        text.push_str(&boots_section(results));
    }
    if !results.idle.is_empty() {
        text.push_str(&memory_section(&results.idle));
    }
    text.push_str(&results.updates);
    text
}

fn goals_section(results: &Results) -> String {
    let mut text = String::from("\n## Goals\n\n| goal | at most | found | |\n|---|---|---|---|\n");
    let mut rows = Vec::new();
    if !results.boots.is_empty() {
        for start in [Start::First, Start::Second] {
            rows.extend(goals::boots(&results.boots, start).into_iter().map(|goal| (words(start), goal)));
        }
    }
    if !results.idle.is_empty() {
        rows.push(("", goals::memory(results)));
    }
    for (start, goal) in rows {
        let found = goal.found.map_or(String::new(), |found| format!("{found:.2}"));
        let start = if start.is_empty() { String::new() } else { format!("{start}: ") };
        text.push_str(&format!("| {start}{} | {:.2} | {found} | {} |\n", goal.words, goal.limit, goal.verdict()));
    }
    text
}

fn boots_section(results: &Results) -> String {
    let boots = &results.boots;
    let turns = boots.iter().filter(|boot| (boot.system, boot.mode, boot.start) == first_of(boots)).count();
    let mut text = format!(
        "\n## From power-on, beside a plain Debian {SUITE} with docker.io\n\n\
         The same virtual machine, firmware, GRUB{} and probe; no menu waits. Debian is as its installer leaves it, and runs \
         the same demo container. The floor is our kernel and root slot with containerd and dockerd and nothing else, not \
         even systemd; its root is not verified where nothing else is said. \"firmware\" is firmware and GRUB, until \
         the kernel or its EFI stub says something first; it is part of every other number. The second boot is the same disk again after \
         a clean power off.\n\n\
         Processor seconds are QEMU's, user and system, and hold on a busy host better than seconds on the wall. Median of \
         {turns} turn(s), with the least and the most; in each turn every system boots once, one after the other. What \
         reaches the host's disk is not waited for (`cache=unsafe`).\n",
        match results.same_kernel {
            Some(true) => ", kernel",
            _ => "",
        },
    );
    if results.same_kernel == Some(false) {
        text.push_str("\n**The kernels differ**: Debian's archive has moved on since one of the two was fetched.\n");
    }
    text.push_str(&host(boots));
    for (mode, about, values) in [
        (
            Mode::Plain,
            String::new(),
            [("processor s", PROCESSOR, 1.0), ("wall s", WALL, 1.0), ("MiB read", READ, 1.0 / MIB)].as_slice(),
        ),
        (
            Mode::Counted,
            format!(
                "\nInstructions of the guest, in thousands of millions: one boot with a clock that goes on by \
                 {INSTRUCTION_NS:.0} ns with each (`-icount`), without the time that its processor was idle.\n"
            ),
            &[("10⁹ instructions", INSTRUCTIONS, 1e-9)],
        ),
        (
            Mode::Card,
            format!(
                "\nThe disk as slow as an SD card, {} MB and {} operations a second; one boot.\n",
                CARD.0 / 1_000_000,
                CARD.1
            ),
            &[("wall s", WALL, 1.0), ("operations", OPERATIONS, 1.0)],
        ),
    ] {
        let mut about = Some(about);
        for start in [Start::First, Start::Second] {
            if let Some(table) = table(boots, mode, start, values) {
                text.push_str(&format!("\n### {}, {}\n", capital(words(start)), mode.words()));
                text.push_str(&about.take().unwrap_or_default());
                text.push_str(&table);
            }
        }
    }
    text
}

fn first_of(boots: &[Boot]) -> (System, Mode, Start) {
    boots.first().map_or((System::Ours, Mode::Plain, Start::First), |boot| (boot.system, boot.mode, boot.start))
}

fn capital(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}

/// What else the host did, with a warning when it was too much.
fn host(boots: &[Boot]) -> String {
    let Some((others, load)) =
        Spread::of(boots.iter().map(|boot| boot.host.others)).zip(Spread::of(boots.iter().map(|boot| boot.host.load)))
    else {
        return String::new();
    };
    let mut text = format!("\nOthers on the host used {others} processors meanwhile; its load was {load}.\n");
    if others.max > BUSY {
        text.push_str(
            "\n**The host was busy.** A machine needs one processor and a little; seconds are too many, those on the wall \
             above all. Instructions and bytes hold.\n",
        );
    }
    text
}

/// The table of one mode and boot; none when nothing of it was measured.
fn table(boots: &[Boot], mode: Mode, start: Start, values: &[(&str, Value, f64)]) -> Option<String> {
    let systems: BTreeSet<System> =
        boots.iter().filter(|boot| (boot.mode, boot.start) == (mode, start)).map(|boot| boot.system).collect();
    if systems.is_empty() {
        return None;
    }
    let of = |system, milestone, value| goals::of(boots, (system, mode, start), milestone, value);
    let both = systems.contains(&System::Ours) && systems.contains(&System::Debian);
    let mut heads: Vec<&str> = systems.iter().map(|system| system.title()).collect();
    if both {
        heads.insert(2, "ratio");
    }
    let mut text = format!("\n| | {} |\n|---|{}\n", heads.join(" | "), "---|".repeat(heads.len()));
    for milestone in Milestone::ALL {
        for (unit, value, scale) in values {
            let mut cells: Vec<String> = systems
                .iter()
                .map(|system| {
                    of(*system, milestone, *value).map_or(String::new(), |found| found.scaled(*scale).to_string())
                })
                .collect();
            if cells.iter().all(String::is_empty) {
                continue;
            }
            if both {
                let ratio = of(System::Ours, milestone, *value).zip(of(System::Debian, milestone, *value));
                cells.insert(2, ratio.map_or(String::new(), |(a, b)| format!("{:.2}", a.median / b.median)));
            }
            text.push_str(&format!("| {}, {unit} | {} |\n", milestone.words(), cells.join(" | ")));
        }
    }
    Some(text)
}

fn memory_section(idle: &[Idle]) -> String {
    let find = |system| idle.iter().find(|idle| idle.system == system).map(|idle| &idle.memory);
    let mut text = String::from(
        "\n## Memory of an idle system\n\nThe demo container runs, and served its page a minute ago; first boot, one each. \
         Used is `MemTotal` - `MemAvailable`.\n\n| | used | of ours | own processes, resident |\n|---|---|---|---|\n",
    );
    let ours = find(Idler::Ours);
    for Idle { system, memory } in idle {
        let ratio = ours.map_or(String::new(), |ours| format!("{:.2}", ours.used as f64 / memory.used as f64));
        let own = if *system == Idler::Ours { format!("{} KiB", memory.own) } else { String::new() };
        text.push_str(&format!("| {} | {} MiB | {ratio} | {own} |\n", system.words(), memory.used >> 10));
    }
    let debian = find(Idler::DebianEqual).or_else(|| find(Idler::Debian));
    text.push_str(
        "\nThe largest programs, by their proportional share of memory (PSS), all processes of a name together:\n\n\
         | ours | MiB | Debian | MiB |\n|---|---|---|---|\n",
    );
    let largest = |memory: Option<&super::results::Memory>| {
        let mut programs: Vec<(String, u64)> = memory
            .into_iter()
            .flat_map(|memory| memory.programs.iter().map(|(name, kib)| (name.clone(), *kib)))
            .collect();
        programs.sort_by_key(|(_, kib)| std::cmp::Reverse(*kib));
        let sum: u64 = programs.iter().map(|(_, kib)| kib).sum();
        programs.truncate(PROGRAMS);
        programs.resize(PROGRAMS, (String::new(), 0));
        programs.push(("all".to_owned(), sum));
        programs
    };
    for (a, b) in largest(ours).into_iter().zip(largest(debian)) {
        let cell = |(name, kib): (String, u64)| match kib {
            0 => format!("{name} | "),
            kib => format!("{name} | {:.1}", kib as f64 / 1024.0),
        };
        text.push_str(&format!("| {} | {} |\n", cell(a), cell(b)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::{Host, Memory, Sample};
    use std::collections::BTreeMap;

    fn boot(system: System, processor: f64, others: f64) -> Boot {
        let sample = Sample { wall: processor, processor, read: 2 << 20, operations: 10, instructions: None };
        Boot {
            system,
            mode: Mode::Plain,
            start: Start::First,
            milestones: BTreeMap::from([(Milestone::Docker, sample)]),
            host: Host { others, load: 1.0 },
            health: None,
        }
    }

    #[test]
    fn a_table_has_medians_spreads_and_ratios() {
        let boots = [
            boot(System::Ours, 30.0, 0.0),
            boot(System::Ours, 50.0, 0.0),
            boot(System::Ours, 40.0, 0.0),
            boot(System::Debian, 80.0, 0.0),
            boot(System::Floor, 20.0, 0.0),
        ];
        let text = table(&boots, Mode::Plain, Start::First, &[("processor s", PROCESSOR, 1.0)]).unwrap();
        assert_eq!(
            text,
            "\n| | ours | Debian | ratio | floor |\n|---|---|---|---|---|\n\
             | Docker answers, processor s | 40.0 (30.0–50.0) | 80.0 | 0.50 | 20.0 |\n"
        );
        assert_eq!(table(&boots, Mode::Card, Start::First, &[("wall s", WALL, 1.0)]), None);
    }

    #[test]
    fn a_busy_host_is_said() {
        assert!(!host(&[boot(System::Ours, 1.0, 0.2)]).contains("busy"));
        assert!(host(&[boot(System::Ours, 1.0, 0.2), boot(System::Ours, 1.0, 0.9)]).contains("busy"));
    }

    #[test]
    fn memory_names_the_largest_first() {
        let memory = |used| Memory {
            used,
            own: 12,
            programs: BTreeMap::from([("sh".to_owned(), 512), ("dockerd".to_owned(), 90 << 10)]),
        };
        let text = memory_section(&[
            Idle { system: Idler::Ours, memory: memory(100 << 10) },
            Idle { system: Idler::DebianEqual, memory: memory(200 << 10) },
        ]);
        assert!(text.contains("| ours | 100 MiB | 1.00 | 12 KiB |"), "{text}");
        assert!(text.contains("| Debian with our vm.* settings | 200 MiB | 0.50 |  |"), "{text}");
        assert!(text.contains("| dockerd | 90.0 | dockerd | 90.0 |\n| sh | 0.5 | sh | 0.5 |\n"), "{text}");
        assert!(text.contains("| all | 90.5 | all | 90.5 |"), "{text}");
    }

    #[test]
    fn an_empty_run_is_still_a_document() {
        let none = Results {
            machine: "Host.".to_owned(),
            sizes: Vec::new(),
            boots: Vec::new(),
            same_kernel: None,
            idle: Vec::new(),
            updates: "\n## Updates\n".to_owned(),
        };
        assert_eq!(document(&none), "# Benchmarks\n\nMade by `make bench`; do not edit.\n\nHost.\n\n## Updates\n");
    }
}
