//! The files that checks read, below a root that a test can put somewhere else.

use os_facts::place;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The root directory of a device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Root<'a>(pub(super) &'a Path);

impl Root<'_> {
    /// Where a path of the device is.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        place::under(self.0, path)
    }

    /// What a file says, without white space and the zero that ends a text in a device tree; none where that is nothing.
    pub(super) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let bytes = std::fs::read(self.path(path)).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// The number that a file says.
    pub(super) fn number<T: FromStr>(&self, path: impl AsRef<Path>) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    /// Names in a directory, sorted; none where there is no directory.
    pub(super) fn names(&self, dir: impl AsRef<Path>) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(dir)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// True when there is something.
    pub(super) fn has(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    /// The last name of where a link leads.
    pub(super) fn leads_to(&self, link: impl AsRef<Path>) -> Option<String> {
        let target = std::fs::read_link(self.path(link)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A device that a test makes up.
    pub(in crate::selftest) struct Fake(tempfile::TempDir);

    impl Fake {
        /// One with these files.
        pub(in crate::selftest) fn with(files: &[(&str, &str)]) -> Self {
            let fake = Self(tempfile::tempdir().unwrap());
            files.iter().for_each(|(path, text)| fake.write(path, text));
            fake
        }

        pub(in crate::selftest) fn write(&self, path: &str, text: &str) {
            let path = self.root().path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        pub(in crate::selftest) fn link(&self, path: &str, target: &str) {
            let path = self.root().path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let _ = std::fs::remove_file(&path);
            std::os::unix::fs::symlink(target, path).unwrap();
        }

        pub(in crate::selftest) fn root(&self) -> Root<'_> {
            Root(self.0.path())
        }
    }

    #[test]
    fn what_the_kernel_and_a_device_tree_say_is_read() {
        let fake =
            Fake::with(&[("/proc/device-tree/model", "Hardkernel ODROID-C4\0"), ("/sys/a", "7\n"), ("/sys/b", "\n")]);
        fake.link("/dev/disk/os/os-boot", "../../mmcblk0p1");
        let root = fake.root();
        assert_eq!(root.text("/proc/device-tree/model").as_deref(), Some("Hardkernel ODROID-C4"));
        assert_eq!((root.number("/sys/a"), root.number::<u64>("/sys/b")), (Some(7), None));
        assert_eq!(root.names("/sys"), ["a", "b"]);
        assert_eq!(root.leads_to("/dev/disk/os/os-boot").as_deref(), Some("mmcblk0p1"));
        assert!(root.has("/sys/a") && !root.has("/sys/c") && root.names("/none").is_empty());
    }
}
