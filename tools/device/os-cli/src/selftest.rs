//! `os selftest`: does this board do what the OS needs of it?
//!
//! What only the hardware can show, and what the other commands know already, as one list for people who try the OS on a board.
//! The checks are pure: they read files below a [`root::Root`] and what the services said, which is asked for here.

mod clock;
mod disk;
mod engine;
mod machine;
mod network;
mod root;
mod slots;
mod watchdog;

use crate::status;
use disk::Disk;
use os_boot::Loader;
use os_dbus::{Bus, BusError, Tried};
use os_facts::report::{Report, Volume};
use os_facts::selftest::{Check, Hardware, SelfTest, System};
use os_facts::{Role, place};
use os_sys::cmd::Cmd;
use os_update::health::Waits;
use os_update::standing::Standing;
use os_update::trust;
use root::Root;
use rustix::time::{ClockId, clock_gettime};
use slots::Start;
use std::path::Path;
use std::time::Duration;

const UNITS: &str = "system.units";
/// How long the engine may take to answer.
const ANSWERS: Duration = Duration::from_secs(10);
/// How long a scan for networks may take, in seconds.
const SCAN: &str = "30";

/// What systemd says.
struct Systemd {
    /// Its state, such as `running`.
    state: String,
    failed: Vec<String>,
    /// The start was committed.
    committed: bool,
}

/// All of it, or with `quick` only what takes no time: no medium is read, no network looked for, no container run.
pub(crate) async fn run(quick: bool) -> SelfTest {
    let root = Root(Path::new("/"));
    let (now, monotonic) = (os_facts::clock::now(), clock_gettime(ClockId::Monotonic));
    let uptime = Duration::from_secs(u64::try_from(monotonic.tv_sec).unwrap_or(0));
    let loader = Loader::of_this_device();
    let mut test = SelfTest { os: system(), board: hardware(root), at: now, ..SelfTest::default() };
    test.add([machine::named(test.board.model.as_deref()), machine::memory(test.board.memory)]);
    let bus = Bus::system().await;
    let asked = match &bus {
        Ok(bus) => systemd(bus).await,
        Err(err) => Err(err.to_string()),
    };
    let report = Report::load(&root.path(os_facts::report::PATH));
    match &report {
        None => test.add([Check::failed(
            "slots.booted",
            "the initramfs left no report",
            "journalctl -b -o cat | grep os-init",
        )]),
        Some(report) => {
            test.slot = Some(report.slot);
            let standing = Standing::of_device();
            let rauc = match &bus {
                // It answers nobody then.
                _ if standing.phase == "installing" => None,
                Ok(bus) => {
                    let slots = bus.slots().await.map_err(|err| err.to_string());
                    os_update::let_rauc_rest(bus).await;
                    Some(slots)
                }
                Err(err) => Some(Err(err.to_string())),
            };
            test.add([
                slots::booted(root, report),
                slots::committed(&loader, report.slot, start(standing.phase, asked.as_ref().ok())),
                slots::counters(&loader),
                slots::rauc(rauc, report.slot),
            ]);
            let disk = Disk::new(root, &report.disk);
            test.add([
                disk.partitions(),
                disk.alignment(),
                disk.grown(status::space(place::DATA).map(|space| space.total)),
                disk::volumes(report),
                disk.discard(),
                disk.wear(),
            ]);
            if !quick {
                test.add([disk.speed(Role::Root(report.slot))]);
            }
        }
    }
    let was = report.as_ref().and_then(|report| report.clock_was);
    let floor = os_facts::clock::floor(Path::new("/"), Path::new(place::STATE));
    test.add([
        clock::rtc(root, now, uptime),
        clock::floor(now, floor, was),
        clock::synchronised(root.has(trust::SYNCHRONIZED)),
        watchdog::armed(root, fed(&bus, uptime).await),
    ]);
    test.add(networks(root, &bus, quick).await);
    test.add(engines(root, report.as_ref(), quick).await);
    let warnings = Cmd::new("journalctl").args(["-k", "-b", "-p", "warning", "-o", "cat", "--no-pager"]).read();
    test.add([
        machine::temperature(root),
        machine::power(root),
        machine::random(root),
        machine::tpm(root),
        machine::faults(root, warnings.ok().map(|text| text.lines().count())),
        machine::kexec(root),
        units(asked.map(|systemd| (systemd.state, systemd.failed))),
    ]);
    test
}

fn system() -> System {
    let status::Os { name, version, variant, machine, kernel, .. } = status::os();
    System { name, version, variant, machine, kernel }
}

fn hardware(root: Root<'_>) -> Hardware {
    Hardware {
        model: machine::model(root),
        architecture: rustix::system::uname().machine().to_string_lossy().into_owned(),
        firmware: machine::firmware(root),
        bootloader: os_facts::board::Board::load(&root.path(os_facts::board::PATH)).ok().map(|board| board.bootloader),
        memory: root.text("/proc/meminfo").and_then(|text| status::memory(&text)).map(|memory| memory.total),
    }
}

async fn systemd(bus: &Bus) -> Result<Systemd, String> {
    let ask = async || -> Result<Systemd, BusError> {
        let systemd = bus.systemd().await?;
        let state = systemd.system_state().await.tried("cannot ask systemd for its state")?;
        let failed = systemd.list_units_filtered(&["failed"]).await.tried("cannot list units")?;
        let committed = bus.is_active("os-commit.service").await?;
        Ok(Systemd { state, failed: failed.into_iter().map(|unit| unit.0).collect(), committed })
    };
    ask().await.map_err(|err| err.to_string())
}

fn start(phase: &str, systemd: Option<&Systemd>) -> Start {
    match systemd {
        _ if phase == "trial" => Start::Trial,
        Some(systemd) if systemd.committed => Start::Committed,
        Some(systemd) if systemd.state == status::STARTING => Start::Checking,
        _ => Start::Uncommitted,
    }
}

/// Every unit came up; `asked`: systemd's state, and those that failed.
fn units(asked: Result<(String, Vec<String>), String>) -> Check {
    let waits = || Waits::load().waits_for.join("; ");
    match asked {
        Err(err) => Check::failed(UNITS, err, "journalctl -b -p err"),
        Ok((_, failed)) if !failed.is_empty() => {
            let remedy = "systemctl status and journalctl -u with the name of the unit say why";
            Check::failed(UNITS, format!("failed: {}", failed.join(" ")), remedy)
        }
        Ok((state, _)) if state == status::STARTING => {
            Check::skipped(UNITS, format!("the device still starts; {}", waits()).trim_end_matches("; "))
        }
        Ok((state, _)) => Check::passed(UNITS, format!("none failed, the system is {state}")),
    }
}

async fn fed(bus: &Result<Bus, BusError>, uptime: Duration) -> Result<watchdog::Fed, String> {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let ask = async |bus: &Bus| -> Result<watchdog::Fed, BusError> {
        let systemd = bus.systemd().await?;
        let timeout = systemd.runtime_watchdog_usec().await.tried("cannot ask systemd for its watchdog")?;
        let last =
            systemd.watchdog_last_ping_timestamp_monotonic().await.tried("cannot ask systemd for its watchdog")?;
        // Asked for before, in whole seconds: it may have been fed meanwhile.
        let now = micros(uptime).max(if last == u64::MAX { 0 } else { last });
        Ok(watchdog::Fed { timeout, last, now })
    };
    match bus {
        Ok(bus) => ask(bus).await.map_err(|err| err.to_string()),
        Err(err) => Err(err.to_string()),
    }
}

async fn networks(root: Root<'_>, bus: &Result<Bus, BusError>, quick: bool) -> Vec<Check> {
    let mut checks = network::connected(root, &os_config::links::read());
    let manager = match bus {
        Ok(bus) => status::network(bus).await.map_err(|err| err.to_string()),
        Err(err) => Err(err.to_string()),
    };
    checks.push(network::state(manager));
    let radios = network::radios(root);
    if radios.is_empty() {
        checks.push(network::deaf());
        return checks;
    }
    checks.push(network::country(&Cmd::new("iw").args(["reg", "get"]).read().unwrap_or_default()));
    if quick {
        return checks;
    }
    checks.extend(radios.iter().map(|radio| {
        let ask = Cmd::new("nmcli").args(["--wait", SCAN, "--get-values", "BSSID", "device", "wifi", "list"]);
        let said = ask.args(["ifname", radio, "--rescan", "yes"]).read();
        network::heard(
            said.map(|text| text.lines().filter(|line| !line.trim().is_empty()).count()).map_err(|err| err.to_string()),
        )
    }));
    checks
}

async fn engines(root: Root<'_>, report: Option<&Report>, quick: bool) -> Vec<Check> {
    let cgroups = engine::cgroups(root);
    if report.is_some_and(|report| report.data == Volume::Unusable) {
        return vec![Check::skipped("engine.answers", "the engine is off: data cannot be used"), cgroups];
    }
    let version = os_apps::engine::version(ANSWERS).await;
    let mut checks = vec![engine::answers(version.as_deref()), cgroups];
    if version.is_some() {
        let driver = engine::driver().map_err(|err| err.to_string());
        checks.push(engine::storage(driver.as_deref().map_err(Clone::clone)));
    }
    if version.is_some() && !quick {
        checks.push(engine::container(engine::run()));
    }
    checks
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use os_facts::Slot;
    use os_facts::selftest::Outcome::{Failed, Passed, Skipped};

    /// What a board says on which nearly all is well.
    pub(crate) fn example() -> SelfTest {
        let text = |text: &str| text.to_owned();
        let mut test = SelfTest {
            os: System {
                name: text("OS"),
                version: text("0.3.0"),
                variant: text("production"),
                machine: text("raspberrypi4-64"),
                kernel: text("6.12.47"),
            },
            board: Hardware {
                model: Some(text("Raspberry Pi 4 Model B Rev 1.4")),
                architecture: text("aarch64"),
                firmware: Some(text("EEPROM c305221a, U-Boot 2025.01")),
                bootloader: Some(text("u-boot")),
                memory: Some(4_000_000_000),
            },
            slot: Some(Slot::A),
            at: 1_764_237_600,
            ..SelfTest::default()
        };
        test.add([
            Check::passed("disk.grown", "data reaches to the end of the disk: 28910 MiB"),
            Check::failed(
                "machine.power",
                "the voltage was too low",
                "use the power supply and cable made for this board",
            ),
            network::deaf(),
        ]);
        test
    }

    #[test]
    fn a_start_counts_when_it_was_committed() {
        let systemd = |state: &str, committed| Systemd { state: state.to_owned(), failed: vec![], committed };
        assert_eq!(start("trial", Some(&systemd("running", true))), Start::Trial);
        assert_eq!(start("idle", Some(&systemd("running", true))), Start::Committed);
        assert_eq!(start("idle", Some(&systemd("starting", false))), Start::Checking);
        assert_eq!(start("idle", Some(&systemd("degraded", false))), Start::Uncommitted);
        assert_eq!(start("idle", None), Start::Uncommitted);
    }

    #[test]
    fn a_unit_that_failed_is_named() {
        let outcome = |state: &str, failed: &[&str]| {
            units(Ok((state.to_owned(), failed.iter().map(|unit| (*unit).to_owned()).collect()))).outcome
        };
        assert_eq!((outcome("running", &[]), outcome("starting", &[])), (Passed, Skipped));
        assert_eq!(outcome("degraded", &["ssh.service"]), Failed);
        assert_eq!(units(Err("no bus".to_owned())).outcome, Failed);
    }
}
