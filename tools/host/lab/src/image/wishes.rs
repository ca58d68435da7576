//! How an image was built, remembered beside it: whoever runs it in another shell gets the same again.

use crate::image::Options;
use crate::repo::Repo;
use anyhow::Result;
use os_sys::files;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;

/// What a builder chose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wishes {
    /// Variables of the environment.
    pub variables: BTreeMap<String, String>,
    /// `config.json` for the boot partition.
    pub config: Option<PathBuf>,
    /// Archives that come with the system.
    pub preload: Vec<PathBuf>,
}

impl Wishes {
    /// What is wished now.
    pub fn now(repo: &Repo, options: &Options) -> Self {
        let Options { config, preload, .. } = options;
        Self { variables: repo.wishes.clone(), config: config.clone(), preload: preload.clone() }
    }

    /// How the image of a variant was built; nothing when there is none.
    pub fn last(repo: &Repo, variant: &str) -> Self {
        let read = std::fs::read(path(repo, variant)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        read.unwrap_or_default()
    }

    /// What to build so that it is the same again, in the repository as it is then; and what was taken over, for people.
    pub fn again(repo: &mut Repo, variant: &str) -> (Options, Vec<String>) {
        let mut options = Options { variant: variant.to_owned(), config: None, preload: Vec::new() };
        let taken = Self::last(repo, variant).fill(repo, &mut options);
        (options, taken)
    }

    /// Remembers it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, repo: &Repo, variant: &str) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        Ok(files::write_if_changed(&path(repo, variant), &text, 0o644).map(drop)?)
    }

    /// Takes over what is not wished otherwise now; returns what that was, for people.
    fn fill(self, repo: &mut Repo, options: &mut Options) -> Vec<String> {
        let mut taken = Vec::new();
        for (name, value) in self.variables {
            if let Entry::Vacant(open) = repo.wishes.entry(name) {
                taken.push(format!("{}={value}", open.key()));
                open.insert(value);
            }
        }
        if let Some(config) = self.config.filter(|_| options.config.is_none()) {
            taken.push(format!("CONFIG={}", config.display()));
            options.config = Some(config);
        }
        if options.preload.is_empty() {
            taken.extend(self.preload.iter().map(|archive| format!("--preload {}", archive.display())));
            options.preload = self.preload;
        }
        taken
    }
}

fn path(repo: &Repo, variant: &str) -> PathBuf {
    repo.lab().join(variant).join("wishes.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_as_it_was_and_what_is_said_counts() {
        let dir = tempfile::tempdir().unwrap();
        let mut repo = Repo {
            root: dir.path().into(),
            build: dir.path().into(),
            arch: Default::default(),
            wishes: BTreeMap::new(),
        };
        let mut options = Options { variant: "development".to_owned(), config: None, preload: Vec::new() };
        assert_eq!(Wishes::last(&repo, "development"), Wishes::default());
        repo.wishes.insert("OS_UPDATE_CHANNEL".to_owned(), "http://a/b".to_owned());
        repo.wishes.insert("OS_VERSION".to_owned(), "1.0.0".to_owned());
        options.config = Some("mine.json".into());
        std::fs::create_dir_all(repo.lab().join("development")).unwrap();
        Wishes::now(&repo, &options).save(&repo, "development").unwrap();
        repo.wishes.remove("OS_UPDATE_CHANNEL");
        repo.wishes.insert("OS_VERSION".to_owned(), "2.0.0".to_owned());
        options.config = None;
        let taken = Wishes::last(&repo, "development").fill(&mut repo, &mut options);
        assert_eq!(taken, ["OS_UPDATE_CHANNEL=http://a/b", "CONFIG=mine.json"]);
        assert_eq!(repo.wishes["OS_VERSION"], "2.0.0");
    }
}
