//! Moves the secrets of a configuration out of the file on FAT, which any PC can read, into the state partition.

use crate::edit;
use crate::keys::KEYS;
use crate::shape::SEALED;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Replaces every secret by a reference and adds it to `secrets`; returns how many were moved.
///
/// # Errors
/// When the kernel gives no random numbers for the references.
pub fn seal(root: &mut Value, secrets: &mut BTreeMap<String, String>) -> Result<usize, getrandom::Error> {
    let (mut moved, mut failed) = (0, None);
    for key in KEYS {
        let Some(value) = root.pointer_mut(key.pointer) else { continue };
        key.shape.secrets(value, &mut |secret| {
            let Some(text) = secret.as_str() else { return };
            match getrandom::u64() {
                Ok(number) => {
                    let id = format!("{number:016x}");
                    secrets.insert(id.clone(), text.to_owned());
                    *secret = json!({ SEALED: id });
                    moved += 1;
                }
                Err(err) => failed = Some(err),
            }
        });
    }
    failed.map_or(Ok(moved), Err)
}

/// True when the configuration holds a secret that is not sealed.
pub fn is_needed(root: &Value) -> bool {
    edit::without_secrets(root) != *root
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model;

    #[test]
    fn what_says_nothing_is_no_secret() {
        let mut root =
            json!({"wifiKey": "", "os": {"network": {"wifi": {"networks": [{"ssid": "a", "password": "  "}, null]}}}});
        let before = model::check(root.clone(), &|_| None).unwrap();
        assert_eq!(seal(&mut root, &mut BTreeMap::new()).unwrap(), 0);
        assert!(!is_needed(&root));
        assert_eq!(before.config, model::check(root, &|_| None).unwrap().config);
    }

    #[test]
    fn sealing_changes_nothing_but_where_secrets_are() {
        for key in KEYS {
            let mut root = model::only(key.pointer, serde_json::from_str(key.example).unwrap());
            let before = model::check(root.clone(), &|_| None).unwrap();
            let secret = is_needed(&root);
            let mut secrets = BTreeMap::new();
            let moved = seal(&mut root, &mut secrets).unwrap();
            assert_eq!((moved > 0, moved), (secret, secrets.len()), "{}", key.pointer);
            assert!(secrets.values().all(|s| !root.to_string().contains(s.as_str())), "{}", key.pointer);
            assert!(!is_needed(&root));
            let after = model::check(root.clone(), &|id| secrets.get(id).cloned()).unwrap();
            assert_eq!(before, after);
            assert_eq!(seal(&mut root, &mut secrets).unwrap(), 0);
        }
    }
}
