//! What a slot says of how it is started: `slot.cfg` on its kernel partition, which GRUB runs as a script.

use os_facts::Slot;

/// The arguments of a kernel: which slot it is of, to us and to RAUC, and what else there is, in this order.
pub fn arguments(slot: Slot, more: &[&str]) -> String {
    let words = more.iter().flat_map(|part| part.split_ascii_whitespace());
    words.fold(format!("os.slot={slot} rauc.slot={slot}"), |line, word| line + " " + word)
}

/// A kernel and what goes with it; our `slot.cfg` has these two lines and no others.
#[derive(Debug, PartialEq, Eq)]
pub struct Start<'a> {
    /// File of the kernel, on the kernel partition.
    pub kernel: &'a str,
    /// File of its initramfs, there too.
    pub initramfs: &'a str,
    /// The arguments that the slot adds to those of the bootloader.
    pub arguments: &'a str,
}

impl<'a> Start<'a> {
    /// Reads the script. None when it does more than ours does, which only GRUB can carry out.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let (kernel, arguments) = lines.next()?.strip_prefix("linux \"$os_kernel/")?.split_once("\" $os_args ")?;
        let initramfs = lines.next()?.strip_prefix("initrd \"$os_kernel/")?.trim_end().strip_suffix('"')?;
        let plain = |name: &str| !name.is_empty() && !name.contains(['/', '"', '$']) && !name.starts_with('.');
        let script = arguments.contains(['$', '"', ';', '\'', '\\']) || lines.next().is_some();
        (plain(kernel) && plain(initramfs) && !script).then_some(Self { kernel, initramfs, arguments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "linux \"$os_kernel/vmlinuz\" $os_args os.roothash=ab os.rootsize=4096 quiet\n\
                        initrd \"$os_kernel/initramfs\"\n";

    #[test]
    fn a_slot_names_its_kernel_and_arguments() {
        let arguments = "os.roothash=ab os.rootsize=4096 quiet";
        assert_eq!(Start::parse(TEXT), Some(Start { kernel: "vmlinuz", initramfs: "initramfs", arguments }));
    }

    #[test]
    fn a_script_that_does_more_is_left_to_the_bootloader() {
        for (from, to) in [
            ("vmlinuz", "../vmlinuz"),
            ("quiet", "quiet $more"),
            ("quiet", "a;b"),
            ("initrd", "echo hello\ninitrd"),
            ("initramfs\"", "initramfs\"\nboot"),
            ("$os_args ", ""),
            ("vmlinuz", ""),
        ] {
            assert_eq!(Start::parse(&TEXT.replace(from, to)), None, "{to}");
        }
        assert_eq!(Start::parse(""), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "(linux \"\\$os_kernel/|initrd|[ -~\n]){0,20}") {
            let _ = Start::parse(&text);
        }
    }
}
