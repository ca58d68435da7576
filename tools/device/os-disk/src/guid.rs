//! Identifiers of disks, partitions and their types.

use std::fmt;

/// A GUID in its on-disk byte order (the first three fields little endian).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// Parses `XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX`, any case.
    ///
    /// # Errors
    /// When the text is not of that form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}' is no GUID");
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        if lengths != [8, 4, 4, 4, 12] || !text.is_ascii() {
            return Err(bad());
        }
        let hex: String = text.chars().filter(|c| *c != '-').collect();
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
        let [i, j, k, l, m, n, o, p] = rest;
        Ok(Self([d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]))
    }

    /// A new random GUID (version 4).
    ///
    /// # Errors
    /// When the kernel gives no random numbers.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        let [a, b, c, d, e, f, g, h, i, rest @ ..] = bytes;
        let [j, k, l, m, n, o, p] = rest;
        Ok(Self([a, b, c, d, e, f, g, h & 0x0f | 0x40, i & 0x3f | 0x80, j, k, l, m, n, o, p]))
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p] = self.0;
        write!(
            out,
            "{a:02X}{b:02X}{c:02X}{d:02X}-{e:02X}{f:02X}-{g:02X}{h:02X}-{i:02X}{j:02X}-\
             {k:02X}{l:02X}{m:02X}{n:02X}{o:02X}{p:02X}"
        )
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guid_text_round_trips() {
        let text = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
        let guid = Guid::parse(text).unwrap();
        assert_eq!(guid.to_string(), text);
        assert_eq!(guid.0[0], 0x28);
        assert!(Guid::parse("C12A7328F81F11D2BA4B00A0C93EC93B").is_err());
        assert!(Guid::parse("ä12A7328-F81F-11D2-BA4B-00A0C93EC9B").is_err());
        assert_ne!(Guid::random().unwrap(), Guid::random().unwrap());
    }
}
