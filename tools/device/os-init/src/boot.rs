//! The flow of the initramfs, from an empty machine to systemd in the root slot.
//!
//! Nothing here waits without saying so, and nothing formats what held data without being asked. When the root cannot
//! be mounted the machine restarts, so that the bootloader's counter gets it to the other slot; when state or data
//! cannot be mounted the device boots without them and says so.

mod find;
mod firmware;
mod furnish;
mod persistent;
mod volumes;

use crate::cmdline::Cmdline;
use crate::console;
use crate::disk::{self, BootDisk};
use crate::{logins, modules, nodes, wipe, zram};
use anyhow::{Context, Result, bail};
use furnish::Root;
use os_boot::tryboot::Started;
use os_config_model::sysctl::Kernel;
use os_facts::place::IMAGE_ETC;
use os_facts::protection::Protection;
use os_facts::report::Report;
use os_facts::{Role, WipeScope, clock, identity};
use os_sys::cmd::Cmd;
use os_sys::files;
use rustix::mount::{MountFlags, mount, mount_bind, mount_move};
use std::ffi::CString;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where the root slot is mounted before it becomes `/`.
const SYSROOT: &str = "/sysroot";
const BOOT: &str = "/sysroot/mnt/boot";
const STATE: &str = "/sysroot/mnt/state";
/// Where /var is made before it takes its place.
const NEW_VAR: &str = "/newvar";
const DATA: &str = "/sysroot/mnt/data";
/// The root slot behind dm-verity.
const VERITY: &str = "/dev/mapper/os-root";

/// How long a failure stays on the console before the machine restarts.
const REBOOT_DELAY: Duration = Duration::from_secs(10);

/// Runs as PID 1 of the initramfs. Returns only when it may not go on at all.
pub fn main() -> std::process::ExitCode {
    if std::process::id() != 1 {
        eprintln!("os-init boots the machine and runs only as process 1 of the initramfs.");
        return std::process::ExitCode::from(2);
    }
    let (cmdline, started) = match early() {
        Ok(early) => early,
        Err(err) => {
            console::error(&format!("{err:#}"));
            restart();
        }
    };
    if cmdline.probe {
        console::warn("probe ok");
        let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    }
    // `boot` returns only on failure: success is the exec of systemd.
    let Err(err) = boot(&cmdline, started);
    console::error(&format!("cannot boot slot {}: {err:#}", cmdline.slot));
    if cmdline.rescue {
        console::warn("os.rescue is set: here is a shell; the machine restarts when it ends");
        let _ = Command::new("/bin/sh").arg("-i").status();
    }
    restart()
}

fn restart() -> ! {
    console::error(&format!("restarting in {} seconds", REBOOT_DELAY.as_secs()));
    std::thread::sleep(REBOOT_DELAY);
    rustix::fs::sync();
    let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
    // PID 1 must not end: that would be a kernel panic, which at least restarts the machine too (panic=).
    std::process::abort()
}

fn fs(kind: &str, target: &str, flags: MountFlags, data: &str) -> Result<()> {
    std::fs::create_dir_all(target).with_context(|| format!("cannot create {target}"))?;
    let data = CString::new(data)?;
    mount(kind, target, kind, flags, Some(data.as_c_str())).with_context(|| format!("cannot mount {kind} on {target}"))
}

fn early() -> Result<(Cmdline, Option<Started>)> {
    let safe = MountFlags::NOSUID | MountFlags::NODEV;
    fs("devtmpfs", "/dev", MountFlags::NOSUID, "mode=0755")?;
    fs("proc", "/proc", safe | MountFlags::NOEXEC, "")?;
    fs("sysfs", "/sys", safe | MountFlags::NOEXEC, "")?;
    fs("tmpfs", "/run", safe, "mode=0755")?;
    let text = files::read_text(Path::new("/proc/cmdline"))?;
    let mut cmdline = Cmdline::parse(&text);
    for word in &cmdline.complaints {
        console::warn(&format!("kernel argument not understood: {word}"));
    }
    let started = firmware::started(&cmdline);
    cmdline.slot = started.map_or(cmdline.slot, |started| started.slot);
    Ok((cmdline, started))
}

fn boot(cmdline: &Cmdline, started: Option<Started>) -> Result<std::convert::Infallible> {
    let mut report = Report { slot: cmdline.slot, ..Report::default() };
    modules::load_named();
    console::info("looking for the disk");
    let find::Booted { disk, has_twin } = find::booted(cmdline, &mut report)?;
    console::info(&format!("booting from {}", disk.name));
    if let Some(started) = started {
        firmware::choose(started, &disk, &mut report)?;
    }
    mount_root(cmdline, &disk, &mut report)?;
    console::info("the root is mounted");
    read_less_ahead(&mut report);
    make_nodes(&mut report);
    if let Err(err) = mount_etc() {
        note(&mut report, format!("{err:#}; /etc is read-only and part of config.json cannot be applied"));
    }
    volumes::mount_boot(&disk, &mut report);
    let wipe = wipe::plan(Path::new(BOOT), cmdline.wipe);
    let (wipe_state, wipe_data) = wipe.erase.map_or((false, false), |what| (what.state(), what.data()));
    let state_done = !wipe_state || volumes::erase_state(&disk, !wipe_data, &mut report);
    let first_boot = volumes::mount_state(&disk, wipe_state && state_done, &mut report);
    if first_boot || has_twin {
        volumes::make_unique(&disk, &mut report);
    }
    console::info("state is mounted");
    match clock::raise(clock::floor(Path::new(SYSROOT), Path::new(STATE))) {
        Ok(was) => report.clock_was = was,
        Err(err) => note(&mut report, format!("the clock is behind and cannot be set: {err}")),
    }
    let root = Root { sysroot: SYSROOT.into(), run: "/run".into(), kernel: Kernel::default() };
    let config = root.configuration();
    let wanted = Protection::wanted(config.os.encryption.data.as_deref());
    let data_done = volumes::mount_data(&disk, wipe_data, first_boot, wanted, &mut report);
    let apps = wipe.erase != Some(WipeScope::Apps) || volumes::erase_apps(&mut report);
    let left = wipe::left(wipe.erase, state_done, data_done, apps);
    if let Err(err) = wipe::finish(Path::new(BOOT), &wipe, left) {
        note(&mut report, format!("what was wiped cannot be taken from its request, it will run again: {err}"));
    }
    console::info("data is mounted");
    root.identify(first_boot, &mut report);
    bind_machine_id(&mut report);
    root.lay_down(&config, &mut report);
    let persistent = persistent::prepare(&root.sysroot, &mut report);
    report.zram_swap = config.os.memory.zram_swap;
    if let Err(err) = mount_zram(report.zram_swap) {
        note(&mut report, format!("{err:#}; /var and /tmp are plain tmpfs"));
    }
    for entry in persistent {
        if let Err(err) = persistent::bind(&entry) {
            note(&mut report, format!("{} is not persistent in this boot: {err:#}", entry.path.display()));
        }
    }
    link_logins(&mut report);
    console::info("the root is ready");
    root.leave(&disk::udev_rules(&disk), &report)?;
    switch_root()
}

/// Says on the console what is wrong, and keeps it for `os status`.
fn note(report: &mut Report, text: String) {
    console::warn(&text);
    report.messages.push(text);
}

/// The same for what is done because somebody asked for it.
fn as_asked(report: &mut Report, what: &str) {
    let text = format!("{what}, as asked");
    console::warn(&text);
    report.notes.push(text);
}

fn mount_root(cmdline: &Cmdline, disk: &BootDisk, report: &mut Report) -> Result<()> {
    let name = Role::Root(cmdline.slot);
    let part = disk.part(name).with_context(|| format!("{} has no partition {name}", disk.name))?;
    let device = match &cmdline.verity {
        Some(verity) => {
            // Without a udev to answer, device-mapper must make its node itself.
            Cmd::new("veritysetup")
                .env("DM_DISABLE_UDEV", "1")
                .arg("open")
                .arg(&part.device)
                .arg("os-root")
                .arg(&part.device)
                .arg(&verity.root_hash)
                .arg(format!("--hash-offset={}", verity.data_size))
                .run()
                .with_context(|| format!("{name} is not what was signed"))?;
            report.verity = true;
            PathBuf::from(VERITY)
        }
        None => {
            note(report, "the root is not protected by dm-verity".to_owned());
            part.device.clone()
        }
    };
    std::fs::create_dir_all(SYSROOT)?;
    let mut last = None;
    for kind in ["erofs", "squashfs"] {
        match mount(&device, SYSROOT, kind, MountFlags::RDONLY, None) {
            Ok(()) => return Ok(()),
            Err(err) => last = Some(err),
        }
    }
    bail!("cannot mount {name} as erofs or squashfs: {}", last.map(|e| e.to_string()).unwrap_or_default())
}

/// How far the kernel reads ahead in the root, in KiB; its default is 128. Every block read is hashed, and of the engine's large
/// programs a start needs pages here and there.
const READ_AHEAD_KIB: u32 = 32;

fn read_less_ahead(report: &mut Report) {
    if !report.verity {
        return;
    }
    let set = || -> Result<()> {
        let device = std::fs::metadata(VERITY)?.rdev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        Ok(std::fs::write(format!("/sys/dev/block/{major}:{minor}/queue/read_ahead_kb"), READ_AHEAD_KIB.to_string())?)
    };
    if let Err(err) = set() {
        note(report, format!("cannot set how far the root is read ahead: {err:#}"));
    }
}

/// Device nodes whose drivers load when somebody opens them.
fn make_nodes(report: &mut Report) {
    let Ok(release) = files::read_text(Path::new("/proc/sys/kernel/osrelease")) else { return };
    let list = Path::new(SYSROOT).join("usr/lib/modules").join(release.trim()).join("modules.devname");
    // A kernel without modules has no list.
    let Ok(text) = files::read_text(&list) else { return };
    for problem in nodes::make(Path::new("/dev"), &nodes::parse(&text)) {
        note(report, problem);
    }
}

/// Puts a layer of RAM over `/etc`: programs write there what belongs to this boot, and the image's own comes back with
/// the next. Below it stays reachable as the image has it.
fn mount_etc() -> Result<()> {
    let etc = Path::new(SYSROOT).join("etc");
    std::fs::create_dir_all("/run/os/etc/upper")?;
    std::fs::create_dir_all("/run/os/etc/work")?;
    std::fs::set_permissions("/run/os/etc", std::fs::Permissions::from_mode(0o700))?;
    std::fs::create_dir_all(IMAGE_ETC)?;
    mount_bind(&etc, IMAGE_ETC).context("cannot bind the image's /etc")?;
    let options =
        CString::new(format!("lowerdir={},upperdir=/run/os/etc/upper,workdir=/run/os/etc/work", etc.display()))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("overlay", &etc, "overlay", flags, Some(options.as_c_str())).context("cannot put a layer over /etc")
}

/// Puts the machine id where systemd looks for it before anything else runs.
fn bind_machine_id(report: &mut Report) {
    let bound = mount_bind(Path::new(STATE).join(identity::MACHINE_ID), Path::new(SYSROOT).join("etc/machine-id"));
    if let Err(err) = bound {
        note(report, format!("cannot bind the machine id: {err}; this boot has a random one"));
    }
}

/// `/var` and `/tmp` on compressed RAM, and compressed swap.
fn mount_zram(swap: Option<u32>) -> Result<()> {
    let meminfo = files::read_text(Path::new("/proc/meminfo"))?;
    let sizes = zram::sizes(zram::ram(&meminfo).context("/proc/meminfo has no MemTotal")?, swap);
    let var = Path::new(SYSROOT).join("var");
    let mounted = zram::add(sizes.var).and_then(|device| zram::format(&device, "os-var").map(|()| device));
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    std::fs::create_dir_all(NEW_VAR)?;
    // The image's own /var is the template; it is copied before the mount hides it.
    match &mounted {
        Ok(device) => mount(device, NEW_VAR, "ext4", flags, Some(c"discard")),
        Err(_) => mount("tmpfs", NEW_VAR, "tmpfs", flags, Some(c"mode=0755")),
    }
    .context("cannot mount /var")?;
    persistent::copy_tree(&var, Path::new(NEW_VAR))?;
    let _ = std::fs::remove_dir(Path::new(NEW_VAR).join("lost+found"));
    mount_move(NEW_VAR, &var).context("cannot move /var")?;
    mounted?;
    let tmp = Path::new(SYSROOT).join("tmp");
    let device = zram::add(sizes.tmp)?;
    zram::format(&device, "os-tmp")?;
    mount(&device, &tmp, "ext4", flags, Some(c"discard")).context("cannot mount /tmp")?;
    let _ = std::fs::remove_dir(tmp.join("lost+found"));
    std::fs::set_permissions(&tmp, std::fs::Permissions::from_mode(0o1777))?;
    if sizes.swap > 0 {
        zram::swap_on(&zram::add(sizes.swap)?)?;
    }
    Ok(())
}

fn link_logins(report: &mut Report) {
    let linked = files::read_text(Path::new("/proc/cmdline"))
        .map_err(anyhow::Error::from)
        .and_then(|cmdline| Ok(logins::link(&cmdline, Path::new(logins::WANTS))?));
    if let Err(err) = linked {
        note(report, format!("no login on serial consoles: {err:#}"));
    }
}

fn switch_root() -> Result<std::convert::Infallible> {
    for dir in ["dev", "proc", "sys", "run"] {
        let target = Path::new(SYSROOT).join(dir);
        mount_move(format!("/{dir}"), &target).with_context(|| format!("cannot move /{dir}"))?;
    }
    // The initramfs is RAM: give it back. Only what is on its own filesystem, never a mount.
    if let Ok(root) = std::fs::metadata("/") {
        remove_tree(Path::new("/"), root.dev());
    }
    std::env::set_current_dir(SYSROOT)?;
    mount_move(SYSROOT, "/").context("cannot make the root slot the root")?;
    rustix::process::chroot(".").context("cannot change root")?;
    std::env::set_current_dir("/")?;
    let err = Command::new("/sbin/init").env_clear().exec();
    Err(err).context("cannot start /sbin/init")
}

fn remove_tree(dir: &Path, device: u64) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        if meta.dev() != device {
            continue;
        }
        if meta.is_dir() {
            remove_tree(&path, device);
            let _ = std::fs::remove_dir(&path);
        } else {
            let _ = std::fs::remove_file(&path);
        }
    }
}
