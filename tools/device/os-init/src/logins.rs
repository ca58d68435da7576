//! A login for every serial console of the kernel command line, which development mode starts.
//!
//! The initramfs links the units below `/run/systemd/system`, where systemd finds them without a generator to run.

use std::path::Path;

/// Where the links go: units that are wanted by development mode.
pub const WANTS: &str = "/run/systemd/system/os-development.target.wants";

/// Serial consoles on the kernel command line, such as `ttyS0`. Virtual terminals (`tty0`) are not among them.
pub fn consoles(cmdline: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for word in cmdline.split_ascii_whitespace() {
        let Some(name) = word.strip_prefix("console=").and_then(|c| c.split(',').next()) else { continue };
        let serial = name.starts_with("tty")
            && name.chars().all(|c| c.is_ascii_alphanumeric())
            && !name.trim_start_matches("tty").chars().all(|c| c.is_ascii_digit());
        if serial && !found.iter().any(|f| f == name) {
            found.push(name.to_owned());
        }
    }
    found
}

/// Makes the links for the consoles of `cmdline` in `wants`.
///
/// # Errors
/// When one cannot be made.
pub fn link(cmdline: &str, wants: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(wants)?;
    for console in consoles(cmdline) {
        let link = wants.join(format!("serial-getty@{console}.service"));
        std::os::unix::fs::symlink("/usr/lib/systemd/system/serial-getty@.service", link)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_get_links() {
        let dir = tempfile::tempdir().unwrap();
        link("quiet console=tty0 console=ttyS0,115200", dir.path()).unwrap();
        let logins = std::fs::read_dir(dir.path()).unwrap();
        let names: Vec<_> = logins.map(|l| l.unwrap().file_name()).collect();
        assert_eq!(names, ["serial-getty@ttyS0.service"]);
    }

    #[test]
    fn only_serial_consoles_get_a_login() {
        let found = consoles(
            "console=tty1 console=ttyAMA0,115200n8 console=ttyAMA0 console=null console=tty../x a=console=ttyS9",
        );
        assert_eq!(found, ["ttyAMA0"]);
    }
}
