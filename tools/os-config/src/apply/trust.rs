//! Authorities that the device trusts beside those of the image.

use super::effect::{Applied, Effect, either, of_image, own, then};
use super::{Device, Rows, docker};
use crate::formats;
use crate::types::Config;
use anyhow::Context;
use os_sys::cmd::Cmd;
use os_sys::files;
use std::collections::BTreeMap;
use std::path::Path;

/// Where every program looks that has not been told otherwise: the bundle, and the directory by hash.
const DIRECTORY: &str = "/etc/ssl/certs";
const BUNDLE: &str = "ssl/certs/ca-certificates.crt";

pub(super) async fn all(device: &Device<'_>, rows: &mut Rows) {
    rows.add_all(&["/balenaRootCA", "/os/caCertificates"], authorities(device).await);
}

async fn authorities(device: &Device<'_>) -> Applied {
    let certificates = certificates(device.config);
    let image = of_image(BUNDLE);
    let target = Path::new("/etc").join(BUNDLE);
    // Most devices have none: nothing is read or written for them.
    if certificates.is_empty() && own("authorities", Path::new(DIRECTORY), &BTreeMap::new(), 0o644)?.removed.is_empty()
    {
        return Ok(Effect::Unchanged);
    }
    let mut bundle = std::fs::read_to_string(&image).with_context(|| format!("cannot read {}", image.display()))?;
    for certificate in &certificates {
        bundle.push_str(certificate);
    }
    let written = files::write_if_changed(&target, bundle.as_bytes(), 0o644)?;
    let by_hash = certificates.iter().filter_map(|c| Some((format!("{}.0", hash(c)?), c.clone()))).collect();
    let owned = own("authorities", Path::new(DIRECTORY), &by_hash, 0o644)?;
    then("authorities", either(written, owned.written()), docker::restart(device)).await
}

/// One text for each certificate, each once.
fn certificates(config: &Config) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let balena = config.balena_root_ca.as_deref().and_then(formats::decode_certificate);
    let mut out: Vec<String> = Vec::new();
    for text in config.os.ca_certificates.iter().cloned().chain(balena) {
        for part in text.replace('\r', "").split_inclusive(END) {
            let part = part.trim().to_owned() + "\n";
            if part.contains(END) && !out.contains(&part) {
                out.push(part);
            }
        }
    }
    out
}

/// OpenSSL's name for a certificate in a directory (openssl-rehash(1)). Without the program the bundle alone serves.
fn hash(certificate: &str) -> Option<String> {
    let mut file = std::fs::File::from(rustix::fs::memfd_create("certificate", rustix::fs::MemfdFlags::CLOEXEC).ok()?);
    use std::io::{Seek, Write};
    file.write_all(certificate.as_bytes()).and_then(|()| file.rewind()).ok()?;
    let hash = Cmd::new("openssl").args(["x509", "-noout", "-subject_hash"]).stdin(file).read().ok()?;
    let hash = hash.trim();
    (hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit())).then(|| hash.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_taken_apart_and_counted_once() {
        let pem = include_str!("../../examples/ca.pem");
        let mut config = Config::default();
        config.os.ca_certificates = vec![pem.replace('\n', "\r\n").repeat(2), pem.to_owned()];
        config.balena_root_ca = Some(include_str!("../../examples/ca.b64").to_owned());
        assert_eq!(certificates(&config), [pem]);
    }
}
