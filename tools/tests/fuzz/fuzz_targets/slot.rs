//! What a slot, an image of another system or a data partition says of how to start and where to look.
#![no_main]

use libfuzzer_sys::fuzz_target;
use os_apps::preload::Spec;
use os_boot::start::Start;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    if let Some(start) = Start::parse(&text) {
        assert!(!start.kernel.contains('/') && !start.initramfs.contains('/'));
        // Nothing that a shell or GRUB would take for more than words.
        assert!(!start.arguments.contains(['$', ';', '"', '\'']));
    }
    if let Ok(channel) = os_update::eos::channel(&text) {
        assert!(channel.contains("://") || channel.starts_with('/'));
    }
    let _ = Spec::parse(bytes);
});
