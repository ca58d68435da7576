//! What people see of a channel: a page, and a list for Raspberry Pi Imager.

use anyhow::Result;
use os_channel::{Channel, Release};
use std::fmt::Write;
use std::path::Path;

/// Writes `index.html` and `rpi-imager.json`.
///
/// # Errors
/// When they cannot be written.
pub fn write(dir: &Path, list: &Channel) -> Result<()> {
    super::write(&dir.join("index.html"), index(list)?.as_bytes())?;
    super::write(&dir.join("rpi-imager.json"), &serde_json::to_vec_pretty(&imager(dir, list))?)
}

fn index(list: &Channel) -> Result<String> {
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{name}</title>\n<style>\nbody {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; \
         padding: 0 1rem }}\ntable {{ border-collapse: collapse; width: 100% }}\nth, td {{ text-align: left; padding: .4rem .6rem; \
         border-bottom: 1px solid #8884 }}\n.revoked td {{ opacity: .6 }}\n@media (prefers-color-scheme: dark) {{ body {{ \
         background: #111; color: #ddd }} a {{ color: #8bf }} }}\n</style>\n<h1>Channel {name}</h1>\n\
         <p>List {serial} of {issued}. Devices believe <a href=\"channel.json\">channel.json</a> until {expires}.</p>\n\
         <table>\n<tr><th>Version<th>For<th>Published<th>Size<th>Rollout<th>Notes\n",
        name = escape(&list.name),
        serial = list.serial,
        issued = date(list.issued),
        expires = date(list.expires),
    );
    for release in list.releases.iter().rev() {
        let state = match &release.revoked {
            Some(why) => format!("revoked: {}", escape(why)),
            None if release.stepping_stone => format!("{} %, stepping stone", release.rollout),
            None => format!("{} %", release.rollout),
        };
        let notes = release.notes.as_ref().map_or(String::new(), |n| format!("<a href=\"{}\">notes</a>", escape(n)));
        writeln!(
            out,
            "<tr{}><td><a href=\"{}\">{}</a><td>{}<td>{}<td>{} MiB<td>{state}<td>{notes}",
            if release.revoked.is_some() { " class=\"revoked\"" } else { "" },
            escape(&release.bundle.path),
            escape(&release.version.to_string()),
            escape(&release.compatible),
            date(release.published),
            release.bundle.size >> 20,
        )?;
    }
    out.push_str("</table>\n</html>\n");
    Ok(out)
}

/// Raspberry Pi Imager's list of operating systems (its `doc/json-schema`): the newest disk image for each kind of
/// device, where one was put beside the bundles as `images/<compatible>-<version>.img.<compression>`.
fn imager(dir: &Path, list: &Channel) -> serde_json::Value {
    let image = |release: &Release| {
        ["zst", "xz", "gz"].iter().find_map(|kind| {
            let name = format!("images/{}-{}.img.{kind}", release.compatible, release.version);
            let size = std::fs::metadata(dir.join(&name)).ok()?.len();
            Some((name, size))
        })
    };
    let mut entries: Vec<serde_json::Value> = Vec::new();
    let mut done: Vec<&str> = Vec::new();
    for release in list.releases.iter().rev().filter(|r| r.revoked.is_none()) {
        if done.contains(&release.compatible.as_str()) {
            continue;
        }
        if let Some((url, size)) = image(release) {
            done.push(&release.compatible);
            entries.push(serde_json::json!({
                "name": format!("{} {}", release.compatible, release.version),
                "description": format!("Channel {}", list.name),
                "release_date": date(release.published),
                "url": url,
                "image_download_size": size,
                "init_format": "none",
            }));
        }
    }
    serde_json::json!({ "os_list": entries })
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A day as 2026-11-21 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days).
pub fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, day) in [(0, "1970-01-01"), (951_782_400, "2000-02-29"), (1_795_219_200, "2026-11-21")] {
            assert_eq!(date(seconds), day);
        }
    }

    #[test]
    fn a_page_escapes_what_people_wrote() {
        let list = Channel {
            kind: "channel".to_owned(),
            name: "<b>".to_owned(),
            serial: 1,
            issued: 0,
            expires: 0,
            releases: vec![],
        };
        assert!(!index(&list).unwrap().contains("<b>"));
    }
}
