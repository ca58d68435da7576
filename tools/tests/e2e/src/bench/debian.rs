//! The Debian to compare with: as its installer leaves it with docker.io, and the demo container that an administrator
//! has it run. GRUB, initramfs-tools, ifupdown, ssh; GRUB does not wait.

use anyhow::{Context, Result};
use lab::image::{self, as_root, base::SUITE};
use lab::repo::Repo;
use os_layout::kickstart;
use os_layout::layout::Layout;
use os_sys::cmd::Cmd;
use os_sys::files::read_text;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// Packages that are asked for beside those of Debian's priority "important".
const PACKAGES: &str = "linux-image-amd64,systemd-sysv,openssh-server,docker.io,docker-cli,ca-certificates";

/// One process under fakeroot, so that owners last from the archive to the filesystem. The machine has its identity, as
/// after an installation: without, its first boot would do more.
const MAKE: &str = r#"set -e
cd "$1"
rm -rf tree
mkdir tree
tar -xpf debian.tar -C tree --exclude='./dev/*'
cp tree/boot/vmlinuz-* vmlinuz
cp tree/boot/initrd.img-* initrd
printf 'auto lo\niface lo inet loopback\nallow-hotplug eth0\niface eth0 inet dhcp\n' >tree/etc/network/interfaces
echo 'LABEL=root / ext4 defaults 0 1' >tree/etc/fstab
echo debian >tree/etc/hostname
tr -d - </proc/sys/kernel/random/uuid >tree/etc/machine-id
cp hello.tar tree/root/hello.tar
cp hello.service tree/etc/systemd/system/hello.service
ln -s ../hello.service tree/etc/systemd/system/multi-user.target.wants/hello.service
rm -f root.img
truncate -s 3G root.img
mke2fs -q -F -t ext4 -L root -d tree root.img
rm -rf tree
"#;

/// At its first boot; later the engine starts the container itself.
const HELLO: &str = "[Unit]\nDescription=Load and start the demo container\nRequires=docker.service\nAfter=docker.service\n\
    ConditionPathExists=/root/hello.tar\n[Service]\nType=oneshot\nExecStart=/usr/bin/docker load -q -i /root/hello.tar\n\
    ExecStart=/usr/bin/docker run -d --name hello --restart unless-stopped -p 80:8080 hello:1\n\
    ExecStart=/usr/bin/rm /root/hello.tar\n";

const GRUB: &str = "linux /vmlinuz root=LABEL=root console=ttyS0,115200 quiet net.ifnames=0\ninitrd /initrd\nboot\n";

const LAYOUT: &str = "bootloader --ptable gpt\n\
    part --fstype none --part-name esp --part-type C12A7328-F81F-11D2-BA4B-00A0C93EC93B --fixed-size 256M\n\
    part --fstype none --part-name root --fixed-size 3G\n";

/// Its disk image, made with the demo container of an image of ours; kept while nothing of it changes.
pub(super) fn build(repo: &Repo, ours: &Path, dir: &Path) -> Result<PathBuf> {
    let image = dir.join("debian.img");
    let archive = dir.join("debian.tar");
    if !archive.exists() {
        fetch(&archive)?;
    }
    demo(ours, &dir.join("hello.tar"))?;
    let stamp = dir.join("debian.stamp");
    let mut hasher = DefaultHasher::new();
    (MAKE, HELLO, GRUB, LAYOUT, fs::metadata(&archive)?.modified()?, fs::read(dir.join("hello.tar"))?)
        .hash(&mut hasher);
    let now = hasher.finish().to_string();
    if image.exists() && fs::read_to_string(&stamp).is_ok_and(|then| then == now) {
        return Ok(image);
    }
    println!("Making a Debian to compare with …");
    fs::write(dir.join("hello.service"), format!("{HELLO}[Install]\nWantedBy=multi-user.target\n"))?;
    fs::write(dir.join("make-debian"), MAKE)?;
    as_root("sh").arg(dir.join("make-debian")).arg(dir).run()?;
    let esp = esp(repo, dir)?;
    let layout = Layout::plan(&kickstart::parse("debian", LAYOUT)?)?;
    let fresh = dir.join("debian.new");
    let mut disk = File::options().read(true).write(true).create(true).truncate(true).open(&fresh)?;
    disk.set_len(layout.disk_size)?;
    layout.write_table(&mut disk)?;
    let root = dir.join("root.img");
    for (placed, source) in layout.parts.iter().zip([&esp, &root]) {
        image::disk::copy_sparse(&mut File::open(source)?, &mut disk, placed.start)?;
    }
    disk.sync_all()?;
    fs::remove_file(root)?;
    fs::rename(fresh, &image)?;
    fs::write(stamp, now)?;
    Ok(image)
}

/// True when Debian's kernel is the one of an image of ours.
pub(super) fn same_kernel(ours: &Path, dir: &Path) -> Result<bool> {
    let kernel = dir.join("kernel");
    super::floor::take(ours, "vmlinuz", &kernel)?;
    Ok(fs::read(dir.join("vmlinuz"))? == fs::read(kernel)?)
}

fn fetch(archive: &Path) -> Result<()> {
    println!("Fetching a Debian to compare with …");
    let fresh = archive.with_extension("new.tar");
    let mirror = std::env::var("OS_DEBIAN_MIRROR").ok().filter(|m| !m.is_empty());
    let mut cmd = Cmd::new("mmdebstrap")
        .args(["--variant=important", "--format=tar", "--aptopt=APT::Install-Recommends \"true\""])
        .arg(format!("--include={PACKAGES}"))
        .arg(SUITE)
        .arg(&fresh);
    if let Some(mirror) = mirror {
        cmd = cmd.arg(mirror);
    }
    cmd.run().context("mmdebstrap could not fetch Debian; check the network, or name a mirror in OS_DEBIAN_MIRROR")?;
    Ok(fs::rename(fresh, archive)?)
}

/// Takes the demo container's archive out of the data partition of an image.
fn demo(image: &Path, to: &Path) -> Result<()> {
    let data = super::floor::part(image, "os-data")?;
    // debugfs ends well when it finds nothing, so the file must not be there before.
    let _ = fs::remove_file(to);
    Cmd::new("debugfs")
        .arg("-R")
        .arg(format!("dump /preload/hello.tar {}", to.display()))
        .arg(format!("{}?offset={}", image.display(), data.start))
        .run()?;
    let size = fs::metadata(to).map(|meta| meta.len()).unwrap_or_default();
    anyhow::ensure!(size > 0, "the data partition of {} has no preload/hello.tar", image.display());
    Ok(())
}

/// The EFI partition, with the same modules of GRUB as ours.
fn esp(repo: &Repo, dir: &Path) -> Result<PathBuf> {
    fs::write(dir.join("grub.cfg"), GRUB)?;
    let modules = lab::repo::need(&repo.vars()?, "OS_GRUB_MODULES")?;
    Cmd::new("grub-mkimage")
        .args(["-O", "x86_64-efi", "-p", "/EFI/BOOT", "-o"])
        .arg(dir.join("bootx64.efi"))
        .args(modules.split_ascii_whitespace())
        .run()?;
    let esp = dir.join("esp.img");
    let _ = fs::remove_file(&esp);
    File::create(&esp)?.set_len(256 << 20)?;
    Cmd::new("mkfs.vfat").arg(&esp).run()?;
    Cmd::new("mmd").arg("-i").arg(&esp).args(["::EFI", "::EFI/BOOT"]).run()?;
    for (file, target) in [
        ("bootx64.efi", "EFI/BOOT/bootx64.efi"),
        ("grub.cfg", "EFI/BOOT/grub.cfg"),
        ("vmlinuz", "vmlinuz"),
        ("initrd", "initrd"),
    ] {
        Cmd::new("mcopy").arg("-i").arg(&esp).arg(dir.join(file)).arg(format!("::{target}")).run()?;
    }
    Ok(esp)
}

/// Our kernel settings of the memory management, for a Debian with the same ones.
pub(super) fn settings(repo: &Repo) -> Result<String> {
    let path = repo.meta_os().join("recipes-core/os-base/files/rootfs/etc/sysctl.d/10-os.conf");
    Ok(memory_settings(&read_text(&path)?))
}

fn memory_settings(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| line.starts_with("vm.")).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_those_of_memory() {
        let text = "# vm.x = 1\nkernel.panic = 10\nvm.swappiness = 100\n  vm.page-cluster = 0\nnet.x = 1\n";
        assert_eq!(memory_settings(text), "vm.swappiness = 100\nvm.page-cluster = 0\n");
    }

    #[test]
    fn the_layout_is_one_that_can_be_written() {
        let layout = Layout::plan(&kickstart::parse("debian", LAYOUT).unwrap()).unwrap();
        assert_eq!(layout.parts.iter().map(|part| part.name()).collect::<Vec<_>>(), ["esp", "root"]);
    }
}
