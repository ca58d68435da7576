//! Device nodes that are there before their drivers: opening one loads the driver.
//!
//! `modules.devname` of the kernel lists them (depmod(8)). Elsewhere two programs and a file in `/run` do this; here the
//! engine needs `/dev/net/tun` and `/dev/fuse` for containers and waits for no program.

use std::path::Path;

/// One line: `MODULE NAME TYPE MAJOR:MINOR`, such as `tun net/tun c10:200`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Path below `/dev`.
    pub name: String,
    /// Character device; block device otherwise.
    pub character: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// Nodes that every user may open, as udev has them too (50-udev-default.rules).
const FOR_ALL: &[&str] = &["net/tun", "fuse"];

impl Node {
    /// Access mode: udev refines it later.
    pub fn mode(&self) -> u32 {
        if FOR_ALL.contains(&self.name.as_str()) { 0o666 } else { 0o600 }
    }
}

/// Reads the list. What is not understood, or would lead out of `/dev`, is left out.
pub fn parse(text: &str) -> Vec<Node> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Node> {
    let mut words = line.split_ascii_whitespace();
    let (_, name, device) = (words.next()?, words.next()?, words.next()?);
    let character = match device.get(..1)? {
        "c" => true,
        "b" => false,
        _ => return None,
    };
    let (major, minor) = device.get(1..)?.split_once(':')?;
    let plain = Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    plain.then_some(Node { name: name.to_owned(), character, major: major.parse().ok()?, minor: minor.parse().ok()? })
}

/// Makes the nodes in `dev`; returns what could not be made. One that is there stays as it is.
pub fn make(dev: &Path, nodes: &[Node]) -> Vec<String> {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let mut problems = Vec::new();
    for node in nodes {
        let path = dev.join(&node.name);
        let kind = if node.character { FileType::CharacterDevice } else { FileType::BlockDevice };
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
            let made = mknodat(CWD, &path, kind, Mode::from_raw_mode(node.mode()), makedev(node.major, node.minor));
            match made {
                Err(rustix::io::Errno::EXIST) => Ok(()),
                other => other.map_err(std::io::Error::from),
            }
        });
        if let Err(err) = made {
            problems.push(format!("cannot make /dev/{}: {err}", node.name));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_kernels_list_is_read() {
        let text = "# Device nodes to trigger on-demand module loading.\nfuse fuse c10:229\ntun net/tun c10:200\nloop loop-control c10:237\nmd x b9:0\n";
        let nodes = parse(text);
        let names: Vec<_> = nodes.iter().map(|n| (n.name.as_str(), n.mode(), n.character)).collect();
        assert_eq!(
            names,
            [("fuse", 0o666, true), ("net/tun", 0o666, true), ("loop-control", 0o600, true), ("x", 0o600, false)]
        );
        assert_eq!((nodes[1].major, nodes[1].minor), (10, 200));
    }

    proptest! {
        #[test]
        fn nothing_leads_out_of_dev(text in "[a-z0-9/. :\n]*") {
            for node in parse(&text) {
                prop_assert!(!node.name.starts_with('/') && !node.name.contains(".."));
            }
        }
    }
}
