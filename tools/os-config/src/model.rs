//! What may stand in `config.json`.
//!
//! Keys that balenaOS documents keep their names and meaning. Every wrong value is reported, not only the first, with
//! its JSON pointer (RFC 6901), what was found and what is allowed.

use os_hostname::Hostname;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Everything that can be configured. `None` means: not set, the default is in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// Name of the device on the network.
    pub hostname: Option<Hostname>,
    /// Keep the journal on the data partition.
    pub persistent_logging: Option<bool>,
    /// Login on the consoles and the engine's API on the network.
    pub development_mode: Option<bool>,
    /// Time servers.
    pub ntp_servers: Option<NtpServers>,
    /// Keys that may log in as root by ssh.
    pub ssh_keys: Option<Vec<SshKey>>,
}

/// A key of the file: where it stands, what it is for. Validation, status and documentation are made from this table.
#[derive(Debug)]
pub struct Key {
    /// JSON pointer.
    pub pointer: &'static str,
    /// What it sets, for people.
    pub summary: &'static str,
    /// Type and allowed values, for people.
    pub allowed: &'static str,
    /// What is in force without it.
    pub default: &'static str,
    /// When a change takes effect.
    pub applies: &'static str,
    /// A value for the documentation, as JSON; the tests check that it is accepted.
    pub example: &'static str,
    /// JSON Schema of the value, as JSON.
    pub schema: &'static str,
}

/// Every key there is.
pub const KEYS: &[Key] = &[
    Key {
        pointer: "/hostname",
        summary: "Name of the device on the network, announced as <hostname>.local",
        allowed: "string: 1 to 63 letters, digits and hyphens, not starting or ending with a hyphen",
        default: "the first seven digits of the device id",
        applies: "at once; containers keep running",
        example: "\"kiosk-3\"",
        schema: r#"{"type":"string","pattern":"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$"}"#,
    },
    Key {
        pointer: "/persistentLogging",
        summary: "Keep the journal on the data partition instead of 8 MB of RAM",
        allowed: "true or false",
        default: "false",
        applies: "at once",
        example: "true",
        schema: r#"{"type":"boolean"}"#,
    },
    Key {
        pointer: "/developmentMode",
        summary: "Root login on the consoles and the Docker API on TCP port 2375, without a password: for a bench only",
        allowed: "true or false",
        default: "true in the development and standalone variants, false in production",
        applies: "at once",
        example: "false",
        schema: r#"{"type":"boolean"}"#,
    },
    Key {
        pointer: "/ntpServers",
        summary: "Time servers",
        allowed: "string: host names or addresses, separated by spaces",
        default: "what DHCP says, else the servers that the image's systemd was built with",
        applies: "at once",
        example: "\"0.pool.ntp.org 192.0.2.1\"",
        schema: r#"{"type":"string","pattern":"^ *([A-Za-z0-9.:-]{1,253}( +|$))*$"}"#,
    },
    Key {
        pointer: "/os/sshKeys",
        summary: "Public keys that may log in as root by ssh on port 22222",
        allowed: "array of strings, each one line of authorized_keys without options",
        default: "none: nobody can log in by ssh",
        applies: "at the next login",
        example: "[\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3s0Cv1XoS0JkWlTdmIcJ2xq6l5fM1m8rWkqS0Zt0Aa me@laptop\"]",
        schema: r#"{"type":"array","maxItems":64,"items":{"type":"string","pattern":"^[a-z0-9@.-]+ [A-Za-z0-9+/]+=* ?[^\\n\\r]*$"}}"#,
    },
];

/// What is wrong at one place of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// JSON pointer; empty for the file as a whole.
    pub pointer: String,
    /// What was found and what is allowed. Never contains the value of a secret.
    pub message: String,
}

impl Problem {
    fn new(pointer: &str, message: impl Into<String>) -> Self {
        Self { pointer: pointer.to_owned(), message: message.into() }
    }
}

/// A file that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accepted {
    /// What it says.
    pub config: Config,
    /// Pointers of keys that nobody knows; they have no effect.
    pub unknown: Vec<String>,
}

/// Reads a file.
///
/// # Errors
/// Everything that is wrong with it. A file with one wrong value is refused whole: half of a change is worse than none.
pub fn parse(bytes: &[u8]) -> Result<Accepted, Vec<Problem>> {
    let whole = |message: String| vec![Problem::new("", message)];
    // Editors on Windows put a byte order mark in front.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(whole("the file is empty; the least that is allowed is {}".to_owned()));
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|err| whole(format!("not valid JSON: {err}")))?;
    let Value::Object(root) = value else {
        return Err(whole(format!("is {}; a configuration is an object: {{ … }}", kind(&value))));
    };
    let mut reader = Reader { problems: Vec::new(), unknown: Vec::new() };
    let mut config = Config::default();
    for (name, value) in &root {
        match name.as_str() {
            "hostname" => config.hostname = reader.read("/hostname", value, hostname),
            "persistentLogging" => config.persistent_logging = reader.read("/persistentLogging", value, boolean),
            "developmentMode" => config.development_mode = reader.read("/developmentMode", value, boolean),
            "ntpServers" => config.ntp_servers = reader.read("/ntpServers", value, NtpServers::from_json),
            "os" => match value {
                Value::Object(os) => reader.read_os(&mut config, os),
                other => reader.problems.push(Problem::new("/os", format!("is {}; allowed is an object", kind(other)))),
            },
            other => reader.unknown.push(pointer_to("", other)),
        }
    }
    if reader.problems.is_empty() { Ok(Accepted { config, unknown: reader.unknown }) } else { Err(reader.problems) }
}

struct Reader {
    problems: Vec<Problem>,
    unknown: Vec<String>,
}

impl Reader {
    fn read<T>(&mut self, pointer: &str, value: &Value, check: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
        check(value).map_err(|message| self.problems.push(Problem::new(pointer, message))).ok()
    }

    fn read_os(&mut self, config: &mut Config, os: &Map<String, Value>) {
        for (name, value) in os {
            match name.as_str() {
                "sshKeys" => config.ssh_keys = self.read_ssh_keys(value),
                other => self.unknown.push(pointer_to("/os", other)),
            }
        }
    }

    fn read_ssh_keys(&mut self, value: &Value) -> Option<Vec<SshKey>> {
        const MAX_KEYS: usize = 64;
        let Value::Array(items) = value else {
            self.problems
                .push(Problem::new("/os/sshKeys", format!("is {}; allowed is an array of strings", kind(value))));
            return None;
        };
        if items.len() > MAX_KEYS {
            self.problems.push(Problem::new("/os/sshKeys", format!("has {} keys; at most {MAX_KEYS}", items.len())));
            return None;
        }
        let keys = items
            .iter()
            .enumerate()
            .map(|(i, item)| self.read(&format!("/os/sshKeys/{i}"), item, SshKey::from_json))
            .collect::<Vec<_>>();
        keys.into_iter().collect()
    }
}

/// Appends a key to a pointer, escaped as RFC 6901 asks, and cut: keys are hostile input that ends up on a console.
fn pointer_to(base: &str, key: &str) -> String {
    const MAX: usize = 64;
    let mut key: String = key.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if let Some((cut, _)) = key.char_indices().nth(MAX) {
        key.truncate(cut);
        key.push('…');
    }
    format!("{base}/{}", key.replace('~', "~0").replace('/', "~1"))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("is {}; allowed are true and false", kind(value)))
}

fn string(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("is {}; allowed is a string", kind(value)))
}

fn hostname(value: &Value) -> Result<Hostname, String> {
    Hostname::parse(string(value)?)
}

/// Time servers, in order of preference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NtpServers(Vec<String>);

impl NtpServers {
    fn from_json(value: &Value) -> Result<Self, String> {
        let servers: Vec<String> = string(value)?.split_ascii_whitespace().map(str::to_owned).collect();
        let good = |s: &String| s.len() <= 253 && s.chars().all(|c| c.is_ascii_alphanumeric() || ".:-".contains(c));
        if let Some(index) = servers.iter().position(|s| !good(s)) {
            return Err(format!(
                "server {} is no host name or address; allowed are names and addresses separated by spaces",
                index + 1
            ));
        }
        Ok(Self(servers))
    }

    /// The servers.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

/// One public key, as a line of `authorized_keys` without options (sshd(8)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshKey(String);

/// Key types that the image's sshd accepts.
const SSH_TYPES: &[&str] = &[
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
];

impl SshKey {
    fn from_json(value: &Value) -> Result<Self, String> {
        const ALLOWED: &str =
            "allowed is one line: type, key in base64, comment; such as \"ssh-ed25519 AAAA… me@laptop\"";
        let text = string(value)?.trim();
        if text.len() > 16 << 10 || text.chars().any(char::is_control) {
            return Err(format!("is no single line; {ALLOWED}"));
        }
        let mut words = text.split(' ').filter(|w| !w.is_empty());
        let (Some(kind), Some(blob)) = (words.next(), words.next()) else {
            return Err(format!("is no public key; {ALLOWED}"));
        };
        if !SSH_TYPES.contains(&kind) {
            return Err(format!("has an unknown key type; known are {}", SSH_TYPES.join(", ")));
        }
        // RFC 4253: the blob starts with the length and name of its type, so its base64 starts with AAAA.
        let base64 = blob.trim_end_matches('=').chars().all(|c| c.is_ascii_alphanumeric() || "+/".contains(c));
        if !base64 || !blob.starts_with("AAAA") || blob.len() < 44 {
            return Err(format!("has a key that is not base64 of a public key; {ALLOWED}"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The line.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The JSON Schema (draft 2020-12) of the file, from [`KEYS`].
///
/// # Errors
/// When the table holds something that is not JSON; the tests see to it that it does not.
pub fn schema() -> serde_json::Result<Value> {
    let (mut top, mut os) = (Map::new(), Map::new());
    for key in KEYS {
        let mut value: Value = serde_json::from_str(key.schema)?;
        if let Value::Object(object) = &mut value {
            object.insert("description".to_owned(), format!("{}. Default: {}.", key.summary, key.default).into());
            object.insert("examples".to_owned(), Value::Array(vec![serde_json::from_str(key.example)?]));
        }
        match key.pointer.strip_prefix("/os/") {
            Some(name) => os.insert(name.to_owned(), value),
            None => top.insert(key.pointer.trim_start_matches('/').to_owned(), value),
        };
    }
    top.insert("os".to_owned(), serde_json::json!({ "type": "object", "properties": os }));
    Ok(serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "config.json",
        "description": "Configuration of the device. Unknown keys have no effect and are reported by 'os config status'.",
        "type": "object",
        "properties": top,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn problems(text: &str) -> Vec<(String, String)> {
        parse(text.as_bytes()).unwrap_err().into_iter().map(|p| (p.pointer, p.message)).collect()
    }

    #[test]
    fn every_documented_example_is_accepted_and_known() {
        for key in KEYS {
            let mut value: Value = serde_json::from_str(key.example).unwrap();
            for name in key.pointer.split('/').rev().filter(|n| !n.is_empty()) {
                value = Value::Object(Map::from_iter([(name.to_owned(), value)]));
            }
            let accepted = parse(&serde_json::to_vec(&value).unwrap()).unwrap();
            assert!(accepted.unknown.is_empty(), "{}", key.pointer);
            assert_ne!(accepted.config, Config::default(), "{} had no effect", key.pointer);
        }
        assert_eq!(schema().unwrap()["properties"]["os"]["properties"]["sshKeys"]["type"], "array");
    }

    #[test]
    fn a_whole_configuration_is_read() {
        let accepted = parse(
            b"\xef\xbb\xbf{\r\n\"hostname\":\"a\",\"ntpServers\":\" x  y \",\"persistentLogging\":true,\"uuid\":\"1\",\"os\":{\"fan\":1}}",
        )
        .unwrap();
        assert_eq!(accepted.config.ntp_servers.unwrap().as_slice(), ["x", "y"]);
        assert_eq!(accepted.unknown, ["/os/fan", "/uuid"]);
    }

    #[test]
    fn every_wrong_value_is_named_with_pointer_and_allowed() {
        let found = problems(
            r#"{"hostname":7,"persistentLogging":"yes","os":{"sshKeys":["ssh-ed25519 AAAA","x",3]},"ntpServers":"a;b"}"#,
        );
        let pointers: Vec<&str> = found.iter().map(|(p, _)| p.as_str()).collect();
        assert_eq!(
            pointers,
            ["/hostname", "/ntpServers", "/os/sshKeys/0", "/os/sshKeys/1", "/os/sshKeys/2", "/persistentLogging"]
        );
        assert!(found.iter().all(|(_, m)| m.contains("allowed") || m.contains("known are")), "{found:?}");
    }

    #[test]
    fn what_is_no_configuration_is_refused_as_a_whole() {
        for text in ["", "  \n", "{", "[]", "null", "\"x\"", "{\"a\":1}x", "{\"hostname\":\"a\"", "\u{0}"] {
            assert_eq!(problems(text)[0].0, "", "{text:?}");
        }
        assert!(parse(&[b'['; 10_000]).is_err());
        assert!(parse(&[0xff, 0xfe, b'{', 0]).is_err());
    }

    #[test]
    fn hostile_key_names_are_tamed() {
        let name = "x\u{1b}[2J".to_owned() + &"y".repeat(500);
        let accepted = parse(&serde_json::to_vec(&serde_json::json!({ name: 1, "a/b~c": 2 })).unwrap()).unwrap();
        assert!(accepted.unknown.iter().all(|u| u.len() < 300 && !u.contains('\u{1b}')), "{:?}", accepted.unknown);
        assert!(accepted.unknown.contains(&"/a~1b~0c".to_owned()));
    }

    #[test]
    fn an_ssh_key_cannot_smuggle_a_second_line_or_options() {
        let blob = "A".repeat(68);
        for bad in [
            format!("ssh-ed25519 {blob} a\nssh-ed25519 {blob} b"),
            format!("command=\"x\" ssh-ed25519 {blob}"),
            format!("no-pty,ssh-ed25519 {blob}"),
            "ssh-dss AAAAB3NzaC1kc3MAAACBAAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
        ] {
            assert!(SshKey::from_json(&Value::String(bad.clone())).is_err(), "{bad}");
        }
        assert!(SshKey::from_json(&Value::String(format!("  ssh-ed25519 {blob} me at home\n"))).is_ok());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_truncated_configuration_is_never_accepted(cut in 1usize..60) {
            let text = br#"{"hostname":"kiosk","persistentLogging":true,"os":{"sshKeys":[]}}"#;
            prop_assert!(parse(&text[..text.len() - cut]).is_err());
        }
    }
}
