//! Every D-Bus interface the OS talks to, as typed proxies, and the one that it offers ([`updates`]). No other crate names
//! a bus, a path or an interface.
//!
//! A service that is not running is a state, not an error: see [`Bus::has_owner`].

mod avahi;
#[cfg(feature = "fake")]
pub mod fake;
mod links;
mod machine;
mod proxies;
mod rauc;
mod systemd;
pub mod updates;

pub use links::{Link, NetworkNames, Profile};
pub use proxies::{
    AvahiServerProxy, HostnamedProxy, LocaledProxy, LogindProxy, LogindSessionProxy, NetworkManagerProxy,
    NetworkSettingsProxy, RaucProxy, Session, SystemdManagerProxy, SystemdUnit, TimedatedProxy,
};
pub use rauc::{BundleFacts, RaucSlot};
pub use systemd::Verb;
/// Name of an object of a service.
pub use zbus::wire::OwnedObjectPath as ObjectPath;

use std::time::Duration;

/// How long a method may take. The bus's usual 25 seconds are not enough while a slow board boots: localed was seen to
/// wait 21 seconds for systemd alone.
const METHOD_TIMEOUT: Duration = Duration::from_secs(90);
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

impl Bus {
    /// Connects to the system bus (`DBUS_SYSTEM_BUS_ADDRESS` is honoured).
    ///
    /// # Errors
    /// When there is no bus.
    pub async fn system() -> Result<Self, BusError> {
        Self::on(zbus::connection::Builder::system()).await
    }

    /// Connects to the bus with an address (D-Bus specification, "Server Addresses").
    ///
    /// # Errors
    /// When there is no bus.
    pub async fn at(address: &str) -> Result<Self, BusError> {
        Self::on(zbus::connection::Builder::address(address)).await
    }

    async fn on(bus: zbus::connection::Builder<'_>) -> Result<Self, BusError> {
        // The builder connects when it is polled for the first time, which takes a runtime.
        let connection = async { bus.method_timeout(METHOD_TIMEOUT).build().await };
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
}
