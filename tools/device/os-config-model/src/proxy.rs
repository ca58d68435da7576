//! The proxy: from `config.json`, or from the files that balenaOS documents (`system-proxy/` on the boot partition).

use crate::connections::read_small;
use crate::formats::{NO_PROXY, PROXY};
use crate::redsocks::{self, Section};
use crate::store::Store;
use crate::types::Proxy;
use anyhow::{Context, Result, bail};
use os_sys::files;
use std::net::{IpAddr, Ipv4Addr};

/// Read by the units that go through the proxy, as systemd.exec(5) reads an `EnvironmentFile=`. It may hold a password.
pub const ENVIRONMENT: &str = "/run/os/proxy";

/// Mode of that file.
pub const ENVIRONMENT_MODE: u32 = 0o600;

/// Directory on the boot partition that balenaOS reads.
pub const DIRECTORY: &str = "system-proxy";

/// The content of [`ENVIRONMENT`].
pub fn environment(proxy: &Proxy) -> String {
    let mut out = String::new();
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        out.push_str(&format!("{name}=\"{}\"\n", proxy.url));
    }
    let mut without = vec!["localhost".to_owned(), "127.0.0.0/8".to_owned(), "::1".to_owned()];
    without.extend(proxy.no_proxy.iter().filter(|n| *n != "localhost").cloned());
    for name in ["NO_PROXY", "no_proxy"] {
        out.push_str(&format!("{name}=\"{}\"\n", without.join(",")));
    }
    out
}

/// The variables of [`ENVIRONMENT`], for what a person starts: no unit gives them to it.
pub fn variables(text: &str) -> Vec<(String, String)> {
    let line = |line: &str| {
        let (name, value) = line.split_once('=')?;
        Some((name.to_owned(), value.strip_prefix('"')?.strip_suffix('"')?.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

/// What the files of [`DIRECTORY`] make.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct System {
    /// The proxy: theirs, or the one that they made last when `redsocks.conf` is not understood.
    pub proxy: Option<Proxy>,
    /// `redsocks.conf` is there and is understood.
    pub understood: bool,
    /// What is not understood, with its line.
    pub problems: Vec<String>,
}

impl System {
    /// Remembers for the next time what is understood.
    ///
    /// # Errors
    /// When state cannot be written.
    pub fn keep(&self, store: &Store) -> Result<()> {
        match (&self.proxy, self.understood) {
            (Some(proxy), true) => {
                files::write_if_changed(&store.system_proxy_path(), &serde_json::to_vec(proxy)?, 0o600)?;
            }
            (None, _) if self.problems.is_empty() => drop(files::remove_if_there(&store.system_proxy_path())?),
            _ => {}
        }
        Ok(())
    }
}

/// `redsocks.conf` and `no_proxy` as balenaOS documents them. One that is not understood takes nothing away that was in force.
pub fn of_system(store: &Store) -> System {
    let dir = store.boot().join(DIRECTORY);
    let path = dir.join("redsocks.conf");
    if !path.exists() {
        return System::default();
    }
    let kept = || serde_json::from_slice(&files::read_limited(&store.system_proxy_path(), crate::MAX_SIZE).ok()?).ok();
    let mut out = System::default();
    match read_small(&path).and_then(|text| of_redsocks(&text).with_context(|| format!("{DIRECTORY}/redsocks.conf"))) {
        Ok(url) => out = System { proxy: Some(Proxy { url, no_proxy: Vec::new() }), understood: true, ..out },
        Err(err) => {
            out.proxy = kept();
            let then = if out.proxy.is_some() { "the proxy that it said before stays" } else { "there is no proxy" };
            out.problems.push(format!("{err:#}; {then}"));
        }
    }
    let without = dir.join("no_proxy");
    let Some(proxy) = out.proxy.as_mut().filter(|_| without.exists()) else { return out };
    match read_small(&without) {
        Ok(text) => {
            let (found, wrong) = of_no_proxy(&text);
            proxy.no_proxy = found;
            let place =
                |line: usize| format!("{DIRECTORY}/no_proxy: line {line} is left out; expected {}", NO_PROXY.allowed);
            out.problems.extend(wrong.into_iter().map(place));
        }
        Err(err) => {
            proxy.no_proxy = kept().map(|proxy: Proxy| proxy.no_proxy).unwrap_or_default();
            out.problems.push(format!("{err:#}"));
        }
    }
    out
}

/// The address of the proxy in redsocks's configuration.
///
/// # Errors
/// When it is not understood, with the line; never with a part of the text.
pub fn of_redsocks(text: &str) -> Result<String> {
    let sections = redsocks::read(text)?;
    let mut found: Option<String> = None;
    for section in sections.iter().filter(|section| section.name == "redsocks") {
        let url = address(section)?;
        // One for HTTP and one for the rest is common, both at the same proxy.
        if found.as_ref().is_some_and(|first| *first != url) {
            bail!("line {}: a second section 'redsocks' with another proxy; only one can be used", section.line);
        }
        found = Some(url);
    }
    found.context("there is no section 'redsocks { … }'")
}

/// Keys of a section `redsocks`.
const KEYS: &[&str] = &[
    "local_ip",
    "local_port",
    "ip",
    "port",
    "type",
    "login",
    "password",
    "listenq",
    "splice",
    "disclose_src",
    "on_proxy_fail",
    // Of other versions; they change nothing of this.
    "min_accept_backoff",
    "max_accept_backoff",
    "autoproxy",
    "timeout",
];

fn address(section: &Section) -> Result<String> {
    if let Some(entry) = section.entries.iter().find(|entry| !KEYS.contains(&entry.key.as_str())) {
        bail!("line {}: no key of a section 'redsocks'; there are {}", entry.line, KEYS.join(", "));
    }
    let need = |key: &str| {
        section.get(key).with_context(|| format!("line {}: this section has no '{key} = …;'", section.line))
    };
    let (kind, ip, port) = (need("type")?, need("ip")?, need("port")?);
    let scheme = match kind.value.as_str() {
        "http-connect" | "http-relay" => "http",
        "socks5" => "socks5",
        _ => bail!("line {}: the type is none of http-connect, http-relay and socks5", kind.line),
    };
    if !is_host_name(&ip.value) {
        bail!("line {}: ip is neither an IPv4 address nor the name of a host", ip.line);
    }
    if !port.value.starts_with(|c| ('1'..='9').contains(&c)) || port.value.parse::<u16>().is_err() {
        bail!("line {}: port is no number from 1 to 65535", port.line);
    }
    let text = |key: &str| section.get(key).map(|entry| entry.value.as_str()).filter(|value| !value.is_empty());
    let login = match (text("login"), text("password")) {
        (Some(login), Some(password)) => format!("{}:{}@", escape(login), escape(password)),
        (Some(login), None) => format!("{}@", escape(login)),
        _ => String::new(),
    };
    let url = format!("{scheme}://{login}{}:{}", ip.value, port.value);
    if !PROXY.takes(&url) {
        bail!("line {}: login and password are too long", section.line);
    }
    Ok(url)
}

/// A name, or an IPv4 address in its usual form: not 10.1 for 10.0.0.1, nor 010 for 8.
fn is_host_name(text: &str) -> bool {
    let name = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            && !label.starts_with('-')
    };
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return text.parse::<Ipv4Addr>().is_ok();
    }
    text.len() <= 253 && text.trim_end_matches('.').split('.').all(name)
}

/// What is reached without the proxy, one in a line; and the numbers of the lines that are not understood. balenaOS hands each
/// line to iptables, which takes a mask for a prefix too.
pub fn of_no_proxy(text: &str) -> (Vec<String>, Vec<usize>) {
    let (mut out, mut wrong): (Vec<String>, Vec<usize>) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.starts_with(';') {
            continue;
        }
        for word in line.split([',', ' ', '\t']).filter(|word| !word.is_empty()) {
            match destination(word) {
                Some(found) if !out.contains(&found) => out.push(found),
                Some(_) => {}
                None => wrong.push(index + 1),
            }
        }
    }
    wrong.dedup();
    (out, wrong)
}

fn destination(word: &str) -> Option<String> {
    let Some((address, mask)) = word.split_once('/') else {
        return NO_PROXY.takes(word).then(|| word.to_owned());
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = match mask.parse::<Ipv4Addr>() {
        Ok(mask) => {
            let mask = u32::from(mask);
            (mask.leading_ones() + mask.trailing_zeros() >= 32 && address.is_ipv4()).then(|| mask.leading_ones())?
        }
        Err(_) => mask.parse::<u32>().ok().filter(|bits| *bits <= most)?,
    };
    Some(format!("{address}/{bits}"))
}

/// Percent-encoding of all but what RFC 3986 leaves unreserved.
fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn balenas_file_is_understood() {
        let text = "base {\n log_debug = off;\n}\n//redsocks { type = http-relay; ip = 192.0.2.9; port = 9; }\nredsocks\n{\n type = socks5;\n \
                    ip = 10.10.10.10;\n port = 123;\n login = dave;\n password = \"b@d;}\\\"#\";\n local_ip = 127.0.0.1;\n}\n";
        assert_eq!(of_redsocks(text).unwrap(), "socks5://dave:b%40d%3B%7D%22%23@10.10.10.10:123");
        let twice = "redsocks { type = http-relay; ip = p.example; port = 1; local_port = 2; }".repeat(2);
        assert_eq!(of_redsocks(&twice.replacen("relay", "connect", 1)).unwrap(), "http://p.example:1");
        for (text, reason) in [
            ("redsocks { type = socks4; ip = 1.1.1.1; port = 1; }", "socks5"),
            ("redsocks {\n type = socks5; ip = 1.1.1.1; }", "line 1: this section has no 'port"),
            ("redsocks { type = socks5;\nip = 1.1; port = 1; }", "line 2: ip"),
            ("redsocks { type = socks5; ip = 1.1.1.1;\n\nport = 70000; }", "line 3: port"),
            ("redsocks { type = socks5; ip = 1.1.1.1; port = \"+1\"; }", "line 1: port"),
            ("redsocks { type = socks5; ip = 1.1.1.1; port = 1; pasword = a; }", "no key"),
            (&(twice + "redsocks { type = socks5; ip = 1.1.1.1; port = 1; }"), "another proxy"),
            ("base { }", "no section"),
            ("hello", "line 1"),
        ] {
            let found = format!("{:#}", of_redsocks(text).unwrap_err());
            assert!(found.contains(reason), "{text}: {found}");
        }
    }

    #[test]
    fn a_file_that_is_not_understood_takes_nothing_away() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(&dir.path().join("boot"), &dir.path().join("state"));
        let file = |name: &str| store.boot().join(DIRECTORY).join(name);
        std::fs::create_dir_all(store.boot().join(DIRECTORY)).unwrap();
        assert_eq!(of_system(&store), System::default());
        let broken = "redsocks {\n password = hunter2#;\n}\n";
        std::fs::write(file("redsocks.conf"), broken).unwrap();
        let first = of_system(&store);
        assert!(first.proxy.is_none() && first.problems[0].contains("redsocks.conf: line 2") && !first.understood);
        assert!(!first.problems[0].contains("hunter2"));
        std::fs::write(file("redsocks.conf"), "redsocks { type = socks5; ip = 10.0.0.1; port = 1; }").unwrap();
        std::fs::write(
            file("no_proxy"),
            "\u{feff}# ours\r\n10.0.0.0/255.0.0.0 # office\r\n.lan, localhost\r\n10.0.0.0/99\r\na/b\r\nfd00::/8",
        )
        .unwrap();
        let good = of_system(&store);
        let proxy = Proxy {
            url: "socks5://10.0.0.1:1".to_owned(),
            no_proxy: ["10.0.0.0/8", ".lan", "localhost", "fd00::/8"].map(str::to_owned).to_vec(),
        };
        assert_eq!(good.proxy.as_ref(), Some(&proxy));
        assert!(good.problems.len() == 2 && good.problems[0].contains("no_proxy: line 4"), "{good:?}");
        good.keep(&store).unwrap();
        std::fs::write(file("redsocks.conf"), broken).unwrap();
        let after = of_system(&store);
        assert_eq!(after.proxy.as_ref(), Some(&proxy));
        after.keep(&store).unwrap();
        assert!(after.problems[0].contains("stays") && of_system(&store).proxy == Some(proxy));
        std::fs::remove_file(file("redsocks.conf")).unwrap();
        of_system(&store).keep(&store).unwrap();
        assert!(!store.system_proxy_path().exists());
    }

    proptest! {
        // Whatever the login is, the address has one meaning, and the environment one line for it.
        #[test]
        fn any_login_makes_one_address(login in "(?s)[^\0]{1,30}", password in "(?s)[^\0]{1,60}") {
            let quoted = |text: &str| redsocks::quote(text).unwrap();
            let text = format!("redsocks {{ type = http-connect; ip = p; port = 1; login = {}; password = {}; }}", quoted(&login), quoted(&password));
            let url = of_redsocks(&text).unwrap();
            let (both, host) = url.strip_prefix("http://").unwrap().split_once('@').unwrap();
            prop_assert_eq!(host, "p:1");
            prop_assert!(both.split_once(':').is_some_and(|(a, b)| a == escape(&login) && b == escape(&password)));
            prop_assert!(both.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%:".contains(&b)));
        }

        #[test]
        fn what_is_spared_is_what_the_engine_understands(text in "(?s)[0-9a-f.:/,# \n]{0,60}") {
            let (found, _) = of_no_proxy(&text);
            prop_assert!(found.iter().all(|entry| NO_PROXY.takes(entry)), "{:?}", found);
        }
    }

    #[test]
    fn the_environment_always_spares_the_device_itself() {
        let text = environment(&Proxy { url: "http://p:1".to_owned(), no_proxy: vec![".lan".to_owned()] });
        assert!(text.contains("HTTPS_PROXY=\"http://p:1\"\n"));
        assert!(text.contains("NO_PROXY=\"localhost,127.0.0.0/8,::1,.lan\"\n"), "{text}");
        let url = "http://me:p%40s=s@p:1".to_owned();
        let variables = variables(&environment(&Proxy { url: url.clone(), no_proxy: Vec::new() }));
        assert_eq!(variables.len(), 6);
        assert!(variables.contains(&("https_proxy".to_owned(), url)));
    }
}
