//! What a command prints: lines on standard output, until nobody reads them any more.

use serde::Serialize;
use serde_json::{Map, Value, json};
use std::fmt::Arguments;
use std::io::{ErrorKind, IsTerminal, Write};
use std::process::{Command, Stdio};

/// What a shell reports of a program that SIGPIPE ended, 128 + 13.
const NOBODY_READS: i32 = 141;

/// Prints, as [`std::println!`] does. Where the reader has gone (`os status | head -1`) the program ends quietly, as one does
/// that leaves SIGPIPE alone; Rust programs would panic.
#[macro_export]
macro_rules! say {
    () => { $crate::out::print(format_args!("\n")) };
    ($($arg:tt)*) => { $crate::out::print(format_args!("{}\n", format_args!($($arg)*))) };
}

/// What [`say!`] does, without the end of the line.
pub fn print(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(err) if err.kind() == ErrorKind::BrokenPipe => std::process::exit(NOBODY_READS),
        Err(err) => {
            crate::log::error(&format!("cannot print: {err}"));
            std::process::exit(1);
        }
    }
}

/// Prints a long text; `pager`: page by page, where a person reads it at a terminal. `$PAGER` says with what, empty for none;
/// otherwise it is `less`, where there is one.
pub fn paged(text: &str, pager: bool) {
    if pager && std::io::stdout().is_terminal() && through_pager(text) {
        return;
    }
    print(format_args!("{text}"));
}

fn through_pager(text: &str) -> bool {
    let chosen = std::env::var("PAGER").unwrap_or_else(|_| "less".to_owned());
    let mut words = chosen.split_ascii_whitespace();
    let Some(program) = words.next() else { return false };
    // As systemctl and git call it: a short text is just printed, and colours stay.
    let mut command = Command::new(program);
    command.args(words).env("LESS", "FRSXMK").stdin(Stdio::piped());
    let Ok(mut child) = command.spawn() else { return false };
    if let Some(mut stdin) = child.stdin.take() {
        // Who leaves it early has read enough.
        let _ = stdin.write_all(text.as_bytes());
    }
    child.wait().is_ok()
}

/// Version of the form of [`json`]. Fields are only ever added; whatever else changes counts it up.
const FORM: u32 = 1;

/// Prints the answer of a command to `--json`: one object, `version` first (docs/json.md).
pub fn json(answer: &impl Serialize) {
    print(format_args!("{}\n", json_text(answer)));
}

/// Prints the answer of a command that people read as text and programs as JSON.
pub fn answer<T: Serialize + std::fmt::Display>(answer: &T, as_json: bool) {
    if as_json { json(answer) } else { print(format_args!("{answer}")) }
}

/// The text that [`json`] prints.
pub fn json_text(answer: &impl Serialize) -> String {
    let mut object = Map::from_iter([("version".to_owned(), FORM.into())]);
    match serde_json::to_value(answer) {
        Ok(Value::Object(fields)) => object.extend(fields),
        Ok(other) => drop(object.insert("value".to_owned(), other)),
        Err(err) => drop(object.insert("error".to_owned(), json!({ "text": err.to_string() }))),
    }
    format!("{:#}", Value::Object(object))
}

/// Prints what went wrong, in the form of [`json`].
pub fn json_error(text: &str) {
    json(&json!({ "error": { "text": text } }));
}
