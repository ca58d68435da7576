//! The repositories of a kas file: what pins them, and which layers are taken from them.

use super::bsp::Layer;
use super::git::{self, Checkout};
use super::name::Url;
use super::release::Release;
use super::{Notes, Options};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The key of this project's repository: the one that its own kas files name.
const OS: &str = "os";
/// What this project's checkout is known by.
const IS_OS: &str = "meta-os/conf/distro/os.conf";

/// A repository as the kas file has it.
#[derive(Debug, Serialize)]
pub(super) struct Repo {
    pub(super) name: String,
    /// None where the kas file of the release has it.
    url: Option<String>,
    branch: Option<String>,
    commit: Option<String>,
    /// Directories of layers; empty where the repository is one.
    pub(super) layers: Vec<String>,
}

/// The checkout of this project that a person named, or else that the working directory is in.
pub(super) fn os_checkout(options: &Options) -> Result<Option<PathBuf>> {
    let is_os = |dir: &Path| dir.join(IS_OS).is_file();
    if let Some(dir) = &options.os {
        let dir = dir.canonicalize().with_context(|| format!("cannot open {}", dir.display()))?;
        if !is_os(&dir) {
            bail!("{} is no checkout of this project: it has no {IS_OS}", dir.display());
        }
        return Ok(Some(dir));
    }
    let here = std::env::current_dir()?;
    Ok(here.ancestors().find(|dir| is_os(dir)).map(Path::to_owned))
}

/// This project's repository.
///
/// # Errors
/// When git refuses to read the checkout.
pub(super) fn os(options: &Options, checkout: Option<&Path>, notes: &mut Notes) -> Result<Repo> {
    let checkout = checkout.map(git::read).transpose()?.flatten();
    let home = env!("CARGO_PKG_REPOSITORY").parse::<Url>()?;
    let found = checkout.as_ref().and_then(|checkout| checkout.url.clone());
    let url = options.os_url.clone().or(found).unwrap_or(home);
    let commit = options.os_commit.clone().or(checkout.as_ref().and_then(|checkout| checkout.commit.clone()));
    // A commit that a person names may be on any branch.
    let branch = checkout.as_ref().filter(|_| options.os_commit.is_none()).and_then(|checkout| checkout.branch.clone());
    let branch = if commit.is_none() { Some("main".to_owned()) } else { branch };
    match &commit {
        Some(commit) => notes.read(OS, commit, if options.os_commit.is_some() { "--os-commit" } else { "git" }),
        None => notes.check("The commit of os in the kas file: a build follows its branch until there is one."),
    }
    doubts(OS, &url, checkout.as_ref().filter(|_| options.os_commit.is_none() && options.os_url.is_none()), notes);
    Ok(Repo { name: OS.to_owned(), url: Some(url.to_string()), branch, commit, layers: Vec::new() })
}

/// The repositories of the layers: the machine's first, then those that it needs.
///
/// # Errors
/// When nothing says where a layer comes from.
pub(super) fn of_layers(layers: &[&Layer], options: &Options, own: &str, notes: &mut Notes) -> Result<Vec<Repo>> {
    let ours = options.release.repos()?;
    let mut repos: Vec<Repo> = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let checkout = git::read(&layer.dir)?;
        let top = checkout.as_ref().map_or(&layer.dir, |checkout| &checkout.top);
        let inside =
            layer.dir.strip_prefix(top.canonicalize()?).unwrap_or(Path::new("")).to_string_lossy().into_owned();
        let pin = pin(layer, checkout.as_ref(), options, number == 0)?;
        let directory = top.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(name) = ours.iter().find(|name| *name == pin.url.name() || **name == directory) {
            let file = format!("kas/include/{}.yml", options.release.as_str());
            notes.read(name, "at the commit that this project has chosen", &file);
            add(&mut repos, Repo { name: name.clone(), url: None, branch: None, commit: None, layers: vec![inside] });
            continue;
        }
        let Some(commit) = pin.commit.clone() else {
            bail!("nothing says which commit of {} to take: --bsp-commit", pin.url)
        };
        let name = match pin.url.name() {
            name if name == OS || name == own || name.is_empty() => format!("{own}-bsp"),
            name => name.to_owned(),
        };
        notes.read(&name, &commit, if number == 0 && options.bsp_commit.is_some() { "--bsp-commit" } else { "git" });
        let said = number == 0 && (options.bsp_commit.is_some() || options.bsp_url.is_some());
        doubts(&name, &pin.url, checkout.as_ref().filter(|_| !said), notes);
        let layers = if inside.is_empty() { Vec::new() } else { vec![inside] };
        let url = Some(pin.url.to_string());
        add(&mut repos, Repo { name, url, branch: pin.branch, commit: Some(commit), layers });
    }
    Ok(repos)
}

/// What pins a repository.
#[derive(Debug)]
struct Pin {
    url: Url,
    branch: Option<String>,
    commit: Option<String>,
}

/// Where a layer comes from: what a person said of the machine's, then its git.
fn pin(layer: &Layer, checkout: Option<&Checkout>, options: &Options, is_machines: bool) -> Result<Pin> {
    let said = Some(options).filter(|_| is_machines);
    let url = said.and_then(|said| said.bsp_url.clone());
    let commit = said.and_then(|said| said.bsp_commit.clone());
    let branch = said.and_then(|said| said.bsp_branch.clone());
    let Some(checkout) = checkout else {
        let missing =
            "is in no git checkout; --bsp-url and --bsp-commit say where the layer with the machine comes from";
        let (url, commit) = url.zip(commit).with_context(|| format!("{} {missing}", layer.dir.display()))?;
        return Ok(Pin { url, branch, commit: Some(commit) });
    };
    let url = match url {
        Some(url) => url,
        None => checkout.url.clone().with_context(|| {
            format!("the git of {} has no remote; --bsp-url says where others get it", checkout.top.display())
        })?,
    };
    // The branch belongs to the commit.
    let branch = branch.or(checkout.branch.clone().filter(|_| commit.is_none()));
    Ok(Pin { url, branch, commit: commit.or(checkout.commit.clone()) })
}

/// Two layers of one repository are one entry.
fn add(repos: &mut Vec<Repo>, repo: Repo) {
    match repos.iter_mut().find(|before| before.name == repo.name) {
        Some(before) => {
            // The top directory goes without saying only where it is the only one.
            let named = |layers: Vec<String>| if layers.is_empty() { vec![".".to_owned()] } else { layers };
            before.layers = [named(std::mem::take(&mut before.layers)), named(repo.layers)].concat();
        }
        None => repos.push(repo),
    }
}

/// What would keep others from getting what was read here.
fn doubts(name: &str, url: &Url, checkout: Option<&Checkout>, notes: &mut Notes) {
    if url.is_local() {
        notes.check(format!("The address of {name}, {url}, is one of this machine: others need another."));
    }
    let Some(checkout) = checkout else { return };
    if checkout.changed {
        notes.check(format!(
            "The checkout of {name} has changes that are in no commit: the kas file has it without them."
        ));
    }
    if !checkout.published {
        notes.check(format!("No branch of {url} has the commit of {name} yet, as far as its checkout knows: push it."));
    }
}

/// What the kas file lacks of what the layers depend on.
pub(super) fn missing_layers(layers: &[&Layer], notes: &mut Notes) {
    let known: Vec<String> =
        Release::collections().into_iter().chain(layers.iter().map(|layer| layer.collection.clone())).collect();
    for layer in layers {
        let Some(depends) = &layer.depends else {
            notes.check(format!("What does the layer {} depend on? Only BitBake can tell.", layer.collection));
            continue;
        };
        for name in depends.iter().filter(|name| !known.contains(name)) {
            notes.check(format!(
                "The layer {} depends on {name}, which the kas file lacks: name its checkout with --depends.",
                layer.collection
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_one_repository_are_one_entry() {
        let repo = |layers: &[&str]| Repo {
            name: "acme".to_owned(),
            url: None,
            branch: None,
            commit: None,
            layers: layers.iter().map(|name| (*name).to_owned()).collect(),
        };
        let mut repos = Vec::new();
        add(&mut repos, repo(&[]));
        add(&mut repos, repo(&["meta-soc"]));
        assert_eq!((repos.len(), &repos[0].layers[..]), (1, &[".".to_owned(), "meta-soc".to_owned()][..]));
    }
}
