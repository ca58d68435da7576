//! Compressed RAM for `/var`, `/tmp` and swap: flash is for what must survive.

use os_sys::cmd::Cmd;
use std::path::{Path, PathBuf};

/// Sizes of the three devices in bytes, before compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// `/var`.
    pub var: u64,
    /// `/tmp`.
    pub tmp: u64,
    /// Swap.
    pub swap: u64,
}

const MIB: u64 = 1 << 20;

/// Sizes for a machine with `ram` bytes: an eighth for `/var` and `/tmp` within bounds, half for swap unless `swap`
/// says how many percent.
pub fn sizes(ram: u64, swap: Option<u32>) -> Sizes {
    Sizes {
        var: (ram / 8).clamp(32 * MIB, 256 * MIB),
        tmp: (ram / 8).clamp(16 * MIB, 512 * MIB),
        swap: match swap {
            Some(percent) => (ram / 100).saturating_mul(percent.into()),
            None => (ram / 2).clamp(64 * MIB, 4096 * MIB),
        },
    }
}

/// Bytes of RAM from the text of `/proc/meminfo`.
pub fn ram(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Why a device could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ZramError {
    /// sysfs refused.
    #[error("cannot set up zram through {path}: {cause}")]
    Sys {
        /// The file.
        path: String,
        /// What the kernel answered.
        cause: std::io::Error,
    },
    /// A program failed.
    #[error(transparent)]
    Cmd(#[from] os_sys::cmd::CmdError),
}

/// Adds a zram device of `size` bytes, compressed with lz4 where the kernel has it, and returns its node.
///
/// # Errors
/// When the kernel refuses.
pub fn add(size: u64) -> Result<PathBuf, ZramError> {
    let add = "/sys/class/zram-control/hot_add";
    // Without num_devices=0 the module brings zram0 along; it is unused and stays so.
    let text = std::fs::read_to_string(add).map_err(|cause| ZramError::Sys { path: add.to_owned(), cause })?;
    let name = format!("zram{}", text.trim());
    let attribute = |file: &str| format!("/sys/block/{name}/{file}");
    // The kernel's default compressor is fine where lz4 is missing.
    let _ = std::fs::write(attribute("comp_algorithm"), "lz4");
    let path = attribute("disksize");
    std::fs::write(&path, size.to_string()).map_err(|cause| ZramError::Sys { path, cause })?;
    Ok(Path::new("/dev").join(name))
}

/// Makes a filesystem on a zram device: no journal, no reserved blocks, discards on.
///
/// # Errors
/// When mkfs fails.
pub fn format(device: &Path, label: &str) -> Result<(), ZramError> {
    Ok(Cmd::new("mkfs.ext4")
        .args(["-q", "-F", "-O", "^has_journal", "-m", "0", "-E", "lazy_itable_init=0,nodiscard", "-L", label])
        .arg(device)
        .run()?)
}

/// Turns swap on for a zram device.
///
/// # Errors
/// When mkswap or swapon fails.
pub fn swap_on(device: &Path) -> Result<(), ZramError> {
    Cmd::new("mkswap").arg(device).run()?;
    Ok(Cmd::new("swapon").args(["-p", "100"]).arg(device).run()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_ram_within_bounds() {
        assert_eq!(sizes(256 * MIB, None), Sizes { var: 32 * MIB, tmp: 32 * MIB, swap: 128 * MIB });
        assert_eq!((sizes(100 * MIB, Some(30)).swap, sizes(MIB, Some(0)).swap), (30 * MIB, 0));
        assert_eq!(sizes(64 << 30, None), Sizes { var: 256 * MIB, tmp: 512 * MIB, swap: 4096 * MIB });
    }

    // The words of the key: half of RAM, and its limit.
    #[test]
    fn swap_is_what_config_json_says_of_its_default() {
        let key = os_config_model::keys::KEYS.iter().find(|key| key.pointer == "/os/memory/zramSwap").unwrap();
        let (percent, limit) = key.default.split_once(", at most ").unwrap();
        let ram = 5000 * MIB;
        assert_eq!(sizes(ram, None).swap, sizes(ram, percent.parse().ok()).swap);
        assert_eq!(format!("{} GiB", sizes(64 << 30, None).swap >> 30), limit);
    }

    #[test]
    fn meminfo_is_in_kib() {
        assert_eq!(ram("MemTotal:        2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
        assert_eq!(ram("nothing"), None);
    }
}
