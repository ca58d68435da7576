//! The two images of a slot.

use crate::size::Room;
use crate::{SlotError, kernel, verity};
use std::fs;
use std::path::{Path, PathBuf};

/// The files of every kernel partition.
pub const FILES: [&str; 5] = ["vmlinuz", "initramfs", "slot.cfg", "slot.env", "cmdline.txt"];

/// What a slot is made of, and where it goes.
#[derive(Debug, Clone)]
pub struct Slot {
    /// Root filesystem; the hash tree is appended to it, and then it is the image of the root partition.
    pub root: PathBuf,
    /// What the root partition has room for.
    pub root_room: Room,
    /// What the builder lets it grow to, when that is less.
    pub root_max: Option<Room>,
    /// Kernel.
    pub kernel: PathBuf,
    /// Initramfs.
    pub initramfs: PathBuf,
    /// Directory with what else the bootloader reads there, such as device trees (`dtb/amlogic/meson-sm1-odroid-c4.dtb`).
    pub more: Option<PathBuf>,
    /// Kernel arguments: consoles, and what every slot has.
    pub arguments: String,
    /// Where to write `slot.cfg`; `slot.env` and `cmdline.txt` are written beside it.
    pub config: PathBuf,
    /// Where to write the image of the kernel partition.
    pub image: PathBuf,
    /// What the kernel partition has room for.
    pub room: Room,
    /// Time of everything in it, in seconds since 1970.
    pub epoch: u64,
}

impl Slot {
    /// Makes both images.
    ///
    /// # Errors
    /// When something does not fit its partition, or a program fails.
    pub fn make(&self) -> Result<(), SlotError> {
        let verity = verity::append_tree(&self.root)?;
        self.root_room.takes(&self.root)?;
        if let Some(max) = &self.root_max {
            max.takes(&self.root)?;
        }
        let config = kernel::config(&verity, &self.arguments);
        fs::write(&self.config, config).map_err(SlotError::file("write", &self.config))?;
        let environment = self.config.with_extension("env");
        fs::write(&environment, kernel::environment(&verity, &self.arguments))
            .map_err(SlotError::file("write", &environment))?;
        let line = self.config.with_file_name("cmdline.txt");
        fs::write(&line, kernel::command_line(&verity, &self.arguments)).map_err(SlotError::file("write", &line))?;
        let sources = [&self.kernel, &self.initramfs, &self.config, &environment, &line];
        let more = self.more.as_deref().map(|dir| below(dir, "")).transpose()?.unwrap_or_default();
        let mut files: Vec<_> = FILES.into_iter().zip(sources.map(PathBuf::as_path)).collect();
        files.extend(more.iter().map(|(name, file)| (name.as_str(), file.as_path())));
        kernel::image(&self.image, &files, &self.room, self.epoch)
    }
}

/// All files of a directory, in the order of their names, each with its path there; `within` is the path of the directory.
fn below(dir: &Path, within: &str) -> Result<Vec<(String, PathBuf)>, SlotError> {
    let failed = || SlotError::file("read", dir);
    let mut entries = fs::read_dir(dir).map_err(failed())?.collect::<Result<Vec<_>, _>>().map_err(failed())?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut files = Vec::new();
    for entry in entries {
        let (path, name) = (entry.path(), format!("{within}{}", entry.file_name().to_string_lossy()));
        match path.is_dir() {
            true => files.extend(below(&path, &format!("{name}/"))?),
            false => files.push((name, path)),
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use os_sys::cmd::Cmd;
    use std::time::{Duration, SystemTime};

    fn made(dir: &Path, changed: u64) -> Slot {
        let at = |name: &str| dir.join(name);
        for (name, size) in [("root.img", 100_000), ("vmlinuz", 300_000), ("initramfs", 500_000)] {
            fs::write(at(name), vec![b'x'; size]).unwrap();
            let file = fs::File::options().write(true).open(at(name)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(changed)).unwrap();
        }
        let slot = Slot {
            root: at("root.img"),
            root_room: Room::of("OS_ROOT_SIZE", "1M").unwrap(),
            root_max: None,
            kernel: at("vmlinuz"),
            initramfs: at("initramfs"),
            more: None,
            arguments: "console=ttyS0 quiet".to_owned(),
            config: at("slot.cfg"),
            image: at("kernel.vfat"),
            room: Room::of("OS_KERNEL_SIZE", "4M").unwrap(),
            epoch: 1_700_000_000,
        };
        slot.make().unwrap();
        slot
    }

    #[test]
    fn the_same_files_give_the_same_bytes_whenever_they_were_made() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (one, other) = (made(a.path(), 1_600_000_000), made(b.path(), 1_500_000_001));
        assert!(fs::read(&one.image).unwrap() == fs::read(&other.image).unwrap());
        assert!(fs::read(&one.root).unwrap() == fs::read(&other.root).unwrap());
        let listed = Cmd::new("mdir").env("TZ", "UTC").arg("-i").arg(&one.image).arg("::").read().unwrap();
        assert_eq!(listed.matches("2023-11-14  22:13").count(), 5, "{listed}");
        // Over what was there before, and longer.
        fs::write(&one.image, vec![1; 8 << 20]).unwrap();
        made(a.path(), 1_400_000_000);
        assert!(fs::read(&one.image).unwrap() == fs::read(&other.image).unwrap());
    }

    #[test]
    fn more_files_keep_their_directories() {
        let dir = tempfile::tempdir().unwrap();
        let mut slot = made(dir.path(), 0);
        let without = fs::read(&slot.image).unwrap();
        let trees = dir.path().join("trees");
        for (name, text) in [("dtb/amlogic/b.dtb", "b"), ("dtb/amlogic/a.dtb", "a"), ("config.txt", "c")] {
            fs::create_dir_all(trees.join(name).parent().unwrap()).unwrap();
            fs::write(trees.join(name), text).unwrap();
        }
        slot.more = Some(trees);
        slot.make().unwrap();
        let read = |path: &str| Cmd::new("mtype").arg("-i").arg(&slot.image).arg(format!("::{path}")).read().unwrap();
        assert_eq!(read("dtb/amlogic/a.dtb") + &read("dtb/amlogic/b.dtb") + &read("config.txt"), "abc");
        let listed = Cmd::new("mdir").env("TZ", "UTC").arg("-i").arg(&slot.image).arg("::dtb").read().unwrap();
        assert_eq!(listed.matches("2023-11-14  22:13").count(), listed.matches("202").count(), "{listed}");
        assert!(without != fs::read(&slot.image).unwrap());
        slot.more = Some(dir.path().join("none"));
        assert!(slot.make().unwrap_err().to_string().contains("none"));
    }

    #[test]
    fn a_root_with_its_tree_has_to_fit() {
        let dir = tempfile::tempdir().unwrap();
        let slot = made(dir.path(), 0);
        fs::write(&slot.root, vec![0; 1 << 20]).unwrap();
        let said = slot.make().unwrap_err().to_string();
        assert!(said.contains("root.img has 1040 KiB") && said.contains("OS_ROOT_SIZE"), "{said}");
    }

    #[test]
    fn a_root_that_fits_may_still_be_larger_than_its_builder_wants() {
        let dir = tempfile::tempdir().unwrap();
        let mut slot = made(dir.path(), 0);
        // 25 blocks of data, the tree's superblock and one block of hashes.
        let mut make = |max: &str| {
            fs::write(&slot.root, vec![b'x'; 100 << 10]).unwrap();
            slot.root_max = Some(Room::of("OS_ROOT_MAX_SIZE", max).unwrap());
            slot.make()
        };
        make("108K").unwrap();
        let said = make("107K").unwrap_err().to_string();
        assert!(said.contains("root.img has 108 KiB") && said.contains("OS_ROOT_MAX_SIZE"), "{said}");
        assert!(said.contains("1 KiB too much"), "{said}");
    }
}
