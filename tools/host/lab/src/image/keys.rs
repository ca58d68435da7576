//! Keys of a developer's machine: an ssh key to log in with, a throw-away CA that signs bundles, and the keys of a
//! channel.
//!
//! They are made once in the build directory and never leave it. A product brings its own (docs/publish.md).

use crate::repo::Repo;
use anyhow::{Context, Result};
use os_sys::cmd::Cmd;
use osctl::channel;
use osctl::channel::keys::SecretKey;
use std::path::PathBuf;

/// Where the keys lie.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Private ssh key.
    pub ssh: PathBuf,
    /// Private key that signs bundles.
    pub bundle_key: PathBuf,
    /// Its certificate, which is also the device's keyring.
    pub bundle_cert: PathBuf,
    /// Private key that signs lists of releases.
    pub channel_key: PathBuf,
    /// The root that devices believe.
    pub channel_root: PathBuf,
}

impl Keys {
    /// The public ssh key, one line.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn ssh_public(&self) -> Result<String> {
        Ok(os_sys::files::read_text(&self.ssh.with_extension("pub"))?.trim().to_owned())
    }
}

/// Makes what is missing.
///
/// # Errors
/// When ssh-keygen or openssl fails.
pub fn ensure(repo: &Repo) -> Result<Keys> {
    let dir = repo.build.join("keys");
    let keys = Keys {
        ssh: dir.join("ssh_ed25519"),
        bundle_key: dir.join("bundle.key.pem"),
        bundle_cert: dir.join("bundle.cert.pem"),
        channel_key: dir.join("channel.key"),
        channel_root: dir.join("channel-root.json"),
    };
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    if !keys.ssh.exists() {
        Cmd::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"]).arg(&keys.ssh).run()?;
    }
    if !keys.bundle_cert.exists() {
        Cmd::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650"])
            .args(["-subj", "/O=OS lab/CN=throw-away bundle key", "-keyout"])
            .arg(&keys.bundle_key)
            .arg("-out")
            .arg(&keys.bundle_cert)
            .run()?;
    }
    if !keys.channel_root.exists() {
        let root_key = SecretKey::load_or_make(&dir.join("channel-root.key"))?;
        let root = channel::new_root(&root_key, &SecretKey::load_or_make(&keys.channel_key)?)?;
        os_sys::files::write_if_changed(&keys.channel_root, &root, 0o644)?;
    }
    Ok(keys)
}
