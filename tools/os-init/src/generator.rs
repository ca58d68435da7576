//! `systemd.generator(7)`: a bind mount unit for every line of the persist lists, and a login for every console of the
//! kernel command line that development mode starts.
//!
//! The initramfs has mounted state and data and made the directories by the time systemd runs this.

use crate::persist::{self, Entry, Partition};
use std::path::{Path, PathBuf};

/// Name of the mount unit for a path, as `systemd-escape --path --suffix=mount` gives it.
pub fn unit_name(path: &Path) -> String {
    let text = path.to_string_lossy();
    let trimmed = text.trim_matches('/');
    let mut out = String::new();
    for (index, byte) in trimmed.bytes().enumerate() {
        match byte {
            b'/' => out.push('-'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' => out.push(char::from(byte)),
            b'.' if index > 0 => out.push('.'),
            other => out.push_str(&format!("\\x{other:02x}")),
        }
    }
    out.push_str(".mount");
    out
}

/// The mount unit for one entry.
pub fn unit(entry: &Entry) -> String {
    // A partition that could not be mounted leaves the path as the image has it: the device still boots.
    let condition = match entry.partition {
        Partition::State => "",
        Partition::Data => "ConditionPathIsMountPoint=/mnt/data\n",
    };
    format!(
        "# Generated from /usr/lib/os/persist.d\n\
         [Unit]\nDescription=Persistent {path}\nDefaultDependencies=no\nConflicts=umount.target\n\
         Before=local-fs.target umount.target systemd-tmpfiles-setup.service\n{condition}\n\
         [Mount]\nWhat={source}\nWhere={path}\nType=none\nOptions=bind\n",
        path = entry.path.display(),
        source = entry.source().display(),
    )
}

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

/// Writes the units for the lists below `root` and the consoles of `cmdline` into the generator directory.
///
/// # Errors
/// When a unit cannot be written.
pub fn run(root: &Path, cmdline: &str, out: &Path) -> std::io::Result<()> {
    let (entries, complaints) = persist::load(root);
    for complaint in complaints {
        os_sys::log::warn(&format!("persist list: {complaint}"));
    }
    let wants = out.join("local-fs.target.wants");
    std::fs::create_dir_all(&wants)?;
    for entry in &entries {
        let name = unit_name(&entry.path);
        std::fs::write(out.join(&name), unit(entry))?;
        std::os::unix::fs::symlink(PathBuf::from("..").join(&name), wants.join(&name))?;
    }
    let logins = out.join("os-development.target.wants");
    std::fs::create_dir_all(&logins)?;
    for console in consoles(cmdline) {
        let link = logins.join(format!("serial-getty@{console}.service"));
        std::os::unix::fs::symlink("/usr/lib/systemd/system/serial-getty@.service", link)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_systemds() {
        assert_eq!(
            unit_name(Path::new("/etc/NetworkManager/system-connections")),
            "etc-NetworkManager-system\\x2dconnections.mount"
        );
        assert_eq!(unit_name(Path::new("/var/lib/x.y")), "var-lib-x.y.mount");
    }

    #[test]
    fn units_are_written_and_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let lists = dir.path().join("root").join(persist::DIR);
        std::fs::create_dir_all(&lists).unwrap();
        std::fs::write(lists.join("10-a.conf"), "/etc/a state 0700 0:0\n/var/b data 0755 0:0\nbroken\n").unwrap();
        std::fs::write(lists.join("20-b.conf"), "/etc/a data 0755 0:0\n").unwrap();
        let out = dir.path().join("out");
        run(&dir.path().join("root"), "quiet console=tty0 console=ttyS0,115200", &out).unwrap();
        let a = std::fs::read_to_string(out.join("etc-a.mount")).unwrap();
        assert!(a.contains("What=/mnt/data/root/etc/a\n"), "{a}");
        assert!(out.join("local-fs.target.wants/var-b.mount").exists());
        let logins = std::fs::read_dir(out.join("os-development.target.wants")).unwrap();
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
