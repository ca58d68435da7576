//! Pulls the plug at random moments of an update, a rollback, a wipe and a first boot, starts the machine again, and looks
//! at what is left. Every cut is added to `docs/power.jsonl`, from which `docs/power.md` is written.

use crate::crash::{Crash, Known, Random};
use crate::scenarios::{Lab, VARIANT};
use crate::updates::{HEALTH, Maker, Site, arguments, settled, update_status};
use crate::vm::{Restart, Vm};
use anyhow::{Result, anyhow, ensure};
use os_disk::layout::Layout;
use os_sys::cmd::Cmd;
use osctl::lab::disk::layout;
use osctl::lab::keys;
use osctl::qemu;
use osctl::repo::Repo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// Seconds after the beginning of what was cut.
    after: f64,
    /// What the disk said, before anything started from it.
    left: String,
    /// What the device said afterwards.
    then: String,
    /// Why that is wrong.
    wrong: Option<String>,
}

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
    known: Vec<Known>,
    layout: Layout,
}

/// Cuts `cuts` times; with 0 only the report is written anew.
pub(crate) fn run(repo: &Repo, cuts: u64, seed: u64) -> Result<()> {
    let results = repo.root.join("docs/power.jsonl");
    if cuts > 0 {
        cut(repo, &results, cuts, seed)?;
    }
    let all: Vec<Cut> =
        os_sys::files::read_text(&results)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    report(repo, &all)?;
    let wrong = all.iter().filter(|c| c.wrong.is_some()).count();
    ensure!(wrong == 0, "{wrong} of {} cuts left a device that is not as it should be; docs/power.md", all.len());
    Ok(())
}

fn cut(repo: &Repo, results: &Path, cuts: u64, seed: u64) -> Result<()> {
    let dir = repo.build.join("campaign");
    std::fs::create_dir_all(&dir)?;
    let keys = keys::ensure(repo)?;
    let accel = qemu::accel(repo, VARIANT)?;
    let lab = Lab::new(repo, dir.join("base"), keys.clone(), accel, 0)?;
    let maker = Maker::new(&lab)?;
    let site = Site::start(&lab.dir.join("site"))?;
    println!("Preparing: a settled device, and two that are about to try a release …");
    let bases = prepare(&lab, &maker, &site)?;
    let commit = Cmd::new("git").args(["describe", "--always", "--dirty"]).dir(&repo.root).read()?.trim().to_owned();
    let record = Mutex::new(std::fs::File::options().create(true).append(true).open(results)?);
    let next = AtomicU64::new(0);
    let work = |worker: u64| -> Result<()> {
        let lab = Lab::new(repo, dir.join(format!("worker-{worker}")), keys.clone(), accel, 0)?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= cuts {
                return Ok(());
            }
            let mut random = Random(seed.wrapping_mul(1_000_003).wrapping_add(number));
            let at = At::any(&mut random);
            let most = bases.lasts.get(&at).copied().unwrap_or(Duration::from_secs(60));
            let after = Duration::from_millis(random.below(u64::try_from(most.as_millis())?));
            let mut cut = Cut {
                commit: commit.clone(),
                at,
                after: after.as_secs_f64(),
                left: String::new(),
                then: String::new(),
                wrong: None,
            };
            if let Err(err) = pull(&lab, &bases, site.port, &mut cut, after) {
                cut.wrong = Some(format!("{err:#}"));
                // To be looked at.
                std::fs::rename(&lab.disk.path, dir.join(format!("wrong-{seed}-{number}.raw")))?;
            }
            let verdict = cut.wrong.as_deref().unwrap_or("ok");
            println!("{number:4}  {} after {:.1} s: {}; {}; {verdict}", at.words(), cut.after, cut.left, cut.then);
            let line = serde_json::to_string(&cut)?;
            writeln!(record.lock().map_err(|_| anyhow!("a worker panicked"))?, "{line}")?;
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().try_for_each(|w| w.join().map_err(|_| anyhow!("a worker panicked"))?)
    })
}

fn prepare(lab: &Lab, maker: &Maker<'_>, site: &Site) -> Result<Bases> {
    let at = |name: &str| lab.dir.join(format!("{name}.raw"));
    let config =
        json!({ "hostname": "campaign", "os": { "update": { "channel": Site::url("good"), "mode": "manual" } } });
    lab.disk.write("config.json", &lab.config(config)?)?;
    let (fresh, settled_disk) = (at("fresh"), at("settled"));
    copy(&lab.disk.path, &fresh)?;
    let no_engine = arguments(format!("systemd.mask=docker.service systemd.mask=docker.socket {HEALTH}"));
    for (channel, version, change) in [
        ("good", "0.2.0", &arguments("e2e.release=2".to_owned()) as &dyn Fn(&Path) -> Result<()>),
        ("bad", "0.3.0", &no_engine),
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
    vm.ssh("head -c 300000 /dev/urandom | base64 > /mnt/data/mark; sync")?;
    let files = [("/os/device-id", "/mnt/state/os/device-id"), ("/mark", "/mnt/data/mark")];
    let kept = files.map(|(name, path)| vm.ssh(&format!("cat {path}")).map(|content| (name, content)));
    let kept = kept.into_iter().collect::<Result<Vec<_>>>()?;
    // A running device, so that not every cut of an installation takes a boot first.
    let (settled_ram, settled_vars) = (lab.dir.join("settled.ram"), lab.dir.join("settled.vars"));
    vm.freeze(&settled_ram)?;
    copy(&lab.disk.path, &settled_disk)?;
    copy(&lab.dir.join("firmware-vars.fd"), &settled_vars)?;
    drop(vm);
    let trial_of = |channel: &str, to: &Path| -> Result<Duration> {
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
    let installs = trial_of("good", &armed)?;
    lasts.insert(At::Install, installs);
    trial_of("bad", &armed_bad)?;
    for (base, kind) in [(&armed, At::Trial), (&armed_bad, At::Rollback)] {
        copy(base, &lab.disk.path)?;
        let mut vm = lab.boot_with_web(site.port, Restart::Restarts)?;
        let start = Instant::now();
        let over =
            "os update status --json | grep -q '\"phase\": \"idle\"' && systemctl is-active os-commit >/dev/null";
        vm.wait_through_restarts(over, Duration::from_secs(900))?;
        lasts.insert(kind, start.elapsed());
    }
    copy(&settled_disk, &lab.disk.path)?;
    let wipe = at("wipe");
    lab.disk.write("wipe", b"all")?;
    copy(&lab.disk.path, &wipe)?;
    // In the initramfs, well before a login.
    lasts.insert(At::Wipe, lasts.get(&At::FirstBoot).copied().unwrap_or_default() / 2);
    for (at, duration) in &lasts {
        println!("  {} lasts {:.0} s", at.words(), duration.as_secs_f64());
    }
    let known =
        [("0.1.0", maker.images.kernel.clone()), ("0.2.0", maker.kernel("0.2.0")), ("0.3.0", maker.kernel("0.3.0"))]
            .map(|(version, kernel)| Known { version, kernel, root: maker.images.root.clone() });
    let layout = layout(&lab.repo, &lab.repo.vars()?)?;
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
        known: known.into(),
        layout,
    })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let _ = std::fs::remove_file(to);
    Ok(Cmd::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(from).arg(to).run()?)
}

fn begin(vm: &Vm, channel: &str) -> Result<()> {
    vm.ssh(&format!("systemd-run --quiet --unit=apply --collect os update apply --from {}", Site::url(channel)))
        .map(drop)
}

/// Pulls the plug once, and looks at what is left.
fn pull(lab: &Lab, bases: &Bases, port: u16, cut: &mut Cut, after: Duration) -> Result<()> {
    let base = match cut.at {
        At::FirstBoot => &bases.fresh,
        At::Install => &bases.settled,
        At::Trial => &bases.armed,
        At::Rollback => &bases.armed_bad,
        At::Wipe => &bases.wipe,
    };
    copy(base, &lab.disk.path)?;
    if cut.at == At::Install {
        copy(&bases.settled_vars, &lab.dir.join("firmware-vars.fd"))?;
        let mut vm = lab.thaw(&bases.settled_ram, port, Restart::Restarts)?;
        begin(&vm, "good")?;
        vm.watch(after)?;
    } else {
        let mut vm = lab.boot_with_web(port, Restart::Restarts)?;
        vm.watch(after)?;
    }
    let keeps = !matches!(cut.at, At::FirstBoot | At::Wipe);
    let work = lab.dir.join("look");
    std::fs::create_dir_all(&work)?;
    let crash = Crash { layout: &bases.layout, known: &bases.known, work: &work, settled: 0, kept: &bases.kept };
    // A bad release is refused, and may be.
    cut.left = crash.look(&lab.disk.path, keeps, cut.at != At::Rollback)?;
    let mut vm = lab.boot_with_web(port, Restart::Restarts)?;
    vm.wait_through_restarts("systemctl is-active os-commit >/dev/null", Duration::from_secs(900))?;
    let status = update_status(&vm)?;
    let boot: Value = serde_json::from_str(&vm.ssh_code("os status --json")?.1)?;
    cut.then =
        format!("{} in slot {}, {}", release(&vm)?, boot["boot"]["slot"].as_str().unwrap_or("?"), status["phase"]);
    ensure!(boot["health"]["failedUnits"] == json!([]), "units failed: {}", boot["health"]["failedUnits"]);
    ensure!(
        vm.ssh("findmnt -n -o SOURCE,OPTIONS /")?.starts_with("/dev/mapper/os-root ro"),
        "the root is not verified"
    );
    if keeps {
        for (name, content) in [("/mnt/state/os/device-id", &bases.kept[0].1), ("/mnt/data/mark", &bases.kept[1].1)] {
            ensure!(vm.ssh(&format!("cat {name}"))?.trim() == content.trim(), "{name} is not what it was");
        }
        ensure!(vm.ssh("docker ps --format '{{.Names}}'")?.trim() == "hello", "the container does not run");
    }
    let refused = status["refused"].as_array().map_or(0, Vec::len);
    match cut.at {
        At::FirstBoot | At::Install | At::Wipe => ensure!(refused == 0, "{status}"),
        At::Trial => ensure!(refused == 0 && status["running"]["version"] == "0.2.0", "{status}"),
        At::Rollback => ensure!(refused == 1 && status["refused"][0]["version"] == "0.3.0", "{status}"),
    }
    if cut.at == At::Wipe {
        let left = vm.ssh("ls /mnt/data/mark /mnt/boot/wipe 2>/dev/null; true")?;
        ensure!(left.trim().is_empty(), "the wipe was not carried out: {left}");
    }
    Ok(())
}

fn release(vm: &Vm) -> Result<&'static str> {
    let second = vm.ssh_code("grep -q e2e.release=2 /proc/cmdline")?.0 == 0;
    Ok(if second { "0.2.0" } else { "0.1.0" })
}

fn report(repo: &Repo, cuts: &[Cut]) -> Result<()> {
    let mut text = String::from(
        "# Power cuts\n\nMade by `make campaign N=…` from `power.jsonl`, to which every campaign adds; do not edit.\n\n\
         A machine is killed at a random moment, its disk is looked at, it is started again until its health is confirmed. \
         Every time: a whole slot starts, its root is verified, no unit fails, what the owner put on state and data is \
         there and the container runs (after a wipe: is gone), nothing good is refused, a bad release is.\n\n",
    );
    let wrong: Vec<&Cut> = cuts.iter().filter(|c| c.wrong.is_some()).collect();
    writeln!(text, "{} cuts, {} of them with something wrong.\n", cuts.len(), wrong.len())?;
    writeln!(text, "| cut in | cuts | wrong |\n|---|---|---|")?;
    for at in [At::FirstBoot, At::Install, At::Trial, At::Rollback, At::Wipe] {
        let count = |wanted: bool| cuts.iter().filter(|c| c.at == at && (!wanted || c.wrong.is_some())).count();
        writeln!(text, "| {} | {} | {} |", at.words(), count(false), count(true))?;
    }
    let mut phases: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for cut in cuts {
        *phases.entry((&cut.left, &cut.then)).or_default() += 1;
    }
    writeln!(text, "\n| what the cut left on the disk | what ran when health was confirmed | times |\n|---|---|---|")?;
    for ((left, then), times) in phases {
        writeln!(text, "| {left} | {then} | {times} |")?;
    }
    for cut in wrong {
        let why = cut.wrong.as_deref().unwrap_or_default();
        writeln!(text, "\nWrong: {}, {:.1} s after it began: {why}", cut.at.words(), cut.after)?;
    }
    os_sys::files::write_if_changed(&repo.root.join("docs/power.md"), text.as_bytes(), 0o644)?;
    Ok(())
}
