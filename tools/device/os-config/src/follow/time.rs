//! Time servers that the networks name (DHCP), for timesyncd.

use os_config_model::name_server::domain;
use std::net::IpAddr;

/// After the image's own, before that of `ntpServers`, which empties the list first.
pub(super) const DROP_IN: &str = "/run/systemd/timesyncd.conf.d/40-os-network.conf";
/// A network that names more is not believed in full.
const MAX: usize = 8;

/// The drop-in of timesyncd; none when no network names a server.
pub(super) fn drop_in(texts: &[String]) -> Option<String> {
    let mut servers: Vec<String> = Vec::new();
    for word in texts.iter().flat_map(|text| text.split_ascii_whitespace()) {
        if let Some(server) = server(word).filter(|server| !servers.contains(server) && servers.len() < MAX) {
            servers.push(server);
        }
    }
    (!servers.is_empty()).then(|| format!("# What DHCP says\n[Time]\nNTP={}\n", servers.join(" ")))
}

/// An address that a server can have, or a name; nothing else that DHCP may say.
fn server(word: &str) -> Option<String> {
    match word.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() || address.is_loopback() || address.is_multicast() => None,
        Ok(address) => Some(address.to_string()),
        Err(_) => domain(word).filter(|name| name.bytes().any(|b| b.is_ascii_alphabetic())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(texts: &[&str], wanted: Option<&str>) {
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        let found = drop_in(&texts);
        assert_eq!(found.as_deref().map(|text| text.lines().last().unwrap_or_default()), wanted, "{texts:?}");
    }

    #[test]
    fn servers_are_addresses_or_names() {
        check(
            &["192.0.2.1 192.0.2.2", "192.0.2.1 fd00::1", "ntp.example"],
            Some("NTP=192.0.2.1 192.0.2.2 fd00::1 ntp.example"),
        );
        check(&["0.0.0.0 127.0.0.1 224.0.1.1 255.255.255.300 -x a;b $(reboot) x\u{0}"], None);
        check(&["%n", "", "="], None);
        check(&[&"192.0.2.1 ".repeat(99)], Some("NTP=192.0.2.1"));
    }

    proptest! {
        #[test]
        fn no_line_is_smuggled_in(texts in proptest::collection::vec("(?s).{0,60}", 0..4)) {
            if let Some(text) = drop_in(&texts) {
                let servers = text.strip_prefix("# What DHCP says\n[Time]\nNTP=").and_then(|t| t.strip_suffix('\n'));
                let plain = |s: &str| s.bytes().all(|b| b.is_ascii_alphanumeric() || b" .:_-".contains(&b));
                prop_assert!(servers.is_some_and(plain), "{text}");
            }
        }
    }
}
