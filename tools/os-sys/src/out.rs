//! What a command prints: lines on standard output, until nobody reads them any more.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// What a shell reports of a program that SIGPIPE ended, 128 + 13.
const NOBODY_READS: i32 = 141;

/// Prints, as [`std::println!`] does. Where the reader has gone (`os status | head -1`) the program ends quietly, as one does
/// that leaves SIGPIPE alone; Rust programs would panic.
#[macro_export]
macro_rules! say {
    () => { $crate::out::print(format_args!("\n")) };
    ($($arg:tt)*) => { $crate::out::print(format_args!("{}\n", format_args!($($arg)*))) };
}

/// What [`say!`] does, without the end of the line.
pub fn print(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(err) if err.kind() == ErrorKind::BrokenPipe => std::process::exit(NOBODY_READS),
        Err(err) => {
            crate::log::error(&format!("cannot print: {err}"));
            std::process::exit(1);
        }
    }
}
