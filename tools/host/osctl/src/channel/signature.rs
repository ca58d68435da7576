//! Is a bundle signed as devices want it? By a certificate that their keyring leads to, good at the time of the signature
//! (`use-bundle-signing-time` in system.conf) and meant for signing: what RAUC asks of it, and by OpenSSL, as there.

use anyhow::{Context, Result, bail, ensure};
use os_sys::cmd::{Cmd, CmdError};
use std::path::{Path, PathBuf};

/// The keyring beside a channel's list, for who publishes; devices have theirs in the image.
pub const KEYRING: &str = "keyring.pem";

/// The certificates that devices have: those that a person names, or that lie with the channel, or that the image is built with.
pub fn keyring(named: Option<PathBuf>, channel: &Path, image: Option<PathBuf>) -> Option<PathBuf> {
    let own = channel.join(KEYRING);
    named.or_else(|| own.is_file().then_some(own)).or(image)
}

/// Checks the CMS structure of a bundle, in a file.
///
/// # Errors
/// What a device would say against it.
pub fn check(cms: &Path, keyring: &Path) -> Result<()> {
    ensure!(keyring.is_file(), "there is no keyring {}", keyring.display());
    let signed_at = signing_time(cms)?;
    let verify = Cmd::new("openssl").args(["cms", "-verify", "-binary", "-inform", "DER", "-in"]).arg(cms);
    // No certificate of this machine's own counts.
    let verify = verify.arg("-CAfile").arg(keyring).args(["-no-CApath", "-no-CAstore", "-out", "/dev/null", "-attime"]);
    match verify.arg(signed_at.to_string()).run() {
        Ok(()) => Ok(()),
        Err(CmdError::Failed { stderr, .. }) => {
            bail!("devices with the keyring {} refuse it: {}", keyring.display(), reason(&stderr))
        }
        Err(err) => Err(err.into()),
    }
}

/// When it was signed, in seconds since 1970.
fn signing_time(cms: &Path) -> Result<u64> {
    let print = Cmd::new("openssl").args(["cms", "-cmsout", "-print", "-noout", "-inform", "DER", "-in"]).arg(cms);
    let text = print.read().context("its signature cannot be read")?;
    let date = signing_date(&text).context("its signature does not say when it was made")?;
    let seconds = Cmd::new("date").args(["-u", "+%s", "-d", date]).read()?;
    seconds.trim().parse().with_context(|| format!("its signature was made at '{date}', which is no time"))
}

/// The attribute of the signer, of what OpenSSL prints of a signature.
fn signing_date(text: &str) -> Option<&str> {
    let (_, after) = text.split_once("object: signingTime")?;
    let value = after.lines().skip(1).map(str::trim).find(|line| line.contains("TIME:"))?;
    value.split_once("TIME:").map(|(_, date)| date.trim()).filter(|date| !date.starts_with('-'))
}

/// The part of OpenSSL's complaint that says something, and what is to be done.
fn reason(said: &str) -> String {
    let verify = said.lines().find_map(|line| line.split_once("Verify error:").map(|(_, why)| why.trim()));
    let why = verify.unwrap_or_else(|| said.lines().last().unwrap_or("openssl does not say why").trim());
    let known = [
        (
            "unable to get",
            "; another authority signed it, or a certificate between the two is missing (rauc bundle --intermediate)",
        ),
        ("self-signed", "; another authority signed it"),
        ("self signed", "; another authority signed it"),
        ("expired", "; it had expired when the bundle was signed"),
        ("not yet valid", "; it was not valid yet when the bundle was signed"),
        (
            "purpose",
            "; it is not one for signing: digitalSignature, and emailProtection where extendedKeyUsage is given",
        ),
    ];
    let hint = known.iter().find(|(word, _)| why.contains(word)).map_or("", |(_, hint)| hint);
    format!("{why}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::bundle;
    use proptest::prelude::*;

    /// An authority, what it signs, and bundles signed so.
    struct Desk(tempfile::TempDir);

    impl Desk {
        fn at(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// Makes a key and its certificate, signed by `issuer` or by itself.
        fn certificate(&self, name: &str, issuer: Option<&str>, extensions: &str, days: &str) {
            let key = self.at(&format!("{name}.key"));
            let (request, config) = (self.at("request"), self.at("extensions"));
            std::fs::write(&config, format!("[x]\n{extensions}\n")).unwrap();
            let new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj"];
            let new = Cmd::new("openssl").args(new).arg(format!("/CN={name}")).arg("-keyout").arg(&key);
            new.arg("-out").arg(&request).run().unwrap();
            let sign = Cmd::new("openssl").args(["x509", "-req", "-in"]).arg(&request).args(["-days", days]);
            let sign = sign.arg("-extfile").arg(&config).args(["-extensions", "x"]);
            let sign = match issuer {
                Some(issuer) => {
                    let sign = sign.arg("-CA").arg(self.at(&format!("{issuer}.pem")));
                    sign.arg("-CAkey").arg(self.at(&format!("{issuer}.key"))).arg("-CAcreateserial")
                }
                None => sign.arg("-signkey").arg(&key),
            };
            sign.arg("-out").arg(self.at(&format!("{name}.pem"))).run().unwrap();
        }

        /// A signature over a manifest, as `rauc bundle` makes it; what else goes with it.
        fn sign(&self, by: &str, with: Option<&str>) -> PathBuf {
            let (manifest, out) = (self.at("manifest"), self.at(&format!("{by}.cms")));
            std::fs::write(&manifest, "[update]\ncompatible=os-test\n").unwrap();
            let sign = Cmd::new("openssl").args(["cms", "-sign", "-binary", "-nodetach", "-outform", "DER", "-in"]);
            let mut sign = sign.arg(&manifest).arg("-signer").arg(self.at(&format!("{by}.pem")));
            if let Some(with) = with {
                sign = sign.arg("-certfile").arg(self.at(&format!("{with}.pem")));
            }
            sign.arg("-inkey").arg(self.at(&format!("{by}.key"))).arg("-out").arg(&out).run().unwrap();
            out
        }
    }

    const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign";
    const SIGNER: &str = "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature";

    #[test]
    fn what_devices_refuse_is_refused_before_and_why_is_said() {
        let desk = Desk(tempfile::tempdir().unwrap());
        for (name, issuer, extensions, days) in [
            ("ca", None, CA, "30"),
            ("other", None, CA, "30"),
            ("between", Some("ca"), CA, "30"),
            ("good", Some("ca"), SIGNER, "30"),
            ("deep", Some("between"), SIGNER, "30"),
            ("expired", Some("ca"), SIGNER, "-1"),
            ("server", Some("ca"), "keyUsage=critical,keyAgreement\nextendedKeyUsage=serverAuth", "30"),
        ] {
            desk.certificate(name, issuer, extensions, days);
        }
        let ca = desk.at("ca.pem");
        check(&desk.sign("good", None), &ca).unwrap();
        check(&desk.sign("deep", Some("between")), &ca).unwrap();
        for (cms, keyring, says) in [
            (desk.sign("good", None), "other.pem", "another authority"),
            (desk.sign("deep", None), "ca.pem", "between the two is missing"),
            (desk.sign("expired", None), "ca.pem", "had expired when the bundle was signed"),
            (desk.sign("server", None), "ca.pem", "not one for signing"),
            (desk.sign("good", None), "nothing.pem", "there is no keyring"),
        ] {
            let said = check(&cms, &desk.at(keyring)).unwrap_err().to_string();
            assert!(said.contains(says), "{says}: {said}");
        }
        std::fs::write(desk.at("torn"), b"0\x82").unwrap();
        assert!(check(&desk.at("torn"), &ca).is_err());
    }

    #[test]
    fn rauc_says_the_same_of_a_real_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = bundle::make(dir.path(), "1.2.3");
        let cert = dir.path().join("cert");
        bundle::verify(&bundle, &cert).unwrap();
        let desk = Desk(tempfile::tempdir().unwrap());
        desk.certificate("other", None, CA, "30");
        let said = format!("{:#}", bundle::verify(&bundle, &desk.at("other.pem")).unwrap_err());
        assert!(said.contains("1.2.3.raucb") && said.contains("another authority"), "{said}");
        // The devices' own configuration, as far as this machine's RAUC needs it.
        let conf = dir.path().join("system.conf");
        for (keyring, good) in [(&cert, true), (&desk.at("other.pem"), false)] {
            let text = format!(
                "[system]\ncompatible=os-test\nbootloader=noop\n\n[keyring]\npath={}\nuse-bundle-signing-time=true\n",
                keyring.display()
            );
            std::fs::write(&conf, text).unwrap();
            let info = Cmd::new("rauc").arg(format!("--conf={}", conf.display())).arg("info").arg(&bundle).run();
            assert_eq!(info.is_ok(), good, "{info:?}");
        }
    }

    #[test]
    fn the_keyring_is_the_one_that_is_named_or_lies_with_the_channel_or_goes_into_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let image = || Some(PathBuf::from("/image.pem"));
        assert_eq!(keyring(None, dir.path(), None), None);
        assert_eq!(keyring(None, dir.path(), image()), image());
        std::fs::write(dir.path().join(KEYRING), "").unwrap();
        assert_eq!(keyring(None, dir.path(), image()), Some(dir.path().join(KEYRING)));
        assert_eq!(keyring(Some("/named.pem".into()), dir.path(), image()), Some("/named.pem".into()));
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in any::<String>(), tail in any::<String>()) {
            let _ = (signing_date(&format!("object: signingTime{text}\nUTCTIME:{tail}")), reason(&text));
        }
    }
}
