//! The list of what survives a reboot: directories on the state or data partition that are bind-mounted into the
//! read-only root.
//!
//! Every `*.conf` file in `/usr/lib/os/persist.d` adds to it, so a vendor or a package adds a path with a drop-in. A line is
//!
//! ```text
//! # path                                   partition  mode  owner
//! /etc/NetworkManager/system-connections   state      0700  0:0
//! /var/lib/docker                          data       0710  0:0
//! ```
//!
//! The owner is numeric: the list is read before there is a user database.

use os_facts::place;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where the lists lie, below the root.
pub const DIR: &str = "usr/lib/os/persist.d";

/// The partition that holds a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partition {
    /// Identity and host configuration.
    State,
    /// Containers, apps, logs.
    Data,
}

impl Partition {
    /// Where it is mounted.
    pub fn mountpoint(self) -> &'static str {
        match self {
            Self::State => place::STATE,
            Self::Data => place::DATA,
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Absolute path in the root.
    pub path: PathBuf,
    /// Where its content lies.
    pub partition: Partition,
    /// Mode for a directory that has to be made.
    pub mode: u32,
    /// Owner of a directory that has to be made.
    pub uid: u32,
    /// Group of a directory that has to be made.
    pub gid: u32,
}

impl Entry {
    /// The directory on the partition: `<mount point>/root<path>`, so that the partition shows the tree it stands for.
    pub fn source(&self) -> PathBuf {
        let relative = self.path.strip_prefix("/").unwrap_or(&self.path);
        Path::new(self.partition.mountpoint()).join("root").join(relative)
    }
}

/// A line that was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// File name.
    pub file: String,
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.reason)
    }
}

/// Reads one list. Lines that are not understood are left out and reported: a vendor's typo must not stop a boot.
pub fn parse(file: &str, text: &str) -> (Vec<Entry>, Vec<Complaint>) {
    let (mut entries, mut complaints) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match parse_line(line) {
            Ok(entry) => entries.push(entry),
            Err(reason) => complaints.push(Complaint { file: file.to_owned(), line: index + 1, reason }),
        }
    }
    (entries, complaints)
}

fn parse_line(line: &str) -> Result<Entry, String> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [path, partition, mode, owner] = words.as_slice() else {
        return Err(format!("{} fields; a line is: path partition mode owner", words.len()));
    };
    let path = Path::new(path);
    let plain = path.components().all(|c| matches!(c, std::path::Component::Normal(_) | std::path::Component::RootDir));
    if !path.is_absolute() || !plain || path.components().count() < 2 {
        return Err(format!("{} is no absolute path without . and ..", path.display()));
    }
    let partition = match *partition {
        "state" => Partition::State,
        "data" => Partition::Data,
        other => return Err(format!("partition {other}; allowed are state and data")),
    };
    let mode = u32::from_str_radix(mode, 8)
        .ok()
        .filter(|m| *m <= 0o7777)
        .ok_or_else(|| format!("mode {mode} is not octal"))?;
    let ids = owner.split_once(':').and_then(|(u, g)| Some((u.parse().ok()?, g.parse().ok()?)));
    let (uid, gid) = ids.ok_or_else(|| format!("owner {owner}; write it as uid:gid in numbers"))?;
    Ok(Entry { path: path.to_owned(), partition, mode, uid, gid })
}

/// Reads every list below `root`, sorted by file name; a later line for the same path replaces an earlier one.
pub fn load(root: &Path) -> (Vec<Entry>, Vec<Complaint>) {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root.join(DIR))
        .into_iter()
        .flatten()
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "conf"))
        .collect();
    files.sort();
    let (mut entries, mut complaints) = (Vec::<Entry>::new(), Vec::new());
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let (more, bad) = parse(&name, &text);
                for entry in more {
                    entries.retain(|old| old.path != entry.path);
                    entries.push(entry);
                }
                complaints.extend(bad);
            }
            Err(err) => complaints.push(Complaint { file: name, line: 0, reason: err.to_string() }),
        }
    }
    (entries, complaints)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_a_list() {
        let (entries, bad) = parse("x", "# c\n/etc/ssh/keys state 0700 0:0\n\n/var/lib/docker  data 710 0:0 # big\n");
        assert!(bad.is_empty());
        assert_eq!(entries[0].source(), Path::new("/mnt/state/root/etc/ssh/keys"));
        assert_eq!((entries[1].mode, entries[1].partition), (0o710, Partition::Data));
    }

    #[test]
    fn bad_lines_are_named_and_the_rest_still_counts() {
        let text = "/a state 0700\n../b state 0700 0:0\n/ state 0700 0:0\n/c disk 0700 0:0\n/d state 9 0:0\n/e state 0700 root\n/ok state 0700 0:0\n";
        let (entries, bad) = parse("x", text);
        assert_eq!(entries.len(), 1);
        assert_eq!(bad.iter().map(|b| b.line).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        assert!(bad[3].to_string().contains("allowed are state and data"));
    }

    proptest! {
        #[test]
        fn never_panics_and_never_leaves_the_root(text in "[ a-z0-9/.#:\n]*") {
            for entry in parse("x", &text).0 {
                prop_assert!(entry.source().starts_with("/mnt"));
                prop_assert!(!entry.source().to_string_lossy().contains(".."));
            }
        }
    }
}
