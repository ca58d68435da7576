use super::*;
use crate::model;
use crate::shape::Field;
use crate::types::{Config, Connectivity, Mode, Mqtt, Resolver, Trial};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn no_key_stands_twice_or_below_another() {
    let all: Vec<&str> = KEYS.iter().map(|k| k.pointer).chain(WITHOUT_EFFECT.iter().map(|(p, _)| *p)).collect();
    assert_eq!(all.len(), all.iter().collect::<BTreeSet<_>>().len());
    for key in &all {
        assert!(!all.iter().any(|other| other.starts_with(&format!("{key}/"))), "{key}");
    }
}

fn key(pointer: &str) -> &'static Key {
    KEYS.iter().find(|key| key.pointer == pointer).unwrap()
}

/// A file of the image's `/etc`.
fn image(file: &str) -> String {
    let etc = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../meta-os/recipes-core/os-base/files/rootfs/etc");
    std::fs::read_to_string(etc.join(file)).unwrap()
}

/// What a file of the form `name=value` says.
fn setting(file: &str, name: &str) -> String {
    let text = image(file);
    let lines = || text.lines().filter_map(|line| line.split_once('='));
    let found: Vec<&str> = lines().filter(|(n, _)| n.trim() == name).map(|(_, value)| value.trim()).collect();
    assert_eq!(found.len(), 1, "{name} in {file}");
    found[0].to_owned()
}

// What a key says that holds without it is what the image does.
#[test]
fn defaults_are_what_the_image_has() {
    let watchdog = setting("systemd/system.conf.d/10-os.conf", "RuntimeWatchdogSec");
    assert_eq!(watchdog, format!("{}s", key("/os/watchdog").default));
    assert_eq!(setting("sysctl.d/10-os.conf", "vm.swappiness"), key("/os/memory/swappiness").default);
    let journal = setting("systemd/journald.conf.d/10-os.conf", "RuntimeMaxUse");
    let said = format!("{} MB of RAM", journal.strip_suffix('M').unwrap());
    assert!(key("/persistentLogging").summary.contains(&said), "{said}");
    assert_eq!(setting("systemd/journald.conf.d/10-os.conf", "Storage"), "volatile");
    assert_eq!(image("timezone").trim(), key("/os/time/zone").default);
    assert_eq!(setting("NetworkManager/conf.d/10-os.conf", "enabled"), "false");
    assert!(key("/os/network/connectivity/uri").default.starts_with("no check"));
}

#[test]
fn the_engine_has_the_addresses_that_its_keys_name() {
    let daemon: Value = serde_json::from_str(&image("docker/daemon.json")).unwrap();
    assert_eq!(daemon["bip"], key("/os/docker/bridge").default);
    let pools = daemon["default-address-pools"].as_array().unwrap();
    assert_eq!(pools.len(), 1);
    assert_eq!(pools[0]["size"], json!(24), "254 addresses");
    let said = format!("networks of 254 addresses from {}", pools[0]["base"].as_str().unwrap());
    assert_eq!(key("/os/docker/addressPools").default, said);
    assert_eq!((&daemon["log-driver"], key("/os/docker/log").default), (&json!("journald"), "the journal"));
}

#[test]
fn defaults_are_what_the_appliers_take() {
    assert_eq!(key("/os/network/connectivity/interval").default, format!("\"{}\"", Connectivity::INTERVAL));
    let Shape::Object(fields) = key("/os/mqtt").shape else { panic!("no object") };
    let field = |name: &str| fields.iter().find(|field: &&Field| field.name == name).unwrap();
    assert!(field("port").summary.contains(&Mqtt::PORT.to_string()));
    let word = |pointer: &str| json!(key(pointer).default.split(':').next());
    assert_eq!(Mode::deserialize(word("/os/update/mode")).unwrap(), Mode::default());
    assert_eq!(Trial::deserialize(word("/os/update/trial")).unwrap(), Trial::default());
    assert_eq!(Resolver::deserialize(word("/os/network/resolver")).unwrap(), Resolver::default());
}

// A word that the table lets pass and the types do not know would be refused when it is too late, or mean the default.
#[test]
fn every_word_has_a_meaning_of_its_own() {
    let config = |key: &Key, value: Value| {
        let accepted = model::check(model::only(key.pointer, value), &|_| None);
        accepted.unwrap_or_else(|problems| panic!("{}: {problems:?}", key.pointer)).config
    };
    let distinct = |what: &str, configs: Vec<Config>| {
        let twice = configs.iter().enumerate().any(|(index, config)| configs[..index].contains(config));
        assert!(configs.len() > 1 && !twice, "{what}");
    };
    for key in KEYS {
        match key.shape {
            Shape::Choice(words) => {
                distinct(key.pointer, words.iter().map(|word| config(key, json!(word))).collect());
            }
            Shape::Object(fields) => {
                for Field { name, shape, .. } in fields {
                    let Shape::Choice(words) = shape else { continue };
                    let mut example: Value = serde_json::from_str(key.example).unwrap();
                    let with = |word: &&str| {
                        example[name] = json!(word);
                        config(key, example.clone())
                    };
                    distinct(&format!("{}/{name}", key.pointer), words.iter().map(with).collect());
                }
            }
            _ => {}
        }
    }
}
