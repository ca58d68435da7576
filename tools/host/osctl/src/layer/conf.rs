//! Reads variables from BitBake configuration files of others, as far as that is safe without BitBake.
//!
//! A value that depends on Python, on an override other than the machine's, on `:remove` or on a variable that is not known
//! here is [`Fact::Computed`]: never a guess.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How deep files may include each other, and variables refer to each other.
const DEPTH: usize = 16;
/// The variable that names the machine.
const MACHINE: &str = "MACHINE";

/// What the files say of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    /// Nothing.
    Unset,
    /// This text.
    Text(String),
    /// Something that only BitBake can tell.
    Computed,
}

impl Fact {
    /// The text, where it is known.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether the text has this word; what is not known has none.
    pub(super) fn has(&self, word: &str) -> bool {
        self.text().is_some_and(|text| text.split_ascii_whitespace().any(|found| found == word))
    }
}

#[derive(Debug, Default, Clone)]
struct Variable {
    value: Option<String>,
    weak: Option<String>,
    /// With the machine's override, which wins.
    own: Option<String>,
    appended: String,
    prepended: String,
    computed: bool,
}

/// The variables of a file and of those that it includes.
#[derive(Debug, Default)]
pub(super) struct Conf {
    variables: BTreeMap<String, Variable>,
    /// What is included, as far as it is not computed; found or not.
    pub(super) included: Vec<String>,
    /// What is included and in none of the directories.
    pub(super) missing: Vec<String>,
    /// The file's comments of the form `#@NAME: text`.
    pub(super) notes: BTreeMap<String, String>,
}

impl Conf {
    /// Reads a file; what it includes is looked for in `roots`.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn read(path: &Path, roots: &[&Path], machine: &str) -> anyhow::Result<Self> {
        let mut conf = Self::default();
        conf.assign(MACHINE, "=", machine);
        conf.file(path, roots, 0)?;
        Ok(conf)
    }

    /// Reads a text that includes nothing.
    pub(super) fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in lines(text) {
            if let Some((name, operator, value)) = assignment(&line).filter(|_| !line.starts_with('#')) {
                conf.assign(name, operator, value);
            }
        }
        conf
    }

    fn file(&mut self, path: &Path, roots: &[&Path], depth: usize) -> anyhow::Result<()> {
        let text = os_sys::files::read_text(path)?;
        for line in lines(&text) {
            if let Some((name, note)) = line.strip_prefix("#@").and_then(|note| note.split_once(':')) {
                self.notes.entry(name.to_owned()).or_insert_with(|| note.trim().to_owned());
            }
            match line.split_ascii_whitespace().next() {
                Some("require" | "include" | "include_all") => self.include(&line, roots, depth)?,
                Some(word) if !word.starts_with('#') => {
                    if let Some((name, operator, value)) = assignment(&line) {
                        self.assign(name, operator, value);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn include(&mut self, line: &str, roots: &[&Path], depth: usize) -> anyhow::Result<()> {
        for word in line.split_ascii_whitespace().skip(1) {
            let Some(name) = self.expand(word, 0) else { continue };
            self.included.push(name.clone());
            let found: Option<PathBuf> = roots.iter().map(|root| root.join(&name)).find(|path| path.is_file());
            match found {
                Some(path) if depth < DEPTH => self.file(&path, roots, depth + 1)?,
                _ => self.missing.push(name),
            }
        }
        Ok(())
    }

    fn assign(&mut self, name: &str, operator: &str, value: &str) {
        let (base, overrides) = name.split_once(':').unwrap_or((name, ""));
        let machine = self.variables.get(MACHINE).and_then(|machine| machine.value.as_deref());
        let own = !overrides.is_empty() && machine == Some(overrides);
        let variable = self.variables.entry(base.to_owned()).or_default();
        let current = variable.value.clone().or_else(|| variable.weak.clone()).unwrap_or_default();
        match (overrides, operator) {
            ("", "=" | ":=") => variable.value = Some(value.to_owned()),
            ("", "?=") if variable.value.is_none() => variable.value = Some(value.to_owned()),
            ("", "?=") => {}
            ("", "??=") => variable.weak = Some(value.to_owned()),
            ("", "+=") => variable.value = Some(format!("{current} {value}")),
            ("", "=+") => variable.value = Some(format!("{value} {current}")),
            ("", ".=") => variable.value = Some(format!("{current}{value}")),
            ("", "=.") => variable.value = Some(format!("{value}{current}")),
            (_, "=" | ":=") if own => variable.own = Some(value.to_owned()),
            ("append", _) => variable.appended.push_str(value),
            ("prepend", _) => variable.prepended.insert_str(0, value),
            _ => variable.computed = true,
        }
    }

    /// What is known of a variable.
    pub(super) fn get(&self, name: &str) -> Fact {
        if !self.variables.contains_key(name) {
            return Fact::Unset;
        }
        let words = |text: String| text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        self.expand(&format!("${{{name}}}"), 0).map_or(Fact::Computed, |text| Fact::Text(words(text)))
    }

    /// What `${NAME}` stands for is put in; none where that is not known.
    fn expand(&self, text: &str, depth: usize) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, tail) = after.split_once('}')?;
            let variable = self.variables.get(name).filter(|variable| !variable.computed && depth < DEPTH)?;
            let value = variable.own.as_ref().or(variable.value.as_ref()).or(variable.weak.as_ref());
            let value = value.map_or("", String::as_str);
            let whole = format!("{}{value}{}", variable.prepended, variable.appended);
            out.push_str(before);
            out.push_str(&self.expand(&whole, depth + 1)?);
            rest = tail;
        }
        out.push_str(rest);
        Some(out)
    }
}

/// The lines, with those that continue put together.
fn lines(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut whole = String::new();
    for line in text.lines() {
        match line.strip_suffix('\\') {
            Some(begin) => whole.push_str(begin),
            None => {
                whole.push_str(line);
                all.push(std::mem::take(&mut whole).trim().to_owned());
            }
        }
    }
    all.extend(Some(whole).filter(|rest| !rest.is_empty()));
    all
}

/// Name, operator and value of `NAME = "value"`; none for a flag and for whatever else a file may hold.
fn assignment(line: &str) -> Option<(&str, &str, &str)> {
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let known = |c: char| c.is_ascii_alphanumeric() || "_-/.:${}".contains(c);
    // The colon of ":=" and the dot of ".=" are signs of a name, too.
    let end = line.find(|c| !known(c))?;
    let (name, rest) = line.split_at(end);
    let stripped = name.strip_suffix([':', '.']).filter(|_| rest.starts_with('='));
    let name = stripped.unwrap_or(name);
    let rest = line.get(name.len()..)?.trim_start();
    let operator = ["??=", "?=", ":=", "+=", ".=", "=+", "=.", "="].into_iter().find(|op| rest.starts_with(op))?;
    let value = rest.get(operator.len()..)?.trim();
    let quote = value.chars().next().filter(|c| *c == '"' || *c == '\'')?;
    let value = value.strip_prefix(quote)?.strip_suffix(quote)?;
    (!name.is_empty()).then_some((name, operator, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn conf(text: &str) -> Conf {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("machine.conf");
        std::fs::write(&path, text).unwrap();
        Conf::read(&path, &[dir.path()], "acme").unwrap()
    }

    #[test]
    fn a_value_is_bitbakes_or_none_at_all() {
        for (text, expected) in [
            ("A = \"x\"", Some("x")),
            ("A ?= 'x'\nA ?= 'y'", Some("x")),
            ("A ??= 'x'\nA ??= 'y'", Some("y")),
            ("A ??= 'x'\nA ?= 'y'", Some("y")),
            ("A = 'x'\nA += 'y'\nA =+ 'w'\nA:append = ' z'", Some("w x y z")),
            ("A:append = ' z'", Some("z")),
            ("A .= 'x'\nA:='y'", Some("y")),
            ("A = \"\\\n  x \\\n  y \\\n\"", Some("x y")),
            ("B = 'x'\nA = '${B}-${MACHINE}'", Some("x-acme")),
            ("A = '${@d.getVar(\"B\")}'", None),
            ("A = '${B}'", None),
            ("A = '${A}'", None),
            ("A:acme = 'y'\nA = 'x'", Some("y")),
            ("A = 'x'\nA:other = 'y'", None),
            ("A = 'x'\nA:append:acme = 'y'", None),
            ("A = 'x'\nA:remove = 'x'", None),
        ] {
            let expected = expected.map_or(Fact::Computed, |text| Fact::Text(text.to_owned()));
            assert_eq!(conf(text).get("A"), expected, "{text}");
        }
        let others = conf("# A = 'x'\nA[doc] = 'x'\nrequire conf/machine/include/none.inc\naddpylib x y\nA\n");
        assert_eq!(others.get("A"), Fact::Unset);
        assert_eq!(others.missing, ["conf/machine/include/none.inc"]);
    }

    #[test]
    fn includes_are_followed_and_end() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.conf"), "#@NAME: Acme\nA = '1'\nrequire ${MACHINE}.inc\n").unwrap();
        std::fs::write(dir.path().join("acme.inc"), "A += '2'\ninclude acme.inc\n").unwrap();
        let conf = Conf::read(&dir.path().join("a.conf"), &[dir.path()], "acme").unwrap();
        assert!(conf.get("A").has("2"));
        assert_eq!(conf.missing, ["acme.inc"]);
        assert_eq!(conf.notes.get("NAME").unwrap(), "Acme");
    }

    proptest! {
        #[test]
        fn a_known_value_has_nothing_left_to_expand(text in "([A-C](:append|:x)? ?(=|\\?=|\\+=|:=|\\.=) ?[\"'](\\$\\{[A-C@]\\}|x| )*[\"']\\\\?\n|.{0,20}\n){0,8}") {
            let conf = conf(&text);
            for name in ["A", "B", "C"] {
                let expanded = conf.get(name).text().is_none_or(|text| !text.contains("${"));
                prop_assert!(expanded);
            }
        }
    }
}
