//! JSON as this project accepts it: what two readers could understand differently is refused.
//!
//! RFC 8259 leaves open what a name that appears twice means; programs disagree, so a file with one is refused.

use crate::text;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Reads a whole text. A byte order mark, which editors on Windows put in front, is skipped.
///
/// # Errors
/// What is wrong, with line and column.
pub fn read(bytes: &[u8]) -> Result<Value, String> {
    let bytes = text::without_mark(bytes);
    if text::is_utf16(bytes) {
        return Err("the file is UTF-16; save it as UTF-8".to_owned());
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err("the file is empty; the least that is allowed is {}".to_owned());
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|err| format!("byte {} is not UTF-8; save the file as UTF-8", err.valid_up_to() + 1))?;
    let strict: Strict = serde_json::from_str(text).map_err(|err| format!("not valid JSON: {err}"))?;
    Ok(strict.0)
}

/// What a value is, in words.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Makes text from a hostile file fit for a console: no control characters, cut to `max` characters.
pub fn tame(text: &str, max: usize) -> String {
    let mut out: String = text.chars().take(max).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(max).is_some() {
        out.push('…');
    }
    out
}

/// Appends a name to a JSON pointer, escaped as RFC 6901 asks, and tamed.
pub fn pointer_to(base: &str, name: &str) -> String {
    format!("{base}/{}", tame(name, 64).replace('~', "~0").replace('/', "~1"))
}

/// The names in a pointer, unescaped. Also takes the form with dots that people type: `os.time.zone`.
pub fn names(pointer: &str) -> Vec<String> {
    match pointer.strip_prefix('/') {
        Some(rest) => rest.split('/').map(|n| n.replace("~1", "/").replace("~0", "~")).collect(),
        None => pointer.split('.').filter(|n| !n.is_empty()).map(str::to_owned).collect(),
    }
}

/// A pointer as people read it: `os.time.zone`.
pub fn dotted(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".")
}

/// A key in an answer to `--json`: as people write it, `os.time.zone`; a JSON pointer in here. For serde's `with`.
pub mod as_key {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes a pointer as a key.
    ///
    /// # Errors
    /// Those of the format.
    pub fn serialize<S: Serializer>(pointer: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::dotted(pointer))
    }

    /// Reads a key as a pointer.
    ///
    /// # Errors
    /// When it is no text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        let key = String::deserialize(deserializer)?;
        Ok(if key.is_empty() { key } else { format!("/{}", key.trim_start_matches('/').replace('.', "/")) })
    }
}

/// The same for several.
pub mod as_keys {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Key(#[serde(with = "super::as_key")] String);

    /// Writes pointers as keys.
    ///
    /// # Errors
    /// Those of the format.
    pub fn serialize<S: Serializer>(pointers: &[String], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(pointers.iter().cloned().map(Key))
    }

    /// Reads keys as pointers.
    ///
    /// # Errors
    /// When they are no texts.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
        Ok(Vec::<Key>::deserialize(deserializer)?.into_iter().map(|key| key.0).collect())
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            out.push(item);
        }
        Ok(Value::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let Strict(value) = map.next_value()?;
            if out.contains_key(&name) {
                return Err(A::Error::custom(format!("\"{}\" appears twice", tame(&name, 64))));
            }
            out.insert(name, value);
        }
        Ok(Value::Object(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Every file here was once some parser's undoing.
    #[test]
    fn hostile_texts_are_refused_with_a_reason() {
        let deep = "[".repeat(200_000);
        let deep_objects = "{\"a\":".repeat(100_000);
        let cases: &[(&[u8], &str)] = &[
            (b"", "empty"),
            (b" \r\n\t ", "empty"),
            (b"\xef\xbb\xbf", "empty"),
            (b"\xff\xfe{\0}\0", "UTF-16"),
            (b"{\"a\":\"\xc3\x28\"}", "byte 7 is not UTF-8"),
            (b"{\"hostname\":\"a\",\"hostname\":\"b\"}", "appears twice"),
            (b"{\"os\":{\"x\":1,\"x\":1}}", "appears twice"),
            (b"{\"a\":1e999}", "out of range"),
            (b"{\"a\":NaN}", "not valid JSON"),
            (b"{\"a\":\"b\0c\"}", "control character"),
            (b"{\"a\":1}\0", "trailing"),
            (b"{\"a\":1}{", "trailing"),
            (b"{\"a\":\"\\ud800\"}", "not valid JSON"),
            (b"{'a':1}", "not valid JSON"),
            (b"{\"a\":1,}", "trailing comma"),
            (b"// c\n{}", "not valid JSON"),
            (deep.as_bytes(), "recursion limit"),
            (deep_objects.as_bytes(), "recursion limit"),
        ];
        for (text, reason) in cases {
            let found = read(text).unwrap_err();
            assert!(found.contains(reason), "{:?}: {found}", String::from_utf8_lossy(&text[..text.len().min(40)]));
        }
    }

    #[test]
    fn what_editors_write_is_read() {
        for text in [&b"\xef\xbb\xbf{\"a\":1}\r\n"[..], b"{\r\n\t\"a\"\r\n:1}", b"{\"a\":\"\\u00fc\\n\"}"] {
            assert!(read(text).is_ok());
        }
        assert_eq!(read(b"{\"n\":12345678901234567890123}").unwrap()["n"].as_f64(), Some(1.2345678901234568e22));
    }

    #[test]
    fn pointers_and_dots_name_the_same_place() {
        assert_eq!(names("/os/time/zone"), names("os.time.zone"));
        assert_eq!(names("/os/udevRules/a~1b~0"), ["os", "udevRules", "a/b~"]);
        assert_eq!(pointer_to("/os", "a/b~\u{1b}"), "/os/a~1b~0\u{fffd}");
    }
}
