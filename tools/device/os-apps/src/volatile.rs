//! Containers that keep data where it is gone after a restart: `/var`, `/tmp` and what is written over `/etc` are in RAM.

use bollard::models::{ContainerInspectResponse, MountPoint};
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Filesystems without anything behind them.
const IN_RAM: &[&str] = &["tmpfs", "ramfs", "rootfs"];
/// The compressed block devices in RAM.
const ZRAM: &str = "/dev/zram";
/// Where nobody looks for data that stays: sockets, devices, what the kernel shows, what is temporary by its name.
const KNOWN: &[&str] = &["/run", "/dev", "/proc", "/sys", "/tmp"];
/// The tree over which a layer in RAM lies, and the same as the image has it.
const ETC: &str = "/etc";

/// What is mounted (proc_pid_mountinfo(5)).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Mounts(Vec<Mount>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    kind: String,
    source: String,
    /// Where an overlay keeps what is written.
    upper: Option<PathBuf>,
}

impl Mounts {
    /// Reads the kernel's table; a line that is none is left out.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(mount).collect())
    }

    /// True when what is written at a path is in RAM.
    pub fn in_ram(&self, path: &Path) -> bool {
        self.in_ram_below(path, 4)
    }

    /// An overlay may lie on another one, but not without end.
    fn in_ram_below(&self, path: &Path, depth: u8) -> bool {
        // Of several at one place the last is seen.
        let above = self.0.iter().filter(|mount| path.starts_with(&mount.point));
        let Some(mount) = above.max_by_key(|mount| mount.point.components().count()) else { return false };
        let upper = || mount.upper.as_ref().zip(depth.checked_sub(1));
        IN_RAM.contains(&mount.kind.as_str())
            || mount.source.starts_with(ZRAM)
            || upper().is_some_and(|(upper, depth)| self.in_ram_below(upper, depth))
    }
}

fn mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    let (kind, source, options) = (after.next()?, after.next()?, after.next().unwrap_or_default());
    let upper = options.split(',').find_map(|option| option.strip_prefix("upperdir="));
    Some(Mount {
        point: unescaped(before.split(' ').nth(4)?).into(),
        kind: kind.to_owned(),
        source: unescaped(source),
        upper: upper.map(|path| unescaped(path).into()),
    })
}

/// The kernel writes blanks, newlines and backslashes in octal.
fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once('\\') {
        out.push_str(head);
        let code = tail.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(u8::is_ascii);
        match code {
            Some(byte) => out.push(char::from(byte)),
            None => out.push('\\'),
        }
        rest = if code.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    out + rest
}

/// The directories of the host that a container writes to and that are in RAM. `real` follows links, `is_data` is true for
/// directories and plain files, `in_image` for what the image has below `/etc`.
fn lost(
    mounts: &Mounts,
    container: &ContainerInspectResponse,
    real: impl Fn(&Path) -> PathBuf,
    is_data: impl Fn(&Path) -> bool,
    in_image: impl Fn(&Path) -> bool,
) -> Vec<String> {
    let given = container.mounts.iter().flatten().filter(|mount| is_of_host(mount) && mount.rw == Some(true));
    let lost = |source: &&str| {
        let path = real(Path::new(source));
        let known = KNOWN.iter().any(|known| path.starts_with(known));
        let of_image = path.strip_prefix(ETC).is_ok_and(&in_image);
        !known && !of_image && mounts.in_ram(&path) && is_data(&path)
    };
    let mut out: Vec<String> =
        given.filter_map(|mount| mount.source.as_deref()).filter(lost).map(str::to_owned).collect();
    out.sort();
    out.dedup();
    out
}

/// A directory of the host, or a volume, which may be one too; not a tmpfs, which somebody asked for by its name.
fn is_of_host(mount: &MountPoint) -> bool {
    matches!(mount.typ.as_deref(), Some("bind" | "volume"))
}

/// A path without links, as far as it is there.
fn real(path: &Path) -> PathBuf {
    let found =
        path.ancestors().find_map(|above| Some((fs::canonicalize(above).ok()?, path.strip_prefix(above).ok()?)));
    found.map_or_else(|| path.to_owned(), |(above, rest)| above.components().chain(rest.components()).collect())
}

/// The same on this device.
pub fn lost_here(containers: &[ContainerInspectResponse]) -> Vec<(String, String)> {
    let mounts = Mounts::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
    let is_data = |path: &Path| {
        // What is not there will be a directory.
        fs::metadata(path).map_or(true, |meta| {
            let kind = meta.file_type();
            !(kind.is_socket() || kind.is_fifo() || kind.is_char_device() || kind.is_block_device())
        })
    };
    let in_image = |path: &Path| fs::symlink_metadata(Path::new(os_facts::place::IMAGE_ETC).join(path)).is_ok();
    let mut out = Vec::new();
    for container in containers {
        let name = crate::meant::name(container).unwrap_or_default();
        out.extend(lost(&mounts, container, real, is_data, in_image).into_iter().map(|path| (name.clone(), path)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // The table of a device: the root, the layer over /etc, RAM, state and data with what is bound from them.
    const TABLE: &str = "\
22 1 254:0 / / ro,relatime - erofs /dev/mapper/os-root ro
23 22 0:21 / /proc rw,nosuid - proc proc rw
24 22 0:22 / /sys rw - sysfs sysfs rw
25 22 0:5 / /dev rw - devtmpfs devtmpfs rw,size=1k
26 22 0:23 / /run rw - tmpfs tmpfs rw
27 22 0:25 / /etc rw,nosuid - overlay overlay rw,lowerdir=/sysroot/etc,upperdir=/run/os/etc/upper,workdir=/run/os/etc/work
28 22 251:0 / /var rw,nosuid,nodev - ext4 /dev/zram0 rw,discard
29 22 251:1 / /tmp rw - ext4 /dev/zram1 rw
30 22 179:6 / /mnt/state rw - ext4 /dev/mmcblk0p6 rw
31 22 254:1 / /mnt/data rw - ext4 /dev/mapper/os-data rw
32 28 254:1 /os/persist/log /var/log/journal rw - ext4 /dev/mapper/os-data rw
33 22 179:6 /root /root rw - ext4 /dev/mmcblk0p6 rw
34 31 0:60 / /mnt/data/docker/overlay2/ab/merged rw - overlay overlay rw,lowerdir=/l,upperdir=/mnt/data/docker/overlay2/ab/diff
35 31 251:0 /lib/app /mnt/data/docker/volumes/hidden/_data rw - ext4 /dev/zram0 rw
36 22 8:1 / /media/my\\040stick rw - vfat /dev/sda1 rw
";

    fn container(mounts: &str) -> ContainerInspectResponse {
        serde_json::from_str(&format!(r#"{{"Name": "/app", "Mounts": [{mounts}]}}"#)).unwrap()
    }

    fn bind(source: &str) -> String {
        format!(r#"{{"Type": "bind", "Source": "{source}", "Destination": "/d", "RW": true}}"#)
    }

    fn found(mounts: &str) -> Vec<String> {
        let real = |path: &Path| match path.strip_prefix("/var/run") {
            Ok(rest) => Path::new("/run").join(rest),
            Err(_) => path.to_owned(),
        };
        let is_data = |path: &Path| path != Path::new("/var/lib/app/app.sock");
        let in_image = |path: &Path| matches!(path.to_str(), Some("localtime" | "ssl/certs"));
        lost(&Mounts::parse(TABLE), &container(mounts), real, is_data, in_image)
    }

    #[test]
    fn data_in_ram_is_named() {
        for path in ["/var/lib/app", "/var", "/var/log", "/etc/app", "/var/lib/docker/volumes/x", "/var/lib/app/file"] {
            assert_eq!(found(&bind(path)), [path], "{path}");
        }
        let hidden =
            r#"{"Type": "volume", "Name": "hidden", "Source": "/mnt/data/docker/volumes/hidden/_data", "RW": true}"#;
        assert_eq!(found(hidden).len(), 1);
        assert_eq!(found(&[bind("/var/b"), bind("/var/a"), bind("/var/b")].join(",")), ["/var/a", "/var/b"]);
    }

    #[test]
    fn what_stays_and_what_is_known_to_go_is_not() {
        for path in [
            "/mnt/data/apps/x",
            "/mnt/state/x",
            "/root/x",
            "/var/log/journal",
            "/usr/share/x",
            "/",
            "/opt",
            "/media/my stick/x",
            "/var/run/docker.sock",
            "/run/docker.sock",
            "/run/udev",
            "/dev",
            "/dev/ttyUSB0",
            "/sys/class/gpio",
            "/proc",
            "/tmp",
            "/tmp/.X11-unix",
            "/etc/localtime",
            "/etc/ssl/certs",
            "/var/lib/app/app.sock",
            "/mnt/data/docker/overlay2/ab/merged/x",
        ] {
            assert_eq!(found(&bind(path)), Vec::<String>::new(), "{path}");
        }
        let read_only = r#"{"Type": "bind", "Source": "/var/lib/app", "RW": false}"#;
        let asked_for = r#"{"Type": "tmpfs", "Source": "", "Destination": "/var/lib/app", "RW": true}"#;
        assert_eq!(found(&[read_only, asked_for].join(",")), Vec::<String>::new());
    }

    #[test]
    fn without_its_partition_data_is_in_ram_too() {
        let table = TABLE.replace("ext4 /dev/mmcblk0p6", "tmpfs tmpfs");
        assert!(Mounts::parse(&table).in_ram(Path::new("/mnt/state/x")));
        assert!(!Mounts::parse(TABLE).in_ram(Path::new("/mnt/state/x")));
        // An overlay over itself ends.
        let itself = Mounts::parse("1 1 0:1 / /a rw - overlay overlay rw,upperdir=/a/b");
        assert!(!itself.in_ram(Path::new("/a/b")));
    }

    #[test]
    fn links_are_followed_as_far_as_the_path_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir(base.join("run")).unwrap();
        std::os::unix::fs::symlink("run", base.join("link")).unwrap();
        assert_eq!(real(&base.join("link/a/b")), base.join("run/a/b"));
        assert_eq!(real(&base.join("link")), base.join("run"));
        assert_eq!(real(Path::new("/")), Path::new("/"));
    }

    proptest! {
        #[test]
        fn any_table_is_read(text in ".{0,200}", path in "/[a-z/\\\\0-9]{0,30}") {
            let _ = Mounts::parse(&text).in_ram(Path::new(&path));
            let _ = unescaped(&text);
        }

        #[test]
        fn a_name_comes_back_as_it_was(name in "[a-z \\\\\n\t]{0,20}") {
            let escaped: String = name
                .chars()
                .map(|c| if matches!(c, ' ' | '\\' | '\n' | '\t') { format!("\\{:03o}", u32::from(c)) } else { c.to_string() })
                .collect();
            prop_assert_eq!(unescaped(&escaped), name);
        }
    }
}
