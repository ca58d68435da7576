//! What is written from the tables of the tools: the reference of config.json and its schema.

use anyhow::{Context, Result};
use lab::repo::Repo;
use os_config_model::json::dotted;
use os_config_model::keys::{KEYS, WITHOUT_EFFECT};
use os_config_model::model;
use os_config_model::shape::{Field, Shape};

const BEGIN: &str = "<!-- made by: xtask docs -->";
const END: &str = "<!-- end -->";

/// Files that hold it, and what must stand in them.
///
/// # Errors
/// When the table is not valid.
pub fn files() -> Result<Vec<(&'static str, String)>> {
    let schema = serde_json::to_string_pretty(&model::schema()?)? + "\n";
    Ok(vec![("docs/config.md", reference()?), ("docs/config.schema.json", schema)])
}

fn reference() -> Result<String> {
    let mut out = format!("{BEGIN}\n");
    for key in KEYS {
        let name = dotted(key.pointer);
        let value: serde_json::Value = serde_json::from_str(key.example)?;
        let example = serde_json::to_string_pretty(&model::only(key.pointer, value))?;
        let rows = [
            ("allowed", key.shape.allowed()),
            ("default", key.default.to_owned()),
            ("takes effect", key.applies.to_string()),
        ];
        out.push_str(&format!("\n### `{name}`\n\n{}.\n\n| | |\n|---|---|\n", key.summary));
        rows.iter().for_each(|(what, text)| out.push_str(&format!("| {what} | {text} |\n")));
        fields(&key.shape, "", &mut out);
        out.push_str(&format!("\n```json\n{example}\n```\n"));
    }
    out.push_str("\n### Keys of balenaOS without effect\n\nAccepted, so that an existing file works.\n\n| key | why |\n|---|---|\n");
    for (pointer, why) in WITHOUT_EFFECT {
        out.push_str(&format!("| `{}` | {why} |\n", dotted(pointer)));
    }
    out.push_str(&format!("\n{END}"));
    Ok(out)
}

/// A row for every field of the objects in a value.
fn fields(shape: &Shape, above: &str, out: &mut String) {
    match shape {
        Shape::Object(list) => {
            for Field { name, summary, shape, required } in *list {
                let must = if *required { "" } else { ", optional" };
                out.push_str(&format!("| `{above}{name}` | {summary}: {}{must} |\n", shape.allowed()));
                fields(shape, &format!("{above}{name}."), out);
            }
        }
        Shape::List { item, .. } => fields(item, above, out),
        Shape::Map { value, .. } => fields(value, above, out),
        Shape::Bool
        | Shape::Integer { .. }
        | Shape::Choice(_)
        | Shape::Text(_)
        | Shape::Setting(_)
        | Shape::Free { .. } => {}
    }
}

/// True when a file holds what it must.
pub fn is_current(found: &str, wanted: &str) -> bool {
    found.contains(wanted)
}

/// Writes everything, in a document between its marks.
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
