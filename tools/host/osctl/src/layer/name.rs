//! Names and words that a person gives: what is wrong with one is said before anything is written.

use anyhow::{Result, bail, ensure};
use std::fmt;
use std::str::FromStr;

/// Layers of this project.
const TAKEN: [&str; 3] = ["odroid", "raspberrypi", "x86"];

macro_rules! word {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl $name {
            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

word!(
    /// The board, or family of boards, that the layer is named after.
    Board
);
word!(
    /// A machine of the Yocto Project.
    Machine
);
word!(
    /// A console as the kernel takes it, such as `ttyS0,115200`.
    Console
);
word!(
    /// A device tree as `KERNEL_DEVICETREE` names it.
    DeviceTree
);
word!(
    /// Name and address of a person, `Name <mail>`.
    Person
);
word!(
    /// The address of a git repository.
    Url
);

fn made_of(text: &str, signs: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || signs.contains(c))
}

impl FromStr for Board {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(rest) = text.strip_prefix("meta-os-").or_else(|| text.strip_prefix("meta-")) {
            bail!("the layer is named meta-os-BOARD; write {rest}");
        }
        let lower = text.chars().all(|c| !c.is_ascii_uppercase());
        ensure!(
            lower && made_of(text, "-") && text.len() <= 40 && !text.starts_with('-') && !text.ends_with('-'),
            "write lower-case letters, digits and single words joined by -, such as acme-gateway; at most 40"
        );
        ensure!(!TAKEN.contains(&text), "this project has a layer meta-os-{text} itself");
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Machine {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        ensure!(
            made_of(text, "-_.+") && text.starts_with(|c: char| c.is_ascii_alphanumeric()),
            "a machine is named like its file conf/machine/NAME.conf, without .conf"
        );
        if let Some(name) = text.strip_suffix(".conf") {
            bail!("write the machine without .conf: {name}");
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Console {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.strip_prefix("console=").unwrap_or(text);
        ensure!(
            made_of(text, ",-_.") && text.starts_with(|c: char| c.is_ascii_alphabetic()),
            "write a console as the kernel takes it, such as ttyS0,115200"
        );
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for DeviceTree {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let path = made_of(text, "-_.+,/") && text.split('/').all(|part| !part.is_empty() && part != "..");
        ensure!(
            path && text.ends_with(".dtb"),
            "write a device tree as KERNEL_DEVICETREE names it, such as vendor/board.dtb"
        );
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Person {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.trim().strip_suffix('>').and_then(|text| text.split_once(" <"));
        let good = parts.is_some_and(|(name, mail)| {
            let (user, host) = mail.split_once('@').unwrap_or_default();
            !name.trim().is_empty() && made_of(user, "-_.+") && made_of(host, "-.")
        });
        ensure!(good && !text.chars().any(char::is_control), "write a person as \"Name <name@example.com>\"");
        Ok(Self(text.trim().to_owned()))
    }
}

impl Person {
    /// The address alone.
    pub(super) fn mail(&self) -> &str {
        self.0.rsplit_once('<').map_or(self.as_str(), |(_, mail)| mail.trim_end_matches('>'))
    }
}

impl FromStr for Url {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        // Nothing that YAML, a shell or Markdown reads in another way.
        ensure!(
            made_of(text, "-_.~/:@%+=&?") && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/'),
            "{text} is no address of a git repository that a kas file can have"
        );
        Ok(Self(text.to_owned()))
    }
}

impl Url {
    /// The address that a checkout was cloned from. A password or token in it stays there: the layer is for others.
    ///
    /// # Errors
    /// When a kas file cannot have it.
    pub(super) fn from_remote(text: &str) -> Result<Self> {
        match text.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => {
                let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
                let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
                format!("{scheme}://{host}/{path}").parse()
            }
            _ => text.parse(),
        }
    }

    /// Whether only this machine knows it.
    pub(super) fn is_local(&self) -> bool {
        self.0.starts_with('/') || self.0.starts_with("file:") || !self.0.contains(':')
    }

    /// What the repository is called: the last part, without `.git`.
    pub(super) fn name(&self) -> &str {
        let text = self.0.trim_end_matches('/');
        let last = text.rsplit(['/', ':']).next().unwrap_or(text);
        last.strip_suffix(".git").unwrap_or(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<T: FromStr<Err = anyhow::Error> + fmt::Display>(text: &str) -> String {
        text.parse::<T>().map_or_else(|err| format!("refused: {err}"), |name| name.to_string())
    }

    #[test]
    fn names_that_would_be_something_else_are_refused() {
        assert_eq!(said::<Board>("acme-gateway2"), "acme-gateway2");
        assert_eq!(said::<Board>("meta-os-acme"), "refused: the layer is named meta-os-BOARD; write acme");
        assert!(said::<Board>("x86").contains("itself"));
        for bad in ["", "-a", "a-", "Acme", "a b", "../a", "a/b", "a\n", "ä", &"a".repeat(41)] {
            assert!(said::<Board>(bad).starts_with("refused"), "{bad}");
        }
        assert_eq!(said::<Machine>("imx8mp-lpddr4_evk"), "imx8mp-lpddr4_evk");
        for bad in ["", ".", "..", "../a", "a b", "a.conf", "-a", "${A}"] {
            assert!(said::<Machine>(bad).starts_with("refused"), "{bad}");
        }
        assert_eq!(said::<Console>("console=ttymxc0,115200"), "ttymxc0,115200");
        for bad in ["", "115200;ttyS0", "tty\"", "ttyS0 quiet"] {
            assert!(said::<Console>(bad).starts_with("refused"), "{bad}");
        }
        assert_eq!(said::<DeviceTree>("ti/omap/am335x-bone.dtb"), "ti/omap/am335x-bone.dtb");
        for bad in ["", "a", "/a.dtb", "../a.dtb", "a//b.dtb", "a;b.dtb"] {
            assert!(said::<DeviceTree>(bad).starts_with("refused"), "{bad}");
        }
        assert_eq!("Ann Doe <a@b.c>".parse::<Person>().unwrap().mail(), "a@b.c");
        for bad in ["", "Ann", "a@b.c", "Ann <a>", "Ann\nDoe <a@b.c>", "Ann <a@b> <c@d>"] {
            assert!(said::<Person>(bad).starts_with("refused"), "{bad}");
        }
    }

    #[test]
    fn an_address_keeps_no_password() {
        let url = Url::from_remote("https://ann:token@git.example.com/acme/meta-acme.git").unwrap();
        assert_eq!(url.as_str(), "https://git.example.com/acme/meta-acme.git");
        assert_eq!(url.name(), "meta-acme");
        let url = Url::from_remote("git@example.com:meta-acme.git").unwrap();
        assert_eq!((url.as_str(), url.name(), url.is_local()), ("git@example.com:meta-acme.git", "meta-acme", false));
        assert!(Url::from_remote("/srv/git/meta-acme").unwrap().is_local());
        for bad in ["", "a b", "a\"b", "a#b", "- a", "!a", "a\nb"] {
            assert!(bad.parse::<Url>().is_err(), "{bad}");
        }
    }
}
