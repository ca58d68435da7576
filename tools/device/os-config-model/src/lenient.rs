//! What people, scripts and the tools of other systems write where the schema has something else: brought into its form when it can
//! mean one thing only, with a warning for the person.
//!
//! `null`, `""` and an empty array in the place of an object mean "not set", wherever they stand.

use crate::json::pointer_to;
use crate::model::Problem;
use crate::shape::{Field, Shape};
use serde_json::{Map, Value};

/// The value in the form of its shape; none for one that sets nothing. A list keeps the places of its entries: `null` stands for one
/// that says nothing, until [`compact`].
pub(crate) fn settle(shape: &Shape, pointer: &str, value: Value, warnings: &mut Vec<Problem>) -> Option<Value> {
    let mut warn = |message: String| warnings.push(Problem { pointer: pointer.to_owned(), message });
    match (shape, value) {
        (_, Value::Null) => None,
        (Shape::Text(text), Value::String(found)) if found.is_empty() => text.empty.then(|| found.into()),
        (Shape::Text(text), Value::String(found)) if found.trim().is_empty() && !text.takes(&found) => {
            warn("holds nothing but blanks; taken as not set".to_owned());
            None
        }
        (Shape::Text(text), Value::Number(number)) if text.number && number.is_u64() => {
            warn(format!("is a number; taken as \"{number}\""));
            Some(number.to_string().into())
        }
        (Shape::Text(_), value @ Value::String(_)) => Some(value),
        (_, Value::String(found)) if found.is_empty() => None,
        (_, Value::String(found)) if found.trim().is_empty() => {
            warn("holds nothing but blanks; taken as not set".to_owned());
            None
        }
        (Shape::Bool, Value::String(found)) => Some(boolean(&found).map_or(found.into(), |meant| {
            warn(format!("is a text; taken as {meant}, which is written without quotes"));
            meant.into()
        })),
        (Shape::Bool, Value::Number(number)) => Some(boolean(&number.to_string()).map_or(number.into(), |meant| {
            warn(format!("is a number; taken as {meant}"));
            meant.into()
        })),
        (Shape::Integer { .. }, Value::String(found)) => {
            Some(found.trim().parse::<i64>().map_or(found.into(), |meant| {
                warn(format!("is a text; taken as {meant}, which is written without quotes"));
                meant.into()
            }))
        }
        // 60.0 is the same number as 60.
        (Shape::Integer { .. }, Value::Number(number)) if number.is_f64() => {
            let whole = number.to_string().strip_suffix(".0").and_then(|digits| digits.parse::<i64>().ok());
            Some(whole.map_or(number.into(), Value::from))
        }
        (Shape::List { item, .. }, Value::Array(items)) if !items.is_empty() => {
            let mut entry = |(index, found)| {
                let place = format!("{pointer}/{index}");
                let settled = settle(item, &place, found, warnings);
                if settled.is_none() {
                    warnings.push(says_nothing(place));
                }
                settled.unwrap_or_default()
            };
            let settled: Vec<Value> = items.into_iter().enumerate().map(&mut entry).collect();
            // A list that was made of variables which are not set is no empty list: that one may take something away.
            settled.iter().any(|entry| !entry.is_null()).then_some(Value::Array(settled))
        }
        (Shape::Object(fields), Value::Object(object)) => of_object(fields, pointer, object, warnings),
        (Shape::Map { value, .. }, Value::Object(object)) if !object.is_empty() => {
            let mut out = Map::new();
            for (name, found) in object {
                let place = pointer_to(pointer, &name);
                match settle(value, &place, found, warnings) {
                    Some(settled) => drop(out.insert(name, settled)),
                    None => warnings.push(says_nothing(place)),
                }
            }
            (!out.is_empty()).then_some(Value::Object(out))
        }
        (Shape::List { .. }, value @ Value::Array(_)) | (Shape::Map { .. }, value @ Value::Object(_)) => Some(value),
        // What some languages make of an object without entries. The other way round an entry may have been forgotten.
        (Shape::Object(_) | Shape::Map { .. } | Shape::Free { .. }, Value::Array(items)) if items.is_empty() => {
            warn("is an array without entries; taken as not set".to_owned());
            None
        }
        (_, value) => Some(value),
    }
}

fn says_nothing(pointer: String) -> Problem {
    Problem { pointer, message: "says nothing; left out".to_owned() }
}

/// An object that says nothing sets nothing, where something would have to be said.
fn of_object(
    fields: &[Field],
    pointer: &str,
    object: Map<String, Value>,
    warnings: &mut Vec<Problem>,
) -> Option<Value> {
    let mut out = Map::new();
    for (name, found) in object {
        let settled = match fields.iter().find(|field| field.name == name) {
            Some(field) => settle(&field.shape, &pointer_to(pointer, &name), found, warnings),
            None => Some(found),
        };
        if let Some(settled) = settled {
            out.insert(name, settled);
        }
    }
    let needed = fields.iter().any(|field| field.required);
    (!needed || !out.values().all(is_empty)).then_some(Value::Object(out))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// Takes the entries that say nothing out of lists, when everything has its place in a message.
pub(crate) fn compact(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.retain(|item| !item.is_null());
            items.iter_mut().for_each(compact);
        }
        Value::Object(fields) => fields.iter_mut().for_each(|(_, inner)| compact(inner)),
        _ => {}
    }
}

/// True for a value above keys that sets none of them.
pub(crate) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        other => is_empty(other),
    }
}

#[cfg(test)]
mod tests {
    use crate::keys::KEYS;
    use crate::model::{Accepted, only, parse};
    use crate::shape::Shape;
    use crate::types::Config;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn accepted(root: &Value) -> Accepted {
        parse(root.to_string().as_bytes()).unwrap_or_else(|problems| panic!("{root}: {problems:?}"))
    }

    /// What sets nothing, in the place of any key.
    fn nothing() -> Vec<Value> {
        vec![json!(null), json!(""), json!(" "), json!(" \t\r\n ")]
    }

    #[test]
    fn nothing_is_not_set_for_every_key_and_above_every_key() {
        for key in KEYS {
            for value in nothing() {
                let found = accepted(&only(key.pointer, value.clone()));
                // An empty answer of the page for connectivity is an answer, as balenaOS has it; blanks are a line.
                let says = matches!(&key.shape, Shape::Text(text) if value.as_str().is_some_and(|v| text.takes(v) && (!v.is_empty() || text.empty)));
                assert_eq!(found.set.is_empty(), !says, "{} {value}", key.pointer);
                assert!(says || found.config == Config::default(), "{} {value}", key.pointer);
            }
            for (end, _) in key.pointer.match_indices('/').filter(|(end, _)| *end > 0) {
                for value in nothing().into_iter().chain([json!({}), json!([])]) {
                    let found = accepted(&only(&key.pointer[..end], value));
                    assert_eq!(found.config, Config::default(), "{}", &key.pointer[..end]);
                }
            }
            // The right kind of nothing may say something: no key at all for ssh. The wrong one is refused where it may be a slip.
            for value in [json!([]), json!({})] {
                match (&key.shape, value.is_array()) {
                    (Shape::List { .. }, true) | (Shape::Map { .. } | Shape::Object(_) | Shape::Free { .. }, false) => {
                        drop(accepted(&only(key.pointer, value)))
                    }
                    (Shape::Map { .. } | Shape::Object(_) | Shape::Free { .. }, true) => {
                        let found = accepted(&only(key.pointer, value));
                        assert!(found.set.is_empty() && found.warnings.len() == 1, "{}", key.pointer);
                    }
                    _ => {
                        let found = parse(only(key.pointer, value).to_string().as_bytes()).unwrap_err();
                        assert!(found.len() == 1 && found[0].message.contains("expected"), "{found:?}");
                    }
                }
            }
        }
        assert_eq!(accepted(&json!({"os": {"sshKeys": []}})).config.os.ssh_keys, Some(Vec::new()));
        for value in [json!([""]), json!([null, " "])] {
            assert_eq!(accepted(&json!({"os": {"sshKeys": value}})).config.os.ssh_keys, None);
        }
    }

    /// Where fields may be left out in a value of this shape, as its example has it.
    fn optional(shape: &Shape, pointer: &str, out: &mut Vec<String>) {
        match shape {
            Shape::List { item, .. } => optional(item, &format!("{pointer}/0"), out),
            Shape::Object(fields) => {
                for field in *fields {
                    let place = format!("{pointer}/{}", field.name);
                    optional(&field.shape, &place, out);
                    if !field.required {
                        out.push(place);
                    }
                }
            }
            _ => {}
        }
    }

    #[test]
    fn the_text_null_is_never_taken_without_a_word_but_where_it_is_documented() {
        for key in KEYS {
            match parse(only(key.pointer, json!("null")).to_string().as_bytes()) {
                Err(found) => {
                    assert!(found.len() == 1 && found[0].message.contains("null without quotes"), "{found:?}")
                }
                Ok(found) => {
                    let documented =
                        ["/dnsServers", "/os/network/connectivity/uri", "/os/network/connectivity/response"]
                            .contains(&key.pointer);
                    assert!(documented || found.warnings.len() == 1, "{}", key.pointer);
                }
            }
        }
    }

    #[test]
    fn nothing_is_not_set_within_a_value_too() {
        let mut places = 0;
        for key in KEYS {
            let mut inside = Vec::new();
            optional(&key.shape, key.pointer, &mut inside);
            for place in &inside {
                for value in nothing() {
                    let mut root = only(key.pointer, serde_json::from_str(key.example).unwrap());
                    // What the field needs beside it stays as it is: a gateway has addresses, security a password.
                    let needed = ["/addresses", "/password"].iter().any(|end| place.ends_with(end));
                    if !needed && crate::edit::set(&mut root, &crate::json::names(place), value).is_ok() {
                        assert_eq!(accepted(&root).set, [key.pointer], "{place}");
                        places += 1;
                    }
                }
            }
        }
        assert!(places > 40, "{places}");
    }

    #[test]
    fn what_can_mean_one_thing_only_is_understood_with_a_warning() {
        let found = accepted(&json!({"persistentLogging": "true", "developmentMode": 0, "os": {
            "watchdog": " 60 ", "memory": {"swappiness": 60.0, "swapFile": "0"},
            "network": {"connectivity": {"interval": 600}, "wifi": {"randomMacAddressScan": "False",
                "networks": [null, {"ssid": "a", "hidden": "1", "password": null, "security": ""}, {"ssid": ""}]}},
            "sshKeys": [""], "udevRules": {"99-a": "", "99-b": "x"}, "import": {"signedOnly": "True"},
        }}));
        let config = &found.config;
        assert_eq!((config.persistent_logging, config.development_mode), (Some(true), Some(false)));
        assert_eq!(
            (config.os.watchdog, config.os.memory.swappiness, config.os.memory.swap_file),
            (Some(60), Some(60), Some(0))
        );
        assert_eq!(config.os.network.connectivity.interval.as_deref(), Some("600"));
        assert_eq!(config.os.network.wifi.random_mac_address_scan, Some(false));
        let [network] = config.os.network.wifi.networks.as_slice() else { panic!("{config:?}") };
        assert!(network.hidden && network.password.is_none() && network.security.is_none());
        assert_eq!(config.os.ssh_keys, None);
        assert_eq!(config.os.udev_rules.len(), 1);
        assert_eq!(config.os.import.signed_only, Some(true));
        let warned: Vec<&str> = found.warnings.iter().map(|w| w.pointer.as_str()).collect();
        assert_eq!(
            warned,
            [
                "/persistentLogging",
                "/developmentMode",
                "/os/watchdog",
                "/os/memory/swapFile",
                "/os/network/connectivity/interval",
                "/os/network/wifi/randomMacAddressScan",
                "/os/network/wifi/networks/0",
                "/os/network/wifi/networks/1/hidden",
                "/os/network/wifi/networks/2",
                "/os/sshKeys/0",
                "/os/udevRules/99-a",
                "/os/import/signedOnly",
            ]
        );
    }

    #[test]
    fn what_could_mean_something_else_is_refused_with_what_to_write() {
        for (root, pointer, reason) in [
            (json!({"persistentLogging": "maybe"}), "/persistentLogging", "true or false"),
            (json!({"persistentLogging": "on"}), "/persistentLogging", "true or false"),
            (json!({"persistentLogging": 2}), "/persistentLogging", "true or false"),
            (json!({"os": {"watchdog": "1 minute"}}), "/os/watchdog", "whole number"),
            (json!({"os": {"watchdog": 1.5}}), "/os/watchdog", "whole number"),
            (json!({"os": {"watchdog": "9999"}}), "/os/watchdog", "whole number"),
            (json!({"os": {"sshKeys": "null"}}), "/os/sshKeys", "null without quotes"),
            (json!({"os": "null"}), "/os", "null without quotes"),
            (json!({"os": {"network": {"proxy": "null"}}}), "/os/network/proxy", "null without quotes"),
            (json!({"ntpServers": "null"}), "/ntpServers", "null without quotes"),
            (json!({"hostname": "null"}), "/hostname", "null without quotes"),
            (json!({"os": {"time": {"zone": "null"}}}), "/os/time/zone", "null without quotes"),
            (json!({"os": {"update": {"mode": "null"}}}), "/os/update/mode", "null without quotes"),
            (json!({"os": {"locale": {"keymap": "null"}}}), "/os/locale/keymap", "null without quotes"),
            (json!({"os": {"kernel": {"modules": ["null"]}}}), "/os/kernel/modules/0", "null without quotes"),
            (json!({"hostname": "LocalHost"}), "/hostname", "every device"),
            (json!({"country": "UK"}), "/country", "\"GB\""),
            (json!({"wifiKey": 12345678}), "/wifiKey", "quotes"),
            (json!({"os": {"sshKeys": ["", "x"]}}), "/os/sshKeys/1", "is \"x\""),
        ] {
            let found = parse(root.to_string().as_bytes()).unwrap_err();
            assert!(
                found.len() == 1 && found[0].pointer == pointer && found[0].message.contains(reason),
                "{root}: {found:?}"
            );
        }
        // A network may be called so; and the others are documented.
        assert_eq!(accepted(&json!({"wifiSsid": "null"})).warnings.len(), 1);
        assert_eq!(accepted(&json!({"dnsServers": "null"})).set, ["/dnsServers"]);
        assert_eq!(
            accepted(&json!({"os": {"network": {"connectivity": {"uri": "null", "response": ""}}}})).set.len(),
            2
        );
    }

    proptest! {
        // A key that is refused or understood by itself is so beside keys that say nothing.
        #[test]
        fn nothing_beside_a_value_changes_nothing(index in 0..KEYS.len(), other in 0..KEYS.len(), value in prop_oneof![
            Just(json!(0)), Just(json!(1)), Just(json!("true")), Just(json!("0")), Just(json!("null")), Just(json!([])), Just(json!({})),
            Just(json!([null])), Just(json!([""])), Just(json!({"a": null})), Just(json!(1.0)), Just(json!("x")), Just(json!([[]])), Just(json!([{}])),
        ], nothing in prop_oneof![Just(json!(null)), Just(json!(""))]) {
            let alone = only(KEYS[index].pointer, value);
            let mut beside = only(KEYS[other].pointer, nothing);
            crate::edit::set(&mut beside, &crate::json::names(KEYS[index].pointer), alone.pointer(KEYS[index].pointer).unwrap().clone()).unwrap();
            let (alone, beside) = (parse(alone.to_string().as_bytes()), parse(beside.to_string().as_bytes()));
            let refused = |found: &Result<Accepted, Vec<crate::model::Problem>>| found.as_ref().err().cloned();
            prop_assert_eq!(refused(&alone), refused(&beside));
        }
    }
}
