//! config.json as anybody may have written it: refused with reasons, or understood in one way only.
#![no_main]

use libfuzzer_sys::fuzz_target;
use os_config_model::{edit, json, model, seal};
use std::collections::BTreeMap;

fuzz_target!(|bytes: &[u8]| {
    match model::parse(bytes) {
        Err(problems) => {
            assert!(!problems.is_empty());
            // The shapes decide; the types behind them never have to.
            assert!(problems.iter().all(|p| !p.message.contains("cannot be understood")), "{problems:?}");
        }
        Ok(accepted) => {
            let Ok(root) = json::read(bytes) else { panic!("accepted, and no JSON") };
            // What the device writes back means the same.
            let again = model::parse(&edit::to_text(&root)).expect("accepted once");
            assert_eq!(accepted.config, again.config);
            // Sealing moves secrets and changes nothing else.
            let (mut sealed, mut secrets) = (root, BTreeMap::new());
            seal::seal(&mut sealed, &mut secrets).expect("random numbers");
            assert!(!seal::is_needed(&sealed));
            let after =
                model::check(sealed, &|id| secrets.get(id).cloned().or(Some(String::new()))).expect("accepted once");
            assert_eq!(accepted.config, after.config);
        }
    }
});
