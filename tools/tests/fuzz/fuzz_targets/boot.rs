//! Text that the initramfs and the image tools read before anything is verified.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let _ = os_init::cmdline::Cmdline::parse(&text);
    for entry in os_init::persist::parse("fuzz", &text).0 {
        assert!(entry.source().starts_with("/mnt"));
    }
    let _ = os_layout::kickstart::parse("fuzz", &text);
    let names = os_config_model::names::recall(&text);
    assert_eq!(os_config_model::names::recall(&os_config_model::names::resolv_conf(&names, false, None)), names);
});
