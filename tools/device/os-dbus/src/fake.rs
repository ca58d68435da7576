//! A bus of its own with a RAUC, a systemd and a NetworkManager on it that know two slots and any unit, for tests of those
//! who call them. Every call is written down, and any of them can be made to fail.

use crate::rauc::RaucSlot;
use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use zbus::connection::Builder;
use zbus::fdo;
use zbus::wire::{OwnedObjectPath, OwnedVariant, Variant};

const RAUC: &str = "de.pengutronix.rauc";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const SYSTEMD_PATH: &str = "/org/freedesktop/systemd1";
const INSTALLER: &str = "de.pengutronix.rauc.Installer";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const NETWORK: &str = "org.freedesktop.NetworkManager";
const NETWORK_PATH: &str = "/org/freedesktop/NetworkManager";
/// How long a service takes for what it says later.
const LATER: Duration = Duration::from_millis(5);
/// How long a bus may take to come up, on a machine that is busy.
const COMES_UP: Duration = Duration::from_secs(20);

/// What RAUC calls to tell the bootloader: a mark, and the name of a slot.
pub type Backend = Box<dyn Fn(&str, &str) + Send>;

/// What the services know, and what was asked of them.
pub struct World {
    /// Calls in order, such as `Mark active rootfs.1`.
    pub calls: Vec<String>,
    /// Which call fails, counted from 0 over all of them.
    pub fails: Option<usize>,
    /// Whether that one does its work first, and its answer alone is lost.
    pub fails_after: bool,
    /// RAUC's slots.
    pub slots: Vec<RaucSlot>,
    /// Version and hash that every bundle has.
    pub bundle: (String, String),
    /// Why RAUC does not install.
    pub refuses: Option<String>,
    /// What a mark comes to.
    pub backend: Backend,
    /// `NMMetered`.
    pub metered: u32,
}

/// A slot in which nothing was ever installed, with its name, its bootloader's and its state, as RAUC tells of it.
pub fn slot(name: &str, bootname: &str, state: &str) -> RaucSlot {
    RaucSlot {
        name: name.to_owned(),
        class: name.split('.').next().unwrap_or_default().to_owned(),
        bootname: Some(bootname.to_owned()),
        state: state.to_owned(),
        boot_status: Some("good".to_owned()),
        version: None,
        transaction: None,
        manifest_hash: None,
        status: None,
    }
}

impl World {
    /// Slot A runs a version, and nothing was ever installed in B.
    fn new(version: &str) -> Self {
        let mut first = slot("rootfs.0", "A", "booted");
        first.version = Some(version.to_owned());
        Self {
            calls: Vec::new(),
            fails: None,
            fails_after: false,
            slots: vec![first, slot("rootfs.1", "B", "inactive")],
            bundle: Default::default(),
            refuses: None,
            backend: Box::new(|_, _| ()),
            metered: 2,
        }
    }

    /// What the slot that does not run gets.
    fn write(&mut self, transaction: &str) {
        let (version, hash) = self.bundle.clone();
        for slot in self.slots.iter_mut().filter(|slot| slot.state == "inactive") {
            slot.version = Some(version.clone());
            slot.manifest_hash = Some(hash.clone());
            slot.transaction = Some(transaction.to_owned());
            slot.status = Some("ok".to_owned());
        }
    }
}

#[derive(Clone)]
struct Shared(Arc<Mutex<World>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call: written down, and done unless it is the one that fails.
    fn call<T>(&self, what: String, work: impl FnOnce(&mut World) -> fdo::Result<T>) -> fdo::Result<T> {
        let mut world = self.lock();
        let fails = world.fails == Some(world.calls.len());
        let failure = || Err(fdo::Error::NoReply(format!("{what} was made to fail")));
        world.calls.push(what.clone());
        match (fails, world.fails_after) {
            (false, _) => work(&mut world),
            (true, false) => failure(),
            (true, true) => work(&mut world).and_then(|_| failure()),
        }
    }
}

/// A bus that nobody else is on, until it is dropped.
#[derive(Debug)]
pub struct PrivateBus {
    address: String,
    daemon: Child,
}

impl PrivateBus {
    /// One with its socket in a directory.
    ///
    /// # Errors
    /// When there is no dbus-daemon, or it does not come up.
    pub fn start(dir: &Path) -> std::io::Result<Self> {
        let (socket, config) = (dir.join("bus"), dir.join("bus.conf"));
        let text = format!(
            "<busconfig><type>session</type><listen>unix:path={}</listen><policy context=\"default\">\
             <allow send_destination=\"*\"/><allow receive_sender=\"*\"/><allow own=\"*\"/></policy></busconfig>",
            socket.display()
        );
        std::fs::write(&config, text)?;
        let daemon =
            Command::new("dbus-daemon").arg("--nofork").arg("--config-file").arg(config).stderr(Stdio::null()).spawn();
        let daemon = daemon.map_err(|err| {
            std::io::Error::new(
                err.kind(),
                format!("{err}: install dbus-daemon with: sudo apt-get install dbus-daemon"),
            )
        })?;
        // From here on it ends with this.
        let bus = Self { address: format!("unix:path={}", socket.display()), daemon };
        let start = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            if start.elapsed() > COMES_UP {
                return Err(std::io::Error::other("dbus-daemon does not come up"));
            }
            std::thread::sleep(LATER);
        }
        Ok(bus)
    }

    /// For [`crate::Bus::at`], and for `busctl --address`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for PrivateBus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// The bus with the services on it.
pub struct Fake {
    world: Shared,
    _services: [zbus::Connection; 3],
    bus: PrivateBus,
}

impl Fake {
    /// For a device that runs a version, with the socket of the bus in a directory.
    ///
    /// # Errors
    /// When the bus does not come up.
    pub async fn start(dir: &Path, version: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let world = Shared(Arc::new(Mutex::new(World::new(version))));
        let bus = PrivateBus::start(dir)?;
        let service = |name: &'static str| Builder::address(bus.address()).name(name);
        let services = [
            service(RAUC).serve_at("/", Installer(world.clone())).build().await?,
            service(SYSTEMD).serve_at(SYSTEMD_PATH, Manager(world.clone())).build().await?,
            service(NETWORK).serve_at(NETWORK_PATH, Network(world.clone())).build().await?,
        ];
        Ok(Self { world, _services: services, bus })
    }

    /// For [`crate::Bus::at`].
    pub fn address(&self) -> &str {
        self.bus.address()
    }

    /// Looks at the world, or changes it.
    pub fn world<T>(&self, work: impl FnOnce(&mut World) -> T) -> T {
        work(&mut self.world.lock())
    }
}

/// Says something on the bus a moment from now, as services do that answer first.
fn later(said: impl Future<Output = zbus::Result<()>> + Send + 'static) {
    tokio::spawn(async move {
        tokio::time::sleep(LATER).await;
        said.await
    });
}

struct Installer(Shared);

#[zbus::interface(name = "de.pengutronix.rauc.Installer")]
impl Installer {
    async fn mark(&self, state: String, slot: String) -> fdo::Result<(String, String)> {
        self.0.call(format!("Mark {state} {slot}"), |world| {
            (world.backend)(&state, &slot);
            Ok((slot.clone(), "marked".to_owned()))
        })
    }

    async fn get_slot_status(&self) -> fdo::Result<Vec<(String, HashMap<String, OwnedVariant>)>> {
        self.0.call("GetSlotStatus".to_owned(), |world| Ok(world.slots.iter().map(dictionary).collect()))
    }

    async fn inspect_bundle(
        &self,
        _bundle: String,
        _args: HashMap<String, OwnedVariant>,
    ) -> fdo::Result<HashMap<String, OwnedVariant>> {
        self.0.call("InspectBundle".to_owned(), |world| {
            let (version, hash) = world.bundle.clone();
            let update = HashMap::from([("version", Variant::from(version))]);
            let facts = [("update", Variant::from(update)), ("manifest-hash", Variant::from(hash))];
            facts.into_iter().map(|(key, value)| Ok((key.to_owned(), owned(value)?))).collect()
        })
    }

    async fn install_bundle(
        &self,
        _source: String,
        args: HashMap<String, OwnedVariant>,
        #[zbus(connection)] connection: &zbus::Connection,
    ) -> fdo::Result<()> {
        let result = self.0.call("InstallBundle".to_owned(), |world| {
            if world.refuses.is_some() {
                return Ok(1);
            }
            let id = args.get("transaction-id").and_then(|id| String::try_from(id.clone()).ok());
            world.write(&id.unwrap_or_default());
            Ok(0_i32)
        })?;
        let connection = connection.clone();
        later(async move { connection.emit_signal(None::<&str>, "/", INSTALLER, "Completed", &result).await });
        Ok(())
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn last_error(&self) -> String {
        self.0.lock().refuses.clone().unwrap_or_default()
    }

    #[zbus(property)]
    async fn progress(&self) -> (i32, String, i32) {
        (0, String::new(), 1)
    }

    #[zbus(property)]
    async fn operation(&self) -> String {
        "idle".to_owned()
    }

    #[zbus(property)]
    async fn compatible(&self) -> String {
        "os-test".to_owned()
    }
}

fn owned(value: Variant<'_>) -> fdo::Result<OwnedVariant> {
    value.try_into_owned().map_err(|err| fdo::Error::Failed(err.to_string()))
}

fn dictionary(slot: &RaucSlot) -> (String, HashMap<String, OwnedVariant>) {
    let RaucSlot { name, class, bootname, state, boot_status, version, transaction, manifest_hash, status } =
        slot.clone();
    let fields = [
        ("class", Some(class)),
        ("state", Some(state)),
        ("bootname", bootname),
        ("boot-status", boot_status),
        ("bundle.version", version),
        ("installed.transaction", transaction),
        ("bundle.hash", manifest_hash),
        ("status", status),
    ];
    let known = fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), owned(value?.into()).ok()?)));
    (name, known.collect())
}

struct Manager(Shared);

impl Manager {
    fn job(&self, connection: &zbus::Connection, what: &str, unit: String) -> fdo::Result<OwnedObjectPath> {
        let number =
            self.0.call(format!("{what} {unit}"), |world| Ok(u32::try_from(world.calls.len()).unwrap_or(0)))?;
        let path = format!("/org/freedesktop/systemd1/job/{number}");
        let job = OwnedObjectPath::try_from(path).map_err(|err| fdo::Error::Failed(err.to_string()))?;
        let over = (number, job.clone(), unit, "done".to_owned());
        let connection = connection.clone();
        later(async move { connection.emit_signal(None::<&str>, SYSTEMD_PATH, MANAGER, "JobRemoved", &over).await });
        Ok(job)
    }
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    async fn subscribe(&self) {}

    async fn reset_failed_unit(&self, _unit: String) {}

    async fn start_unit(
        &self,
        unit: String,
        _mode: String,
        #[zbus(connection)] connection: &zbus::Connection,
    ) -> fdo::Result<OwnedObjectPath> {
        self.job(connection, "StartUnit", unit)
    }

    async fn stop_unit(
        &self,
        unit: String,
        _mode: String,
        #[zbus(connection)] connection: &zbus::Connection,
    ) -> fdo::Result<OwnedObjectPath> {
        self.job(connection, "StopUnit", unit)
    }

    async fn restart_unit(
        &self,
        unit: String,
        _mode: String,
        #[zbus(connection)] connection: &zbus::Connection,
    ) -> fdo::Result<OwnedObjectPath> {
        self.job(connection, "RestartUnit", unit)
    }

    async fn list_units_filtered(&self, _states: Vec<String>) -> fdo::Result<Vec<crate::SystemdUnit>> {
        self.0.call("ListUnitsFiltered".to_owned(), |_| Ok(Vec::new()))
    }

    async fn list_units_by_names(&self, _names: Vec<String>) -> fdo::Result<Vec<crate::SystemdUnit>> {
        self.0.call("ListUnitsByNames".to_owned(), |_| Ok(Vec::new()))
    }
}

struct Network(Shared);

#[zbus::interface(name = "org.freedesktop.NetworkManager")]
impl Network {
    #[zbus(property)]
    async fn state(&self) -> u32 {
        const CONNECTED_GLOBAL: u32 = 70;
        CONNECTED_GLOBAL
    }

    #[zbus(property)]
    async fn metered(&self) -> u32 {
        self.0.lock().metered
    }
}
