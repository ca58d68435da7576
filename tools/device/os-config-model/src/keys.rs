//! Every key of the file: where it stands, what it may be, what it is for. Validation, the schema, the documentation and
//! the status are made from this table.

mod foreign;
mod objects;

pub use foreign::{FOREIGN_SECRETS, WITHOUT_EFFECT};

use crate::formats as f;
use crate::shape::Shape;
use crate::types::Locale;
use objects::{ETHERNET, LOG, MQTT, OPENVPN_SERVER, POOL, PROXY, WIFI, WIPE, WIREGUARD};
use std::fmt;

/// When a change takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applies {
    /// At once; containers keep running.
    Now,
    /// At once; the engine restarts for it, containers keep running (live restore).
    Engine,
    /// At the next boot; until then the status says "pending".
    Reboot,
}

impl fmt::Display for Applies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Now => "at once",
            Self::Engine => "at once; the engine restarts for it, containers keep running",
            Self::Reboot => "at the next boot",
        })
    }
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// JSON pointer.
    pub pointer: &'static str,
    /// What it sets, for people.
    pub summary: &'static str,
    /// What it may be.
    pub shape: Shape,
    /// What is in force without it.
    pub default: &'static str,
    /// When a change takes effect.
    pub applies: Applies,
    /// A value for the documentation, as JSON; the tests apply it on a device.
    pub example: &'static str,
}

/// Every key there is.
pub static KEYS: &[Key] = &[
    Key {
        pointer: "/hostname",
        summary: "Name of the device on the network, announced as `<hostname>.local`",
        shape: Shape::Text(&f::HOSTNAME),
        default: "the first seven digits of the device id",
        applies: Applies::Now,
        example: r#""kiosk-3""#,
    },
    Key {
        pointer: "/persistentLogging",
        summary: "Keep the journal on the data partition instead of 8 MB of RAM",
        shape: Shape::Bool,
        default: "false",
        applies: Applies::Now,
        example: "true",
    },
    Key {
        pointer: "/developmentMode",
        summary: "Root login on the consoles and the Docker API on TCP port 2375, without a password: development only",
        shape: Shape::Bool,
        default: "true in the development and standalone variants, false in production",
        applies: Applies::Now,
        example: "true",
    },
    Key {
        pointer: "/country",
        summary: "Country whose radio regulations Wi-Fi follows; the world domain if wireless-regdb has none for it",
        shape: Shape::Text(&f::COUNTRY),
        default: "the world domain, the common denominator of all countries",
        applies: Applies::Now,
        example: r#""DE""#,
    },
    Key {
        pointer: "/ntpServers",
        summary: "Time servers, instead of those announced by DHCP",
        shape: Shape::Text(&f::NTP_SERVERS),
        default: "those announced by DHCP, else those that the image's systemd was built with",
        applies: Applies::Now,
        example: r#""0.pool.ntp.org 192.0.2.1""#,
    },
    Key {
        pointer: "/dnsServers",
        summary: "Name servers, in this order, instead of those of the networks. One for a domain \
                  (`/corp.example/10.0.0.1`) is used for that domain only, those of the networks for everything else. \
                  No server is built in, so \"null\" has no effect",
        shape: Shape::Text(&f::DNS_SERVERS),
        default: "those of the networks, each also for the domains of its network",
        applies: Applies::Now,
        example: r#""192.0.2.53 2001:db8::53""#,
    },
    Key {
        pointer: "/wifiSsid",
        summary: "Wi-Fi network to join, as written by balena's generator (os.network.wifi.networks takes several)",
        shape: Shape::Text(&f::SSID),
        default: "none",
        applies: Applies::Now,
        example: r#""Barn""#,
    },
    Key {
        pointer: "/wifiKey",
        summary: "Passphrase for wifiSsid; without it the network is open. 64 hexadecimal digits: a raw key, WPA2 only",
        shape: Shape::Text(&f::WIFI_PASSWORD),
        default: "none",
        applies: Applies::Now,
        example: r#""staple in the barn""#,
    },
    Key {
        pointer: "/balenaRootCA",
        summary: "Additional certificate authority that the device trusts, in the form of balenaOS",
        shape: Shape::Text(&f::BASE64_CERTIFICATE),
        default: "the authorities of the image",
        applies: Applies::Engine,
        example: concat!("\"", include_str!("../examples/ca.b64"), "\""),
    },
    Key {
        pointer: "/os/caCertificates",
        summary: "Certificate authorities trusted in addition to those of the image, mainly for registries",
        shape: Shape::List { item: &Shape::Text(&f::CERTIFICATE), max: 32 },
        default: "none",
        applies: Applies::Engine,
        example: concat!("[\"", include_str!("../examples/ca.json-string"), "\"]"),
    },
    Key {
        pointer: "/os/sshKeys",
        summary: "Public keys allowed to log in as root over SSH on port 22222",
        shape: Shape::List { item: &Shape::Text(&f::SSH_KEY), max: 64 },
        default: "the keys set last, until [] removes them; none on a new device, which then accepts no SSH login",
        applies: Applies::Now,
        example: r#"["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3s0Cv1XoS0JkWlTdmIcJ2xq6l5fM1m8rWkqS0Zt0Aa me@laptop"]"#,
    },
    Key {
        pointer: "/os/udevRules",
        summary: "udev rules (udev(7)); the name becomes the file name. A file with a line that udevd would drop is \
                  refused, and the previous one stays",
        shape: Shape::Map { name: &f::RULE_NAME, value: &Shape::Text(&f::LINES), max: 64 },
        default: "none",
        applies: Applies::Now,
        example: r#"{"99-example": "SUBSYSTEM==\"mem\", KERNEL==\"null\", SYMLINK+=\"example\"\n"}"#,
    },
    Key {
        pointer: "/os/network/wifi/randomMacAddressScan",
        summary: "Use a random hardware address for each Wi-Fi scan",
        shape: Shape::Bool,
        default: "false",
        applies: Applies::Now,
        example: "true",
    },
    Key {
        pointer: "/os/network/wifi/networks",
        summary: "Wi-Fi networks to join; each becomes a NetworkManager profile",
        shape: Shape::List { item: &Shape::Object(WIFI), max: 32 },
        default: "none",
        applies: Applies::Now,
        example: r#"[{"ssid": "Workshop", "password": "correct horse battery"}]"#,
    },
    Key {
        pointer: "/os/network/ethernet",
        summary: "Wired networks other than plain DHCP; each becomes a NetworkManager profile",
        shape: Shape::List { item: &Shape::Object(ETHERNET), max: 32 },
        default: "DHCP on every wired interface",
        applies: Applies::Now,
        example: r#"[{"mac": "52:54:00:05:e2:e0", "addresses": ["10.98.0.5/24", "fd00:98::5/64"], "gateway": "10.98.0.1", "dns": ["10.98.0.1"], "search": ["site.example"]}]"#,
    },
    Key {
        pointer: "/os/network/wireguard",
        summary: "WireGuard tunnels; each becomes a NetworkManager profile",
        shape: Shape::List { item: &Shape::Object(WIREGUARD), max: 16 },
        default: "none",
        applies: Applies::Now,
        example: r#"[{"name": "wg0", "privateKey": "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=", "addresses": ["10.97.0.2/24"], "peers": [{"publicKey": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=", "endpoint": "192.0.2.7:51820", "allowedIps": ["10.97.0.0/24"], "keepalive": 25}]}]"#,
    },
    Key {
        pointer: "/os/network/proxy",
        summary: "Proxy for the engine (image pulls) and for updates, not for containers",
        shape: Shape::Object(PROXY),
        default: "none, or the one in `system-proxy/redsocks.conf`",
        applies: Applies::Engine,
        example: r#"{"url": "http://user:secret@proxy.example:3128", "noProxy": ["localhost", ".lan", "10.0.0.0/8"]}"#,
    },
    Key {
        pointer: "/os/network/connectivity/uri",
        summary: "URL of the connectivity check; \"null\" disables it",
        shape: Shape::Text(&f::URL_OR_NULL),
        default: "no check: the device contacts no server",
        applies: Applies::Now,
        example: r#""http://connectivity.example/check""#,
    },
    Key {
        pointer: "/os/network/connectivity/interval",
        summary: "Time between two checks",
        shape: Shape::Text(&f::SECONDS),
        default: "\"3600\"",
        applies: Applies::Now,
        example: r#""600""#,
    },
    Key {
        pointer: "/os/network/connectivity/response",
        summary: "Expected start of the response",
        shape: Shape::Text(&f::ANSWER),
        default: "any response in the form of NetworkManager's own page",
        applies: Applies::Now,
        example: r#""online""#,
    },
    Key {
        pointer: "/os/network/resolver",
        summary: "`off` leaves port 53 of the device to a container that publishes it (AdGuard Home, Pi-hole). The \
                  device and its containers then query the name servers directly: no cache, and no servers for a domain \
                  or on another port",
        shape: Shape::Choice(&["local", "off"]),
        default: "local: a resolver on 127.0.0.1 and on the engine's bridge",
        applies: Applies::Now,
        example: r#""local""#,
    },
    Key {
        pointer: "/os/time/zone",
        summary: "Time zone of the device. A former name, such as `US/Eastern`, stands for the current one",
        shape: Shape::Text(&f::ZONE),
        default: "UTC",
        applies: Applies::Now,
        example: r#""Europe/Berlin""#,
    },
    Key {
        pointer: "/os/locale/lang",
        summary: "Locale of the device's own programs; the image must contain it",
        shape: Shape::Text(&f::LOCALE),
        default: Locale::LANG,
        applies: Applies::Now,
        example: r#""C""#,
    },
    Key {
        pointer: "/os/locale/keymap",
        summary: "Keymap of the text console; the image must contain it",
        shape: Shape::Text(&f::KEYMAP),
        default: "us",
        applies: Applies::Now,
        example: r#""de""#,
    },
    Key {
        pointer: "/os/memory/zramSwap",
        summary: "Size of the compressed swap in RAM; 0 disables it",
        shape: Shape::Integer { min: 0, max: 200, unit: "percent of RAM" },
        default: "50, at most 4 GiB",
        applies: Applies::Reboot,
        example: "30",
    },
    Key {
        pointer: "/os/memory/swapFile",
        summary: "Size of the swap file on the data partition, used when the compressed swap is full; 0 disables it. \
                  Swapping wears flash",
        shape: Shape::Integer { min: 0, max: 32768, unit: "MiB" },
        default: "0",
        applies: Applies::Now,
        example: "64",
    },
    Key {
        pointer: "/os/memory/swappiness",
        summary: "Tendency of the kernel to swap (vm.swappiness)",
        shape: Shape::Integer { min: 0, max: 200, unit: "" },
        default: "100",
        applies: Applies::Now,
        example: "60",
    },
    Key {
        pointer: "/os/docker/registryMirrors",
        summary: "Mirrors of Docker Hub",
        shape: Shape::List { item: &Shape::Text(&f::URL), max: 16 },
        default: "none",
        applies: Applies::Now,
        example: r#"["https://mirror.example"]"#,
    },
    Key {
        pointer: "/os/docker/insecureRegistries",
        summary: "Registries that may be used without TLS",
        shape: Shape::List { item: &Shape::Text(&f::REGISTRY), max: 32 },
        default: "none",
        applies: Applies::Now,
        example: r#"["registry.lan:5000"]"#,
    },
    Key {
        pointer: "/os/docker/addressPools",
        summary: "Address ranges for new container networks",
        shape: Shape::List { item: &Shape::Object(POOL), max: 16 },
        default: "networks of 254 addresses from 172.29.0.0/17",
        applies: Applies::Engine,
        example: r#"[{"base": "10.200.0.0/16", "size": 24}]"#,
    },
    Key {
        pointer: "/os/docker/bridge",
        summary: "Address and network of the engine's bridge, docker0, if your network already uses the built-in one",
        shape: Shape::Text(&f::BRIDGE),
        default: "172.29.232.1/24",
        applies: Applies::Reboot,
        example: r#""10.201.0.1/24""#,
    },
    Key {
        pointer: "/os/docker/log",
        summary: "Log the output of new containers to files of limited size instead of the journal",
        shape: Shape::Object(LOG),
        default: "the journal",
        applies: Applies::Engine,
        example: r#"{"maxSize": 5, "maxFiles": 3}"#,
    },
    Key {
        pointer: "/os/docker/daemon",
        summary: "Other settings of the engine, as in its `daemon.json`; those that the system relies on are refused",
        shape: Shape::Free { allowed: "the options of dockerd's configuration file", max: 32 << 10 },
        default: "the image's",
        applies: Applies::Engine,
        example: r#"{"labels": ["site=barn"], "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 1024, "Hard": 65536}}}"#,
    },
    Key {
        pointer: "/os/openvpn/clients",
        summary: "OpenVPN clients; the name becomes the name of the service, `openvpn-client@<name>`",
        shape: Shape::Map { name: &f::USER, value: &Shape::Text(&f::OPENVPN), max: 8 },
        default: "none",
        applies: Applies::Now,
        example: r#"{"office": "client\nremote vpn.example 1194\ndev tun\n"}"#,
    },
    Key {
        pointer: "/os/openvpn/server",
        summary: "OpenVPN server, `openvpn-server@os`",
        shape: Shape::Object(OPENVPN_SERVER),
        default: "off",
        applies: Applies::Now,
        example: r#"{"enabled": true, "config": "server 10.96.0.0 255.255.255.0\ndev tun\n"}"#,
    },
    Key {
        pointer: "/os/mqtt",
        summary: "MQTT broker. It requires a password; retained messages are kept in RAM",
        shape: Shape::Object(MQTT),
        default: "off",
        applies: Applies::Now,
        example: r#"{"enabled": true, "listen": "all", "port": 1883, "users": {"sensor": "a long password"}}"#,
    },
    Key {
        pointer: "/os/watchdog",
        summary: "Time after which the hardware watchdog restarts a device that hangs; 0 disables it",
        shape: Shape::Integer { min: 0, max: 600, unit: "seconds" },
        default: "30",
        applies: Applies::Now,
        example: "60",
    },
    Key {
        pointer: "/os/kernel/arguments",
        summary: "Additional kernel arguments. They are used on the first boot attempt only: a boot that fails with \
                  them is repeated without them, and they stay disabled until the value changes",
        shape: Shape::Text(&f::KERNEL_ARGUMENTS),
        default: "none",
        applies: Applies::Reboot,
        example: r#""mitigations=auto""#,
    },
    Key {
        pointer: "/os/kernel/modules",
        summary: "Kernel modules to load in addition to those that the hardware needs",
        shape: Shape::List { item: &Shape::Text(&f::MODULE), max: 64 },
        default: "none",
        applies: Applies::Now,
        example: r#"["nbd"]"#,
    },
    Key {
        pointer: "/os/kernel/moduleOptions",
        summary: "Kernel module options (modprobe.d(5)), used when the module is next loaded",
        shape: Shape::Map { name: &f::MODULE, value: &Shape::Text(&f::LINE), max: 64 },
        default: "none",
        applies: Applies::Now,
        example: r#"{"nbd": "nbds_max=4"}"#,
    },
    Key {
        pointer: "/os/kernel/sysctl",
        summary: "Settings of the running kernel (sysctl.d(5)), applied before the engine starts",
        shape: Shape::Map { name: &f::SYSCTL_NAME, value: &Shape::Setting(&f::SYSCTL_VALUE), max: 128 },
        default: "the image's and the kernel's own",
        applies: Applies::Now,
        example: r#"{"vm.max_map_count": 262144, "net.ipv4.tcp_keepalive_time": "600"}"#,
    },
    Key {
        pointer: "/os/firstBoot",
        summary: "Script that runs once, as root, after the device has started. A failed one runs again at the next \
                  boot, a successful one only after state is wiped",
        shape: Shape::Text(&f::SCRIPT),
        default: "none",
        applies: Applies::Now,
        example: r##""#!/bin/sh\necho hello > /mnt/data/first-boot\n""##,
    },
    Key {
        pointer: "/os/encryption/data",
        summary: "Encrypt the data partition; the key is kept in the state partition (`key`) or in the machine's TPM \
                  (`tpm2`). On a device's first boot the data from the image is kept; set later, it takes effect when \
                  data is wiped",
        shape: Shape::Choice(&["key", "tpm2"]),
        default: "unchanged: not encrypted on a new device",
        applies: Applies::Reboot,
        example: r#""tpm2""#,
    },
    Key {
        pointer: "/os/wipe",
        summary: "Erase at the next boot, once for each new value of `request`; ignored on a device's first boot",
        shape: Shape::Object(WIPE),
        default: "nothing is erased",
        applies: Applies::Reboot,
        example: r#"{"what": "apps", "request": "2026-11-21"}"#,
    },
    Key {
        pointer: "/os/update/channel",
        summary: "Address or directory of the channel that releases come from; its last component is the channel's name",
        shape: Shape::Text(&f::CHANNEL),
        default: "the channel that the image was built with (`OS_UPDATE_CHANNEL`), else none",
        applies: Applies::Now,
        example: r#""http://updates.example/os/stable""#,
    },
    Key {
        pointer: "/os/update/mode",
        summary: "`automatic` installs a release and starts it, `download` installs it and waits for `os update apply`, \
                  `manual` only reports it",
        shape: Shape::Choice(&["automatic", "download", "manual"]),
        default: "automatic",
        applies: Applies::Now,
        example: r#""download""#,
    },
    Key {
        pointer: "/os/update/window",
        summary: "When updates may be installed and started, in the device's time zone",
        shape: Shape::Text(&f::WINDOW),
        default: "always",
        applies: Applies::Now,
        example: r#""Mon,Tue,Wed,Thu,Fri 02:00-05:00""#,
    },
    Key {
        pointer: "/os/update/metered",
        summary: "Also install over connections that NetworkManager reports as metered",
        shape: Shape::Bool,
        default: "false",
        applies: Applies::Now,
        example: "true",
    },
    Key {
        pointer: "/os/update/rateLimit",
        summary: "Maximum download rate of an update; 0 means unlimited",
        shape: Shape::Integer { min: 0, max: 1_048_576, unit: "KiB per second" },
        default: "0",
        applies: Applies::Now,
        example: "2048",
    },
    Key {
        pointer: "/os/update/trial",
        summary: "How a new release is started for its trial: `restart` through the bootloader, which counts boot \
                  attempts, or `kexec` without it, where the hardware supports that; the bootloader is told only after \
                  the trial has passed",
        shape: Shape::Choice(&["restart", "kexec"]),
        default: "restart",
        applies: Applies::Now,
        example: r#""kexec""#,
    },
    Key {
        pointer: "/os/sealSecrets",
        summary: "Move every password and private key of this file to the state partition as soon as it is accepted",
        shape: Shape::Bool,
        default: "false",
        applies: Applies::Now,
        example: "false",
    },
    Key {
        pointer: "/os/import/signedOnly",
        summary: "Import a configuration from a USB stick only if it is signed by the key that signs updates",
        shape: Shape::Bool,
        default: "true in production, false in the other variants",
        applies: Applies::Now,
        example: "false",
    },
];

#[cfg(test)]
mod tests;
