//! Collects the initramfs: os-init, the programs it calls, their libraries, and the modules that find a disk.

use crate::arch::Arch;
use crate::image::modules::Modules;
use crate::repo::{self, Repo};
use anyhow::{Context, Result, bail};
use os_sys::cmd::Cmd;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Writes `initramfs` (cpio, compressed with lz4) to `out`. `shell` is a static busybox for `os.rescue`, or none.
///
/// # Errors
/// When the list names something that the tree does not have.
pub fn build(repo: &Repo, tree: &Path, shell: Option<&Path>, epoch: u64, out: &Path) -> Result<()> {
    let stage = out.join("initramfs.d");
    fs::create_dir_all(&stage)?;
    let mut stage = Stage { tree, dir: &stage, arch: repo.arch, modules: BTreeSet::new() };
    stage.skeleton()?;
    stage.binary("usr/lib/os/os-tools")?;
    symlink("usr/lib/os/os-tools", stage.dir.join("init"))?;
    let modules = Modules::of(tree)?;
    for line in repo::list(&repo.data("initramfs.txt"))? {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["bin", path] => stage.binary(path)?,
            ["lib", name] => stage.library(name)?,
            ["file", path] => stage.copy(path)?,
            ["link", path, target] => {
                stage.parent(path)?;
                symlink(target, stage.dir.join(path))?;
            }
            _ => match modules.meant(&line) {
                Some(meant) => stage.modules.extend(meant),
                None => bail!("initramfs.txt: not understood: {line}"),
            },
        }
    }
    stage.copy_modules(&modules.kernel)?;
    if let Some(busybox) = shell {
        fs::copy(busybox, stage.dir.join("usr/bin/busybox"))?;
        for applet in ["sh", "ls", "cat", "mount", "umount", "dmesg", "vi", "reboot", "poweroff"] {
            symlink("busybox", stage.dir.join("usr/bin").join(applet))?;
        }
    }
    pack(stage.dir, epoch, &out.join("initramfs"))?;
    fs::remove_dir_all(stage.dir)?;
    Ok(())
}

struct Stage<'a> {
    tree: &'a Path,
    dir: &'a Path,
    arch: Arch,
    modules: BTreeSet<String>,
}

impl Stage<'_> {
    fn skeleton(&self) -> Result<()> {
        for dir in ["usr/bin", "usr/sbin", "usr/lib/modprobe.d", "etc", "dev", "proc", "sys", "run", "sysroot", "tmp"] {
            fs::create_dir_all(self.dir.join(dir))?;
        }
        for (link, target) in [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
            symlink(target, self.dir.join(link))?;
        }
        // os-init adds its zram devices one by one.
        fs::write(self.dir.join("usr/lib/modprobe.d/os.conf"), "options zram num_devices=0\n")?;
        Ok(())
    }

    fn parent(&self, path: &str) -> Result<()> {
        let parent = self.dir.join(path).parent().map(Path::to_owned).unwrap_or_default();
        Ok(fs::create_dir_all(parent)?)
    }

    /// Copies a file of the tree to the same place; a link is followed.
    fn copy(&self, path: &str) -> Result<()> {
        self.parent(path)?;
        let source = self.tree.join(path);
        fs::copy(&source, self.dir.join(path)).with_context(|| format!("the base has no {path}"))?;
        Ok(())
    }

    fn binary(&self, path: &str) -> Result<()> {
        self.copy(path)?;
        self.libraries_of(&self.dir.join(path))
    }

    fn libraries_of(&self, file: &Path) -> Result<()> {
        let bytes = fs::read(file)?;
        let elf = goblin::elf::Elf::parse(&bytes).with_context(|| format!("{} is no program", file.display()))?;
        for name in &elf.libraries {
            self.library(name)?;
        }
        if let Some(interpreter) = elf.interpreter {
            let name = Path::new(interpreter).file_name().unwrap_or_default();
            let dir = self.dir.join(self.arch.loader_dir());
            let target = dir.join(name);
            if !target.exists() {
                fs::create_dir_all(&dir)?;
                fs::copy(self.find_library(&name.to_string_lossy())?, target)?;
            }
        }
        Ok(())
    }

    fn library(&self, name: &str) -> Result<()> {
        let target = self.dir.join("usr/lib").join(name);
        if target.exists() || self.dir.join(self.arch.loader_dir()).join(name).exists() {
            return Ok(());
        }
        fs::copy(self.find_library(name)?, &target)?;
        self.libraries_of(&target)
    }

    fn find_library(&self, name: &str) -> Result<PathBuf> {
        // Where Debian keeps libraries of this architecture.
        let own = format!("usr/lib/{}", self.arch.gnu());
        let found = [own.as_str(), self.arch.loader_dir(), "usr/lib"]
            .into_iter()
            .map(|dir| self.tree.join(dir).join(name))
            .find(|p| p.exists());
        found.with_context(|| format!("the base has no library {name}"))
    }

    fn copy_modules(&self, kernel: &str) -> Result<()> {
        let base = format!("usr/lib/modules/{kernel}");
        for module in &self.modules {
            self.copy(&format!("{base}/{module}"))?;
        }
        for list in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
            self.copy(&format!("{base}/{list}"))?;
        }
        Cmd::new("depmod").arg("-b").arg(self.dir).arg(kernel).run()?;
        Ok(())
    }
}

fn pack(dir: &Path, epoch: u64, out: &Path) -> Result<()> {
    // Sorted names, one time, owner root: the same content gives the same bytes.
    let list = out.with_extension("list");
    let names = Cmd::new("find").dir(dir).args([".", "-mindepth", "1"]).read()?;
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    fs::write(&list, names.join("\n") + "\n")?;
    Cmd::new("find").dir(dir).args([".", "-exec", "touch", "-h", "-d", &format!("@{epoch}"), "{}", "+"]).run()?;
    let cpio = out.with_extension("cpio");
    Cmd::new("cpio")
        .dir(dir)
        .args(["--quiet", "-o", "-H", "newc", "--reproducible", "-R", "0:0"])
        .stdin(File::open(&list)?)
        .stdout(File::create(&cpio)?)
        .run()?;
    // The kernel reads the legacy form only. lz4 is a quarter larger than zstd and unpacked in half the time.
    Cmd::new("lz4").args(["-q", "-f", "-l", "-9"]).arg(&cpio).arg(out).run()?;
    fs::remove_file(&cpio)?;
    fs::remove_file(&list)?;
    Ok(())
}
