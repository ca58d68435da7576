//! Networks: NetworkManager's configuration and profiles, name servers, dispatcher scripts.

use super::effect::{self, Applied, Effect, own, then, write};
use super::{Device, Rows, links};
use crate::follow;
use anyhow::{Result, anyhow};
use os_config_model::connections::{self, Change};
use os_config_model::types::{Config, Connectivity, Ethernet, WifiNetwork, Wireguard};
use os_config_model::{names, profile};
use os_dbus::{Bus, Tried, Verb};
use os_sys::cmd::Cmd;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Profiles that exist only as long as the configuration that asks for them.
const PROFILES: &str = "/run/NetworkManager/system-connections";

pub(super) async fn all(device: &Device<'_>, rows: &mut Rows) {
    let (bus, config) = (device.bus, device.config);
    let keys = [
        "/os/network/wifi/randomMacAddressScan",
        "/os/network/connectivity/uri",
        "/os/network/connectivity/interval",
        "/os/network/connectivity/response",
    ];
    rows.add_all(&keys, manager(bus, config).await);
    rows.add("/dnsServers", name_servers(bus, config.dns_servers.as_deref()).await);
    rows.add("/os/network/resolver", resolver(bus, config.os.network.resolver_is_off()).await);
    let network = &config.os.network;
    let wifi = device.config.wifi_networks();
    let without_sae = wifi.iter().any(WifiNetwork::has_raw_key) && manager_can_leave_sae_out();
    let wifi = wifi.iter().map(|network| wifi_profile(network, without_sae)).collect();
    rows.add_all(&["/os/network/wifi/networks", "/wifiSsid", "/wifiKey"], profiles(bus, "wifi", &wifi).await);
    let ethernet = network.ethernet.iter().enumerate().map(|(i, n)| ethernet_profile(i, n)).collect();
    rows.add("/os/network/ethernet", profiles(bus, "ethernet", &ethernet).await);
    let wireguard = network.wireguard.iter().map(wireguard_profile).collect();
    rows.add("/os/network/wireguard", profiles(bus, "wireguard", &wireguard).await);
    imported_profiles(device, rows).await;
    dispatcher(device, rows).await;
}

async fn manager(bus: &Bus, config: &Config) -> Applied {
    let text = manager_conf(config);
    let written = write("/etc/NetworkManager/conf.d/50-os-config.conf", Some(&text), 0o644)?;
    then("manager", written, async {
        if let Some(manager) = bus.network_manager().await? {
            // 1: its configuration, and nothing else (org.freedesktop.NetworkManager, Reload).
            manager.reload(1).await.tried("NetworkManager cannot reload its configuration")?;
        }
        Ok(())
    })
    .await
}

fn manager_conf(config: &Config) -> String {
    let network = &config.os.network;
    let random = if network.wifi.random_mac_address_scan == Some(true) { "yes" } else { "no" };
    let mut text = format!("# Made from config.json\n[device-os-config]\nwifi.scan-rand-mac-address={random}\n");
    let check = &network.connectivity;
    if let Some(uri) = check.uri.as_deref().filter(|uri| *uri != "null") {
        let interval = check.interval.as_deref().unwrap_or(Connectivity::INTERVAL);
        let _ = write!(text, "\n[connectivity]\nenabled=true\nuri={uri}\ninterval={interval}\n");
        if let Some(response) = &check.response {
            let _ = writeln!(text, "response={response}");
        }
    }
    text
}

async fn name_servers(bus: &Bus, servers: Option<&str>) -> Applied {
    let list: String = names::wishes(servers.unwrap_or_default()).iter().map(|s| format!("{s}\n")).collect();
    let written = write(follow::WISHES, (!list.is_empty()).then_some(&list), 0o644)?;
    then("dns", written, async {
        bus.unit_job(Verb::Restart, follow::SERVICE).await?;
        // In force is what os-dns has read. A job of its unit would wait for ours.
        if bus.is_active("os-dns.service").await? {
            bus.hang_up("os-dns.service").await?;
        }
        Ok(())
    })
    .await
}

async fn resolver(bus: &Bus, off: bool) -> Applied {
    let written = write(follow::RESOLVER_OFF, off.then_some(""), 0o644)?;
    then("resolver", written, async {
        // It starts after us: that is not waited for.
        match off {
            true => bus.unit_job(Verb::Stop, "os-dns.service").await?,
            false => bus.queue(Verb::Start, "os-dns.service").await?,
        }
        Ok(bus.unit_job(Verb::Restart, follow::SERVICE).await?)
    })
    .await
}

/// A profile: name of the file, identifier, text. The identifier follows from the name, so that a changed profile stays
/// the same one for NetworkManager.
struct Profile {
    name: String,
    text: String,
}

impl Profile {
    fn new(kind: &str, name: &str, interface: Option<&str>, priority: i32) -> Self {
        let id = format!("config.json {name}");
        let mut text = format!("[connection]\nid={}\nuuid={}\ntype={kind}\n", string(&id), uuid(kind, name));
        if let Some(interface) = interface {
            let _ = writeln!(text, "interface-name={interface}");
        }
        let _ = writeln!(text, "autoconnect-priority={priority}");
        // The name of a network may be anything; the name of the file may not.
        let name = format!("os-config-{kind}-{:016x}", os_config_model::store::checksum(name.as_bytes()));
        Self { name, text }
    }

    fn section(&mut self, name: &str, lines: &[(&str, Option<&str>)]) {
        let _ = write!(self.text, "\n[{name}]\n");
        for (key, value) in lines {
            if let Some(value) = value {
                let _ = writeln!(self.text, "{key}={value}");
            }
        }
    }

    fn addresses(&mut self, addresses: &[String], gateway: Option<&str>, dns: &[String], search: &[String]) {
        for (section, six) in [("ipv4", false), ("ipv6", true)] {
            let here = |a: &&String| a.contains(':') == six;
            let mut lines: Vec<String> = Vec::new();
            for (index, address) in addresses.iter().filter(here).enumerate() {
                lines.push(format!("address{}={address}", index + 1));
            }
            let method =
                if lines.is_empty() { if addresses.is_empty() || six { "auto" } else { "disabled" } } else { "manual" };
            if let Some(gateway) = gateway.filter(|g| g.contains(':') == six) {
                lines.push(format!("gateway={gateway}"));
            }
            let servers: String = dns.iter().filter(here).map(|s| format!("{s};")).collect();
            if !servers.is_empty() {
                lines.push(format!("dns={servers}"));
            }
            if !search.is_empty() {
                lines.push(format!("dns-search={};", search.join(";")));
            }
            let _ = write!(self.text, "\n[{section}]\nmethod={method}\n");
            lines.iter().for_each(|line| self.text.push_str(&format!("{line}\n")));
        }
    }

    fn finish(self) -> (String, String) {
        (format!("{}.nmconnection", self.name), self.text)
    }
}

/// A string in a keyfile (GLib's key file format): a backslash escapes, a space in front would be lost.
fn string(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\");
    match escaped.strip_prefix(' ') {
        Some(rest) => format!("\\s{rest}"),
        None => escaped,
    }
}

/// A version 8 UUID (RFC 9562) that follows from the name.
fn uuid(kind: &str, name: &str) -> String {
    let high = os_config_model::store::checksum(format!("{kind}/{name}").as_bytes());
    let low = os_config_model::store::checksum(format!("{name}/{kind}").as_bytes());
    let (high, low) = ((high & !0xf000) | 0x8000, (low >> 2) | 0x8000_0000_0000_0000);
    let (high, low) = (format!("{high:016x}"), format!("{low:016x}"));
    let part = |text: &str, from: usize, to: usize| text.get(from..to).unwrap_or_default().to_owned();
    [part(&high, 0, 8), part(&high, 8, 12), part(&high, 12, 16), part(&low, 0, 4), part(&low, 4, 16)].join("-")
}

/// Since 1.56 a profile without protection of management frames keeps to WPA2. Asked of the program: at boot no service runs yet.
fn manager_can_leave_sae_out() -> bool {
    Cmd::new("NetworkManager").arg("--version").read().is_ok_and(|version| is_since(&version, (1, 56)))
}

fn is_since(version: &str, first: (u32, u32)) -> bool {
    let mut parts = version.trim().split('.').map(|part| part.parse::<u32>().ok());
    matches!((parts.next().flatten(), parts.next().flatten()), (Some(major), Some(minor)) if (major, minor) >= first)
}

/// A key that was computed from the passphrase is good for WPA2 only; `without_sae` says that NetworkManager can be held to that where
/// an access point offers WPA3 too.
fn wifi_profile(network: &WifiNetwork, without_sae: bool) -> (String, String) {
    let mut profile = Profile::new("wifi", &network.ssid, None, network.priority);
    // As bytes: every name is possible, and none is taken for a list.
    let ssid: String = network.ssid.bytes().map(|b| format!("{b};")).collect();
    let hidden = network.hidden.then_some("true");
    profile.section("wifi", &[("mode", Some("infrastructure")), ("ssid", Some(&ssid)), ("hidden", hidden)]);
    if let Some(password) = &network.password {
        let security = network.security.as_deref().unwrap_or("wpa-psk");
        let pmf = (without_sae && security == "wpa-psk" && network.has_raw_key()).then_some("1");
        profile
            .section("wifi-security", &[("key-mgmt", Some(security)), ("psk", Some(&string(password))), ("pmf", pmf)]);
    }
    profile.addresses(&[], None, &[], &[]);
    profile.finish()
}

fn ethernet_profile(index: usize, network: &Ethernet) -> (String, String) {
    let name = network.interface.clone().or_else(|| network.mac.clone()).unwrap_or_else(|| format!("wired {index}"));
    // Before NetworkManager's own profile for any wired interface, which has -999.
    let mut profile = Profile::new("ethernet", &name, network.interface.as_deref(), 10);
    profile.section("ethernet", &[("mac-address", network.mac.as_deref())]);
    profile.addresses(&network.addresses, network.gateway.as_deref(), &network.dns, &network.search);
    profile.finish()
}

fn wireguard_profile(tunnel: &Wireguard) -> (String, String) {
    let mut profile = Profile::new("wireguard", &tunnel.name, Some(&tunnel.name), 0);
    let port = tunnel.listen_port.map(|p| p.to_string());
    profile.section("wireguard", &[("private-key", Some(&tunnel.private_key)), ("listen-port", port.as_deref())]);
    for peer in &tunnel.peers {
        let allowed: String = peer.allowed_ips.iter().map(|a| format!("{a};")).collect();
        let keepalive = peer.keepalive.map(|k| k.to_string());
        let shared = peer.preshared_key.as_deref();
        profile.section(
            &format!("wireguard-peer.{}", peer.public_key),
            &[
                ("endpoint", peer.endpoint.as_deref()),
                ("preshared-key", shared),
                ("preshared-key-flags", shared.map(|_| "0")),
                ("allowed-ips", Some(&allowed)),
                ("persistent-keepalive", keepalive.as_deref()),
            ],
        );
    }
    profile.addresses(&tunnel.addresses, None, &[], &[]);
    // A tunnel gives no addresses away: without one of a family there is none.
    profile.text = profile.text.replace("[ipv6]\nmethod=auto", "[ipv6]\nmethod=disabled");
    profile.finish()
}

async fn profiles(bus: &Bus, name: &str, wanted: &BTreeMap<String, String>) -> Applied {
    let path = |file: &str| Path::new(PROFILES).join(file);
    let before: BTreeMap<&String, String> =
        wanted.keys().map(|file| (file, std::fs::read_to_string(path(file)).unwrap_or_default())).collect();
    let owned = own(&format!("profiles-{name}"), Path::new(PROFILES), wanted, 0o600)?;
    let change = |file: &String| {
        let (before, after) = (before.get(file)?, wanted.get(file)?);
        Some(Change { file: path(file).to_string_lossy().into_owned(), other: connections::is_other(before, after) })
    };
    let changes: Vec<Change> = owned.changed.iter().filter_map(change).collect();
    let effect = then(&format!("profiles-{name}"), owned.written(), async {
        links::bring(bus, &changes).await?;
        // A new profile connects by itself where nothing better is connected; a tunnel has to be told.
        let is_new = |file: &&String| before.get(file).is_some_and(String::is_empty);
        for file in owned.changed.iter().filter(is_new).filter(|_| name == "wireguard") {
            if let Some(uuid) = wanted.get(file).and_then(|text| text.lines().find_map(|l| l.strip_prefix("uuid="))) {
                bus.activate_connection(uuid).await?;
            }
        }
        Ok(())
    })
    .await?;
    let files: Vec<String> = wanted.keys().map(|file| path(file).to_string_lossy().into_owned()).collect();
    in_force(effect, &[], &links::not_connected(&files))
}

async fn imported_profiles(device: &Device<'_>, rows: &mut Rows) {
    let import = connections::import(
        &device.store.boot().join("system-connections"),
        Path::new("/etc/NetworkManager/system-connections"),
        Path::new("/mnt/state/os/config/imported-connections"),
    );
    let key = "system-connections/";
    let mut import = match import {
        Ok(import) => import,
        Err(err) => return rows.add_as(key, true, Err(err.into())),
    };
    let written = if import.changed { os_sys::files::Written::Changed } else { os_sys::files::Written::Unchanged };
    let texts = import.files.iter().filter_map(|file| {
        let name = file.rsplit('/').next().unwrap_or(file);
        Some((name.to_owned(), connections::read_small(Path::new(file)).ok()?))
    });
    for (name, doubt) in profile::doubts(&texts.collect()) {
        rows.warnings.push(format!("{key}{name}: {doubt}"));
    }
    let brought = then("profiles", written, links::bring(device.bus, &import.changes)).await;
    let refused = refused_by_manager(device.bus, &import.files).await;
    let result = brought.and_then(|effect| {
        import.refused.extend(refused?);
        in_force(effect, &import.refused, &links::not_connected(&import.files))
    });
    rows.add_as(key, !import.files.is_empty(), result);
}

/// The profiles that NetworkManager cannot use: it says so only to who asks for each.
async fn refused_by_manager(bus: &Bus, files: &[String]) -> Result<Vec<String>> {
    let Some(settings) = bus.network_settings().await?.filter(|_| !files.is_empty()) else { return Ok(Vec::new()) };
    let (_, refused) = settings.load_connections(files).await.tried("NetworkManager cannot read its profiles")?;
    let line = |file: &String| {
        let name = file.rsplit('/').next().unwrap_or(file);
        format!("{name}: NetworkManager refuses it; journalctl -u NetworkManager says why")
    };
    Ok(refused.iter().map(line).collect())
}

fn in_force(effect: Effect, refused: &[String], failed: &[String]) -> Applied {
    let refused = (!refused.is_empty()).then(|| format!("left out {}", refused.join("; ")));
    let problems: Vec<String> = refused.into_iter().chain(failed.iter().cloned()).collect();
    if problems.is_empty() { Ok(effect) } else { Err(anyhow!(problems.join("; "))) }
}

async fn dispatcher(device: &Device<'_>, rows: &mut Rows) {
    let (wanted, refused) = connections::scripts(&device.store.boot().join("dispatcher.d"));
    let any = !wanted.is_empty();
    // The dispatcher reads the directory at every event: nothing has to be told.
    let result: Result<Effect> = own("dispatcher", Path::new("/etc/NetworkManager/dispatcher.d"), &wanted, 0o755)
        .map(|owned| effect::Effect::from(owned.written()))
        .and_then(|effect| in_force(effect, &refused, &[]));
    rows.add_as("dispatcher.d/", any, result);
}

#[cfg(test)]
mod tests {
    use super::*;
    use os_config_model::types::Wifi;

    #[test]
    fn any_name_and_password_make_a_keyfile_of_one_meaning() {
        let network = WifiNetwork {
            ssid: "a;b\\c [x]".to_owned(),
            password: Some(" back\\slash;=#".to_owned()),
            security: None,
            hidden: true,
            priority: 3,
        };
        let (file, text) = wifi_profile(&network, true);
        assert!(file.starts_with("os-config-wifi-") && !file.contains(['[', '/', ' ']), "{file}");
        assert!(text.contains("ssid=97;59;98;92;99;32;91;120;93;\nhidden=true\n"), "{text}");
        assert!(text.contains("psk=\\sback\\\\slash;=#\n") && text.contains("key-mgmt=wpa-psk"), "{text}");
        assert!(text.contains("autoconnect-priority=3\n") && !text.contains("pmf"));
    }

    #[test]
    fn a_raw_key_keeps_to_wpa2_where_it_can() {
        let network = WifiNetwork { ssid: "a".to_owned(), password: Some("0a".repeat(32)), ..WifiNetwork::default() };
        assert!(
            wifi_profile(&network, true).1.contains("\npmf=1\n") && !wifi_profile(&network, false).1.contains("pmf")
        );
        let sae = WifiNetwork { security: Some("sae".to_owned()), ..network };
        assert!(!wifi_profile(&sae, true).1.contains("pmf"));
        for (version, new) in
            [("1.52.1\n", false), ("1.56.0\n", true), ("2.0", true), ("1.9", false), ("", false), ("x.60", false)]
        {
            assert_eq!(is_since(version, (1, 56)), new, "{version}");
        }
    }

    #[test]
    fn addresses_go_to_their_family() {
        let network = Ethernet {
            interface: Some("eth1".to_owned()),
            addresses: vec!["10.0.0.5/24".to_owned(), "fd00::5/64".to_owned(), "10.0.0.6/24".to_owned()],
            gateway: Some("10.0.0.1".to_owned()),
            dns: vec!["fd00::1".to_owned(), "10.0.0.1".to_owned()],
            search: vec!["a.lan".to_owned(), "b.lan".to_owned()],
            ..Ethernet::default()
        };
        let (_, text) = ethernet_profile(0, &network);
        let four = "[ipv4]\nmethod=manual\naddress1=10.0.0.5/24\naddress2=10.0.0.6/24\ngateway=10.0.0.1\ndns=10.0.0.1;\ndns-search=a.lan;b.lan;\n";
        assert!(
            text.contains(four) && text.contains("[ipv6]\nmethod=manual\naddress1=fd00::5/64\ndns=fd00::1;\n"),
            "{text}"
        );
        let (_, text) = ethernet_profile(0, &Ethernet::default());
        assert!(text.contains("[ipv4]\nmethod=auto\n") && text.contains("[ipv6]\nmethod=auto\n"), "{text}");
    }

    #[test]
    fn identifiers_are_uuids_and_differ() {
        let (a, b) = (uuid("wifi", "a"), uuid("wifi", "b"));
        assert_ne!(a, b);
        assert_eq!(a, uuid("wifi", "a"));
        let lengths: Vec<usize> = a.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(a.chars().nth(14), Some('8'), "{a}");
        assert!("89ab".contains(a.chars().nth(19).unwrap()), "{a}");
    }

    #[test]
    fn no_page_is_asked_unless_it_is_configured() {
        let mut config = Config::default();
        assert!(!manager_conf(&config).contains("[connectivity]"));
        config.os.network.connectivity.uri = Some("null".to_owned());
        assert!(!manager_conf(&config).contains("[connectivity]"));
        config.os.network.connectivity.uri = Some("http://x/".to_owned());
        config.os.network.wifi = Wifi { random_mac_address_scan: Some(true), ..Wifi::default() };
        let text = manager_conf(&config);
        assert!(
            text.contains("scan-rand-mac-address=yes") && text.contains("uri=http://x/\ninterval=3600\n"),
            "{text}"
        );
    }
}
