//! The configuration as types. Every value in here has passed its [`Shape`](crate::shape::Shape).

mod choices;

pub use choices::{Listen, Mode, Resolver, Trial};
use os_facts::WipeScope;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything that can be configured. `None`, or empty, means: not set, the default is in force.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// Name of the device on the network.
    pub hostname: Option<String>,
    /// Keep the journal on the data partition.
    pub persistent_logging: Option<bool>,
    /// Login on the consoles and the engine's API on the network.
    pub development_mode: Option<bool>,
    /// Radio rules.
    pub country: Option<String>,
    /// Time servers, separated by spaces.
    pub ntp_servers: Option<String>,
    /// Name servers in the form of [`NameServer`](crate::name_server::NameServer), separated by spaces, or `null` as a word.
    pub dns_servers: Option<String>,
    /// A Wi-Fi network, as balena's generator writes it.
    pub wifi_ssid: Option<String>,
    /// Its passphrase.
    pub wifi_key: Option<String>,
    /// A certificate in PEM, in base64.
    #[serde(rename = "balenaRootCA")]
    pub balena_root_ca: Option<String>,
    /// Everything below `os`.
    pub os: Os,
}

/// What stands below `os`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Os {
    /// Authorities.
    pub ca_certificates: Vec<String>,
    /// Keys for root's login.
    pub ssh_keys: Option<Vec<String>>,
    /// Rules by file name.
    pub udev_rules: BTreeMap<String, String>,
    /// Networks.
    pub network: Network,
    /// Time.
    pub time: Time,
    /// Language.
    pub locale: Locale,
    /// Swap.
    pub memory: Memory,
    /// Engine.
    pub docker: Docker,
    /// OpenVPN.
    pub openvpn: OpenVpn,
    /// Broker.
    pub mqtt: Option<Mqtt>,
    /// Seconds of the hardware watchdog.
    pub watchdog: Option<u64>,
    /// Kernel.
    pub kernel: Kernel,
    /// Script for the first boot.
    pub first_boot: Option<String>,
    /// Request to erase.
    pub wipe: Option<Wipe>,
    /// Move secrets into state.
    pub seal_secrets: Option<bool>,
    /// USB import.
    pub import: Import,
    /// Encryption.
    pub encryption: Encryption,
    /// Updates.
    pub update: Update,
}

/// What stands below `os.update`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Update {
    /// Address or directory of the channel.
    pub channel: Option<String>,
    /// How much happens by itself.
    pub mode: Option<Mode>,
    /// When updates may be installed and started.
    pub window: Option<String>,
    /// Also where bytes are paid for.
    pub metered: Option<bool>,
    /// KiB per second; 0 for no limit.
    pub rate_limit: Option<u64>,
    /// How a release is started.
    pub trial: Option<Trial>,
}

/// What stands below `os.encryption`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Encryption {
    /// Where the key of the data partition is: `key` or `tpm2`.
    pub data: Option<String>,
}

/// What stands below `os.network`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    /// Wi-Fi.
    pub wifi: Wifi,
    /// Wired networks.
    pub ethernet: Vec<Ethernet>,
    /// Tunnels.
    pub wireguard: Vec<Wireguard>,
    /// Proxy.
    pub proxy: Option<Proxy>,
    /// Connectivity check.
    pub connectivity: Connectivity,
    /// Who answers for names.
    pub resolver: Option<Resolver>,
}

impl Network {
    /// True when port 53 of the device is for a container.
    pub fn resolver_is_off(&self) -> bool {
        self.resolver == Some(Resolver::Off)
    }
}

impl Config {
    /// All Wi-Fi networks, however they are named.
    pub fn wifi_networks(&self) -> Vec<WifiNetwork> {
        let mut networks = self.os.network.wifi.networks.clone();
        let other =
            self.wifi_ssid.as_ref().filter(|ssid| !ssid.is_empty() && !networks.iter().any(|n| n.ssid == **ssid));
        if let Some(ssid) = other {
            networks.push(WifiNetwork {
                ssid: ssid.clone(),
                password: self.wifi_key.clone(),
                ..WifiNetwork::default()
            });
        }
        networks
    }
}

/// What stands below `os.network.wifi`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Wifi {
    /// Another address for every scan.
    pub random_mac_address_scan: Option<bool>,
    /// Networks to join.
    pub networks: Vec<WifiNetwork>,
}

/// One Wi-Fi network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WifiNetwork {
    /// Name.
    pub ssid: String,
    /// Passphrase or key; none for an open network.
    pub password: Option<String>,
    /// `wpa-psk` or `sae`.
    pub security: Option<String>,
    /// It does not announce itself.
    #[serde(default)]
    pub hidden: bool,
    /// The higher is joined first.
    #[serde(default)]
    pub priority: i32,
}

/// One wired network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ethernet {
    /// Interface.
    pub interface: Option<String>,
    /// Hardware address of the interface.
    pub mac: Option<String>,
    /// Addresses with prefix; empty for DHCP.
    pub addresses: Vec<String>,
    /// Gateway.
    pub gateway: Option<String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Domains for short names.
    pub search: Vec<String>,
}

/// One tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wireguard {
    /// Interface.
    pub name: String,
    /// Key of this device.
    pub private_key: String,
    /// Addresses with prefix.
    pub addresses: Vec<String>,
    /// UDP port.
    pub listen_port: Option<u16>,
    /// The other ends.
    pub peers: Vec<Peer>,
}

/// One peer of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Key of the peer.
    pub public_key: String,
    /// Key that both ends share.
    pub preshared_key: Option<String>,
    /// Host and port.
    pub endpoint: Option<String>,
    /// Address ranges.
    pub allowed_ips: Vec<String>,
    /// Seconds.
    pub keepalive: Option<u16>,
}

/// Proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    /// Address, perhaps with name and password.
    pub url: String,
    /// What is reached without it.
    #[serde(default)]
    pub no_proxy: Vec<String>,
}

/// Connectivity check.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Connectivity {
    /// Page; `null` as a word for none.
    pub uri: Option<String>,
    /// Seconds, in digits.
    pub interval: Option<String>,
    /// Start of the answer.
    pub response: Option<String>,
}

impl Connectivity {
    /// Without `interval`.
    pub const INTERVAL: &str = "3600";
}

/// Time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Time {
    /// IANA zone.
    pub zone: Option<String>,
}

/// Language.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Locale {
    /// Locale.
    pub lang: Option<String>,
    /// Keymap.
    pub keymap: Option<String>,
}

impl Locale {
    /// Without `lang`.
    pub const LANG: &str = "C.UTF-8";
}

/// Swap.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// Percent of RAM.
    pub zram_swap: Option<u32>,
    /// MiB.
    pub swap_file: Option<u32>,
    /// `vm.swappiness`.
    pub swappiness: Option<u32>,
}

/// Engine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Docker {
    /// Mirrors of Docker Hub.
    pub registry_mirrors: Vec<String>,
    /// Registries without TLS.
    pub insecure_registries: Vec<String>,
    /// Address of the engine's bridge, with its prefix.
    pub bridge: Option<String>,
    /// Ranges for networks.
    pub address_pools: Vec<Pool>,
    /// Limit of containers' output.
    pub log: Option<Log>,
    /// Other settings, as `daemon.json` has them.
    pub daemon: serde_json::Map<String, serde_json::Value>,
}

/// A range that networks are taken from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Pool {
    /// The range.
    pub base: String,
    /// Prefix length of each network.
    pub size: u8,
}

/// Limit of a container's output.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// MiB of one file.
    pub max_size: u32,
    /// Files.
    pub max_files: u32,
}

/// OpenVPN.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct OpenVpn {
    /// Configurations by name.
    pub clients: BTreeMap<String, String>,
    /// Server.
    pub server: Option<OpenVpnServer>,
}

/// Server of OpenVPN.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OpenVpnServer {
    /// Run it.
    pub enabled: bool,
    /// Its configuration.
    pub config: String,
}

/// Broker for MQTT.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Mqtt {
    /// Run it.
    pub enabled: bool,
    /// Whom it listens to.
    pub listen: Option<Listen>,
    /// TCP port.
    pub port: Option<u16>,
    /// Passwords by name.
    pub users: BTreeMap<String, String>,
}

impl Mqtt {
    /// Without `port`.
    pub const PORT: u16 = 1883;
}

/// Kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Kernel {
    /// Further arguments.
    pub arguments: Option<String>,
    /// Modules to load.
    pub modules: Vec<String>,
    /// Options by module.
    pub module_options: BTreeMap<String, String>,
    /// Settings by name.
    pub sysctl: BTreeMap<String, Setting>,
}

/// A value that may be written as a number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Setting {
    /// As a number.
    Number(serde_json::Number),
    /// As text.
    Text(String),
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text.trim()),
        }
    }
}

/// Request to erase.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Wipe {
    /// What.
    pub what: WipeScope,
    /// Mark of the request.
    pub request: String,
}

/// USB import.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Import {
    /// Take nothing that is not signed.
    pub signed_only: Option<bool>,
}
