//! `osctl image configure`: writes config.json and profiles into a disk image or onto a card, before its first boot.
//!
//! Works on a raw image, a compressed one and a card in a reader, with GPT and MBR; on files without root.

mod compressed;
mod device;
mod fat;
mod partition;

use anyhow::{Context, Result, bail};
use compressed::Compression;
use os_config_model::json::{self, names};
use os_config_model::model::Problem;
use os_config_model::profile::Profile;
use os_config_model::{connections, edit, model, store};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// What to write.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Change {
    /// Configuration to merge into the image's config.json (RFC 7396: null removes a key)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Host name
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Public key allowed to log in over SSH; may be given more than once
    #[arg(long, value_name = "FILE")]
    pub ssh_key: Vec<PathBuf>,
    /// Wi-Fi network to join
    #[arg(long, value_name = "SSID")]
    pub wifi: Option<String>,
    /// File with the Wi-Fi password, - for standard input; without it the network is open
    #[arg(long, value_name = "FILE", requires = "wifi")]
    pub wifi_password: Option<PathBuf>,
    /// Set one key, such as os.time.zone=Europe/Berlin; may be given more than once
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// NetworkManager profile for system-connections/; may be given more than once
    #[arg(long, value_name = "FILE")]
    pub connection: Vec<PathBuf>,
}

/// Writes the change; returns what config.json says then, for people without its secrets.
///
/// # Errors
/// When the image is none of this OS, the configuration would not be accepted by the device, or writing fails. An image
/// that is a file is then as it was.
pub fn configure(image: &Path, change: &Change) -> Result<Value> {
    let kind = std::fs::metadata(image).with_context(|| format!("cannot open {}", image.display()))?.file_type();
    if kind.is_block_device() {
        device::refuse_if_used(image)?;
    } else if !kind.is_file() {
        bail!("{} is neither a file nor a disk", image.display());
    }
    let bmap = PathBuf::from(format!("{}.bmap", image.display()));
    let result = match Compression::of(image).filter(|_| kind.is_file()) {
        None => configure_raw(image, change),
        Some(compression) => {
            let raw = compression.unpack(image)?;
            let result = configure_raw(raw.path(), change)?;
            compression.pack(raw.path(), image)?;
            Ok(result)
        }
    }?;
    if bmap.exists() {
        eprintln!(
            "osctl: {} no longer fits the image: write the image without it, or make a new one with bmaptool create",
            bmap.display()
        );
    }
    Ok(result)
}

fn configure_raw(image: &Path, change: &Change) -> Result<Value> {
    let file = File::options().read(true).write(true).open(image);
    let mut file = file.with_context(|| format!("cannot open {} for writing", image.display()))?;
    let start = partition::find_boot(image, &mut file)
        .with_context(|| format!("{} is no image of this OS", image.display()))?;
    drop(file);
    let volume = fat::Volume::open(image, start)?;
    let before = match volume.read(store::NAME, os_config_model::MAX_SIZE)? {
        Some(bytes) => json::read(&bytes).map_err(|err| anyhow::anyhow!("config.json in the image is {err}"))?,
        None => json!({}),
    };
    let mut after = before.clone();
    change.make(&mut after)?;
    check(&after)?;
    // Everything is read and checked before anything is written.
    let mut profiles = Vec::new();
    for path in &change.connection {
        let text = connections::read_small(path)?;
        let name = path.file_name().and_then(|n| n.to_str()).filter(|n| connections::safe_name(n));
        let name = name.with_context(|| format!("{} has no usable name", path.display()))?;
        if !text.contains("[connection]") {
            bail!("{} is no profile of NetworkManager: it has no [connection] section", path.display());
        }
        for doubt in Profile::read(&text).doubts() {
            eprintln!("osctl: warning: {name} {doubt}");
        }
        profiles.push((name.to_owned(), text));
    }
    for (name, text) in profiles {
        volume.write(&format!("system-connections/{name}"), text.as_bytes())?;
    }
    if after != before {
        volume.write(store::NAME, &edit::to_text(&after))?;
    }
    File::open(image)?.sync_all()?;
    Ok(edit::without_secrets(&after))
}

fn check(root: &Value) -> Result<()> {
    match model::check(root.clone(), &|_| Some(String::new())) {
        Ok(accepted) => {
            accepted.unknown.iter().for_each(|key| eprintln!("osctl: {key}: unknown key, no effect"));
            accepted.warnings.iter().for_each(|warning| eprintln!("osctl: warning: {warning}"));
            Ok(())
        }
        Err(problems) => {
            bail!("the device would refuse this configuration; nothing was written\n{}", listed(&problems))
        }
    }
}

/// What is wrong, a line each.
pub fn listed(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n")
}

impl Change {
    fn make(&self, root: &mut Value) -> Result<()> {
        if let Some(path) = &self.config {
            let bytes = os_sys::files::read_limited(path, os_config_model::MAX_SIZE)?;
            let patch = json::read(&bytes).map_err(|err| anyhow::anyhow!("{} is {err}", path.display()))?;
            edit::merge(root, &patch);
        }
        let mut set = |key: &str, value: Value| {
            edit::set(root, &names(key), value).map_err(|err| anyhow::anyhow!("cannot set {key}: {err}"))
        };
        if let Some(name) = &self.hostname {
            set("hostname", name.as_str().into())?;
        }
        for text in &self.set {
            let (key, value) = text.split_once('=').with_context(|| format!("--set {text}: write KEY=VALUE"))?;
            set(key, edit::value_for(key, value))?;
        }
        let append = |root: &mut Value, key: &str, value: Value| -> Result<()> {
            let mut list = edit::get(root, &names(key)).and_then(Value::as_array).cloned().unwrap_or_default();
            if !list.contains(&value) {
                list.push(value);
            }
            edit::set(root, &names(key), list.into()).map_err(|err| anyhow::anyhow!("cannot set {key}: {err}"))
        };
        for path in &self.ssh_key {
            let text = os_sys::files::read_text(path)?;
            if text.contains("PRIVATE KEY") {
                bail!("{} is a private key; give the public one, {}.pub", path.display(), path.display());
            }
            for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
                append(root, "os.sshKeys", line.into())?;
            }
        }
        if let Some(ssid) = &self.wifi {
            let mut network = json!({ "ssid": ssid });
            if let (Some(path), Some(object)) = (&self.wifi_password, network.as_object_mut()) {
                object.insert("password".to_owned(), password(path)?.into());
            }
            // One of this name is this one, with another password.
            let same = |before: &Value| before.get("ssid").and_then(Value::as_str) == Some(ssid);
            if let Some(networks) = root.pointer_mut("/os/network/wifi/networks").and_then(Value::as_array_mut) {
                networks.retain(|before| !same(before));
            }
            append(root, "os.network.wifi.networks", network)?;
        }
        Ok(())
    }
}

/// A password comes from a file or standard input: what stands on a command line, every process can read.
fn password(path: &Path) -> Result<String> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().lock().take(4096).read_to_string(&mut text)?;
        text
    } else {
        os_sys::files::read_text(path)?
    };
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use os_sys::cmd::Cmd;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3s0Cv1XoS0JkWlTdmIcJ2xq6l5fM1m8rWkqS0Zt0Aa me@laptop";

    /// A disk with a boot partition at 4 MiB, made by the programs that make real ones.
    fn disk(dir: &Path, table: &str) -> PathBuf {
        let path = dir.join("disk.img");
        File::create(&path).unwrap().set_len(64 << 20).unwrap();
        let script = dir.join("table");
        std::fs::write(&script, table).unwrap();
        Cmd::new("sfdisk").arg("-q").arg(&path).stdin(File::open(&script).unwrap()).run().unwrap();
        Cmd::new("mkfs.fat")
            .args(["-F", "16", "-n", "os-boot", "--offset=8192"])
            .arg(&path)
            .arg("32768")
            .run()
            .unwrap();
        path
    }

    const GPT: &str = "label: gpt\nstart=2048, size=4096, name=other\nstart=8192, size=65536, name=os-boot\n";
    const MBR: &str = "label: dos\nstart=2048, size=4096, type=83\nstart=8192, size=65536, type=c, bootable\n";

    fn change(dir: &Path) -> Change {
        std::fs::write(dir.join("key.pub"), format!("{KEY}\n")).unwrap();
        std::fs::write(dir.join("password"), "open sesame\n").unwrap();
        std::fs::write(dir.join("vpn.nmconnection"), "[connection]\nid=vpn\n").unwrap();
        Change {
            hostname: Some("kiosk".to_owned()),
            ssh_key: vec![dir.join("key.pub")],
            wifi: Some("Workshop".to_owned()),
            wifi_password: Some(dir.join("password")),
            set: vec!["os.time.zone=Europe/Berlin".to_owned(), "os.watchdog=20".to_owned()],
            connection: vec![dir.join("vpn.nmconnection")],
            ..Change::default()
        }
    }

    fn read(image: &Path, name: &str) -> Vec<u8> {
        let at = format!("{}@@4M", image.display());
        let text = Cmd::new("mtype").env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(at).arg(format!("::{name}")).read();
        text.unwrap().into_bytes()
    }

    #[test]
    fn both_tables_take_a_configuration_that_other_programs_read() {
        for table in [GPT, MBR] {
            let dir = tempfile::tempdir().unwrap();
            let image = disk(dir.path(), table);
            std::fs::write(dir.path().join("older"), "older words\n").unwrap();
            let (wifi, older) = (Some("Workshop".to_owned()), Some(dir.path().join("older")));
            configure(&image, &Change { wifi, wifi_password: older, ..Change::default() }).unwrap();
            let shown = configure(&image, &change(dir.path())).unwrap();
            assert!(!shown.to_string().contains("open sesame"));
            // Twice: a second change adds to the first, and the same one adds nothing.
            configure(&image, &change(dir.path())).unwrap();
            configure(&image, &Change { set: vec!["country=DE".to_owned()], ..Change::default() }).unwrap();
            let config = json::read(&read(&image, "config.json")).unwrap();
            let wanted = json!({
                "hostname": "kiosk", "country": "DE",
                "os": {
                    "time": {"zone": "Europe/Berlin"}, "watchdog": 20, "sshKeys": [KEY],
                    "network": {"wifi": {"networks": [{"ssid": "Workshop", "password": "open sesame"}]}},
                },
            });
            assert_eq!(config, wanted);
            assert_eq!(read(&image, "system-connections/vpn.nmconnection"), b"[connection]\nid=vpn\n");
            let check = Cmd::new("dd")
                .arg(format!("if={}", image.display()))
                .arg(format!("of={}", dir.path().join("fat").display()));
            check.args(["bs=1M", "skip=4", "count=32", "status=none"]).run().unwrap();
            Cmd::new("fsck.fat").arg("-n").arg(dir.path().join("fat")).run().unwrap();
        }
    }

    #[test]
    fn what_the_device_would_refuse_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let image = disk(dir.path(), GPT);
        let before = std::fs::read(&image).unwrap();
        for set in ["hostname=-", "os.watchdog=soon", "os.network.ethernet={}"] {
            let change = Change { set: vec![set.to_owned()], ..Change::default() };
            let error = format!("{:#}", configure(&image, &change).unwrap_err());
            assert!(error.contains("refuse") && error.contains("expected"), "{error}");
        }
        std::fs::write(dir.path().join("id"), "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
        let change = Change { ssh_key: vec![dir.path().join("id")], ..Change::default() };
        assert!(configure(&image, &change).unwrap_err().to_string().contains("private key"));
        assert!(std::fs::read(&image).unwrap() == before);
    }

    #[test]
    fn compressed_images_are_changed_and_compressed_again() {
        for (ending, pack) in [("zst", "zstd"), ("gz", "gzip"), ("xz", "xz")] {
            let dir = tempfile::tempdir().unwrap();
            let image = disk(dir.path(), GPT);
            Cmd::new(pack).arg("-q").arg("-1").arg("-k").arg(&image).run().unwrap();
            let packed = dir.path().join(format!("disk.img.{ending}"));
            configure(&packed, &change(dir.path())).unwrap();
            std::fs::remove_file(&image).unwrap();
            Cmd::new(pack).args(["-q", "-d", "-k"]).arg(&packed).run().unwrap();
            assert!(String::from_utf8(read(&image, "config.json")).unwrap().contains("kiosk"));
        }
    }

    #[test]
    fn other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.img");
        for content in [vec![], vec![0; 4 << 20], vec![0xa5; 4 << 20]] {
            std::fs::write(&path, &content).unwrap();
            let error = format!("{:#}", configure(&path, &Change::default()).unwrap_err());
            assert!(error.contains("no image of this OS"), "{error}");
        }
        let other = disk(dir.path(), "label: gpt\nstart=8192, size=65536, name=other\n");
        assert!(configure(&other, &Change::default()).is_err());
        assert!(configure(dir.path(), &Change::default()).unwrap_err().to_string().contains("neither"));
    }
}
