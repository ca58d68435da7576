//! Who is asked for which name: what the networks say, and `dnsServers`, become the servers of os-dns and `resolv.conf`.

use crate::name_server::{NameServer, PORT, domain};
use os_dbus::NetworkNames;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// What resolvers look at: resolv.conf(5) of musl.
const MAX_SEARCH: usize = 6;
const MAX_SERVERS: usize = 3;
/// A network that names more is not believed in full.
const MAX_OF_NETWORK: usize = 16;

/// What the networks know of names.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Names {
    /// Servers, in the order in which they are asked.
    pub servers: Vec<NameServer>,
    /// Domains in which short names are looked for.
    pub search: Vec<String>,
}

/// What the networks say, by the rules of NetworkManager's own plugins: a network is asked for its domains; for all others are
/// those that have a default route, or else all but tunnels. Of two that claim a domain, the one with the better priority has it.
pub fn of_networks(networks: &[NetworkNames], has_default: &dyn Fn(&str) -> bool) -> Names {
    let everything = |n: &&NetworkNames| n.domains.iter().any(|d| ["~", "~.", "."].contains(&d.as_str()));
    let routed = |n: &&NetworkNames| has_default(&n.interface) || (n.tunnel && n.domains.is_empty());
    let mut general: Vec<&NetworkNames> = networks.iter().filter(everything).collect();
    if general.is_empty() {
        general = networks.iter().filter(routed).collect();
    }
    if general.is_empty() {
        general = networks.iter().filter(|n| !n.tunnel).collect();
    }
    // A negative priority leaves out all that are worse.
    let first = general.iter().map(|n| n.priority).min().filter(|priority| *priority < 0);
    general.retain(|n| first.is_none_or(|first| n.priority <= first));
    let mut names = Names::default();
    let mut claimed: BTreeMap<String, i32> = BTreeMap::new();
    for network in networks {
        let of_network = |domains: &[String]| servers(network, domains);
        for text in network.domains.iter().take(MAX_OF_NETWORK) {
            let Some(domain) = domain(text.trim_start_matches('~')) else { continue };
            if *claimed.entry(domain.clone()).or_insert(network.priority) < network.priority {
                continue;
            }
            names.servers.extend(of_network(std::slice::from_ref(&domain)));
            if !text.starts_with('~') && !names.search.contains(&domain) && names.search.len() < MAX_SEARCH {
                names.search.push(domain);
            }
        }
    }
    names.servers.extend(general.into_iter().flat_map(|network| servers(network, &[])));
    names
}

fn servers(network: &NetworkNames, domains: &[String]) -> Vec<NameServer> {
    let server = |text: &String| {
        // NetworkManager writes what is more than an address as a URI; TLS is nothing that os-dns speaks.
        let text = text.strip_prefix("dns+udp://").unwrap_or(text);
        let (address, port) = match text.parse::<SocketAddr>() {
            Ok(socket) => (socket.ip(), socket.port()),
            Err(_) => (text.trim_matches(['[', ']']).parse().ok()?, PORT),
        };
        let scope = matches!(address, IpAddr::V6(v6) if is_link_local(v6)).then(|| network.interface.clone());
        let server = NameServer { domains: domains.to_vec(), address, scope, port };
        // Nothing that os-dns would read otherwise, such as an interface with a blank in its name.
        NameServer::parse(&server.to_string())
    };
    network.servers.iter().take(MAX_OF_NETWORK).filter_map(server).collect()
}

fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn network(interface: &str, servers: &[&str], domains: &[&str], priority: i32) -> NetworkNames {
        let owned = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect();
        let tunnel = interface.starts_with("wg");
        NetworkNames {
            interface: interface.to_owned(),
            servers: owned(servers),
            domains: owned(domains),
            priority,
            tunnel,
        }
    }

    #[track_caller]
    fn check(networks: &[NetworkNames], defaults: &[&str], wishes_text: &str, wanted: &[&str]) {
        let names = with_wishes(of_networks(networks, &|i| defaults.contains(&i)), &wishes(wishes_text));
        let found: Vec<String> = names.servers.iter().map(ToString::to_string).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn each_network_is_asked_for_its_own_domain() {
        let home = network("eth0", &["192.168.1.1"], &["home.lan"], 100);
        let site = network("eth1", &["10.99.0.1"], &["site.example", "~corp"], 100);
        let both = [home.clone(), site.clone()];
        let domains = ["/home.lan/192.168.1.1", "/site.example/10.99.0.1", "/corp/10.99.0.1"];
        check(&both, &["eth0"], "", &[&domains[..], &["192.168.1.1"]].concat());
        check(&both, &["eth0", "eth1"], "", &[&domains[..], &["192.168.1.1", "10.99.0.1"]].concat());
        // Nobody has a default route.
        check(&both, &[], "", &[&domains[..], &["192.168.1.1", "10.99.0.1"]].concat());
        assert_eq!(of_networks(&both, &|_| true).search, ["home.lan", "site.example"]);
    }

    #[test]
    fn a_tunnel_is_asked_for_its_domains_or_when_it_takes_everything() {
        let home = network("eth0", &["192.168.1.1"], &[], 100);
        let split = network("wg0", &["10.97.0.1"], &["corp.example"], 50);
        check(&[split.clone(), home.clone()], &["eth0"], "", &["/corp.example/10.97.0.1", "192.168.1.1"]);
        check(&[split, home.clone()], &[], "", &["/corp.example/10.97.0.1", "192.168.1.1"]);
        let full = network("wg0", &["10.97.0.1"], &["~."], 50);
        check(&[full, home.clone()], &["eth0"], "", &["10.97.0.1"]);
        let silent = network("wg0", &["10.97.0.1"], &[], 50);
        check(&[silent, home.clone()], &["eth0"], "", &["10.97.0.1", "192.168.1.1"]);
        let jealous = network("wg0", &["10.97.0.1"], &[], -50);
        check(&[jealous, home], &["eth0"], "", &["10.97.0.1"]);
    }

    #[test]
    fn the_better_priority_has_a_domain_that_two_claim() {
        let tunnel = network("wg0", &["10.97.0.1"], &["lan"], 50);
        let home = network("eth0", &["192.168.1.1"], &["LAN."], 100);
        check(&[tunnel, home], &["eth0"], "", &["/lan/10.97.0.1", "192.168.1.1"]);
    }

    #[test]
    fn what_config_json_says_decides() {
        let home = network("eth0", &["192.168.1.1"], &["home.lan"], 100);
        let both = ["/home.lan/192.168.1.1", "192.168.1.1"];
        check(std::slice::from_ref(&home), &["eth0"], "null", &both);
        check(std::slice::from_ref(&home), &["eth0"], "10.0.0.1  10.0.0.2#54", &["10.0.0.1", "10.0.0.2#54"]);
        check(std::slice::from_ref(&home), &["eth0"], "/corp/10.0.0.1", &[&["/corp/10.0.0.1"], &both[..]].concat());
        check(&[home], &["eth0"], "/home.lan/10.0.0.1", &["/home.lan/10.0.0.1", "192.168.1.1"]);
    }

    #[test]
    fn what_a_network_says_is_taken_for_what_it_is_or_not_at_all() {
        let odd = network(
            "eth0",
            &["fe80::1", "dns+udp://10.0.0.1:54", "dns+udp://[fd00::1]", "dns+tls://10.0.0.2#x", "x\nserver=6.6.6.6"],
            &["a b", "good.lan", "x\nnameserver 6.6.6.6", "", "-x"],
            100,
        );
        let names = of_networks(std::slice::from_ref(&odd), &|_| true);
        let general: Vec<String> = names.servers.iter().filter(|s| s.is_general()).map(ToString::to_string).collect();
        assert_eq!(general, ["fe80::1%eth0", "10.0.0.1#54", "fd00::1"]);
        assert_eq!(names.search, ["good.lan"]);
    }

    #[test]
    fn resolvers_ask_os_dns_or_the_servers_themselves() {
        let home = network("eth0", &["192.168.1.1", "fe80::1"], &["home.lan"], 100);
        let names = with_wishes(of_networks(&[home], &|_| true), &[]);
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

        // Whatever a network says: every line is one of ours.
        #[test]
        fn no_line_is_smuggled_in(servers in proptest::collection::vec(".{0,40}", 0..5),
                                  domains in proptest::collection::vec("(?s).{0,40}", 0..5), interface in ".{0,15}") {
            let network = NetworkNames { interface, servers, domains, priority: 0, tunnel: false };
            let names = of_networks(&[network], &|_| true);
            let direct = resolv_conf(&names, false, None);
            let loopback = names.servers.iter().any(|server| server.address.is_loopback());
            prop_assert!(loopback || resolv_conf(&recall(&direct), false, None) == direct, "{direct}");
            for line in direct.lines().skip(1) {
                prop_assert!(["nameserver ", "search ", "options "].iter().any(|word| line.starts_with(word)), "{line}");
            }
            for line in for_dnsmasq(&names).lines().skip(1) {
                let server = line.strip_prefix("server=").and_then(NameServer::parse);
                prop_assert!(server.is_some(), "{line}");
            }
        }
    }
}
