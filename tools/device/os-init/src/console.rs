//! What a person at the console reads. Lines go to the kernel log too, so that the journal has them later.

use std::fs::OpenOptions;
use std::io::Write;

/// Says one line at syslog priority `level` (3 error, 4 warning, 5 notice, 6 information). Priorities below 6 reach the
/// console even on a quiet boot.
pub fn say(level: u8, text: &str) {
    let line = format!("<{level}>os-init: {}\n", text.replace('\n', " | "));
    let logged = OpenOptions::new().write(true).open("/dev/kmsg").and_then(|mut kmsg| kmsg.write_all(line.as_bytes()));
    // Before /dev is mounted, and in a container, the kernel log is out of reach; stderr is the console there.
    if logged.is_err() {
        let _ = writeln!(std::io::stderr(), "os-init: {text}");
    }
    // A quiet boot keeps everything but errors from the kernel's console; people must see warnings all the same.
    if logged.is_ok()
        && (4..6).contains(&level)
        && let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console")
    {
        let _ = writeln!(console, "os-init: {text}\r");
    }
}

/// A step that went well.
pub fn info(text: &str) {
    say(6, text);
}

/// Something a person should know, though the boot goes on.
pub fn warn(text: &str) {
    say(4, text);
}

/// Something that stops the boot or loses a part of the device.
pub fn error(text: &str) {
    say(3, text);
}
