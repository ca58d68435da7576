//! The proxy: from `config.json`, or from the files that balenaOS documents (`system-proxy/` on the boot partition).

use crate::connections::read_small;
use crate::text;
use crate::types::Proxy;
use anyhow::{Result, anyhow, bail};
use std::collections::BTreeMap;
use std::path::Path;

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

/// `redsocks.conf` and `no_proxy` of a directory, as balenaOS documents them; none when there is no `redsocks.conf`.
///
/// # Errors
/// When one of them cannot be read or is not understood.
pub fn from_files(dir: &Path) -> Result<Option<Proxy>> {
    let path = dir.join("redsocks.conf");
    if !path.exists() {
        return Ok(None);
    }
    let mut proxy = redsocks(&read_small(&path)?)?;
    let without = dir.join("no_proxy");
    if without.exists() {
        let text = read_small(&without)?;
        proxy.no_proxy = text::lines(&text).filter(|l| (crate::formats::NO_PROXY.good)(l)).map(str::to_owned).collect();
    }
    Ok(Some(proxy))
}

/// Reads the section `redsocks` of redsocks's configuration.
fn redsocks(text: &str) -> Result<Proxy> {
    let section = text.split_once("redsocks {").or_else(|| text.split_once("redsocks{"));
    let section = section.and_then(|(_, rest)| rest.split_once('}')).map(|(inside, _)| inside);
    let Some(section) = section else { bail!("system-proxy/redsocks.conf has no section 'redsocks {{ … }}'") };
    let mut values = BTreeMap::new();
    for line in section.split([';', '\n']) {
        if let Some((key, value)) = line.split_once('=') {
            values.insert(key.trim(), value.trim().trim_matches('"'));
        }
    }
    let need = |key: &str| values.get(key).copied().ok_or_else(|| anyhow!("system-proxy/redsocks.conf says no {key}"));
    let scheme = match need("type")? {
        "http-connect" | "http-relay" => "http",
        "socks5" => "socks5",
        _ => bail!("system-proxy/redsocks.conf: the type is none of http-connect, http-relay and socks5"),
    };
    let login = match (values.get("login"), values.get("password")) {
        (Some(login), Some(password)) => format!("{}:{}@", escape(login), escape(password)),
        (Some(login), None) => format!("{}@", escape(login)),
        _ => String::new(),
    };
    let url = format!("{scheme}://{login}{}:{}", need("ip")?, need("port")?);
    if !(crate::formats::PROXY.good)(&url) {
        bail!("system-proxy/redsocks.conf does not make an address of a proxy");
    }
    Ok(Proxy { url, no_proxy: Vec::new() })
}

/// Percent-encoding of all but what RFC 3986 leaves unreserved.
fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balenas_file_is_understood() {
        let text = "base {\n log_debug = off;\n}\nredsocks {\n type = socks5;\n ip = 10.10.10.10;\n port = 123;\n \
                    login = dave;\n password = \"b@d\";\n local_ip = 127.0.0.1;\n}\n";
        assert_eq!(redsocks(text).unwrap().url, "socks5://dave:b%40d@10.10.10.10:123");
        assert!(
            redsocks("redsocks { type = socks4; ip = 1.1.1.1; port = 1; }").unwrap_err().to_string().contains("socks5")
        );
        assert!(redsocks("redsocks { type = socks5; ip = 1.1.1.1; }").unwrap_err().to_string().contains("port"));
        assert!(redsocks("hello").is_err());
    }

    #[test]
    fn the_environment_always_spares_the_device_itself() {
        let text = environment(&Proxy { url: "http://p:1".to_owned(), no_proxy: vec![".lan".to_owned()] });
        assert!(text.contains("HTTPS_PROXY=\"http://p:1\"\n"));
        assert!(text.contains("NO_PROXY=\"localhost,127.0.0.0/8,::1,.lan\"\n"), "{text}");
    }
}
