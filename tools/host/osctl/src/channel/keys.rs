//! The keys that sign a channel, in minisign's form: `minisign -G` makes them too.

use anyhow::{Context, Result, anyhow};
use minisign::{KeyPair, PublicKey, SecretKeyBox};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Password of the keys, for those that have one.
const PASSWORD: &str = "OSCTL_KEY_PASSWORD";

/// A key that can sign.
#[derive(Debug)]
pub struct SecretKey {
    secret: minisign::SecretKey,
    public: PublicKey,
}

impl SecretKey {
    /// A new key without a password.
    ///
    /// # Errors
    /// When there are no random numbers.
    pub fn generate() -> Result<Self> {
        let KeyPair { pk, sk } = KeyPair::generate_unencrypted_keypair()?;
        Ok(Self { secret: sk, public: pk })
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// When it is none, or its password is not in `OSCTL_KEY_PASSWORD`.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("there is no key {}; osctl channel init makes keys", path.display()))?;
        let parsed = || SecretKeyBox::from_string(&text).with_context(|| format!("{} is no key", path.display()));
        let secret = match parsed()?.into_unencrypted_secret_key() {
            Ok(secret) => secret,
            Err(_) => {
                let password = std::env::var(PASSWORD)
                    .map_err(|_| anyhow!("{} has a password; give it in {PASSWORD}", path.display()))?;
                parsed()?.into_secret_key(Some(password)).context("the password does not open the key")?
            }
        };
        let public = PublicKey::from_secret_key(&secret)?;
        Ok(Self { secret, public })
    }

    /// Reads a key file, or makes one that only its owner can read.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn load_or_make(path: &Path) -> Result<Self> {
        if path.exists() {
            return Self::load(path);
        }
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let key = Self::generate()?;
        let text = key.secret.to_box(None)?.into_string();
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(key)
    }

    /// The public half, as lists of keys hold it.
    pub fn public(&self) -> String {
        self.public.to_base64()
    }

    /// Signs a text.
    ///
    /// # Errors
    /// When minisign fails.
    pub fn sign(&self, text: &str) -> Result<String> {
        Ok(minisign::sign(Some(&self.public), &self.secret, text.as_bytes(), None, None)?.into_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/root.key");
        let made = SecretKey::load_or_make(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = SecretKey::load_or_make(&path).unwrap();
        assert_eq!(made.public(), again.public());
        assert_ne!(made.public(), SecretKey::generate().unwrap().public());
    }
}
