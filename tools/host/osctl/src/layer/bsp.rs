//! A layer of somebody else on this machine: what it calls itself, and which machines it has.

use super::conf::{Conf, Fact};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// A layer.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) dir: PathBuf,
    /// Its name in `BBFILE_COLLECTIONS`, by which other layers depend on it.
    pub(super) collection: String,
    /// The releases that it names as compatible; none when only BitBake can tell.
    pub(super) series: Option<Vec<String>>,
    /// The collections that it depends on; none when only BitBake can tell.
    pub(super) depends: Option<Vec<String>>,
}

impl Layer {
    /// Reads `conf/layer.conf`.
    ///
    /// # Errors
    /// When the directory is no layer, or its name cannot be read.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        if dir.as_os_str().to_string_lossy().contains("://") {
            bail!("{} is an address: clone it, and name the directory of the layer in the clone", dir.display());
        }
        let dir = dir.canonicalize().with_context(|| format!("cannot open {}", dir.display()))?;
        let path = dir.join("conf/layer.conf");
        if !path.is_file() {
            let inner = names(&dir, |entry| entry.join("conf/layer.conf").is_file());
            let hint = if inner.is_empty() { String::new() } else { format!("; layers in it: {}", inner.join(", ")) };
            bail!("{} is no layer: it has no conf/layer.conf{hint}", dir.display());
        }
        let conf = Conf::read(&path, &[&dir], "")?;
        let collections = conf.get("BBFILE_COLLECTIONS");
        let collection = collections.text().and_then(|text| text.split_ascii_whitespace().next());
        let collection =
            collection.with_context(|| format!("{} does not say its name in BBFILE_COLLECTIONS", path.display()))?;
        let words = |name: &str| match conf.get(&format!("{name}_{collection}")) {
            Fact::Unset => Some(Vec::new()),
            Fact::Text(text) => Some(collections_of(&text)),
            Fact::Computed => None,
        };
        let (series, depends) = (words("LAYERSERIES_COMPAT"), words("LAYERDEPENDS"));
        Ok(Self { collection: collection.to_owned(), series, depends, dir })
    }

    /// The configuration file of a machine.
    pub(super) fn machine_conf(&self, machine: &str) -> PathBuf {
        self.dir.join(format!("conf/machine/{machine}.conf"))
    }

    /// The machines that it has, in alphabetical order.
    pub(super) fn machines(&self) -> Vec<String> {
        let files = names(&self.dir.join("conf/machine"), Path::is_file);
        let mut machines: Vec<String> =
            files.iter().filter_map(|name| name.strip_suffix(".conf")).map(str::to_owned).collect();
        machines.sort();
        machines
    }
}

fn names(dir: &Path, wanted: impl Fn(&Path) -> bool) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().filter(|entry| wanted(&entry.path()));
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The names in a list such as `core (>= 12) meta-python:1`, without the versions.
pub(super) fn collections_of(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('(') {
        names.extend(before.split_ascii_whitespace());
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    names.extend(rest.split_ascii_whitespace());
    names.into_iter().map(|name| name.split(':').next().unwrap_or(name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_no_names() {
        assert_eq!(collections_of("core (>= 12) meta-python:1 acme"), ["core", "meta-python", "acme"]);
        assert_eq!(collections_of("core (>= 12"), ["core"]);
    }

    #[test]
    fn what_is_no_layer_is_said_to_be_none() {
        let dir = tempfile::tempdir().unwrap();
        let said = |dir: &Path| Layer::open(dir).map_or_else(|err| format!("{err:#}"), |layer| layer.collection);
        assert!(said(&dir.path().join("none")).starts_with("cannot open"));
        assert!(said(Path::new("https://example.com/meta-acme")).contains("clone it"));
        std::fs::create_dir_all(dir.path().join("meta-acme/conf")).unwrap();
        std::fs::write(dir.path().join("meta-acme/conf/layer.conf"), "BBPATH .= ':${LAYERDIR}'\n").unwrap();
        assert!(said(dir.path()).ends_with("layers in it: meta-acme"));
        assert!(said(&dir.path().join("meta-acme")).contains("BBFILE_COLLECTIONS"));
        std::fs::write(dir.path().join("meta-acme/conf/layer.conf"), "BBFILE_COLLECTIONS += \"acme\"\n").unwrap();
        assert_eq!(said(&dir.path().join("meta-acme")), "acme");
    }
}
