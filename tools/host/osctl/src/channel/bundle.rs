//! What is in a RAUC bundle of the verity format: the manifest lies, signed, in the CMS structure at the end of the file
//! (RAUC's documentation, "Bundle Formats").

use crate::channel::signature;
use anyhow::{Context, Result, bail, ensure};
use os_sys::cmd::Cmd;
use os_sys::hex;
use semver::Version;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// RAUC reads no larger CMS structure, in bytes.
const MAX_CMS: u64 = 64 << 10;

/// What a channel lists of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Devices it is for.
    pub compatible: String,
    /// Version.
    pub version: Version,
    /// Build.
    pub build: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the file, hex.
    pub sha256: String,
    /// SHA-256 of the manifest, hex: RAUC's `manifest-hash`.
    pub manifest_hash: String,
}

/// The CMS structure at the end of a bundle, and the size of the bundle.
fn cms(path: &Path) -> Result<(Vec<u8>, u64)> {
    let name = path.display();
    let mut file = File::open(path).with_context(|| format!("cannot read {name}"))?;
    let size = file.metadata()?.len();
    let mut length = [0; 8];
    file.seek(SeekFrom::End(-8))
        .and_then(|_| file.read_exact(&mut length))
        .with_context(|| format!("{name} is no bundle"))?;
    let length = u64::from_be_bytes(length);
    ensure!(
        length > 0 && length <= MAX_CMS && length < size,
        "{name} is no RAUC bundle: there is no signature at its end"
    );
    file.seek(SeekFrom::Start(size - 8 - length))?;
    let mut cms = Vec::new();
    file.by_ref().take(length).read_to_end(&mut cms)?;
    Ok((cms, size))
}

/// Checks the signature of a bundle against the certificates that devices have.
///
/// # Errors
/// When devices would refuse it.
pub fn verify(path: &Path, keyring: &Path) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), cms(path)?.0)?;
    signature::check(file.path(), keyring).with_context(|| path.display().to_string())
}

/// Reads a bundle. Who signed it says [`verify`].
///
/// # Errors
/// When it is no bundle of the verity format, or its version is none.
pub fn read(path: &Path) -> Result<Facts> {
    let name = path.display();
    let (cms, size) = cms(path)?;
    let dir = tempfile::tempdir()?;
    let (signed, manifest) = (dir.path().join("cms"), dir.path().join("manifest"));
    std::fs::write(&signed, &cms)?;
    Cmd::new("openssl")
        .args(["cms", "-verify", "-noverify", "-nosigs", "-binary", "-inform", "DER", "-in"])
        .arg(&signed)
        .arg("-out")
        .arg(&manifest)
        .run()
        .with_context(|| {
            format!("{name} has no manifest in its signature; only bundles of format=verity are published")
        })?;
    let manifest = std::fs::read(&manifest)?;
    let text = String::from_utf8(manifest.clone()).context("the manifest is no text")?;
    let need = |section: &str, key: &str| {
        value(&text, section, key).with_context(|| format!("the manifest of {name} has no {key} in [{section}]"))
    };
    let format = need("bundle", "format")?;
    if format != "verity" {
        bail!("{name} is of format={format}; devices take format=verity");
    }
    let version = need("update", "version")?;
    Ok(Facts {
        compatible: need("update", "compatible")?.to_owned(),
        version: version.parse().with_context(|| {
            format!("'{version}' is no version that can be ordered; it has to be like 1.2.3 (semver.org)")
        })?,
        build: value(&text, "update", "build").unwrap_or_default().to_owned(),
        size,
        sha256: digest(path)?,
        manifest_hash: hex(&Sha256::digest(&manifest)),
    })
}

/// SHA-256 of a file, hex.
///
/// # Errors
/// When it cannot be read.
pub fn digest(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let got = file.read(&mut buffer)?;
        if got == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(buffer.get(..got).unwrap_or_default());
    }
}

/// A value of a key file as RAUC writes it (GLib's GKeyFile).
fn value<'a>(text: &'a str, section: &str, key: &str) -> Option<&'a str> {
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            inside = name == section;
        } else if inside
            && let Some((name, value)) = line.split_once('=')
            && name.trim() == key
        {
            return Some(value.trim());
        }
    }
    None
}

/// A real bundle for tests, by the program that makes bundles.
#[cfg(test)]
pub(crate) fn make(dir: &Path, version: &str) -> std::path::PathBuf {
    let at = |name: &str| dir.join(name);
    let subject = ["-nodes", "-subj", "/CN=test"];
    let request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let openssl = Cmd::new("openssl").args(request).args(subject);
    openssl.arg("-keyout").arg(at("key")).arg("-out").arg(at("cert")).run().unwrap();
    let input = at(&format!("in-{version}"));
    std::fs::create_dir(&input).unwrap();
    // Nothing that compresses to less than a block.
    let noise: Vec<u8> = (0u32..2048).flat_map(|i| Sha256::digest(i.to_le_bytes())).collect();
    std::fs::write(input.join("root.img"), noise).unwrap();
    let manifest = format!(
        "[update]\ncompatible=os-test\nversion={version}\nbuild=b7\n\n[bundle]\nformat=verity\n\n\
         [image.rootfs]\nfilename=root.img\n"
    );
    std::fs::write(input.join("manifest.raucm"), manifest).unwrap();
    let bundle = at(&format!("{version}.raucb"));
    let rauc = Cmd::new("rauc").arg("bundle").arg(format!("--cert={}", at("cert").display()));
    rauc.arg(format!("--key={}", at("key").display())).arg(input).arg(&bundle).run().unwrap();
    bundle
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_in_their_section_only() {
        let text = "[update]\ncompatible=a\nversion = 1.0\n\n[bundle]\nformat=verity\n[image.x]\nversion=no\n";
        assert_eq!(value(text, "update", "version"), Some("1.0"));
        assert_eq!(value(text, "bundle", "version"), None);
        assert_eq!(value(text, "bundle", "format"), Some("verity"));
    }

    #[test]
    fn a_real_bundle_says_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = make(dir.path(), "1.2.3");
        let facts = read(&path).unwrap();
        let found = (facts.compatible.as_str(), facts.version.to_string(), facts.build.as_str());
        assert_eq!(found, ("os-test", "1.2.3".to_owned(), "b7"));
        assert_eq!(facts.size, std::fs::metadata(&path).unwrap().len());
        assert!(read(&dir.path().join("cert")).is_err());
    }
}
