//! Measures what `docs/benchmarks.md` says, and writes it.
//!
//! Boot time and memory are taken beside a plain Debian with docker.io: the same kernel, the same virtual machine, the
//! same probe, which comes in through the firmware (systemd credentials) and not through either image.

mod deltas;
mod installs;

pub(crate) use deltas::{filesystems, section as deltas};
pub(crate) use installs::section as installs;

use anyhow::{Context, Result, bail};
use os_disk::kickstart;
use os_disk::layout::Layout;
use os_sys::cmd::Cmd;
use osctl::lab::{self, as_root, base::SUITE, bundle};
use osctl::qemu::{self, Accel, Machine};
use osctl::repo::Repo;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

const VARIANT: &str = "development";

/// Seconds between the engine's first answer and the look at memory.
const IDLE_SECS: u64 = 60;

/// What a boot showed.
struct Boot {
    /// Power-on to the engine's first answer.
    ready: Duration,
    /// Memory in use after [`IDLE_SECS`] of idling, in KiB.
    used_kib: u64,
    /// Resident memory of our own processes, in KiB.
    ours_kib: u64,
}

pub(crate) fn run(repo: &Repo) -> Result<()> {
    let dir = repo.build.join("bench");
    std::fs::create_dir_all(&dir)?;
    let image = repo.image(VARIANT);
    let bundle = bundle::build(repo, VARIANT, None)?;
    let accel = qemu::accel(repo, VARIANT)?;
    let (cold, warm) = build_times(repo)?;
    let ours = boot("ours", &overlay(&image, &dir.join("ours.qcow2"))?, &dir, accel)?;
    let debian_image = debian(repo, &dir)?;
    let debian = boot("debian", &overlay(&debian_image, &dir.join("debian.qcow2"))?, &dir, accel)?;

    let slot = repo.lab().join(VARIANT).join("slot");
    let size = |path: PathBuf| -> Result<String> {
        let bytes = std::fs::metadata(&path).with_context(|| format!("there is no {}", path.display()))?.len();
        Ok(format!("{:.1} MiB", bytes as f64 / 1048576.0))
    };
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("unknown").trim_matches([' ', '\t', ':']);
    let cores = cpu.lines().filter(|l| l.starts_with("processor")).count();
    let mut text = String::from("# Benchmarks\n\nMade by `make bench`; do not edit.\n\n");
    writeln!(text, "Host: {cores} × {model}. Guest: {} processors, 1 GiB, emulation {accel:?}.\n", accel.processors())?;
    writeln!(text, "| | |\n|---|---|")?;
    let cold = cold.map_or("not measured in this build directory".to_owned(), |seconds| format!("{seconds} s"));
    writeln!(text, "| build from nothing: Debian fetched, tools compiled (osctl itself is there) | {cold} |")?;
    writeln!(text, "| build again, nothing changed | {:.1} s |", warm.as_secs_f64())?;
    let vars = repo.vars()?;
    let name = |variable| osctl::repo::need(&vars, variable);
    writeln!(text, "| root slot ({}) | {} |", name("OS_ROOT_COMPRESSION")?, size(slot.join(name("OS_ROOT_IMAGE")?))?)?;
    writeln!(text, "| kernel | {} |", size(slot.join("vmlinuz"))?)?;
    writeln!(text, "| initramfs | {} |", size(slot.join("initramfs"))?)?;
    writeln!(text, "| tools on the device, one binary (lab profile, no LTO) | {} |", size(tools(repo))?)?;
    writeln!(text, "| disk image, sparse | {} |", size(image)?)?;
    writeln!(text, "| update bundle | {} |", size(bundle)?)?;
    writeln!(text, "\n## Beside a plain Debian {SUITE} with docker.io\n")?;
    writeln!(text, "Same kernel, same virtual machine, same probe. First boot of both.\n")?;
    writeln!(text, "| | ours | Debian | ratio |\n|---|---|---|---|")?;
    let (a, b) = (ours.ready.as_secs_f64(), debian.ready.as_secs_f64());
    writeln!(text, "| power-on to Docker answering | {a:.1} s | {b:.1} s | {:.2} |", a / b)?;
    let (a, b) = (ours.used_kib as f64 / 1024.0, debian.used_kib as f64 / 1024.0);
    writeln!(
        text,
        "| memory used {IDLE_SECS} s later (MemTotal - MemAvailable) | {a:.0} MiB | {b:.0} MiB | {:.2} |",
        a / b
    )?;
    writeln!(text, "| resident memory of our own processes then | {} KiB | | |", ours.ours_kib)?;
    text.push_str(&deltas::section(repo)?);
    if deltas::old_mirror().is_some() {
        text.push_str(&installs::section(repo)?);
    }
    os_sys::files::write_if_changed(&repo.root.join("docs/benchmarks.md"), text.as_bytes(), 0o644)?;
    println!("\n{text}");
    Ok(())
}

fn tools(repo: &Repo) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| repo.root.join("tools/target"), PathBuf::from)
        .join("lab/os-tools")
}

/// A build from nothing, if this build directory saw one, and one with nothing to do.
fn build_times(repo: &Repo) -> Result<(Option<u64>, Duration)> {
    let cold = std::fs::read_to_string(repo.lab().join(lab::COLD_BUILD)).ok().and_then(|text| text.parse().ok());
    let start = Instant::now();
    Cmd::new(std::env::current_exe()?.with_file_name("osctl")).args(["lab", "build", "--variant", VARIANT]).run()?;
    Ok((cold, start.elapsed()))
}

fn overlay(image: &Path, disk: &Path) -> Result<PathBuf> {
    let _ = std::fs::remove_file(disk);
    qemu::overlay(image, disk, 6 << 30)?;
    Ok(disk.to_owned())
}

/// The unit that looks: it says on the console when the engine answers, and later how much memory is in use.
fn probe() -> String {
    format!(
        "[Unit]\nAfter=docker.service\n[Service]\nType=exec\nExecStart=/bin/sh -c 'until docker version >/dev/null 2>&1; do \
         sleep 0.2; done; echo BENCH-READY >/dev/ttyS0; sleep {IDLE_SECS}; echo BENCH-USED $(awk \"/^MemTotal/{{t=\\$2}} \
         /^MemAvailable/{{a=\\$2}} END{{print t-a}}\" /proc/meminfo) >/dev/ttyS0; ours=0; for p in /proc/[0-9]*; do case \
         $(readlink $p/exe) in */os-tools) ours=$((ours + $(awk \"/^VmRSS/{{print \\$2}}\" $p/status)));; esac; done; \
         echo BENCH-OURS $ours BENCH-END >/dev/ttyS0'\n"
    )
    .replace('$', "$$")
    .replace("%", "%%")
}

fn boot(name: &str, disk: &Path, dir: &Path, accel: Accel) -> Result<Boot> {
    println!("Booting {name} …");
    let firmware_vars = dir.join(format!("{name}-vars.fd"));
    std::fs::copy(qemu::firmware()?.1, &firmware_vars)?;
    let credential = |key: &str, value: &str| -> Result<[String; 2]> {
        let encoded = Cmd::new("base64").arg("-w0").stdin(text_file(dir, value)?).read()?;
        Ok(["-smbios".to_owned(), format!("type=11,value=io.systemd.credential.binary:{key}={}", encoded.trim())])
    };
    let mut extra = Vec::new();
    extra.extend(credential("systemd.extra-unit.bench.service", &probe())?);
    extra.extend(credential("systemd.unit-dropin.multi-user.target", "[Unit]\nWants=bench.service\n")?);
    let machine = Machine {
        services: Vec::new(),
        disk: disk.to_owned(),
        format: "qcow2",
        firmware_vars,
        memory: 1024,
        cpus: accel.processors(),
        forwards: Vec::new(),
        isolated: true,
        sync: true,
        trace: None,
        accel,
        extra,
    };
    let start = Instant::now();
    let mut child = machine
        .command()?
        .args(["-display", "none", "-serial", "stdio", "-no-reboot"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdout = child.stdout.take().context("no console")?;
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(got @ 1..) = stdout.read(&mut buffer) {
            let text = String::from_utf8_lossy(buffer.get(..got).unwrap_or_default()).into_owned();
            if send.send((Instant::now(), text)).is_err() {
                return;
            }
        }
    });
    let (mut console, mut ready) = (String::new(), None);
    while start.elapsed() < Duration::from_secs(600) && !console.contains("BENCH-END") {
        if let Ok((at, text)) = receive.recv_timeout(Duration::from_secs(1)) {
            console.push_str(&text);
            if ready.is_none() && console.contains("BENCH-READY") {
                ready = Some(at - start);
            }
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    std::fs::write(dir.join(format!("{name}-console.log")), &console)?;
    let number = |mark: &str| -> Result<u64> {
        let after = console.split(mark).nth(1).and_then(|t| t.split_ascii_whitespace().next());
        after.and_then(|n| n.parse().ok()).with_context(|| format!("{name} did not say {mark}"))
    };
    let Some(ready) = ready else {
        bail!("{name}: the engine did not answer; see {name}-console.log in {}", dir.display())
    };
    Ok(Boot { ready, used_kib: number("BENCH-USED")?, ours_kib: number("BENCH-OURS")? })
}

fn text_file(dir: &Path, text: &str) -> Result<File> {
    let path = dir.join("text");
    std::fs::write(&path, text)?;
    Ok(File::open(path)?)
}

/// A Debian as its installer leaves it, with docker.io: GRUB, initramfs-tools, ifupdown, ssh.
fn debian(repo: &Repo, dir: &Path) -> Result<PathBuf> {
    let image = dir.join("debian.img");
    if image.exists() {
        return Ok(image);
    }
    println!("Making a Debian to compare with …");
    let mirror = std::env::var("OS_DEBIAN_MIRROR").ok().filter(|m| !m.is_empty());
    let mut cmd = Cmd::new("mmdebstrap")
        .args(["--variant=important", "--format=tar", "--aptopt=APT::Install-Recommends \"true\""])
        .arg("--include=linux-image-amd64,systemd-sysv,openssh-server,docker.io,docker-cli,ca-certificates")
        .arg(SUITE)
        .arg(dir.join("debian.tar"));
    if let Some(mirror) = mirror {
        cmd = cmd.arg(mirror);
    }
    cmd.run()?;
    let script = dir.join("make-debian");
    // One process under fakeroot, so that owners last from the archive to the filesystem.
    std::fs::write(
        &script,
        "set -e\ncd \"$1\"\nrm -rf tree\nmkdir tree\ntar -xpf debian.tar -C tree --exclude='./dev/*'\ncp tree/boot/vmlinuz-* vmlinuz\n\
         cp tree/boot/initrd.img-* initrd\nprintf 'auto lo\\niface lo inet loopback\\nallow-hotplug eth0\\niface eth0 inet dhcp\\n' \
         >tree/etc/network/interfaces\necho 'LABEL=root / ext4 defaults 0 1' >tree/etc/fstab\necho debian >tree/etc/hostname\n\
         rm -f root.img\ntruncate -s 3G root.img\nmke2fs -q -F -t ext4 -L root -d tree root.img\nrm -rf tree\n",
    )?;
    as_root("sh").arg(&script).arg(dir).run()?;
    std::fs::write(
        dir.join("grub.cfg"),
        "linux /vmlinuz root=LABEL=root console=ttyS0,115200 quiet net.ifnames=0\ninitrd /initrd\nboot\n",
    )?;
    let modules = osctl::repo::need(&repo.vars()?, "OS_GRUB_MODULES")?;
    Cmd::new("grub-mkimage")
        .args(["-O", "x86_64-efi", "-p", "/EFI/BOOT", "-o"])
        .arg(dir.join("bootx64.efi"))
        .args(modules.split_ascii_whitespace())
        .run()?;
    let esp = dir.join("esp.img");
    let _ = std::fs::remove_file(&esp);
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
    let text = "bootloader --ptable gpt\n\
        part --part-name esp --part-type C12A7328-F81F-11D2-BA4B-00A0C93EC93B --fixed-size 256M\n\
        part --part-name root --fixed-size 3G\n";
    let layout = Layout::plan(&kickstart::parse("debian", text)?)?;
    let fresh = dir.join("debian.new");
    let mut disk = File::options().read(true).write(true).create(true).truncate(true).open(&fresh)?;
    disk.set_len(layout.disk_size)?;
    layout.write_table(&mut disk)?;
    for (placed, source) in layout.parts.iter().zip([esp, dir.join("root.img")]) {
        lab::disk::copy_sparse(&mut File::open(source)?, &mut disk, placed.start)?;
    }
    disk.seek(SeekFrom::Start(0))?;
    disk.sync_all()?;
    std::fs::rename(fresh, &image)?;
    Ok(image)
}
