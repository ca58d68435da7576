//! Lines for the journal and the console.
//!
//! A service's stderr goes to the journal, which reads a leading `<N>` as the syslog priority (sd-daemon(3)). On a
//! terminal the prefix is left out.

use std::io::{IsTerminal, Write};

/// Syslog priority of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something does not work.
    Error = 3,
    /// Works, but a person should look.
    Warning = 4,
    /// A change of state worth a line.
    Info = 6,
}

/// Writes one line to stderr. A stderr that is gone is no reason to fail.
pub fn line(level: Level, text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = if err.is_terminal() { writeln!(err, "{text}") } else { writeln!(err, "<{}>{text}", level as u8) };
}

/// Logs at [`Level::Info`].
pub fn info(text: &str) {
    line(Level::Info, text);
}

/// Logs at [`Level::Warning`].
pub fn warn(text: &str) {
    line(Level::Warning, text);
}

/// Logs at [`Level::Error`].
pub fn error(text: &str) {
    line(Level::Error, text);
}
