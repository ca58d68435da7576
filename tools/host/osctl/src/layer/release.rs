//! What this project has for a release of the Yocto Project: its kas file, and the collections that come with it.

use super::bsp::collections_of;
use super::conf::{Conf, Fact};
use anyhow::{Context, Result};
use clap::ValueEnum;
use saphyr::{LoadableYamlNode, Yaml};
use serde::Serialize;

const SCARTHGAP: &str = include_str!("../../../../../kas/include/scarthgap.yml");
const WRYNOSE: &str = include_str!("../../../../../kas/include/wrynose.yml");
const META_OS: &str = include_str!("../../../../../meta-os/conf/layer.conf");

/// A release of the Yocto Project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Release {
    /// 5.0
    Scarthgap,
    /// 6.0
    Wrynose,
}

impl Release {
    /// As `LAYERSERIES_COMPAT` has it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Scarthgap => "scarthgap",
            Self::Wrynose => "wrynose",
        }
    }

    /// The repositories of `kas/include/<release>.yml`, whose commits this project chooses.
    ///
    /// # Errors
    /// When the file has another form than the one that is built in.
    pub(super) fn repos(self) -> Result<Vec<String>> {
        let text = if self == Self::Scarthgap { SCARTHGAP } else { WRYNOSE };
        let documents = Yaml::load_from_str(text)?;
        let repos = documents.first().and_then(|kas| kas.as_mapping_get("repos")).and_then(Yaml::as_mapping);
        let names = repos.into_iter().flatten().map(|(name, _)| name.as_str().map(str::to_owned));
        names.collect::<Option<Vec<_>>>().filter(|names| !names.is_empty()).context("the kas file has no repositories")
    }

    /// The collections of the layers that the kas file adds.
    pub(super) fn collections() -> Vec<String> {
        let conf = Conf::parse(META_OS);
        let text = |name: &str| match conf.get(name) {
            Fact::Text(text) => collections_of(&text),
            _ => Vec::new(),
        };
        let ours = ["LAYERDEPENDS_meta-os", "LAYERRECOMMENDS_meta-os", "BBFILE_COLLECTIONS"];
        ours.iter().flat_map(|name| text(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_files_are_understood() {
        for (release, core) in [(Release::Scarthgap, "poky"), (Release::Wrynose, "openembedded-core")] {
            assert!(release.repos().unwrap().iter().any(|name| name == core), "{release:?}");
        }
        for name in ["core", "meta-os", "openembedded-layer", "virtualization-layer"] {
            assert!(Release::collections().iter().any(|found| found == name), "{name}");
        }
    }
}
