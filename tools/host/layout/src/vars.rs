//! Reads variable assignments from a BitBake configuration fragment.
//!
//! Only what the layout files need: `NAME = "value"`, `?=`, `??=`, `NAME:append = "…"`, `${OTHER}` inside a value, line
//! continuation and comments. Anything else is an error with its line, so that a value can never be read differently
//! here and in BitBake without a word.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why a fragment or a value was refused.
#[derive(Debug, thiserror::Error)]
pub enum VarsError {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", .path.display())]
    Read {
        /// The fragment.
        path: PathBuf,
        /// What the system answered.
        cause: std::io::Error,
    },
    /// A line that is not one of the forms above.
    #[error("{file}:{line}: not an assignment this reader knows: {text}")]
    Syntax {
        /// Name of the fragment.
        file: String,
        /// Line number, from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// `${NAME}` where no fragment sets `NAME`.
    #[error("{file}:{line}: ${{{name}}} is not set anywhere")]
    Unset {
        /// Where it is used.
        file: String,
        /// Line number, from 1.
        line: usize,
        /// The variable.
        name: String,
    },
    /// Variables that refer to each other in a circle.
    #[error("{file}:{line}: ${{{name}}} refers to itself")]
    Circle {
        /// Where it is used.
        file: String,
        /// Line number, from 1.
        line: usize,
        /// The variable.
        name: String,
    },
}

/// Variables by name, values as written (not yet expanded).
#[derive(Debug, Default, Clone)]
pub struct Vars {
    strong: BTreeMap<String, String>,
    default: BTreeMap<String, String>,
    weak: BTreeMap<String, String>,
    append: BTreeMap<String, String>,
}

impl Vars {
    /// Reads one more fragment from a file.
    ///
    /// # Errors
    /// When it cannot be read or holds a line that is not understood.
    pub fn load(&mut self, path: &Path) -> Result<(), VarsError> {
        let text = std::fs::read_to_string(path).map_err(|cause| VarsError::Read { path: path.to_owned(), cause })?;
        self.parse(&path.display().to_string(), &text)
    }

    /// Reads one more fragment; `file` is its name for messages.
    ///
    /// # Errors
    /// When it holds a line that is not understood.
    pub fn parse(&mut self, file: &str, text: &str) -> Result<(), VarsError> {
        let mut lines = text.lines().enumerate();
        while let Some((number, first)) = lines.next() {
            let mut whole = first.to_owned();
            while whole.ends_with('\\') {
                whole.pop();
                match lines.next() {
                    Some((_, next)) => whole.push_str(next),
                    None => break,
                }
            }
            let line = whole.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            self.assign(line).ok_or_else(|| VarsError::Syntax {
                file: file.to_owned(),
                line: number + 1,
                text: line.to_owned(),
            })?;
        }
        Ok(())
    }

    fn assign(&mut self, line: &str) -> Option<()> {
        let (left, right) = line.split_once('=')?;
        let (name, kind) = if let Some(name) = left.strip_suffix("??") {
            (name, &mut self.weak)
        } else if let Some(name) = left.strip_suffix('?') {
            (name, &mut self.default)
        } else {
            (left, &mut self.strong)
        };
        let value = right.trim().strip_prefix('"')?.strip_suffix('"')?;
        let name = name.trim();
        if name.ends_with("[doc]") {
            return Some(());
        }
        if let Some(base) = name.strip_suffix(":append") {
            valid_name(base)?;
            self.append.entry(base.to_owned()).or_default().push_str(value);
            return Some(());
        }
        valid_name(name)?;
        // `?=`: the first one counts; `=` and `??=`: the last one does.
        if left.ends_with('?') && !left.ends_with("??") {
            kind.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        } else {
            kind.insert(name.to_owned(), value.to_owned());
        }
        Some(())
    }

    /// Sets a variable, over everything the fragments say.
    pub fn set(&mut self, name: &str, value: &str) {
        self.strong.insert(name.to_owned(), value.to_owned());
    }

    fn raw(&self, name: &str) -> Option<String> {
        let base = self.strong.get(name).or_else(|| self.default.get(name)).or_else(|| self.weak.get(name));
        match (base, self.append.get(name)) {
            (None, None) => None,
            (base, append) => Some(format!("{}{}", base.map_or("", String::as_str), append.map_or("", String::as_str))),
        }
    }

    /// The expanded value of a variable; `None` when no fragment sets it.
    ///
    /// # Errors
    /// When it refers to a variable that is not set, or to itself.
    pub fn get(&self, name: &str) -> Result<Option<String>, VarsError> {
        self.raw(name).map(|raw| self.expand_within(name, 1, &raw, &mut vec![name.to_owned()])).transpose()
    }

    /// Expands every `${NAME}` in `text`; `file` is its name for messages.
    ///
    /// # Errors
    /// When a variable is not set, or refers to itself.
    pub fn expand(&self, file: &str, text: &str) -> Result<String, VarsError> {
        let mut out = String::with_capacity(text.len());
        for (number, line) in text.split_inclusive('\n').enumerate() {
            if line.trim_start().starts_with('#') {
                out.push_str(line);
            } else {
                out.push_str(&self.expand_within(file, number + 1, line, &mut Vec::new())?);
            }
        }
        Ok(out)
    }

    fn expand_within(&self, file: &str, line: usize, text: &str, open: &mut Vec<String>) -> Result<String, VarsError> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let Some((name, tail)) = after.split_once('}') else {
                out.push_str("${");
                rest = after;
                continue;
            };
            let at = || (file.to_owned(), name.to_owned());
            if open.iter().any(|o| o == name) {
                let (file, name) = at();
                return Err(VarsError::Circle { file, line, name });
            }
            let Some(raw) = self.raw(name) else {
                let (file, name) = at();
                return Err(VarsError::Unset { file, line, name });
            };
            open.push(name.to_owned());
            out.push_str(&self.expand_within(file, line, &raw, open)?);
            open.pop();
            rest = tail;
        }
        out.push_str(rest);
        Ok(out)
    }
}

fn valid_name(name: &str) -> Option<()> {
    let ok = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-:".contains(c));
    ok.then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(text: &str) -> Vars {
        let mut vars = Vars::default();
        vars.parse("t.inc", text).unwrap();
        vars
    }

    #[test]
    fn strength_of_assignments_is_bitbakes() {
        let v = vars("A ??= \"weak\"\nA ?= \"first\"\nA ?= \"second\"\nB = \"x\"\nB ?= \"y\"\nB:append = \" z\"\n");
        assert_eq!(v.get("A").unwrap().unwrap(), "first");
        assert_eq!(v.get("B").unwrap().unwrap(), "x z");
        assert_eq!(v.get("C").unwrap(), None);
    }

    #[test]
    fn expansion_is_recursive_and_late() {
        let v = vars("A = \"${B}M\"\nB = \"64\"\n");
        assert_eq!(v.expand("t.wks", "part --size ${A}\n").unwrap(), "part --size 64M\n");
    }

    #[test]
    fn errors_name_file_line_and_variable() {
        let v = vars("A = \"${NOT_THERE}\"\nC = \"${D}\"\nD = \"${C}\"\n");
        let err = v.expand("t.wks", "one\ntwo ${A}\n").unwrap_err().to_string();
        assert_eq!(err, "t.wks:2: ${NOT_THERE} is not set anywhere");
        assert!(v.get("C").unwrap_err().to_string().contains("refers to itself"));
        let err = Vars::default().parse("t.inc", "\nA = \"1\"\nrequire x.inc\n").unwrap_err().to_string();
        assert!(err.starts_with("t.inc:3:"), "{err}");
    }

    #[test]
    fn continued_lines_are_one_value() {
        assert_eq!(vars("A = \"\\\n  a \\\n  b \\\n\"\n").get("A").unwrap().unwrap().split_whitespace().count(), 2);
    }
}
