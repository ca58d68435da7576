//! Carries out a wipe exactly once.
//!
//! A request comes as the file `wipe` on the boot partition (`apps`, `state`, `data` or `all`; written by `os wipe`, by
//! config.json's `os.wipe` or by a person with a card reader), or as `os.wipe=` typed at the bootloader. The file is
//! removed only after the work is done, so a power cut in the middle starts it again. What cannot be removed is
//! remembered: an argument until a boot comes without it, the mark of config.json for good.

use crate::cmdline::Wipe;
use os_config::wipe::{self, REQUEST};
use os_sys::files;
use std::path::Path;

const OBEYED: &str = "wipe.done";

/// What to do in this boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What to erase; `None` for nothing.
    pub erase: Option<Wipe>,
    /// The request came as an argument and must be marked as obeyed.
    from_argument: bool,
    /// A mark is left from an earlier boot and can go.
    forget_mark: bool,
    /// There is a request file.
    has_file: bool,
    /// Mark of a request that comes from config.json.
    mark: Option<String>,
}

/// Decides from the boot partition's files and the argument.
pub fn plan(boot: &Path, argument: Option<Wipe>) -> Plan {
    let found = wipe::read(boot);
    let mark = found.as_ref().and_then(|f| f.mark.clone());
    // Done already, and the power was cut before the request was removed.
    let done = mark.is_some() && mark == wipe::last(boot);
    let from_file = found.as_ref().filter(|_| !done).and_then(|f| Wipe::parse(&f.what));
    let marked = boot.join(OBEYED).exists();
    let from_argument = argument.filter(|_| !marked);
    Plan {
        erase: from_file.or(from_argument),
        from_argument: from_argument.is_some(),
        forget_mark: marked && argument.is_none(),
        has_file: boot.join(REQUEST).exists(),
        mark,
    }
}

/// Records that the plan was carried out, so that it is not carried out again.
///
/// # Errors
/// When the boot partition cannot be written.
pub fn finish(boot: &Path, plan: &Plan) -> Result<(), files::FileError> {
    if plan.from_argument {
        files::write_if_changed(&boot.join(OBEYED), b"os.wipe on the kernel command line was obeyed\n", 0o644)?;
    }
    if plan.forget_mark {
        files::remove_if_there(&boot.join(OBEYED))?;
    }
    if let Some(mark) = &plan.mark {
        wipe::done(boot, mark)?;
    }
    if plan.has_file {
        files::remove_if_there(&boot.join(REQUEST))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_obeyed_until_it_is_finished_and_then_never_again() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(REQUEST), "data\r\n").unwrap();
        assert_eq!(plan(dir.path(), None).erase, Some(Wipe::Data));
        // A power cut here: the next boot starts again.
        let again = plan(dir.path(), None);
        assert_eq!(again.erase, Some(Wipe::Data));
        finish(dir.path(), &again).unwrap();
        assert_eq!(plan(dir.path(), None).erase, None);
    }

    #[test]
    fn an_argument_that_stays_is_obeyed_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = plan(dir.path(), Some(Wipe::All));
        assert_eq!(first.erase, Some(Wipe::All));
        finish(dir.path(), &first).unwrap();
        let second = plan(dir.path(), Some(Wipe::All));
        assert_eq!(second.erase, None);
        finish(dir.path(), &second).unwrap();
        finish(dir.path(), &plan(dir.path(), None)).unwrap();
        assert_eq!(plan(dir.path(), Some(Wipe::State)).erase, Some(Wipe::State));
    }

    #[test]
    fn a_request_of_config_json_is_obeyed_once_wherever_the_power_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let boot = dir.path();
        wipe::request(boot, Some(("apps", "1")), false).unwrap();
        // Cut before and in the work: again.
        assert_eq!(plan(boot, None).erase, Some(Wipe::Apps));
        let p = plan(boot, None);
        assert_eq!(p.erase, Some(Wipe::Apps));
        // Cut between the mark and the removal: not again, and the request goes.
        wipe::done(boot, "1").unwrap();
        let p = plan(boot, None);
        assert_eq!(p.erase, None);
        finish(boot, &p).unwrap();
        assert!(!boot.join(REQUEST).exists());
        // The key still stands in config.json.
        wipe::request(boot, Some(("apps", "1")), false).unwrap();
        assert_eq!(plan(boot, None).erase, None);
        wipe::request(boot, Some(("state", "2")), false).unwrap();
        let p = plan(boot, None);
        assert_eq!(p.erase, Some(Wipe::State));
        finish(boot, &p).unwrap();
        assert_eq!(wipe::last(boot).as_deref(), Some("2"));
    }

    #[test]
    fn nonsense_in_the_file_erases_nothing_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(REQUEST), "everything!").unwrap();
        let p = plan(dir.path(), None);
        assert_eq!(p.erase, None);
        finish(dir.path(), &p).unwrap();
        assert!(!dir.path().join(REQUEST).exists());
    }
}
