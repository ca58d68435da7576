//! Runs the scenarios, chain by chain.

use super::{first_boot, hand, kexec, keys as configuration, lost, next_boot, rescue, update};
use crate::harness::checks::Checks;
use crate::harness::lab::{Lab, VARIANT};
use anyhow::{Result, anyhow};
use osctl::lab::keys;
use osctl::qemu;
use osctl::repo::Repo;
use std::sync::atomic::{AtomicUsize, Ordering};

type Scenario = fn(&Lab, &mut Checks) -> Result<()>;

/// Scenarios on one disk, in this order: later ones stand on what earlier ones left there.
struct Chain {
    name: &'static str,
    scenarios: &'static [(&'static str, Scenario)],
    /// Runs only when asked for by name: it takes half an hour more.
    long: bool,
}

const CHAINS: &[Chain] = &[
    Chain {
        name: "config",
        scenarios: &[
            ("first boot", first_boot::first_boot),
            ("every key", configuration::every_key),
            ("next boot", next_boot::next_boot),
            ("lost state, broken configuration", lost::lost),
            ("rescue, wipe", rescue::rescue_and_wipe),
        ],
        long: false,
    },
    Chain { name: "update", scenarios: &[("update", update::good_and_bad)], long: false },
    Chain { name: "hand", scenarios: &[("by hand", hand::by_hand)], long: true },
    Chain { name: "bad", scenarios: &[("bad releases", update::bad_releases)], long: true },
    Chain { name: "jump", scenarios: &[("a jump", kexec::jump)], long: true },
    Chain { name: "cut", scenarios: &[("a cut after a jump", kexec::cut_after_jump)], long: true },
];

/// What stands for all chains that are left out otherwise.
const LONG: &str = "long";

/// An emulated machine has one processor, so two keep two of ours busy; a third would only make time limits pass.
const AT_ONCE: usize = 2;

/// Runs the chain `only`, or every scenario whose name contains it, or the chains that are [`LONG`], with so many power
/// cuts replayed.
pub(crate) fn run(repo: &Repo, only: &str, points: usize) -> Result<Vec<Checks>> {
    let keys = keys::ensure(repo)?;
    let accel = qemu::accel(repo, VARIANT)?;
    println!("Processor: {accel:?}");
    // The name of a chain is no part of the names of others' scenarios.
    let by_chain = CHAINS.iter().any(|c| c.name == only);
    let is_asked = |chain: &Chain, name: &str| match only {
        "" => !chain.long,
        LONG => chain.long,
        _ if by_chain => chain.name == only,
        _ => name.contains(only),
    };
    let chosen = |chain: &Chain| -> Vec<(&'static str, Scenario)> {
        chain.scenarios.iter().filter(|(name, _)| is_asked(chain, name)).copied().collect()
    };
    let start = |name: &'static str, scenarios: &[(&'static str, Scenario)]| -> Checks {
        let mut checks = Checks::new(name);
        let lab = match Lab::new(repo, repo.build.join("e2e").join(name), keys.clone(), accel, points) {
            Ok(lab) => lab,
            Err(err) => {
                checks.check("a disk and its keys", || Err(err));
                return checks;
            }
        };
        for (scenario, run) in scenarios {
            checks.scenario(scenario);
            if let Err(err) = run(&lab, &mut checks) {
                // Those after it stand on it.
                checks.check(&format!("{scenario}: runs to its end, and the chain with it"), || Err(err));
                break;
            }
        }
        checks.end();
        checks
    };
    let chains: Vec<_> =
        CHAINS.iter().map(|c| (c.name, chosen(c))).filter(|(_, scenarios)| !scenarios.is_empty()).collect();
    let next = AtomicUsize::new(0);
    let work = || -> Vec<Checks> {
        let mine = std::iter::from_fn(|| chains.get(next.fetch_add(1, Ordering::Relaxed)));
        mine.map(|(name, scenarios)| start(name, scenarios)).collect()
    };
    let done = std::thread::scope(|scope| {
        let running: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        running
            .into_iter()
            .map(|worker| worker.join().map_err(|_| anyhow!("a chain panicked")))
            .collect::<Result<Vec<_>>>()
    })?;
    if only.is_empty() {
        let long: Vec<&str> = CHAINS.iter().filter(|chain| chain.long).map(|chain| chain.name).collect();
        println!("\nNot run here: {}; make test-long runs them", long.join(", "));
    }
    Ok(done.into_iter().flatten().collect())
}
