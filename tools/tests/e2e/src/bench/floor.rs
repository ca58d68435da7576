//! The floor: what the engine costs at least. Our kernel and our root slot, through the same firmware and GRUB, but an
//! initramfs of its own, whose only work is to load the modules that it needs, to mount the root and the data partition,
//! and to start containerd and dockerd. No systemd, no network, nothing else.
//!
//! Everything is taken from the image itself, so that any image has its floor.

use anyhow::{Context, Result, ensure};
use os_boot::start::Start;
use os_disk::table::{Partition, Table};
use os_sys::cmd::Cmd;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Modules without which the root and the data partition cannot be mounted and containers not be stored. What a kernel
/// has built in, it has not among its modules. Checksums come first: others ask for them without saying so.
const MODULES: &[&str] = &["virtio_blk", "crc32c_generic", "crc32c_intel", "erofs", "ext4", "overlay"];
/// And for dm-verity.
const VERITY_MODULES: &[&str] = &["dm_mod", "sha256_ssse3", "dm_verity"];

/// Process 1 of the initramfs. Its partitions and, with verity, the hash are put in as variables.
const INIT: &str = r#"
busybox mount -t devtmpfs dev /dev
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
while read -r module; do busybox insmod "/modules/$module"; done </modules/list
set -e
until [ -b "$data" ]; do busybox usleep 10000; done
if [ -n "$hash" ]; then
    DM_DISABLE_UDEV=1 veritysetup open "$root" floor "$root" "$hash" --hash-offset="$size"
    root=/dev/mapper/floor
fi
busybox mount -t erofs -o ro "$root" /sysroot
busybox mount -t ext4 -o noatime,nodev "$data" /sysroot/mnt/data
for dir in run tmp var; do busybox mount -t tmpfs "$dir" "/sysroot/$dir"; done
for dir in dev proc sys; do busybox mount --move "/$dir" "/sysroot/$dir"; done
busybox mount -t cgroup2 cgroup2 /sysroot/sys/fs/cgroup
busybox cp /floor /bin/busybox /sysroot/run
exec busybox switch_root /sysroot /run/busybox sh /run/floor
"#;

/// Process 1 of the root, by a shell that can wait without starting a program for it.
const FLOOR: &str = r#"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mkdir -p /var/lib /var/tmp
ln -s /run /var/run
mkfifo /run/nothing
# Waits for the socket of a program that runs.
socket() {
    until [ -S "$1" ]; do
        if ! kill -0 "$2"; then
            cat /run/log
            return 1
        fi
        read -r -t 0.05 nothing <>/run/nothing
    done
}
containerd >/run/log 2>&1 &
containerd=$!
socket /run/containerd/containerd.sock $containerd
dockerd --containerd=/run/containerd/containerd.sock >/run/log 2>&1 &
dockerd=$!
socket /run/docker.sock $dockerd
# The engine takes the question at once and answers when it can.
if docker version >/dev/null; then
    read -r line </proc/stat
    echo BENCH-DOCKER
    echo "BENCH-IDLE $line"
else
    cat /run/log
fi
kill $dockerd
wait $dockerd
kill $containerd
wait $containerd
umount /mnt/data
sync
echo o >/proc/sysrq-trigger
exec sleep 60
"#;

/// The disk images of the floor.
#[derive(Debug)]
pub(super) struct Floors {
    pub(super) plain: PathBuf,
    pub(super) verity: PathBuf,
    /// Its kernel is not told to be quiet.
    pub(super) firmware: PathBuf,
}

/// Makes them of an image of ours.
pub(super) fn build(image: &Path, dir: &Path) -> Result<Floors> {
    let dir = dir.join("floor");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    for name in ["initramfs", "slot.cfg"] {
        take(image, name, &dir.join(name))?;
    }
    let theirs = dir.join("theirs");
    unpack(&dir.join("initramfs"), &theirs)?;
    let text = os_sys::files::read_text(&dir.join("slot.cfg"))?;
    let slot = Start::parse(&text).context("slot.cfg of the image has another form")?;
    let (kernel, root, data) = (part(image, "os-kernelA")?, part(image, "os-rootA")?, part(image, "os-data")?);
    let device = |part: &Partition| format!("/dev/vda{}", part.number);
    let variables = format!("root={}\ndata={}\n", device(&root), device(&data));
    let value = |key: &str| -> Result<&str> {
        let found = slot.arguments.split_ascii_whitespace().find_map(|word| word.strip_prefix(key));
        found.with_context(|| format!("slot.cfg of the image has no {key}"))
    };
    let verity = format!("{variables}hash={}\nsize={}\n", value("os.roothash=")?, value("os.rootsize=")?);
    let maker = Maker { image, dir: &dir, theirs: &theirs, kernel, boot: part(image, "os-boot")? };
    let quiet = arguments(slot.arguments, true);
    let floors = Floors {
        plain: maker.disk("plain", &variables, MODULES, &quiet)?,
        verity: maker.disk("verity", &verity, &[MODULES, VERITY_MODULES].concat(), &quiet)?,
        firmware: maker.disk("firmware", &variables, MODULES, &arguments(slot.arguments, false))?,
    };
    fs::remove_dir_all(theirs)?;
    Ok(floors)
}

/// The slot's kernel arguments without those that are for os-init; with `quiet` as they are, else so that the kernel says
/// something as soon as it can.
fn arguments(slot: &str, quiet: bool) -> String {
    let ours =
        |word: &&str| !word.starts_with("os.") && (quiet || !(*word == "quiet" || word.starts_with("loglevel=")));
    let mut words: Vec<&str> = slot.split_ascii_whitespace().filter(ours).collect();
    if !quiet {
        words.push("earlycon=uart8250,io,0x3f8,115200");
    }
    words.join(" ")
}

/// What the disks are made of.
struct Maker<'a> {
    image: &'a Path,
    dir: &'a Path,
    theirs: &'a Path,
    kernel: Partition,
    boot: Partition,
}

impl Maker<'_> {
    /// The image with another initramfs, and GRUB with nothing to choose.
    fn disk(&self, name: &str, variables: &str, modules: &[&str], arguments: &str) -> Result<PathBuf> {
        let initramfs = initramfs(self.theirs, &self.dir.join(name), variables, modules)?;
        let config = self.dir.join("grub.cfg");
        let slot = format!("(hd0,gpt{})", self.kernel.number);
        fs::write(&config, format!("linux {slot}/vmlinuz {arguments}\ninitrd {slot}/initramfs\nboot\n"))?;
        let disk = self.dir.join(format!("{name}.img"));
        Cmd::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(self.image).arg(&disk).run()?;
        for (part, file, name) in [(&self.kernel, &initramfs, "initramfs"), (&self.boot, &config, "EFI/BOOT/grub.cfg")]
        {
            let target = format!("::{name}");
            Cmd::new("mcopy").arg("-o").arg("-i").arg(at(&disk, part)).arg(file).arg(target).run()?;
        }
        Ok(disk)
    }
}

/// Takes a file of slot A's kernel partition.
pub(super) fn take(image: &Path, name: &str, to: &Path) -> Result<()> {
    let kernel = part(image, "os-kernelA")?;
    Ok(Cmd::new("mcopy").arg("-o").arg("-i").arg(at(image, &kernel)).arg(format!("::{name}")).arg(to).run()?)
}

/// A partition of an image of ours.
pub(super) fn part(image: &Path, name: &str) -> Result<Partition> {
    let mut disk =
        File::open(image).with_context(|| format!("there is no {}; make image builds it", image.display()))?;
    let found = Table::read(&mut disk)?.partitions()?.into_iter().find(|part| part.name == name);
    found.with_context(|| format!("{} has no partition {name}", image.display()))
}

/// A filesystem inside an image, as mtools takes it.
fn at(image: &Path, part: &Partition) -> String {
    format!("{}@@{}", image.display(), part.start)
}

/// The program that unpacks a file which begins with these bytes.
fn unpacker(head: &[u8]) -> Option<&'static str> {
    match head {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
        [0x02, 0x21, 0x4c, 0x18, ..] | [0x04, 0x22, 0x4d, 0x18, ..] => Some("lz4"),
        [0x1f, 0x8b, ..] => Some("gzip"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Some("xz"),
        _ => None,
    }
}

/// Writes a file to `to` without its compression, if it has one.
fn decompress(file: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    match unpacker(&bytes) {
        Some(program) => {
            Cmd::new(program).args(["-d", "-c"]).stdin(File::open(file)?).stdout(File::create(to)?).run()?
        }
        None => fs::write(to, bytes)?,
    }
    Ok(())
}

fn unpack(initramfs: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let cpio = initramfs.with_extension("cpio");
    decompress(initramfs, &cpio)?;
    Cmd::new("cpio").dir(to).args(["-i", "-d", "--quiet"]).stdin(File::open(&cpio)?).run()?;
    fs::remove_file(cpio)?;
    Ok(())
}

/// Makes the initramfs, not compressed: reading it and unpacking it cost the same, and there is little of it.
fn initramfs(theirs: &Path, stage: &Path, variables: &str, modules: &[&str]) -> Result<PathBuf> {
    for dir in ["bin", "dev", "proc", "sys", "sysroot", "modules", "usr/bin", "usr/sbin", "run"] {
        fs::create_dir_all(stage.join(dir))?;
    }
    let script = format!("#!/bin/busybox sh\nexport PATH=/bin:/usr/sbin\n{variables}{INIT}");
    fs::write(stage.join("init"), script)?;
    fs::set_permissions(stage.join("init"), fs::Permissions::from_mode(0o755))?;
    fs::write(stage.join("floor"), FLOOR)?;
    let busybox = theirs.join("usr/bin/busybox");
    fs::copy(&busybox, stage.join("bin/busybox"))
        .context("the image's initramfs has no busybox; measure a development image")?;
    let tree = fs::read_dir(theirs.join("usr/lib/modules"))?.next().context("no modules")??.path();
    let paths = needed(&os_sys::files::read_text(&tree.join("modules.dep"))?, modules);
    ensure!(!paths.is_empty(), "{} has none of the modules {}", tree.display(), modules.join(" "));
    let mut list = String::new();
    for path in paths {
        // By this ending busybox sees that it has nothing to unpack.
        let name = format!("{}.ko", module_name(&path));
        decompress(&tree.join(path), &stage.join("modules").join(&name))?;
        list.push_str(&format!("{name}\n"));
    }
    fs::write(stage.join("modules/list"), list)?;
    if modules.contains(&"dm_verity") {
        programs(theirs, stage)?;
    }
    let cpio = stage.with_extension("cpio");
    let names = stage.with_extension("list");
    fs::write(&names, Cmd::new("find").dir(stage).args([".", "-mindepth", "1"]).read()?)?;
    Cmd::new("cpio")
        .dir(stage)
        .args(["--quiet", "-o", "-H", "newc", "-R", "0:0"])
        .stdin(File::open(&names)?)
        .stdout(File::create(&cpio)?)
        .run()?;
    Ok(cpio)
}

/// veritysetup, with every library of the image's initramfs: what else is among them is small.
fn programs(theirs: &Path, stage: &Path) -> Result<()> {
    fs::copy(theirs.join("usr/sbin/veritysetup"), stage.join("usr/sbin/veritysetup"))?;
    for dir in ["usr/lib", "usr/lib64"] {
        let Ok(entries) = fs::read_dir(theirs.join(dir)) else { continue };
        fs::create_dir_all(stage.join(dir))?;
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), stage.join(dir).join(entry.file_name()))?;
            }
        }
    }
    for (link, target) in [("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        symlink(target, stage.join(link))?;
    }
    Ok(())
}

/// Paths of modules and of what they need, in the order in which they are loaded.
fn needed(dep: &str, wanted: &[&str]) -> Vec<String> {
    let lines: BTreeMap<String, (&str, &str)> = dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (module_name(path), (path, needs)))
        .collect();
    let mut out: Vec<String> = Vec::new();
    for name in wanted {
        let Some((path, needs)) = lines.get(*name) else { continue };
        // modules.dep names the nearest first.
        for path in needs.split_ascii_whitespace().rev().chain([*path]) {
            if !out.iter().any(|known| known == path) {
                out.push(path.to_owned());
            }
        }
    }
    out
}

/// `kernel/fs/nls/nls_iso8859-1.ko.xz` → `nls_iso8859_1`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::probe;

    #[test]
    fn modules_are_loaded_after_what_they_need() {
        let dep = "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/fs/mbcache.ko.xz\n\
                   kernel/fs/jbd2/jbd2.ko.xz:\nkernel/fs/mbcache.ko.xz:\n\
                   kernel/drivers/md/dm-verity.ko.xz: kernel/drivers/md/dm-bufio.ko.xz kernel/drivers/md/dm-mod.ko.xz\n";
        assert_eq!(
            needed(dep, &["ext4", "built_in", "jbd2", "dm_verity"]),
            [
                "kernel/fs/mbcache.ko.xz",
                "kernel/fs/jbd2/jbd2.ko.xz",
                "kernel/fs/ext4/ext4.ko.xz",
                "kernel/drivers/md/dm-mod.ko.xz",
                "kernel/drivers/md/dm-bufio.ko.xz",
                "kernel/drivers/md/dm-verity.ko.xz"
            ]
        );
        assert_eq!(needed("", &["ext4"]), Vec::<String>::new());
    }

    #[test]
    fn compression_is_seen_by_the_first_bytes() {
        assert_eq!(unpacker(&[0x28, 0xb5, 0x2f, 0xfd, 0]), Some("zstd"));
        assert_eq!(unpacker(&[0x02, 0x21, 0x4c, 0x18, 0]), Some("lz4"));
        assert_eq!(unpacker(b"070701"), None);
        assert_eq!(unpacker(b""), None);
    }

    #[test]
    fn arguments_for_os_init_are_left_out() {
        let slot = "os.roothash=ab os.rootsize=4096 console=ttyS0,115200 quiet loglevel=4 panic=10";
        assert_eq!(arguments(slot, true), "console=ttyS0,115200 quiet loglevel=4 panic=10");
        assert_eq!(arguments(slot, false), "console=ttyS0,115200 panic=10 earlycon=uart8250,io,0x3f8,115200");
    }

    #[test]
    fn the_scripts_say_what_is_waited_for() {
        assert!(
            FLOOR.contains(&format!("echo {}", probe::DOCKER)) && FLOOR.contains(&format!("{} $line", probe::IDLE))
        );
    }
}
