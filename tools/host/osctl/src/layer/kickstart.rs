//! The kickstart file of a machine's own disk: which partition table it has, and what lies outside of file systems.

use super::conf::Fact;
use super::machine::Layout;
use anyhow::Result;
use std::path::Path;

/// Where layers keep theirs.
const PLACES: [&str; 3] = ["wic", "files/wic", "scripts/lib/wic/canned-wks"];

/// What one says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kickstart {
    pub(super) name: String,
    pub(super) layout: Layout,
    /// Files that are copied to places that the boot ROM knows.
    pub(super) raw: Vec<String>,
}

impl Kickstart {
    /// Reads the file that `WKS_FILE` names; none where it is not known or in none of the layers.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn of(name: &Fact, layers: &[&Path]) -> Result<Option<Self>> {
        let Some(name) = name.text().filter(|name| !name.is_empty()) else { return Ok(None) };
        let places = layers.iter().flat_map(|layer| PLACES.iter().map(|place| layer.join(place).join(name)));
        let Some(path) = places.into_iter().find(|path| path.is_file()) else { return Ok(None) };
        Ok(Some(Self::parse(name, &os_sys::files::read_text(&path)?)))
    }

    fn parse(name: &str, text: &str) -> Self {
        // What wic(1) makes when nothing is said.
        let mut layout = Layout::Mbr;
        let mut raw = Vec::new();
        for line in text.lines().map(str::trim) {
            let words: Vec<&str> = line.split([' ', '\t', '=', '"', ',']).filter(|word| !word.is_empty()).collect();
            let after = |word: &str| words.iter().skip_while(|found| **found != word).nth(1).copied();
            match words.first() {
                Some(&"bootloader") if after("--ptable").is_some_and(|table| table.starts_with("gpt")) => {
                    layout = Layout::Gpt;
                }
                Some(&("part" | "partition")) if after("--source") == Some("rawcopy") => {
                    raw.extend(after("file").map(str::to_owned));
                }
                _ => {}
            }
        }
        Self { name: name.to_owned(), layout, raw }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_raw_files_are_found() {
        let text = "# rawcopy\npart u-boot --source rawcopy --sourceparams=\"file=imx-boot\" --no-table --align 33\n\
                    part / --source rootfs --fstype=ext4\nbootloader --ptable gpt --timeout=5\n";
        let expected = Kickstart { name: "a".to_owned(), layout: Layout::Gpt, raw: vec!["imx-boot".to_owned()] };
        assert_eq!(Kickstart::parse("a", text), expected);
        let text = "part /boot --source bootimg-partition\nbootloader --append=\"console=ttyS0,115200\"\n";
        assert_eq!(Kickstart::parse("a", text), Kickstart { name: "a".to_owned(), layout: Layout::Mbr, raw: vec![] });
        assert_eq!(Kickstart::parse("a", "bootloader --ptable=\"gpt-hybrid\"").layout, Layout::Gpt);
    }

    #[test]
    fn it_is_looked_for_where_layers_have_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("files/wic")).unwrap();
        std::fs::write(dir.path().join("files/wic/acme.wks"), "bootloader --ptable gpt\n").unwrap();
        let found = |name: Fact| Kickstart::of(&name, &[dir.path()]).unwrap().map(|kickstart| kickstart.layout);
        assert_eq!(found(Fact::Text("acme.wks".to_owned())), Some(Layout::Gpt));
        assert_eq!(found(Fact::Text("other.wks".to_owned())), None);
        assert_eq!(found(Fact::Computed), None);
    }
}
