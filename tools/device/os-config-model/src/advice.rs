//! What is taken as it is, and what its owner should know of it.

use crate::country;
use crate::model::Problem;
use crate::types::{Config, WifiNetwork};

/// What there is to say of a configuration that was accepted.
pub(crate) fn of(config: &Config) -> Vec<Problem> {
    let mut out = Vec::new();
    let mut say = |pointer: &str, message: &str| {
        out.push(Problem { pointer: pointer.to_owned(), message: message.to_owned() });
    };
    if config.wifi_ssid.as_deref() == Some("null") {
        say(
            "/wifiSsid",
            "is the text \"null\"; if no network is meant, write null without quotes or leave the key out",
        );
    }
    for (index, network) in config.os.network.wifi.networks.iter().enumerate() {
        let pointer = format!("/os/network/wifi/networks/{index}/password");
        match network.security.as_deref() {
            _ if !network.has_raw_key() => {}
            Some("sae") => say(&pointer, "has 64 hexadecimal digits; WPA3 takes them for a password, not for a key"),
            _ => say(&pointer, RAW_KEY),
        }
    }
    if config.wifi_key.as_deref().is_some_and(is_raw_key) {
        say("/wifiKey", RAW_KEY);
    }
    if config.country.as_deref().is_some_and(country::has_no_rules) {
        say("/country", "has no radio rules of its own in wireless-regdb; the world's common denominator holds");
    }
    out
}

/// What a key that was computed from the passphrase cannot do.
pub(crate) const RAW_KEY: &str = "is a key of 64 hexadecimal digits, no passphrase: good for WPA2 only. An access point that offers WPA3 too \
                                  is not joined with it before NetworkManager 1.56; write the passphrase";

/// True for the key itself in the place of a passphrase (IEEE 802.11i: 256 bits).
pub(crate) fn is_raw_key(password: &str) -> bool {
    password.len() == 64 && password.bytes().all(|b| b.is_ascii_hexdigit())
}

impl WifiNetwork {
    /// True when its password is the key itself.
    pub fn has_raw_key(&self) -> bool {
        self.password.as_deref().is_some_and(is_raw_key)
    }
}

#[cfg(test)]
mod tests {
    use crate::model::parse;
    use serde_json::json;

    #[test]
    fn a_raw_key_is_taken_and_spoken_of() {
        let key = "0123456789abcdefABCDEF0123456789abcdef0123456789abcdef0123456789";
        let root = json!({"country": "fj", "wifiSsid": "a", "wifiKey": key, "os": {"network": {"wifi": {"networks": [
            {"ssid": "b", "password": "correct horse"}, {"ssid": "c", "password": key}, {"ssid": "d", "password": key, "security": "sae"},
        ]}}}});
        let found = parse(root.to_string().as_bytes()).unwrap();
        let warned: Vec<_> = found.warnings.iter().map(|w| w.pointer.as_str()).collect();
        let place = |index: u32| format!("/os/network/wifi/networks/{index}/password");
        assert_eq!(warned, [&place(1), &place(2), "/wifiKey", "/country"]);
        assert!(found.warnings.iter().all(|w| !w.message.contains("0123")), "{found:?}");
    }
}
