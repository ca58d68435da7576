//! Carries out a wipe exactly once.
//!
//! A request comes as the file `wipe` on the boot partition (`apps`, `state`, `data` or `all`; written by `os wipe`, by
//! config.json's `os.wipe` or by a person with a card reader), or as `os.wipe=` typed at the bootloader. The file is
//! removed only after the work is done, so a power cut in the middle starts it again, and what could not be done stays
//! requested, without what was. What cannot be removed is remembered: an argument until a boot comes without it, the mark
//! of config.json for good.

use os_config_model::wipe::{self, REQUEST};
use os_facts::WipeScope;
use os_sys::files;
use std::path::Path;

const OBEYED: &str = "wipe.done";

/// What to do in this boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What to erase; `None` for nothing.
    pub erase: Option<WipeScope>,
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
pub fn plan(boot: &Path, argument: Option<WipeScope>) -> Plan {
    let found = wipe::read(boot);
    let mark = found.as_ref().and_then(|f| f.mark.clone());
    // Done already, and the power was cut before the request was removed.
    let done = mark.is_some() && mark == wipe::last(boot);
    let from_file = found.as_ref().filter(|_| !done).and_then(|f| f.what.parse().ok());
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

/// What is still to be erased when of a wish only this much was done; `None` when all of it was.
pub fn left(asked: Option<WipeScope>, state: bool, data: bool, apps: bool) -> Option<WipeScope> {
    let asked = asked?;
    match (asked.state() && !state, asked.data() && !data) {
        (true, true) => Some(WipeScope::All),
        (true, false) => Some(WipeScope::State),
        (false, true) => Some(WipeScope::Data),
        (false, false) => (asked == WipeScope::Apps && !apps).then_some(WipeScope::Apps),
    }
}

/// Records what was carried out, so that it is not carried out again; what is `left` is what the next boot is asked for.
///
/// # Errors
/// When the boot partition cannot be written.
pub fn finish(boot: &Path, plan: &Plan, left: Option<WipeScope>) -> Result<(), files::FileError> {
    if let Some(left) = left {
        wipe::ask(boot, left, plan.mark.as_deref())?;
    }
    if plan.from_argument {
        files::write_if_changed(&boot.join(OBEYED), b"os.wipe on the kernel command line was obeyed\n", 0o644)?;
    }
    if plan.forget_mark {
        files::remove_if_there(&boot.join(OBEYED))?;
    }
    if left.is_some() {
        return Ok(());
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
        assert_eq!(plan(dir.path(), None).erase, Some(WipeScope::Data));
        // A power cut here: the next boot starts again.
        let again = plan(dir.path(), None);
        assert_eq!(again.erase, Some(WipeScope::Data));
        finish(dir.path(), &again, None).unwrap();
        assert_eq!(plan(dir.path(), None).erase, None);
    }

    #[test]
    fn an_argument_that_stays_is_obeyed_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = plan(dir.path(), Some(WipeScope::All));
        assert_eq!(first.erase, Some(WipeScope::All));
        finish(dir.path(), &first, None).unwrap();
        let second = plan(dir.path(), Some(WipeScope::All));
        assert_eq!(second.erase, None);
        finish(dir.path(), &second, None).unwrap();
        finish(dir.path(), &plan(dir.path(), None), None).unwrap();
        assert_eq!(plan(dir.path(), Some(WipeScope::State)).erase, Some(WipeScope::State));
    }

    #[test]
    fn a_request_of_config_json_is_obeyed_once_wherever_the_power_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let boot = dir.path();
        wipe::request(boot, Some((WipeScope::Apps, "1")), false).unwrap();
        // Cut before and in the work: again.
        assert_eq!(plan(boot, None).erase, Some(WipeScope::Apps));
        let p = plan(boot, None);
        assert_eq!(p.erase, Some(WipeScope::Apps));
        // Cut between the mark and the removal: not again, and the request goes.
        wipe::done(boot, "1").unwrap();
        let p = plan(boot, None);
        assert_eq!(p.erase, None);
        finish(boot, &p, None).unwrap();
        assert!(!boot.join(REQUEST).exists());
        // The key still stands in config.json.
        wipe::request(boot, Some((WipeScope::Apps, "1")), false).unwrap();
        assert_eq!(plan(boot, None).erase, None);
        wipe::request(boot, Some((WipeScope::State, "2")), false).unwrap();
        let p = plan(boot, None);
        assert_eq!(p.erase, Some(WipeScope::State));
        finish(boot, &p, None).unwrap();
        assert_eq!(wipe::last(boot).as_deref(), Some("2"));
    }

    #[test]
    fn what_could_not_be_done_stays_requested_and_nothing_else() {
        assert_eq!(left(Some(WipeScope::All), true, false, true), Some(WipeScope::Data));
        assert_eq!(left(Some(WipeScope::All), false, true, true), Some(WipeScope::State));
        assert_eq!(left(Some(WipeScope::All), false, false, true), Some(WipeScope::All));
        assert_eq!(left(Some(WipeScope::Apps), true, true, false), Some(WipeScope::Apps));
        for done in [WipeScope::All, WipeScope::State, WipeScope::Data, WipeScope::Apps] {
            assert_eq!(left(Some(done), true, true, true), None);
        }
        assert_eq!(left(None, false, false, false), None);
        let dir = tempfile::tempdir().unwrap();
        let boot = dir.path();
        // By config.json: its mark is obeyed when everything is done.
        wipe::request(boot, Some((WipeScope::All, "1")), false).unwrap();
        finish(boot, &plan(boot, None), Some(WipeScope::Data)).unwrap();
        let next = plan(boot, None);
        assert_eq!((next.erase, wipe::last(boot)), (Some(WipeScope::Data), None));
        finish(boot, &next, None).unwrap();
        assert_eq!((plan(boot, None).erase, wipe::last(boot).as_deref()), (None, Some("1")));
        // By an argument that stays there.
        finish(boot, &plan(boot, Some(WipeScope::All)), Some(WipeScope::Data)).unwrap();
        assert_eq!(plan(boot, Some(WipeScope::All)).erase, Some(WipeScope::Data));
    }

    #[test]
    fn nonsense_in_the_file_erases_nothing_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(REQUEST), "everything!").unwrap();
        let p = plan(dir.path(), None);
        assert_eq!(p.erase, None);
        finish(dir.path(), &p, None).unwrap();
        assert!(!dir.path().join(REQUEST).exists());
    }
}
