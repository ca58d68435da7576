//! The interface that other programs ask for updates through: `os.Update1` at `/os/Update1`, on the system bus.
//!
//! The bus starts it when somebody asks, and it goes when nobody has asked for a while.

use crate::{BusError, Tried};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use zbus::connection::Builder;
use zbus::fdo;

/// Name on the bus, and of the interface.
pub const NAME: &str = "os.Update1";
const PATH: &str = "/os/Update1";
/// How often is looked whether a property changed, or nobody needs us.
const TICK: Duration = Duration::from_secs(1);

/// What the properties say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// `idle`, `installing`, `installed` or `trial`.
    pub phase: String,
    /// Version on its way to this device, or empty.
    pub version: String,
    /// Of the installation; -1 while there is none.
    pub percent: i32,
    /// Nothing happens by itself.
    pub paused: bool,
    /// What the last check or attempt said.
    pub last: String,
}

/// What does the work. Every call has a thread of its own and takes the time it needs; an error is a sentence for people.
pub trait Updates: Send + Sync + 'static {
    /// Where the update stands.
    fn status(&self) -> Status;
    /// Looks into a channel, the configured one where it is empty: the version on offer, or empty, and a sentence.
    ///
    /// # Errors
    /// When there is none, or it cannot be believed.
    fn check(&self, channel: &str) -> Result<(String, String), String>;
    /// Installs what a channel offers and restarts into it.
    ///
    /// # Errors
    /// When that cannot be done.
    fn apply(&self, channel: &str) -> Result<String, String>;
    /// Restarts into what ran before.
    ///
    /// # Errors
    /// When there is nothing to go back to.
    fn rollback(&self) -> Result<(), String>;
    /// Lets nothing, or everything again, happen by itself.
    ///
    /// # Errors
    /// When that cannot be written down.
    fn pause(&self, paused: bool) -> Result<(), String>;
}

/// Who is being served.
#[derive(Debug)]
struct Callers {
    at_work: AtomicUsize,
    last: Mutex<Instant>,
}

impl Callers {
    fn seen(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn gone_for(&self, idle: Duration) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.at_work.load(Ordering::SeqCst) == 0 && last.elapsed() >= idle
    }
}

struct Interface<T> {
    updates: Arc<T>,
    callers: Arc<Callers>,
}

impl<T: Updates> Interface<T> {
    /// Does something that takes time, on a thread of its own.
    async fn work<R: Send + 'static>(
        &self,
        work: impl FnOnce(&T) -> Result<R, String> + Send + 'static,
    ) -> fdo::Result<R> {
        let (updates, callers) = (self.updates.clone(), self.callers.clone());
        callers.at_work.fetch_add(1, Ordering::SeqCst);
        let done = tokio::task::spawn_blocking(move || work(&updates)).await;
        self.callers.seen();
        callers.at_work.fetch_sub(1, Ordering::SeqCst);
        done.map_err(|err| fdo::Error::Failed(err.to_string()))?.map_err(fdo::Error::Failed)
    }

    fn status(&self) -> Status {
        self.callers.seen();
        self.updates.status()
    }
}

#[zbus::interface(name = "os.Update1")]
impl<T: Updates> Interface<T> {
    /// Looks into a channel, the configured one where it is empty.
    #[zbus(out_args("version", "text"))]
    async fn check(&self, channel: String) -> fdo::Result<(String, String)> {
        self.work(move |updates| updates.check(&channel)).await
    }

    /// Installs what a channel offers and restarts into it. The answer comes when the restart begins, after minutes: ask
    /// without a time limit, or do not wait for it and watch the properties.
    #[zbus(out_args("text"))]
    async fn apply(&self, channel: String) -> fdo::Result<String> {
        self.work(move |updates| updates.apply(&channel)).await
    }

    /// Restarts into what ran before.
    async fn rollback(&self) -> fdo::Result<()> {
        self.work(Updates::rollback).await
    }

    /// Lets nothing happen by itself.
    async fn pause(&self) -> fdo::Result<()> {
        self.work(|updates| updates.pause(true)).await
    }

    /// Ends a pause.
    async fn resume(&self) -> fdo::Result<()> {
        self.work(|updates| updates.pause(false)).await
    }

    #[zbus(property)]
    async fn phase(&self) -> String {
        self.status().phase
    }

    #[zbus(property)]
    async fn version(&self) -> String {
        self.status().version
    }

    #[zbus(property)]
    async fn percent(&self) -> i32 {
        self.status().percent
    }

    #[zbus(property)]
    async fn paused(&self) -> bool {
        self.status().paused
    }

    #[zbus(property)]
    async fn last(&self) -> String {
        self.status().last
    }
}

/// Serves on the system bus until nobody has asked for `idle`.
///
/// # Errors
/// When there is no bus, or it does not give us the name.
pub async fn serve(updates: impl Updates, idle: Duration) -> Result<(), BusError> {
    on(Builder::system(), updates, idle).await
}

/// The same on the bus with an address (D-Bus specification, "Server Addresses").
///
/// # Errors
/// As [`serve`].
pub async fn serve_at(address: &str, updates: impl Updates, idle: Duration) -> Result<(), BusError> {
    on(Builder::address(address), updates, idle).await
}

async fn on(bus: Builder<'_>, updates: impl Updates, idle: Duration) -> Result<(), BusError> {
    let updates = Arc::new(updates);
    let callers = Arc::new(Callers { at_work: AtomicUsize::new(0), last: Mutex::new(Instant::now()) });
    let interface = Interface { updates: updates.clone(), callers: callers.clone() };
    let connect = async { bus.serve_at(PATH, interface).name(NAME).build().await };
    let connection = connect.await.map_err(BusError::Connect)?;
    let told = async || -> zbus::Result<()> {
        let mut before = updates.status();
        loop {
            tokio::time::sleep(TICK).await;
            if callers.gone_for(idle) {
                connection.release_name(NAME).await?;
                // What was sent to us before the bus knew is still answered.
                tokio::time::sleep(TICK).await;
                if callers.gone_for(idle) {
                    return Ok(());
                }
                connection.request_name(NAME).await?;
            }
            let now = updates.status();
            tell(&connection, &before, &now).await?;
            before = now;
        }
    };
    told().await.tried("the bus went away")
}

/// Tells who listens which properties changed.
async fn tell(connection: &zbus::Connection, before: &Status, now: &Status) -> zbus::Result<()> {
    let mut changed = std::collections::HashMap::new();
    if before.phase != now.phase {
        changed.insert("Phase", zbus::wire::Variant::from(now.phase.as_str()));
    }
    if before.version != now.version {
        changed.insert("Version", now.version.as_str().into());
    }
    if before.percent != now.percent {
        changed.insert("Percent", now.percent.into());
    }
    if before.paused != now.paused {
        changed.insert("Paused", now.paused.into());
    }
    if before.last != now.last {
        changed.insert("Last", now.last.as_str().into());
    }
    if changed.is_empty() {
        return Ok(());
    }
    let none: &[&str] = &[];
    let signal = ("org.freedesktop.DBus.Properties", "PropertiesChanged");
    connection.emit_signal(None::<&str>, PATH, signal.0, signal.1, &(NAME, changed, none)).await
}
