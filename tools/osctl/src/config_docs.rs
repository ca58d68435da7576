//! The reference of config.json, written from the table that validation is made from.

use crate::repo::Repo;
use anyhow::{Context, Result};
use os_config::model::{self, KEYS};

const BEGIN: &str = "<!-- made by: osctl docs -->";
const END: &str = "<!-- end -->";

/// Files that hold it, and what must stand in them.
///
/// # Errors
/// When the table is not valid.
pub fn files() -> Result<Vec<(&'static str, String)>> {
    let mut table = format!("{BEGIN}\n");
    for key in KEYS {
        table.push_str(&format!(
            "\n### `{}`\n\n{}.\n\n| | |\n|---|---|\n| allowed | {} |\n| default | {} |\n| takes effect | {} |\n| example | `{}` |\n",
            key.pointer.trim_start_matches('/').replace('/', "."),
            key.summary,
            key.allowed,
            key.default,
            key.applies,
            key.example
        ));
    }
    table.push_str(&format!("\n{END}"));
    let schema = serde_json::to_string_pretty(&model::schema()?)? + "\n";
    Ok(vec![("docs/config.md", table), ("docs/config.schema.json", schema)])
}

/// True when a file holds what it must.
pub fn is_current(found: &str, wanted: &str) -> bool {
    found.contains(wanted)
}

/// Writes the reference into the files, leaving the text around it.
///
/// # Errors
/// When a file cannot be written, or its marks are missing.
pub fn write(repo: &Repo) -> Result<()> {
    for (path, wanted) in files()? {
        let full = repo.root.join(path);
        let text = if wanted.starts_with(BEGIN) {
            let old = os_sys::files::read_text(&full)?;
            let (head, rest) = old.split_once(BEGIN).with_context(|| format!("{path} has no line {BEGIN}"))?;
            let (_, tail) = rest.split_once(END).with_context(|| format!("{path} has no line {END}"))?;
            format!("{head}{wanted}{tail}")
        } else {
            wanted
        };
        os_sys::files::write_if_changed(&full, text.as_bytes(), 0o644)?;
    }
    Ok(())
}
