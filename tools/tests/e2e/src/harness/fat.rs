//! A FAT in a file, such as the boot partition of a powered-off machine: edited as a person with a card reader would.

use anyhow::{Context, Result, ensure};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A FAT that begins somewhere in a file.
#[derive(Debug, Clone)]
pub(crate) struct Fat {
    image: PathBuf,
    /// Its first byte.
    offset: u64,
}

impl Fat {
    pub(crate) fn new(image: &Path, offset: u64) -> Self {
        Self { image: image.to_owned(), offset }
    }

    fn tool(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(format!("{}@@{}", self.image.display(), self.offset));
        command.args(arguments);
        command
    }

    /// Reads a file.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>> {
        run(self.tool("mcopy", &["-n", &format!("::{name}"), "-"]), None)
    }

    /// Reads a text.
    pub(crate) fn read_text(&self, name: &str) -> Result<String> {
        String::from_utf8(self.read(name)?).with_context(|| format!("{name} is no text"))
    }

    /// Writes a file, replacing what is there.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        run(self.tool("mcopy", &["-o", "-", &format!("::{name}")]), Some(content)).map(drop)
    }

    /// Makes a directory, if it is not there.
    pub(crate) fn make_dir(&self, name: &str) -> Result<()> {
        let name = format!("::{name}");
        if run(self.tool("mdir", &["-b", &name]), None).is_ok() {
            return Ok(());
        }
        run(self.tool("mmd", &[&name]), None).map(drop)
    }

    /// Removes a file.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        run(self.tool("mdel", &[&format!("::{name}")]), None).map(drop)
    }

    /// Copies a directory and all in it.
    pub(crate) fn copy_in(&self, dir: &Path) -> Result<()> {
        let mut command = self.tool("mcopy", &["-s", "-o"]);
        command.arg(dir).arg("::");
        run(command, None).map(drop)
    }
}

/// Runs a program of mtools and returns what it prints.
fn run(mut command: Command, input: Option<&[u8]>) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {name}; install it with: sudo apt-get install mtools"))?;
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        // One that ends early says why.
        let _ = pipe.write_all(input);
    }
    let out = child.wait_with_output()?;
    ensure!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr).trim());
    Ok(out.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_back_as_they_went_in() {
        let image = std::env::temp_dir().join(format!("os-fat-{}", std::process::id()));
        let offset = 4096;
        std::fs::File::create(&image).unwrap().set_len(offset + (1 << 20)).unwrap();
        let fat = Fat::new(&image, offset);
        run(fat.tool("mformat", &["-T", "2048", "::"]), None).unwrap();
        let noise: Vec<u8> = (0..=255).collect();
        fat.write("noise", &noise).unwrap();
        assert_eq!(fat.read("noise").unwrap(), noise);
        fat.write("noise", b"less").unwrap();
        assert_eq!(fat.read_text("noise").unwrap(), "less");
        fat.make_dir("dir").unwrap();
        fat.make_dir("dir").unwrap();
        fat.write("dir/file", b"").unwrap();
        fat.remove("noise").unwrap();
        assert!(fat.read("noise").is_err());
        std::fs::remove_file(image).unwrap();
    }
}
