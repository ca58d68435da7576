//! The address of something on a web server.
//!
//! It may hold a password or a token (`user:password@`, a query): those go to the server with every file, and nowhere else.
//! What is shown of an address is without them.

use std::fmt;
use url::Url;

/// What stands in place of a secret.
const HIDDEN: &str = "…";

/// Why a text is no address that can work, as the end of a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Another scheme.
    #[error("it begins with neither http:// nor https://")]
    Scheme,
    /// A character that no address has.
    #[error("there is {0} in it; in an address that is written {1}")]
    Character(&'static str, &'static str),
    /// What a browser keeps to itself.
    #[error("what follows # is never sent to a server; written %23 it is part of a name")]
    Fragment,
    /// The rest of what the standard asks for (url.spec.whatwg.org).
    #[error("{0}")]
    Malformed(url::ParseError),
}

/// An address.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Its path has no slash at its end.
    url: Url,
    /// See [`Address::name`].
    name: String,
}

impl Address {
    /// Reads an address of a server; host names of any script, in any case, IPv6 in brackets.
    ///
    /// # Errors
    /// Why it cannot work.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        // First: what is no address may be a path, which has other rules.
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        if !matches!(scheme.as_deref(), Some("http" | "https")) {
            return Err(AddressError::Scheme);
        }
        // The parser would mend these as a browser does, into something that nobody wrote.
        if text.chars().any(|c| c.is_control()) {
            return Err(AddressError::Character("a control character", "after a %"));
        }
        for (character, name, escaped) in
            [(' ', "a space", "%20"), ('"', "a quotation mark", "%22"), ('\\', "a backslash", "%5C")]
        {
            if text.contains(character) {
                return Err(AddressError::Character(name, escaped));
            }
        }
        let mut url = Url::parse(text).map_err(AddressError::Malformed)?;
        if url.fragment().is_some() {
            return Err(AddressError::Fragment);
        }
        // "http:///path" is mended into a host named "path".
        if text.split_once("://").is_some_and(|(_, rest)| rest.starts_with('/')) {
            return Err(AddressError::Malformed(url::ParseError::EmptyHost));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        let last = path.rsplit('/').next().filter(|last| !last.is_empty());
        let name = last.map_or_else(|| url.host_str().unwrap_or_default().to_owned(), decode);
        Ok(Self { url, name })
    }

    /// The address of something below it, with the same query.
    pub(crate) fn child(&self, name: &str) -> Self {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/{name}", self.url.path().trim_end_matches('/')));
        Self { url, name: name.rsplit('/').next().unwrap_or_default().to_owned() }
    }

    /// The last part of its path, as people write it; of a server itself its host.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Nothing of it is sent in the clear.
    pub(crate) fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// All of it. For the server alone, never for a log.
    pub(crate) fn secret(&self) -> &str {
        self.url.as_str()
    }

    /// A text of another program without what is secret of the address.
    pub(crate) fn scrub(&self, text: &str) -> String {
        let mut out = text.replace(self.url.as_str(), &self.to_string());
        let login = [self.url.password(), Some(self.url.username())];
        for secret in self.url.query().into_iter().chain(login.into_iter().flatten()).filter(|s| s.len() > 3) {
            out = out.replace(secret, HIDDEN);
        }
        out
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.url.scheme(), self.url.host_str().unwrap_or_default())?;
        if let Some(port) = self.url.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(if self.url.path() == "/" { "" } else { self.url.path() })?;
        if self.url.query().is_some() { write!(f, "?{HIDDEN}") } else { Ok(()) }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// A text that may be an address, or was meant to be one, for people to see.
pub fn without_secrets(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (path, query) = match rest.split_once(['?', '#']) {
        Some((path, _)) => (path, "?…"),
        None => (rest, ""),
    };
    // A password may hold a slash that nobody escaped.
    let place = path.rsplit_once('@').map_or(path, |(_, place)| place);
    format!("{scheme}://{place}{query}")
}

/// Without percent-encoding, where that makes text.
fn decode(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| part.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_write_is_an_address_and_files_lie_below_its_path() {
        for (text, name, file) in [
            ("https://u.example/os/stable", "stable", "https://u.example/os/stable/channel.json"),
            ("HTTPS://U.Example/os/stable//", "stable", "https://u.example/os/stable/channel.json"),
            ("http://u.example:80/s", "s", "http://u.example/s/channel.json"),
            ("http://u.example:8080", "u.example", "http://u.example:8080/channel.json"),
            ("https://u.example/?sig=a", "u.example", "https://u.example/channel.json?sig=a"),
            ("https://u.example/s/?sv=1&sig=a%2Fb%3D", "s", "https://u.example/s/channel.json?sv=1&sig=a%2Fb%3D"),
            ("https://me:p%40ss@u.example/s?t=/x", "s", "https://me:p%40ss@u.example/s/channel.json?t=/x"),
            ("http://[2001:DB8::1]:8080/s", "s", "http://[2001:db8::1]:8080/s/channel.json"),
            ("https://bücher.example/stäble", "stäble", "https://xn--bcher-kva.example/st%C3%A4ble/channel.json"),
            ("https://u.example/my%20channel", "my channel", "https://u.example/my%20channel/channel.json"),
            ("https://u.example/a/../b", "b", "https://u.example/b/channel.json"),
            (" https://u.example/s\n", "s", "https://u.example/s/channel.json"),
        ] {
            let address = Address::parse(text).unwrap_or_else(|err| panic!("{text}: {err}"));
            assert_eq!((address.name(), address.child("channel.json").secret()), (name, file), "{text}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_and_why_is_said() {
        for (text, why) in [
            ("", "http://"),
            ("stable", "http://"),
            ("ftp://x/y", "http://"),
            ("file:///etc", "http://"),
            ("https:u.example/s", "http://"),
            ("https://", "host"),
            ("https:///s", "host"),
            ("https://u.example:99999/s", "port"),
            ("https://[2001:db8::1/s", "IPv6"),
            ("https://u.exam ple/s", "%20"),
            ("https://u.example/a b", "%20"),
            ("https://u.example/a\"b", "%22"),
            ("https://u.example\\s", "%5C"),
            ("https://u.example/s\ty", "control"),
            ("https://u.example/s#top", "%23"),
            ("https://-_%/s", ""),
        ] {
            let said = Address::parse(text).unwrap_err().to_string();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn what_is_shown_has_no_secret() {
        let address = Address::parse("https://me:hunter22@u.example:8443/os/stable?sig=abcdef").unwrap();
        assert_eq!(address.to_string(), "https://u.example:8443/os/stable?…");
        let said = address.scrub(&format!("no {}; for me:hunter22, sig=abcdef", address.secret()));
        for secret in ["hunter22", "abcdef"] {
            assert!(!said.contains(secret) && !format!("{address:?}").contains(secret), "{said}");
        }
    }

    #[test]
    fn what_was_meant_to_be_an_address_is_shown_without_its_secrets() {
        for (text, shown) in [
            ("https://me:hunter22@u.example/s?sig=a b", "https://u.example/s?…"),
            ("https://me:hun/ter@u.example/s#x", "https://u.example/s?…"),
            ("ftp://me:hunter22@u.example", "ftp://u.example"),
            ("https://u.example/s", "https://u.example/s"),
            ("/media/a@b?c", "/media/a@b?c"),
        ] {
            assert_eq!(without_secrets(text), shown);
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in any::<String>()) {
            let _ = (Address::parse(&text), without_secrets(&text));
        }

        // Whatever the channel is called: its files are on the same server, below it, and bring the same query.
        #[test]
        fn a_file_stays_with_its_channel(
            host in "[a-z]{1,8}(\\.example)?|\\[2001:db8::[0-9a-f]{1,4}\\]",
            path in "(/[a-zA-Z0-9._%~+-]{0,6}){0,4}/?",
            query in proptest::option::of("[a-zA-Z0-9=&%/+-]{0,12}"),
            login in proptest::option::of("[a-z]{4,8}:[A-Z0-9]{8,12}@"),
        ) {
            let text = format!(
                "https://{}{host}{path}{}",
                login.as_deref().unwrap_or_default(),
                query.as_ref().map(|q| format!("?{q}")).unwrap_or_default()
            );
            let Ok(address) = Address::parse(&text) else { return Ok(()) };
            let file = Url::parse(address.child("a/b.raucb").secret()).unwrap();
            let whole = Url::parse(&text).unwrap();
            prop_assert_eq!(file.origin(), whole.origin());
            prop_assert_eq!(file.query(), whole.query());
            prop_assert_eq!(file.username(), whole.username());
            prop_assert!(file.path().ends_with("/a/b.raucb"));
            prop_assert!(file.path().starts_with(whole.path().trim_end_matches('/')));
            let password = whole.password().unwrap_or("-none-");
            prop_assert!(!address.to_string().contains(password));
        }
    }
}
