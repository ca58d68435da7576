//! Text files of people: from the boot partition, from sticks, from Windows.

/// Reads a text as every such file is read: without the byte order mark that editors on Windows put in front, and with line
/// ends of Unix.
///
/// # Errors
/// When it is no UTF-8, as a sentence for people.
pub fn read(bytes: &[u8]) -> Result<String, String> {
    let bytes = without_mark(bytes);
    if is_utf16(bytes) {
        return Err("is UTF-16; save it as UTF-8".to_owned());
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|err| format!("is not UTF-8 (byte {}); save it as UTF-8", err.valid_up_to() + 1))?;
    Ok(text.replace("\r\n", "\n").replace('\r', "\n"))
}

/// The text behind a byte order mark of UTF-8.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// True for a text that begins with a byte order mark of UTF-16.
pub(crate) fn is_utf16(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff")
}

/// The lines that say something: without comments (`#` or `;` in front), blanks around them and empty ones.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';']))
}

/// The values of a key in a section of a file in systemd's syntax (systemd.syntax(7)): an assignment adds to those before it,
/// an empty one takes them away.
pub fn values(text: &str, section: &str, key: &str) -> Vec<String> {
    let (mut inside, mut out) = (false, Vec::new());
    for line in lines(text) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = name.trim() == section;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| inside)
            && name.trim() == key
        {
            let words: Vec<String> = value.split_ascii_whitespace().map(str::to_owned).collect();
            if words.is_empty() {
                out.clear();
            }
            out.extend(words);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn files_from_windows_are_texts_like_others() {
        for bytes in [&b"a\nb\n"[..], b"\xef\xbb\xbfa\r\nb\r\n", b"a\rb\r"] {
            assert_eq!(read(bytes).unwrap(), "a\nb\n");
        }
        assert!(read(b"\xff\xfea\0").unwrap_err().contains("UTF-16"));
        assert!(read(b"a\xff").unwrap_err().contains("byte 2"));
    }

    #[test]
    fn assignments_add_up_as_systemd_has_it() {
        let text = "; mine\n[Other]\nNTP=no\n[Time]\n NTP = a b\nNTP=c\n#NTP=d\nFallbackNTP=e\n";
        assert_eq!(values(text, "Time", "NTP"), ["a", "b", "c"]);
        assert_eq!(values(text, "Time", "FallbackNTP"), ["e"]);
        assert!(values("[Time]\nNTP=a\nNTP=\n", "Time", "NTP").is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(text) = read(&bytes) {
                let _ = (lines(&text).count(), values(&text, "Time", "NTP"));
            }
        }
    }
}
