//! Fragments of a Kconfig configuration, in which each group of options says what does not work without it.
//!
//! `classes/os_kernel.bbclass` reads the same form in the build of a kernel.

use std::collections::BTreeMap;

/// Options that one feature needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What does not work without them: the comment above the group.
    pub what: String,
    mark: Option<Mark>,
    options: Vec<Want>,
}

/// What the end of a group's comment says of all its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// A module is not enough.
    BuiltIn,
    /// Some sources know no such option.
    MayLack,
    /// One of them is enough.
    OneOf,
}

const MARKS: [(&str, Mark); 3] =
    [("[built in]", Mark::BuiltIn), ("[may lack]", Mark::MayLack), ("[one of]", Mark::OneOf)];

/// An option, and its value in Kconfig's writing; `n` where it is to be off.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Want {
    name: String,
    value: String,
}

/// An option that did not survive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// With `CONFIG_`; of a group of which one is enough, all of them.
    pub option: String,
    /// What the configuration says instead; `n` where it says nothing.
    pub found: String,
    /// What does not work.
    pub what: String,
}

/// A configuration as Kconfig writes it.
#[derive(Debug, Default)]
pub struct Configuration(BTreeMap<String, String>);

impl Configuration {
    /// Reads one; what is no option in it is passed over.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(want).map(|want| (want.name, want.value)).collect())
    }

    /// `y`, `m`, `n`, or a value; an option that is unknown is off.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("n", String::as_str)
    }
}

fn want(line: &str) -> Option<Want> {
    let (name, value) = match line.strip_prefix("# ") {
        Some(rest) => (rest.strip_suffix(" is not set")?, "n"),
        None => line.trim_end().split_once('=')?,
    };
    name.starts_with("CONFIG_").then(|| Want { name: name.to_owned(), value: value.to_owned() })
}

/// The groups of a fragment. A paragraph without options is a heading, and no group.
pub fn groups(text: &str) -> Vec<Group> {
    text.split("\n\n").filter_map(group).collect()
}

fn group(paragraph: &str) -> Option<Group> {
    let options: Vec<Want> = paragraph.lines().filter_map(want).collect();
    let comment = paragraph.lines().filter(|line| want(line).is_none()).filter_map(|line| line.strip_prefix('#'));
    let comment = comment.map(str::trim).filter(|line| !line.starts_with("SPDX")).collect::<Vec<_>>().join(" ");
    let mark = MARKS.iter().find(|(word, _)| comment.ends_with(word));
    let what = comment.trim_end_matches(mark.map_or("", |(word, _)| word)).trim().to_owned();
    (!options.is_empty()).then(|| Group { what, mark: mark.map(|(_, mark)| *mark), options })
}

impl Group {
    /// How many options there are to look at.
    pub fn size(&self) -> usize {
        self.options.len()
    }

    /// What this configuration lacks of it.
    pub fn lacks(&self, config: &Configuration) -> Vec<Lack> {
        let lack = |option: &str, found: &str| Lack {
            option: option.to_owned(),
            found: found.to_owned(),
            what: self.what.clone(),
        };
        let has = |want: &Want| {
            let found = config.get(&want.name);
            found == want.value || (want.value == "y" && found == "m" && self.mark != Some(Mark::BuiltIn))
        };
        match self.mark {
            Some(Mark::MayLack) => Vec::new(),
            Some(Mark::OneOf) if self.options.iter().any(has) => Vec::new(),
            Some(Mark::OneOf) => {
                let all: Vec<_> = self.options.iter().map(|want| want.name.as_str()).collect();
                vec![lack(&all.join(" or "), "n")]
            }
            Some(Mark::BuiltIn) | None => {
                let missing = self.options.iter().filter(|want| !has(want));
                missing.map(|want| lack(&want.name, config.get(&want.name))).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAGMENT: &str = "# SPDX-License-Identifier: MIT\n# A heading.\n\n# A slot is\n# mounted. [built in]\nCONFIG_EROFS_FS=y\n\
                            CONFIG_DM_VERITY=y\n\n# Containers.\nCONFIG_VETH=y\nCONFIG_MEMCG=y\n# CONFIG_PSI_OFF is not set\n\n\
                            # A choice. [one of]\nCONFIG_A=y\nCONFIG_B=y\n\n# New. [may lack]\nCONFIG_C=y\n\n# Time.\nCONFIG_D=-2\n";

    fn lacks(config: &str) -> Vec<(String, String, String)> {
        let config = Configuration::parse(config);
        let all = groups(FRAGMENT).into_iter().flat_map(|group| group.lacks(&config));
        all.map(|lack| (lack.option, lack.found, lack.what)).collect()
    }

    #[test]
    fn a_configuration_that_has_everything_lacks_nothing() {
        let config = "CONFIG_EROFS_FS=y\nCONFIG_DM_VERITY=y\nCONFIG_VETH=m\nCONFIG_MEMCG=y\nCONFIG_B=m\nCONFIG_D=-2\n";
        assert_eq!(lacks(config), []);
        assert_eq!(groups(FRAGMENT).iter().map(Group::size).sum::<usize>(), 9);
    }

    #[test]
    fn what_is_missing_is_named_with_what_does_not_work() {
        let found = lacks(
            "CONFIG_EROFS_FS=m\nCONFIG_DM_VERITY=y\n# CONFIG_VETH is not set\nCONFIG_MEMCG=y\nCONFIG_PSI_OFF=y\nCONFIG_D=2\n",
        );
        let found: Vec<_> = found.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str())).collect();
        let slot = "A slot is mounted.";
        let wanted = [
            ("CONFIG_EROFS_FS", "m", slot),
            ("CONFIG_VETH", "n", "Containers."),
            ("CONFIG_PSI_OFF", "y", "Containers."),
            ("CONFIG_A or CONFIG_B", "n", "A choice."),
            ("CONFIG_D", "2", "Time."),
        ];
        assert_eq!(found, wanted);
    }
}
