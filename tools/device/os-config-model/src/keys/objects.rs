//! What the objects in the table hold.

use crate::formats as f;
use crate::shape::{Field, Shape};

const fn field(name: &'static str, summary: &'static str, shape: Shape) -> Field {
    Field { name, summary, shape, required: false }
}

const fn required(name: &'static str, summary: &'static str, shape: Shape) -> Field {
    Field { name, summary, shape, required: true }
}

pub(super) static WIFI: &[Field] = &[
    required("ssid", "Name of the network", Shape::Text(&f::SSID)),
    field(
        "password",
        "Passphrase, or a key of 64 hexadecimal digits (WPA2 only); without it the network is open",
        Shape::Text(&f::WIFI_PASSWORD),
    ),
    field("security", "WPA2 and WPA3 (wpa-psk), or WPA3 only (sae)", Shape::Choice(&["wpa-psk", "sae"])),
    field("hidden", "The network is hidden: it does not broadcast its name", Shape::Bool),
    field("priority", "Higher values are joined first", Shape::Integer { min: -999, max: 999, unit: "" }),
];

pub(super) static ETHERNET: &[Field] = &[
    field("interface", "Interface; any wired one if neither this nor mac is set", Shape::Text(&f::INTERFACE)),
    field("mac", "Hardware address of the interface", Shape::Text(&f::MAC)),
    field("addresses", "Static addresses; DHCP if none are set", Shape::List { item: &Shape::Text(&f::CIDR), max: 16 }),
    field("gateway", "Gateway", Shape::Text(&f::ADDRESS)),
    field("dns", "Name servers", Shape::List { item: &Shape::Text(&f::ADDRESS), max: 8 }),
    field(
        "search",
        "Search domains for short names, resolved by the name servers of this network",
        Shape::List { item: &Shape::Text(&f::DOMAIN), max: 6 },
    ),
];

pub(super) static WIREGUARD: &[Field] = &[
    required("name", "Name of the interface", Shape::Text(&f::INTERFACE)),
    required("privateKey", "Private key of this device", Shape::Text(&f::PRIVATE_KEY)),
    required(
        "addresses",
        "Addresses of this device in the tunnel",
        Shape::List { item: &Shape::Text(&f::CIDR), max: 16 },
    ),
    field("listenPort", "UDP port", Shape::Integer { min: 1, max: 65535, unit: "" }),
    required("peers", "Peers", Shape::List { item: &Shape::Object(PEER), max: 64 }),
];

static PEER: &[Field] = &[
    required("publicKey", "Public key of the peer", Shape::Text(&f::PUBLIC_KEY)),
    field("presharedKey", "Pre-shared key", Shape::Text(&f::PRIVATE_KEY)),
    field("endpoint", "Address and port of the peer", Shape::Text(&f::ENDPOINT)),
    required("allowedIps", "Addresses behind the peer", Shape::List { item: &Shape::Text(&f::CIDR), max: 64 }),
    field("keepalive", "Keepalive interval", Shape::Integer { min: 0, max: 65535, unit: "seconds" }),
];

pub(super) static PROXY: &[Field] = &[
    required("url", "Address of the proxy", Shape::Text(&f::PROXY)),
    field("noProxy", "Hosts and networks reached directly", Shape::List { item: &Shape::Text(&f::NO_PROXY), max: 64 }),
];

pub(super) static POOL: &[Field] = &[
    required("base", "Address range to take networks from", Shape::Text(&f::CIDR)),
    required("size", "Prefix length of each network", Shape::Integer { min: 8, max: 127, unit: "" }),
];

pub(super) static LOG: &[Field] = &[
    required("maxSize", "Maximum size of a file", Shape::Integer { min: 1, max: 1024, unit: "MiB" }),
    required("maxFiles", "Maximum number of files per container", Shape::Integer { min: 1, max: 20, unit: "" }),
];

pub(super) static OPENVPN_SERVER: &[Field] = &[
    required("enabled", "Run the server", Shape::Bool),
    required("config", "Configuration of the server", Shape::Text(&f::OPENVPN)),
];

pub(super) static MQTT: &[Field] = &[
    required("enabled", "Run the broker", Shape::Bool),
    field(
        "listen",
        "For this device and its containers (local, the default), or for the network too (all)",
        Shape::Choice(&["local", "all"]),
    ),
    field("port", "TCP port; 1883 if not set", Shape::Integer { min: 1, max: 65535, unit: "" }),
    required(
        "users",
        "User names and their passwords",
        Shape::Map { name: &f::USER, value: &Shape::Text(&f::PASSWORD), max: 64 },
    ),
];

pub(super) static WIPE: &[Field] = &[
    required(
        "what",
        "apps: containers, images; data: the data partition; state: identity and host configuration; all: everything",
        Shape::Choice(&["apps", "data", "state", "all"]),
    ),
    required("request", "Any text; each new value is a new request", Shape::Text(&f::TOKEN)),
];
