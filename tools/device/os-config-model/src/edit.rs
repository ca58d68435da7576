//! Changes of a configuration as JSON: one value, a whole fragment, the difference of two.

use crate::json::{self, kind, names, tame};
use crate::keys::{FOREIGN_SECRETS, KEYS};
use crate::shape::Shape;
use serde::Serialize;
use serde_json::{Map, Value};

/// The value at a place; an array takes numbers as names.
pub fn get<'a>(root: &'a Value, names: &[String]) -> Option<&'a Value> {
    names.iter().try_fold(root, |at, name| match at {
        Value::Object(object) => object.get(name),
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Sets the value at a place and makes what is not there above it: objects, and arrays for "-".
///
/// # Errors
/// When something that is no object is in the way.
pub fn set(root: &mut Value, names: &[String], value: Value) -> Result<(), String> {
    let Some((name, rest)) = names.split_first() else {
        *root = value;
        return Ok(());
    };
    let new = || match rest.first() {
        Some(name) if name == "-" => Value::Array(Vec::new()),
        _ => Value::Object(Map::new()),
    };
    let next = match root {
        Value::Object(object) => object.entry(name.clone()).or_insert_with(new),
        Value::Array(items) => {
            let length = items.len();
            match name.parse::<usize>() {
                // "-" and the number after the last append (RFC 6902).
                Ok(index) if index < length => items.get_mut(index),
                Ok(index) if index == length => {
                    items.push(new());
                    items.last_mut()
                }
                _ if name == "-" => {
                    items.push(new());
                    items.last_mut()
                }
                _ => None,
            }
            .ok_or_else(|| format!("\"{}\" is no place in an array of {length}", tame(name, 64)))?
        }
        other => return Err(format!("\"{}\" stands below {}, not an object", tame(name, 64), kind(other))),
    };
    set(next, rest, value)
}

/// Removes the value at a place, and objects that are empty without it. False when there was none.
pub fn unset(root: &mut Value, names: &[String]) -> bool {
    let Some((name, rest)) = names.split_first() else { return false };
    match root {
        Value::Object(object) if rest.is_empty() => object.shift_remove(name).is_some(),
        Value::Object(object) => {
            let Some(inner) = object.get_mut(name) else { return false };
            let done = unset(inner, rest);
            if done && inner.as_object().is_some_and(Map::is_empty) {
                object.shift_remove(name);
            }
            done
        }
        Value::Array(items) => {
            let Some(index) = name.parse::<usize>().ok().filter(|i| *i < items.len()) else { return false };
            if rest.is_empty() {
                items.remove(index);
                return true;
            }
            items.get_mut(index).is_some_and(|inner| unset(inner, rest))
        }
        _ => false,
    }
}

/// JSON Merge Patch (RFC 7396).
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.shift_remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// JSON pointer.
    #[serde(with = "json::as_key")]
    pub key: String,
    /// Former value; secrets are hidden.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// New value; secrets are hidden.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// What differs between two configurations, key by key.
pub fn diff(before: &Value, after: &Value) -> Vec<Difference> {
    let mut out = Vec::new();
    for key in KEYS {
        let (old, new) = (before.pointer(key.pointer), after.pointer(key.pointer));
        if old != new {
            let hide = |value: &Value| {
                let mut value = value.clone();
                hide(key, &mut value);
                value
            };
            out.push(Difference { key: key.pointer.to_owned(), before: old.map(hide), after: new.map(hide) });
        }
    }
    out
}

/// What stands for a secret.
const HIDDEN: &str = "(secret)";

/// Replaces every secret of a key's value.
pub fn hide(key: &crate::keys::Key, value: &mut Value) {
    key.shape.secrets(value, &mut |secret| {
        // A number in the place of a password is one.
        if !secret.is_object() {
            *secret = HIDDEN.into();
        }
    });
}

/// A configuration without its secrets.
pub fn without_secrets(root: &Value) -> Value {
    let mut root = root.clone();
    for key in KEYS {
        if let Some(value) = root.pointer_mut(key.pointer) {
            hide(key, value);
        }
    }
    for pointer in FOREIGN_SECRETS {
        if let Some(value) = root.pointer_mut(pointer) {
            *value = HIDDEN.into();
        }
    }
    root
}

/// The value that a person typed for a key: JSON, but plain text where the key takes text. Nobody wants to quote quotes.
pub fn value_for(key: &str, text: &str) -> Value {
    let parsed = json::read(text.as_bytes()).ok();
    let place = names(key);
    let takes_text =
        KEYS.iter().any(|k| names(k.pointer) == place && matches!(k.shape, Shape::Text(_) | Shape::Choice(_)));
    match parsed {
        Some(value) if value.is_string() || !takes_text => value,
        _ => Value::String(text.to_owned()),
    }
}

/// The text of a configuration as it is written to the file.
pub fn to_text(root: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(root).unwrap_or_default();
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn values_are_set_found_and_removed_again() {
        let mut root = json!({"hostname": "a"});
        set(&mut root, &names("os.time.zone"), json!("UTC")).unwrap();
        set(&mut root, &names("/os/sshKeys"), json!(["x"])).unwrap();
        set(&mut root, &names("/os/sshKeys/-"), json!("y")).unwrap();
        set(&mut root, &names("/os/sshKeys/0"), json!("z")).unwrap();
        assert_eq!(root, json!({"hostname": "a", "os": {"time": {"zone": "UTC"}, "sshKeys": ["z", "y"]}}));
        assert!(set(&mut root, &names("/hostname/x"), json!(1)).is_err());
        assert!(set(&mut root, &names("/os/sshKeys/9"), json!(1)).is_err());
        assert!(unset(&mut root, &names("/os/sshKeys/0")) && !unset(&mut root, &names("/os/nothing")));
        assert!(unset(&mut root, &names("os.time.zone")));
        assert_eq!(root, json!({"hostname": "a", "os": {"sshKeys": ["y"]}}));
    }

    #[test]
    fn the_first_of_a_list_makes_the_list() {
        let mut root = json!({});
        set(&mut root, &names("/os/sshKeys/-"), json!("x")).unwrap();
        set(&mut root, &names("/os/network/wifi/networks/-/ssid"), json!("Workshop")).unwrap();
        let wanted = json!({"os": {"sshKeys": ["x"], "network": {"wifi": {"networks": [{"ssid": "Workshop"}]}}}});
        assert_eq!(root, wanted);
    }

    #[test]
    fn plain_text_is_text_where_a_key_takes_text() {
        assert_eq!(value_for("hostname", "kiosk"), json!("kiosk"));
        assert_eq!(value_for("hostname", "7"), json!("7"));
        assert_eq!(value_for("hostname", "\"kiosk\""), json!("kiosk"));
        assert_eq!(value_for("os.watchdog", "20"), json!(20));
        assert_eq!(value_for("os.sshKeys", "[\"a\"]"), json!(["a"]));
        assert_eq!(value_for("os.mqtt.users.a", "secret word"), json!("secret word"));
    }

    // The examples of RFC 7396, appendix A.
    #[test]
    fn merge_is_the_rfcs() {
        for (target, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            let mut found = target;
            merge(&mut found, &patch);
            assert_eq!(found, result);
        }
    }

    #[test]
    fn a_difference_hides_secrets() {
        let before = json!({"hostname": "a", "os": {"network": {"proxy": {"url": "http://u:hunter2@p"}}}});
        let after = json!({"hostname": "b"});
        let found = diff(&before, &after);
        assert_eq!(found.iter().map(|d| d.key.as_str()).collect::<Vec<_>>(), ["/hostname", "/os/network/proxy"]);
        assert!(!format!("{found:?}{}", without_secrets(&before)).contains("hunter2"));
    }

    fn object() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), "[ab]{0,3}".prop_map(Value::from)];
        leaf.prop_recursive(3, 16, 4, |inner| {
            proptest::collection::hash_map("[a-d]", inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect()))
        })
    }

    proptest! {
        #[test]
        fn merging_twice_is_merging_once(a in object(), patch in object()) {
            let mut once = a;
            merge(&mut once, &patch);
            let mut twice = once.clone();
            merge(&mut twice, &patch);
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn what_was_set_is_there(mut a in object(), path in proptest::collection::vec("[a-d]", 1..4)) {
            if set(&mut a, &path, json!(7)).is_ok() {
                prop_assert_eq!(get(&a, &path), Some(&json!(7)));
                prop_assert!(unset(&mut a, &path));
                prop_assert_eq!(get(&a, &path), None);
            }
        }
    }
}
