//! NetworkManager, its profiles and the devices that they are connected on, for changes that must cut nobody off.

use crate::proxies::{
    ActiveConnectionProxy, Dhcp4ConfigProxy, Dhcp6ConfigProxy, DnsManagerProxy, NetworkDeviceProxy, ProfileProxy,
};
use crate::{Bus, BusError, NetworkManagerProxy, NetworkSettingsProxy, Tried};
use std::collections::HashMap;
use std::time::Duration;
use zbus::wire::{ObjectPath, OwnedObjectPath, OwnedVariant};

/// How often a connection that comes up is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// `NM_CHECKPOINT_CREATE_FLAG_ALLOW_OVERLAPPING`: somebody else's checkpoint stays theirs.
const ALLOW_OVERLAPPING: u32 = 8;

/// `NMActiveConnectionState`.
const ACTIVATING: u32 = 1;
const ACTIVATED: u32 = 2;

/// A profile as NetworkManager has read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its object.
    pub object: OwnedObjectPath,
    /// Its file; empty when there is none.
    pub file: String,
    /// Its name for people.
    pub id: String,
    /// NetworkManager connects it by itself.
    pub autoconnect: bool,
    /// The higher is connected first.
    pub priority: i32,
}

/// A device that a profile is connected on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its object.
    pub device: OwnedObjectPath,
    /// Name of its interface.
    pub interface: String,
    /// The profile that is connected, or about to be.
    pub profile: OwnedObjectPath,
    /// The profiles that could be.
    pub available: Vec<OwnedObjectPath>,
}

/// What a network says of names, one family of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkNames {
    /// Name of its interface.
    pub interface: String,
    /// Its servers: addresses, or URIs.
    pub servers: Vec<String>,
    /// Its domains; behind `~` those in which short names are not looked for.
    pub domains: Vec<String>,
    /// The lower is asked first; a negative one leaves out all that are higher.
    pub priority: i32,
    /// It is a tunnel.
    pub tunnel: bool,
}

impl Bus {
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

    /// True when NetworkManager says, or guesses, that the connection is paid by the byte.
    ///
    /// # Errors
    /// When NetworkManager does not answer.
    pub async fn is_metered(&self) -> Result<bool, BusError> {
        let Some(manager) = self.network_manager().await? else { return Ok(false) };
        Ok(matches!(manager.metered().await.tried("cannot ask NetworkManager")?, 1 | 3))
    }

    /// What the networks say of names, the best first; nothing while NetworkManager does not run.
    ///
    /// # Errors
    /// When NetworkManager does not answer.
    pub async fn network_names(&self) -> Result<Vec<NetworkNames>, BusError> {
        if !self.has_owner("org.freedesktop.NetworkManager").await? {
            return Ok(Vec::new());
        }
        let manager = DnsManagerProxy::new(&self.0).await.tried("cannot reach NetworkManager")?;
        let list = manager.configuration().await.tried("cannot ask NetworkManager for name servers")?;
        Ok(list.into_iter().map(network_names).collect())
    }

    /// The texts in which leases of DHCP name time servers, those of the connection with the default route first.
    ///
    /// # Errors
    /// When NetworkManager does not answer.
    pub async fn time_servers(&self) -> Result<Vec<String>, BusError> {
        const WHAT: &str = "cannot ask NetworkManager for leases";
        let Some(manager) = self.network_manager().await? else { return Ok(Vec::new()) };
        let primary = manager.primary_connection().await.tried(WHAT)?;
        let mut active = manager.active_connections().await.tried(WHAT)?;
        active.sort_by_key(|object| *object != primary);
        let mut texts = Vec::new();
        for object in active {
            let active = ActiveConnectionProxy::new(&self.0, object).await.tried(WHAT)?;
            // What goes away meanwhile says nothing.
            let (four, six) = (active.dhcp4_config().await, active.dhcp6_config().await);
            if let Some(object) = four.ok().filter(|object| object.as_str() != "/") {
                let lease = Dhcp4ConfigProxy::new(&self.0, object).await.tried(WHAT)?;
                texts.extend(named(&lease.options().await.unwrap_or_default()));
            }
            if let Some(object) = six.ok().filter(|object| object.as_str() != "/") {
                let lease = Dhcp6ConfigProxy::new(&self.0, object).await.tried(WHAT)?;
                texts.extend(named(&lease.options().await.unwrap_or_default()));
            }
        }
        Ok(texts)
    }

    /// Every profile that NetworkManager knows.
    ///
    /// # Errors
    /// When NetworkManager does not answer.
    pub async fn profiles(&self) -> Result<Vec<Profile>, BusError> {
        const WHAT: &str = "cannot ask NetworkManager for its profiles";
        let Some(settings) = self.network_settings().await? else { return Ok(Vec::new()) };
        let mut profiles = Vec::new();
        for object in settings.list_connections().await.tried(WHAT)? {
            let profile = ProfileProxy::new(&self.0, object.clone()).await.tried(WHAT)?;
            // One that goes away meanwhile is none.
            let (Ok(file), Ok(mut settings)) = (profile.filename().await, profile.get_settings().await) else {
                continue;
            };
            let mut connection = settings.remove("connection").unwrap_or_default();
            let mut take = |name: &str| connection.remove(name).map(|value: OwnedVariant| value);
            profiles.push(Profile {
                object,
                file,
                id: take("id").and_then(|v| String::try_from(v).ok()).unwrap_or_default(),
                autoconnect: take("autoconnect").and_then(|v| bool::try_from(v).ok()).unwrap_or(true),
                priority: take("autoconnect-priority").and_then(|v| i32::try_from(v).ok()).unwrap_or(0),
            });
        }
        Ok(profiles)
    }

    /// The devices that a profile is connected on.
    ///
    /// # Errors
    /// When NetworkManager does not answer.
    pub async fn links(&self) -> Result<Vec<Link>, BusError> {
        const WHAT: &str = "cannot ask NetworkManager for its devices";
        let Some(manager) = self.network_manager().await? else { return Ok(Vec::new()) };
        let mut links = Vec::new();
        for object in manager.get_devices().await.tried(WHAT)? {
            let device = NetworkDeviceProxy::new(&self.0, object.clone()).await.tried(WHAT)?;
            // A device that goes away meanwhile, or that has nothing connected ("/"), is none.
            let Ok(active) = device.active_connection().await else { continue };
            if active.as_str() == "/" {
                continue;
            }
            let active = ActiveConnectionProxy::new(&self.0, active).await.tried(WHAT)?;
            let (Ok(profile), Ok(interface)) = (active.connection().await, device.interface().await) else { continue };
            let available = device.available_connections().await.unwrap_or_default();
            links.push(Link { device: object, interface, profile, available });
        }
        Ok(links)
    }

    /// Connects a profile of NetworkManager, again if it is connected. One that no device fits now waits for its device.
    ///
    /// # Errors
    /// When NetworkManager does not know the profile or refuses it.
    pub async fn activate_connection(&self, uuid: &str) -> Result<(), BusError> {
        let (Some(manager), Some(settings)) = (self.network_manager().await?, self.network_settings().await?) else {
            return Ok(());
        };
        let any = ObjectPath::from_static_str_unchecked("/");
        let profile = settings.get_connection_by_uuid(uuid).await.tried("NetworkManager does not take the profile")?;
        match manager.activate_connection(&profile.as_ref(), &any, &any).await {
            Err(zbus::Error::MethodError(name, ..)) if name.as_str().ends_with(".UnknownDevice") => Ok(()),
            other => other.map(drop).tried("NetworkManager cannot connect the profile"),
        }
    }

    /// Connects a profile on a device and waits until it is connected; false when it is not within `limit`.
    ///
    /// # Errors
    /// When NetworkManager refuses at once.
    pub async fn connect(&self, profile: &Profile, link: &Link, limit: Duration) -> Result<bool, BusError> {
        const WHAT: &str = "NetworkManager cannot connect the profile";
        let Some(manager) = self.network_manager().await? else { return Ok(false) };
        let any = ObjectPath::from_static_str_unchecked("/");
        let active =
            manager.activate_connection(&profile.object.as_ref(), &link.device.as_ref(), &any).await.tried(WHAT)?;
        let active = ActiveConnectionProxy::new(&self.0, active).await.tried(WHAT)?;
        let up = async {
            loop {
                // An object that is gone has failed.
                match active.state().await {
                    Ok(ACTIVATED) => return true,
                    // 0: NetworkManager has not begun yet.
                    Ok(0 | ACTIVATING) => tokio::time::sleep(LOOK).await,
                    _ => return false,
                }
            }
        };
        Ok(tokio::time::timeout(limit, up).await.unwrap_or(false))
    }

    /// Has NetworkManager remember how these devices are connected. It goes back to that by itself after `limit`, unless
    /// [`Bus::forget`] or [`Bus::go_back`] comes first.
    ///
    /// # Errors
    /// When NetworkManager refuses.
    pub async fn remember(&self, links: &[Link], limit: Duration) -> Result<Option<OwnedObjectPath>, BusError> {
        let Some(manager) = self.network_manager().await?.filter(|_| !links.is_empty()) else { return Ok(None) };
        let devices: Vec<_> = links.iter().map(|link| link.device.as_ref()).collect();
        let seconds = u32::try_from(limit.as_secs()).unwrap_or(u32::MAX);
        let checkpoint = manager.checkpoint_create(&devices, seconds, ALLOW_OVERLAPPING).await;
        checkpoint.map(Some).tried("NetworkManager cannot remember how the device is connected")
    }

    /// What is connected now, stays.
    ///
    /// # Errors
    /// When NetworkManager has gone back by itself.
    pub async fn forget(&self, checkpoint: &OwnedObjectPath) -> Result<(), BusError> {
        let Some(manager) = self.network_manager().await? else { return Ok(()) };
        let done = manager.checkpoint_destroy(&checkpoint.as_ref()).await;
        done.tried("NetworkManager went back to what was connected before")
    }

    /// Connects what was connected before, with the profiles as they were.
    ///
    /// # Errors
    /// When NetworkManager refuses.
    pub async fn go_back(&self, checkpoint: &OwnedObjectPath) -> Result<(), BusError> {
        let Some(manager) = self.network_manager().await? else { return Ok(()) };
        let done = manager.checkpoint_rollback(&checkpoint.as_ref()).await;
        done.map(drop).tried("NetworkManager cannot go back to what was connected before")
    }
}

/// The options of DHCP that name time servers, as NetworkManager calls them.
fn named(options: &HashMap<String, OwnedVariant>) -> impl Iterator<Item = String> {
    const NAMES: [&str; 4] = ["ntp_servers", "dhcp6_ntp_servers", "sntp_servers", "dhcp6_sntp_servers"];
    NAMES.iter().filter_map(|name| String::try_from(options.get(*name)?.clone()).ok())
}

fn network_names(mut values: HashMap<String, OwnedVariant>) -> NetworkNames {
    let list = |value: Option<OwnedVariant>| value.and_then(|v| Vec::<String>::try_from(v).ok()).unwrap_or_default();
    NetworkNames {
        interface: values.remove("interface").and_then(|v| String::try_from(v).ok()).unwrap_or_default(),
        servers: list(values.remove("nameservers")),
        domains: list(values.remove("domains")),
        priority: values.remove("priority").and_then(|v| i32::try_from(v).ok()).unwrap_or_default(),
        tunnel: values.remove("vpn").and_then(|v| bool::try_from(v).ok()).unwrap_or_default(),
    }
}
