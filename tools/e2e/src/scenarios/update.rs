//! Releases from a channel: good ones, bad ones, and one whose installation is cut off.

use super::lies::{AFTER_LIES, bad_servers, lies};
use crate::campaign::FLICKER;
use crate::campaign::crash::Crash;
use crate::harness::checks::Checks;
use crate::harness::device::{COUNTERS, came, equal, is_kept, keep, settled, slot, update_status};
use crate::harness::disk::Disk;
use crate::harness::lab::Lab;
use crate::harness::liar::Liar;
use crate::harness::random::Random;
use crate::harness::release::{HEALTH, MUCH_NOISE, Maker, NOISE, arguments, broken, no_engine};
use crate::harness::site::Site;
use crate::harness::trace::Trace;
use crate::harness::vm::{BOOT_ID, BOOT_LIMIT, Restart, Vm};
use anyhow::{Context, Result, ensure};
use os_sys::cmd::Cmd;
use osctl::lab::disk::layout;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// Which moments are tried; another seed tries others.
const SEED: u64 = 1;
/// How long RAUC may take to write a slot under software emulation.
pub(crate) const INSTALL_LIMIT: Duration = Duration::from_secs(240);
/// How long a device may take to come back from a release that does not boot: three tries and a boot of the old one.
pub(crate) const RETURN_LIMIT: Duration = Duration::from_secs(400);
/// Runs `os update apply` and waits for the restart that follows; returns the new boot.
fn apply(vm: &mut Vm, boot: &str, limit: Duration) -> Result<String> {
    // In a unit of its own: the restart ends the login.
    vm.ssh("systemd-run --quiet --unit=apply --collect os update apply")?;
    vm.wait_restart_by("apply", boot, INSTALL_LIMIT + limit)
}

/// One good release, one whose engine is broken, and a server that lies.
pub(crate) fn good_and_bad(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let no_engine = no_engine();
    let bad: &[Bad<'_>] = &[("0.3.2", "a broken engine", &no_engine, "the container engine does not answer")];
    releases(lab, checks, bad, true)
}

/// Releases that are broken in other ways, and the good one after them.
pub(crate) fn bad_releases(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let no_network = arguments(format!("systemd.mask=NetworkManager.service {HEALTH}"));
    let (no_kernel, no_init) = (broken("vmlinuz"), broken("initramfs"));
    let bad: &[Bad<'_>] = &[
        ("0.3.0", "a broken kernel", &no_kernel, "did not get to its health check"),
        ("0.3.1", "a broken init", &no_init, "did not get to its health check"),
        ("0.3.3", "no network", &no_network, "NetworkManager.service"),
    ];
    releases(lab, checks, bad, false)
}

/// Version, what is wrong, how it is made, what the device has to say.
type Bad<'a> = (&'a str, &'a str, &'a dyn Fn(&Path) -> Result<()>, &'a str);

fn releases(lab: &Lab, checks: &mut Checks, bad: &[Bad<'_>], thorough: bool) -> Result<()> {
    let maker = Maker::new(lab)?;
    let site = Site::start(&lab.dir.join("site"))?;
    let mut channel = maker.channel(&site.path("stable"))?;
    let config =
        json!({ "hostname": "e2e-update", "os": { "update": { "channel": Site::url("stable"), "mode": "manual" } } });
    lab.disk.write("config.json", &lab.config(config)?)?;
    let stick = Disk::stick(&lab.dir, "UPDATE", 1024)?;
    let liar = Liar::start(std::fs::read(site.path("stable/channel.json"))?)?;
    let mut vm = if thorough {
        Cmd::new("cp").arg("--sparse=always").arg(&lab.disk.path).arg(lab.dir.join("replayed.raw")).run()?;
        lab.boot_traced(site.port, liar.port, stick.stick_arguments())?
    } else {
        lab.boot_with_web(site.port, Restart::Restarts)?
    };
    vm.wait_ssh()?;
    settled(&vm)?;
    let kept = keep(&vm)?;
    let settled_at = Trace::read(vm.traces())?.entries.len();
    checks.check("a channel without releases offers none", || {
        let text = vm.ssh("os update check")?;
        ensure!(text.contains("nothing newer"), "{text}");
        Ok(())
    });
    if thorough {
        bad_servers(&vm, checks);
    }
    maker.publish(&mut channel, &maker.bundle("0.2.0", &arguments("e2e.release=2".to_owned()))?)?;
    checks.check("a new release is offered, and the timer leaves it to a person in manual mode", || {
        let found: Value = serde_json::from_str(&vm.ssh("os update check --json")?)?;
        ensure!(found["offered"] == "0.2.0" && found["running"] == "0.1.0", "{found}");
        vm.ssh("systemctl start os-update")?;
        equal(&vm.ssh("os update status --json | grep -o '\"phase\": \"[a-z]*\"'")?, "\"phase\": \"idle\"")
    });
    let mut boot = vm.ssh(BOOT_ID)?;
    let mut took = Duration::ZERO;
    checks.check("1 to 2: it is installed, started in the other slot, found healthy, and stays", || {
        let start = std::time::Instant::now();
        boot = apply(&mut vm, &boot, BOOT_LIMIT)?;
        took = start.elapsed();
        settled(&vm)?;
        equal(&slot(&vm)?, "B")?;
        equal(
            &vm.ssh("grep -o e2e.release=2 /proc/cmdline; docker ps --format '{{.Names}}'")?,
            "e2e.release=2\nhello",
        )?;
        let status = update_status(&vm)?;
        ensure!(status["phase"] == "idle" && status["running"]["version"] == "0.2.0", "{status}");
        equal(&vm.ssh(COUNTERS)?, "A_OK=1 A_TRY=0 B_OK=1 B_TRY=0 ORDER=B A")
    });
    checks.say(&format!("back after {:.0} s", took.as_secs_f64()));
    let layout = layout(&lab.repo, &lab.repo.vars()?)?;
    let work = lab.dir.join("replay");
    std::fs::create_dir_all(&work)?;
    if thorough {
        checks.check(
            "wherever the power fails in all this, a whole slot starts, and nothing is lost or refused",
            || {
                let known = maker.known(&["0.2.0"]);
                let crash = Crash { layout: &layout, known: &known, work: &work, settled: settled_at, kept: &kept };
                let trace = Trace::read(vm.traces())?;
                let outcome = crash.replay(&trace, &lab.dir.join("replayed.raw"), lab.points, SEED)?;
                print!("{outcome}");
                ensure!(outcome.wrong.is_empty(), "{} of {} disks", outcome.wrong.len(), outcome.disks);
                Ok(())
            },
        );
        lies(&maker, &site, &vm, checks)?;
        channel.list.serial += AFTER_LIES;
    }
    for (version, what, change, reason) in bad {
        maker.publish(&mut channel, &maker.bundle(version, change)?)?;
        if thorough {
            checks.check(&format!("2 to 3 with {what}, from a stick: it is found, installed, and told"), || {
                stick.copy_in(&site.path("stable"))?;
                vm.plug()?;
                vm.wait_for("systemctl is-active 'os-update-stick@*' | grep activ", Duration::from_secs(60))?;
                vm.wait_restart_by("'os-update-stick@*'", &boot, INSTALL_LIMIT + BOOT_LIMIT)?;
                let report = String::from_utf8(stick.read("update-e2e-update.txt")?)?;
                ensure!(report.contains(&format!("{version} is installed; restarting into it")), "{report}");
                Ok(())
            });
        }
        checks.check(
            &format!("2 to 3 with {what}: the device comes back by itself, says why, and does not try again"),
            || {
                let start = std::time::Instant::now();
                if !thorough {
                    apply(&mut vm, &boot, RETURN_LIMIT)?;
                }
                // A trial that fails late lets people in before.
                let back = "grep -q rauc.slot=B /proc/cmdline && systemctl is-active os-commit >/dev/null";
                vm.wait_through_restarts(back, RETURN_LIMIT)?;
                took = start.elapsed();
                boot = vm.ssh(BOOT_ID)?;
                let status = update_status(&vm)?;
                let refused = status["refused"].as_array().and_then(|r| r.last()).context("nothing is refused")?;
                ensure!(status["phase"] == "idle" && refused["version"] == *version, "{status}");
                ensure!(refused["reason"].as_str().is_some_and(|r| r.contains(reason)), "{refused}");
                let text = vm.ssh("os update check")?;
                ensure!(text.contains("failed on this device"), "{text}");
                equal(&vm.ssh("docker ps --format '{{.Names}}'")?, "hello")
            },
        );
        checks.say(&format!("back after {:.0} s", took.as_secs_f64()));
    }
    if thorough {
        checks.check("os update log has the journal of the boot that failed", || {
            let text = vm.ssh("os update log")?;
            ensure!(text.contains("failed here and is not tried again") && text.contains("os-health"), "{text:.600}");
            Ok(())
        });
    }
    let noise = if thorough { MUCH_NOISE } else { NOISE };
    let next = maker.bundle_with(&maker.compatible, "0.4.0", noise, &arguments("e2e.release=4".to_owned()))?;
    maker.publish(&mut channel, &next)?;
    // What comes without the noise: the kernel, and the tree behind the root.
    let others = came(&vm)?.first().context("nothing says what came")?.saturating_sub(NOISE >> 20);
    if thorough {
        let mut random = Random(SEED);
        checks.check("2 to 4: the plug is pulled in the middle of the installation", || {
            vm.ssh("os config set /os/update/rateLimit 1024")?;
            // What is written is on the medium soon, as it is where bytes come slowly.
            vm.ssh("sysctl -qw vm.dirty_bytes=8388608 vm.dirty_background_bytes=1048576")?;
            vm.ssh("systemd-run --quiet --unit=apply --collect os update apply")?;
            let enough = (others << 20) + noise / 2 + random.below(noise / 8);
            let fetched = "os update status --json | sed -n 's/.*\"fetched\": \\([0-9]*\\).*/\\1/p'";
            vm.wait_for(&format!("test $({fetched}) -gt {enough}"), INSTALL_LIMIT)?;
            equal(update_status(&vm)?["phase"].as_str().unwrap_or_default(), "installing")
        });
        drop(vm);
        let known = maker.known(&["0.2.0", "0.4.0"]);
        let crash = Crash { layout: &layout, known: &known, work: &work, settled: 0, kept: &kept };
        let mut look = |what: &str| {
            let mut left = String::new();
            checks.check(&format!("what {what} left: a whole slot starts, nothing is lost or refused"), || {
                left = crash.look(&lab.disk.path, true, true)?;
                ensure!(left.starts_with("starts 0.2.0 from slot B"), "{left}");
                Ok(())
            });
            checks.say(&left);
        };
        look("the cut");
        // Power that comes back badly goes again.
        let after = Duration::from_millis(random.below(u64::try_from(FLICKER.as_millis())?));
        lab.boot_with_web(site.port, Restart::Restarts)?.watch(after)?;
        look(&format!("another cut {:.0} s after power came back", after.as_secs_f64()));
        vm = lab.boot_with_web(site.port, Restart::Restarts)?;
        vm.wait_ssh()?;
        settled(&vm)?;
        is_kept(&vm, &kept)?;
        vm.ssh("os config unset /os/update/rateLimit")?;
        boot = vm.ssh(BOOT_ID)?;
    }
    checks.check("2 to 4: the next good release is taken", || {
        boot = apply(&mut vm, &boot, BOOT_LIMIT)?;
        settled(&vm)?;
        equal(&slot(&vm)?, "A")?;
        equal(&vm.ssh("grep -o e2e.release=4 /proc/cmdline")?, "e2e.release=4")
    });
    if thorough {
        checks.check("what was written before the plug was pulled was not fetched again", || {
            ensure!(vm.ssh("os update log")?.contains("installing 0.4.0 was interrupted"), "no word of it");
            let fetched = came(&vm)?.pop().context("nothing says what came")?;
            let all = others + (noise >> 20);
            println!("{fetched} of {all} MiB came");
            ensure!(fetched + (noise >> 22) < all, "{fetched} MiB came, {all} would be all");
            Ok(())
        });
    }
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}
