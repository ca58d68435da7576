//! Who is asked for which name: what is known of it becomes the servers of os-dns and `resolv.conf`.
//!
//! The initramfs lays them down with what the boot before knew ([`lay_down`]), and they follow the networks later.

use crate::name_server::{NameServer, PORT, domain};
use anyhow::Result;
use os_sys::files;
use std::fmt::Write as _;
use std::path::Path;

/// What resolvers look at: resolv.conf(5) of musl.
pub const MAX_SEARCH: usize = 6;
const MAX_SERVERS: usize = 3;
/// What os-dns reads (`etc/os/dnsmasq.conf` of the image names it).
pub const SERVERS: &str = "/run/os/network/servers.conf";

/// What `/etc/resolv.conf` leads to.
pub const RESOLV_CONF: &str = "/run/os/network/resolv.conf";
/// What is known of names, for the containers that the next boot starts before it has a network. Below the state partition.
pub const REMEMBERED: &str = "os/network/resolv.conf";
/// More is nothing that the device wrote.
const MAX_REMEMBERED: u64 = 4096;

/// What the networks know of names.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Names {
    /// Servers, in the order in which they are asked.
    pub servers: Vec<NameServer>,
    /// Domains in which short names are looked for.
    pub search: Vec<String>,
}

/// What is in force: a server of `dnsServers` for every name takes the place of all that the networks say, one for a domain that
/// of their servers for it.
pub fn with_wishes(mut names: Names, wishes: &[NameServer]) -> Names {
    if wishes.iter().any(NameServer::is_general) {
        names.servers.clear();
    }
    let named = |server: &NameServer| {
        !server.is_general() && wishes.iter().flat_map(|w| &w.domains).any(|wanted| server.domains.contains(wanted))
    };
    names.servers.retain(|server| !named(server));
    names.servers.splice(0..0, wishes.iter().cloned());
    names
}

/// The entries of `dnsServers`; `null` as a word, and none, say nothing.
pub fn wishes(text: &str) -> Vec<NameServer> {
    text.split_ascii_whitespace().filter_map(NameServer::parse).collect()
}

/// The servers as dnsmasq reads them.
pub fn for_dnsmasq(names: &Names) -> String {
    names.servers.iter().fold(String::from("# What the networks and config.json say\n"), |mut text, server| {
        let _ = writeln!(text, "server={server}");
        text
    })
}

/// `resolv.conf` for the host and, as the engine reads it, for containers: os-dns on loopback, which the engine's own resolver
/// asks from the host wherever a container is, and on its bridge, where a container has no such resolver. Without os-dns, the
/// servers themselves.
pub fn resolv_conf(names: &Names, os_dns: bool, bridge: Option<&str>) -> String {
    let mut text = String::from("# Made from what the networks and config.json say\n");
    let direct = names.servers.iter().filter(|server| server.is_general() && server.port == PORT);
    let mut servers: Vec<String> = direct.take(MAX_SERVERS).map(ToString::to_string).collect();
    // While none is known, nobody answers: where no server is named, the engine has its own.
    if os_dns || servers.is_empty() {
        servers = ["127.0.0.1"].into_iter().chain(bridge).map(str::to_owned).collect();
    }
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !names.search.is_empty() {
        let _ = writeln!(text, "search {}", names.search.join(" "));
    }
    // The second try makes os-dns ask the next server.
    text.push_str("options timeout:2 attempts:3\n");
    text
}

/// The names that a `resolv.conf` of this module's without os-dns holds: what was known in the boot before.
pub fn recall(text: &str) -> Names {
    let of = |word: &'static str| text.lines().filter_map(move |line| line.strip_prefix(word)?.strip_prefix(' '));
    let domains = of("search").flat_map(str::split_ascii_whitespace).filter_map(domain);
    // The device itself is what stands there while none is known.
    let server =
        |text| NameServer::parse(text).filter(|s| s.is_general() && s.port == PORT && !s.address.is_loopback());
    Names {
        servers: of("nameserver").filter_map(server).take(MAX_SERVERS).collect(),
        search: domains.take(MAX_SEARCH).collect(),
    }
}

/// Lays down `resolv.conf` for the engine and an empty list of servers for os-dns, which start before the network: with
/// what was known in the boot before, in `state`.
///
/// # Errors
/// When something cannot be written.
pub fn lay_down(state: &Path, path: &Path, os_dns: bool, bridge: Option<&str>) -> Result<()> {
    let remembered = state.join(REMEMBERED);
    // Without it nothing is remembered.
    let _ = remembered.parent().map(std::fs::create_dir_all);
    let text = files::read_limited(&remembered, MAX_REMEMBERED).unwrap_or_default();
    let names = recall(&String::from_utf8_lossy(&text));
    files::write_if_changed(path, resolv_conf(&names, os_dns, bridge).as_bytes(), 0o644)?;
    // os-dns reads it before there is a network.
    if let Some(name) = Path::new(SERVERS).file_name() {
        files::write_if_changed(&path.with_file_name(name), b"", 0o644)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn resolvers_ask_os_dns_or_the_servers_themselves() {
        let servers = ["/home.lan/192.168.1.1", "/home.lan/fe80::1%eth0", "192.168.1.1", "fe80::1%eth0"];
        let servers = servers.iter().map(|text| NameServer::parse(text).unwrap()).collect();
        let names = Names { servers, search: vec!["home.lan".to_owned()] };
        let with = resolv_conf(&names, true, Some("172.29.232.1"));
        assert!(with.contains("\nnameserver 127.0.0.1\nnameserver 172.29.232.1\nsearch home.lan\n"), "{with}");
        let without = resolv_conf(&names, false, Some("172.29.232.1"));
        assert!(without.contains("\nnameserver 192.168.1.1\nnameserver fe80::1%eth0\nsearch home.lan\n"), "{without}");
        let nothing = resolv_conf(&Names::default(), false, Some("172.29.232.1"));
        assert!(nothing.contains("\nnameserver 127.0.0.1\nnameserver 172.29.232.1\n"), "{nothing}");
        assert!(for_dnsmasq(&names).contains("\nserver=/home.lan/192.168.1.1\n"));
    }

    proptest! {
        #[test]
        fn any_file_is_recalled(text in "(?s)(nameserver |search |.|\n){0,60}") {
            let names = recall(&text);
            prop_assert_eq!(recall(&resolv_conf(&names, false, None)), names);
        }
    }
}
