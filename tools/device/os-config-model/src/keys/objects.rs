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
    field("security", "WPA2 and its successor, or WPA3 alone", Shape::Choice(&["wpa-psk", "sae"])),
    field("hidden", "The network does not announce itself", Shape::Bool),
    field("priority", "The higher is joined first", Shape::Integer { min: -999, max: 999, unit: "" }),
];

pub(super) static ETHERNET: &[Field] = &[
    field("interface", "Interface; without it and mac, any wired one", Shape::Text(&f::INTERFACE)),
    field("mac", "Hardware address of the interface", Shape::Text(&f::MAC)),
    field("addresses", "Fixed addresses; without them DHCP", Shape::List { item: &Shape::Text(&f::CIDR), max: 16 }),
    field("gateway", "Gateway", Shape::Text(&f::ADDRESS)),
    field("dns", "Name servers", Shape::List { item: &Shape::Text(&f::ADDRESS), max: 8 }),
    field(
        "search",
        "Domains in which short names are looked for, and that its servers are asked for",
        Shape::List { item: &Shape::Text(&f::DOMAIN), max: 6 },
    ),
];

pub(super) static WIREGUARD: &[Field] = &[
    required("name", "Name of the interface", Shape::Text(&f::INTERFACE)),
    required("privateKey", "Key of this device", Shape::Text(&f::PRIVATE_KEY)),
    required(
        "addresses",
        "Addresses of this device in the tunnel",
        Shape::List { item: &Shape::Text(&f::CIDR), max: 16 },
    ),
    field("listenPort", "UDP port", Shape::Integer { min: 1, max: 65535, unit: "" }),
    required("peers", "The other ends", Shape::List { item: &Shape::Object(PEER), max: 64 }),
];

static PEER: &[Field] = &[
    required("publicKey", "Key of the peer", Shape::Text(&f::PUBLIC_KEY)),
    field("presharedKey", "Key that both ends share", Shape::Text(&f::PRIVATE_KEY)),
    field("endpoint", "Where the peer is reached", Shape::Text(&f::ENDPOINT)),
    required("allowedIps", "Addresses behind the peer", Shape::List { item: &Shape::Text(&f::CIDR), max: 64 }),
    field("keepalive", "Send something this often", Shape::Integer { min: 0, max: 65535, unit: "seconds" }),
];

pub(super) static PROXY: &[Field] = &[
    required("url", "Address of the proxy", Shape::Text(&f::PROXY)),
    field("noProxy", "What is reached without it", Shape::List { item: &Shape::Text(&f::NO_PROXY), max: 64 }),
];

pub(super) static POOL: &[Field] = &[
    required("base", "Range to take networks from", Shape::Text(&f::CIDR)),
    required("size", "Prefix length of each network", Shape::Integer { min: 8, max: 127, unit: "" }),
];

pub(super) static LOG: &[Field] = &[
    required("maxSize", "Size of one file", Shape::Integer { min: 1, max: 1024, unit: "MiB" }),
    required("maxFiles", "Files per container", Shape::Integer { min: 1, max: 20, unit: "" }),
];

pub(super) static OPENVPN_SERVER: &[Field] =
    &[required("enabled", "Run it", Shape::Bool), required("config", "Its configuration", Shape::Text(&f::OPENVPN))];

pub(super) static MQTT: &[Field] = &[
    required("enabled", "Run it", Shape::Bool),
    field(
        "listen",
        "For this device and its containers (the default), or for the network too",
        Shape::Choice(&["local", "all"]),
    ),
    field("port", "TCP port; 1883 if it is not set", Shape::Integer { min: 1, max: 65535, unit: "" }),
    required(
        "users",
        "Names and their passwords",
        Shape::Map { name: &f::USER, value: &Shape::Text(&f::PASSWORD), max: 64 },
    ),
];

pub(super) static WIPE: &[Field] = &[
    required(
        "what",
        "apps: containers and images; data: all of the data partition; state: identity and host configuration; all: both",
        Shape::Choice(&["apps", "data", "state", "all"]),
    ),
    required("request", "Any text; another one is another request", Shape::Text(&f::TOKEN)),
];
