//! The interfaces that are up, with their addresses, and which of them are the engine's.

use os_sys::cmd::Cmd;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};

/// An interface that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<Address>,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// The length of its network's prefix.
    pub prefix: u8,
    /// It means something beyond this link and this device.
    pub global: bool,
}

/// The interfaces that are up now.
pub fn read() -> Vec<Link> {
    // `ip -json` is iproute2's stable interface.
    parse(&Cmd::new("ip").args(["-json", "addr", "show", "up"]).read().unwrap_or_default())
}

/// What `ip -json addr show` says.
pub fn parse(json: &str) -> Vec<Link> {
    let links: Vec<Value> = serde_json::from_str(json).unwrap_or_default();
    let address = |info: &Value| {
        Some(Address {
            address: info.get("local")?.as_str()?.parse().ok()?,
            prefix: u8::try_from(info.get("prefixlen")?.as_u64()?).ok().filter(|bits| *bits <= 128)?,
            global: info.get("scope").and_then(Value::as_str) == Some("global"),
        })
    };
    let link = |link: &Value| {
        let infos = link.get("addr_info").and_then(Value::as_array).into_iter().flatten();
        Some(Link { name: link.get("ifname")?.as_str()?.to_owned(), addresses: infos.filter_map(address).collect() })
    };
    links.iter().filter_map(link).collect()
}

/// True for the names that the engine gives: its bridges, and the ends of its containers' cables.
pub fn is_engines(name: &str) -> bool {
    let hex = |digits: &str, count: usize| {
        digits.len() == count && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    ["docker0", "docker_gwbridge"].contains(&name)
        || name.strip_prefix("br-").is_some_and(|id| hex(id, 12))
        || name.strip_prefix("veth").is_some_and(|id| hex(id, 7))
}

/// The IPv4 address of an interface.
pub fn address_of(links: &[Link], name: &str) -> Option<Ipv4Addr> {
    let link = links.iter().find(|link| link.name == name)?;
    link.addresses.iter().find_map(|a| if let IpAddr::V4(v4) = a.address { Some(v4) } else { None })
}

/// A bridge of the engine that has the addresses of a network which the device is in: neither can be reached then.
pub fn overlaps(links: &[Link]) -> Vec<String> {
    let networks = |engines: bool| {
        let of_interest = links.iter().filter(move |link| link.name != "lo" && is_engines(&link.name) == engines);
        of_interest.flat_map(|link| {
            link.addresses.iter().filter_map(|a| match a.address {
                IpAddr::V4(v4) => Some((link.name.as_str(), u32::from(v4), u32::from(a.prefix).min(32))),
                IpAddr::V6(_) => None,
            })
        })
    };
    let mut out = Vec::new();
    for (bridge, address, bits) in networks(true) {
        for (name, other, other_bits) in networks(false) {
            let mask = u32::MAX.checked_shl(32 - bits.min(other_bits)).unwrap_or(0);
            if address & mask == other & mask {
                out.push(format!(
                    "the network of {name} has the addresses of {bridge}, which containers are on; give them others with \
                     os.docker.bridge (docker0) or os.docker.addressPools"
                ));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_engines_own_names_are_told_from_a_persons() {
        for name in ["docker0", "docker_gwbridge", "br-0123456789ab", "veth1a2b3c4"] {
            assert!(is_engines(name), "{name}");
        }
        for name in
            ["br-lan", "br0", "br-guestnetwork", "br-0123456789a", "br-0123456789AB", "docker1", "veth0", "eth0"]
        {
            assert!(!is_engines(name), "{name}");
        }
    }

    #[test]
    fn networks_that_overlap_are_named() {
        let json = |address: &str, bits: u8| {
            format!(
                r#"[{{"ifname":"lo","addr_info":[{{"local":"127.0.0.1","prefixlen":8}}]}},
                {{"ifname":"br-lan","addr_info":[{{"local":"{address}","prefixlen":{bits}}}]}},
                {{"ifname":"docker0","addr_info":[{{"local":"172.29.232.1","prefixlen":24}}]}}]"#
            )
        };
        for (address, bits) in [("172.29.232.77", 24), ("172.29.0.5", 16), ("172.16.0.1", 12), ("10.0.0.1", 0)] {
            let said = overlaps(&parse(&json(address, bits)));
            assert!(
                said.len() == 1 && said[0].contains("br-lan") && said[0].contains("docker0"),
                "{address}: {said:?}"
            );
        }
        for address in ["192.168.1.5", "172.29.231.5", "fd00::1"] {
            assert!(overlaps(&parse(&json(address, 24))).is_empty(), "{address}");
        }
        assert_eq!(address_of(&parse(&json("10.0.0.1", 8)), "docker0"), Some(Ipv4Addr::new(172, 29, 232, 1)));
    }

    proptest! {
        #[test]
        fn never_panics(text in r#"\[\{"ifname":"[a-z-]{0,9}","addr_info":\[\{"local":"[0-9.:]{0,15}","prefixlen":[0-9]{0,4}\}\]\}\]"#) {
            let _ = overlaps(&parse(&text));
        }
    }
}
