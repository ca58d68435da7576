//! What both build lanes must agree on, compared.

use crate::crates_inc::RECIPES;
use anyhow::{Context, Result, ensure};
use lab::image::{base, bundle, compose, disk};
use lab::repo::{self, Repo};
use os_boot::{Bootloader, tryboot};
use os_config_model::keys::KEYS;
use os_disk::ext4::MKFS;
use os_facts::{Role, Slot};
use os_init::needs::{NEEDS, When, modules};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

/// Runs every comparison and prints one line for each.
///
/// # Errors
/// When a file that is compared cannot be read.
pub fn run(repo: &Repo) -> Result<ExitCode> {
    type Comparison = fn(&Repo) -> Result<()>;
    let comparisons: &[(&str, Comparison)] = &[
        ("package lists of lab and image recipe", packages),
        ("layout: order, alignment, size", layout),
        ("slots of RAUC's system.conf are partitions of the layout", slots),
        ("packing, seal and bundle of a slot", sealed),
        ("addresses of the engine and their keys", bridge),
        ("what the OS needs of a kernel", kernel),
        ("docs/status.md and docs/kconfig.json", crate::kconfig::check),
        ("grub.cfg, boot.cmd, boot files and counters", boot),
        ("links in /etc", links),
        ("units of the tools and SYSTEMD_SERVICE of the recipe", units),
        ("crates that recipes are given", sources),
        ("initramfs programs of both lanes", initramfs),
        ("docs/config.md and config.schema.json", config_docs),
        ("dependencies of the crates are used", dependencies),
        ("pages and links of docs/", crate::pages::check),
        ("Documentation= of our units", crate::pages::of_units),
        ("partitions of docs/architecture.svg", picture),
    ];
    let mut failed = 0;
    for (name, compare) in comparisons {
        match compare(repo) {
            Ok(()) => os_sys::say!("ok      {name}"),
            Err(err) => {
                failed += 1;
                os_sys::say!("FAILED  {name}: {err:#}");
            }
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn read(repo: &Repo, path: &str) -> Result<String> {
    Ok(os_sys::files::read_text(&repo.root.join(path))?)
}

/// The words of a quoted, continued BitBake assignment.
fn assignment(text: &str, name: &str) -> Result<BTreeSet<String>> {
    let start = text.find(&format!("\n{name} ")).with_context(|| format!("no assignment of {name}"))?;
    let rest = text.get(start..).and_then(|t| t.split_once('"')).map(|(_, rest)| rest);
    let value = rest.and_then(|r| r.split('"').next()).with_context(|| format!("{name} has no value"))?;
    Ok(value.split_ascii_whitespace().filter(|w| *w != "\\").map(str::to_owned).collect())
}

fn same(what: &str, left: &BTreeSet<String>, right: &BTreeSet<String>) -> Result<()> {
    let only_left: Vec<_> = left.difference(right).cloned().collect();
    let only_right: Vec<_> = right.difference(left).cloned().collect();
    ensure!(
        only_left.is_empty() && only_right.is_empty(),
        "{what}: only in the first: [{}], only in the second: [{}]",
        only_left.join(" "),
        only_right.join(" ")
    );
    Ok(())
}

fn packages(repo: &Repo) -> Result<()> {
    // The tools and their configuration are not packages in the lab.
    let ours = ["os-base", "os-board", "os-manual-bash-completion", "os-tools"].map(str::to_owned);
    compare_packages(repo, base::LIST, "packagegroup-os", ours.into())?;
    compare_packages(repo, base::DEVELOPMENT, "packagegroup-os-development", BTreeSet::new())
}

fn compare_packages(repo: &Repo, list: &str, group: &str, mut lab: BTreeSet<String>) -> Result<()> {
    for line in repo::list(&repo.data(list))? {
        let (_, yocto) = line.split_once(':').with_context(|| format!("no colon in: {line}"))?;
        lab.extend(yocto.split_ascii_whitespace().filter(|n| *n != "-").map(str::to_owned));
    }
    let recipe = read(repo, &format!("meta-os/recipes-core/packagegroups/{group}.bb"))?;
    // Empty for a release that its layer has no branch for.
    let recipe = recipe.replace("${OS_APPARMOR}", "apparmor");
    same(&format!("{list} and {group}"), &lab, &assignment(&recipe, "RDEPENDS:${PN}")?)
}

fn layout(repo: &Repo) -> Result<()> {
    let vars = repo.vars()?;
    let smallest = repo::room(&vars, "OS_SMALLEST_DISK")?.bytes;
    // A card sold as 4 GB has 4 * 10^9 bytes.
    let smallest = smallest / (1 << 30) * 1_000_000_000;
    let templates = TEMPLATES.map(|name| Ok::<_, anyhow::Error>((name, disk::template(repo, &vars, name)?)));
    let [gpt, mbr] = templates;
    let (gpt, mbr) = (gpt?, mbr?);
    for (template, layout) in [&gpt, &mbr] {
        let names: Vec<&str> = layout.parts.iter().map(|p| p.name()).collect();
        let wanted = Role::EACH.map(|role| role.to_string());
        ensure!(names == wanted, "{template}: partitions are {names:?}; the bootloader and RAUC count on {wanted:?}");
        for part in &layout.parts {
            ensure!(
                part.start % (4 << 20) == 0,
                "{template}: {} starts at {}, no multiple of 4 MiB",
                part.name(),
                part.start
            );
        }
        let size = |name: &str| layout.find(name).map(|p| p.part.size);
        let equal = size("os-kernelA") == size("os-kernelB") && size("os-rootA") == size("os-rootB");
        ensure!(equal, "{template}: slots differ in size");
        let bytes = layout.disk_size;
        ensure!(bytes <= smallest, "{template}: the image has {bytes} bytes, the smallest medium {smallest}");
    }
    for (gpt, mbr) in gpt.1.parts.iter().zip(&mbr.1.parts) {
        let (left, right) = (&gpt.part, &mbr.part);
        let same = left.source == right.source
            && left.label == right.label
            && left.mkfs_options == right.mkfs_options
            && (left.size, left.align) == (right.size, right.align);
        ensure!(same, "{} differs between {}", gpt.name(), TEMPLATES.join(" and "));
        let slot = gpt.name().starts_with("os-kernel");
        ensure!(!slot || gpt.number == mbr.number, "{} has two numbers; grub.cfg and boot.cmd know one", gpt.name());
    }
    Ok(())
}

/// The kickstart templates: a disk with a GPT, and one with an MBR.
const TEMPLATES: [&str; 2] = ["os-gpt.wks.in", "os-mbr.wks.in"];

fn slots(repo: &Repo) -> Result<()> {
    let layout = disk::layout(repo, &repo.vars()?)?;
    let conf = read(repo, "meta-os/recipes-core/rauc/files/system.conf")?;
    let mut seen = 0;
    for device in conf.lines().filter_map(|l| l.strip_prefix("device=")) {
        let name =
            device.strip_prefix("/dev/disk/os/").with_context(|| format!("{device} is not below /dev/disk/os"))?;
        ensure!(layout.find(name).is_some(), "{device} is no partition of the layout");
        seen += 1;
    }
    ensure!(seen == 4, "{seen} slots");
    Ok(())
}

/// The engine's bridge as the image has it, and as the reference of config.json says it.
fn bridge(repo: &Repo) -> Result<()> {
    let text = read(repo, "meta-os/recipes-core/os-base/files/rootfs/etc/docker/daemon.json")?;
    let daemon: serde_json::Value = serde_json::from_str(&text)?;
    let said = |place: &str| {
        let text = daemon.pointer(place).and_then(serde_json::Value::as_str);
        text.with_context(|| format!("daemon.json has no {place}"))
    };
    let default = |pointer: &str| {
        let key =
            KEYS.iter().find(|key| key.pointer == pointer).with_context(|| format!("there is no key {pointer}"))?;
        anyhow::Ok(key.default)
    };
    let (bip, named) = (said("/bip")?, default("/os/docker/bridge")?);
    ensure!(named == bip, "os.docker.bridge is {named} by default, and the image's bip {bip}");
    ensure!(
        daemon.get("dns").is_none(),
        "daemon.json has dns; containers take resolv.conf, which serves every kind of network"
    );
    let (base, named) = (said("/default-address-pools/0/base")?, default("/os/docker/addressPools")?);
    ensure!(named.contains(base), "os.docker.addressPools is {named} by default, not from {base}");
    Ok(())
}

/// What PID 1 and the image load by name: Yocto's kernels have it, and the lab's initramfs and image hold it.
fn kernel(repo: &Repo) -> Result<()> {
    let options = read(repo, "meta-os/files/kernel/os.cfg")?;
    for option in NEEDS.iter().filter_map(|need| need.option) {
        let line = format!("{option}=y");
        ensure!(options.lines().any(|found| found == line), "os.cfg has no {line}");
    }
    let holds = |list: &str, when| -> Result<()> {
        let lines = repo::list(&repo.data(list))?;
        let missing: Vec<_> = modules(when).filter(|name| !lines.contains(&format!("module {name}"))).collect();
        ensure!(missing.is_empty(), "{list} has no {}", missing.join(", "));
        Ok(())
    };
    holds("initramfs.txt", When::Boot)?;
    holds("modules.txt", When::Containers)?;
    let rootfs = repo.root.join("meta-os/recipes-core/os-base/files/rootfs");
    let loaded = repo::list(&rootfs.join("usr/lib/modules-load.d/os.conf"))?.into_iter().collect();
    same("modules-load.d and os-init's needs", &loaded, &modules(When::Containers).map(str::to_owned).collect())
}

fn sealed(repo: &Repo) -> Result<()> {
    let distro = assignment(&read(repo, "meta-os/conf/distro/os.conf")?, "EXTRA_IMAGECMD:erofs")?;
    let mut lab: BTreeSet<String> = compose::EROFS.map(str::to_owned).into();
    lab.insert("-z${OS_ROOT_COMPRESSION}".to_owned());
    same("mkfs.erofs and os.conf", &lab, &distro)?;
    let data = repo::need(&repo.vars()?, "OS_DATA_MKFS_OPTIONS")?;
    ensure!(
        data.split_ascii_whitespace().eq(MKFS.iter().copied()),
        "OS_DATA_MKFS_OPTIONS is {data}; the initramfs makes data with {}",
        MKFS.join(" ")
    );
    let bundle = read(repo, "meta-os/dynamic-layers/rauc/recipes-core/bundles/os-bundle.bb")?;
    for option in [format!("[adaptive] = \"{}\"", bundle::ADAPTIVE), format!("-b {}", bundle::BLOCK)] {
        ensure!(bundle.contains(&option), "os-bundle.bb has no {option}");
    }
    Ok(())
}

fn boot(repo: &Repo) -> Result<()> {
    let layout = disk::layout(repo, &repo.vars()?)?;
    let cfg = read(repo, "meta-os/recipes-bsp/grub/files/grub.cfg")?;
    let number = |name: &str| layout.find(name).map(|p| p.number).unwrap_or_default();
    let (a, b) = (number("os-kernelA"), number("os-kernelB"));
    let line = format!("then set os_part={a}; else set os_part={b}; fi");
    ensure!(cfg.contains(&line), "grub.cfg takes other partitions for the kernels than {a} and {b}");
    let script = read(repo, "meta-os/recipes-bsp/u-boot/files/boot.cmd")?;
    let line = format!("then setenv os_part ${{os_disk}}:{a}; else setenv os_part ${{os_disk}}:{b}; fi");
    ensure!(script.contains(&line), "boot.cmd takes other partitions for the kernels than {a} and {b}");
    for slot in Slot::BOTH {
        let (taken, number) = (tryboot::partition(slot), number(&Role::Kernel(slot).to_string()));
        ensure!(taken == number, "os-boot has the firmware start partition {taken} for slot {slot}, it is {number}");
    }
    let places = [
        ("distro/include/os-layout.inc", Bootloader::Grub),
        ("machine/include/os-u-boot.inc", Bootloader::UBoot),
        ("machine/include/os-rpi-tryboot.inc", Bootloader::RpiTryboot),
    ];
    for (include, bootloader) in places {
        let entry = format!("grubenv;{}/{}", bootloader.directory(), os_boot::counters::FILE);
        let files = assignment(&read(repo, &format!("meta-os/conf/{include}"))?, "OS_BOOT_FILES")?;
        ensure!(files.contains(&entry), "{include} has no {entry} in OS_BOOT_FILES, where os-boot looks for it");
    }
    let recipe = read(repo, "meta-os/recipes-core/os-boot-files/os-boot-files.bb")?;
    for counter in os_boot::counters::FRESH {
        ensure!(recipe.contains(counter), "os-boot-files.bb does not set {counter}");
    }
    Ok(())
}

fn links(repo: &Repo) -> Result<()> {
    let recipe = read(repo, "meta-os/recipes-core/os-base/os-base.bb")?;
    let made = recipe.lines().filter_map(|line| line.trim().strip_prefix("ln -s ")).map(str::to_owned).collect();
    let link = |(name, target): (&str, &str)| format!("{target} ${{D}}${{datadir}}/os/overrides/{name}");
    same("links of compose.rs and os-base.bb", &compose::LINKS.map(link).into(), &made)
}

fn units(repo: &Repo) -> Result<()> {
    let mut units = BTreeSet::new();
    for entry in std::fs::read_dir(repo.root.join("tools/device"))?.flatten() {
        let Ok(dist) = std::fs::read_dir(entry.path().join("dist")) else { continue };
        let names = dist.flatten().map(|file| file.file_name().to_string_lossy().into_owned());
        // What is no unit is installed by the Makefile alone.
        units.extend(names.filter(|name| !name.ends_with(".rules")));
    }
    let recipe = read(repo, "meta-os/recipes-core/os-tools/os-tools.bb")?;
    same("tools/device/*/dist and SYSTEMD_SERVICE", &units, &assignment(&recipe, "SYSTEMD_SERVICE:${PN}")?)
}

/// A recipe is given what its lock file was cut for.
fn sources(repo: &Repo) -> Result<()> {
    for recipe in &RECIPES {
        let text = read(repo, recipe.recipe)?;
        let given = assignment(&text, "SRC_URI")?;
        let rooms = ["file://device", "file://host", "file://tests"];
        let given = given.into_iter().filter(|uri| rooms.iter().any(|room| uri.starts_with(room))).collect();
        let meant = recipe.sources.iter().map(|source| format!("file://{source};subdir=${{BP}}")).collect();
        same(&format!("sources of xtask crates and {}", recipe.recipe), &meant, &given)?;
    }
    Ok(())
}

/// What each lane's initramfs must hold for os-init's calls, by program.
fn initramfs(repo: &Repo) -> Result<()> {
    const NEEDED: &[(&str, &str)] = &[
        ("kmod", "kmod"),
        ("e2fsck", "e2fsprogs-e2fsck"),
        ("blkid", "util-linux-blkid"),
        ("mke2fs", "e2fsprogs-mke2fs"),
        ("resize2fs", "e2fsprogs-resize2fs"),
        ("tune2fs", "e2fsprogs-tune2fs"),
        ("fsck.fat", "dosfstools"),
        ("veritysetup", "cryptsetup"),
        ("partx", "util-linux-partx"),
        ("unshare", "util-linux-unshare"),
        ("mkswap", "util-linux-mkswap"),
        ("swapon", "util-linux-swapon"),
    ];
    let recipe = read(repo, "meta-os/recipes-core/images/os-initramfs.bb")?;
    let installed = assignment(&recipe, "PACKAGE_INSTALL")?;
    let lab = repo::list(&repo.data("initramfs.txt"))?;
    let programs: BTreeSet<String> = lab
        .iter()
        .filter_map(|l| Some(Path::new(l.strip_prefix("bin ")?.trim()).file_name()?.to_string_lossy().into_owned()))
        .collect();
    same("initramfs.txt and what os-init needs", &programs, &NEEDED.iter().map(|(p, _)| (*p).to_owned()).collect())?;
    for (program, package) in NEEDED {
        ensure!(installed.contains(*package), "os-initramfs.bb lacks {package} for {program}");
    }
    Ok(())
}

fn config_docs(repo: &Repo) -> Result<()> {
    for (path, wanted) in crate::config_docs::files()? {
        let found = read(repo, path)?;
        ensure!(crate::config_docs::is_current(&found, &wanted), "{path} is out of date; run: xtask docs");
    }
    Ok(())
}

fn dependencies(repo: &Repo) -> Result<()> {
    crate::manifests::check(&repo.root.join("tools"))
}

/// The picture is drawn by hand; what it says of the disk is not.
fn picture(repo: &Repo) -> Result<()> {
    let drawn = read(repo, "docs/architecture.svg")?;
    for part in disk::layout(repo, &repo.vars()?)?.parts {
        ensure!(drawn.contains(&format!(">{}<", part.name())), "docs/architecture.svg does not show {}", part.name());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_read_over_lines() {
        let text = "\nA = \"x\"\nRDEPENDS:${PN} = \"\\\n    a \\\n    b \\\n\"\n";
        assert_eq!(assignment(text, "RDEPENDS:${PN}").unwrap().into_iter().collect::<Vec<_>>(), ["a", "b"]);
        assert!(assignment(text, "B").is_err());
    }

    #[test]
    fn differences_are_named() {
        let set = |words: &str| words.split(' ').map(str::to_owned).collect::<BTreeSet<_>>();
        assert!(same("x", &set("a b"), &set("b a")).is_ok());
        assert!(same("x", &set("a b"), &set("b c")).unwrap_err().to_string().contains("[a]"));
    }
}
