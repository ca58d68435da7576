//! What a profile of NetworkManager (nm-settings-keyfile(5)) says of itself that nobody on a device can give it: it is taken, and its
//! owner told.

use crate::advice::{RAW_KEY, is_raw_key};
use std::collections::BTreeMap;

/// Sections by name; the long names that NetworkManager had first are those of today.
#[derive(Debug, Default)]
pub struct Profile(BTreeMap<String, BTreeMap<String, String>>);

impl Profile {
    /// Reads a keyfile (GLib): of two sections of a name the second goes on, of two keys the second counts.
    pub fn read(text: &str) -> Self {
        let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let mut section = String::new();
        for line in text.lines().map(str::trim_start).filter(|line| !line.starts_with('#')) {
            if let Some(name) = line.trim_end().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = match name {
                    "802-11-wireless" => "wifi".to_owned(),
                    "802-11-wireless-security" => "wifi-security".to_owned(),
                    "802-3-ethernet" => "ethernet".to_owned(),
                    other => other.to_owned(),
                };
            } else if let Some((key, value)) = line.split_once('=') {
                let keys = sections.entry(section.clone()).or_default();
                keys.insert(key.trim_end().to_owned(), value.trim().to_owned());
            }
        }
        Self(sections)
    }

    fn get(&self, section: &str, key: &str) -> Option<&str> {
        self.0.get(section)?.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// What NetworkManager tells profiles apart by.
    pub fn uuid(&self) -> Option<String> {
        self.get("connection", "uuid").map(str::to_ascii_lowercase)
    }

    /// What does not work as it stands, or never without a person; never a secret.
    pub fn doubts(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut person = |why: String| out.push(format!("can never connect without a person: {why}"));
        if self.get("connection", "permissions").is_some_and(|users| users.contains("user:")) {
            person("permissions= gives it to a user who has to be logged in; leave permissions out".to_owned());
        }
        for (section, key) in self.asked_for() {
            person(format!(
                "[{section}] {key} says that the secret is asked of somebody; put it into the profile, with {key}=0"
            ));
        }
        for (section, key) in self.missing() {
            person(format!("[{section}] has no {key}"));
        }
        let port = ["master", "controller"].iter().any(|key| self.get("connection", key).is_some());
        if matches!(self.get("connection", "autoconnect"), Some("false" | "0")) && !port {
            out.push("connects only when somebody asks for it: autoconnect=false".to_owned());
        }
        if self.get("connection", "interface-name").is_some_and(|name| !can_be_interface(name)) {
            out.push("can never connect: interface-name= is no name that an interface can have".to_owned());
        }
        let security = |key: &str| self.get("wifi-security", key);
        if security("key-mgmt") == Some("wpa-psk")
            && security("psk").is_some_and(is_raw_key)
            && security("pmf") != Some("1")
        {
            out.push(format!("psk {RAW_KEY}"));
        }
        out
    }

    /// Secrets that an agent of a user keeps (flag 1), or nobody (2), and that are needed (not 4).
    fn asked_for(&self) -> Vec<(&str, &str)> {
        let mut out = Vec::new();
        for (section, keys) in &self.0 {
            for (key, value) in keys {
                let Some(secret) = key.strip_suffix("-flags") else { continue };
                let flags = value.parse::<u32>().unwrap_or_default();
                let is_secret = SECRETS.contains(&secret) || section == "vpn";
                if is_secret && flags & 3 != 0 && flags & 4 == 0 && self.uses(section, key) {
                    out.push((section.as_str(), key.as_str()));
                }
            }
        }
        out
    }

    /// Some tools write the flags of every secret that there could be.
    fn uses(&self, section: &str, flags: &str) -> bool {
        let method = self.get("wifi-security", "key-mgmt").unwrap_or_default();
        match (section, flags) {
            ("wifi-security", "psk-flags") => matches!(method, "wpa-psk" | "sae"),
            ("wifi-security", "leap-password-flags") => self.get("wifi-security", "auth-alg") == Some("leap"),
            ("wifi-security", "wep-key-flags") => method == "none" || method == "ieee8021x",
            ("802-1x", "password-flags" | "password-raw-flags") => self.wants_password(),
            ("802-1x", "private-key-password-flags") => self.get("802-1x", "private-key").is_some(),
            ("802-1x", "phase2-private-key-password-flags") => self.get("802-1x", "phase2-private-key").is_some(),
            ("gsm" | "cdma" | "pppoe", "password-flags") => self.get(section, "username").is_some(),
            _ => true,
        }
    }

    fn wants_password(&self) -> bool {
        let methods = self.get("802-1x", "eap").unwrap_or_default();
        methods.split(';').any(|method| ["peap", "ttls", "pwd", "md5", "leap", "fast"].contains(&method))
            && self.get("802-1x", "phase2-autheap") != Some("tls")
            && self.get("802-1x", "phase2-auth") != Some("tls")
    }

    /// Secrets that are not there, nor said to be asked for.
    fn missing(&self) -> Vec<(&'static str, &'static str)> {
        let wifi = matches!(self.get("wifi-security", "key-mgmt"), Some("wpa-psk" | "sae"));
        let wireguard = self.get("connection", "type") == Some("wireguard");
        let needed = [
            (wifi, "wifi-security", "psk"),
            (wireguard, "wireguard", "private-key"),
            (self.wants_password() && self.get("802-1x", "password-raw").is_none(), "802-1x", "password"),
        ];
        let told =
            |section: &str, key: &str| self.get(section, &format!("{key}-flags")).is_some_and(|flags| flags != "0");
        let missing = |(wanted, section, key): &(bool, &str, &str)| {
            *wanted && self.get(section, key).is_none() && !told(section, key)
        };
        needed.into_iter().filter(missing).map(|(_, section, key)| (section, key)).collect()
    }
}

/// Names of secrets; the flags of one are called after it.
const SECRETS: &[&str] = &[
    "psk",
    "wep-key",
    "leap-password",
    "password",
    "password-raw",
    "private-key-password",
    "phase2-private-key-password",
    "pin",
    "ca-cert-password",
    "phase2-ca-cert-password",
    "client-cert-password",
    "phase2-client-cert-password",
    "private-key",
    "preshared-key",
    "mka-cak",
];

/// As the kernel has it (dev_valid_name), and NetworkManager.
fn can_be_interface(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.chars().any(|c| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control())
}

/// What there is to say of profiles beside each other, by the names of their files.
pub fn doubts(profiles: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut uuids: BTreeMap<String, &str> = BTreeMap::new();
    for (name, text) in profiles {
        let profile = Profile::read(text);
        out.extend(profile.doubts().into_iter().map(|doubt| (name.clone(), doubt)));
        if let Some(other) = profile.uuid().and_then(|uuid| uuids.insert(uuid, name)) {
            out.push((
                name.clone(),
                format!(
                    "has the uuid of {other}: NetworkManager uses one of them only; leave uuid out, or make a new one"
                ),
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn doubts_of(text: &str) -> Vec<String> {
        Profile::read(text).doubts()
    }

    #[test]
    fn what_asks_a_person_is_told() {
        let key = "0a".repeat(32);
        for (text, reason) in [
            ("[connection]\npermissions=user:alice:;\n", "permissions="),
            ("[wifi-security]\nkey-mgmt=wpa-psk\npsk-flags=1\n", "psk-flags"),
            ("[802-11-wireless-security]\nkey-mgmt = sae\n psk-flags = 2\n", "psk-flags"),
            ("[wifi-security]\nkey-mgmt=wpa-psk\n", "has no psk"),
            ("[wifi-security]\nkey-mgmt=ieee8021x\nauth-alg=leap\nleap-password-flags=1\n", "leap-password-flags"),
            ("[802-1x]\neap=peap;\npassword-flags=1\n", "password-flags"),
            ("[802-1x]\neap=ttls;\nidentity=a\n", "has no password"),
            ("[802-1x]\neap=tls;\nprivate-key=/a\nprivate-key-password-flags=1\n", "private-key-password-flags"),
            ("[gsm]\napn=a\nusername=u\npassword-flags=1\n", "password-flags"),
            ("[gsm]\napn=a\npin-flags=2\n", "pin-flags"),
            ("[connection]\ntype=wireguard\n[wireguard]\nprivate-key-flags=1\n", "private-key-flags"),
            ("[connection]\ntype=wireguard\n", "has no private-key"),
            ("[wireguard-peer.x=]\npreshared-key-flags=1\n", "preshared-key-flags"),
            ("[vpn]\nservice-type=x\nXauth password-flags=1\n", "Xauth password-flags"),
            ("[connection]\nautoconnect=false\n", "autoconnect=false"),
            ("[connection]\ninterface-name=a-name-of-sixteen\n", "interface-name"),
            ("[connection]\ninterface-name=eth 0\n", "interface-name"),
            (&format!("[wifi-security]\nkey-mgmt=wpa-psk\npsk={key}\n"), "WPA2 only"),
        ] {
            let found = doubts_of(text);
            assert!(found.len() == 1 && found[0].contains(reason), "{text}: {found:?}");
            assert!(!found[0].contains("alice") && !found[0].contains(&key), "{found:?}");
        }
    }

    #[test]
    fn what_connects_by_itself_is_passed_over() {
        for text in [
            "[connection]\nid=a\npermissions=\ninterface-name=eth0\nautoconnect=true\n",
            "# permissions=user:a\n[wifi-security]\nkey-mgmt=wpa-psk\npsk=correct horse\npsk-flags=0\nwep-key-flags=1\n",
            "[802-1x]\neap=tls;\nprivate-key=/a\nprivate-key-password=x\npassword-flags=1\n",
            "[gsm]\napn=a\npassword-flags=1\n",
            "[gsm]\napn=a\nusername=u\npassword-flags=4\n",
            "[connection]\nautoconnect=false\nmaster=bond0\n",
            "[ethernet]\nwake-on-lan=1\nnetworking-flags=3\n",
            &format!("[wifi-security]\nkey-mgmt=wpa-psk\npmf=1\npsk={}\n", "0a".repeat(32)),
        ] {
            assert_eq!(doubts_of(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn two_profiles_with_one_uuid_are_told() {
        let profile = |uuid: &str| format!("[connection]\nuuid={uuid}\n");
        let found = doubts(&BTreeMap::from([
            ("a".to_owned(), profile("2B0F7F5E")),
            ("b".to_owned(), profile("2b0f7f5e")),
            ("c".to_owned(), profile("other")),
            ("d".to_owned(), "[connection]\n".to_owned()),
            ("e".to_owned(), "[connection]\n".to_owned()),
        ]));
        assert!(found.len() == 1 && found[0].0 == "b" && found[0].1.contains("uuid of a"), "{found:?}");
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "(?s).{0,200}", lines in proptest::collection::vec(
            "(\\[(connection|wifi-security|802-1x|gsm|vpn)\\]|(psk|password|pin|uuid|permissions|eap|key-mgmt)(-flags)?=[0-9a-z:;]{0,9})", 0..12)) {
            let _ = Profile::read(&text).doubts();
            let _ = Profile::read(&lines.join("\n")).doubts();
        }
    }
}
