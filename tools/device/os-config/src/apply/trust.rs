//! Authorities that the device trusts beside those of the image.

use super::effect::{Applied, Effect, own, then};
use super::{Device, Rows, docker};
use os_config_model::engine::{self, certificates};
use os_sys::cmd::Cmd;
use os_sys::files::Written;
use std::collections::BTreeMap;
use std::path::Path;

/// Where programs look for a certificate by the hash of its subject, beside the bundle ([`engine::BUNDLE`]).
const DIRECTORY: &str = "/etc/ssl/certs";

pub(super) async fn all(device: &Device<'_>, rows: &mut Rows) {
    rows.add_all(&["/balenaRootCA", "/os/caCertificates"], authorities(device).await);
}

async fn authorities(device: &Device<'_>) -> Applied {
    let certificates = certificates(device.config);
    // Most devices have none: nothing is read or written for them.
    if certificates.is_empty() && own("authorities", Path::new(DIRECTORY), &BTreeMap::new(), 0o644)?.removed.is_empty()
    {
        return Ok(Effect::Unchanged);
    }
    let written = engine::write_bundle(Path::new("/etc"), Path::new(os_facts::place::IMAGE_ETC), &certificates)?;
    let by_hash = certificates.iter().filter_map(|c| Some((format!("{}.0", hash(c)?), c.clone()))).collect();
    let owned = own("authorities", Path::new(DIRECTORY), &by_hash, 0o644)?;
    // The engine reads the bundle, once, when it starts.
    let restarted = then("authorities", written, docker::restart(device)).await?;
    Ok(if owned.written() == Written::Changed { Effect::Changed } else { restarted })
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
