//! Files of people beside config.json: each is understood or refused, and a value comes out as it was meant.
#![no_main]

use libfuzzer_sys::fuzz_target;
use os_config_model::profile::Profile;
use os_config_model::{formats, proxy, redsocks, text};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = text::read(bytes) else { return };
    if let Ok(sections) = redsocks::read(&text) {
        for entry in sections.iter().flat_map(|section| &section.entries) {
            let again = format!("redsocks {{ a = {}; }}", redsocks::quote(&entry.value).expect("no NUL came in"));
            let again = redsocks::read(&again).expect("what is quoted is read");
            assert!(again[0].entries[0].value == entry.value);
        }
    }
    if let Ok(url) = proxy::of_redsocks(&text) {
        assert!(formats::PROXY.takes(&url), "{url}");
    }
    let _ = Profile::read(&text).doubts();
    assert!(proxy::of_no_proxy(&text).0.iter().all(|entry| formats::NO_PROXY.takes(entry)));
});
