//! What the OS has to know of a machine: what its configuration says, and what only a person can.

use super::conf::{Conf, Fact};
use super::kickstart::Kickstart;
use super::name::{Console, DeviceTree};
use super::{Notes, Options};
use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use std::path::Path;

/// What starts the kernel, as `OS_BOOTLOADER` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bootloader {
    /// GRUB, for firmware with EFI
    Grub,
    /// U-Boot
    UBoot,
    /// The Raspberry Pi's firmware
    RpiTryboot,
}

/// The partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Where the firmware reads it, and needs none of the first 34 sectors
    Gpt,
    /// Where the boot ROM reads nothing else, or starts what lies in the first sectors
    Mbr,
}

/// What the templates are filled with.
#[derive(Debug, Serialize)]
pub(super) struct Facts {
    /// What the machine is called, for people.
    title: String,
    bootloader: Bootloader,
    layout: Layout,
    /// Kernel arguments; the last one is `/dev/console`.
    consoles: Vec<String>,
    /// Device trees that a person named; otherwise the machine's.
    device_trees: Vec<String>,
    /// Whether the machine names device trees.
    has_device_trees: bool,
    /// Whether GRUB is that of 64-bit ARM.
    arm64: bool,
    /// Whether GRUB is installed though the machine does not say that it has EFI.
    lacks_efi: bool,
    /// Whether the boot ROM loads U-Boot and what comes before it from the first partition.
    spl: bool,
    /// Packages of the kernel that the machine adds to every image.
    kernel_packages: Vec<String>,
    /// Whether the machine brings a boot script.
    boot_script: bool,
    /// Whether the machine brings an initramfs.
    initramfs: bool,
}

/// The packages that a kernel slot makes needless.
const KERNEL_PACKAGES: [&str; 3] = ["kernel-image", "kernel-devicetree", "kernel"];

impl Facts {
    /// Reads the machine's configuration; what a person said comes first.
    ///
    /// # Errors
    /// When a file cannot be read, or nobody says what starts the kernel.
    pub(super) fn read(path: &Path, roots: &[&Path], options: &Options, notes: &mut Notes) -> Result<Self> {
        let conf = Conf::read(path, roots, options.machine.as_str())?;
        // These are oe-core's, and say nothing of a board.
        let core = ["arm/", "x86/", "riscv/", "mips/", "powerpc/", "soc-family.inc"];
        let of_board = |name: &&String| {
            let inside = name.strip_prefix("conf/machine/include/").unwrap_or(name);
            !core.iter().any(|begin| inside.starts_with(begin))
        };
        let missing: Vec<&str> = conf.missing.iter().filter(of_board).map(String::as_str).collect();
        if !missing.is_empty() {
            notes.check(format!("Not read, because it is in another layer: {}.", missing.join(", ")));
        }
        let features = conf.get("MACHINE_FEATURES");
        let kickstart = Kickstart::of(&conf.get("WKS_FILE"), roots)?;
        let bootloader = bootloader(&conf, &features, options, notes)?;
        Ok(Self {
            title: title(&conf, options),
            bootloader,
            layout: layout(bootloader, kickstart.as_ref(), options, notes),
            consoles: consoles(&conf, &features, options, notes),
            device_trees: options.device_trees.iter().map(ToString::to_string).collect(),
            has_device_trees: device_trees(&conf, bootloader, &options.device_trees, notes),
            arm64: arm64(&conf, bootloader, notes),
            lacks_efi: features.text().is_some() && !features.has("efi"),
            spl: spl(&conf, bootloader, kickstart.as_ref(), notes),
            kernel_packages: kernel_packages(&conf, notes),
            boot_script: conf.get("UBOOT_ENV") != Fact::Unset,
            initramfs: conf.get("INITRAMFS_IMAGE") != Fact::Unset,
        })
    }

    /// How the boot partition comes about, in the words of a table.
    pub(super) fn summary(&self) -> String {
        let bootloader = match self.bootloader {
            Bootloader::Grub => "GRUB",
            Bootloader::UBoot => "U-Boot",
            Bootloader::RpiTryboot => "the firmware starts the slots",
        };
        format!("{bootloader}, {}", if self.layout == Layout::Gpt { "GPT" } else { "MBR" })
    }
}

fn title(conf: &Conf, options: &Options) -> String {
    let named = conf.notes.get("NAME").filter(|name| !name.is_empty() && name.len() <= 80);
    named.map_or_else(|| options.machine.to_string(), |name| name.trim_end_matches('.').to_owned())
}

fn bootloader(conf: &Conf, features: &Fact, options: &Options, notes: &mut Notes) -> Result<Bootloader> {
    let provider = conf.get("PREFERRED_PROVIDER_virtual/bootloader");
    let is_set = |name: &&&str| conf.get(name) != Fact::Unset;
    let (found, from) = if let Some(bootloader) = options.bootloader {
        (Some(bootloader), "--bootloader".to_owned())
    } else if features.has("efi") {
        (Some(Bootloader::Grub), "MACHINE_FEATURES has efi".to_owned())
    } else if let Some(name) = ["UBOOT_MACHINE", "UBOOT_CONFIG"].iter().find(is_set) {
        (Some(Bootloader::UBoot), format!("{name} is set"))
    } else if provider.text().is_some_and(|name| name.contains("u-boot")) {
        (Some(Bootloader::UBoot), "PREFERRED_PROVIDER_virtual/bootloader".to_owned())
    } else {
        (None, String::new())
    };
    let found = found.context(
        "the machine's configuration does not say what starts the kernel; write --bootloader grub, u-boot or rpi-tryboot",
    )?;
    let word = found.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    notes.read("OS_BOOTLOADER", &word, &from);
    match (found, provider.text()) {
        (Bootloader::UBoot, Some(provider)) if provider != "u-boot" => notes.check(format!(
            "U-Boot is the recipe {provider}: give it the options of meta-os/files/u-boot/os.cfg (meta-os appends to the recipe u-boot alone).",
        )),
        (Bootloader::UBoot, None) if provider == Fact::Computed => {
            notes.check("Which recipe is U-Boot? meta-os gives the options of files/u-boot/os.cfg to the recipe u-boot alone.");
        }
        _ => {}
    }
    if found == Bootloader::UBoot {
        notes.check(
            "U-Boot looks for boot.scr on the first partition of the disk that it starts from, and sets devtype, devnum, kernel_addr_r, ramdisk_addr_r and fdt_addr_r. One with distro_bootcmd alone takes OS_U_BOOT_CONFIG = \"os.cfg\".",
        );
    }
    Ok(found)
}

fn layout(bootloader: Bootloader, kickstart: Option<&Kickstart>, options: &Options, notes: &mut Notes) -> Layout {
    let (layout, from) = match (options.layout, kickstart) {
        (Some(layout), _) => (layout, "--layout".to_owned()),
        (None, Some(kickstart)) => (kickstart.layout, format!("the machine's kickstart file {}", kickstart.name)),
        (None, None) => {
            if bootloader != Bootloader::Grub {
                notes.check("Does the boot ROM read a GPT, and is nothing else in the first 34 sectors of the disk? Otherwise: --layout mbr, OS_WKS_FILE = \"os-mbr.wks.in\".");
            }
            (Layout::Gpt, "default".to_owned())
        }
    };
    let word = if layout == Layout::Gpt { "os-gpt.wks.in" } else { "os-mbr.wks.in" };
    notes.read("OS_WKS_FILE", word, &from);
    for raw in kickstart.iter().flat_map(|kickstart| &kickstart.raw) {
        notes.check(format!(
            "The machine's own disk has {raw} outside of file systems. The OS's disk has it only if something writes it there, before the first partition at 4 MiB.",
        ));
    }
    layout
}

/// The first console that the machine names is the one that people look at.
fn consoles(conf: &Conf, features: &Fact, options: &Options, notes: &mut Notes) -> Vec<String> {
    let argument = |console: &Console| format!("console={console}");
    if !options.consoles.is_empty() {
        return options.consoles.iter().map(argument).collect();
    }
    let serial = conf.get("SERIAL_CONSOLES");
    let all: Vec<Console> = serial.text().map(serial_consoles).unwrap_or_default();
    let Some((first, others)) = all.split_first() else {
        notes.check("Which consoles does the board have? OS_CONSOLES is tty0 and ttyS0 at 115200 unless the file says otherwise; the last one is /dev/console.");
        return Vec::new();
    };
    let screen = if features.has("screen") { vec!["console=tty0".to_owned()] } else { Vec::new() };
    let consoles: Vec<String> = screen.into_iter().chain([argument(first)]).collect();
    notes.read("OS_CONSOLES", &consoles.join(" "), "SERIAL_CONSOLES");
    if !others.is_empty() {
        let others: Vec<String> = others.iter().map(argument).collect();
        notes.check(format!("The machine names more consoles than the first one: {}.", others.join(" ")));
    }
    consoles
}

/// The consoles of `115200;ttyS0 115200;ttyS1`; a word of another form is none.
fn serial_consoles(text: &str) -> Vec<Console> {
    let console = |word: &str| {
        let mut parts = word.split(';');
        let (baud, name) = (parts.next()?, parts.next()?);
        baud.parse::<u32>().ok().and_then(|baud| format!("{name},{baud}").parse().ok())
    };
    text.split_ascii_whitespace().filter_map(console).collect()
}

fn device_trees(conf: &Conf, bootloader: Bootloader, named: &[DeviceTree], notes: &mut Notes) -> bool {
    if bootloader != Bootloader::UBoot || !named.is_empty() {
        return false;
    }
    match conf.get("KERNEL_DEVICETREE") {
        Fact::Unset => {
            notes.check("The machine names no device trees (KERNEL_DEVICETREE): the kernel gets the one that the firmware passes. Where the slot is to have its own: OS_KERNEL_FILES.");
            return false;
        }
        Fact::Text(text) => {
            let count = text.split_ascii_whitespace().count();
            let shown = if count > 3 { format!("{count} device trees") } else { text };
            notes.read("OS_KERNEL_FILES", &shown, "KERNEL_DEVICETREE");
        }
        Fact::Computed => notes.read("OS_KERNEL_FILES", "what BitBake computes", "KERNEL_DEVICETREE"),
    }
    true
}

fn arm64(conf: &Conf, bootloader: Bootloader, notes: &mut Notes) -> bool {
    let of_arm64 =
        |name: &&String| name.contains("/arm/arch-armv8") || name.contains("/arm/armv8") || name.contains("/arm/armv9");
    let found = conf.included.iter().find(of_arm64);
    if let (Some(name), Bootloader::Grub) = (found, bootloader) {
        notes.read("OS_EFI_ARCH", "aa64", name);
        notes.check(
            "GRUB for 64-bit ARM has not been built with this OS yet: does grub-efi build with OS_GRUB_MODULES?",
        );
    }
    found.is_some()
}

/// A boot ROM that reads the loader from a file system finds it where the machine's own disk has it.
fn spl(conf: &Conf, bootloader: Bootloader, kickstart: Option<&Kickstart>, notes: &mut Notes) -> bool {
    if bootloader != Bootloader::UBoot {
        return false;
    }
    let raw = kickstart.is_some_and(|kickstart| !kickstart.raw.is_empty());
    let found = conf.get("SPL_BINARY").text().is_some_and(|name| !name.is_empty()) && !raw;
    if found {
        notes.read("OS_BOOT_FILES", "${SPL_BINARY}, u-boot.${UBOOT_SUFFIX}", "SPL_BINARY");
        notes.check("The boot ROM loads SPL_BINARY and U-Boot from the first partition. If it takes them from elsewhere, remove OS_BOOT_FILES:append.");
    } else if !raw {
        notes.check("What does the boot ROM or the firmware read on the first partition? OS_BOOT_FILES:append has it, as SOURCE;PATH.");
    }
    found
}

fn kernel_packages(conf: &Conf, notes: &mut Notes) -> Vec<String> {
    let essential = conf.get("MACHINE_ESSENTIAL_EXTRA_RDEPENDS");
    if essential == Fact::Computed {
        notes.check("Does the machine add the kernel or device trees to every image (MACHINE_ESSENTIAL_EXTRA_RDEPENDS)? The kernel slot has both.");
    }
    KERNEL_PACKAGES.iter().filter(|name| essential.has(name)).map(|name| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_consoles_are_kernel_arguments() {
        let consoles = |text: &str| serial_consoles(text).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(consoles("115200;ttyS0 9600;ttyAMA0;x"), ["ttyS0,115200", "ttyAMA0,9600"]);
        assert!(consoles("ttyS0 ;ttyS0 x;ttyS0 115200;").is_empty());
    }
}
