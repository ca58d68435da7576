//! Where a checkout comes from, as its git says.

use super::name::Url;
use anyhow::{Result, ensure};
use os_sys::cmd::Cmd;
use std::path::{Path, PathBuf};

/// A checkout.
#[derive(Debug)]
pub(super) struct Checkout {
    /// Its top directory.
    pub(super) top: PathBuf,
    /// Where it comes from; none without a remote.
    pub(super) url: Option<Url>,
    /// The branch of the remote that it is on, where that is known.
    pub(super) branch: Option<String>,
    /// The full hash of what is checked out; none before the first commit.
    pub(super) commit: Option<String>,
    /// Whether a branch of the remote has that commit, as far as the checkout knows.
    pub(super) published: bool,
    /// Whether files differ from the commit.
    pub(super) changed: bool,
}

fn git(dir: &Path, arguments: &[&str]) -> Result<String> {
    Ok(Cmd::new("git").arg("-C").arg(dir).args(arguments).read()?.trim().to_owned())
}

/// The top directory of the checkout that a directory is in.
pub(super) fn top(dir: &Path) -> Option<PathBuf> {
    git(dir, &["rev-parse", "--show-toplevel"]).ok().map(PathBuf::from)
}

/// Reads a checkout; none where the directory is in none.
///
/// # Errors
/// When git refuses, as it does for the files of another user, or the address of the remote is of no use to others.
pub(super) fn read(dir: &Path) -> Result<Option<Checkout>> {
    let top = match git(dir, &["rev-parse", "--show-toplevel"]) {
        Ok(top) => PathBuf::from(top),
        Err(err) if err.to_string().contains("not a git repository") => return Ok(None),
        Err(err) => return Err(err.context(format!("git does not read {}", dir.display()))),
    };
    let remotes = git(&top, &["remote"])?;
    // "branch.NAME.remote" of git-config(1) would be more exact; whoever has several remotes names the address.
    let remote = remotes.lines().find(|name| *name == "origin").or_else(|| remotes.lines().next());
    let url = match remote {
        Some(remote) => Some(Url::from_remote(&git(&top, &["remote", "get-url", remote])?)?),
        None => None,
    };
    let commit = git(&top, &["rev-parse", "--verify", "HEAD"]).ok();
    let branches = match (remote, &commit) {
        (Some(remote), Some(_)) => {
            let format = format!("--format=%(refname:lstrip=3)%09refs/remotes/{remote}/");
            let pattern = format!("refs/remotes/{remote}/");
            git(&top, &["for-each-ref", "--contains=HEAD", &format, &pattern])?
        }
        _ => String::new(),
    };
    let branches: Vec<&str> = branches.lines().filter_map(|line| line.split('\t').next()).collect();
    let upstream = git(&top, &["rev-parse", "--abbrev-ref", "@{upstream}"]).ok();
    let upstream = upstream.as_deref().and_then(|name| name.split_once('/')).map(|(_, branch)| branch.to_owned());
    let only = match branches.iter().filter(|name| **name != "HEAD").collect::<Vec<_>>()[..] {
        [branch] => Some((*branch).to_owned()),
        _ => None,
    };
    let changed = !git(&top, &["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Ok(Some(Checkout { top, url, branch: upstream.or(only), commit, published: !branches.is_empty(), changed }))
}

/// Makes a directory a repository: kas finds the layer by it.
///
/// # Errors
/// When git fails.
pub(super) fn init(dir: &Path) -> Result<()> {
    git(dir, &["init", "--quiet", "--initial-branch=main"]).map(drop)
}

/// A name and an address for what a person signs, as git has them.
pub(super) fn person(dir: &Path) -> Option<String> {
    let value = |key: &str| git(dir, &["config", "--get", key]).ok().filter(|value| !value.is_empty());
    Some(format!("{} <{}>", value("user.name")?, value("user.email")?))
}

/// A full commit hash, which is what kas wants.
///
/// # Errors
/// When it is something else.
pub(super) fn full_hash(text: &str) -> Result<String> {
    ensure!(
        text.len() == 40 && text.chars().all(|c| c.is_ascii_hexdigit()),
        "write the full hash, the 40 digits of git rev-parse"
    );
    Ok(text.to_ascii_lowercase())
}
