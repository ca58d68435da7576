//! Lines for the journal and the console.
//!
//! A service's stderr goes to the journal, which reads a leading `<N>` as the syslog priority (sd-daemon(3)). Everywhere
//! else, on a terminal or in what another program reads, the prefix is left out.

use std::io::Write;
use std::sync::OnceLock;

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
    static JOURNAL: OnceLock<bool> = OnceLock::new();
    let journal = *JOURNAL.get_or_init(|| is_journal(&std::env::var("JOURNAL_STREAM").unwrap_or_default()));
    let mut err = std::io::stderr().lock();
    let _ = if journal { writeln!(err, "<{}>{text}", level as u8) } else { writeln!(err, "{text}") };
}

/// True when stderr is what systemd connected to the journal: `JOURNAL_STREAM` names its device and inode, and is
/// inherited by programs whose stderr goes elsewhere (systemd.exec(5)).
fn is_journal(stream: &str) -> bool {
    rustix::fs::fstat(std::io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_stream_of_the_journal_takes_priorities() {
        let stat = rustix::fs::fstat(std::io::stderr()).unwrap();
        assert!(is_journal(&format!("{}:{}", stat.st_dev, stat.st_ino)));
        assert!(!is_journal(&format!("{}:{}", stat.st_dev, stat.st_ino + 1)));
        assert!(!is_journal(""));
    }
}
