//! What the networks know of names.

use os_config_model::name_server::{NameServer, PORT, domain};
use os_config_model::names::{MAX_SEARCH, Names};
use os_dbus::NetworkNames;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A network that names more is not believed in full.
const MAX_OF_NETWORK: usize = 16;

/// What the networks say, by the rules of NetworkManager's own plugins: a network is asked for its domains; for all others are
/// those that have a default route, or else all but tunnels. Of two that claim a domain, the one with the better priority has it.
pub(super) fn of_networks(networks: &[NetworkNames], has_default: &dyn Fn(&str) -> bool) -> Names {
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

#[cfg(test)]
mod tests {
    use super::*;
    use os_config_model::names::{for_dnsmasq, recall, resolv_conf, wishes, with_wishes};
    use proptest::prelude::*;

    fn network(interface: &str, servers: &[&str], domains: &[&str], priority: i32) -> NetworkNames {
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

    proptest! {
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
