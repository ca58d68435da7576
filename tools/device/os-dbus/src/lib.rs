//! Every D-Bus interface the OS talks to, as typed proxies, and the one that it offers ([`updates`]). No other crate names
//! a bus, a path or an interface.
//!
//! A service that is not running is a state, not an error: see [`Bus::has_owner`].

mod links;
mod proxies;
pub mod updates;

pub use links::{Link, NetworkNames, Profile};
pub use proxies::{
    AvahiServerProxy, HostnamedProxy, LocaledProxy, LogindProxy, LogindSessionProxy, NetworkManagerProxy,
    NetworkSettingsProxy, RaucProxy, Session, SystemdManagerProxy, SystemdUnit, TimedatedProxy,
};
/// Name of an object of a service.
pub use zbus::wire::OwnedObjectPath as ObjectPath;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::{Duration, UNIX_EPOCH};
use zbus::wire::{OwnedVariant, Variant};

/// How long a method may take. The bus's usual 25 seconds are not enough while a slow board boots: localed was seen to
/// wait 21 seconds for systemd alone.
const METHOD_TIMEOUT: Duration = Duration::from_secs(90);
/// How often an installation is looked at when RAUC says nothing of its progress.
const PROGRESS: Duration = Duration::from_secs(2);

/// A D-Bus call that failed.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// No connection to the system bus.
    #[error("cannot connect to the system bus: {0}")]
    Connect(zbus::Error),
    /// A call failed.
    #[error("{what}: {cause}")]
    Call {
        /// What was tried, as a sentence start.
        what: &'static str,
        /// What the bus or the service answered.
        cause: zbus::Error,
    },
    /// RAUC said no, in its own words.
    #[error("{0}")]
    Refused(String),
    /// A unit job ended in something else than "done".
    #[error("{unit}: the job ended with '{result}'; see journalctl -u {unit}")]
    Job {
        /// The unit.
        unit: String,
        /// systemd's word for it.
        result: String,
    },
}

/// Adds what was tried to a failed call.
pub trait Tried<T> {
    /// Names the attempt.
    ///
    /// # Errors
    /// The error of the call, with the name.
    fn tried(self, what: &'static str) -> Result<T, BusError>;
}

impl<T> Tried<T> for zbus::Result<T> {
    fn tried(self, what: &'static str) -> Result<T, BusError> {
        self.map_err(|cause| BusError::Call { what, cause })
    }
}

/// The system bus.
#[derive(Debug, Clone)]
pub struct Bus(zbus::Connection);

/// One slot as RAUC sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaucSlot {
    /// RAUC's name, such as `rootfs.0`.
    pub name: String,
    /// RaucSlot class, such as `rootfs`.
    pub class: String,
    /// Name for the bootloader, `A` or `B`; only the slot that is booted directly has one.
    pub bootname: Option<String>,
    /// `booted`, `active` or `inactive`.
    pub state: String,
    /// `good` or `bad`, where the bootloader counts.
    pub boot_status: Option<String>,
    /// Version of the bundle that was installed, where RAUC did it.
    pub version: Option<String>,
    /// Identifier of the installation.
    pub transaction: Option<String>,
    /// SHA-256 of the manifest of the bundle that was installed, hex.
    pub manifest_hash: Option<String>,
    /// `ok`, `failed` or `pending`, where RAUC installed it.
    pub status: Option<String>,
}

/// What a bundle says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleFacts {
    /// Version in its manifest.
    pub version: Option<String>,
    /// SHA-256 of its manifest, hex; `None` when this RAUC does not tell (before 1.9).
    pub manifest_hash: Option<String>,
}

impl Bus {
    /// Connects to the system bus (`DBUS_SYSTEM_BUS_ADDRESS` is honoured).
    ///
    /// # Errors
    /// When there is no bus.
    pub async fn system() -> Result<Self, BusError> {
        let connection = async { zbus::connection::Builder::system().method_timeout(METHOD_TIMEOUT).build().await };
        connection.await.map(Self).map_err(BusError::Connect)
    }

    /// True when somebody owns `name` now; nothing is started by asking.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn has_owner(&self, name: &'static str) -> Result<bool, BusError> {
        let dbus = zbus::fdo::DBusProxy::new(&self.0).await.tried("cannot reach the bus")?;
        let name = zbus::names::BusName::from_static_str(name).tried("not a bus name")?;
        dbus.name_has_owner(name).await.map_err(Into::into).tried("cannot ask who is on the bus")
    }

    /// systemd's manager.
    ///
    /// # Errors
    /// When the proxy cannot be built.
    pub async fn systemd(&self) -> Result<SystemdManagerProxy<'_>, BusError> {
        SystemdManagerProxy::new(&self.0).await.tried("cannot reach systemd")
    }

    /// hostnamed, started on demand.
    ///
    /// # Errors
    /// When the proxy cannot be built.
    pub async fn hostnamed(&self) -> Result<HostnamedProxy<'_>, BusError> {
        HostnamedProxy::new(&self.0).await.tried("cannot reach hostnamed")
    }

    /// Avahi, if it runs. It takes the host name by itself when it starts.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn avahi(&self) -> Result<Option<AvahiServerProxy<'_>>, BusError> {
        if !self.has_owner("org.freedesktop.Avahi").await? {
            return Ok(None);
        }
        AvahiServerProxy::new(&self.0).await.map(Some).tried("cannot reach avahi")
    }

    /// Who, beside this device itself, answers for `<name>.local` on the network: an address, or nobody.
    ///
    /// # Errors
    /// When Avahi does not answer.
    pub async fn who_answers_for(&self, name: &str) -> Result<Option<IpAddr>, BusError> {
        use futures_util::StreamExt;
        const WHAT: &str = "cannot ask avahi for a name";
        // Avahi says itself when nothing more will come.
        const ANSWERS: Duration = Duration::from_secs(25);
        let Some(avahi) = self.avahi().await? else { return Ok(None) };
        // Subscribed before the call: what is known already comes at once.
        let rule = zbus::MatchRule::builder().msg_type(zbus::message::Type::Signal);
        let rule = rule.interface("org.freedesktop.Avahi.RecordBrowser").build().tried(WHAT)?;
        let mut signals = zbus::MessageStream::for_match_rule(rule, &self.0, None).await.tried(WHAT)?;
        let kinds = [A, AAAA];
        for kind in kinds {
            avahi.record_browser_new(-1, -1, &format!("{name}.local"), IN, kind, 0).await.tried(WHAT)?;
        }
        let mut open = kinds.len();
        // Not the first answer: this device may have had the name itself a moment ago.
        while open > 0 {
            let next = tokio::time::timeout(ANSWERS, signals.next()).await;
            let Ok(Some(Ok(message))) = next else { return Ok(None) };
            match message.header().member().map(zbus::names::MemberName::as_str) {
                Some("ItemNew") => {
                    let (interface, .., content, _): RecordItem = message.body().deserialize().tried(WHAT)?;
                    let interface = u32::try_from(interface).unwrap_or(0);
                    if let Some(found) = address(&content).filter(|found| !is_ours(*found, interface)) {
                        return Ok(Some(found));
                    }
                }
                Some("AllForNow" | "Failure") => open -= 1,
                _ => {}
            }
        }
        Ok(None)
    }

    /// Users who are logged in from another machine, or typed something on a console not longer ago than that: a
    /// development variant logs in there by itself.
    ///
    /// # Errors
    /// When logind cannot be started or does not answer.
    pub async fn people(&self, typed: Duration) -> Result<Vec<String>, BusError> {
        let logind = LogindProxy::new(&self.0).await.tried("cannot reach logind")?;
        let mut people = Vec::new();
        for (_, _, user, _, path) in logind.list_sessions().await.tried("cannot ask logind who is logged in")? {
            let session = LogindSessionProxy::new(&self.0, path).await.tried("cannot reach a login")?;
            // A login that ends in this moment is none.
            let remote = session.remote().await.unwrap_or(false);
            let since = UNIX_EPOCH + Duration::from_micros(session.idle_since_hint().await.unwrap_or(0));
            if remote || since.elapsed().is_ok_and(|idle| idle < typed) {
                people.push(user);
            }
        }
        Ok(people)
    }

    /// NetworkManager, if it runs.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn network_manager(&self) -> Result<Option<NetworkManagerProxy<'_>>, BusError> {
        if !self.has_owner("org.freedesktop.NetworkManager").await? {
            return Ok(None);
        }
        NetworkManagerProxy::new(&self.0).await.map(Some).tried("cannot reach NetworkManager")
    }

    /// NetworkManager's settings, if it runs.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn network_settings(&self) -> Result<Option<NetworkSettingsProxy<'_>>, BusError> {
        if !self.has_owner("org.freedesktop.NetworkManager").await? {
            return Ok(None);
        }
        NetworkSettingsProxy::new(&self.0).await.map(Some).tried("cannot reach NetworkManager")
    }

    /// Sets the time zone through timedated.
    ///
    /// # Errors
    /// When timedated refuses it: no such zone, above all.
    pub async fn set_timezone(&self, zone: &str) -> Result<(), BusError> {
        let timedated = TimedatedProxy::new(&self.0).await.tried("cannot reach timedated")?;
        timedated.set_timezone(zone, false).await.tried("timedated refused it")
    }

    /// Sets the locale through localed.
    ///
    /// # Errors
    /// When localed refuses it: the image does not hold it, above all.
    pub async fn set_locale(&self, lang: &str) -> Result<(), BusError> {
        let localed = LocaledProxy::new(&self.0).await.tried("cannot reach localed")?;
        localed.set_locale(&[&format!("LANG={lang}")], false).await.tried("localed refused it")
    }

    /// Sets the keymap of the text console through localed; empty for the kernel's own.
    ///
    /// # Errors
    /// When localed refuses it: the image does not hold it, above all.
    pub async fn set_keymap(&self, keymap: &str) -> Result<(), BusError> {
        let localed = LocaledProxy::new(&self.0).await.tried("cannot reach localed")?;
        localed.set_keymap(keymap, "", false, false).await.tried("localed refused it")
    }

    /// RAUC, started on demand.
    ///
    /// # Errors
    /// When the proxy cannot be built.
    pub async fn rauc(&self) -> Result<RaucProxy<'_>, BusError> {
        RaucProxy::new(&self.0).await.tried("cannot reach RAUC")
    }

    /// The slots as RAUC sees them.
    ///
    /// # Errors
    /// When RAUC cannot be started or does not answer.
    pub async fn slots(&self) -> Result<Vec<RaucSlot>, BusError> {
        let list = self.rauc().await?.get_slot_status().await.tried("cannot read the slot status from RAUC")?;
        let mut slots: Vec<RaucSlot> = list.into_iter().map(|(name, values)| slot(name, &values)).collect();
        slots.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(slots)
    }

    /// Ends RAUC unless it is at work. It is started on demand and never leaves by itself, and idle memory is for
    /// containers.
    ///
    /// # Errors
    /// When RAUC or systemd does not answer, or the caller may not stop units.
    pub async fn let_rauc_rest(&self) -> Result<(), BusError> {
        if !self.has_owner("de.pengutronix.rauc").await? {
            return Ok(());
        }
        let operation = self.rauc().await?.operation().await.tried("cannot ask RAUC what it does")?;
        if operation == "idle" { self.unit_job(Verb::Stop, "rauc.service").await } else { Ok(()) }
    }

    /// What a bundle says of itself; RAUC checks its signature for it.
    ///
    /// # Errors
    /// What RAUC says against the bundle.
    pub async fn inspect(&self, source: &str) -> Result<BundleFacts, BusError> {
        let facts = self.rauc().await?.inspect_bundle(source, HashMap::new()).await.tried("RAUC refuses the bundle")?;
        let text = |value: Option<&OwnedVariant>| value.and_then(|v| String::try_from(v.clone()).ok());
        let update = facts.get("update").and_then(dictionary);
        Ok(BundleFacts {
            version: text(update.as_ref().and_then(|u| u.get("version"))),
            manifest_hash: text(facts.get("manifest-hash")),
        })
    }

    /// Installs a bundle into the slots that are not booted, and waits until that is over. Nothing is activated.
    /// `progress` is called with RAUC's percent whenever that changes, and every two seconds.
    ///
    /// `hash` is what [`Bus::inspect`] said of the bundle's manifest. RAUC reads the bundle again: from 1.14 on it refuses
    /// another one itself; what earlier ones wrote, [`RaucSlot::manifest_hash`] says.
    ///
    /// # Errors
    /// When RAUC cannot be reached or goes away; what it says against the bundle otherwise, as [`BusError::Refused`].
    pub async fn install(
        &self,
        source: &str,
        transaction: &str,
        hash: &str,
        progress: &dyn Fn(i32),
    ) -> Result<(), BusError> {
        use futures_util::StreamExt;
        let rauc = self.rauc().await?;
        // Subscribed before the call: it may be over before the call returns.
        let mut completed = rauc.receive_completed().await.tried("cannot listen to RAUC")?;
        let mut percent = rauc.receive_progress_changed().await;
        let plain = HashMap::from([("transaction-id", Variant::Str(transaction.into()))]);
        let mut pinned = plain.clone();
        pinned.insert("require-manifest-hash", Variant::Str(hash.into()));
        // One that does not know an argument refuses the call.
        if rauc.install_bundle(source, pinned).await.is_err() {
            rauc.install_bundle(source, plain).await.tried("RAUC does not begin to install")?;
        }
        let mut owner = rauc.inner().receive_owner_changed().await.tried("cannot watch RAUC")?;
        let mut ticks = tokio::time::interval(PROGRESS);
        let mut reached = 0;
        loop {
            tokio::select! {
                _ = ticks.tick() => progress(reached),
                signal = completed.next() => {
                    let result = signal.and_then(|s| s.args().ok().map(|a| a.result));
                    if result == Some(0) {
                        return Ok(());
                    }
                    let why = rauc.last_error().await.unwrap_or_else(|err| err.to_string());
                    return Err(BusError::Refused(why));
                }
                Some(change) = percent.next() => {
                    if let Ok((percent, _, _)) = change.get().await {
                        reached = percent;
                        progress(percent);
                    }
                }
                Some(now) = owner.next() => {
                    if now.is_none() {
                        return Err(BusError::Refused("RAUC went away in the middle; see journalctl -u rauc".to_owned()));
                    }
                }
            }
        }
    }

    /// True when NetworkManager says, or guesses, that the connection is paid by the byte.
    ///
    /// # Errors
    /// When NetworkManager does not answer.
    pub async fn is_metered(&self) -> Result<bool, BusError> {
        let Some(manager) = self.network_manager().await? else { return Ok(false) };
        Ok(matches!(manager.metered().await.tried("cannot ask NetworkManager")?, 1 | 3))
    }

    /// True when the unit that goes by a name, its own or another, is active.
    ///
    /// # Errors
    /// When systemd does not answer.
    pub async fn is_active(&self, name: &str) -> Result<bool, BusError> {
        let units = self.systemd().await?.list_units_by_names(&[name]).await.tried("cannot ask for a unit")?;
        Ok(units.iter().any(|unit| unit.3 == "active"))
    }

    /// Starts, stops or restarts a unit and waits until its job is done.
    ///
    /// # Errors
    /// When systemd refuses or the job fails.
    pub async fn unit_job(&self, verb: Verb, unit: &str) -> Result<(), BusError> {
        use futures_util::StreamExt;
        let systemd = self.systemd().await?;
        // The second time in one process systemd answers that it knows us; without its signals the wait below would show it.
        let _ = systemd.subscribe().await;
        // Subscribed before the call: a job may be over before the call returns.
        let mut removed = systemd.receive_job_removed().await.tried("cannot listen to systemd")?;
        let job = self.job(verb, unit).await?;
        while let Some(signal) = removed.next().await {
            let args = signal.args().tried("systemd sent a signal that cannot be read")?;
            if args.job.as_str() == job.as_str() {
                return match args.result {
                    "done" | "skipped" => Ok(()),
                    other => Err(BusError::Job { unit: unit.to_owned(), result: other.to_owned() }),
                };
            }
        }
        Err(BusError::Job { unit: unit.to_owned(), result: "systemd went away".to_owned() })
    }

    /// Has the main process of a unit read its files again (SIGHUP). No job: nothing has to be waited for in between.
    ///
    /// # Errors
    /// When systemd refuses.
    pub async fn hang_up(&self, unit: &str) -> Result<(), BusError> {
        const SIGHUP: i32 = 1;
        self.systemd().await?.kill_unit(unit, "main", SIGHUP).await.tried("systemd refused to signal a unit")
    }

    /// Begins to leave the system for a target such as `reboot.target`, as `systemctl reboot` does: no job that comes later
    /// takes it back.
    ///
    /// # Errors
    /// When systemd refuses.
    pub async fn leave(&self, target: &str) -> Result<(), BusError> {
        let job = self.systemd().await?.start_unit(target, "replace-irreversibly").await;
        job.map(drop).tried("systemd refused to leave the system")
    }

    async fn job(&self, verb: Verb, unit: &str) -> Result<zbus::wire::OwnedObjectPath, BusError> {
        let systemd = self.systemd().await?;
        // Somebody asked for it: how often that was lately is no reason to refuse (StartLimitBurst=). A unit that is not loaded
        // has nothing to reset.
        if verb != Verb::Stop {
            let _ = systemd.reset_failed_unit(unit).await;
        }
        match verb {
            Verb::Start => systemd.start_unit(unit, "replace").await,
            Verb::Stop => systemd.stop_unit(unit, "replace").await,
            Verb::Restart => systemd.restart_unit(unit, "replace").await,
            Verb::TryRestart => systemd.try_restart_unit(unit, "replace").await,
            Verb::Reload => systemd.reload_or_try_restart_unit(unit, "replace").await,
        }
        .tried("systemd refused the job")
    }

    /// Queues a job without waiting: for units that are ordered after the caller, where waiting would never end.
    ///
    /// # Errors
    /// When systemd refuses.
    pub async fn queue(&self, verb: Verb, unit: &str) -> Result<(), BusError> {
        self.job(verb, unit).await.map(drop)
    }
}

/// DNS numbers (RFC 1035, RFC 3596).
const IN: u16 = 1;
const A: u16 = 1;
const AAAA: u16 = 28;

/// What Avahi found: interface, protocol, name, class, type, content, flags.
type RecordItem = (i32, i32, String, u16, u16, Vec<u8>, u32);

/// The content of an A or AAAA record.
fn address(content: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(content).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(content).map(IpAddr::from)).ok()
}

/// Whether an address is this device's own: nobody can listen on another one's. A link-local one is asked for on its
/// interface.
fn is_ours(address: IpAddr, interface: u32) -> bool {
    let socket = match address {
        IpAddr::V4(_) => SocketAddr::new(address, 0),
        IpAddr::V6(v6) => SocketAddrV6::new(v6, 0, 0, interface).into(),
    };
    UdpSocket::bind(socket).is_ok()
}

/// What to do with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Start it.
    Start,
    /// Stop it.
    Stop,
    /// Restart it, or start it.
    Restart,
    /// Restart it if it runs.
    TryRestart,
    /// Have it read its configuration again if it runs.
    Reload,
}

/// A dictionary in a dictionary. RAUC puts a variant into the variant.
fn dictionary(value: &OwnedVariant) -> Option<HashMap<String, OwnedVariant>> {
    let value = match Variant::from(value.clone()) {
        Variant::Variant(inner) => *inner,
        other => other,
    };
    HashMap::try_from(value.try_into_owned().ok()?).ok()
}

fn slot(name: String, values: &HashMap<String, OwnedVariant>) -> RaucSlot {
    let text = |key: &str| values.get(key).and_then(|v| String::try_from(v.clone()).ok());
    RaucSlot {
        class: text("class").unwrap_or_default(),
        bootname: text("bootname"),
        state: text("state").unwrap_or_default(),
        boot_status: text("boot-status"),
        version: text("bundle.version"),
        transaction: text("installed.transaction"),
        manifest_hash: text("bundle.hash"),
        status: text("status"),
        name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rauc_says_of_a_bundle_is_found_in_its_double_wrapping() {
        let inner = HashMap::from([("version", Variant::from("1.2.3"))]);
        for value in [Variant::from(inner.clone()), Variant::Variant(Box::new(Variant::from(inner.clone())))] {
            let found = dictionary(&value.try_into_owned().unwrap()).unwrap();
            let version = found.get("version").and_then(|v| String::try_from(v.clone()).ok());
            assert_eq!(version.as_deref(), Some("1.2.3"));
        }
        assert!(dictionary(&Variant::from("text").try_into_owned().unwrap()).is_none());
    }

    #[test]
    fn an_address_record_has_four_bytes_or_sixteen() {
        assert_eq!(address(&[192, 0, 2, 7]), "192.0.2.7".parse().ok());
        assert_eq!(address(&[0; 16]), "::".parse().ok());
        assert_eq!(address(&[]), None);
    }

    #[test]
    fn an_address_of_this_machine_is_told_from_others() {
        assert!(is_ours("127.0.0.1".parse().unwrap(), 1));
        // For documentation (RFC 5737, RFC 3849); nobody has them.
        assert!(!is_ours("192.0.2.7".parse().unwrap(), 1));
        assert!(!is_ours("2001:db8::7".parse().unwrap(), 1));
    }
}
