//! The kernel's modules: which ones a list means, and unpacking those that every boot loads.

use crate::repo::{self, Repo};
use anyhow::{Context, Result, bail};
use os_sys::cmd::Cmd;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of a tree and what each needs, by path below the kernel's directory.
#[derive(Debug)]
pub struct Modules {
    /// Version of the kernel.
    pub kernel: String,
    depends: BTreeMap<String, Vec<String>>,
}

impl Modules {
    /// Those of the only kernel in a tree.
    ///
    /// # Errors
    /// When there is not exactly one kernel, or its `modules.dep` cannot be read.
    pub fn of(tree: &Path) -> Result<Self> {
        let kernel = only_entry(&tree.join("usr/lib/modules"))?;
        let text = os_sys::files::read_text(&tree.join("usr/lib/modules").join(&kernel).join("modules.dep"))?;
        let line = |line: &str| {
            let (module, needs) = line.split_once(':')?;
            Some((module.to_owned(), needs.split_ascii_whitespace().map(str::to_owned).collect()))
        };
        Ok(Self { kernel, depends: text.lines().filter_map(line).collect() })
    }

    /// What a line of a list means, with what that needs: `module NAME`, or `modules DIRECTORY`. None for another line.
    pub fn meant(&self, line: &str) -> Option<BTreeSet<String>> {
        match line.split_ascii_whitespace().collect::<Vec<_>>().as_slice() {
            ["module", name] => Some(self.named(name)),
            ["modules", dir] => Some(self.below(dir)),
            _ => None,
        }
    }

    /// A module with what it needs. One that this kernel has built in is not in the list of modules; that is fine.
    fn named(&self, name: &str) -> BTreeSet<String> {
        let wanted = module_name(name);
        self.with_needs(self.depends.keys().filter(|path| module_name(path) == wanted))
    }

    /// All modules below a directory such as `kernel/net/bridge`, with what they need.
    fn below(&self, dir: &str) -> BTreeSet<String> {
        let dir = format!("{dir}/");
        self.with_needs(self.depends.keys().filter(|path| path.starts_with(&dir)))
    }

    fn with_needs<'a>(&'a self, paths: impl Iterator<Item = &'a String>) -> BTreeSet<String> {
        paths
            .flat_map(|path| std::iter::once(path).chain(self.depends.get(path).into_iter().flatten()))
            .cloned()
            .collect()
    }
}

/// Unpacks the modules that `modules.txt` names: each boot would do it again, and xz is slow. Their signatures are inside and
/// stay.
///
/// # Errors
/// When the list is not understood, or a module cannot be unpacked.
pub fn unpack(repo: &Repo, tree: &Path) -> Result<()> {
    let modules = Modules::of(tree)?;
    let mut chosen = BTreeSet::new();
    for line in repo::list(&repo.data("modules.txt"))? {
        chosen.extend(modules.meant(&line).with_context(|| format!("modules.txt: not understood: {line}"))?);
    }
    let dir = tree.join("usr/lib/modules").join(&modules.kernel);
    let packed: Vec<PathBuf> = chosen.iter().filter(|path| path.ends_with(".xz")).map(|path| dir.join(path)).collect();
    if packed.is_empty() {
        return Ok(());
    }
    Cmd::new("xz").args(["--decompress", "--threads=0", "--"]).args(&packed).run().context("cannot unpack modules")?;
    Ok(Cmd::new("depmod").arg("-b").arg(tree.join("usr")).arg(&modules.kernel).run()?)
}

/// `kernel/fs/ext4/ext4.ko.xz` → `ext4`; hyphens count as underscores.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

fn only_entry(dir: &Path) -> Result<String> {
    let names: Vec<String> =
        fs::read_dir(dir)?.filter_map(|e| e.ok().map(|e| e.file_name().to_string_lossy().into_owned())).collect();
    match names.as_slice() {
        [one] => Ok(one.clone()),
        other => bail!("{} has {} kernels; one was expected", dir.display(), other.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_means_modules_with_what_they_need() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("usr/lib/modules/6.12");
        fs::create_dir_all(&at).unwrap();
        fs::write(
            at.join("modules.dep"),
            "kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz\nkernel/lib/crc16.ko.xz:\nkernel/fs/nls/nls_iso8859-1.ko.xz:\n",
        )
        .unwrap();
        let modules = Modules::of(dir.path()).unwrap();
        assert_eq!(modules.kernel, "6.12");
        let both = BTreeSet::from(["kernel/fs/ext4/ext4.ko.xz".to_owned(), "kernel/lib/crc16.ko.xz".to_owned()]);
        assert_eq!(modules.named("ext4"), both);
        assert_eq!(modules.below("kernel/fs/ext4"), both);
        assert_eq!(modules.named("nls_iso8859_1").len(), 1);
        assert_eq!(modules.meant("module ext4"), Some(both.clone()));
        assert_eq!(modules.meant("modules kernel/fs/ext4"), Some(both));
        assert_eq!(modules.meant("modul ext4"), None);
        assert!(modules.named("built_in").is_empty());
        fs::create_dir(dir.path().join("usr/lib/modules/6.13")).unwrap();
        assert!(Modules::of(dir.path()).is_err());
    }
}
