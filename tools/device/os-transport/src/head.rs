//! The head of an answer, as `curl --include` prints it in front of the body: of a redirect that is followed too.

use std::io::Read;

/// Heads together are no larger, in bytes.
const MAX: usize = 64 << 10;

/// What a server says of what follows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// First byte, last byte and length of the whole of a part (RFC 9110, 14.4); the length may be unknown.
    pub range: Option<(u64, u64, Option<u64>)>,
    /// `Content-Length`.
    pub length: Option<u64>,
    /// What tells one content of an address from another.
    pub version: Version,
}

/// What tells one content of an address from another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Version {
    etag: Option<String>,
    modified: Option<String>,
}

impl Version {
    /// False when the content is another one. Servers behind one name may have tags of their own for one file; its date they
    /// have from the file.
    pub fn is_same(&self, other: &Self) -> bool {
        let differs = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
        let known = self.modified.is_some() && other.modified.is_some();
        match known {
            true => !differs(&self.modified, &other.modified),
            false => !differs(&self.etag, &other.etag),
        }
    }
}

impl Head {
    /// Reads up to the first byte of the body; none at the end of what came, or when it is no answer.
    pub fn read(from: &mut impl Read) -> Option<Self> {
        let mut left = MAX;
        loop {
            let head = Self::parse(&block(from, &mut left)?)?;
            // What is followed is not the answer, and neither is a word on the way to it.
            if !matches!(head.status, 100..=199 | 300..=303 | 305..=399) {
                return Some(head);
            }
        }
    }

    /// Reads one head, without the empty line at its end.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut words = lines.next()?.split_ascii_whitespace();
        words.next().filter(|word| word.starts_with("HTTP/"))?;
        let mut head = Self { status: words.next()?.parse().ok()?, ..Self::default() };
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "content-range" => head.range = range(value),
                "content-length" => head.length = value.parse().ok(),
                "etag" => head.version.etag = Some(value.to_owned()),
                "last-modified" => head.version.modified = Some(value.to_owned()),
                _ => {}
            }
        }
        Some(head)
    }
}

/// The lines up to an empty one.
fn block(from: &mut impl Read, left: &mut usize) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !(bytes.ends_with(b"\n\n") || bytes.ends_with(b"\n\r\n")) {
        *left = left.checked_sub(1)?;
        from.read_exact(&mut byte).ok()?;
        bytes.extend_from_slice(&byte);
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn range(value: &str) -> Option<(u64, u64, Option<u64>)> {
    let (unit, rest) = value.split_once(' ')?;
    let (part, whole) = rest.trim().split_once('/')?;
    let (first, last) = part.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let whole = if whole == "*" { None } else { Some(number(whole)?) };
    let good = unit.eq_ignore_ascii_case("bytes") && first <= last && whole.is_none_or(|whole| last < whole);
    good.then_some((first, last, whole))
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_answer_is_what_comes_after_redirects() {
        let text = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 3\r\n\r\n\
                    HTTP/2 206 \r\ncontent-range: bytes 5-9/20\r\nETag: \"a\"\r\ncontent-length: 5\r\n\r\n56789";
        let mut bytes = text.as_bytes();
        let head = Head::read(&mut bytes).unwrap();
        assert_eq!((head.status, head.range, head.length), (206, Some((5, 9, Some(20))), Some(5)));
        assert_eq!(bytes, b"56789");
        for none in ["", "hello\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n", "HTTP/1.1 302 Found\r\n\r\n"] {
            assert_eq!(Head::read(&mut none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn a_range_is_read_as_it_is_written_and_nonsense_is_none() {
        for (value, wanted) in [
            ("bytes 0-0/1", Some((0, 0, Some(1)))),
            ("Bytes 5-9/*", Some((5, 9, None))),
            ("bytes */20", None),
            ("bytes 9-5/20", None),
            ("bytes 5-20/20", None),
            ("bytes +5-9/20", None),
            ("lines 5-9/20", None),
            ("bytes=5-9/20", None),
            ("bytes 5-9", None),
        ] {
            assert_eq!(range(value), wanted, "{value}");
        }
    }

    #[test]
    fn another_version_is_told_by_its_date_or_its_tag() {
        let version = |etag: &str, modified: &str| Version {
            etag: (!etag.is_empty()).then(|| etag.to_owned()),
            modified: (!modified.is_empty()).then(|| modified.to_owned()),
        };
        let first = version("a", "Mon");
        for (other, same) in [("a", "Mon"), ("b", "Mon"), ("b", ""), ("a", "Tue"), ("", "")]
            .map(|(e, m)| version(e, m))
            .into_iter()
            .zip([true, true, false, false, true])
        {
            assert_eq!(first.is_same(&other), same, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_head_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let text = [b"HTTP/1.1 206 x\r\nContent-Range: bytes ".as_slice(), &bytes, b"\r\n\r\n"].concat();
            let _ = Head::read(&mut bytes.as_slice());
            if let Some((first, last, _)) = Head::read(&mut text.as_slice()).and_then(|head| head.range) {
                prop_assert!(first <= last);
            }
        }
    }
}
