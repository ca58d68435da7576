//! Where things are.

use crate::arch::Arch;
use anyhow::{Context, Result, bail};
use os_layout::vars::Vars;
use os_slotmake::size::Room;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The checkout and the directory that everything is built in.
#[derive(Debug, Clone)]
pub struct Repo {
    /// Top of the checkout.
    pub root: PathBuf,
    /// Build directory.
    pub build: PathBuf,
    /// What images are built for.
    pub arch: Arch,
    /// What the builder wishes of the variables ([`WISHES`]), by name.
    pub wishes: BTreeMap<String, String>,
}

/// Variables that a builder may set in the environment, as BitBake passes them through with BB_ENV_PASSTHROUGH_ADDITIONS.
pub const WISHES: &[&str] = &[
    BOOTLOADER,
    "OS_ROOT_COMPRESSION",
    "OS_KERNEL_ARGS",
    "OS_VERSION",
    "OS_UPDATE_CHANNEL",
    "OS_CHANNEL_ROOT",
    "OS_CLOCK_FLOOR",
    "OS_WKS_FILE",
];

/// The one of them that names what starts the kernel, where a machine has more than one.
const BOOTLOADER: &str = "OS_BOOTLOADER";

impl Repo {
    /// Finds the checkout from the current directory upwards. `OS_BUILD_DIR` moves the build directory.
    ///
    /// # Errors
    /// When the current directory is not inside a checkout.
    pub fn find() -> Result<Self> {
        let here = std::env::current_dir()?;
        let root = here.ancestors().find(|dir| dir.join("meta-os/conf").is_dir() && dir.join("tools").is_dir());
        let Some(root) = root else {
            bail!("{} is not inside a checkout of this project (no meta-os/conf and tools above it)", here.display());
        };
        let build = std::env::var_os("OS_BUILD_DIR").map_or_else(|| root.join("build"), PathBuf::from);
        let wish = |name: &&str| Some(((*name).to_owned(), std::env::var(name).ok()?));
        let wishes = WISHES.iter().filter_map(wish).collect();
        Ok(Self { root: root.to_owned(), build, arch: Arch::wanted()?, wishes })
    }

    /// The lab's own build directory.
    pub fn lab(&self) -> PathBuf {
        self.of_arch("lab")
    }

    /// A directory of the build directory that each architecture has one of.
    pub fn of_arch(&self, name: &str) -> PathBuf {
        match self.arch {
            Arch::X86_64 => self.build.join(name),
            other => self.build.join(format!("{name}-{}", other.word())),
        }
    }

    /// The core layer.
    pub fn meta_os(&self) -> PathBuf {
        self.root.join("meta-os")
    }

    /// A list or another file that the lab is built by.
    pub fn data(&self, name: &str) -> PathBuf {
        self.root.join("tools/host/lab/data").join(name)
    }

    /// The built disk image of a variant.
    pub fn image(&self, variant: &str) -> PathBuf {
        self.build.join(format!("os-image-{variant}-{}.img", self.arch.machine()))
    }

    /// Every variable of the distro fragments that both lanes read.
    ///
    /// # Errors
    /// When a fragment cannot be read or is not understood.
    pub fn vars(&self) -> Result<Vars> {
        let mut vars = Vars::default();
        vars.set("MACHINE", self.arch.machine());
        for name in self.arch.includes(self.wishes.get(BOOTLOADER).map(String::as_str)) {
            vars.load(&self.meta_os().join(name))?;
        }
        for name in ["os-layout.inc", "os-boot.inc", "os-update.inc", "os-version.inc"] {
            vars.load(&self.meta_os().join("conf/distro/include").join(name))?;
        }
        for (name, value) in &self.wishes {
            vars.set(name, value);
        }
        Ok(vars)
    }
}

/// A variable that must be set.
///
/// # Errors
/// When it is not.
pub fn need(vars: &Vars, name: &str) -> Result<String> {
    vars.get(name)?.with_context(|| format!("{name} is not set in meta-os/conf/distro/include"))
}

/// A size variable that must be set.
///
/// # Errors
/// When it is not, or is no size.
pub fn room(vars: &Vars, name: &'static str) -> Result<Room> {
    Ok(Room::of(name, &need(vars, name)?)?)
}

/// Lines of a list file without comments, trimmed.
///
/// # Errors
/// When the file cannot be read.
pub fn list(path: &Path) -> Result<Vec<String>> {
    let text = os_sys::files::read_text(path)?;
    Ok(text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned).collect())
}
