//! What a value may look like. Checking, the JSON Schema, the documentation and the search for secrets are all made
//! from one [`Shape`], so that they cannot disagree.

use crate::json::{kind, pointer_to, tame};
use crate::lenient;
use crate::model::Problem;
use serde_json::{Map, Value, json};

/// Name of the field that stands for a secret that was moved into the state partition (`os config seal`).
pub const SEALED: &str = "$sealed";

/// What is wrong with the text "null" where no text belongs.
pub const NULL: &str =
    "is the text \"null\"; where nothing is to be set, write null without quotes or leave the key out";

/// The form of one value.
#[derive(Debug)]
pub enum Shape {
    /// `true` or `false`.
    Bool,
    /// A whole number within bounds, in `unit`.
    Integer {
        /// Least.
        min: i64,
        /// Most.
        max: i64,
        /// What is counted, for people; may be empty.
        unit: &'static str,
    },
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// A string.
    Text(&'static Text),
    /// A string that may as well be written as a whole number.
    Setting(&'static Text),
    /// An array.
    List {
        /// What it holds.
        item: &'static Shape,
        /// At most so many.
        max: usize,
    },
    /// An object with these fields and no others.
    Object(&'static [Field]),
    /// An object of another program, which checks it itself.
    Free {
        /// What it is, for people.
        allowed: &'static str,
        /// At most so many bytes, as JSON.
        max: usize,
    },
    /// An object whose names are chosen by the person.
    Map {
        /// What a name may be.
        name: &'static Text,
        /// What each holds.
        value: &'static Shape,
        /// At most so many.
        max: usize,
    },
}

/// A kind of string.
#[derive(Debug)]
pub struct Text {
    /// What is allowed, for people; follows "expected".
    pub allowed: &'static str,
    /// The same as a regular expression (ECMA-262) for editors, where it can be said so.
    pub pattern: Option<&'static str>,
    /// At most so many bytes.
    pub max: usize,
    /// It may hold a password or a key: never shown, and moved to state by `os config seal`.
    pub secret: bool,
    /// An empty one says something. Every other empty text means "not set".
    pub empty: bool,
    /// A number is understood as its digits.
    pub number: bool,
    /// The check that decides.
    pub good: fn(&str) -> bool,
    /// What is wrong with a text that passes the check all the same. Not asked of what was accepted once: an update takes no
    /// configuration away.
    pub slip: fn(&str) -> Option<String>,
}

impl Text {
    /// True for a text of this kind.
    pub fn takes(&self, text: &str) -> bool {
        text.len() <= self.max && (self.good)(text)
    }
}

/// A field of an object.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it is for, for people.
    pub summary: &'static str,
    /// What it holds.
    pub shape: Shape,
    /// The object is refused without it.
    pub required: bool,
}

impl Shape {
    /// Checks a value and adds what is wrong with it.
    pub fn check(&self, pointer: &str, value: &Value, problems: &mut Vec<Problem>) {
        let mut wrong = |message: String| problems.push(Problem { pointer: pointer.to_owned(), message });
        match (self, value) {
            (Shape::Bool, Value::Bool(_)) => {}
            (Shape::Integer { min, max, .. }, Value::Number(number)) => {
                if !number.as_i64().is_some_and(|n| (*min..=*max).contains(&n)) {
                    wrong(format!("is {number}; expected {}", self.allowed()));
                }
            }
            (Shape::Choice(words), Value::String(text)) if words.contains(&text.as_str()) => {}
            (Shape::Choice(_), Value::String(found)) if found.trim() != "null" => {
                wrong(format!(
                    "is {}; expected {}",
                    shown(&os_transport::address::without_secrets(found)),
                    self.allowed()
                ));
            }
            (Shape::Text(text), Value::String(found)) => {
                if found.trim() == "null" && !text.takes(found) {
                    wrong(NULL.to_owned());
                } else if found.len() > text.max {
                    wrong(format!("has {} bytes, at most {}; expected {}", found.len(), text.max, text.allowed));
                } else if !(text.good)(found) {
                    let found = if text.secret {
                        "not valid".to_owned()
                    } else {
                        shown(&os_transport::address::without_secrets(found))
                    };
                    wrong(format!("is {found}; expected {}", text.allowed));
                }
            }
            (Shape::Setting(_), Value::Number(number)) if number.is_i64() || number.is_u64() => {}
            (Shape::Setting(text), Value::String(_)) => Shape::Text(text).check(pointer, value, problems),
            (Shape::Text(text), Value::Object(object)) if text.secret && sealed(object).is_some() => {}
            (Shape::List { max, .. }, Value::Array(items)) if items.len() > *max => {
                wrong(format!("has {} entries; at most {max}", items.len()));
            }
            (Shape::List { item, .. }, Value::Array(items)) => {
                // An entry that says nothing keeps its place until everything is checked.
                for (index, found) in items.iter().enumerate().filter(|(_, found)| !found.is_null()) {
                    item.check(&format!("{pointer}/{index}"), found, problems);
                }
            }
            (Shape::Object(fields), Value::Object(object)) => check_object(fields, pointer, object, problems),
            (Shape::Free { max, .. }, Value::Object(_)) => {
                let size = value.to_string().len();
                if size > *max {
                    wrong(format!("has {size} bytes; at most {max}"));
                }
            }
            (Shape::Map { max, .. }, Value::Object(object)) if object.len() > *max => {
                wrong(format!("has {} entries; at most {max}", object.len()));
            }
            (Shape::Map { name, value, .. }, Value::Object(object)) => {
                for (key, found) in object {
                    let place = pointer_to(pointer, key);
                    if key.len() > name.max || !(name.good)(key) {
                        let message = format!("has an invalid name; expected {}", name.allowed);
                        problems.push(Problem { pointer: place, message });
                    } else {
                        value.check(&place, found, problems);
                    }
                }
            }
            (_, Value::String(text)) if text.trim() == "null" => wrong(NULL.to_owned()),
            (Shape::Text(_), Value::Number(_)) => {
                wrong(format!("is a number; write it in quotes; expected {}", self.allowed()))
            }
            (_, other) => wrong(format!("is {}; expected {}", kind(other), self.allowed())),
        }
    }

    /// Adds what is wrong with texts that are well formed, in a value that passed [`Shape::check`].
    pub fn slips(&self, pointer: &str, value: &Value, problems: &mut Vec<Problem>) {
        match (self, value) {
            (Shape::Text(text), Value::String(found)) => {
                problems.extend((text.slip)(found).map(|message| Problem { pointer: pointer.to_owned(), message }));
            }
            (Shape::List { item, .. }, Value::Array(items)) => {
                for (index, found) in items.iter().enumerate() {
                    item.slips(&format!("{pointer}/{index}"), found, problems);
                }
            }
            (Shape::Object(fields), Value::Object(object)) => {
                for field in *fields {
                    if let Some(found) = object.get(field.name) {
                        field.shape.slips(&pointer_to(pointer, field.name), found, problems);
                    }
                }
            }
            (Shape::Map { value, .. }, Value::Object(object)) => {
                object.iter().for_each(|(name, found)| value.slips(&pointer_to(pointer, name), found, problems));
            }
            _ => {}
        }
    }

    /// What is allowed, for people.
    pub fn allowed(&self) -> String {
        match self {
            Shape::Bool => "true or false".to_owned(),
            Shape::Integer { min, max, unit } => {
                format!("a whole number from {min} to {max} {unit}").trim_end().to_owned()
            }
            Shape::Choice(words) => words.iter().map(|w| format!("\"{w}\"")).collect::<Vec<_>>().join(" or "),
            Shape::Text(text) => format!("a string: {}", text.allowed),
            Shape::Setting(text) => format!("a whole number or a string: {}", text.allowed),
            Shape::List { item, max } => format!("an array of at most {max}, each {}", item.allowed()),
            Shape::Object(fields) => {
                let names: Vec<&str> = fields.iter().map(|f| f.name).collect();
                format!("an object with {}", names.join(", "))
            }
            Shape::Free { allowed, max } => format!("an object: {allowed}; at most {} KiB", max >> 10),
            Shape::Map { name, value, max } => {
                format!("an object of at most {max}; names: {}; values: {}", name.allowed, value.allowed())
            }
        }
    }

    /// JSON Schema, draft 2020-12.
    pub fn schema(&self) -> Value {
        match self {
            Shape::Bool => json!({ "type": "boolean" }),
            Shape::Integer { min, max, .. } => json!({ "type": "integer", "minimum": min, "maximum": max }),
            Shape::Choice(words) => json!({ "enum": words }),
            Shape::Text(text) => {
                let mut out = json!({ "type": "string", "maxLength": text.max });
                if let (Some(object), Some(pattern)) = (out.as_object_mut(), text.pattern) {
                    object.insert("pattern".to_owned(), pattern.into());
                }
                if text.secret {
                    let sealed = json!({
                        "type": "object", "required": [SEALED], "additionalProperties": false,
                        "properties": { SEALED: { "type": "string" } },
                    });
                    out = json!({ "anyOf": [out, sealed] });
                }
                out
            }
            Shape::Setting(text) => json!({ "anyOf": [{ "type": "integer" }, Shape::Text(text).schema()] }),
            Shape::List { item, max } => json!({ "type": "array", "maxItems": max, "items": item.schema() }),
            Shape::Object(fields) => {
                let mut properties = Map::new();
                for field in *fields {
                    let mut schema = field.shape.schema();
                    if let Some(object) = schema.as_object_mut() {
                        object.insert("description".to_owned(), format!("{}.", field.summary).into());
                    }
                    properties.insert(field.name.to_owned(), schema);
                }
                let required: Vec<&str> = fields.iter().filter(|f| f.required).map(|f| f.name).collect();
                json!({
                    "type": "object", "properties": properties, "required": required, "additionalProperties": false,
                })
            }
            Shape::Free { .. } => json!({ "type": "object" }),
            Shape::Map { name, value, max } => {
                let mut out = json!({
                    "type": "object", "maxProperties": max, "additionalProperties": value.schema(),
                });
                if let (Some(object), Some(pattern)) = (out.as_object_mut(), name.pattern) {
                    object.insert("propertyNames".to_owned(), json!({ "pattern": pattern }));
                }
                out
            }
        }
    }

    /// Visits every secret, sealed or not, in a value; not what stands there and says nothing.
    pub fn secrets(&self, value: &mut Value, visit: &mut dyn FnMut(&mut Value)) {
        match (self, value) {
            (Shape::Text(text), value) if text.secret && !lenient::is_nothing(value) => visit(value),
            (Shape::List { item, .. }, Value::Array(items)) => {
                items.iter_mut().for_each(|found| item.secrets(found, visit));
            }
            (Shape::Object(fields), Value::Object(object)) => {
                for field in *fields {
                    if let Some(found) = object.get_mut(field.name) {
                        field.shape.secrets(found, visit);
                    }
                }
            }
            (Shape::Map { value: shape, .. }, Value::Object(object)) => {
                object.iter_mut().for_each(|(_, found)| shape.secrets(found, visit));
            }
            _ => {}
        }
    }
}

/// A string of the file in a message.
fn shown(found: &str) -> String {
    format!("\"{}\"", tame(found, 64))
}

fn check_object(fields: &[Field], pointer: &str, object: &Map<String, Value>, problems: &mut Vec<Problem>) {
    for (name, found) in object {
        match fields.iter().find(|f| f.name == name) {
            Some(field) => field.shape.check(&pointer_to(pointer, name), found, problems),
            None => {
                let names: Vec<&str> = fields.iter().map(|f| f.name).collect();
                problems.push(Problem {
                    pointer: pointer_to(pointer, name),
                    message: format!("is not a field of this object; expected one of {}", names.join(", ")),
                });
            }
        }
    }
    for field in fields.iter().filter(|f| f.required && !object.contains_key(f.name)) {
        let message = format!("\"{}\" is missing: {}", field.name, field.summary);
        problems.push(Problem { pointer: pointer.to_owned(), message });
    }
}

/// The reference that stands for a sealed secret.
pub fn sealed(object: &Map<String, Value>) -> Option<&str> {
    match object.get(SEALED) {
        Some(Value::String(id)) if object.len() == 1 => Some(id),
        _ => None,
    }
}
