//! Pulls the plug at random moments of an update, a rollback, a wipe and a first boot, starts the machine again, and looks
//! at what is left. Power that goes once often goes again: some of the starts afterwards are cut, too. Every cut is added
//! to `docs/power.jsonl`, from which `docs/power.md` is written.

pub(crate) mod crash;
mod report;

use self::crash::{Crash, RESCUE};
use crate::harness::artifacts::{Artifacts, Source};
use crate::harness::device::{AVAHI_NAME, is_kept, keep, leave_rescue, run_containers, settled, update_status};
use crate::harness::disk::copy;
use crate::harness::fat::Fat;
use crate::harness::lab::Lab;
use crate::harness::random::Random;
use crate::harness::release::{Known, Maker, arguments, no_engine};
use crate::harness::site::Site;
use crate::harness::vm::{Restart, Vm};
use anyhow::{Context, Result, anyhow, ensure};
use lab::repo::Repo;
use os_sys::cmd::Cmd;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What the device is at when the plug is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum At {
    FirstBoot,
    Install,
    Trial,
    Rollback,
    Wipe,
}

impl At {
    /// What an update passes through comes more often.
    fn any(random: &mut Random) -> Self {
        match random.below(10) {
            0..4 => Self::Install,
            4..7 => Self::Trial,
            7 => Self::Rollback,
            8 => Self::Wipe,
            _ => Self::FirstBoot,
        }
    }

    /// How many cuts follow on each other, and within what time of a start when the power flickers. Three in a trial are
    /// what the bootloader takes for a bad release.
    fn row(self, random: &mut Random) -> (u64, Option<Duration>) {
        match (self, random.below(2)) {
            (Self::Trial, _) => (1 + random.below(2), None),
            (_, 0) => (1 + random.below(8), None),
            _ => (8 + random.below(9), Some(FLICKER)),
        }
    }

    /// What a start after a cut does, as far as its length goes.
    fn next(self) -> Self {
        match self {
            Self::FirstBoot | Self::Install | Self::Wipe => Self::FirstBoot,
            Self::Trial | Self::Rollback => self,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::FirstBoot => "the first boot",
            Self::Install => "the installation and the restart after it",
            Self::Trial => "the trial boot, its health check and the commit",
            Self::Rollback => "the trial of a bad release and the way back",
            Self::Wipe => "a wipe of everything",
        }
    }
}

/// One pulled plug; kept, so that campaigns add up.
#[derive(Debug, Serialize, Deserialize)]
struct Cut {
    /// Commit of the product.
    commit: String,
    at: At,
    /// Which of the cuts that followed on each other, from 1 on.
    #[serde(default = "first")]
    nth: u64,
    /// Seconds after the beginning of what was cut, or of the start after the cut before.
    after: f64,
    /// What the disk said, before anything started from it.
    left: String,
    /// What the device said afterwards, or that it was cut again.
    then: String,
    /// Why that is wrong.
    wrong: Option<String>,
    /// The commit that mends it, written by hand; see [`is_mended`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fixed_by: Option<String>,
}

/// True when somebody says what mended the cut at this place in the record, and another one that came as late in the same
/// work has gone well since: a word alone mends nothing.
fn is_mended(all: &[Cut], place: usize) -> bool {
    let Some(cut) = all.get(place) else { return false };
    let as_late = |later: &&Cut| later.at == cut.at && later.nth >= cut.nth;
    cut.fixed_by.is_some() && all.iter().skip(place + 1).filter(as_late).any(|later| later.wrong.is_none())
}

fn first() -> u64 {
    1
}

/// Power that comes back badly goes again within so long: in the firmware, the bootloader, the initramfs.
pub(crate) const FLICKER: Duration = Duration::from_secs(30);

const AGAIN: &str = "it was cut again";

/// Disks to begin from, and how long what begins there takes.
struct Bases {
    fresh: PathBuf,
    settled: PathBuf,
    armed: PathBuf,
    armed_bad: PathBuf,
    wipe: PathBuf,
    lasts: BTreeMap<At, Duration>,
    settled_ram: PathBuf,
    settled_vars: PathBuf,
    kept: Vec<(&'static str, String)>,
    /// Versions of the two releases.
    good: String,
    bad: String,
    known: Vec<Known>,
}

/// Cuts `cuts` times; with 0 only the report is written anew.
pub(crate) fn run(repo: &Repo, source: &Source, cuts: u64, seed: u64) -> Result<()> {
    let results = repo.root.join("docs/power.jsonl");
    if cuts > 0 {
        cut(repo, &Arc::new(source.find(repo)?), &results, cuts, seed)?;
    }
    let all: Vec<Cut> =
        os_sys::files::read_text(&results)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    report::write(repo, &all)?;
    let wrong = all.iter().enumerate().filter(|(place, cut)| cut.wrong.is_some() && !is_mended(&all, *place)).count();
    ensure!(wrong == 0, "{wrong} of {} cuts left a device that is not as it should be; docs/power.md", all.len());
    Ok(())
}

fn cut(repo: &Repo, artifacts: &Arc<Artifacts>, results: &Path, cuts: u64, seed: u64) -> Result<()> {
    let dir = repo.build.join("campaign");
    std::fs::create_dir_all(&dir)?;
    // Of what is built now; preparing takes a while, and others go on.
    let commit = Cmd::new("git").args(["describe", "--always", "--dirty"]).dir(&repo.root).read()?.trim().to_owned();
    let lab = Lab::new(artifacts, dir.join("base"), 0)?;
    let maker = Maker::new(artifacts, lab.dir.join("releases"))?;
    let site = Site::start(&lab.dir.join("site"))?;
    println!("Preparing: a settled device, and two that are about to try a release …");
    let other = Lab::new(artifacts, dir.join("other"), 0)?;
    let bases = prepare(&lab, &other, &maker, &site)?;
    let record = Mutex::new(std::fs::File::options().create(true).append(true).open(results)?);
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = |worker: u64| -> Result<()> {
        let lab = Lab::new(artifacts, dir.join(format!("worker-{worker}")), 0)?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let mut random = Random(seed.wrapping_mul(1_000_003).wrapping_add(number));
            let at = At::any(&mut random);
            let (times, flicker) = at.row(&mut random);
            let times = times.min(cuts.saturating_sub(done.load(Ordering::Relaxed)));
            if times == 0 {
                return Ok(());
            }
            done.fetch_add(times, Ordering::Relaxed);
            let lasts = |at: At| bases.lasts.get(&at).copied().unwrap_or(Duration::from_secs(60));
            let mut row = Vec::new();
            for nth in 1..=times {
                let within = if nth == 1 { lasts(at) } else { flicker.unwrap_or(lasts(at.next())) };
                let after = Duration::from_millis(random.below(u64::try_from(within.as_millis())?)).as_secs_f64();
                let then = AGAIN.to_owned();
                row.push(Cut {
                    commit: commit.clone(),
                    at,
                    nth,
                    after,
                    left: String::new(),
                    then,
                    wrong: None,
                    fixed_by: None,
                });
            }
            let pulled = pull(&lab, &bases, site.port, &mut row);
            if let Err(err) = pulled {
                // The cuts after the one that went wrong were not made.
                let made = row.iter().position(|cut| cut.left.is_empty()).map_or(row.len(), |wrong| wrong + 1);
                row.truncate(made);
                if let Some(last) = row.last_mut() {
                    last.wrong = Some(format!("{err:#}"));
                }
                // To be looked at.
                std::fs::rename(&lab.disk.path, dir.join(format!("wrong-{seed}-{number}.raw")))?;
            }
            let mut record = record.lock().map_err(|_| anyhow!("a worker panicked"))?;
            for cut in row {
                let verdict = cut.wrong.as_deref().unwrap_or("ok");
                let Cut { nth, after, left, then, .. } = &cut;
                println!("{number:4}  {}, cut {nth} after {after:.1} s: {left}; {then}; {verdict}", at.words());
                writeln!(record, "{}", serde_json::to_string(&cut)?)?;
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().try_for_each(|w| w.join().map_err(|_| anyhow!("a worker panicked"))?)
    })
}

/// `other` is another machine, so that both of our processors have something to do.
fn prepare(lab: &Lab, other: &Lab, maker: &Maker, site: &Site) -> Result<Bases> {
    let at = |name: &str| lab.dir.join(format!("{name}.raw"));
    let config =
        json!({ "hostname": "campaign", "os": { "update": { "channel": Site::url("good"), "mode": "manual" } } });
    lab.disk.fat.write("config.json", &lab.config(config)?)?;
    let (fresh, settled_disk) = (at("fresh"), at("settled"));
    copy(&lab.disk.path, &fresh)?;
    let no_engine = no_engine();
    let (good, bad) = (lab.artifacts.later(1, 0)?, lab.artifacts.later(2, 0)?);
    for (channel, version, change) in [
        ("good", &good, &arguments("e2e.release=2".to_owned()) as &dyn Fn(&Fat) -> Result<()>),
        ("bad", &bad, &no_engine),
    ] {
        // The same name in both, so that one configuration believes both.
        let mut directory = maker.channel(&site.path(channel))?;
        directory.list.name = "good".to_owned();
        maker.publish(&mut directory, &maker.bundle(version, change)?)?;
    }
    let mut lasts = BTreeMap::new();
    let mut vm = lab.boot_with_web(site.port, Restart::Ends)?;
    vm.wait_ssh()?;
    lasts.insert(At::FirstBoot, vm.started.elapsed());
    settled(&vm)?;
    // Until the archive that the container came from is gone.
    vm.wait_for("systemctl is-system-running --wait >/dev/null", Duration::from_secs(300))?;
    let kept = keep(&vm)?;
    // A running device, so that not every cut of an installation takes a boot first.
    let (settled_ram, settled_vars) = (lab.dir.join("settled.ram"), lab.dir.join("settled.vars"));
    vm.freeze(&settled_ram)?;
    copy(&lab.disk.path, &settled_disk)?;
    copy(&lab.dir.join("firmware-vars.fd"), &settled_vars)?;
    drop(vm);
    let trial_of = |lab: &Lab, channel: &str, to: &Path| -> Result<Duration> {
        copy(&settled_disk, &lab.disk.path)?;
        copy(&settled_vars, &lab.dir.join("firmware-vars.fd"))?;
        let mut vm = lab.thaw(&settled_ram, site.port, Restart::Ends)?;
        let start = Instant::now();
        begin(&vm, channel)?;
        vm.wait_end(Duration::from_secs(900))?;
        copy(&lab.disk.path, to)?;
        Ok(start.elapsed())
    };
    let (armed, armed_bad) = (at("armed"), at("armed-bad"));
    let installs = std::thread::scope(|scope| {
        let bad = scope.spawn(|| trial_of(other, "bad", &armed_bad));
        let installs = trial_of(lab, "good", &armed)?;
        bad.join().map_err(|_| anyhow!("it panicked"))??;
        Ok::<_, anyhow::Error>(installs)
    })?;
    let boot = lasts.get(&At::FirstBoot).copied().unwrap_or_default();
    // About: a health check takes as long as a boot, and a bad release is followed by another boot.
    lasts.extend([(At::Install, installs), (At::Trial, boot * 2), (At::Rollback, boot * 3)]);
    copy(&settled_disk, &lab.disk.path)?;
    let wipe = at("wipe");
    lab.disk.fat.write("wipe", b"all")?;
    copy(&lab.disk.path, &wipe)?;
    // In the initramfs, well before a login.
    lasts.insert(At::Wipe, boot / 2);
    for (at, duration) in &lasts {
        println!("  {} lasts {:.0} s", at.words(), duration.as_secs_f64());
    }
    Ok(Bases {
        fresh,
        settled: settled_disk,
        armed,
        armed_bad,
        wipe,
        lasts,
        settled_ram,
        settled_vars,
        kept,
        known: maker.known(&[&good, &bad]),
        good,
        bad,
    })
}

fn begin(vm: &Vm, channel: &str) -> Result<()> {
    vm.ssh(&format!("systemd-run --quiet --unit=apply --collect os update apply --from {}", Site::url(channel)))
        .map(drop)
}

/// Pulls the plug once for every entry of `row`, looks at what is left each time, and at the end lets the device go on.
fn pull(lab: &Lab, bases: &Bases, port: u16, row: &mut [Cut]) -> Result<()> {
    let at = row.first().context("no cut")?.at;
    let base = match at {
        At::FirstBoot => &bases.fresh,
        At::Install => &bases.settled,
        At::Trial => &bases.armed,
        At::Rollback => &bases.armed_bad,
        At::Wipe => &bases.wipe,
    };
    copy(base, &lab.disk.path)?;
    let keeps = !matches!(at, At::FirstBoot | At::Wipe);
    let work = lab.dir.join("look");
    std::fs::create_dir_all(&work)?;
    let crash = Crash { artifacts: &lab.artifacts, known: &bases.known, work: &work, settled: 0, kept: &bases.kept };
    for cut in row.iter_mut() {
        let mut vm = if at == At::Install && cut.nth == 1 {
            copy(&bases.settled_vars, &lab.dir.join("firmware-vars.fd"))?;
            let vm = lab.thaw(&bases.settled_ram, port, Restart::Restarts)?;
            begin(&vm, "good")?;
            vm
        } else {
            lab.boot_with_web(port, Restart::Restarts)?
        };
        vm.watch(Duration::from_secs_f64(cut.after))?;
        drop(vm);
        // A bad release is refused, and may be.
        cut.left = crash.look(&lab.disk.path, keeps, at != At::Rollback)?;
    }
    let last = row.last_mut().context("no cut")?;
    let mut vm = lab.boot_with_web(port, Restart::Restarts)?;
    if last.left.starts_with(RESCUE) {
        vm.wait_ssh()?;
        leave_rescue(&mut vm, &lab.artifacts.console)?;
    }
    vm.wait_through_restarts("systemctl is-active os-commit >/dev/null", Duration::from_secs(300))?;
    let status = update_status(&vm)?;
    let boot: Value = serde_json::from_str(&vm.ssh_code("os status --json")?.1)?;
    last.then = format!(
        "{} in slot {}, {}",
        release(&vm, lab, bases)?,
        boot["boot"]["slot"].as_str().unwrap_or("?"),
        status["phase"]
    );
    ensure!(boot["health"]["failedUnits"] == json!([]), "units failed: {}", boot["health"]["failedUnits"]);
    ensure!(
        vm.ssh("findmnt -n -o SOURCE,OPTIONS /")?.starts_with("/dev/mapper/os-root ro"),
        "the root is not verified"
    );
    if keeps {
        is_kept(&vm, &bases.kept)?;
        run_containers(&vm, &lab.artifacts.containers())?;
    }
    // No matter of power, and rare: whoever reads along learns why.
    let name = vm.ssh(AVAHI_NAME)?;
    if keeps && name.trim() != "s \"campaign.local\"" {
        println!("avahi announces {name}{}", vm.ssh("journalctl -b -u avahi-daemon --no-pager -o short-monotonic")?);
    }
    let refused = status["refused"].as_array().map_or(0, Vec::len);
    match at {
        At::FirstBoot | At::Install | At::Wipe => ensure!(refused == 0, "{status}"),
        At::Trial => ensure!(refused == 0 && status["running"]["version"] == bases.good, "{status}"),
        At::Rollback => ensure!(refused == 1 && status["refused"][0]["version"] == bases.bad, "{status}"),
    }
    if at == At::Wipe {
        let left = vm.ssh("ls /mnt/data/mark /mnt/boot/wipe 2>/dev/null; true")?;
        ensure!(left.trim().is_empty(), "the wipe was not carried out: {left}");
    }
    Ok(())
}

/// What runs, by its kernel arguments.
fn release<'a>(vm: &Vm, lab: &'a Lab, bases: &'a Bases) -> Result<&'a str> {
    let second = vm.ssh_code("grep -q e2e.release=2 /proc/cmdline")?.0 == 0;
    Ok(if second { &bases.good } else { &lab.artifacts.version })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(at: At, nth: u64, wrong: Option<&str>, fixed_by: Option<&str>) -> Cut {
        let [wrong, fixed_by] = [wrong, fixed_by].map(|text| text.map(str::to_owned));
        Cut { commit: String::new(), at, nth, after: 1.0, left: String::new(), then: String::new(), wrong, fixed_by }
    }

    #[test]
    fn a_failure_is_mended_by_a_commit_and_a_cut_that_shows_it() {
        let failed = || cut(At::Wipe, 4, Some("rescue"), Some("abc"));
        assert!(is_mended(&[failed(), cut(At::Wipe, 5, None, None)], 0));
        for later in [cut(At::Wipe, 3, None, None), cut(At::Install, 5, None, None), cut(At::Wipe, 4, Some("x"), None)]
        {
            assert!(!is_mended(&[failed(), later], 0), "no cut shows it");
        }
        assert!(!is_mended(&[cut(At::Wipe, 5, None, None), failed()], 1), "the cut came before");
        assert!(!is_mended(&[cut(At::Wipe, 4, Some("x"), None), cut(At::Wipe, 4, None, None)], 0), "nobody mended it");
    }
}
