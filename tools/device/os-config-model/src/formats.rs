//! The kinds of string that a configuration holds.

use crate::name_server::NameServer;
use crate::shape::{NULL, Text};
use crate::{country, zones};
use base64::Engine as _;
use os_facts::hostname::{self, Hostname};
use std::net::{IpAddr, Ipv4Addr};

const fn text(allowed: &'static str, pattern: Option<&'static str>, max: usize, good: fn(&str) -> bool) -> Text {
    Text { allowed, pattern, max, secret: false, empty: false, number: false, good, slip: is_null }
}

/// What scripts make of a value that they do not have.
fn is_null(text: &str) -> Option<String> {
    (text.trim() == "null").then(|| NULL.to_owned())
}

/// A text that may be "null" and mean it.
const fn or_null(text: Text) -> Text {
    Text { slip: |_| None, ..text }
}

const fn secret(allowed: &'static str, max: usize, good: fn(&str) -> bool) -> Text {
    Text { secret: true, ..text(allowed, None, max, good) }
}

/// One label of RFC 1123.
pub static HOSTNAME: Text = Text {
    slip: |t| match t.to_ascii_lowercase().as_str() {
        "localhost" => Some("is \"localhost\", which every device calls itself; write another name".to_owned()),
        other => is_null(other),
    },
    ..text(hostname::ALLOWED, Some("^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$"), 63, |t| Hostname::parse(t).is_ok())
};

/// Time servers.
pub static NTP_SERVERS: Text = Text {
    slip: |t| t.split_ascii_whitespace().find_map(is_null),
    ..text("host names or addresses, separated by spaces", Some("^ *([A-Za-z0-9.:-]{1,253}( +|$))*$"), 2048, |t| {
        t.split_ascii_whitespace().all(is_host)
    })
};

/// Name servers.
pub static DNS_SERVERS: Text = or_null(text(
    "addresses, separated by spaces, such as \"10.0.0.1\", \"10.0.0.1#5353\" with a port, \"/corp.example/10.0.0.1\" for a \
     domain; \"null\" for none",
    Some("^(null|( *(/([A-Za-z0-9._-]+/)+)?[0-9A-Fa-f.:]+(%[A-Za-z0-9._-]+)?(#[0-9]{1,5})?)*) *$"),
    1024,
    |t| t == "null" || t.split_ascii_whitespace().all(|s| NameServer::parse(s).is_some()),
));

/// A domain.
pub static DOMAIN: Text =
    text("a domain, such as \"home.lan\"", Some("^[A-Za-z0-9._-]+$"), 253, |t| crate::name_server::domain(t).is_some());

/// ISO 3166-1.
pub static COUNTRY: Text = Text {
    slip: country::slip,
    ..text(
        "the two letters of a country in ISO 3166-1, such as \"DE\"; \"00\" for the world",
        Some("^([A-Za-z]{2}|00)$"),
        2,
        country::is_code,
    )
};

/// Address of a page, or none.
pub static URL_OR_NULL: Text =
    or_null(text("an http or https address; \"null\" for none", Some("^(null|https?://[^\\s]+)$"), 1024, |t| {
        t == "null" || is_url(t, &["http://", "https://"])
    }));

/// Address of a server.
pub static URL: Text =
    text("an http or https address", Some("^https?://[^\\s]+$"), 1024, |t| is_url(t, &["http://", "https://"]));

/// A channel of updates.
pub static CHANNEL: Text = text(
    "an http or https address (spaces and # written as %20 and %23), or an absolute directory",
    Some("^([Hh][Tt][Tt][Pp][Ss]?://|/)[^\\s\"\\\\#]+$"),
    1024,
    |t| {
        let plain = !t.chars().any(|c| c.is_control() || c.is_whitespace() || c == '"');
        let directory = t.starts_with('/') && t.len() > 1;
        plain && (directory || os_transport::Address::parse(t).is_ok())
    },
);

/// When updates may be installed.
pub static WINDOW: Text = text(
    "hours such as \"02:00-05:00\", after days such as \"Sat,Sun\" if it is not every day",
    Some("^((Mon|Tue|Wed|Thu|Fri|Sat|Sun)(,(Mon|Tue|Wed|Thu|Fri|Sat|Sun))* )?[0-9]{2}:[0-9]{2}-[0-9]{2}:[0-9]{2}$"),
    64,
    |t| crate::window::Window::parse(t).is_some(),
);

/// Seconds as balenaOS writes them.
pub static SECONDS: Text = Text {
    number: true,
    ..text("seconds, in digits; \"0\" for never", Some("^[0-9]{1,7}$"), 7, |t| {
        !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit())
    })
};

/// The answer of a page; an empty one is an answer too.
pub static ANSWER: Text = or_null(Text { empty: true, ..text("one line", Some("^[^\\n\\r]*$"), 1024, LINE.good) });

/// One line.
pub static LINE: Text = text("one line", Some("^[^\\n\\r]*$"), 1024, |t| !t.chars().any(char::is_control));

/// A certificate in PEM, in base64 once more.
pub static BASE64_CERTIFICATE: Text = text(
    "a certificate in PEM, the whole of it in base64 once more",
    Some("^[A-Za-z0-9+/\\s]+=*\\s*$"),
    64 << 10,
    |t| decode_certificate(t).is_some(),
);

/// Certificates in PEM.
pub static CERTIFICATE: Text = text(
    "certificates in PEM (-----BEGIN CERTIFICATE----- …)",
    Some("^\\s*-----BEGIN CERTIFICATE-----"),
    64 << 10,
    is_certificate,
);

/// A public key for ssh.
pub static SSH_KEY: Text = text(
    "one line of authorized_keys without options, such as \"ssh-ed25519 AAAA… me@laptop\"",
    Some("^\\s*[a-z0-9@.-]+ [A-Za-z0-9+/]+=* ?[^\\n\\r]*$"),
    16 << 10,
    crate::ssh_key::is_key,
);

/// Name of a file of rules.
pub static RULE_NAME: Text = text(
    "letters, digits, '.', '_' and '-', and none of the system's own names",
    Some("^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"),
    64,
    |t| is_name(t) && !t.trim_end_matches(".rules").ends_with("-os-disk"),
);

/// Text of several lines.
pub static LINES: Text = text("text", None, 32 << 10, is_lines);

/// Name of a radio network.
pub static SSID: Text = or_null(text("the name of the network, at most 32 bytes", None, 32, |t| {
    !t.is_empty() && !t.chars().any(char::is_control)
}));

/// Password of a radio network (IEEE 802.11: a passphrase, or the key itself).
pub static WIFI_PASSWORD: Text = secret("8 to 63 printable ASCII characters, or 64 hexadecimal digits", 64, |t| {
    (8..=63).contains(&t.len()) && t.bytes().all(|b| (0x20..0x7f).contains(&b))
        || t.len() == 64 && t.bytes().all(|b| b.is_ascii_hexdigit())
});

/// Name of a network interface.
pub static INTERFACE: Text =
    text("the name of an interface, such as \"eth0\"", Some("^[A-Za-z0-9_.-]{1,15}$"), 15, |t| is_name(t) && t != "lo");

/// Hardware address.
pub static MAC: Text =
    text("a hardware address, such as \"02:00:5e:10:00:01\"", Some("^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$"), 17, |t| {
        t.len() == 17 && t.split(':').count() == 6 && t.split(':').all(|p| p.len() == 2 && is_hex(p))
    });

/// Address with prefix length.
pub static CIDR: Text =
    text("an address with its prefix, such as \"192.168.1.5/24\"", Some("^[0-9A-Fa-f.:]+/[0-9]{1,3}$"), 64, is_cidr);

/// Address of the engine's bridge.
pub static BRIDGE: Text = text(
    "an IPv4 address in the network of containers, with a prefix of 8 to 28, such as \"10.201.0.1/24\"",
    Some("^[0-9.]+/[0-9]{1,2}$"),
    18,
    is_bridge,
);

/// Address.
pub static ADDRESS: Text = text("an address", Some("^[0-9A-Fa-f.:]+$"), 64, |t| t.parse::<IpAddr>().is_ok());

/// Host and port.
pub static ENDPOINT: Text = text("host:port", Some("^.+:[0-9]{1,5}$"), 260, |t| {
    t.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok_and(|p| p != 0) && is_host(host.trim_start_matches('[').trim_end_matches(']'))
    })
});

/// Key of WireGuard that may be known.
pub static PUBLIC_KEY: Text = text("a key of WireGuard, 44 characters", Some("^[A-Za-z0-9+/]{43}=$"), 44, is_key);

/// Key of WireGuard that may not.
pub static PRIVATE_KEY: Text = secret("a key of WireGuard, 44 characters", 44, is_key);

/// Address of a proxy, perhaps with name and password.
pub static PROXY: Text = secret("http://, https:// or socks5:// [name:password@] host:port", 1024, |t| {
    is_url(t, &["http://", "https://", "socks5://"]) && !t.contains(['"', '\'', '\\', '$', '`'])
});

/// What is reached without the proxy.
pub static NO_PROXY: Text =
    text("a host, a domain with a leading dot, or an address range", Some("^[A-Za-z0-9.:/*-]+$"), 253, |t| {
        !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b".:/*-".contains(&b))
    });

/// A time zone of the IANA database.
pub static ZONE: Text =
    text("a zone of the IANA database, such as \"Europe/Berlin\"", Some("^[A-Za-z0-9_+/-]+$"), 64, zones::is_zone);

/// A locale.
pub static LOCALE: Text = text("the name of a locale, such as \"de_DE.UTF-8\"", Some("^[A-Za-z0-9_.@-]+$"), 64, |t| {
    !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.@-".contains(&b))
});

/// A keymap of the console.
pub static KEYMAP: Text = text("the name of a keymap, such as \"de-latin1\"", Some("^[A-Za-z0-9_.-]+$"), 64, is_name);

/// A registry that is trusted without TLS.
pub static REGISTRY: Text = text("host, host:port or an address range", Some("^[A-Za-z0-9.:/-]+$"), 260, |t| {
    is_cidr(t) || is_host(t) || t.rsplit_once(':').is_some_and(|(h, p)| is_host(h) && p.parse::<u16>().is_ok())
});

/// Configuration of OpenVPN with everything in it.
pub static OPENVPN: Text = secret("a configuration of OpenVPN, certificates and keys within it", 64 << 10, is_lines);

/// Name of a user of the broker.
pub static USER: Text =
    text("letters, digits, '.', '_' and '-'", Some("^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"), 64, is_name);

/// Password of a user of the broker.
pub static PASSWORD: Text =
    secret("8 to 128 characters", 512, |t| (8..=128).contains(&t.chars().count()) && !t.chars().any(char::is_control));

/// Mark of a request that is carried out once.
pub static TOKEN: Text =
    text("up to 64 letters, digits, '.', '_', ':' and '-'", Some("^[A-Za-z0-9._:-]{1,64}$"), 64, |t| {
        !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
    });

/// A script.
pub static SCRIPT: Text =
    text("a script that starts with #!", Some("^#!/"), 64 << 10, |t| t.starts_with("#!/") && is_lines(t));

/// Words for the kernel. What decides which system boots is the slot's own, never the user's.
pub static KERNEL_ARGUMENTS: Text = text(
    "kernel arguments without quotes; root=, init=, rdinit=, initrd=, os.* and rauc.* are the system's own",
    Some("^[A-Za-z0-9 _.,:;=/@%+-]*$"),
    512,
    |t| {
        let reserved = ["root=", "rootfstype=", "init=", "rdinit=", "initrd=", "os.", "rauc.", "dm-mod.", "--"];
        t.bytes().all(|b| b.is_ascii_alphanumeric() || b" _.,:;=/@%+-".contains(&b))
            && !t.split(' ').any(|word| reserved.iter().any(|r| word.starts_with(r)))
    },
);

/// A kernel module.
pub static MODULE: Text = text("the name of a kernel module", Some("^[A-Za-z0-9_-]+$"), 64, |t| {
    !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
});

/// Name of a setting of the kernel.
pub static SYSCTL_NAME: Text = text(
    "those of sysctl.d, without patterns, such as \"vm.max_map_count\" or \"net.ipv4.conf.eth0/1.forwarding\"",
    Some("^[A-Za-z0-9_][A-Za-z0-9_.:@+/-]*$"),
    128,
    |t| crate::sysctl::path(t).is_some(),
);

/// Value of a setting of the kernel.
pub static SYSCTL_VALUE: Text = text("one line", Some("^[^\\n\\r]+$"), 1024, |t| {
    !t.trim().is_empty() && !t.chars().any(|c| c.is_control() && c != '\t')
});

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn is_host(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || ".:-".contains(c))
        && !text.starts_with('-')
}

fn is_url(text: &str, schemes: &[&str]) -> bool {
    let Some(rest) = schemes.iter().find_map(|s| text.strip_prefix(s)) else { return false };
    !rest.is_empty() && !rest.starts_with('/') && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

fn is_lines(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_cidr(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else { return false };
    match (address.parse::<IpAddr>(), prefix.parse::<u8>()) {
        (Ok(IpAddr::V4(_)), Ok(bits)) => bits <= 32,
        (Ok(IpAddr::V6(_)), Ok(bits)) => bits <= 128,
        _ => false,
    }
}

fn is_bridge(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else { return false };
    let (Ok(address), Ok(bits @ 8..=28)) = (address.parse::<Ipv4Addr>(), prefix.parse::<u32>()) else { return false };
    // Neither the network itself, nor everybody in it.
    let inside = u32::MAX >> bits;
    let host = u32::from(address) & inside;
    host != 0 && host != inside && !address.is_loopback() && !address.is_multicast()
}

fn is_key(text: &str) -> bool {
    base64::engine::general_purpose::STANDARD.decode(text).is_ok_and(|key| key.len() == 32)
}

/// The certificate in a value of `balenaRootCA`.
pub fn decode_certificate(text: &str) -> Option<String> {
    let packed: String = text.split_ascii_whitespace().collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(packed).ok()?;
    String::from_utf8(bytes).ok().filter(|pem| is_certificate(pem))
}

/// True for one or more certificates in PEM (RFC 7468) and nothing else.
fn is_certificate(text: &str) -> bool {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut rest = text.trim();
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let Some((body, after)) = rest.strip_prefix(BEGIN).and_then(|r| r.split_once(END)) else { return false };
        let packed: String = body.split_ascii_whitespace().collect();
        // A certificate is an ASN.1 SEQUENCE, whose tag is 0x30.
        match base64::engine::general_purpose::STANDARD.decode(packed) {
            Ok(der) if der.first() == Some(&0x30) => rest = after.trim_start(),
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(format: &Text, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!((format.good)(text), "{text:?} was refused");
        }
        for text in bad {
            assert!(!(format.good)(text), "{text:?} was accepted");
        }
    }

    #[test]
    fn networks() {
        check(&CIDR, &["10.0.0.1/8", "fd00::1/64"], &["10.0.0.1", "10.0.0.1/33", "10.0.0/8", "x/8", "fd00::/129"]);
        check(
            &BRIDGE,
            &["10.201.0.1/24", "172.29.232.1/24", "10.0.0.1/8"],
            &[
                "10.201.0.0/24",
                "10.201.0.255/24",
                "10.1.1.1/29",
                "10.1.1.1/7",
                "fd00::1/64",
                "127.0.0.1/8",
                "10.201.0.1",
            ],
        );
        check(
            &DNS_SERVERS,
            &["", "null", "1.1.1.1 fd00::1", "/corp.example/10.0.0.1 10.0.0.2#5353"],
            &["dns.example", "1.1.1.1;2.2.2.2", "nul", "/corp.example/", "1.1.1.1:53"],
        );
        check(&MAC, &["02:00:5e:10:00:01"], &["02:00:5e:10:00", "02-00-5e-10-00-01", "0g:00:5e:10:00:01"]);
        check(&ENDPOINT, &["vpn.example:51820", "[fd00::1]:1"], &["vpn.example", "vpn:0", "vpn:99999", ":1"]);
        check(&PROXY, &["http://p:3128", "socks5://a:b@p:1"], &["ftp://p", "http://", "http://p\nX=1", "http://p$x"]);
        check(&INTERFACE, &["eth0", "end0"], &["lo", "../x", "", "a b"]);
    }

    #[test]
    fn keys_and_certificates() {
        let key = base64::engine::general_purpose::STANDARD.encode([7; 32]);
        check(&PUBLIC_KEY, &[&key], &["", "AAAA", &key[1..]]);
        let pem = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";
        check(&CERTIFICATE, &[pem, &pem.repeat(2)], &["", "MAMC", &pem.replace("MAMC", "AAAA"), &format!("{pem}x")]);
        let packed = base64::engine::general_purpose::STANDARD.encode(pem);
        check(&BASE64_CERTIFICATE, &[&packed, &format!("{packed}\n")], &[pem, "", "AAAA"]);
    }

    #[test]
    fn an_ssh_key_cannot_smuggle_a_second_line_or_options() {
        let blob = "AAAAC3NzaC1lZDI1NTE5AAAAIJ3s0Cv1XoS0JkWlTdmIcJ2xq6l5fM1m8rWkqS0Zt0Aa";
        check(
            &SSH_KEY,
            &[&format!("  ssh-ed25519 {blob} me at home\n")],
            &[
                &format!("ssh-ed25519 {blob} a\nssh-ed25519 {blob} b"),
                &format!("command=\"x\" ssh-ed25519 {blob}"),
                &format!("no-pty,ssh-ed25519 {blob}"),
                "ssh-dss AAAAB3NzaC1kc3MAAACBAAAAAAAAAAAAAAAAAAAAAAAA",
                "ssh-ed25519 AAAA",
            ],
        );
    }

    #[test]
    fn the_kernel_boots_what_the_slot_says() {
        check(
            &KERNEL_ARGUMENTS,
            &["", "quiet mitigations=off usb-storage.quirks=152d:0578:u"],
            &["root=/dev/sda", "x init=/bin/sh", "os.slot=B", "a\"b", "a\nb", "a;$(b)", "rdinit=x", "-- x"],
        );
        check(&SCRIPT, &["#!/bin/sh\necho a\n"], &["echo a", "#!/bin/sh\0"]);
    }

    #[test]
    fn rules_cannot_replace_the_systems_own() {
        check(&RULE_NAME, &["99-usb", "usb.rules"], &["../x", "61-os-disk", "61-os-disk.rules", ".x", ""]);
    }
}
