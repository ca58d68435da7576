//! What udev says of rules, before they are its own.

use crate::import;
use anyhow::Result;
use os_sys::cmd::{Cmd, CmdError};
use os_sys::files;
use std::path::Path;

/// What `udevadm verify` says of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// What udevd would drop, with the line.
    pub refused: Vec<String>,
    /// What has no effect by itself.
    pub warnings: Vec<String>,
}

/// Asks `udevadm verify` (systemd 254 and later). Where there is none, nothing is known against the rules.
///
/// # Errors
/// When they cannot be laid before it.
pub fn verify(text: &str) -> Result<Verdict> {
    verify_with("udevadm", text)
}

fn verify_with(program: &str, text: &str) -> Result<Verdict> {
    let dir = import::tempdir()?;
    let file = dir.join("verify.rules");
    files::write_if_changed(&file, text.as_bytes(), 0o600)?;
    // With the level before each line; a file that is good but for its style passes.
    let asked = Cmd::new(program).env("SYSTEMD_LOG_TARGET", "console-prefixed").env("SYSTEMD_LOG_LEVEL", "info");
    let answer = asked.arg("verify").arg(&file).hear();
    let _ = std::fs::remove_dir_all(&dir);
    Ok(match answer {
        Err(CmdError::Failed { stderr, .. }) => verdict(&stderr, &file),
        _ => Verdict::default(),
    })
}

/// Takes lines such as `<27>/run/x.rules:2 Invalid key 'LBEL'.` apart.
fn verdict(said: &str, file: &Path) -> Verdict {
    let mut out = Verdict::default();
    let place = format!("{}:", file.display());
    for line in said.lines() {
        let Some((priority, rest)) = line.strip_prefix('<').and_then(|rest| rest.split_once('>')) else { continue };
        let Some((number, message)) = rest.strip_prefix(&place).and_then(|rest| rest.split_once(' ')) else { continue };
        let (Ok(priority), Ok(number)) = (priority.parse::<u32>(), number.parse::<u32>()) else { continue };
        let message = format!("line {number}: {}", message.trim_end_matches('.'));
        // udevd keeps the line, without what it does not find, or though it never applies.
        let is_kept = ["Unknown user", "Unknown group", "conflicting match"].iter().any(|said| message.contains(said));
        match priority % 8 {
            ..=3 if !is_kept => out.refused.push(message),
            ..=4 => out.warnings.push(message),
            // Matters of style.
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    // What udevadm 257 said.
    const SAID: &str = "<27>/t/a.rules:2 Invalid key 'LBEL'.\n<27>/t/a.rules:4 Unknown user 'nosuch', ignoring.\n\
                        <29>/t/a.rules:6 style: whitespace after comma is expected.\n<28>/t/a.rules:10 The line has no effect any more, dropping.\n\
                        <27>/t/a.rules:7 conflicting match expressions, the line has no effect.\n<27>/t/a.rules: udev rules check failed.\n";

    #[test]
    fn what_udevd_drops_is_told_from_what_has_no_effect() {
        let found = verdict(SAID, Path::new("/t/a.rules"));
        assert_eq!(found.refused, ["line 2: Invalid key 'LBEL'"]);
        assert_eq!(found.warnings.len(), 3);
        assert_eq!(verdict("Unknown command verb verify.\n", Path::new("/t/a.rules")), Verdict::default());
    }

    #[test]
    fn a_program_that_is_not_there_or_too_old_knows_nothing_against_them() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("udevadm");
        assert_eq!(verify_with(&program.to_string_lossy(), "x").unwrap(), Verdict::default());
        for (script, refused) in [
            ("echo 'Unknown command verb verify.' >&2; exit 1", 0),
            ("echo \"<27>$2:1 Invalid key 'LBEL'.\" >&2; exit 1", 1),
            ("echo \"<29>$2:1 style: x\" >&2", 0),
        ] {
            std::fs::write(&program, format!("#!/bin/sh\ngrep -q LBEL \"$2\" || exit 9\n{script}\n")).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            assert_eq!(
                verify_with(&program.to_string_lossy(), "LBEL=\"x\"\n").unwrap().refused.len(),
                refused,
                "{script}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_answer_breaks_it(said in "(?s).{0,100}", line in "<[0-9]{0,12}>/t/a.rules:[0-9]{0,12} ?.{0,9}") {
            let _ = (verdict(&said, Path::new("/t/a.rules")), verdict(&line, Path::new("/t/a.rules")));
        }
    }
}
