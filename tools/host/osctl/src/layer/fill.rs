//! The files of a new layer: templates, filled in.

use super::Options;
use super::git;
use super::machine::Facts;
use super::repos::Repo;
use anyhow::{Context, Result, bail};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Name in the layer, and template. `BOARD` and `MACHINE` in a name stand for them.
const FILES: [(&str, &str); 8] = [
    (".github/workflows/ci.yml", include_str!("../../templates/layer/ci.yml")),
    (".gitignore", include_str!("../../templates/layer/gitignore")),
    ("COPYING.MIT", include_str!("../../templates/layer/COPYING.MIT")),
    ("README.md", include_str!("../../templates/layer/README.md")),
    ("SECURITY.md", include_str!("../../templates/layer/SECURITY.md")),
    ("conf/layer.conf", include_str!("../../templates/layer/layer.conf")),
    ("conf/machine/include/os-MACHINE.inc", include_str!("../../templates/layer/machine.inc")),
    ("kas/BOARD.yml", include_str!("../../templates/layer/kas.yml")),
];

/// The version of kas that this project is tested with.
const REQUIREMENTS: &str = include_str!("../../../../../ci/requirements.txt");
/// The action that checks out, as this project pins it.
const WORKFLOW: &str = include_str!("../../../../../.github/workflows/ci.yml");

/// What the templates say of the layers.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    pub(super) options: &'a Options,
    pub(super) facts: &'a Facts,
    pub(super) maintainer: &'a super::name::Person,
    pub(super) os: &'a Repo,
    pub(super) repos: &'a [Repo],
    /// The collections that the layer depends on.
    pub(super) depends: &'a [String],
    /// The layer with the machine, for people.
    pub(super) bsp: &'a str,
    pub(super) check: &'a [String],
}

/// The names that templates use.
#[derive(Serialize)]
struct Values<'a> {
    board: &'a str,
    layer: &'a str,
    machine: &'a str,
    release: &'a str,
    maintainer: &'a str,
    mail: &'a str,
    summary: &'a str,
    kas: &'a str,
    checkout: &'a str,
    /// The repositories that the release's kas file brings.
    ours: &'a [String],
    facts: &'a Facts,
    os: &'a Repo,
    repos: &'a [Repo],
    depends: &'a [String],
    bsp: &'a str,
    check: &'a [String],
}

impl Contents<'_> {
    /// Name and text of every file.
    ///
    /// # Errors
    /// When a template is wrong.
    pub(super) fn files(&self) -> Result<Vec<(String, String)>> {
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        templates.set_auto_escape_callback(|_| AutoEscape::None);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
        templates.set_syntax(syntax?);
        templates.add_filter("yaml", |text: String| scalar(&text));
        let values = self.values()?;
        let (board, machine) = (self.options.board.as_str(), self.options.machine.as_str());
        FILES
            .iter()
            .map(|(name, template)| {
                let name = name.replace("BOARD", board).replace("MACHINE", machine);
                let text = templates.render_str(template, &values).with_context(|| format!("cannot make {name}"))?;
                Ok((name, text))
            })
            .collect()
    }

    fn values(&self) -> Result<Value> {
        let kas = REQUIREMENTS.lines().find(|line| line.starts_with("kas=="));
        let checkout = WORKFLOW.lines().find_map(|line| {
            line.trim().strip_prefix("- uses: ").filter(|action| action.starts_with("actions/checkout@"))
        });
        let checkout = checkout.context("the workflow checks nothing out")?;
        Ok(Value::from(Serde(Values {
            board: self.options.board.as_str(),
            layer: &self.options.layer_name(),
            machine: self.options.machine.as_str(),
            release: self.options.release.as_str(),
            maintainer: self.maintainer.as_str(),
            mail: self.maintainer.mail(),
            summary: &self.facts.summary(),
            kas: kas.context("there is no kas in ci/requirements.txt")?,
            checkout,
            ours: &self.options.release.repos()?,
            facts: self.facts,
            os: self.os,
            repos: self.repos,
            depends: self.depends,
            bsp: self.bsp,
            check: self.check,
        })))
    }
}

/// A text as YAML reads it back as the same text.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:@~+".contains(c))
        && !text.ends_with(':')
        && !["true", "false", "yes", "no", "on", "off", "null", "y", "n"].contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// Writes the files of a layer; either all are there afterwards or none.
///
/// # Errors
/// When the directory exists, or writing fails.
pub(super) fn write(parent: &Path, name: &str, files: &[(String, String)]) -> Result<PathBuf> {
    let target = parent.join(name);
    if target.symlink_metadata().is_ok() {
        bail!("{} exists already; nothing was written", target.display());
    }
    let wrong = || format!("cannot write the layer in {}", parent.display());
    // A directory beside it: a rename within one file system is whole or does not happen.
    let work = tempfile::Builder::new().prefix(&format!(".{name}.")).tempdir_in(parent).with_context(wrong)?;
    let layer = work.path().join(name);
    for (name, text) in files {
        let path = layer.join(name);
        let dir = path.parent().context("a file lies in no directory")?;
        std::fs::create_dir_all(dir).with_context(wrong)?;
        std::fs::write(&path, text).with_context(wrong)?;
    }
    git::init(&layer)?;
    std::fs::rename(&layer, &target).with_context(wrong)?;
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use saphyr::{LoadableYamlNode, Yaml};

    fn read_back(text: &str) -> Option<String> {
        let yaml = format!("key: {}\n", scalar(text));
        let documents = Yaml::load_from_str(&yaml).ok()?;
        documents.first()?.as_mapping_get("key")?.as_str().map(str::to_owned)
    }

    proptest! {
        #[test]
        fn yaml_gives_back_what_was_written(text in "[ -~]{1,20}") {
            prop_assert_eq!(read_back(&text), Some(text));
        }
    }

    #[test]
    fn numbers_and_words_stay_texts() {
        for text in ["2.18", "0123456789", "1e10", "yes", "No", "null", "~", "a: b", "a #b", "main"] {
            assert_eq!(read_back(text).as_deref(), Some(text), "{text}");
        }
    }

    #[test]
    fn a_layer_is_written_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let good = [("a/b.txt".to_owned(), "x\n".to_owned())];
        let target = write(dir.path(), "meta-os-acme", &good).unwrap();
        assert_eq!(std::fs::read_to_string(target.join("a/b.txt")).unwrap(), "x\n");
        assert!(write(dir.path(), "meta-os-acme", &good).unwrap_err().to_string().contains("exists already"));
        // The second file cannot be written where the first one is.
        let bad = [("a".to_owned(), String::new()), ("a/b".to_owned(), String::new())];
        assert!(write(dir.path(), "meta-os-other", &bad).is_err());
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["meta-os-acme"]);
    }
}
