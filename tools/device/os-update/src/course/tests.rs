//! A device whose power is cut, or one of whose programs fails, at every point of an update in turn. The counters are the
//! real ones, the bootloader does as `grub.cfg`.

use super::*;
use crate::machine::mark_in;
use crate::state::{Store, Target};
use anyhow::bail;
use os_boot::counters::{self, Counters, Fate, State as Choice};
use os_boot::{Bootloader, Loader};
use std::cell::Cell;
use std::rc::Rc;

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The power goes before it.
    Cut,
    /// The power goes right after it.
    CutAfter,
    /// It fails.
    Fails,
    /// It is done, and says that it failed.
    FailsAfter,
}

const FAULTS: [Fault; 4] = [Fault::Cut, Fault::CutAfter, Fault::Fails, Fault::FailsAfter];

/// What the release in slot B is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Good,
    /// It does not get to its health check.
    Dead,
    /// Its health check says no.
    Ill,
    /// Neither the bus nor RAUC works.
    NoBus,
    /// RAUC does not work; it is healthy otherwise.
    NoRauc,
}

const KINDS: [Kind; 5] = [Kind::Good, Kind::Dead, Kind::Ill, Kind::NoBus, Kind::NoRauc];

struct World {
    dir: tempfile::TempDir,
    store: Store,
    kind: Kind,
    booted: Cell<Slot>,
    /// Things that were done so far.
    done: Cell<usize>,
    fault: Option<(usize, Fault)>,
    /// No power, until the next boot.
    dark: Cell<bool>,
    /// The state partition takes nothing.
    full: Cell<bool>,
    restarts: Cell<bool>,
}

impl World {
    fn new(kind: Kind, booted: Slot, fault: Option<(usize, Fault)>) -> Rc<Self> {
        let dir = tempfile::tempdir().unwrap();
        let loader = Loader::new(Bootloader::Grub, dir.path());
        std::fs::create_dir_all(loader.directory()).unwrap();
        std::fs::write(loader.directory().join(counters::FILE), counters::fresh()).unwrap();
        Rc::new(Self {
            store: Store::at(&dir.path().join("state")),
            dir,
            kind,
            booted: Cell::new(booted),
            done: Cell::new(0),
            fault,
            dark: Cell::new(false),
            full: Cell::new(false),
            restarts: Cell::new(false),
        })
    }

    fn loader(&self) -> Loader {
        Loader::new(Bootloader::Grub, self.dir.path())
    }

    fn counters(&self) -> Counters {
        self.loader().counters().unwrap()
    }

    /// One thing that is done.
    fn thing(&self, what: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.dark.get() {
            bail!("no power");
        }
        let number = self.done.replace(self.done.get() + 1);
        let fault = self.fault.filter(|(at, _)| *at == number).map(|(_, fault)| fault);
        match fault {
            None => what(),
            Some(Fault::Cut) => {
                self.dark.set(true);
                bail!("the power fails")
            }
            Some(Fault::CutAfter) => {
                what()?;
                self.dark.set(true);
                bail!("the power fails")
            }
            Some(Fault::Fails) => bail!("it fails"),
            Some(Fault::FailsAfter) => {
                what()?;
                bail!("no answer")
            }
        }
    }

    /// What a restart does.
    fn forget_ram(&self) {
        let _ = std::fs::remove_file(self.dir.path().join("state.ram.json"));
    }

    fn is_broken(&self) -> bool {
        self.booted.get() == Slot::B && matches!(self.kind, Kind::NoBus | Kind::NoRauc)
    }
}

impl Device for Rc<World> {
    fn booted(&self) -> Result<Slot> {
        Ok(self.booted.get())
    }

    fn save(&self, state: &State) -> Result<()> {
        anyhow::ensure!(!self.full.get(), "no space is left");
        self.thing(|| Ok(self.store.save(state)?))
    }

    fn keep_in_ram(&self, state: &State) -> Result<()> {
        anyhow::ensure!(!self.dark.get(), "no power");
        Ok(self.store.keep_in_ram(state)?)
    }

    fn fate(&self, slot: Slot) -> Option<Fate> {
        Some(self.counters().fate(slot))
    }

    async fn mark(&self, mark: Mark, slot: Slot) -> Result<()> {
        anyhow::ensure!(!self.is_broken(), "RAUC does not answer");
        self.thing(|| mark_in(&self.loader(), mark, slot))
    }

    fn mark_directly(&self, mark: Mark, slot: Slot) -> Result<()> {
        self.thing(|| mark_in(&self.loader(), mark, slot))
    }

    async fn restart(&self) -> Result<()> {
        self.thing(|| {
            self.restarts.set(true);
            Ok(())
        })
    }

    async fn jump(&self) -> Result<()> {
        self.restart().await
    }
}

fn target() -> Target {
    Target { version: "2.0.0".to_owned(), digest: "d2".to_owned() }
}

/// The way that `grub.cfg` chooses and counts.
fn start(loader: &Loader) -> Option<Slot> {
    let slot = loader.counters().unwrap().next()?;
    let mut block =
        os_boot::block::Block::parse(&std::fs::read(loader.directory().join(counters::FILE)).unwrap()).unwrap();
    let name = format!("{slot}_TRY");
    let tries: u32 = block.get(&name).unwrap().parse().unwrap();
    block.set(&name, &(tries + 1).to_string());
    std::fs::write(loader.directory().join(counters::FILE), block.bytes().unwrap()).unwrap();
    Some(slot)
}

/// A device in slot A, with a release in slot B that waits to be started, lives on until nothing happens any more.
fn live(kind: Kind, fault: Option<(usize, Fault)>) -> (Rc<World>, State) {
    let world = World::new(kind, Slot::A, fault);
    let phase = Phase::Installed { target: target(), jumped: false };
    world.store.save(&State { phase, ..State::default() }).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // The device was on before the release came.
    runtime.block_on(start_again(&world));
    for _ in 0..16 {
        let restarts = world.restarts.replace(false) | world.dark.replace(false);
        let slot = world.booted.get();
        let dead = slot == Slot::B && kind == Kind::Dead;
        if !restarts && !dead {
            break;
        }
        world.forget_ram();
        world.booted.set(start(&world.loader()).expect("a slot is left to start"));
        runtime.block_on(boot(&world));
    }
    (Rc::clone(&world), world.store.load())
}

async fn boot(world: &Rc<World>) {
    let in_b = world.booted.get() == Slot::B;
    let mut course = Course { device: Rc::clone(world), state: world.store.load() };
    match world.kind {
        Kind::Dead if in_b => return,
        Kind::Ill | Kind::NoBus if in_b => drop(course.unhealthy(Verdict::failed("no engine")).await),
        _ => {
            // As os-update commit does it: again, and then no more.
            let kept = course.healthy().await.is_ok() || world.dark.get() || course.healthy().await.is_ok();
            if !kept && matches!(course.state.phase, Phase::Trial { .. }) {
                drop(course.unhealthy(Verdict::failed("RAUC does not answer")).await);
            }
        }
    }
    // What os-deadline does, in a trial that nothing ended.
    if matches!(course.state.phase, Phase::Trial { .. }) && in_b && !world.dark.get() && !world.restarts.get() {
        drop(course.unhealthy(Verdict::failed("too late")).await);
    }
    start_again(world).await;
}

/// What the timer does, twice.
async fn start_again(world: &Rc<World>) {
    for _ in 0..2 {
        let mut course = Course { device: Rc::clone(world), state: world.store.load() };
        let waits = matches!(course.state.phase, Phase::Installed { .. }) || course.waits_for_restart().unwrap();
        if waits && world.booted.get() == Slot::A && !world.dark.get() && !world.restarts.get() {
            drop(course.start(Slot::B, false).await);
        }
    }
}

#[test]
fn a_good_release_stays_and_a_bad_one_goes_whatever_fails_once() {
    for kind in KINDS {
        let things = live(kind, None).0.done.get();
        assert!(things >= 5, "{kind:?}: only {things} things are done");
        let faults = (0..things).flat_map(|at| FAULTS.map(|fault| Some((at, fault))));
        for fault in std::iter::once(None).chain(faults) {
            let (world, state) = live(kind, fault);
            let runs = world.booted.get();
            let what = format!("{kind:?}, {fault:?}: {runs} runs, {state:?}");
            assert_eq!(world.counters().next(), Some(runs), "{what}");
            if kind == Kind::Good {
                assert!(runs == Slot::B && state.phase == Phase::Idle && state.refused.is_empty(), "{what}");
                assert_eq!(state.running, Some(target()), "{what}");
            } else {
                assert!(runs == Slot::A && state.phase == Phase::Idle, "{what}");
                assert_eq!(world.counters().state(Slot::B), Choice::Bad, "{what}");
                assert_eq!(state.refused.iter().map(|r| &r.target).collect::<Vec<_>>(), [&target()], "{what}");
            }
        }
    }
}

#[test]
fn what_cannot_be_written_down_is_left_all_the_same() {
    let world = World::new(Kind::Ill, Slot::B, None);
    // A file where the directory would be.
    std::fs::write(world.dir.path().join("state"), "").unwrap();
    let phase = Phase::Trial { target: target(), slot: Slot::B, armed: true, jump: false, verdict: None };
    let mut course = Course { device: Rc::clone(&world), state: State { phase, ..State::default() } };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(course.unhealthy(Verdict::failed("no engine"))).is_err());
    assert!(world.restarts.get());
    assert_eq!(world.counters().next(), Some(Slot::A));
}

#[test]
fn a_good_release_stays_on_a_full_state_partition_and_a_bad_one_goes_for_a_reason_that_is_true() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let phase = Phase::Trial { target: target(), slot: Slot::B, armed: true, jump: false, verdict: None };
    let trial = State { phase, ..State::default() };
    let begin = |kind| {
        let world = World::new(kind, Slot::B, None);
        world.store.save(&trial).unwrap();
        mark_in(&world.loader(), Mark::Active, Slot::B).unwrap();
        world.full.set(true);
        start(&world.loader());
        world
    };
    let world = begin(Kind::Good);
    // Every boot passes anew, and none uses up a try of either slot.
    for _ in 0..5 {
        world.forget_ram();
        let mut course = Course { device: Rc::clone(&world), state: world.store.load() };
        runtime.block_on(course.healthy()).unwrap();
        let known = world.store.load();
        assert_eq!((known.phase, known.running, known.refused), (Phase::Idle, Some(target()), vec![]));
        assert!(world.store.is_unsaved() && !world.restarts.get());
        assert_eq!(start(&world.loader()), Some(Slot::B));
    }
    world.full.set(false);
    world.forget_ram();
    let mut course = Course { device: Rc::clone(&world), state: world.store.load() };
    runtime.block_on(course.healthy()).unwrap();
    assert_eq!((world.store.load().phase, world.store.is_unsaved()), (Phase::Idle, false));

    let world = begin(Kind::Ill);
    runtime.block_on(boot(&world));
    assert!(world.restarts.get() && start(&world.loader()) == Some(Slot::A));
    world.booted.set(Slot::A);
    world.full.set(false);
    runtime.block_on(boot(&world));
    let known = world.store.load();
    assert_eq!(known.phase, Phase::Idle);
    assert!(known.refused[0].verdict.reason.contains("marked bad"), "{:?}", known.refused);
}

#[test]
fn who_is_put_first_by_hand_during_a_trial_is_not_taken_for_a_failure_of_the_release() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let world = World::new(Kind::Good, Slot::A, None);
    let phase = Phase::Trial { target: target(), slot: Slot::B, armed: true, jump: false, verdict: None };
    world.store.save(&State { phase: phase.clone(), ..State::default() }).unwrap();
    mark_in(&world.loader(), Mark::Active, Slot::B).unwrap();
    // Slot A from the bootloader's menu: the trial is still to come.
    runtime.block_on(boot(&world));
    assert_eq!((world.store.load().phase, world.restarts.replace(false)), (phase, true));
    mark_in(&world.loader(), Mark::Active, Slot::A).unwrap();
    let mut course = Course { device: Rc::clone(&world), state: world.store.load() };
    runtime.block_on(course.healthy()).unwrap();
    let refused = world.store.load().refused;
    assert!(refused.len() == 1 && refused[0].verdict.by_operator, "{refused:?}");
}

/// What RAUC says of slot B after it wrote there.
fn written(transaction: &str) -> Vec<RaucSlot> {
    vec![RaucSlot {
        name: "kernel.1".to_owned(),
        class: "kernel".to_owned(),
        bootname: Some("B".to_owned()),
        state: "inactive".to_owned(),
        boot_status: Some("bad".to_owned()),
        version: Some("2.0.0".to_owned()),
        transaction: Some(transaction.to_owned()),
        manifest_hash: Some("m2".to_owned()),
        status: Some("ok".to_owned()),
    }]
}

/// Installs once, as `os-update` does when it is started; what another one left is cleared up first.
async fn install(world: &Rc<World>, whole: &Cell<bool>) -> Result<State> {
    let mut course = Course { device: Rc::clone(world), state: world.store.load() };
    if matches!(course.state.phase, Phase::Installing { .. }) {
        course.note(Event::Interrupted)?;
    }
    let write = async |world: &Rc<World>, transaction: &str| {
        // RAUC takes the slot out of the bootloader's choice before the first byte.
        let done = world.mark(Mark::Bad, Slot::B).await.and_then(|()| {
            whole.set(false);
            world.thing(|| {
                whole.set(true);
                Ok(())
            })
        });
        Attempt { written: done.map(|()| written(transaction)), trouble: None, fetched: Some(1) }
    };
    let done = course.install(target(), write).await;
    done.map(|()| course.state)
}

#[test]
fn an_installation_that_is_cut_or_fails_anywhere_leaves_what_ran_and_goes_through_the_next_time() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let points = {
        let world = World::new(Kind::Good, Slot::A, None);
        runtime.block_on(install(&world, &Cell::new(false))).unwrap();
        world.done.get()
    };
    assert!(points >= 4, "{points}");
    for (at, fault) in (0..points).flat_map(|at| FAULTS.map(|fault| (at, fault))) {
        let (world, whole) = (World::new(Kind::Good, Slot::A, Some((at, fault))), Cell::new(false));
        let first = runtime.block_on(install(&world, &whole));
        let what = format!("{fault:?} at {at}");
        assert!(first.is_err(), "{what}");
        world.dark.set(false);
        world.forget_ram();
        assert_eq!(start(&world.loader()), Some(Slot::A), "{what}");
        let state = world.store.load();
        assert!(state.refused.is_empty(), "{what}");
        assert!(!matches!(state.phase, Phase::Installed { .. }) || whole.get(), "{what}: {:?}", state.phase);
        let state = runtime.block_on(install(&world, &whole)).unwrap();
        assert_eq!(state.phase, Phase::Installed { target: target(), jumped: false }, "{what}");
        assert_eq!((state.slots[&Slot::B].target.clone(), state.waiting), (target(), None), "{what}");
        assert_eq!(world.store.load().phase, state.phase, "{what}");
    }
}
