//! A name server as `dnsServers` names it: in the form of dnsmasq's `server=`, of which balenaOS takes the same.

use std::fmt;
use std::net::IpAddr;

/// A server, and what it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameServer {
    /// It is asked for names in these domains only; for every name when there are none.
    pub domains: Vec<String>,
    /// Its address.
    pub address: IpAddr,
    /// The interface behind which a link-local address is.
    pub scope: Option<String>,
    /// Its port.
    pub port: u16,
}

/// The port of DNS.
pub const PORT: u16 = 53;

impl NameServer {
    /// `ADDRESS[%INTERFACE][#PORT]`, behind `/DOMAIN/` or `/DOMAIN/DOMAIN/` perhaps.
    pub fn parse(text: &str) -> Option<Self> {
        let (domains, server) = match text.strip_prefix('/') {
            Some(rest) => {
                let (domains, server) = rest.rsplit_once('/')?;
                (domains.split('/').map(domain).collect::<Option<Vec<_>>>()?, server)
            }
            None => (Vec::new(), text),
        };
        let (server, port) = match server.split_once('#') {
            Some((server, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (server, port.parse().ok()?),
            Some(_) => return None,
            None => (server, PORT),
        };
        let (address, scope) = match server.split_once('%') {
            Some((address, scope)) => (address.parse().ok()?, Some(scope.to_owned())),
            None => (server.parse().ok()?, None),
        };
        let is_interface = |scope: &String| {
            matches!(address, IpAddr::V6(_))
                && (1..=15).contains(&scope.len())
                && scope.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        (port != 0 && scope.iter().all(is_interface)).then_some(Self { domains, address, scope, port })
    }

    /// A server that answers for every name.
    pub fn is_general(&self) -> bool {
        self.domains.is_empty()
    }
}

impl fmt::Display for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, domain) in self.domains.iter().enumerate() {
            write!(f, "{}{domain}/", if index == 0 { "/" } else { "" })?;
        }
        write!(f, "{}", self.address)?;
        if let Some(scope) = &self.scope {
            write!(f, "%{scope}")?;
        }
        if self.port != PORT { write!(f, "#{}", self.port) } else { Ok(()) }
    }
}

/// A domain in lower case, without a dot at its end; nothing else that DHCP or a person may write.
pub fn domain(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    };
    (text.len() <= 253 && text.split('.').all(is_label)).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn servers_for_every_name_and_for_domains() {
        for text in [
            "10.0.0.1",
            "10.0.0.1#5353",
            "fd00::1",
            "fe80::1%eth0#54",
            "/corp.example/10.0.0.1",
            "/corp.example/lab.example/10.0.0.1#5353",
            "/corp/fd00::1",
        ] {
            assert_eq!(NameServer::parse(text).map(|s| s.to_string()).as_deref(), Some(text));
        }
        assert_eq!(NameServer::parse("/Corp.Example./10.0.0.1").unwrap().domains, ["corp.example"]);
        assert_eq!(NameServer::parse("10.0.0.1#53").unwrap().to_string(), "10.0.0.1");
        for text in [
            "",
            "dns.example",
            "10.0.0.1:53",
            "10.0.0.1#",
            "10.0.0.1#0",
            "10.0.0.1#+53",
            "10.0.0.1#70000",
            "10.0.0.1@eth0",
            "10.0.0.1%eth0",
            "fe80::1%",
            "fe80::1%a b",
            "/corp.example/",
            "/corp.example/#",
            "//10.0.0.1",
            "/a..b/10.0.0.1",
            "/-a/10.0.0.1",
            "/*/10.0.0.1",
            "corp.example/10.0.0.1",
        ] {
            assert_eq!(NameServer::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_means_the_same(text in "[/]?[a-z./:#%0-9-]{0,40}") {
            if let Some(server) = NameServer::parse(&text) {
                let written = server.to_string();
                prop_assert!(!written.contains(char::is_whitespace));
                prop_assert_eq!(NameServer::parse(&written), Some(server));
            }
        }
    }
}
