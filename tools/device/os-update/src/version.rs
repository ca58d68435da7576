//! Versions of releases: one grammar (semver.org) wherever a release comes from, by hand, by a channel or with the image.

use semver::Version;

/// Reads a version as it must be.
///
/// # Errors
/// When it is none, as a sentence for people.
pub fn strict(text: &str) -> Result<Version, String> {
    text.parse().map_err(|_| {
        let near = padded(text).map(|version| format!(", such as {version}")).unwrap_or_default();
        format!("'{text}' is no version that can be compared{near}: three numbers and dots (semver.org)")
    })
}

/// The version of what runs, whatever it calls itself: a device that was given something else by hand has to find the way to
/// the next release all the same. What is no version at all is older than everything.
pub fn of_running(text: &str) -> Version {
    text.parse().ok().or_else(|| padded(text)).unwrap_or(Version::new(0, 0, 0))
}

/// `2026.11` as `2026.11.0`, `v1.02.3` as `1.2.3`.
fn padded(text: &str) -> Option<Version> {
    let text = text.trim().trim_start_matches(['v', 'V']);
    let numbers = text.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let mut parts = numbers.split('.').filter(|part| !part.is_empty()).map(|part| part.parse::<u64>());
    let major = parts.next()?.ok()?;
    let mut next = || parts.next().map_or(Some(0), Result::ok);
    let (minor, patch) = (next()?, next()?);
    Some(Version::new(major, minor, patch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_grammar_says_what_would_be_one() {
        assert_eq!(strict("1.2.3-rc.1").unwrap().to_string(), "1.2.3-rc.1");
        for (text, near) in
            [("2026.11", "2026.11.0"), ("v1.02.3", "1.2.3"), ("2026.11.27.4", "2026.11.27"), ("7", "7.0.0")]
        {
            let said = strict(text).unwrap_err();
            assert!(said.contains(&format!("such as {near}:")), "{said}");
            assert_eq!(of_running(text).to_string(), near);
        }
        assert!(!strict("latest").unwrap_err().contains("such as"));
        assert_eq!(of_running("latest"), Version::new(0, 0, 0));
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in ".{0,40}") {
            let _ = (strict(&text), of_running(&text));
        }
    }
}
