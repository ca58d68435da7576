//! The kernel partition of a slot: FAT with the kernel, the initramfs, and what the bootloader runs.

use crate::size::{Room, len};
use crate::{SlotError, verity::Verity};
use os_sys::cmd::{Cmd, CmdError};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

/// Volume id of every kernel partition.
const VOLUME_ID: &str = "6f73006b";
/// The name that a person sees with a card reader.
const LABEL: &str = "OS-KERNEL";

/// What GRUB runs for a slot; `$os_kernel` and `$os_args` come from grub.cfg. `arguments`: consoles, and the arguments that
/// every slot has.
pub fn config(verity: &Verity, arguments: &str) -> String {
    let arguments = arguments.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    format!(
        "linux \"$os_kernel/vmlinuz\" $os_args {} {arguments}\ninitrd \"$os_kernel/initramfs\"\n",
        verity.arguments()
    )
}

/// The same for U-Boot's boot script, as `env import -t` reads it.
pub fn environment(verity: &Verity, arguments: &str) -> String {
    let arguments = arguments.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    format!("os_slot_args={} {arguments}\n", verity.arguments())
}

/// The same for the Raspberry Pi's firmware: `cmdline.txt`.
pub fn command_line(verity: &Verity, arguments: &str) -> String {
    let arguments = arguments.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    format!("{} {arguments}\n", verity.arguments())
}

/// Makes the partition of files, each with its path there. `epoch` is the time that all of them have, in seconds.
///
/// # Errors
/// When the files do not fit, or a program fails.
pub fn image(image: &Path, files: &[(&str, &Path)], room: &Room, epoch: u64) -> Result<(), SlotError> {
    blank(image, room)?;
    Cmd::new("mkfs.vfat").args(["--invariant", "-n", LABEL, "-i", VOLUME_ID]).arg(image).run()?;
    let size = files.iter().map(|(_, file)| len(file)).sum::<Result<u64, _>>()?;
    let mtools = |program| Cmd::new(program).env("SOURCE_DATE_EPOCH", epoch.to_string()).env("TZ", "UTC");
    let mut made = BTreeSet::new();
    for (name, file) in files {
        for (at, _) in name.match_indices('/') {
            let dir = name.get(..at).unwrap_or_default();
            if made.insert(dir) {
                mtools("mmd").arg("-i").arg(image).arg(format!("::{dir}")).run()?;
            }
        }
        let copied = mtools("mcopy").arg("-i").arg(image).arg(file).arg(format!("::{name}")).run();
        match copied {
            Err(cause @ CmdError::Failed { .. }) => {
                let (what, image, room) = ((*name).to_owned(), image.to_owned(), room.clone());
                return Err(SlotError::Full { what, image, size, room, cause: Box::new(cause) });
            }
            other => other?,
        }
    }
    Ok(())
}

/// An image of nothing but zeros, in place of one that was there.
pub(crate) fn blank(image: &Path, room: &Room) -> Result<(), SlotError> {
    let made = File::create(image).and_then(|file| file.set_len(room.bytes));
    made.map_err(SlotError::file("write", image))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_says_its_hash() {
        let verity = Verity { root_hash: "ab".to_owned(), data_size: 4096 };
        assert_eq!(
            config(&verity, "console=tty0  console=ttyS0 quiet"),
            "linux \"$os_kernel/vmlinuz\" $os_args os.roothash=ab os.rootsize=4096 console=tty0 console=ttyS0 quiet\n\
             initrd \"$os_kernel/initramfs\"\n"
        );
        assert_eq!(
            environment(&verity, "console=tty0  console=ttyS0 quiet"),
            "os_slot_args=os.roothash=ab os.rootsize=4096 console=tty0 console=ttyS0 quiet\n"
        );
        assert_eq!(
            command_line(&verity, "console=tty0  console=ttyS0 quiet"),
            "os.roothash=ab os.rootsize=4096 console=tty0 console=ttyS0 quiet\n"
        );
    }

    #[test]
    fn a_kernel_that_does_not_fit_is_named_with_its_size_and_the_variable() {
        let dir = tempfile::tempdir().unwrap();
        let (out, file) = (dir.path().join("kernel.vfat"), dir.path().join("vmlinuz"));
        std::fs::write(&file, vec![7; 3 << 20]).unwrap();
        let fits = Room::of("OS_KERNEL_SIZE", "4M").unwrap();
        image(&out, &[("vmlinuz", &file)], &fits, 0).unwrap();
        let said = image(&out, &[("vmlinuz", &file), ("initramfs", &file)], &fits, 0).unwrap_err().to_string();
        for part in
            ["cannot put initramfs", "6144 KiB in all", "OS_KERNEL_SIZE (os-layout.inc) gives 4096 KiB", "mcopy"]
        {
            assert!(said.contains(part), "{said}");
        }
    }
}
