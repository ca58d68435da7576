//! Settings of the kernel: `os.kernel.sysctl`, and `os.memory.swappiness`, which is one of them.
//!
//! The initramfs writes them before the engine starts ([`lay_down`]). Two files of sysctl.d(5) bring them back whenever
//! systemd-sysctl runs, for an interface that comes later too: one that is read after all others has what is wanted; one that
//! is read before all others has what the kernel said at first, so that a setting which is no longer wanted becomes the
//! image's again, or else the kernel's.

mod refused;
mod value;

pub use refused::refused;

use crate::types::Os;
use os_sys::files::{self, FileError, Written};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

/// What is wanted, below `/run`.
const WANTED: &str = "sysctl.d/99-zz-os-config.conf";
/// What was there first, below `/run`.
const BEFORE: &str = "sysctl.d/00-os-config.conf";
/// The argument with which the boot loader starts the rescue system.
const RESCUE: &str = "systemd.unit=os-rescue.target";

/// Settings that are there once a module is, as the kernel's documentation has them.
const OF_MODULES: &[(&str, &str)] = &[
    ("net/netfilter/nf_conntrack", "nf_conntrack"),
    ("net/nf_conntrack_max", "nf_conntrack"),
    ("net/bridge/", "br_netfilter"),
    ("net/ipv4/vs/", "ip_vs"),
];

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// As the person wrote it.
    pub name: String,
    /// Below `/proc/sys`.
    pub path: String,
    /// What it has to be.
    pub value: String,
}

/// What the kernel says of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// What is wanted.
    Wanted,
    /// Something else.
    Other(String),
    /// It belongs to an interface that is not there.
    NoInterface(String),
    /// Why it cannot be read.
    Unreadable(String),
}

/// The path below `/proc/sys` that a name of sysctl.d(5) stands for: when its first separator is a dot, dots and slashes
/// change places. None for what is no name of one setting.
pub fn path(name: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.:@+/".contains(c);
    if name.starts_with('-') || !name.chars().all(plain) {
        return None;
    }
    let path: String = if name.find(['.', '/'])? == name.find('.').unwrap_or(usize::MAX) {
        let swap = |c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        };
        name.chars().map(swap).collect()
    } else {
        name.to_owned()
    };
    path.split('/').all(|part| !matches!(part, "" | "." | "..")).then_some(path)
}

/// What a configuration wants, in the order in which it is set: what stands for all interfaces comes before those of one.
pub fn wanted(os: &Os) -> Vec<Setting> {
    let swappiness = os.memory.swappiness.map(|s| (SWAPPINESS.to_owned(), s.to_string()));
    let named = os.kernel.sysctl.iter().map(|(name, value)| (name.clone(), value.to_string()));
    let settings = named.chain(swappiness);
    let mut out: Vec<Setting> =
        settings.filter_map(|(name, value)| Some(Setting { path: path(&name)?, name, value })).collect();
    let of_one = |path: &str| !(path.contains("/all/") || path.contains("/default/"));
    out.sort_by_cached_key(|setting| (of_one(&setting.path), setting.path.clone()));
    out
}

/// The setting that has a key of its own.
pub const SWAPPINESS: &str = "vm.swappiness";

/// The kernel, and where its settings for this boot are kept.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/run`.
    pub run: PathBuf,
    /// Where the image has files of sysctl.d.
    pub image: Vec<PathBuf>,
}

impl Default for Kernel {
    fn default() -> Self {
        let image = ["/etc/sysctl.d", "/usr/lib/sysctl.d"].map(PathBuf::from).into();
        Self { proc: "/proc".into(), run: "/run".into(), image }
    }
}

impl Kernel {
    /// True in the rescue system: it has to start whatever was set.
    pub fn is_rescue(&self) -> bool {
        let arguments = std::fs::read_to_string(self.proc.join("cmdline")).unwrap_or_default();
        arguments.split_ascii_whitespace().any(|argument| argument == RESCUE)
    }

    /// What the kernel says of a setting.
    pub fn look(&self, setting: &Setting) -> Found {
        match self.read(&setting.path) {
            Ok(found) if value::same(&setting.value, &found) => Found::Wanted,
            Ok(found) => Found::Other(found),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => match self.missing_interface(&setting.path) {
                Some(interface) => Found::NoInterface(interface),
                None => Found::Unreadable("this kernel has no such setting".to_owned()),
            },
            Err(err) if err.kind() == std::io::ErrorKind::IsADirectory => {
                Found::Unreadable("is a group of settings; name one of them".to_owned())
            }
            Err(err) => Found::Unreadable(format!("cannot be read: {err}")),
        }
    }

    /// Why this machine cannot have a setting.
    pub fn too_much(&self, setting: &Setting) -> Option<String> {
        let meminfo = std::fs::read_to_string(self.proc.join("meminfo")).unwrap_or_default();
        refused::too_much(&setting.path, &setting.value, &meminfo)
    }

    fn read(&self, path: &str) -> std::io::Result<String> {
        let text = std::fs::read(self.proc.join("sys").join(path))?;
        Ok(String::from_utf8_lossy(&text).trim().to_owned())
    }

    /// The interface of a setting, when only that is missing.
    fn missing_interface(&self, path: &str) -> Option<String> {
        let mut parts = path.splitn(5, '/');
        let (net, family, kind) = (parts.next()?, parts.next()?, parts.next()?);
        let (interface, rest) = (parts.next()?, parts.next()?);
        let of_interface = net == "net" && matches!(family, "ipv4" | "ipv6") && matches!(kind, "conf" | "neigh");
        let kinds = self.proc.join("sys").join(net).join(family).join(kind);
        let known = kinds.join("default").join(rest).exists();
        (of_interface && known && !kinds.join(interface).exists()).then(|| interface.to_owned())
    }

    /// What the kernel had before anything was set in this boot, by path.
    fn before(&self) -> BTreeMap<String, String> {
        let text = std::fs::read_to_string(self.run.join(BEFORE)).unwrap_or_default();
        text.lines().filter_map(line).collect()
    }

    /// What was wanted last, by path.
    pub fn wanted_last(&self) -> BTreeMap<String, String> {
        let text = std::fs::read_to_string(self.run.join(WANTED)).unwrap_or_default();
        text.lines().filter_map(line).collect()
    }

    /// Writes both files of sysctl.d.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn write_files(&self, settings: &[Setting]) -> Result<Written, FileError> {
        let mut before = self.before();
        for setting in settings {
            // What has several lines, or none, cannot be said in such a file; it lasts until the next boot.
            let now = self.read(&setting.path).ok().filter(|now| !now.is_empty() && !now.contains('\n'));
            if let Some(now) = now.filter(|_| !before.contains_key(&setting.path)) {
                before.insert(setting.path.clone(), now);
            }
        }
        if !before.is_empty() {
            files::write_if_changed(&self.run.join(BEFORE), lines(&before).as_bytes(), 0o644)?;
        }
        let path = self.run.join(WANTED);
        if settings.is_empty() {
            return files::remove_if_there(&path);
        }
        let wanted: String = settings.iter().map(|s| format!("-{} = {}\n", s.path, s.value)).collect();
        files::write_if_changed(&path, wanted.as_bytes(), 0o644)
    }

    /// True when a setting that is no longer wanted is what it was made, though it was something else before and the image does
    /// not say so.
    pub fn has_stayed(&self, path: &str, made: &str) -> bool {
        let before = self.before();
        self.read(path).is_ok_and(|now| value::same(made, &now))
            && before.get(path).is_none_or(|before| !value::same(made, before))
            && !self.image_says(path, made)
    }

    fn image_says(&self, wanted: &str, value: &str) -> bool {
        let files = self.image.iter().flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten());
        let says = |line: &str| {
            line.split_once('=').is_some_and(|(name, said)| {
                let name = name.trim().trim_start_matches('-');
                path(name).as_deref() == Some(wanted) && value::same(value, said.trim())
            })
        };
        files.filter_map(|file| std::fs::read_to_string(file.path()).ok()).any(|text| text.lines().any(says))
    }
}

/// Puts settings into force before anything else of the system runs; returns what could not be written down. What the kernel
/// does not take the application finds and names.
pub fn lay_down(os: &Os, kernel: &Kernel) -> Vec<String> {
    let mut settings = wanted(os);
    settings.retain(|setting| kernel.too_much(setting).is_none());
    if settings.is_empty() || kernel.is_rescue() {
        return Vec::new();
    }
    let written = kernel.write_files(&settings);
    for setting in &settings {
        let file = std::fs::OpenOptions::new().write(true).open(kernel.proc.join("sys").join(&setting.path));
        let _ = file.and_then(|mut file| file.write_all(format!("{}\n", setting.value).as_bytes()));
    }
    written.err().map(|err| format!("settings of the kernel: {err}")).into_iter().collect()
}

/// The modules that settings are of.
pub fn modules(settings: &[Setting]) -> Vec<&'static str> {
    let mut out: Vec<&str> = Vec::new();
    for (prefix, module) in OF_MODULES {
        if settings.iter().any(|setting| setting.path.starts_with(prefix)) && !out.contains(module) {
            out.push(module);
        }
    }
    out
}

/// A line of a file of ours.
fn line(text: &str) -> Option<(String, String)> {
    let (path, value) = text.strip_prefix('-')?.split_once(" = ")?;
    Some((path.to_owned(), value.to_owned()))
}

/// With a minus, so that what the kernel does not take is no failure of systemd's unit.
fn lines(settings: &BTreeMap<String, String>) -> String {
    settings.iter().map(|(path, value)| format!("-{path} = {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Config;
    use proptest::prelude::*;
    use std::path::Path;

    fn os(json: &str) -> Os {
        serde_json::from_str::<Config>(&format!(r#"{{"os": {json}}}"#)).unwrap().os
    }

    /// A kernel of files.
    fn kernel(dir: &Path, files: &[(&str, &str)]) -> Kernel {
        let kernel = Kernel { proc: dir.join("proc"), run: dir.join("run"), image: vec![dir.join("image")] };
        for (path, text) in files {
            let path = kernel.proc.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        kernel
    }

    #[test]
    fn names_are_those_of_sysctl_d() {
        for (name, wanted) in [
            ("vm.max_map_count", "vm/max_map_count"),
            ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
            ("kernel.domainname", "kernel/domainname"),
        ] {
            assert_eq!(path(name).as_deref(), Some(wanted));
        }
        // A slash first leaves all as it is.
        assert_eq!(path("net/ipv4/conf/eth0.1/forwarding").as_deref(), Some("net/ipv4/conf/eth0.1/forwarding"));
        assert_eq!(path("vm/swappiness").as_deref(), Some("vm/swappiness"));
        for bad in [
            "",
            "vm",
            ".",
            "..",
            "vm.",
            ".vm.x",
            "vm..x",
            "/vm/x",
            "vm/../x",
            "vm/./x",
            "../sys/vm/x",
            "vm.//.x",
            "-vm.x",
            "net.ipv4.conf.*.forwarding",
            "vm.a=b",
            "vm.a b",
            "vm.a\nb",
            "vm.ä",
            "vm./..x",
        ] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_stands_for_all_comes_first_and_modules_are_known() {
        let os = os(r#"{"memory": {"swappiness": 5}, "kernel": {"sysctl": {"net.ipv4.conf.aa0.forwarding": 1,
            "net.ipv4.conf.all.forwarding": 1, "net.netfilter.nf_conntrack_max": 9, "net.bridge.bridge-nf-call-iptables": 1}}}"#);
        let settings = wanted(&os);
        assert_eq!(settings[0].name, "net.ipv4.conf.all.forwarding");
        assert!(settings.iter().any(|s| s.name == SWAPPINESS && s.value == "5"));
        assert_eq!(modules(&settings), ["nf_conntrack", "br_netfilter"]);
    }

    #[test]
    fn settings_are_there_first_and_what_was_before_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = kernel(dir.path(), &[("sys/vm/max_map_count", "65530\n"), ("sys/vm/page-cluster", "3\n")]);
        let wants = os(r#"{"kernel": {"sysctl": {"vm.max_map_count": 262144, "vm.nosuch": 1}}}"#);
        assert!(lay_down(&wants, &kernel).is_empty());
        let settings = wanted(&wants);
        assert_eq!(kernel.look(&settings[0]), Found::Wanted);
        assert!(matches!(kernel.look(&settings[1]), Found::Unreadable(why) if why.contains("no such")));
        assert_eq!(
            std::fs::read_to_string(kernel.run.join(WANTED)).unwrap(),
            "-vm/max_map_count = 262144\n-vm/nosuch = 1\n"
        );
        assert_eq!(std::fs::read_to_string(kernel.run.join(BEFORE)).unwrap(), "-vm/max_map_count = 65530\n");
        // The application finds them written, and what was before stays what it was.
        assert_eq!(kernel.write_files(&settings).unwrap(), Written::Unchanged);
        assert!(kernel.has_stayed("vm/max_map_count", "262144"));
        std::fs::create_dir(dir.path().join("image")).unwrap();
        std::fs::write(dir.path().join("image/10.conf"), "# x\nvm.max_map_count=262144\n").unwrap();
        assert!(!kernel.has_stayed("vm/max_map_count", "262144"));
        std::fs::remove_dir_all(dir.path().join("image")).unwrap();
        assert_eq!(kernel.write_files(&[]).unwrap(), Written::Changed);
        assert_eq!(std::fs::read_to_string(kernel.run.join(BEFORE)).unwrap(), "-vm/max_map_count = 65530\n");
        std::fs::write(kernel.proc.join("sys/vm/max_map_count"), "65530").unwrap();
        assert!(!kernel.has_stayed("vm/max_map_count", "262144"));
    }

    #[test]
    fn nothing_is_set_in_the_rescue_system() {
        let dir = tempfile::tempdir().unwrap();
        let kernel =
            kernel(dir.path(), &[("cmdline", "quiet systemd.unit=os-rescue.target\n"), ("sys/vm/max_map_count", "1")]);
        lay_down(&os(r#"{"kernel": {"sysctl": {"vm.max_map_count": 9}}}"#), &kernel);
        assert_eq!(std::fs::read_to_string(kernel.proc.join("sys/vm/max_map_count")).unwrap(), "1");
        assert!(!kernel.run.join(WANTED).exists());
    }

    #[test]
    fn what_the_kernel_made_of_a_setting_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let files = [("sys/net/ipv4/conf/default/forwarding", "0"), ("sys/fs/pipe-max-size", "1048576\n")];
        let kernel = kernel(dir.path(), &files);
        let settings = wanted(&os(r#"{"kernel": {"sysctl": {"fs.pipe-max-size": 1000000, "fs.nothing.x": 1,
            "net.ipv4.conf.wg0.forwarding": 1, "net.ipv4.conf.wg0.nosuch": 1, "net.ipv4.conf": 1}}}"#));
        let found: Vec<Found> = settings.iter().map(|setting| kernel.look(setting)).collect();
        assert!(matches!(&found[0], Found::Unreadable(_)));
        assert_eq!(found[1], Found::Other("1048576".to_owned()));
        assert!(matches!(&found[2], Found::Unreadable(why) if why.contains("group")), "{found:?}");
        assert_eq!(found[3], Found::NoInterface("wg0".to_owned()));
        assert!(matches!(&found[4], Found::Unreadable(why) if why.contains("no such")));
    }

    proptest! {
        #[test]
        fn no_name_leads_out_of_the_settings(name in "[a-z./_-]{0,24}|.{0,24}") {
            if let Some(path) = path(&name) {
                prop_assert!(path.split('/').count() > 1);
                prop_assert!(path.split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
                prop_assert_eq!(line(&format!("-{path} = 1")), Some((path, "1".to_owned())));
            }
        }
    }
}
