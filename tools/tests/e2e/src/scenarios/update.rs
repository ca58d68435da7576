//! Releases from a channel, on a device with little memory: a good one, a bad one that a stick brings, and one whose
//! installation is cut off. All that is written up to the first good one is recorded and replayed.

use super::trials::{Bad, INSTALL_LIMIT, comes_back, take};
use crate::campaign::FLICKER;
use crate::campaign::crash::Crash;
use crate::harness::checks::Checks;
use crate::harness::device::{
    COUNTERS, came, counters, equal, is_kept, keep, nothing_was_killed, settled, slot, update_status,
};
use crate::harness::lab::Lab;
use crate::harness::random::Random;
use crate::harness::release::{MUCH_NOISE, NOISE, arguments, no_engine};
use crate::harness::rig::{LITTLE, NAME, Rig};
use crate::harness::trace::Trace;
use crate::harness::vm::{BOOT_ID, BOOT_LIMIT, Vm};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Which moments are tried; another seed tries others.
const SEED: u64 = 1;

/// How fast the installation that is cut off may fetch, in KiB/s: slow enough to be found in its middle.
const RATE: u32 = 2048;

/// The device, its slots and its releases.
struct Course<'a> {
    rig: Rig<'a>,
    /// The slot of the first boot, and the other one.
    first: String,
    second: String,
    good: String,
    next: String,
    kept: Vec<(&'static str, String)>,
    boot: String,
    work: PathBuf,
}

pub(super) fn update(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let rig = Rig::new(lab)?;
    let (mut vm, before) = rig.first_boot()?;
    checks.say(&format!("settled after {:.0} s", vm.started.elapsed().as_secs_f64()));
    let first = slot(&vm)?;
    let work = lab.dir.join("replay");
    std::fs::create_dir_all(&work)?;
    let mut course = Course {
        second: lab.artifacts.other(&first)?.to_owned(),
        first,
        good: lab.artifacts.later(1, 0)?,
        next: lab.artifacts.later(3, 0)?,
        kept: keep(&vm)?,
        boot: vm.ssh(BOOT_ID)?,
        work,
        rig,
    };
    let settled_at = Trace::read(vm.traces())?.entries.len();
    course.first_release(&mut vm, checks)?;
    checks.check("wherever the power fails in all this, a whole slot starts, and nothing is lost or refused", || {
        let known = course.rig.maker.known(&[&course.good]);
        let crash = Crash { settled: settled_at, ..course.crash(&known) };
        let outcome = crash.replay(&Trace::read(vm.traces())?, &before, lab.points, SEED)?;
        print!("{outcome}");
        ensure!(outcome.wrong.is_empty(), "{} of {} disks", outcome.wrong.len(), outcome.disks);
        Ok(())
    });
    vm.end_traces();
    let _ = std::fs::remove_file(before);
    course.bad_release(&mut vm, checks)?;
    let vm = course.cut(vm, checks)?;
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}

impl Course<'_> {
    fn crash<'a>(&'a self, known: &'a [crate::harness::release::Known]) -> Crash<'a> {
        Crash { artifacts: &self.rig.lab.artifacts, known, work: &self.work, settled: 0, kept: &self.kept }
    }

    /// What fits into little memory, in every boot.
    fn fits(&self, vm: &Vm, checks: &mut Checks, when: &str) {
        match self.rig.lab.artifacts.no_demo() {
            Some(why) => checks.skip(&format!("three containers in {LITTLE} MiB, {when}"), why),
            None => {
                checks.check(&format!("three containers run in {LITTLE} MiB, {when}, and nothing was killed"), || {
                    self.rig.containers_run(vm)?;
                    nothing_was_killed(vm)
                })
            }
        }
    }

    fn first_release(&mut self, vm: &mut Vm, checks: &mut Checks) -> Result<()> {
        self.fits(vm, checks, "before any update");
        checks.check("a channel without releases offers none", || {
            let text = vm.ssh("os update check")?;
            ensure!(text.contains("nothing newer"), "{text}");
            Ok(())
        });
        self.rig.publish(&self.good, &arguments("e2e.release=2".to_owned()))?;
        checks.check("a new release is offered, and the timer leaves it to a person in manual mode", || {
            let found: Value = serde_json::from_str(&vm.ssh("os update check --json")?)?;
            let running = &self.rig.lab.artifacts.version;
            ensure!(found["offered"] == self.good && found["running"] == *running, "{found}");
            vm.ssh("systemctl start os-update")?;
            equal(&vm.ssh("os update status --json | grep -o '\"phase\": \"[a-z]*\"'")?, "\"phase\": \"idle\"")
        });
        let (mut boot, start) = (self.boot.clone(), Instant::now());
        checks.check("1 to 2: it is installed, started in the other slot, found healthy, and stays", || {
            boot = take(vm, &boot, &self.second, "e2e.release=2")?;
            self.rig.containers_run(vm)?;
            let status = update_status(vm)?;
            ensure!(status["phase"] == "idle" && status["running"]["version"] == self.good, "{status}");
            let slots = &self.rig.lab.artifacts.slots;
            equal(&vm.ssh(COUNTERS)?, &counters(slots, &[&self.first, &self.second], &self.second))
        });
        self.boot = boot;
        match self.rig.lab.artifacts.no_demo() {
            Some(why) => checks.skip("containers got their own stop signal", why),
            None => checks.check("containers got their own stop signal", || self.rig.containers_said_bye(vm)),
        }
        checks.say(&format!("kept after {:.0} s", start.elapsed().as_secs_f64()));
        self.fits(vm, checks, "through an update");
        Ok(())
    }

    fn bad_release(&mut self, vm: &mut Vm, checks: &mut Checks) -> Result<()> {
        let no_engine = no_engine();
        let version = self.rig.lab.artifacts.later(2, 2)?;
        let reason = "the container engine does not answer";
        let bad = Bad { version, what: "a broken engine", change: &no_engine, reason };
        self.rig.publish(&bad.version, bad.change)?;
        let (mut boot, start) = (self.boot.clone(), Instant::now());
        checks.check(&format!("2 to 3 with {}, from a stick: it is found, installed, and told", bad.what), || {
            self.rig.stick.fat.copy_in(&self.rig.site.path("stable"))?;
            vm.plug()?;
            vm.wait_for("systemctl is-active 'os-update-stick@*' | grep activ", Duration::from_secs(60))?;
            boot = vm.wait_restart_by("'os-update-stick@*'", &boot, INSTALL_LIMIT + BOOT_LIMIT)?;
            let report = self.rig.stick.fat.read_text(&format!("update-{NAME}.txt"))?;
            ensure!(report.contains(&format!("{} is installed; restarting into it", bad.version)), "{report}");
            Ok(())
        });
        let name = "the device comes back by itself, says why, and does not try again";
        checks.check(&format!("2 to 3 with {}: {name}", bad.what), || {
            boot = comes_back(vm, &self.rig, &bad, &self.second)?;
            Ok(())
        });
        self.boot = boot;
        checks.say(&format!("back after {:.0} s", start.elapsed().as_secs_f64()));
        checks.check("os update log has the journal of the boot that failed", || {
            let text = vm.ssh("os update log")?;
            ensure!(text.contains("failed here and is not tried again") && text.contains("os-health"), "{text:.600}");
            Ok(())
        });
        Ok(())
    }

    /// The plug is pulled in an installation, and again soon after power came back.
    fn cut(&mut self, vm: Vm, checks: &mut Checks) -> Result<Vm> {
        let maker = &self.rig.maker;
        let bundle = maker.bundle_with(&self.next, MUCH_NOISE, &arguments("e2e.release=4".to_owned()))?;
        maker.publish(&mut self.rig.channel, &bundle)?;
        // What comes without the noise: the kernel, and the tree behind the root.
        let others = came(&vm)?.first().context("nothing says what came")?.saturating_sub(NOISE >> 20);
        let mut random = Random(SEED);
        checks.check("2 to 4: the plug is pulled in the middle of the installation", || {
            vm.ssh(&format!("os config set /os/update/rateLimit {RATE}"))?;
            // What is written is on the medium soon, as it is where bytes come slowly.
            vm.ssh("sysctl -qw vm.dirty_bytes=8388608 vm.dirty_background_bytes=1048576")?;
            vm.ssh("systemd-run --quiet --unit=apply --collect os update apply")?;
            let enough = (others << 20) + MUCH_NOISE / 2 + random.below(MUCH_NOISE / 8);
            let fetched = "os update status --json | sed -n 's/.*\"fetched\": \\([0-9]*\\).*/\\1/p'";
            vm.wait_for(&format!("test $({fetched}) -gt {enough}"), INSTALL_LIMIT)?;
            equal(update_status(&vm)?["phase"].as_str().unwrap_or_default(), "installing")
        });
        drop(vm);
        let known = self.rig.maker.known(&[&self.good, &self.next]);
        let wanted = format!("starts {} from slot {}", self.good, self.second);
        let mut look = |what: &str| {
            let mut left = String::new();
            checks.check(&format!("what {what} left: a whole slot starts, nothing is lost or refused"), || {
                left = self.crash(&known).look(&self.rig.lab.disk.path, true, true)?;
                ensure!(left.starts_with(&wanted), "{left}");
                Ok(())
            });
            checks.say(&left);
        };
        look("the cut");
        // Power that comes back badly goes again.
        let after = Duration::from_millis(random.below(u64::try_from(FLICKER.as_millis())?));
        self.rig.boot()?.watch(after)?;
        look(&format!("another cut {:.0} s after power came back", after.as_secs_f64()));
        let mut vm = self.rig.boot()?;
        vm.wait_ssh()?;
        settled(&vm)?;
        is_kept(&vm, &self.kept)?;
        vm.ssh("os config unset /os/update/rateLimit")?;
        self.boot = vm.ssh(BOOT_ID)?;
        checks.check("2 to 4: the next good release is taken", || {
            take(&mut vm, &self.boot, &self.first, "e2e.release=4").map(drop)
        });
        checks.check("what was written before the plug was pulled was not fetched again", || {
            ensure!(
                vm.ssh("os update log")?.contains(&format!("installing {} was interrupted", self.next)),
                "no word of it"
            );
            let fetched = came(&vm)?.pop().context("nothing says what came")?;
            let all = others + (MUCH_NOISE >> 20);
            println!("{fetched} of {all} MiB came");
            ensure!(fetched + (MUCH_NOISE >> 22) < all, "{fetched} MiB came, {all} would be all");
            Ok(())
        });
        self.fits(&vm, checks, "at the end");
        Ok(vm)
    }
}
