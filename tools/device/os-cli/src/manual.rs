//! Completion and manual of the `os` command, from its own definition. Made where an image is built; nothing of it is on a
//! device but the completion.

use crate::Args;
use clap::CommandFactory;
use clap_complete::Shell;
use std::io;
use std::path::Path;

/// The command.
const NAME: &str = "os";
/// File that [`write`] makes for bash.
const COMPLETION: &str = "os.bash";

/// Completion for bash.
pub fn completion() -> Vec<u8> {
    let mut out = Vec::new();
    clap_complete::generate(Shell::Bash, &mut Args::command(), NAME, &mut out);
    out
}

/// Writes the completion (`os.bash`), and a manual page for the command and each of its subcommands (`os-config-set.1`).
///
/// # Errors
/// When something cannot be written.
pub fn write(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join(COMPLETION), completion())?;
    clap_mangen::generate_to(Args::command(), dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use os_sys::cmd::Cmd;
    use std::collections::BTreeSet;

    /// Pages that a command and everything below it have.
    fn pages(command: &clap::Command, name: &str, found: &mut BTreeSet<String>) {
        found.insert(format!("{name}.1"));
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            pages(below, &format!("{name}-{}", below.get_name()), found);
        }
    }

    #[test]
    fn every_command_has_a_page_and_bash_understands_the_completion() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let mut wanted = BTreeSet::from([COMPLETION.to_owned()]);
        pages(&Args::command(), NAME, &mut wanted);
        let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let found: BTreeSet<String> = names.map(|name| name.into_string().unwrap()).collect();
        assert_eq!(wanted.difference(&found).count(), 0, "{wanted:?} {found:?}");
        assert!(wanted.contains("os-config-set.1") && wanted.contains("os-update-check.1"), "{wanted:?}");
        let page = std::fs::read_to_string(dir.path().join("os-wipe.1")).unwrap();
        assert!(page.contains("Apps that came with the") && page.contains("reboot"), "{page}");
        // What bash offers after "os sl", by the function that the file gives to "os".
        let ask = format!(
            ". '{}'; COMP_WORDS=(os sl); COMP_CWORD=1; $(complete -p os | sed 's/.*-F \\([^ ]*\\).*/\\1/') os sl os; echo \"${{COMPREPLY[@]}}\"",
            dir.path().join(COMPLETION).display()
        );
        assert_eq!(Cmd::new("bash").args(["-c", &ask]).read().unwrap().trim(), "slot");
    }
}
