//! `os status`: everything a person asks first, from the services that know it.
//!
//! A part that cannot be asked is missing from the answer, with a line that says why; it never hides the rest.

use crate::engine::Engine;
use crate::restart::Last;
use crate::slot::{self, Row};
use anyhow::Result;
use os_config::links::{self, Link};
use os_config::status::Status as ConfigStatus;
use os_config_model::decide::Source;
use os_dbus::{Bus, BusError, Tried};
use os_facts::identity;
use os_facts::place::STATE;
use os_facts::report::{Report, Volume};
use os_update::health::Waits;
use os_update::standing::Standing;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// systemd's word for a device, and for a unit, that is not up yet.
pub(crate) const STARTING: &str = "starting";

/// The answer. The JSON form is stable; fields are only ever added.
#[derive(Debug, Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    os: Os,
    hostname: String,
    device_id: Option<String>,
    uptime_seconds: Option<u64>,
    /// How the run before this one ended; none where the boot left no report.
    last_run: Option<Last>,
    health: Health,
    slots: Vec<Row>,
    update: Option<Standing>,
    boot: Option<Report>,
    disk: BTreeMap<String, Space>,
    memory: Option<Memory>,
    network: Network,
    engine: Engine,
    config: Option<Config>,
    /// What could not be asked, and what is wrong.
    messages: Vec<String>,
    /// What else a person should know; nothing is wrong.
    notes: Vec<String>,
}

#[derive(Debug, Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Os {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) variant: String,
    pub(crate) machine: String,
    build: String,
    pub(crate) kernel: String,
}

#[derive(Debug, Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Health {
    /// systemd's word: running, degraded, starting, …
    system: String,
    failed_units: Vec<String>,
    /// While the device starts: what its health check waits for, or else which units are still to come.
    waits_for: Vec<String>,
}

/// Bytes.
#[derive(Debug, Serialize)]
pub(crate) struct Space {
    pub(crate) total: u64,
    free: u64,
}

/// Bytes.
#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    available: u64,
}

#[derive(Debug, Serialize, Default)]
struct Network {
    /// NetworkManager's state in a word.
    state: String,
    /// Addresses by interface.
    addresses: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Serialize)]
struct Config {
    source: Source,
    good: bool,
}

impl Status {
    /// True when nothing needs a person.
    pub(crate) fn is_good(&self) -> bool {
        self.health.system == "running"
            && self.config.as_ref().is_some_and(|c| c.good)
            && self.boot.as_ref().is_some_and(|b| b.state != Volume::Unusable && b.data != Volume::Unusable)
    }
}

pub(crate) async fn collect() -> Status {
    let mut status = Status { update: Some(Standing::of_device()), ..Status::default() };
    status.os = os();
    status.hostname = read("/proc/sys/kernel/hostname");
    status.device_id = identity::read_id(&Path::new(STATE).join(identity::DEVICE_ID));
    status.uptime_seconds = read("/proc/uptime").split('.').next().and_then(|s| s.parse().ok());
    status.boot = Report::of_this_boot();
    for mount in ["/mnt/boot", "/mnt/state", "/mnt/data"] {
        if let Some(space) = space(mount) {
            status.disk.insert(mount.to_owned(), space);
        }
    }
    status.memory = memory(&read("/proc/meminfo"));
    let links = links::read();
    status.network.addresses = addresses(&links);
    status.messages.extend(links::overlaps(&links));
    status.messages.extend(status.disk.iter().filter_map(|(mount, space)| nearly_full(mount, space)));
    status.messages.extend(os_update::trust::doubt().map(|doubt| {
        format!("{doubt}: no time server has answered (ntpServers), and nothing keeps the time while the device is off; date -s \"2026-11-27 14:00\" sets it until then")
    }));
    match Bus::system().await {
        Ok(bus) => ask_bus(&bus, &mut status).await,
        Err(err) => status.messages.push(err.to_string()),
    }
    ask_engine(&mut status).await;
    if let Some(boot) = &status.boot {
        let last = Last::of_device(boot.unclean);
        status.last_run = Some(last);
        if let Some((is_wrong, words)) = last.words() {
            let list = if is_wrong { &mut status.messages } else { &mut status.notes };
            list.push(words.to_owned());
        }
        status.messages.extend(boot.messages.iter().cloned());
        status.notes.extend(boot.notes.iter().cloned());
    }
    status.messages.extend(status.update.iter().flat_map(Standing::complaints));
    status.notes.extend(status.update.iter().flat_map(Standing::refusals));
    match ConfigStatus::load(Path::new(os_config::STATUS)) {
        Ok(config) => {
            status.messages.extend(config.complaints());
            status.notes.extend(config.warnings.iter().map(|warning| format!("config: {warning}")));
            status.config = Some(Config { source: config.source, good: config.is_good() });
        }
        Err(_) => status.messages.push("config.json was not applied yet; see journalctl -u os-config".to_owned()),
    }
    status
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

pub(crate) fn os() -> Os {
    let field = |name: &str| os_sys::release::field(name).unwrap_or_default();
    Os {
        name: field("NAME"),
        version: field("VERSION_ID"),
        variant: field("VARIANT_ID"),
        machine: field("OS_MACHINE"),
        build: field("BUILD_ID"),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
    }
}

pub(crate) fn space(mount: &str) -> Option<Space> {
    // A directory that is no mount point would show the root's numbers.
    if !os_sys::files::is_mount_point(mount) {
        return None;
    }
    let stat = rustix::fs::statvfs(mount).ok()?;
    Some(Space {
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

pub(crate) fn memory(meminfo: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(Memory { total: bytes("MemTotal")?, available: bytes("MemAvailable")? })
}

/// What is to be done before a partition is full.
fn nearly_full(mount: &str, space: &Space) -> Option<String> {
    if space.free > space.total / 20 {
        return None;
    }
    let remedy = match mount {
        "/mnt/data" => "; docker system df shows what takes it, docker system prune -a removes what no container uses",
        "/mnt/boot" => {
            "; config.json may not be written any more: remove pictures and logs that the device does not need"
        }
        "/mnt/state" => {
            "; settings and what becomes of updates may not be kept any more: du -axk /mnt/state | sort -n shows what takes it"
        }
        _ => "",
    };
    Some(format!("{mount} is nearly full, {} of {} MiB are free{remedy}", space.free >> 20, space.total >> 20))
}

/// Containers' and loopback addresses are noise here.
fn addresses(links: &[Link]) -> BTreeMap<String, Vec<String>> {
    let of_interest = links.iter().filter(|link| link.name != "lo" && !links::is_engines(&link.name));
    let global = |link: &Link| {
        let addresses = link.addresses.iter().filter(|a| a.global);
        addresses.map(|a| format!("{}/{}", a.address, a.prefix)).collect()
    };
    of_interest.map(|link| (link.name.clone(), global(link))).collect()
}

async fn ask_bus(bus: &Bus, status: &mut Status) {
    let asked: Result<()> = async {
        let systemd = bus.systemd().await?;
        status.health.system = systemd.system_state().await.tried("cannot ask systemd for its state")?;
        let units = systemd.list_units_filtered(&["failed", "activating"]).await.tried("cannot list units")?;
        let (failed, coming): (Vec<_>, Vec<_>) = units.into_iter().partition(|unit| unit.3 == "failed");
        status.health.failed_units = failed.into_iter().map(|unit| unit.0).collect();
        if coming.iter().any(|unit| unit.0 == "docker.service") {
            status.engine.state = STARTING;
        }
        if status.health.system == STARTING {
            status.health.waits_for = Waits::load().waits_for;
        }
        if status.health.system == STARTING && status.health.waits_for.is_empty() {
            let jobs = systemd.list_jobs().await.tried("cannot list jobs")?;
            status.health.waits_for = jobs.into_iter().filter(|job| job.3 == "running").map(|job| job.1).collect();
        }
        status.network.state = network(bus).await?.to_owned();
        Ok(())
    }
    .await;
    if let Err(err) = asked {
        status.messages.push(format!("{err:#}"));
    }
    match slot::rows(bus).await {
        Ok(rows) => status.slots = rows,
        Err(err) => status.messages.push(format!("{err:#}")),
    }
}

/// NetworkManager's state in a word.
///
/// # Errors
/// When the bus or NetworkManager does not answer.
pub(crate) async fn network(bus: &Bus) -> Result<&'static str, BusError> {
    Ok(match bus.network_manager().await? {
        Some(manager) => network_word(manager.state().await.tried("cannot ask NetworkManager")?),
        None => "NetworkManager does not run",
    })
}

/// `NMState` in a word (NetworkManager's D-Bus documentation).
fn network_word(state: u32) -> &'static str {
    match state {
        70 => "online",
        60 => "site",
        50 => "local",
        40 => "connecting",
        10 | 20 | 30 => "offline",
        _ => "unknown",
    }
}

async fn ask_engine(status: &mut Status) {
    if status.boot.as_ref().is_some_and(|b| b.data == Volume::Unusable) {
        status.engine.state = "off";
        return;
    }
    // It would be waited for, as long as it takes to start.
    if status.engine.state == STARTING {
        return;
    }
    status.messages.extend(status.engine.ask().await);
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        let row = |f: &mut fmt::Formatter<'_>, name: &str, text: String| writeln!(f, "{name:<10} {text}");
        let os = &self.os;
        row(
            f,
            "System",
            format!("{} {} ({}) on {}, kernel {}", os.name, os.version, os.variant, os.machine, os.kernel),
        )?;
        let id = self.device_id.as_deref().unwrap_or("none");
        row(f, "Device", format!("{}, id {id}", self.hostname))?;
        if let Some(up) = self.uptime_seconds {
            row(f, "Uptime", format!("{} d {:02}:{:02}:{:02}", up / 86400, up / 3600 % 24, up / 60 % 60, up % 60))?;
        }
        match self.health.waits_for.as_slice() {
            [] => row(f, "Health", self.health.system.clone())?,
            some => row(f, "Health", format!("{}, waits for: {}", self.health.system, some.join("; ")))?,
        }
        for unit in &self.health.failed_units {
            row(f, "", format!("failed: {unit}"))?;
        }
        for slot in &self.slots {
            row(f, "Slot", slot.to_string())?;
        }
        if let Some(update) = &self.update {
            row(f, "Updates", update.headline())?;
        }
        for (mount, space) in &self.disk {
            row(f, "Disk", format!("{mount:<10} {} of {} MiB free", mib(space.free), mib(space.total)))?;
        }
        if let Some(memory) = &self.memory {
            row(f, "Memory", format!("{} of {} MiB available", mib(memory.available), mib(memory.total)))?;
        }
        row(f, "Network", self.network.state.clone())?;
        for (interface, list) in &self.network.addresses {
            row(f, "", format!("{interface} {}", list.join(" ")))?;
        }
        match &self.engine.version {
            Some(version) => {
                let Engine { running, containers, .. } = self.engine;
                row(f, "Engine", format!("{version}, {running} of {containers} containers running"))?;
            }
            None => row(f, "Engine", self.engine.state.to_owned())?,
        }
        if let Some(config) = &self.config {
            let source = match config.source {
                Source::File => "config.json",
                Source::LastGood => "last good copy",
                Source::Defaults => "defaults",
            };
            row(f, "Config", format!("{source}{}", if config.good { "" } else { ", needs attention" }))?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  {note}"))?;
        self.messages.iter().try_for_each(|message| writeln!(f, "! {message}"))?;
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A device on trial.
    pub(crate) fn example(update: Standing) -> Status {
        let text = |text: &str| text.to_owned();
        Status {
            os: Os {
                name: text("OS"),
                version: text("0.3.0"),
                variant: text("production"),
                machine: text("raspberrypi4-64"),
                build: text("0.3.0"),
                kernel: text("6.12.47"),
            },
            hostname: text("till-3"),
            device_id: Some(text("0f2b6f1e5d8a4c7b9e3d2a1c0b9f8e7d")),
            uptime_seconds: Some(93),
            last_run: Some(Last::Unclean),
            health: Health {
                system: text("starting"),
                failed_units: vec![],
                waits_for: vec![text("docker.service does not run")],
            },
            slots: slot::tests::example(),
            update: Some(update),
            boot: Some(Report {
                slot: os_facts::Slot::B,
                disk: text("mmcblk0"),
                verity: true,
                state: Volume::Ok,
                data: Volume::Ok,
                ..Report::default()
            }),
            disk: BTreeMap::from([(text("/mnt/data"), Space { total: 30_000_000_000, free: 29_000_000_000 })]),
            memory: Some(Memory { total: 4_000_000_000, available: 3_500_000_000 }),
            network: Network {
                state: text("online"),
                addresses: BTreeMap::from([(text("eth0"), vec![text("192.0.2.7/24")])]),
            },
            engine: Engine { state: STARTING, ..Engine::default() },
            config: Some(Config { source: Source::File, good: true }),
            messages: vec![],
            notes: vec![text("0.2.5 failed here: no engine")],
        }
    }

    #[test]
    fn addresses_of_containers_and_loopback_are_left_out() {
        let json = r#"[{"ifname":"lo","addr_info":[{"local":"127.0.0.1","prefixlen":8,"scope":"host"}]},
            {"ifname":"eth0","addr_info":[{"local":"10.0.2.15","prefixlen":24,"scope":"global"},
             {"local":"fe80::1","prefixlen":64,"scope":"link"}]},{"ifname":"docker0","addr_info":[]},{"ifname":"br-lan"}]"#;
        let found = addresses(&links::parse(json));
        assert_eq!(found.len(), 2);
        assert_eq!(found["eth0"], ["10.0.2.15/24"]);
        assert!(addresses(&links::parse("not json")).is_empty());
    }

    #[test]
    fn partitions_that_fill_are_named() {
        assert!(nearly_full("/mnt/data", &Space { total: 1000, free: 50 }).unwrap().contains("docker system prune"));
        assert!(nearly_full("/mnt/state", &Space { total: 1000, free: 0 }).unwrap().contains("du -axk /mnt/state"));
        assert_eq!(nearly_full("/mnt/data", &Space { total: 1000, free: 51 }), None);
    }

    #[test]
    fn a_device_that_starts_says_what_it_waits_for_and_where_its_update_is() {
        let mut update = Standing::of_device();
        update.phase = "idle";
        let said = example(update).to_string();
        for line in [
            "starting, waits for: docker.service",
            "Slot       A inactive   good  0.1.0",
            "Updates ",
            "Engine     starting",
        ] {
            assert!(said.contains(line), "{line}: {said}");
        }
        assert!(!said.contains("! "), "{said}");
    }

    #[test]
    fn a_status_that_knows_nothing_is_not_good_and_still_prints() {
        let status = Status::default();
        assert!(!status.is_good());
        assert!(status.to_string().contains("Engine "));
    }
}
