//! The lists of a channel, the bootloader's counters and pictures, as a server, a stick or a damaged disk may give them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use os_channel::channel::Clock;
use os_channel::{Channel, Envelope, Role, Root, Seen};
use os_boot::block::Block;
use std::sync::LazyLock;

/// A root whose keys nobody has.
static ROOT: LazyLock<Root> = LazyLock::new(|| {
    let role = Role { keys: vec!["RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".to_owned()], threshold: 1 };
    Root { kind: Root::KIND.to_owned(), version: 1, expires: u64::MAX, root: role.clone(), channel: role }
});

fuzz_target!(|bytes: &[u8]| {
    let _ = Envelope::parse(bytes);
    let _ = Root::built_in(bytes);
    assert!(ROOT.successor(bytes).is_err());
    assert!(Channel::accept(bytes, &ROOT, "stable", &Seen::default(), Clock { now: 0, set: false }).is_err());
    if let Ok(block) = Block::parse(bytes) {
        let again = block.bytes().and_then(|bytes| Block::parse(&bytes));
        assert_eq!(again.as_ref(), Ok(&block));
    }
    let _ = os_splash::picture::Picture::decode(bytes);
});
