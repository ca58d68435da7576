//! Time zones by name.

use std::path::Path;

/// The zones of tzdata 2026f, one in a line. An old name has the zone behind it that took its place: Debian has those names in a package
/// of their own, so that a device may have no file for them.
const ZONES: &str = include_str!("zones.txt");

/// The zone that a name means, as the database spells it; none for what this program does not know.
pub fn current(name: &str) -> Option<&'static str> {
    // Where it is there, this directory has the same zones once more.
    let name = name.strip_prefix("posix/").unwrap_or(name);
    let mut rows = ZONES.lines().map(|row| row.split_once(' ').unwrap_or((row, row)));
    rows.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, zone)| zone)
}

/// A zone that this program knows, or this device: its database may be newer.
pub(crate) fn is_zone(text: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-".contains(&b));
    let there =
        || std::fs::read(Path::new("/usr/share/zoneinfo").join(text)).is_ok_and(|bytes| bytes.starts_with(b"TZif"));
    // Clocks with leap seconds, and links to zones that the machine chose.
    let other = text.starts_with("right/") || ["localtime", "posixrules"].contains(&text);
    current(text).is_some() || (!other && text.split('/').all(plain) && there())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn an_old_name_means_the_zone_of_today() {
        for (name, zone) in [
            ("US/Eastern", "America/New_York"),
            ("Asia/Calcutta", "Asia/Kolkata"),
            ("Europe/Kiev", "Europe/Kyiv"),
            ("GB", "Europe/London"),
            ("europe/berlin", "Europe/Berlin"),
            ("posix/US/Pacific", "America/Los_Angeles"),
            ("Etc/GMT+3", "Etc/GMT+3"),
            ("UTC", "UTC"),
        ] {
            assert_eq!(current(name), Some(zone), "{name}");
        }
        for name in [
            "",
            "Europe",
            "Europe/Atlantis",
            "../UTC",
            "/UTC",
            "US/Eastern America/New_York",
            "zone.tab",
            "leapseconds",
            "localtime",
            "right/UTC",
            "posix",
        ] {
            assert!(!is_zone(name), "{name}");
        }
        // What stands behind an old name is a name of today.
        for (name, zone) in ZONES.lines().filter_map(|row| row.split_once(' ')) {
            assert_eq!(current(zone), Some(zone), "{name}");
        }
    }

    // The database of this machine, whatever its version: it knows our names, and an old one has the rules of today's there.
    #[test]
    fn the_database_agrees() {
        let dir = Path::new("/usr/share/zoneinfo");
        let Ok(text) = std::fs::read_to_string(dir.join("tzdata.zi")) else { return };
        let name = |line: &str| match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["Z", name, ..] | ["L", _, name] => Some((*name).to_owned()),
            _ => None,
        };
        let names: BTreeSet<String> = text.lines().filter_map(name).collect();
        // What holds from now on stands in the last line of a compiled zone. MET calls the time of Brussels by another name.
        let rule = |zone: &str| {
            let bytes = std::fs::read(dir.join(zone)).ok()?;
            let line = String::from_utf8(bytes.rsplit(|byte| *byte == b'\n').nth(1)?.to_vec()).ok()?;
            Some(line.split(',').map(|part| part.trim_matches(char::is_alphabetic).to_owned()).collect::<Vec<_>>())
        };
        for row in ZONES.lines() {
            let (name, current) = row.split_once(' ').unwrap_or((row, row));
            assert!(names.contains(name) && rule(current).is_some(), "{name}");
            assert!(rule(name).is_none_or(|old| Some(old) == rule(current)), "{name}");
        }
        let newer = text.lines().next().is_some_and(|first| first > "# version 2026f");
        let missing: Vec<_> = names.iter().filter(|name| current(name).is_none()).collect();
        assert!(newer || missing.is_empty(), "zones.txt lacks {missing:?}");
    }
}
