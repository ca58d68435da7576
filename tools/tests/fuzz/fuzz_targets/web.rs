//! Addresses that people write, and the heads of answers that servers, caches and proxies give.
#![no_main]

use libfuzzer_sys::fuzz_target;
use os_transport::address::without_secrets;
use os_transport::head::Head;
use os_transport::{Address, Source};

fuzz_target!(|bytes: &[u8]| {
    if let Some(head) = Head::read(&mut &*bytes) {
        if let Some((first, last, whole)) = head.range {
            assert!(first <= last && whole.is_none_or(|whole| last < whole));
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = without_secrets(text);
    if let Ok(address) = Address::parse(text) {
        let shown = address.to_string();
        // What is shown is an address of the same place.
        let again = Address::parse(shown.trim_end_matches("?…"));
        assert_eq!(again.map(|again| again.name().to_owned()).as_deref(), Ok(address.name()), "{shown}");
        assert!(Source::parse(text).is_ok());
    }
});
