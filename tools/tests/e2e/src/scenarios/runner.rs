//! Runs the scenarios, chain by chain.

use super::{
    bad, first_boot, hand, kexec, keys, lies, lost, mbr, next_boot, pressure, raspi, rescue, tryboot, uboot, update,
};
use crate::harness::artifacts::Artifacts;
use crate::harness::checks::{Checks, Took};
use crate::harness::deadline;
use crate::harness::lab::Lab;
use anyhow::{Result, anyhow, bail};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

type Scenario = fn(&Lab, &mut Checks) -> Result<()>;

/// Scenarios on one disk, in this order: later ones stand on what earlier ones left there.
struct Chain {
    name: &'static str,
    scenarios: &'static [(&'static str, Scenario)],
    /// How many of them, from the first, run when nothing is asked for: what every change waits for has to be short.
    usual: usize,
}

impl Chain {
    /// True when scenarios are left out unless they are asked for.
    fn is_long(&self) -> bool {
        self.usual < self.scenarios.len()
    }
}

/// The longest ones come first, so that the last to begin is a short one. `update` makes the settled device that those
/// below it go on from, if the build directory has none.
const CHAINS: &[Chain] = &[
    Chain { name: "update", scenarios: &[("update", update::update)], usual: 1 },
    Chain {
        name: "config",
        scenarios: &[
            ("first boot", first_boot::first_boot),
            ("every key", keys::every_key),
            ("next boot", next_boot::next_boot),
            ("lost state, broken configuration", lost::lost),
            ("rescue, wipe", rescue::rescue_and_wipe),
        ],
        usual: 3,
    },
    Chain { name: "lies", scenarios: &[("lies", lies::lies)], usual: 1 },
    Chain { name: "pressure", scenarios: &[("all of disk and memory", pressure::pressure)], usual: 0 },
    Chain { name: "u-boot", scenarios: &[("boot script", uboot::uboot)], usual: 1 },
    Chain { name: "tryboot", scenarios: &[("firmware that tries", tryboot::tryboot)], usual: 1 },
    Chain { name: "mbr", scenarios: &[("a disk with an MBR", mbr::mbr)], usual: 0 },
    Chain { name: "bad", scenarios: &[("bad releases", bad::bad_releases)], usual: 0 },
    Chain { name: "hand", scenarios: &[("by hand", hand::by_hand)], usual: 0 },
    Chain { name: "cut", scenarios: &[("a cut after a jump", kexec::cut_after_jump)], usual: 0 },
    Chain { name: "jump", scenarios: &[("a jump", kexec::jump)], usual: 0 },
    Chain { name: "raspi", scenarios: &[("Raspberry Pi 3", raspi::raspberry_pi)], usual: 0 },
];

/// What stands for all chains of which something is left out otherwise; they run whole.
const LONG: &str = "long";

/// An emulated machine has one processor, so two keep two of ours busy; a third would only make time limits pass.
const AT_ONCE: usize = 2;

/// How long chains may take to end after the deadline, before the run ends without them.
const GRACE: Duration = Duration::from_secs(60);

/// A scenario that was asked for, and how far it is.
struct Entry {
    chain: &'static str,
    scenario: &'static str,
    began: Option<Instant>,
    took: Option<Duration>,
}

/// All of them; looked at by whoever ends the run.
struct Board(Mutex<Vec<Entry>>);

impl Board {
    fn change(&self, chain: &str, scenario: &str, change: impl FnOnce(&mut Entry)) {
        if let Ok(mut entries) = self.0.lock()
            && let Some(entry) = entries.iter_mut().find(|e| e.chain == chain && e.scenario == scenario)
        {
            change(entry);
        }
    }

    /// How long each has run, and those that did not get to their end.
    fn read(&self) -> (Vec<Took>, Vec<String>) {
        let Ok(entries) = self.0.lock() else { return (Vec::new(), vec!["all: a chain panicked".to_owned()]) };
        let time = |e: &Entry| e.took.or_else(|| Some(e.began?.elapsed()));
        let took = |e: &Entry| Some(Took { chain: e.chain, what: e.scenario.to_owned(), time: time(e)? });
        let left = entries.iter().filter(|e| e.took.is_none()).map(|e| match e.began {
            Some(began) => format!("{}: {}, ended after {:.0} s", e.chain, e.scenario, began.elapsed().as_secs_f64()),
            None => format!("{}: {}", e.chain, e.scenario),
        });
        (entries.iter().filter_map(took).collect(), left.collect())
    }
}

/// Runs the chain `only`, or every scenario whose name contains it, or the chains that are [`LONG`], with so many power
/// cuts replayed.
pub(crate) fn run(artifacts: Artifacts, only: &str, points: usize) -> Result<ExitCode> {
    println!(
        "Image: {} {}, {} of {}",
        artifacts.machine,
        artifacts.version,
        artifacts.variant,
        artifacts.image.display()
    );
    println!("Processor: {:?}", artifacts.accel);
    let artifacts = Arc::new(artifacts);
    let chains: Vec<_> =
        CHAINS.iter().map(|c| (c.name, chosen(c, only))).filter(|(_, scenarios)| !scenarios.is_empty()).collect();
    if chains.is_empty() {
        let known = CHAINS.iter().map(|chain| chain.name).collect::<Vec<_>>().join(", ");
        bail!(
            "no chain or scenario is called '{only}'; the chains are {known}, and {LONG} for those that are left out otherwise"
        );
    }
    let entry = |chain, scenario| Entry { chain, scenario, began: None, took: None };
    let entries = chains.iter().flat_map(|(chain, of)| of.iter().map(|(scenario, _)| entry(*chain, *scenario)));
    let board = Arc::new(Board(Mutex::new(entries.collect())));
    if let Some(left) = deadline::left() {
        println!("Deadline: in {:.0} s", left.as_secs_f64());
        let board = Arc::clone(&board);
        std::thread::spawn(move || end_in(left, &board));
    }
    let next = AtomicUsize::new(0);
    let work = || -> Vec<Checks> {
        let mine = std::iter::from_fn(|| chains.get(next.fetch_add(1, Ordering::Relaxed)));
        mine.take_while(|_| !deadline::passed())
            .map(|(name, scenarios)| run_chain(&artifacts, name, scenarios, points, &board))
            .collect()
    };
    let done = std::thread::scope(|scope| {
        let running: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        running
            .into_iter()
            .map(|worker| worker.join().map_err(|_| anyhow!("a chain panicked")))
            .collect::<Result<Vec<_>>>()
    })?;
    if only.is_empty() {
        let left_out = |chain: &'static Chain| chain.scenarios.iter().skip(chain.usual).map(|(scenario, _)| *scenario);
        let left_out: Vec<&str> = CHAINS.iter().flat_map(left_out).collect();
        println!("\nNot run here: {}; make test-long runs them", left_out.join(", "));
    }
    let (took, unfinished) = board.read();
    Ok(Checks::finish(&done.into_iter().flatten().collect::<Vec<_>>(), took, &unfinished))
}

/// The scenarios of a chain that `only` asks for.
fn chosen(chain: &Chain, only: &str) -> Vec<(&'static str, Scenario)> {
    // The name of a chain is no part of the names of others' scenarios.
    let by_chain = CHAINS.iter().any(|c| c.name == only);
    let is_asked = |(at, name): (usize, &str)| match only {
        "" => at < chain.usual,
        LONG => chain.is_long(),
        _ if by_chain => chain.name == only,
        _ => name.contains(only),
    };
    let scenarios = chain.scenarios.iter().enumerate();
    scenarios.filter(|(at, (name, _))| is_asked((*at, name))).map(|(_, scenario)| *scenario).collect()
}

fn run_chain(
    artifacts: &Arc<Artifacts>,
    name: &'static str,
    scenarios: &[(&'static str, Scenario)],
    points: usize,
    board: &Board,
) -> Checks {
    let mut checks = Checks::new(name);
    let lab = match Lab::new(artifacts, artifacts.work.join(name), points) {
        Ok(lab) => lab,
        Err(err) => {
            checks.check("a disk and its keys", || Err(err));
            return checks;
        }
    };
    for (scenario, run) in scenarios {
        checks.scenario(scenario);
        let start = Instant::now();
        board.change(name, scenario, |entry| entry.began = Some(start));
        let done = run(&lab, &mut checks);
        if !deadline::passed() {
            board.change(name, scenario, |entry| entry.took = Some(start.elapsed()));
        }
        if let Err(err) = done {
            // Those after it stand on it.
            checks.check(&format!("{scenario}: runs to its end, and the chain with it"), || Err(err));
            break;
        }
    }
    // What failed is looked for in what is left.
    if checks.all_passed() {
        lab.remove();
    }
    checks
}

/// Ends what runs when the deadline has come; what does not end by itself then, with the whole run.
fn end_in(left: Duration, board: &Board) {
    std::thread::sleep(left);
    println!("\nThe deadline has passed; what runs is ended.");
    deadline::end_machines();
    std::thread::sleep(GRACE);
    let (took, unfinished) = board.read();
    let _ = Checks::finish(&[], took, &unfinished);
    println!("FAILED: the deadline of this run has passed");
    std::process::exit(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(only: &str) -> Vec<&'static str> {
        CHAINS.iter().filter(|chain| !chosen(chain, only).is_empty()).map(|chain| chain.name).collect()
    }

    #[test]
    fn chains_are_chosen_by_name_and_scenarios_by_part_of_theirs() {
        assert_eq!(names(""), ["update", "config", "lies", "u-boot", "tryboot"]);
        assert_eq!(names("long"), ["config", "pressure", "mbr", "bad", "hand", "cut", "jump", "raspi"]);
        assert_eq!(names("jump"), ["jump"]);
        assert_eq!(names("rescue"), ["config"]);
        assert!(names("nothing of the kind").is_empty());
    }

    #[test]
    fn what_did_not_run_is_named() {
        let now = Some(Instant::now());
        let entry = |scenario, began, took| Entry { chain: "c", scenario, began, took };
        let done = Some(Duration::from_secs(2));
        let entries = vec![entry("done", now, done), entry("running", now, None), entry("waiting", None, None)];
        let (took, left) = Board(Mutex::new(entries)).read();
        assert_eq!(took.iter().map(|t| t.what.as_str()).collect::<Vec<_>>(), ["done", "running"]);
        assert_eq!(left, ["c: running, ended after 0 s", "c: waiting"]);
    }
}
