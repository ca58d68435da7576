//! redsocks's configuration, as its own `parser.c` (0.5, which balenaOS has) reads it, token by token.
//!
//! Where that program would start with less than was written, or not at all, the text is refused with the line. A message never
//! holds a part of the text: it may be a part of a password.

use std::iter::Peekable;
use std::str::Chars;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct Wrong {
    /// Counted from 1.
    pub line: usize,
    /// A sentence for people.
    pub message: String,
}

/// One section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Where it begins.
    pub line: usize,
    /// What it says, in order.
    pub entries: Vec<Entry>,
}

/// One assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What is set.
    pub key: String,
    /// To what.
    pub value: String,
    /// Where.
    pub line: usize,
}

impl Section {
    /// The value of a key; of several the last one counts.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.key == key)
    }
}

/// The sections that redsocks knows; `debug` when it was built with that.
const SECTIONS: &[&str] = &["base", "redsocks", "redudp", "dnstc", "dnsu2t", "debug"];

/// Reads a whole text.
///
/// # Errors
/// What is wrong first, and where.
pub fn read(text: &str) -> Result<Vec<Section>, Wrong> {
    let mut tokens = Tokens { rest: text.chars().peekable(), line: 1 };
    let (mut sections, mut open): (Vec<Section>, Option<Section>) = (Vec::new(), None);
    // Words that have no place yet, with their lines: the name of a section, or a key and its value.
    let mut words: Vec<(String, usize)> = Vec::new();
    while let Some((token, line)) = tokens.next()? {
        match token {
            Token::Word(word) => {
                let room = if open.is_some() { 2 } else { 1 };
                if words.len() >= room {
                    return Err(wrong(line, misplaced(open.is_some())));
                }
                words.push((word, line));
            }
            Token::Mark('{') if open.is_some() => {
                return Err(wrong(line, "'{' inside of a section; the one before is not closed with '}'"));
            }
            Token::Mark('{') => {
                let (name, line) =
                    words.pop().ok_or_else(|| wrong(line, "'{' without the name of a section before it"))?;
                if !SECTIONS.contains(&name.as_str()) {
                    return Err(wrong(line, format!("no section of redsocks; there are {}", SECTIONS.join(", "))));
                }
                open = Some(Section { name, line, entries: Vec::new() });
            }
            Token::Mark('}') if !words.is_empty() => return Err(wrong(line, "'}' before the ';' that ends a line")),
            Token::Mark('}') => {
                sections.push(open.take().ok_or_else(|| wrong(line, "'}' without a section that it closes"))?);
            }
            // redsocks does not care how often, nor on which side of the value.
            Token::Mark('=') if open.is_some() && !words.is_empty() => {}
            Token::Mark('=') => return Err(wrong(line, "'=' without a key before it")),
            Token::Mark(_) => {
                let section = open.as_mut().ok_or_else(|| wrong(line, "';' outside of a section"))?;
                let mut both = words.drain(..);
                match (both.next(), both.next()) {
                    (Some((key, line)), Some((value, _))) => section.entries.push(Entry { key, value, line }),
                    (Some(_), None) => return Err(wrong(line, "a key without a value")),
                    _ => return Err(wrong(line, "';' with nothing before it")),
                }
            }
        }
    }
    match (open, words.first()) {
        (Some(section), _) => Err(wrong(section.line, "a section that is never closed with '}'")),
        (None, Some((_, line))) => Err(wrong(*line, "a word outside of a section")),
        (None, None) => Ok(sections),
    }
}

fn wrong(line: usize, message: impl Into<String>) -> Wrong {
    Wrong { line, message: message.into() }
}

fn misplaced(inside: bool) -> &'static str {
    if inside {
        "one word too many: a ';' is missing before it, or the value has to stand in double quotes"
    } else {
        "a word where the '{' of a section should be"
    }
}

enum Token {
    /// A name, a number, an address, or what stood in quotes.
    Word(String),
    /// One of `{ } = ;`.
    Mark(char),
}

struct Tokens<'t> {
    rest: Peekable<Chars<'t>>,
    line: usize,
}

impl Tokens<'_> {
    fn next(&mut self) -> Result<Option<(Token, usize)>, Wrong> {
        loop {
            let Some(first) = self.step() else { return Ok(None) };
            let line = self.line;
            let token = match first {
                ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}' => continue,
                '/' => {
                    self.comment()?;
                    continue;
                }
                '{' | '}' | '=' | ';' => Token::Mark(first),
                '"' => Token::Word(self.quoted()?),
                '0'..='9' => Token::Word(self.number(first)?),
                'a'..='z' | 'A'..='Z' => {
                    let inside = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
                    Token::Word(self.run(first, inside))
                }
                '#' => {
                    return Err(wrong(
                        line,
                        "'#' begins no comment here; '//' does, and a value with '#' stands in double quotes",
                    ));
                }
                _ => {
                    let message = "a character that is only allowed in double quotes or in a comment (// or /* */)";
                    return Err(wrong(line, message));
                }
            };
            return Ok(Some((token, line)));
        }
    }

    fn step(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    fn run(&mut self, first: char, inside: impl Fn(char) -> bool) -> String {
        let mut out = String::from(first);
        while let Some(next) = self.rest.next_if(|c| inside(*c)) {
            out.push(next);
        }
        out
    }

    /// Digits and dots, and a slash where a digit follows: a number, an address, or one with its mask.
    fn number(&mut self, first: char) -> Result<String, Wrong> {
        let mut out = self.run(first, |c| c.is_ascii_digit() || c == '.');
        while self.rest.peek() == Some(&'/') {
            let mut ahead = self.rest.clone();
            ahead.next();
            match ahead.peek() {
                Some('0'..='9') => {
                    self.step();
                    out.push_str(&self.run('/', |c| c.is_ascii_digit() || c == '.'));
                }
                Some('/' | '*') => break,
                _ => return Err(wrong(self.line, "a '/' behind a number, and no digit behind it")),
            }
        }
        Ok(out)
    }

    /// What stands between double quotes, on one line or several.
    fn quoted(&mut self) -> Result<String, Wrong> {
        let (line, mut out) = (self.line, String::new());
        loop {
            match self.step() {
                None => return Err(wrong(line, "a double quote that is never closed")),
                Some('"') => return Ok(out),
                Some('\0') => return Err(wrong(self.line, "a NUL character")),
                Some('\\') => out.push(match self.step() {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('r') => '\r',
                    Some(same @ ('\\' | '\'' | '"')) => same,
                    _ => {
                        return Err(wrong(
                            line,
                            "a backslash before something else than n, t, r, \\, ' and \"; a backslash itself is \\\\",
                        ));
                    }
                }),
                Some(other) => out.push(other),
            }
        }
    }

    /// A comment, whose first slash was read.
    fn comment(&mut self) -> Result<(), Wrong> {
        let line = self.line;
        match self.step() {
            Some('/') => while self.step().is_some_and(|c| c != '\n') {},
            Some('*') => loop {
                match self.step() {
                    Some('*') if self.rest.peek() == Some(&'/') => {
                        self.step();
                        break;
                    }
                    Some(_) => {}
                    None => return Err(wrong(line, "a comment that is never closed with */")),
                }
            },
            _ => return Err(wrong(line, "a single '/'; a comment begins with // or /*")),
        }
        Ok(())
    }
}

/// A value in double quotes, so that [`read`] gives the same text back; none for what cannot be written so.
pub fn quote(value: &str) -> Option<String> {
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '\0' => return None,
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\\' | '"' => out.extend(['\\', c]),
            other => out.push(other),
        }
    }
    Some(out + "\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(text: &str) -> Vec<(String, String)> {
        let sections = read(text).unwrap();
        sections.into_iter().flat_map(|s| s.entries).map(|e| (e.key, e.value)).collect()
    }

    #[test]
    fn comments_quotes_and_braces_are_redsockss() {
        let text = "base { log = stderr; } // } redsocks {\n/* redsocks { type = socks5;\n ip = 192.0.2.1; } */ redsocks\n\n{\n\
                    type\n=\nsocks5;ip=10.10.10.10;port=123//port=5;\n;login = \"da;ve}\" ; password \"a\\\"b\\\\#'//x\\'\" ; }";
        let sections = read(text).unwrap();
        assert_eq!(
            sections.iter().map(|s| (s.name.as_str(), s.line)).collect::<Vec<_>>(),
            [("base", 1), ("redsocks", 3)]
        );
        let found: Vec<_> = sections[1].entries.iter().map(|e| (e.key.as_str(), e.value.as_str(), e.line)).collect();
        assert_eq!(
            found,
            [
                ("type", "socks5", 6),
                ("ip", "10.10.10.10", 8),
                ("port", "123", 8),
                ("login", "da;ve}", 9),
                ("password", "a\"b\\#'//x'", 9),
            ]
        );
        assert_eq!(values("redsocks{ip=10.0.0.0/8/**/;ip=1;}").last().unwrap().1, "1");
        assert!(read("").unwrap().is_empty());
    }

    #[test]
    fn what_redsocks_would_not_take_is_named_with_its_line() {
        for (text, line, reason) in [
            ("# hello\nredsocks { }", 1, "'#' begins no comment"),
            ("; hello\n", 1, "outside of a section"),
            ("redsocks {\n password = ab#c;\n}", 2, "'#' begins no comment"),
            ("redsocks {\n password = ab$c;\n}", 2, "double quotes"),
            ("redsocks {\n password = 12ab;\n}", 2, "too many"),
            ("redsocks {\n port = 1080\n type = socks5;\n}", 3, "too many"),
            ("redsocks {\n port = 1080 }", 2, "';'"),
            ("redsocks {\n port = ;\n}", 2, "without a value"),
            ("redsocks {\n ;;\n}", 2, "nothing before"),
            ("redsocks {\n = 5;\n}", 2, "without a key"),
            ("redsocks {\n type = socks5;\n", 1, "never closed"),
            ("redsocks {\n redsocks {\n", 2, "inside of a section"),
            ("redsocks\n", 1, "outside of a section"),
            ("hello\nworld\n", 2, "'{'"),
            ("}\n", 1, "that it closes"),
            ("{\n", 1, "without the name"),
            ("redsocks2 {\n}", 1, "no section of redsocks"),
            ("redsocks {\n password = \"a\nb;\n}", 2, "never closed"),
            ("redsocks {\n password = \"a\\x\";\n}", 2, "backslash"),
            ("redsocks {\n/* a\n", 2, "*/"),
            ("redsocks {\n ip = <SERVER_IP>;\n}", 2, "double quotes"),
            ("redsocks {\n ip = 10.0.0.1/;\n}", 2, "no digit"),
            ("redsocks {\n / x\n}", 2, "single '/'"),
        ] {
            let found = read(text).unwrap_err();
            assert!(found.line == line && found.message.contains(reason), "{text:?}: {found}");
            assert!(!found.message.contains("ab"), "{found}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "(?s).{0,200}") {
            let _ = read(&text);
        }

        // Of the pieces that the language is made of, in any order.
        #[test]
        fn no_order_of_tokens_breaks_it(parts in proptest::collection::vec(
            prop_oneof![Just("redsocks"), Just("{"), Just("}"), Just("="), Just(";"), Just("\""), Just("\\"), Just("//"), Just("/*"),
                        Just("*/"), Just("\n"), Just(" "), Just("1.2/3"), Just("a"), Just("#")], 0..40)) {
            if let Err(found) = read(&parts.concat()) {
                prop_assert!(found.line >= 1 && found.line <= parts.concat().matches('\n').count() + 1);
            }
        }

        #[test]
        fn what_is_quoted_comes_back(value in "(?s)[^\0]{0,60}", noise in "(//[^\n]{0,9}\n|/[*][^*]{0,9}[*]/|[ \t\n]){0,3}") {
            let text = format!("redsocks{noise}{{{noise}password{noise}={noise}{}{noise};{noise}}}", quote(&value).unwrap());
            prop_assert_eq!(values(&text), [("password".to_owned(), value)]);
        }
    }
}
