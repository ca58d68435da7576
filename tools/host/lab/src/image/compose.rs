//! Makes the root tree and what is cut from it. Runs as a process of its own, under fakeroot for a plain user, because
//! the files must belong to root and nothing else of the build has to.

use crate::image::{base, initramfs, modules, slot};
use crate::repo::{self, Repo};
use anyhow::{Context, Result, bail};
use os_sys::cmd::Cmd;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Links in /etc to what is there on a device alone, as os-base.bb makes them.
pub const LINKS: [(&str, &str); 2] =
    [("hostname", "../mnt/state/os/hostname"), ("resolv.conf", "../run/os/network/resolv.conf")];

/// Arguments of the process.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// `base.tar`
    #[arg(long)]
    pub base: PathBuf,
    /// Directory of the built tools
    #[arg(long)]
    pub tools: PathBuf,
    /// Certificate that bundles must be signed by
    #[arg(long)]
    pub keyring: PathBuf,
    /// Trusted root.json of the channel
    #[arg(long)]
    pub channel_root: PathBuf,
    /// Container archive to preload
    #[arg(long)]
    pub preload: Vec<PathBuf>,
    /// Variant
    #[arg(long)]
    pub variant: String,
    /// Seconds since the epoch for every timestamp
    #[arg(long)]
    pub epoch: u64,
    /// Output directory: root.erofs, vmlinuz, initramfs
    #[arg(long)]
    pub out: PathBuf,
}

/// Makes the tree and writes `root.erofs`, `vmlinuz` and `initramfs` to the output directory.
///
/// # Errors
/// When any step fails; the tree is removed in any case.
pub fn run(repo: &Repo, args: &Args) -> Result<()> {
    let tree = args.out.join("tree");
    fs::create_dir_all(&tree)?;
    let done = compose(repo, args, &tree).and_then(|()| cut(repo, args, &tree));
    let _ = fs::remove_dir_all(&tree);
    done
}

fn compose(repo: &Repo, args: &Args, tree: &Path) -> Result<()> {
    let vars = repo.vars()?;
    Cmd::new("tar").arg("-xpf").arg(&args.base).arg("-C").arg(tree).arg("--exclude=./dev/*").run()?;
    keep_for_later(tree, &args.out)?;
    if args.variant != "development" {
        leave_out(tree, &base::packages(repo, base::DEVELOPMENT)?, repo.arch.debian())?;
    }
    name_keymaps(&tree.join("usr/share/keymaps"))?;
    modules::unpack(repo, tree)?;
    let list = repo::list(&repo.data("remove.txt"))?;
    let keep: Vec<PathBuf> = list.iter().filter_map(|l| Some(tree.join(l.strip_prefix("keep ")?))).collect();
    for pattern in list.iter().filter(|l| !l.starts_with("keep ")) {
        remove(tree, pattern, &keep)?;
    }
    let files = repo.meta_os().join("recipes-core/os-base/files");
    for overlay in ["rootfs".to_owned(), format!("rootfs-{}", args.variant)] {
        let overlay = files.join(overlay);
        if overlay.is_dir() {
            copy_overlay(&overlay, tree)?;
        }
    }
    for (name, target) in LINKS {
        let link = tree.join("etc").join(name);
        let _ = fs::remove_file(&link);
        symlink(target, &link)?;
    }
    let manual = args.out.join("manual");
    os_cli::manual::write(&manual).with_context(|| format!("cannot write to {}", manual.display()))?;
    Cmd::new("make")
        .args(["--silent", "-C"])
        .arg(repo.root.join("tools"))
        .args(["install", "install-completion"])
        .arg(format!("DESTDIR={}", tree.display()))
        .arg(format!("BINDIR_FROM={}", args.tools.display()))
        .arg(format!("MANUAL_FROM={}", manual.display()))
        .run()?;
    fs::remove_dir_all(&manual)?;
    for dir in ["mnt/boot", "mnt/state", "mnt/data", "var/log/journal", "var/lib/bluetooth", "etc/rauc"] {
        fs::create_dir_all(tree.join(dir))?;
    }
    let system_conf = os_sys::files::read_text(&repo.meta_os().join("recipes-core/rauc/files/system.conf"))?;
    let compatible = repo::need(&vars, "OS_COMPATIBLE")?;
    write(tree, "etc/rauc/system.conf", &system_conf.replace("@OS_COMPATIBLE@", &compatible))?;
    let board = os_sys::files::read_text(&repo.meta_os().join("recipes-core/os-board/files/board.conf"))?;
    write(tree, "usr/lib/os/board.conf", &board.replace("@OS_BOOTLOADER@", &repo::need(&vars, "OS_BOOTLOADER")?))?;
    write(tree, "etc/rauc/keyring.pem", &os_sys::files::read_text(&args.keyring)?)?;
    write(tree, "etc/os/channel-root.json", &os_sys::files::read_text(&args.channel_root)?)?;
    if let Some(channel) = vars.get("OS_UPDATE_CHANNEL")?.filter(|channel| !channel.is_empty()) {
        write(tree, "etc/os/channel", &format!("{channel}\n"))?;
    }
    // As os_disk.bbclass.
    for file in slot::preloads(&args.preload)? {
        let preload = tree.join("usr/lib/os/preload");
        fs::create_dir_all(&preload)?;
        fs::copy(&file, preload.join(file.file_name().unwrap_or_default()))?;
    }
    let release = format!(
        "NAME=\"{name}\"\nID=os\nPRETTY_NAME=\"{name} {version} ({variant})\"\nVERSION_ID={version}\nVARIANT_ID={variant}\n\
         BUILD_ID=lab\nOS_MACHINE={machine}\nOS_COMPATIBLE={compatible}\n",
        name = repo::need(&vars, "OS_NAME")?,
        version = repo::need(&vars, "OS_VERSION")?,
        variant = args.variant,
        machine = repo.arch.machine(),
    );
    write(tree, "usr/lib/os-release", &release)?;
    // Debian's PAM reads it at every login, and says so where it is not there.
    write(tree, "etc/default/locale", "")?;
    // systemd-update-done(8): nothing is to be brought up to date. /etc and /var begin anew at every boot; without these
    // two, every boot would make the linker's cache, the users and the journal's catalog again.
    write(tree, "etc/.updated", "")?;
    write(tree, "var/.updated", "")?;
    // Turns on what the presets say and turns off everything that a package turned on by itself.
    Cmd::new("systemctl").arg("--root").arg(tree).arg("preset-all").run()?;
    Ok(())
}

/// Removes the files of packages; what dpkg knows of them tells which. Directories stay.
fn leave_out(tree: &Path, packages: &[String], arch: &str) -> Result<()> {
    let known = tree.join("var/lib/dpkg/info");
    for package in packages {
        let lists = [format!("{package}.list"), format!("{package}:{arch}.list")].map(|name| known.join(name));
        let list = lists.iter().find(|list| list.exists()).with_context(|| format!("{package} is not in the base"))?;
        for path in os_sys::files::read_text(list)?.lines() {
            let path = tree.join(path.trim_start_matches('/'));
            if path.symlink_metadata().is_ok_and(|meta| !meta.is_dir()) {
                fs::remove_file(path)?;
            }
        }
    }
    Ok(())
}

/// Kernel and busybox leave the tree before the tree becomes the root.
fn keep_for_later(tree: &Path, out: &Path) -> Result<()> {
    let boot = tree.join("boot");
    let kernel = fs::read_dir(&boot)?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz-")));
    let kernel = kernel.context("the base has no kernel in /boot")?;
    fs::copy(kernel, out.join("vmlinuz"))?;
    fs::copy(tree.join("usr/bin/busybox"), out.join("busybox"))?;
    Ok(())
}

/// localed looks for `NAME.map.gz`, and Debian calls them `NAME.kmap.gz`.
fn name_keymaps(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("the base has no keymaps in {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            name_keymaps(&path)?;
        } else if let Some(name) = path.to_str().and_then(|path| path.strip_suffix(".kmap.gz")) {
            fs::rename(&path, format!("{name}.map.gz"))?;
        }
    }
    Ok(())
}

fn write(tree: &Path, path: &str, content: &str) -> Result<()> {
    let path = tree.join(path);
    fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?)
}

/// Copies an overlay: every file belongs to root, is readable by all, and keeps its execute bit. A file replaces what
/// the base has there, a link too.
fn copy_overlay(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if !target.exists() {
                fs::create_dir(&target)?;
                fs::set_permissions(&target, fs::Permissions::from_mode(0o755))?;
            }
            copy_overlay(&source, &target)?;
            continue;
        }
        if target.symlink_metadata().is_ok() {
            fs::remove_file(&target)?;
        }
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else {
            fs::copy(&source, &target)?;
            let executable = entry.metadata()?.permissions().mode() & 0o111 != 0;
            fs::set_permissions(&target, fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
        }
    }
    Ok(())
}

/// Removes what matches `pattern` below `tree`, except `keep`; `*` matches within one name.
fn remove(tree: &Path, pattern: &str, keep: &[PathBuf]) -> Result<()> {
    if pattern.starts_with('/') || pattern.split('/').any(|p| p == "..") {
        bail!("remove.txt: '{pattern}' leaves the tree");
    }
    let mut found = vec![tree.to_owned()];
    for part in pattern.split('/') {
        let mut next = Vec::new();
        for dir in found {
            let Ok(entries) = fs::read_dir(&dir) else { continue };
            for entry in entries.flatten() {
                if matches(part, &entry.file_name().to_string_lossy()) {
                    next.push(entry.path());
                }
            }
        }
        found = next;
    }
    for path in found.into_iter().filter(|path| !keep.contains(path)) {
        let gone = if path.symlink_metadata()?.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// Shell-like matching with `*` only.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name
            .strip_prefix(head)
            .is_some_and(|rest| (0..=rest.len()).any(|i| rest.get(i..).is_some_and(|r| matches(tail, r)))),
    }
}

/// How the root filesystem is packed, beside its compression; os.conf says the same in `EXTRA_IMAGECMD`.
pub const EROFS: [&str; 4] = ["-C16384", "-Eztailpacking", "-U", ROOT_UUID];

fn cut(repo: &Repo, args: &Args, tree: &Path) -> Result<()> {
    let shell = (args.variant != "production").then(|| args.out.join("busybox"));
    initramfs::build(repo, tree, shell.as_deref(), args.epoch, &args.out)?;
    let compression = repo::need(&repo.vars()?, "OS_ROOT_COMPRESSION")?;
    // Fixed identifiers and times: the same input gives the same image. The device's identity is elsewhere.
    Cmd::new("mkfs.erofs")
        .arg(format!("-z{compression}"))
        .args(EROFS)
        .arg("-d0")
        .arg(format!("-T{}", args.epoch))
        .arg(args.out.join("root.erofs"))
        .arg(tree)
        .run()?;
    Ok(())
}

/// Identifier of every root filesystem; a slot is found by its partition, never by this.
const ROOT_UUID: &str = "6f732d72-6f6f-4000-8000-000000000001";

/// What the process depends on beside its arguments.
///
/// # Errors
/// When a file cannot be read.
pub fn inputs(repo: &Repo, inputs: crate::step::Inputs) -> Result<crate::step::Inputs> {
    let mut inputs = inputs.text(base::SUITE);
    for path in [
        "meta-os/recipes-core/os-base/files",
        "meta-os/recipes-core/rauc/files",
        "meta-os/recipes-core/os-board/files",
        "meta-os/conf/distro/include",
        "tools/host/lab/data",
        "tools/host/lab/src/image",
        "tools/host/slotmake/src",
        "tools/Makefile",
    ] {
        inputs = inputs.path(&repo.root.join(path))?;
    }
    // Units and D-Bus policies, which tools/Makefile installs.
    let crates = fs::read_dir(repo.root.join("tools/device"))?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut installed: Vec<PathBuf> =
        crates.flat_map(|dir| ["dist", "dbus"].map(|name| dir.join(name))).filter(|path| path.is_dir()).collect();
    installed.sort();
    for dir in installed {
        inputs = inputs.path(&dir)?;
    }
    Ok(inputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_within_one_name() {
        assert!(matches("a*c*", "abcd"));
        assert!(matches("*", ""));
        assert!(!matches("a*c", "abd"));
        let dir = tempfile::tempdir().unwrap();
        for path in ["etc/ssh/ssh_host_rsa", "etc/ssh/sshd_config", "usr/share/doc/x/y"] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        remove(dir.path(), "etc/ssh/*", &[dir.path().join("etc/ssh/sshd_config")]).unwrap();
        remove(dir.path(), "usr/share/doc", &[]).unwrap();
        remove(dir.path(), "no/such/thing*", &[]).unwrap();
        assert!(dir.path().join("etc/ssh/sshd_config").exists());
        assert!(!dir.path().join("etc/ssh/ssh_host_rsa").exists() && !dir.path().join("usr/share/doc").exists());
        assert!(remove(dir.path(), "../x", &[]).is_err());
    }

    #[test]
    fn an_overlay_replaces_files_and_links() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("etc")).unwrap();
        fs::create_dir_all(to.join("etc")).unwrap();
        fs::write(from.join("etc/a"), "new").unwrap();
        std::os::unix::fs::symlink("/nowhere", to.join("etc/a")).unwrap();
        std::os::unix::fs::symlink("/dev/null", from.join("etc/b")).unwrap();
        copy_overlay(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("etc/a")).unwrap(), "new");
        assert_eq!(fs::read_link(to.join("etc/b")).unwrap(), Path::new("/dev/null"));
    }
}
