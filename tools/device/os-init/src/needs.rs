//! What the OS needs of a kernel by name. The one table: PID 1 loads from it, and `xtask check` compares it with the fragment
//! for Yocto's kernels (`meta-os/files/kernel/os.cfg`), with the lab's lists of modules and with `modules-load.d`.

/// When a module is loaded. What hardware asks for is loaded by its aliases, and stands nowhere here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At every boot, by the initramfs.
    Boot,
    /// When data is encrypted (`os.encryption.data`).
    Encryption,
    /// Before the engine starts: a container may not load modules.
    Containers,
}

/// A module, and the option of a kernel that has it built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Name of the module.
    pub module: &'static str,
    /// Option of the kernel; none where only some kernels or machines have a use for it.
    pub option: Option<&'static str>,
    /// When it is loaded.
    pub when: When,
}

const fn need(when: When, module: &'static str, option: &'static str) -> Need {
    Need { module, option: Some(option), when }
}

const fn maybe(when: When, module: &'static str) -> Need {
    Need { module, option: None, when }
}

/// All of them. What few devices need (squashfs, other character sets) the kernel asks for itself.
pub const NEEDS: &[Need] = &[
    need(When::Boot, "ext4", "CONFIG_EXT4_FS"),
    need(When::Boot, "vfat", "CONFIG_VFAT_FS"),
    need(When::Boot, "nls_cp437", "CONFIG_NLS_CODEPAGE_437"),
    // What Debian's kernel mounts FAT with; others take iso8859-1.
    maybe(When::Boot, "nls_ascii"),
    need(When::Boot, "erofs", "CONFIG_EROFS_FS"),
    need(When::Boot, "dm_mod", "CONFIG_BLK_DEV_DM"),
    need(When::Boot, "dm_verity", "CONFIG_DM_VERITY"),
    need(When::Boot, "sha256_generic", "CONFIG_CRYPTO_SHA256"),
    need(When::Boot, "zram", "CONFIG_ZRAM"),
    need(When::Boot, "overlay", "CONFIG_OVERLAY_FS"),
    need(When::Encryption, "dm_crypt", "CONFIG_DM_CRYPT"),
    need(When::Encryption, "xts", "CONFIG_CRYPTO_XTS"),
    need(When::Encryption, "aes_generic", "CONFIG_CRYPTO_AES"),
    maybe(When::Encryption, "aesni_intel"),
    maybe(When::Encryption, "aes_arm64"),
    need(When::Encryption, "algif_skcipher", "CONFIG_CRYPTO_USER_API_SKCIPHER"),
    maybe(When::Encryption, "tpm_tis"),
    maybe(When::Encryption, "tpm_crb"),
    need(When::Containers, "ip_tables", "CONFIG_IP_NF_IPTABLES"),
    need(When::Containers, "ip6_tables", "CONFIG_IP6_NF_IPTABLES"),
];

/// The modules that are loaded then.
pub fn modules(when: When) -> impl Iterator<Item = &'static str> {
    NEEDS.iter().filter(move |need| need.when == when).map(|need| need.module)
}
