//! What an update costs in bytes, with the ways that others know beside ours: measured on this machine, on the images of
//! two builds. Nothing of it runs in a virtual machine.
//!
//! The older build is made from a mirror that the caller names (`OS_BENCH_OLD_MIRROR`, as `OS_DEBIAN_MIRROR` is): one
//! without security updates gives a real security update, one of the release before a real step.

use anyhow::{Context, Result, ensure};
use lab::image::bundle::{self, Images};
use lab::image::compose;
use lab::image::keys;
use lab::repo::{self, Repo};
use os_sys::cmd::Cmd;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const VARIANT: &str = "development";
/// What RAUC's block-hash-index compares, in bytes.
const BLOCK: usize = 4096;
/// What a run of a program took.
struct Cost {
    time: Duration,
    /// Most memory at a time, in KiB.
    peak: u64,
}

/// Where the older image comes from.
pub(crate) fn old_mirror() -> Option<std::ffi::OsString> {
    std::env::var_os("OS_BENCH_OLD_MIRROR")
}

/// The section for `docs/benchmarks.md`; empty when no older mirror is named.
pub(crate) fn section(repo: &Repo) -> Result<String> {
    let Some(old_mirror) = old_mirror() else {
        return Ok("\n## Updates in bytes\n\nNot measured: `OS_BENCH_OLD_MIRROR` names no older mirror.\n".to_owned());
    };
    let dir = repo.build.join("bench");
    let mut text = String::from("\n## Updates in bytes\n\n");
    writeln!(
        text,
        "From an image of Debian's point release to one with all security updates since, and the same image again. Root \
         slot only, the kernel partition is written whole. \"to make\" is once per release and machine; \"to apply\" is on \
         the device, here on one core of the host above.\n"
    )?;
    let old = build(repo, &dir.join("old"), Some(&old_mirror))?;
    let new = build(repo, &dir.join("new"), None)?;
    writeln!(text, "{}\n", packages(&dir)?)?;
    // zstd refuses a file that is its own dictionary.
    let same = dir.join("same.verity");
    std::fs::copy(&new, &same)?;
    for (words, from) in [("security update", &old), ("the same image again", &same)] {
        writeln!(text, "| {words} | fetched | written | to make | to apply | memory to apply |")?;
        writeln!(text, "|---|---|---|---|---|---|")?;
        compare(&mut text, repo, &dir, from, &new)?;
        writeln!(text)?;
    }
    text.push_str(&filesystems(repo)?);
    Ok(text)
}

/// Ways to make the root filesystem, ours first: what each is called, and options of mkfs.erofs.
const FILESYSTEMS: &[(&str, &[&str])] = &[
    ("lz4hc, clusters of 64 KiB, tails packed: ours", &["-zlz4hc,9", compose::EROFS[0], compose::EROFS[1]]),
    ("lz4hc, clusters of 64 KiB", &["-zlz4hc,9", "-C65536"]),
    ("lz4hc, clusters of 4 KiB", &["-zlz4hc,9", "-C4096"]),
    ("not compressed", &[]),
];

/// How much of the security update is only the filesystem's doing: what unchanged files have in common depends on how
/// they are packed. Of the images that [`section`] built last.
pub(crate) fn filesystems(repo: &Repo) -> Result<String> {
    let dir = repo.build.join("bench");
    let trees = ["old", "new"].map(|which| (which, dir.join(format!("tree-{which}"))));
    for (which, tree) in &trees {
        let _ = std::fs::remove_dir_all(tree);
        let extract = format!("--extract={}", tree.display());
        Cmd::new("fsck.erofs").arg(extract).arg(root_image(repo, &dir.join(which))?).run()?;
    }
    let mut text = String::from(
        "The security update again, with the same files in other filesystems; patches by `zstd -3 --long=31`.\n\n\
         | erofs | image | blocks that are not there | patch |\n|---|---|---|---|\n",
    );
    for (name, options) in FILESYSTEMS {
        let mut images = Vec::new();
        for (which, tree) in &trees {
            let made = dir.join(format!("{which}.erofs"));
            let _ = std::fs::remove_file(&made);
            // The owners are the same in both, and a plain user cannot keep them.
            Cmd::new("mkfs.erofs")
                .args(*options)
                .args(["--all-root", "-T0", "-U", "00000000-0000-4000-8000-000000000000"])
                .arg(&made)
                .arg(tree)
                .run()?;
            images.push(made);
        }
        let [old, new] = images.as_slice() else { continue };
        let (missing, index) = missing_blocks(old, new)?;
        let patch = dir.join("patch.zst");
        let from = format!("--patch-from={}", old.display());
        Cmd::new("zstd").args(["-3", "--long=31", "-T1", "-q", "-f", &from]).arg(new).arg("-o").arg(&patch).run()?;
        let sizes = [new.metadata()?.len(), missing + index, patch.metadata()?.len()].map(mib);
        writeln!(text, "| {name} | {} |", sizes.join(" | "))?;
    }
    for (_, tree) in &trees {
        std::fs::remove_dir_all(tree)?;
    }
    Ok(text)
}

/// Builds a root slot in a directory of its own and returns its image.
fn build(repo: &Repo, build: &Path, mirror: Option<&std::ffi::OsStr>) -> Result<PathBuf> {
    println!("Building {} …", build.display());
    let mut cmd = Command::new(std::env::current_exe()?.with_file_name("lab"));
    cmd.args(["build", "--variant", VARIANT]).current_dir(&repo.root).stdout(Stdio::null());
    cmd.env("OS_BUILD_DIR", build);
    if let Some(mirror) = mirror {
        cmd.env("OS_DEBIAN_MIRROR", mirror);
    }
    ensure!(cmd.status()?.success(), "the build in {} failed", build.display());
    root_image(repo, build)
}

fn mib(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / 1048576.0)
}

fn root_image(repo: &Repo, build: &Path) -> Result<PathBuf> {
    let image = build.join("lab").join(VARIANT).join("slot").join(repo::need(&repo.vars()?, "OS_ROOT_IMAGE")?);
    ensure!(image.exists(), "there is no {}; e2e deltas builds it", image.display());
    Ok(image)
}

/// Which packages differ.
fn packages(dir: &Path) -> Result<String> {
    let list = |build: &str| -> Result<HashSet<String>> {
        let base = dir.join(build).join("lab/base/base.tar");
        let text = Cmd::new("tar").args(["-xOf"]).arg(base).arg("./var/lib/dpkg/status").read()?;
        let mut packages = HashSet::new();
        let mut name = "";
        for line in text.lines() {
            if let Some(found) = line.strip_prefix("Package: ") {
                name = found;
            } else if let Some(version) = line.strip_prefix("Version: ") {
                packages.insert(format!("{name} {version}"));
            }
        }
        Ok(packages)
    };
    let (old, new) = (list("old")?, list("new")?);
    let mut changed: Vec<&str> = new.difference(&old).filter_map(|p| p.split(' ').next()).collect();
    changed.sort_unstable();
    Ok(format!("{} of {} packages differ: {}.", changed.len(), new.len(), changed.join(", ")))
}

fn compare(text: &mut String, repo: &Repo, dir: &Path, old: &Path, new: &Path) -> Result<()> {
    let size = new.metadata()?.len();
    let mut row = |name: &str, fetched: u64, written: u64, make: Option<Cost>, apply: Option<Cost>| -> Result<()> {
        let time =
            |cost: &Option<Cost>| cost.as_ref().map_or(String::new(), |c| format!("{:.1} s", c.time.as_secs_f64()));
        let memory = apply.as_ref().map_or(String::new(), |c| format!("{} MiB", c.peak >> 10));
        let (make, apply) = (time(&make), time(&apply));
        Ok(writeln!(text, "| {name} | {} | {} | {make} | {apply} | {memory} |", mib(fetched), mib(written))?)
    };
    println!("  {} to {}", old.display(), new.display());
    let bundle = dir.join("one.raucb");
    let empty = dir.join("empty");
    std::fs::write(&empty, [0; BLOCK])?;
    let start = Instant::now();
    let images = Images { kernel: empty, root: new.to_owned() };
    bundle::make(&keys::ensure(repo)?, "bench", "1.0.0", &images, &bundle)?;
    let make = Cost { time: start.elapsed(), peak: 0 };
    row("RAUC, streamed whole", bundle.metadata()?.len(), size, Some(make), None)?;

    let (missing, index) = missing_blocks(old, new)?;
    row(
        "RAUC, adaptive (block-hash-index): what os-update does; computed: blocks of 4 KiB that are not there, and the index, not rounded to requests",
        missing + index,
        size,
        None,
        None,
    )?;

    let store = dir.join("store.castr");
    let _ = std::fs::remove_dir_all(&store);
    let chunks = |name: &str, image: &Path| -> Result<Cost> {
        let mut cmd = Command::new("casync");
        cmd.arg("make").arg(format!("--store={}", store.display())).arg(dir.join(name)).arg(image);
        run(cmd)
    };
    chunks("old.caibx", old)?;
    let before = size_of(&store)?;
    let make = chunks("new.caibx", new)?;
    let fetched = size_of(&store)? - before + dir.join("new.caibx").metadata()?.len();
    let out = dir.join("applied.img");
    let _ = std::fs::remove_file(&out);
    let mut cmd = Command::new("casync");
    cmd.args(["extract", &format!("--store={}", store.display()), &format!("--seed={}", old.display())]);
    cmd.arg(dir.join("new.caibx")).arg(&out);
    let apply = run(cmd)?;
    ensure!(std::fs::read(&out)? == std::fs::read(new)?, "casync made another image");
    row("casync", fetched, size, Some(make), Some(apply))?;

    let patch = dir.join("patch.zst");
    let mut cmd = Command::new("zstd");
    cmd.args(["-19", "--long=31", "-T1", "-q", "-f", &format!("--patch-from={}", old.display())])
        .arg(new)
        .arg("-o")
        .arg(&patch);
    let make = run(cmd)?;
    let mut cmd = Command::new("zstd");
    cmd.args(["-d", "--long=31", "--memory=2048MB", "-q", "-f", &format!("--patch-from={}", old.display())]);
    let apply = run({
        cmd.arg(&patch).arg("-o").arg(&out);
        cmd
    })?;
    ensure!(std::fs::read(&out)? == std::fs::read(new)?, "zstd made another image");
    row("floor: `zstd -19 --long=31 --patch-from`", patch.metadata()?.len(), size, Some(make), Some(apply))
}

/// Bytes of the blocks of `new` that `old` does not have, and the size of the index that says which.
fn missing_blocks(old: &Path, new: &Path) -> Result<(u64, u64)> {
    let have: HashSet<u64> = blocks(old)?.into_iter().collect();
    let want = blocks(new)?;
    let index = want.len() as u64 * 32;
    let missing: HashSet<u64> = want.into_iter().filter(|block| !have.contains(block)).collect();
    Ok((missing.len() as u64 * BLOCK as u64, index))
}

fn blocks(image: &Path) -> Result<Vec<u64>> {
    let mut file = File::open(image)?;
    let mut out = Vec::new();
    let mut block = [0; BLOCK];
    loop {
        let mut got = 0;
        while got < BLOCK {
            match file.read(block.get_mut(got..).unwrap_or_default())? {
                0 => break,
                n => got += n,
            }
        }
        if got == 0 {
            return Ok(out);
        }
        let mut hasher = DefaultHasher::new();
        block.get(..got).hash(&mut hasher);
        out.push(hasher.finish());
    }
}

fn size_of(dir: &Path) -> Result<u64> {
    let text = Cmd::new("du").args(["-s", "--apparent-size", "-B1"]).arg(dir).read()?;
    text.split_whitespace().next().context("du says nothing")?.parse().context("du says no number")
}

/// Runs a program and watches its memory.
fn run(mut command: Command) -> Result<Cost> {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn().with_context(|| {
        let program = command.get_program().to_string_lossy();
        format!("cannot run {program}; install it with: sudo apt-get install {program}")
    })?;
    let mut peak = 0;
    let status = loop {
        let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let now =
            text.lines().find_map(|l| l.strip_prefix("VmHWM:")).and_then(|v| v.split_whitespace().next()?.parse().ok());
        peak = peak.max(now.unwrap_or(0));
        match child.try_wait()? {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    ensure!(status.success(), "{command:?}: {status}");
    Ok(Cost { time: start.elapsed(), peak })
}
