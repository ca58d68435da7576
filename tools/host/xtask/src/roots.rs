//! Compares the root file systems of the two lanes: what starts, what listens, what is in `/etc`, what runs with somebody
//! else's rights. What may differ stands in `lanes.txt`, with its reason.

use crate::walk;
use anyhow::{Context, Result, ensure};
use lab::repo::{self, Repo};
use os_sys::cmd::Cmd;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where units are, from the top of a root.
const UNITS: [&str; 2] = ["etc/systemd/system", "usr/lib/systemd/system"];

/// What is compared of a root: by the path or the name of a thing, what it is like.
#[derive(Debug, Default)]
struct Root {
    things: BTreeMap<String, String>,
}

/// Compares two roots, directories or erofs images, and says what differs.
///
/// # Errors
/// When one cannot be read, or something differs that `lanes.txt` does not name.
pub fn run(repo: &Repo, lab: &Path, yocto: &Path) -> Result<()> {
    let work = tempfile::tempdir()?;
    let lab = Root::read(&unpacked(lab, &work.path().join("lab"))?)?;
    let yocto = Root::read(&unpacked(yocto, &work.path().join("yocto"))?)?;
    let allowed = Allowed::parse(&repo::list(&repo.root.join("tools/host/xtask/lanes.txt"))?)?;
    let (said, unused) = (differences(&lab, &yocto, &allowed), allowed.unused(&lab, &yocto));
    for pattern in &unused {
        os_sys::say!("lanes.txt: nothing differs any more: {pattern}");
    }
    for line in &said {
        os_sys::say!("{line}");
    }
    ensure!(said.is_empty(), "{} differences of the roots that lanes.txt does not name", said.len());
    os_sys::say!("{} and {} things agree, but for what lanes.txt names", lab.things.len(), yocto.things.len());
    Ok(())
}

fn unpacked(root: &Path, to: &Path) -> Result<PathBuf> {
    if root.is_dir() {
        return Ok(root.to_owned());
    }
    let extract = Cmd::new("fsck.erofs").arg(format!("--extract={}", to.display())).arg(root);
    extract.run().with_context(|| format!("{} is neither a directory nor an erofs image", root.display()))?;
    Ok(to.to_owned())
}

impl Root {
    fn read(top: &Path) -> Result<Self> {
        let files = walk::files(top)?;
        let mut things = BTreeMap::new();
        let mut enabled = BTreeSet::new();
        for path in &files {
            let name = path.strip_prefix(top)?;
            let meta = path.symlink_metadata()?;
            let mode = meta.permissions().mode() & 0o7777;
            let unit = UNITS.iter().find_map(|dir| name.strip_prefix(dir).ok()).filter(|_| meta.is_symlink());
            if let Some(unit) = unit {
                let dir = unit.parent().and_then(Path::extension);
                if dir.is_some_and(|kind| kind == "wants" || kind == "requires") {
                    things.insert(format!("start {}", unit.display()), String::new());
                    enabled.extend(unit.file_name().map(|unit| unit.to_string_lossy().into_owned()));
                }
            } else if name.starts_with("etc") {
                things.insert(name.display().to_string(), content(path, mode)?);
            }
            if meta.is_file() && mode & 0o6000 != 0 {
                things.insert(format!("rights {}", name.display()), format!("mode {mode:o}"));
            }
        }
        for unit in enabled.into_iter().filter(|unit| unit.ends_with(".socket")) {
            for address in listens(top, &files, &unit) {
                things.insert(format!("listen {address}"), unit.clone());
            }
        }
        Ok(Self { things })
    }
}

/// Mode and content of a file, or where a link leads.
fn content(path: &Path, mode: u32) -> Result<String> {
    if path.is_symlink() {
        return Ok(format!("link to {}", fs::read_link(path)?.display()));
    }
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let sum = os_sys::hex(Sha256::digest(&bytes).get(..6).unwrap_or_default());
    Ok(format!("mode {mode:o}, {} bytes, {sum}", bytes.len()))
}

/// Addresses that a socket unit listens on: of the first file with its name, as systemd takes it, with what drop-ins add.
fn listens(top: &Path, files: &[PathBuf], unit: &str) -> Vec<String> {
    let mut texts: Vec<String> =
        UNITS.iter().find_map(|dir| fs::read_to_string(top.join(dir).join(unit)).ok()).into_iter().collect();
    let drop_ins = UNITS.map(|dir| top.join(dir).join(format!("{unit}.d")));
    let drop_ins = files.iter().filter(|path| drop_ins.iter().any(|dir| path.starts_with(dir)));
    texts.extend(drop_ins.filter_map(|path| fs::read_to_string(path).ok()));
    let mut out: Vec<String> = Vec::new();
    for line in texts.iter().flat_map(|text| text.lines()) {
        let Some((name, value)) = line.split_once('=') else { continue };
        match (["ListenStream", "ListenDatagram", "ListenSequentialPacket"].contains(&name.trim()), value.trim()) {
            (true, "") => out.clear(),
            (true, value) => out.push(value.to_owned()),
            (false, _) => {}
        }
    }
    out
}

/// What may differ: a pattern in each line, `*` in it for any text, before two blanks and the reason.
struct Allowed(Vec<String>);

impl Allowed {
    fn parse(lines: &[String]) -> Result<Self> {
        let pattern = |line: &String| {
            let (pattern, reason) = line.split_once("  ").with_context(|| format!("lanes.txt: no reason: {line}"))?;
            ensure!(!reason.trim().is_empty(), "lanes.txt: no reason: {line}");
            Ok(pattern.to_owned())
        };
        lines.iter().map(pattern).collect::<Result<_>>().map(Self)
    }

    fn covers(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, name))
    }

    /// Patterns that no difference needs.
    fn unused(&self, lab: &Root, yocto: &Root) -> Vec<&String> {
        let names: BTreeSet<&String> = lab.things.keys().chain(yocto.things.keys()).collect();
        let differs = |name: &&&String| lab.things.get(**name) != yocto.things.get(**name);
        let needed = |pattern: &&String| names.iter().filter(differs).any(|name| matches(pattern, name));
        self.0.iter().filter(|pattern| !needed(pattern)).collect()
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|text| {
            rest.is_empty() || text.char_indices().any(|(at, _)| text.get(at..).is_some_and(|tail| matches(rest, tail)))
        }),
    }
}

fn differences(lab: &Root, yocto: &Root, allowed: &Allowed) -> Vec<String> {
    let names: BTreeSet<&String> = lab.things.keys().chain(yocto.things.keys()).collect();
    let said = names.into_iter().filter(|name| !allowed.covers(name)).filter_map(|name| {
        match (lab.things.get(name), yocto.things.get(name)) {
            (Some(lab), Some(yocto)) if lab == yocto => None,
            (Some(lab), Some(yocto)) => Some(format!("{name}: {lab} in the lab, {yocto} in Yocto")),
            (Some(_), None) => Some(format!("{name}: in the lab only")),
            (None, _) => Some(format!("{name}: in Yocto only")),
        }
    });
    said.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root(dir: &Path) -> Root {
        let file = |path: &str, text: &str| {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        };
        file("usr/lib/systemd/system/ssh.socket", "[Socket]\nListenStream=22\n");
        file("etc/systemd/system/ssh.socket.d/port.conf", "[Socket]\nListenStream=\nListenStream=22222\n");
        file("usr/lib/systemd/system/off.socket", "[Socket]\nListenStream=1\n");
        fs::create_dir_all(dir.join("etc/systemd/system/sockets.target.wants")).unwrap();
        symlink("/usr/lib/systemd/system/ssh.socket", dir.join("etc/systemd/system/sockets.target.wants/ssh.socket"))
            .unwrap();
        file("etc/os/channel", "http://u.example\n");
        let su = file("usr/bin/su", "");
        fs::set_permissions(&su, fs::Permissions::from_mode(0o4755)).unwrap();
        file("usr/bin/ls", "");
        Root::read(dir).unwrap()
    }

    #[test]
    fn a_root_is_what_starts_listens_and_is_configured() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<String> = root(dir.path()).things.into_keys().collect();
        assert_eq!(
            names,
            [
                "etc/os/channel",
                "etc/systemd/system/ssh.socket.d/port.conf",
                "listen 22222",
                "rights usr/bin/su",
                "start sockets.target.wants/ssh.socket",
            ]
        );
    }

    #[test]
    fn what_differs_is_said_unless_it_may() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (lab, _) = (root(a.path()), root(b.path()));
        fs::write(b.path().join("etc/os/channel"), "http://v.example\n").unwrap();
        fs::write(b.path().join("etc/motd"), "hello").unwrap();
        fs::remove_file(b.path().join("etc/systemd/system/sockets.target.wants/ssh.socket")).unwrap();
        let yocto = Root::read(b.path()).unwrap();
        let none = Allowed::parse(&[]).unwrap();
        let said = differences(&lab, &yocto, &none);
        assert_eq!(said.len(), 4, "{said:?}");
        assert_eq!(said[0], "etc/motd: in Yocto only");
        assert!(said[1].starts_with("etc/os/channel: mode 644, 17 bytes"), "{said:?}");
        let lines = [
            "etc/m*d  a greeting",
            "listen *  tried",
            "start *  tried",
            "etc/os/*  tried",
            "etc/gone  it was there once",
        ];
        let allowed = Allowed::parse(&lines.map(str::to_owned)).unwrap();
        assert_eq!(differences(&lab, &yocto, &allowed), Vec::<String>::new());
        assert_eq!(allowed.unused(&lab, &yocto), ["etc/gone"]);
        assert!(Allowed::parse(&["etc/motd".to_owned()]).is_err());
    }

    #[test]
    fn patterns_stand_for_any_text() {
        for (pattern, text, wanted) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab/c", true),
            ("a*c", "ab/c", true),
            ("a*c", "ab/d", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), wanted, "{pattern} {text}");
        }
    }
}
