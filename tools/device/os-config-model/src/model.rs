//! From the bytes of a file to a configuration, or to everything that is wrong with them.
//!
//! Keys that balenaOS documents keep their names and meaning. Every wrong value is reported, not only the first, with
//! its JSON pointer (RFC 6901), what was found and what is allowed.

use crate::json::{self, dotted, kind, names, pointer_to};
use crate::keys::{KEYS, WITHOUT_EFFECT};
use crate::types::Config;
use crate::{advice, lenient, shape};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// What is wrong at one place of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// JSON pointer; empty for the file as a whole.
    #[serde(rename = "key", with = "json::as_key")]
    pub pointer: String,
    /// What was found and what is allowed. Never contains the value of a secret.
    pub message: String,
}

impl Problem {
    /// A problem of the file as a whole.
    pub fn whole(message: impl Into<String>) -> Self {
        Self { pointer: String::new(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pointer.as_str() {
            "" => f.write_str(&self.message),
            pointer => write!(f, "{}: {}", dotted(pointer), self.message),
        }
    }
}

/// A file that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accepted {
    /// What it says.
    pub config: Config,
    /// Pointers of the keys it sets.
    pub set: Vec<&'static str>,
    /// Pointers of keys that nobody knows; they have no effect.
    pub unknown: Vec<String>,
    /// Keys of balenaOS that mean nothing here, with the reason.
    pub without_effect: Vec<(String, &'static str)>,
    /// What is in force, and what its owner should know of it.
    pub warnings: Vec<Problem>,
}

/// Finds the secret that a reference stands for.
pub type Unseal<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads a file where sealed secrets are not at hand: on a workstation, or to check.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<Accepted, Vec<Problem>> {
    parse_with(bytes, &|_| Some(String::new()))
}

/// Reads a file on the device that holds the sealed secrets.
///
/// # Errors
/// Everything that is wrong with it. A file with one wrong value is refused whole: half of a change is worse than none.
pub fn parse_with(bytes: &[u8], unseal: Unseal<'_>) -> Result<Accepted, Vec<Problem>> {
    let root = json::read(bytes).map_err(|message| vec![Problem::whole(message)])?;
    check(root, unseal)
}

/// Reads a text that this device accepted once. Names that look misspelt were without effect then, and still are; what a later
/// release knows for a slip stays in force.
///
/// # Errors
/// As [`parse_with`].
pub fn parse_kept(bytes: &[u8], unseal: Unseal<'_>) -> Result<Accepted, Vec<Problem>> {
    let root = json::read(bytes).map_err(|message| vec![Problem::whole(message)])?;
    walk(root, unseal, false)
}

/// Checks a value that was read already. A name that is nearly a key's is taken for a slip: without effect it might keep its
/// owner out.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(root: Value, unseal: Unseal<'_>) -> Result<Accepted, Vec<Problem>> {
    walk(root, unseal, true)
}

/// Pointers of keys that nobody knows, also in a file that is refused for something else.
pub fn unknown(bytes: &[u8]) -> Vec<String> {
    let Ok(Value::Object(root)) = json::read(bytes) else { return Vec::new() };
    let mut walk =
        Walk { problems: Vec::new(), out: Accepted::default(), unseal: &|_| Some(String::new()), slips: true };
    walk.object("", root);
    walk.names();
    walk.out.unknown
}

fn walk(root: Value, unseal: Unseal<'_>, slips: bool) -> Result<Accepted, Vec<Problem>> {
    let Value::Object(root) = root else {
        return Err(vec![Problem::whole(format!(
            "the file is {}; a configuration is an object: {{ … }}",
            kind(&root)
        ))]);
    };
    let mut walk = Walk { problems: Vec::new(), out: Accepted::default(), unseal, slips };
    let known = walk.object("", root);
    walk.together(&known);
    if slips {
        walk.names();
    }
    if walk.problems.is_empty() {
        match Config::deserialize(Value::Object(known)) {
            Ok(config) => {
                walk.out.warnings.extend(advice::of(&config));
                walk.out.config = config;
            }
            Err(err) => walk.problems.push(Problem::whole(format!("cannot be understood: {err}"))),
        }
    }
    if walk.problems.is_empty() { Ok(walk.out) } else { Err(walk.problems) }
}

struct Walk<'a> {
    problems: Vec<Problem>,
    out: Accepted,
    unseal: Unseal<'a>,
    /// What was well meant is a problem; otherwise it only is a warning.
    slips: bool,
}

impl Walk<'_> {
    /// Goes through one object of the file and returns the part of it that is known.
    fn object(&mut self, base: &str, object: Map<String, Value>) -> Map<String, Value> {
        let mut known = Map::new();
        for (name, mut value) in object {
            let pointer = pointer_to(base, &name);
            let below = format!("{pointer}/");
            // Where an editor finds the schema.
            if pointer == "/$schema" {
                continue;
            }
            if let Some(key) = KEYS.iter().find(|k| k.pointer == pointer) {
                let Some(settled) = lenient::settle(&key.shape, &pointer, value, &mut self.out.warnings) else {
                    continue;
                };
                value = settled;
                let before = self.problems.len();
                key.shape.check(&pointer, &value, &mut self.problems);
                if self.problems.len() == before {
                    let slips = if self.slips { &mut self.problems } else { &mut self.out.warnings };
                    key.shape.slips(&pointer, &value, slips);
                    lenient::compact(&mut value);
                    self.unseal(key, &mut value);
                    self.out.set.push(key.pointer);
                    known.insert(name, value);
                }
            } else if let Some((_, reason)) = WITHOUT_EFFECT.iter().find(|(p, _)| *p == pointer) {
                self.out.without_effect.push((pointer, reason));
            } else if KEYS.iter().any(|k| k.pointer.starts_with(&below)) {
                match value {
                    Value::Object(inner) => {
                        known.insert(name, Value::Object(self.object(&pointer, inner)));
                    }
                    nothing if lenient::is_nothing(&nothing) => {}
                    other => {
                        let message = match &other {
                            Value::String(text) if text.trim() == "null" => shape::NULL.to_owned(),
                            other => format!("is {}; expected an object", kind(other)),
                        };
                        self.problems.push(Problem { pointer, message });
                    }
                }
            } else {
                self.out.unknown.push(pointer);
            }
        }
        known
    }

    /// Names that were meant to be something else.
    fn names(&mut self) {
        for pointer in std::mem::take(&mut self.out.unknown) {
            match suggestion(&pointer) {
                Some(key) => {
                    let message = format!("is no key; did you mean {}?", json::dotted(key));
                    self.problems.push(Problem { pointer, message });
                }
                None => self.out.unknown.push(pointer),
            }
        }
    }

    fn unseal(&mut self, key: &crate::keys::Key, value: &mut Value) {
        let (find, mut missing) = (self.unseal, false);
        key.shape.secrets(value, &mut |secret| {
            if let Some(id) = secret.as_object().and_then(shape::sealed) {
                match find(id) {
                    Some(text) => *secret = Value::String(text),
                    None => missing = true,
                }
            }
        });
        if missing {
            self.problems.push(Problem {
                pointer: key.pointer.to_owned(),
                message: "holds a sealed secret that this device does not have; write the secret itself".to_owned(),
            });
        }
    }

    /// What no single value shows.
    fn together(&mut self, known: &Map<String, Value>) {
        let root = Value::Object(known.clone());
        let mut wrong = |pointer: &str, message: &str| {
            self.problems.push(Problem { pointer: pointer.to_owned(), message: message.to_owned() });
        };
        let at = |pointer: &str| root.pointer(pointer);
        let list = |pointer: &str| at(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for (index, network) in list("/os/network/wifi/networks").iter().enumerate() {
            if network.get("security").is_some() && network.get("password").is_none() {
                wrong(&format!("/os/network/wifi/networks/{index}"), "has security but no password");
            }
        }
        for (index, network) in list("/os/network/ethernet").iter().enumerate() {
            let fixed = network.get("addresses").and_then(Value::as_array).is_some_and(|a| !a.is_empty());
            if network.get("gateway").is_some() && !fixed {
                wrong(&format!("/os/network/ethernet/{index}"), "has a gateway but no addresses");
            }
        }
        let tunnels = list("/os/network/wireguard");
        for (index, tunnel) in tunnels.iter().enumerate() {
            if tunnels.iter().take(index).any(|other| other.get("name") == tunnel.get("name")) {
                wrong(&format!("/os/network/wireguard/{index}/name"), "is the name of another tunnel too");
            }
        }
        let settings = at("/os/kernel/sysctl").and_then(Value::as_object);
        for (name, message) in settings.into_iter().flat_map(crate::sysctl::refused) {
            wrong(&pointer_to("/os/kernel/sysctl", &name), &message);
        }
        let docker = at("/os/docker").and_then(Value::as_object);
        for (option, message) in docker.into_iter().flat_map(crate::daemon::refused) {
            wrong(&pointer_to("/os/docker/daemon", &option), &message);
        }
        if at("/os/mqtt/enabled") == Some(&Value::Bool(true))
            && at("/os/mqtt/users").and_then(Value::as_object).is_some_and(Map::is_empty)
        {
            wrong("/os/mqtt/users", "is empty; a broker needs at least one user");
        }
    }
}

/// The key that was meant by a pointer that is none, if there is one that is near: the same name in another place or in
/// another spelling, or one or two letters off.
pub fn suggestion(pointer: &str) -> Option<&'static str> {
    let name = |pointer: &str| {
        let name = pointer.rsplit('/').next().unwrap_or_default();
        name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
    };
    let beside =
        |key: &str| key.rsplit_once('/').map(|(base, _)| base) == pointer.rsplit_once('/').map(|(base, _)| base);
    let given = name(pointer);
    let near = |key: &str| {
        let known = name(key);
        let off = strsim::osa_distance(&given, &known);
        // In another place only what is spelt right; short names are near to everything.
        (off == 0 && given.len() > 4) || (beside(key) && off <= (known.len() / 4).min(2))
    };
    let mut found: Vec<&'static str> = KEYS.iter().map(|key| key.pointer).filter(|key| near(key)).collect();
    found.sort_by_key(|key| (!beside(key), strsim::osa_distance(&given, &name(key))));
    found.first().copied()
}

/// The JSON Schema (draft 2020-12) of the file, from [`KEYS`].
///
/// # Errors
/// When an example in the table is not JSON; the tests see to it that none is.
pub fn schema() -> serde_json::Result<Value> {
    let mut root = Value::Object(Map::new());
    for key in KEYS {
        let mut value = key.shape.schema();
        if let Some(object) = value.as_object_mut() {
            let text = format!("{}. Default: {}. Takes effect {}.", key.summary, key.default, key.applies);
            object.insert("description".to_owned(), text.into());
            object.insert("examples".to_owned(), Value::Array(vec![serde_json::from_str(key.example)?]));
        }
        insert(&mut root, &names(key.pointer), value);
    }
    let mut out = root;
    if let Some(object) = out.as_object_mut() {
        object.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
        object.insert("title".to_owned(), "config.json".into());
        let text = "Configuration of the device. Unknown keys have no effect and are reported by 'os config status'.";
        object.insert("description".to_owned(), text.into());
    }
    Ok(out)
}

/// Puts a schema where its key stands, with the objects above it.
fn insert(at: &mut Value, names: &[String], schema: Value) {
    let Some(object) = at.as_object_mut() else { return };
    object.entry("type").or_insert_with(|| "object".into());
    let properties = object.entry("properties").or_insert_with(|| Value::Object(Map::new()));
    let (Some(properties), Some((name, rest))) = (properties.as_object_mut(), names.split_first()) else { return };
    if rest.is_empty() {
        properties.insert(name.clone(), schema);
    } else {
        insert(properties.entry(name).or_insert_with(|| Value::Object(Map::new())), rest, schema);
    }
}

/// A configuration that sets one key, for documentation and tests.
pub fn only(pointer: &str, value: Value) -> Value {
    names(pointer).into_iter().rev().fold(value, |inner, name| Value::Object(Map::from_iter([(name, inner)])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn problems(text: &str) -> Vec<(String, String)> {
        parse(text.as_bytes()).unwrap_err().into_iter().map(|p| (p.pointer, p.message)).collect()
    }

    #[test]
    fn every_documented_example_is_accepted_and_reaches_its_type() {
        for key in KEYS {
            let value: Value = serde_json::from_str(key.example).unwrap_or_else(|e| panic!("{}: {e}", key.pointer));
            let file = serde_json::to_vec(&only(key.pointer, value)).unwrap();
            let accepted = parse(&file).unwrap_or_else(|e| panic!("{}: {e:?}", key.pointer));
            assert_eq!(accepted.set, [key.pointer]);
            assert_ne!(accepted.config, Config::default(), "{} is read into nothing", key.pointer);
        }
    }

    #[test]
    fn a_slip_is_an_error_that_names_the_key_and_is_no_reason_to_drop_what_was_accepted_once() {
        for (text, wanted) in [
            (r#"{"os":{"sshKey":[]}}"#, "os.sshKeys"),
            (r#"{"os":{"sshkeys":[]}}"#, "os.sshKeys"),
            (r#"{"sshKeys":[]}"#, "os.sshKeys"),
            (r#"{"hostnam":"x"}"#, "hostname"),
            (r#"{"os":{"time":{"zon":"x"}}}"#, "os.time.zone"),
        ] {
            let found = problems(text);
            assert!(found.len() == 1 && found[0].1.contains(&format!("did you mean {wanted}?")), "{text}: {found:?}");
            assert_eq!(parse_kept(text.as_bytes(), &|_| None).unwrap().unknown.len(), 1);
        }
        for text in [r#"{"os":{"typo":1},"x":2,"fleet":{},"os2":{}}"#, r#"{"custom":{"name":"x"}}"#] {
            assert!(parse(text.as_bytes()).is_ok(), "{text}");
        }
    }

    #[test]
    fn the_schema_knows_every_key_and_every_example() {
        let schema = schema().unwrap();
        for key in KEYS {
            let place = names(key.pointer).iter().map(|n| format!("/properties/{n}")).collect::<String>();
            assert!(schema.pointer(&place).is_some_and(|s| s["examples"][0] != Value::Null), "{}", key.pointer);
        }
    }

    #[test]
    fn a_configuration_of_balena_is_read() {
        let accepted = parse(
            b"\xef\xbb\xbf{\r\n\"$schema\":\"./config.schema.json\",\"hostname\":\"a\",\"ntpServers\":\" x  y \",\"persistentLogging\":true,\"uuid\":\"1\",\"apiKey\":\"s\",\
              \"dnsServers\":\"null\",\"country\":null,\"os\":{\"fan\":{\"profile\":\"quiet\"},\"network\":{\"connectivity\":{\"interval\":\"0\"}},\"typo\":1},\"x/y\":{}}",
        )
        .unwrap();
        assert_eq!(accepted.config.ntp_servers.as_deref(), Some(" x  y "));
        assert_eq!(accepted.config.os.network.connectivity.interval.as_deref(), Some("0"));
        assert_eq!(accepted.unknown, ["/os/typo", "/x~1y"]);
        let names: Vec<_> = accepted.without_effect.iter().map(|(p, _)| p.as_str()).collect();
        assert_eq!(names, ["/uuid", "/apiKey", "/os/fan"]);
        assert_eq!(
            accepted.set,
            ["/hostname", "/ntpServers", "/persistentLogging", "/dnsServers", "/os/network/connectivity/interval"]
        );
    }

    #[test]
    fn every_wrong_value_is_named_with_pointer_and_allowed() {
        let found = problems(
            r#"{"hostname":7,"persistentLogging":"yes","os":{"sshKeys":["ssh-ed25519 AAAA","x",3],"watchdog":601,
               "mqtt":{"enabled":true,"users":{"a b":"12345678"},"x":1},"wipe":{"what":"everything"}},"ntpServers":"a;b"}"#,
        );
        let pointers: Vec<&str> = found.iter().map(|(p, _)| p.as_str()).collect();
        assert_eq!(
            pointers,
            [
                "/hostname",
                "/persistentLogging",
                "/os/sshKeys/0",
                "/os/sshKeys/1",
                "/os/sshKeys/2",
                "/os/watchdog",
                "/os/mqtt/users/a b",
                "/os/mqtt/x",
                "/os/wipe/what",
                "/os/wipe",
                "/ntpServers"
            ]
        );
        assert!(found.iter().all(|(_, m)| m.contains("expected") || m.contains("missing")), "{found:?}");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let file = json!({"os": {"network": {
            "wifi": {"networks": [{"ssid": "a", "security": "sae"}]},
            "ethernet": [{"gateway": "10.0.0.1"}],
        }, "mqtt": {"enabled": true, "users": {}}}});
        let found = problems(&file.to_string());
        let pointers: Vec<&str> = found.iter().map(|(p, _)| p.as_str()).collect();
        assert_eq!(pointers, ["/os/network/wifi/networks/0", "/os/network/ethernet/0", "/os/mqtt/users"]);
    }

    #[test]
    fn secrets_never_stand_in_a_problem() {
        let file = json!({"os": {
            "network": {"proxy": {"url": "hunter2-hunter2"}, "wifi": {"networks": [{"ssid": "a", "password": "hunter2\n"}]}},
            "mqtt": {"enabled": true, "users": {"a": "hunter2"}},
        }});
        let found = problems(&file.to_string());
        assert_eq!(found.len(), 3);
        assert!(!format!("{found:?}").contains("hunter2"), "{found:?}");
    }

    #[test]
    fn a_sealed_secret_is_found_or_missed() {
        let file = json!({"os": {"network": {"wifi": {"networks": [{"ssid": "a", "password": {"$sealed": "1"}}]}}}});
        let file = file.to_string();
        let good = parse_with(file.as_bytes(), &|id| (id == "1").then(|| "open sesame".to_owned())).unwrap();
        assert_eq!(good.config.os.network.wifi.networks[0].password.as_deref(), Some("open sesame"));
        assert!(parse_with(file.as_bytes(), &|_| None).unwrap_err()[0].message.contains("sealed"));
        assert!(parse(file.as_bytes()).is_ok());
    }

    #[test]
    fn hostile_key_names_are_tamed() {
        let name = "x\u{1b}[2J".to_owned() + &"y".repeat(500);
        let accepted = parse(&serde_json::to_vec(&json!({ name: 1, "a/b~c": 2 })).unwrap()).unwrap();
        assert!(accepted.unknown.iter().all(|u| u.len() < 300 && !u.contains('\u{1b}')), "{:?}", accepted.unknown);
        assert!(accepted.unknown.contains(&"/a~1b~0c".to_owned()));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = parse(&bytes);
        }

        // Anything JSON in the place of any key: refused or understood, never a panic and never an internal error.
        #[test]
        fn any_value_in_any_place(index in 0..KEYS.len(), value in value()) {
            if let Err(found) = parse(&serde_json::to_vec(&only(KEYS[index].pointer, value)).unwrap()) {
                prop_assert!(found.iter().all(|p| !p.message.contains("cannot be understood")), "{:?}", found);
            }
        }

        #[test]
        fn a_truncated_configuration_is_never_accepted(cut in 1usize..60) {
            let text = br#"{"hostname":"kiosk","persistentLogging":true,"os":{"sshKeys":[]}}"#;
            prop_assert!(parse(&text[..text.len() - cut]).is_err());
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,40}".prop_map(Value::from),
            "[a-z0-9.:/]{0,12}".prop_map(Value::from),
        ];
        let name = prop_oneof![
            ".{0,8}",
            "ssid|password|security|addresses|gateway|enabled|users|config|what|request|url|base|size|name|peers",
        ];
        leaf.prop_recursive(3, 24, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::hash_map(name.clone(), inner, 0..5)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }
}
