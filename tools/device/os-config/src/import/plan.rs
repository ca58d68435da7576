//! What the files of a stick ask for.
//!
//! Each is understood by itself: one that is not is reported and holds none of the others back. `config.json` is another matter,
//! half of it would be worse than none.

use super::{Files, Item, MANIFEST, SIGNATURE};
use crate::udev;
use os_config_model::json::{self, tame};
use os_config_model::model::{self, Problem};
use os_config_model::profile::Profile;
use os_config_model::{edit, ssh_key, text};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What the files ask for.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Merged into the configuration.
    patch: Value,
    /// Entries added to lists.
    lists: BTreeMap<&'static str, Vec<Value>>,
    /// Entries added to objects.
    maps: BTreeMap<&'static str, Map<String, Value>>,
    /// Profiles, by the name of the file.
    pub(super) profiles: BTreeMap<String, Vec<u8>>,
    /// What became of each file.
    pub(super) items: Vec<Item>,
    /// What keeps all of it out.
    pub(super) problems: Vec<Problem>,
    /// What was left out.
    pub(super) complaints: Vec<String>,
}

impl Plan {
    /// Understands the files.
    pub(super) fn of(files: &Files) -> Self {
        let mut plan = Self { patch: json!({}), ..Self::default() };
        for (path, bytes) in files.iter().filter(|(path, _)| ![MANIFEST, SIGNATURE].contains(&path.as_str())) {
            let shown = tame(path, 128);
            let result = if path == "config.json" {
                plan.configuration(bytes).map_err(|why| {
                    plan.problems.push(Problem::whole(format!("{shown}: {why}")));
                    why
                })
            } else {
                Self::of_file(path, bytes).map(|(file, what)| {
                    plan.add(file);
                    what
                })
            };
            let result = result.unwrap_or_else(|why| {
                if path != "config.json" {
                    plan.complaints.push(format!("{shown} was left out: it {why}"));
                }
                format!("left out: {why}")
            });
            plan.items.push(Item { file: shown, result });
        }
        plan
    }

    fn configuration(&mut self, bytes: &[u8]) -> Result<String, String> {
        match json::read(bytes)? {
            Value::Object(object) => {
                let keys = object.len();
                self.patch = Value::Object(object);
                Ok(format!("{keys} keys merged into config.json"))
            }
            other => Err(format!("is {}; a configuration is an object", json::kind(&other))),
        }
    }

    /// What one file asks for, when a device would take it.
    fn of_file(path: &str, bytes: &[u8]) -> Result<(Self, String), String> {
        let mut plan = Self { patch: json!({}), ..Self::default() };
        let what = plan.file(path, &text::read(bytes)?)?;
        let mut alone = json!({});
        plan.change(&mut alone);
        match model::check(alone, &|_| Some(String::new())) {
            Ok(_) => Ok((plan, what)),
            Err(problems) => Err(problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>().join("; ")),
        }
    }

    fn file(&mut self, path: &str, text: &str) -> Result<String, String> {
        let lines = || text::lines(text);
        let name = path.rsplit('/').next().unwrap_or(path);
        match path.split('/').next().unwrap_or(path) {
            "authorized_keys" => {
                let (keys, others): (Vec<&str>, Vec<&str>) = lines().partition(|line| ssh_key::is_key(line));
                if keys.is_empty() && !others.is_empty() {
                    return Err("has no line that is a whole key without options".to_owned());
                }
                let left = match others.len() {
                    0 => String::new(),
                    some => format!("; {some} lines left out, no whole keys without options"),
                };
                Ok(self.list("/os/sshKeys", keys.into_iter(), "keys for ssh") + &left)
            }
            "timesyncd.conf" => {
                let mut servers = text::values(text, "Time", "NTP");
                if servers.is_empty() {
                    servers = text::values(text, "Time", "FallbackNTP");
                }
                if servers.is_empty() {
                    return Err("names no server: NTP= in a section [Time]".to_owned());
                }
                edit::merge(&mut self.patch, &json!({ "ntpServers": servers.join(" ") }));
                Ok("time servers".to_owned())
            }
            "certificates" => Ok(self.list("/os/caCertificates", std::iter::once(text), "authorities")),
            // modules-load.d(5) knows no comments behind a name; people write them.
            "modules" => {
                let names = lines().filter_map(|line| line.split(['#', ';']).next()).map(str::trim);
                Ok(self.list("/os/kernel/modules", names, "modules to load"))
            }
            "udev" => {
                let name = name.strip_suffix(".rules").ok_or("does not end in .rules")?;
                let refused = udev::verify(text).map_err(|err| format!("cannot be verified: {err:#}"))?.refused;
                if !refused.is_empty() {
                    return Err(format!("is no file of rules: {} (udevadm verify)", refused.join("; ")));
                }
                self.maps.entry("/os/udevRules").or_default().insert(name.to_owned(), text.into());
                Ok("rules of udev".to_owned())
            }
            "modprobe" => self.modprobe(text),
            "network" if text.contains("[connection]") => {
                self.profiles.insert(name.to_owned(), text.as_bytes().to_vec());
                let doubts = Profile::read(text).doubts().into_iter().map(|doubt| format!("; warning: it {doubt}"));
                Ok(std::iter::once("profile of NetworkManager".to_owned()).chain(doubts).collect())
            }
            "network" => Err("is no profile of NetworkManager: it has no [connection] section".to_owned()),
            _ => Err("is not expected here".to_owned()),
        }
    }

    /// Options of modules; of the other commands of modprobe.d(5) none is a key of config.json.
    fn modprobe(&mut self, text: &str) -> Result<String, String> {
        let mut others = Vec::new();
        let mut taken = 0;
        for line in text::lines(text) {
            let mut words = line.splitn(3, char::is_whitespace);
            match (words.next(), words.next(), words.next()) {
                (Some("options"), Some(module), Some(options)) => {
                    let map = self.maps.entry("/os/kernel/moduleOptions").or_default();
                    map.insert(module.to_owned(), options.trim().into());
                    taken += 1;
                }
                (command, ..) => others.push(tame(command.unwrap_or_default(), 32)),
            }
        }
        match (taken, others.as_slice()) {
            (0, [_, ..]) => Err(format!("has no line \"options MODULE …\", and {} is not taken", others.join(", "))),
            (_, []) => Ok("options of modules".to_owned()),
            (_, some) => Ok(format!("options of modules; left out: {}", some.join(", "))),
        }
    }

    fn list<'t>(&mut self, pointer: &'static str, items: impl Iterator<Item = &'t str>, what: &str) -> String {
        let list = self.lists.entry(pointer).or_default();
        let before = list.len();
        list.extend(items.map(Value::from));
        format!("{} {what}", list.len() - before)
    }

    fn add(&mut self, file: Self) {
        edit::merge(&mut self.patch, &file.patch);
        for (pointer, items) in file.lists {
            self.lists.entry(pointer).or_default().extend(items);
        }
        for (pointer, entries) in file.maps {
            self.maps.entry(pointer).or_default().extend(entries);
        }
        self.profiles.extend(file.profiles);
    }

    /// Makes the change.
    pub(super) fn change(&self, root: &mut Value) {
        edit::merge(root, &self.patch);
        for (pointer, items) in &self.lists {
            let mut all = root.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
            for item in items {
                if !all.contains(item) {
                    all.push(item.clone());
                }
            }
            // Something that is no object in the way is found by the check of the whole.
            let _ = edit::set(root, &json::names(pointer), all.into());
        }
        for (pointer, entries) in &self.maps {
            let mut all = root.pointer(pointer).and_then(Value::as_object).cloned().unwrap_or_default();
            all.extend(entries.clone());
            let _ = edit::set(root, &json::names(pointer), Value::Object(all));
        }
    }
}
