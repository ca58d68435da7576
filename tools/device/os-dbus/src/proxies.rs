//! The interfaces, each with only what we call.

use std::collections::HashMap;
use zbus::proxy;
use zbus::wire::{ObjectPath, OwnedObjectPath, OwnedVariant, Variant};

/// One row of `ListUnitsFiltered`: name, description, load state, active state, sub state, following, object path, job
/// id, job type, job path (org.freedesktop.systemd1(5)).
pub type SystemdUnit = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// systemd (org.freedesktop.systemd1(5)).
#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub trait SystemdManager {
    /// Sends a signal to processes of a unit.
    fn kill_unit(&self, name: &str, whom: &str, signal: i32) -> zbus::Result<()>;
    /// Starts a unit; returns the job.
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    /// Stops a unit; returns the job.
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    /// Restarts a unit if it runs; returns the job.
    fn try_restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    /// Restarts a unit, or starts it; returns the job.
    fn restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    /// Has a unit read its configuration again, or restarts it where it cannot; nothing when it does not run.
    fn reload_or_try_restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    /// Forgets that a unit failed, and how often it was started.
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    /// Units in any of the given states.
    fn list_units_filtered(&self, states: &[&str]) -> zbus::Result<Vec<SystemdUnit>>;
    /// The units that go by these names.
    fn list_units_by_names(&self, names: &[&str]) -> zbus::Result<Vec<SystemdUnit>>;
    /// Jobs that are queued or run: number, unit, kind, state, and two paths.
    fn list_jobs(&self) -> zbus::Result<Vec<(u32, String, String, String, OwnedObjectPath, OwnedObjectPath)>>;
    /// Asks for signals.
    fn subscribe(&self) -> zbus::Result<()>;
    /// `running`, `degraded`, `starting`, …
    #[zbus(property)]
    fn system_state(&self) -> zbus::Result<String>;
    /// Time of the hardware watchdog in microseconds; 0 when it is off.
    #[zbus(property, name = "RuntimeWatchdogUSec")]
    fn runtime_watchdog_usec(&self) -> zbus::Result<u64>;
    /// Sets it.
    #[zbus(property, name = "RuntimeWatchdogUSec")]
    fn set_runtime_watchdog_usec(&self, microseconds: u64) -> zbus::Result<()>;
    /// When the hardware watchdog was fed last, in microseconds of CLOCK_MONOTONIC; the largest number when it never was.
    #[zbus(property(emits_changed_signal = "false"))]
    fn watchdog_last_ping_timestamp_monotonic(&self) -> zbus::Result<u64>;
    /// A job is over.
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: &str, result: &str);
}

/// hostnamed (org.freedesktop.hostname1(5)).
#[proxy(
    interface = "org.freedesktop.hostname1",
    default_service = "org.freedesktop.hostname1",
    default_path = "/org/freedesktop/hostname1"
)]
pub trait Hostnamed {
    /// Sets the transient host name.
    fn set_hostname(&self, name: &str, interactive: bool) -> zbus::Result<()>;
    /// The host name in force.
    #[zbus(property)]
    fn hostname(&self) -> zbus::Result<String>;
}

/// timedated (org.freedesktop.timedate1(5)).
#[proxy(
    interface = "org.freedesktop.timedate1",
    default_service = "org.freedesktop.timedate1",
    default_path = "/org/freedesktop/timedate1"
)]
pub trait Timedated {
    /// Sets the time zone.
    fn set_timezone(&self, zone: &str, interactive: bool) -> zbus::Result<()>;
}

/// localed (org.freedesktop.locale1(5)).
#[proxy(
    interface = "org.freedesktop.locale1",
    default_service = "org.freedesktop.locale1",
    default_path = "/org/freedesktop/locale1"
)]
pub trait Localed {
    /// Sets the locale, as assignments such as `LANG=C.UTF-8`.
    fn set_locale(&self, locale: &[&str], interactive: bool) -> zbus::Result<()>;
    /// Sets the keymap of the text console.
    #[zbus(name = "SetVConsoleKeyboard")]
    fn set_keymap(&self, keymap: &str, toggle: &str, convert: bool, interactive: bool) -> zbus::Result<()>;
}

/// Avahi's server object.
#[proxy(interface = "org.freedesktop.Avahi.Server", default_service = "org.freedesktop.Avahi", default_path = "/")]
pub trait AvahiServer {
    /// Announces another host name.
    fn set_host_name(&self, name: &str) -> zbus::Result<()>;
    /// The host name it announces.
    fn get_host_name(&self) -> zbus::Result<String>;
    /// The same with the domain.
    fn get_host_name_fqdn(&self) -> zbus::Result<String>;
    /// Collects the records of a name from the network, as signals of `org.freedesktop.Avahi.RecordBrowser`. Index of
    /// an interface and `AVAHI_PROTO_*` to ask by, -1 for any; class and type as in DNS.
    fn record_browser_new(
        &self,
        interface: i32,
        protocol: i32,
        name: &str,
        class: u16,
        kind: u16,
        flags: u32,
    ) -> zbus::Result<OwnedObjectPath>;
}

/// One row of `ListSessions`: id, user id, user, seat, object path (org.freedesktop.login1(5)).
pub type Session = (String, u32, String, String, OwnedObjectPath);

/// logind (org.freedesktop.login1(5)).
#[proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
pub trait Logind {
    /// Who is logged in.
    fn list_sessions(&self) -> zbus::Result<Vec<Session>>;
}

/// One login (org.freedesktop.login1(5)).
#[proxy(interface = "org.freedesktop.login1.Session", default_service = "org.freedesktop.login1")]
pub trait LogindSession {
    /// It comes from another machine.
    #[zbus(property)]
    fn remote(&self) -> zbus::Result<bool>;
    /// Where it has a terminal: when something was typed there last, in microseconds since 1970.
    #[zbus(property)]
    fn idle_since_hint(&self) -> zbus::Result<u64>;
}

/// NetworkManager.
#[proxy(
    interface = "org.freedesktop.NetworkManager",
    default_service = "org.freedesktop.NetworkManager",
    default_path = "/org/freedesktop/NetworkManager"
)]
pub trait NetworkManager {
    /// Reads configuration again; flag 1 is its own files.
    fn reload(&self, flags: u32) -> zbus::Result<()>;
    /// Connects a profile; `/` lets NetworkManager choose the device.
    fn activate_connection(
        &self,
        connection: &ObjectPath<'_>,
        device: &ObjectPath<'_>,
        specific: &ObjectPath<'_>,
    ) -> zbus::Result<OwnedObjectPath>;
    /// Every device that is there.
    fn get_devices(&self) -> zbus::Result<Vec<OwnedObjectPath>>;
    /// Remembers how devices are connected, for so many seconds; returns the checkpoint.
    fn checkpoint_create(
        &self,
        devices: &[ObjectPath<'_>],
        rollback_timeout: u32,
        flags: u32,
    ) -> zbus::Result<OwnedObjectPath>;
    /// Forgets it.
    fn checkpoint_destroy(&self, checkpoint: &ObjectPath<'_>) -> zbus::Result<()>;
    /// Goes back to it; returns a result for each device.
    fn checkpoint_rollback(&self, checkpoint: &ObjectPath<'_>) -> zbus::Result<HashMap<String, u32>>;
    /// What is connected, or about to be.
    #[zbus(property)]
    fn active_connections(&self) -> zbus::Result<Vec<OwnedObjectPath>>;
    /// The one that has the default route; `/` for none.
    #[zbus(property)]
    fn primary_connection(&self) -> zbus::Result<OwnedObjectPath>;
    /// `NMMetered`: 1 yes, 2 no, 3 probably, 4 probably not.
    #[zbus(property)]
    fn metered(&self) -> zbus::Result<u32>;
    /// `NMState`: 20 disconnected, 40 connecting, 50 local, 60 site, 70 global.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<u32>;
}

/// NetworkManager's connection profiles.
#[proxy(
    interface = "org.freedesktop.NetworkManager.Settings",
    default_service = "org.freedesktop.NetworkManager",
    default_path = "/org/freedesktop/NetworkManager/Settings"
)]
pub trait NetworkSettings {
    /// Reads changed profiles from disk.
    fn reload_connections(&self) -> zbus::Result<bool>;
    /// Reads these files, and says whether all of them are profiles, and which are not.
    fn load_connections(&self, filenames: &[String]) -> zbus::Result<(bool, Vec<String>)>;
    /// The profile with an identifier.
    fn get_connection_by_uuid(&self, uuid: &str) -> zbus::Result<OwnedObjectPath>;
    /// Every profile.
    fn list_connections(&self) -> zbus::Result<Vec<OwnedObjectPath>>;
}

/// What NetworkManager's networks say of names.
#[proxy(
    interface = "org.freedesktop.NetworkManager.DnsManager",
    default_service = "org.freedesktop.NetworkManager",
    default_path = "/org/freedesktop/NetworkManager/DnsManager"
)]
pub trait DnsManager {
    /// One dictionary for each network and family, the best first.
    #[zbus(property(emits_changed_signal = "false"))]
    fn configuration(&self) -> zbus::Result<Vec<HashMap<String, OwnedVariant>>>;
}

/// One of NetworkManager's connection profiles.
#[proxy(
    interface = "org.freedesktop.NetworkManager.Settings.Connection",
    default_service = "org.freedesktop.NetworkManager"
)]
pub trait Profile {
    /// What it says, by section, without secrets.
    fn get_settings(&self) -> zbus::Result<HashMap<String, HashMap<String, OwnedVariant>>>;
    /// Its file.
    #[zbus(property)]
    fn filename(&self) -> zbus::Result<String>;
}

/// A lease of DHCP for IPv4.
#[proxy(interface = "org.freedesktop.NetworkManager.DHCP4Config", default_service = "org.freedesktop.NetworkManager")]
pub trait Dhcp4Config {
    /// What the server said, each as a text.
    #[zbus(property(emits_changed_signal = "false"))]
    fn options(&self) -> zbus::Result<HashMap<String, OwnedVariant>>;
}

/// A lease of DHCP for IPv6.
#[proxy(interface = "org.freedesktop.NetworkManager.DHCP6Config", default_service = "org.freedesktop.NetworkManager")]
pub trait Dhcp6Config {
    /// What the server said, each as a text.
    #[zbus(property(emits_changed_signal = "false"))]
    fn options(&self) -> zbus::Result<HashMap<String, OwnedVariant>>;
}

/// A device of NetworkManager.
#[proxy(interface = "org.freedesktop.NetworkManager.Device", default_service = "org.freedesktop.NetworkManager")]
pub trait NetworkDevice {
    /// Name of its interface.
    #[zbus(property)]
    fn interface(&self) -> zbus::Result<String>;
    /// What is connected on it; `/` for nothing.
    #[zbus(property)]
    fn active_connection(&self) -> zbus::Result<OwnedObjectPath>;
    /// The profiles that could be connected on it.
    #[zbus(property)]
    fn available_connections(&self) -> zbus::Result<Vec<OwnedObjectPath>>;
}

/// A profile that is connected, or about to be.
#[proxy(
    interface = "org.freedesktop.NetworkManager.Connection.Active",
    default_service = "org.freedesktop.NetworkManager"
)]
pub trait ActiveConnection {
    /// The profile.
    #[zbus(property)]
    fn connection(&self) -> zbus::Result<OwnedObjectPath>;
    /// The lease of DHCP for IPv4; `/` for none.
    #[zbus(property)]
    fn dhcp4_config(&self) -> zbus::Result<OwnedObjectPath>;
    /// The lease of DHCP for IPv6; `/` for none.
    #[zbus(property)]
    fn dhcp6_config(&self) -> zbus::Result<OwnedObjectPath>;
    /// `NMActiveConnectionState`: 1 activating, 2 activated, 3 deactivating, 4 deactivated.
    #[zbus(property(emits_changed_signal = "false"))]
    fn state(&self) -> zbus::Result<u32>;
}

/// RAUC (its documentation, "D-Bus API").
#[proxy(interface = "de.pengutronix.rauc.Installer", default_service = "de.pengutronix.rauc", default_path = "/")]
pub trait Rauc {
    /// Marks a slot `good`, `bad` or `active`; slot is `booted`, `other` or a name. Returns slot and message.
    fn mark(&self, state: &str, slot_identifier: &str) -> zbus::Result<(String, String)>;
    /// Every slot with its properties.
    fn get_slot_status(&self) -> zbus::Result<Vec<(String, HashMap<String, OwnedVariant>)>>;
    /// The slot the bootloader will try next.
    fn get_primary(&self) -> zbus::Result<String>;
    /// Begins to install a bundle from a path or an address; [`Self::receive_completed`] says when it is over.
    fn install_bundle(&self, source: &str, args: HashMap<&str, Variant<'_>>) -> zbus::Result<()>;
    /// What a bundle says of itself; its signature is checked.
    fn inspect_bundle(
        &self,
        bundle: &str,
        args: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<HashMap<String, OwnedVariant>>;
    /// Why the last installation failed.
    #[zbus(property(emits_changed_signal = "false"))]
    fn last_error(&self) -> zbus::Result<String>;
    /// Percentage, what is being done, depth.
    #[zbus(property)]
    fn progress(&self) -> zbus::Result<(i32, String, i32)>;
    /// An installation is over; 0 is well.
    #[zbus(signal)]
    fn completed(&self, result: i32);
    /// `idle` or `installing`.
    #[zbus(property)]
    fn operation(&self) -> zbus::Result<String>;
    /// Compatible of this system.
    #[zbus(property)]
    fn compatible(&self) -> zbus::Result<String>;
}
