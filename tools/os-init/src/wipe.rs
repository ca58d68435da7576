//! Carries out a wipe exactly once.
//!
//! A request comes as the file `wipe` on the boot partition (`state`, `data` or `all`; written by `os wipe`, or by a
//! person with a card reader), or as `os.wipe=` typed at the bootloader. The file is removed only after the work is
//! done, so a power cut in the middle starts it again. An argument cannot be removed: a mark on the boot partition
//! remembers that it was obeyed, until a boot comes without it.

use crate::cmdline::Wipe;
use os_sys::files;
use std::path::Path;

/// Name of the request on the boot partition.
pub const REQUEST: &str = "wipe";
const OBEYED: &str = "wipe.done";

/// What to do in this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// What to erase; `None` for nothing.
    pub erase: Option<Wipe>,
    /// The request came as an argument and must be marked as obeyed.
    from_argument: bool,
    /// A mark is left from an earlier boot and can go.
    forget_mark: bool,
    /// There is a request file.
    has_file: bool,
}

/// Decides from the boot partition's files and the argument.
pub fn plan(boot: &Path, argument: Option<Wipe>) -> Plan {
    // A request is one word; more is not read.
    let text = files::read_limited(&boot.join(REQUEST), 64).ok();
    let from_file = text.as_deref().and_then(|t| std::str::from_utf8(t).ok()).and_then(Wipe::parse);
    let marked = boot.join(OBEYED).exists();
    let from_argument = argument.filter(|_| !marked);
    Plan {
        erase: from_file.or(from_argument),
        from_argument: from_argument.is_some(),
        forget_mark: marked && argument.is_none(),
        has_file: text.is_some(),
    }
}

/// Records that the plan was carried out, so that it is not carried out again.
///
/// # Errors
/// When the boot partition cannot be written.
pub fn finish(boot: &Path, plan: Plan) -> Result<(), files::FileError> {
    if plan.from_argument {
        files::write_if_changed(&boot.join(OBEYED), b"os.wipe on the kernel command line was obeyed\n", 0o644)?;
    }
    if plan.forget_mark {
        files::remove_if_there(&boot.join(OBEYED))?;
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
        finish(dir.path(), again).unwrap();
        assert_eq!(plan(dir.path(), None).erase, None);
    }

    #[test]
    fn an_argument_that_stays_is_obeyed_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = plan(dir.path(), Some(Wipe::All));
        assert_eq!(first.erase, Some(Wipe::All));
        finish(dir.path(), first).unwrap();
        let second = plan(dir.path(), Some(Wipe::All));
        assert_eq!(second.erase, None);
        finish(dir.path(), second).unwrap();
        finish(dir.path(), plan(dir.path(), None)).unwrap();
        assert_eq!(plan(dir.path(), Some(Wipe::State)).erase, Some(Wipe::State));
    }

    #[test]
    fn nonsense_in_the_file_erases_nothing_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(REQUEST), "everything!").unwrap();
        let p = plan(dir.path(), None);
        assert_eq!(p.erase, None);
        finish(dir.path(), p).unwrap();
        assert!(!dir.path().join(REQUEST).exists());
    }
}
