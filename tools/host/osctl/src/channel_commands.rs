//! The commands of `osctl channel`.

use anyhow::{Context, Result};
use clap::Subcommand;
use os_channel::MAX_SIZE;
use osctl::channel::keys::SecretKey;
use osctl::channel::{self, Directory, Publish, mirror, serve, signature};
use semver::Version;
use std::path::{Path, PathBuf};

/// What can be done with a channel.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the releases of a channel, newest first
    List {
        /// Directory of the channel
        channel: PathBuf,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Serve a channel, or a directory of channels, over HTTP until Ctrl-C: for tests, without TLS
    Serve {
        /// Directory to serve over HTTP
        directory: PathBuf,
        /// TCP port
        #[arg(long, default_value_t = 8000)]
        port: u16,
        /// Address to listen on; 0.0.0.0 for all interfaces
        #[arg(long, default_value = "0.0.0.0")]
        listen: std::net::IpAddr,
    },
    /// Create an empty channel, named after its directory
    Init {
        /// Directory of the channel
        channel: PathBuf,
        /// root.json of another channel or of the image, so that the same devices trust this channel
        #[arg(long, required_unless_present = "root_key", conflicts_with = "root_key")]
        root: Option<PathBuf>,
        /// Key that signs root.json; created if missing. Keep it offline
        #[arg(long)]
        root_key: Option<PathBuf>,
        #[command(flatten)]
        key: Key,
    },
    /// Add a bundle as a release
    Publish {
        /// Directory of the channel
        channel: PathBuf,
        /// Bundle, signed with a key in the keyring of the devices
        bundle: PathBuf,
        /// Release notes in Markdown
        #[arg(long)]
        notes: Option<PathBuf>,
        /// Percentage of devices offered the release
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(0..=100))]
        rollout: u8,
        /// Make it mandatory: older devices must install it before any newer release
        #[arg(long)]
        stepping_stone: bool,
        /// Certificates trusted by the devices; by default the channel's keyring.pem, or the file named by OS_KEYRING
        #[arg(long)]
        keyring: Option<PathBuf>,
        #[command(flatten)]
        key: Key,
    },
    /// Copy a release from another channel
    Promote {
        /// Directory of the source channel
        from: PathBuf,
        /// Directory of the target channel
        to: PathBuf,
        /// Version
        version: Version,
        /// Percentage of devices offered the release
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(0..=100))]
        rollout: u8,
        #[command(flatten)]
        key: Key,
    },
    /// Change the rollout percentage of a release
    Rollout {
        /// Directory of the channel
        channel: PathBuf,
        /// Version
        version: Version,
        /// Percentage of devices offered the release
        #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
        percent: u8,
        #[command(flatten)]
        key: Key,
    },
    /// Make a release a stepping stone: older devices must install it before any newer one
    SteppingStone {
        /// Directory of the channel
        channel: PathBuf,
        /// Version
        version: Version,
        /// Remove the stepping-stone flag
        #[arg(long)]
        off: bool,
        #[command(flatten)]
        key: Key,
    },
    /// Withdraw a release: devices no longer install it
    Revoke {
        /// Directory of the channel
        channel: PathBuf,
        /// Version
        version: Version,
        /// Reason, as free text
        #[arg(long)]
        why: String,
        #[command(flatten)]
        key: Key,
    },
    /// Sign the list again with a new date; run it from a timer
    Renew {
        /// Directory of the channel
        channel: PathBuf,
        #[command(flatten)]
        key: Key,
    },
    /// Replace the signing keys; devices follow automatically
    Rotate {
        /// Directory of the channel
        channel: PathBuf,
        /// Current root key
        #[arg(long)]
        old_root_key: PathBuf,
        /// New root key; created if missing
        #[arg(long)]
        root_key: PathBuf,
        #[command(flatten)]
        key: Key,
    },
    /// Verify everything that a device would, and every bundle
    Verify {
        /// Directory of the channel
        channel: PathBuf,
        /// Trusted root.json of the devices; by default the channel's first one
        #[arg(long)]
        root: Option<PathBuf>,
        /// Certificates trusted by the devices; by default the channel's keyring.pem, or the file named by OS_KEYRING
        #[arg(long)]
        keyring: Option<PathBuf>,
    },
    /// Copy and verify a channel from its server, and remove what it no longer lists; run it from a timer
    Mirror {
        /// Address or directory of the channel
        from: String,
        /// Directory of the mirror
        to: PathBuf,
        /// Trusted root.json for the first sync
        #[arg(long)]
        root: Option<PathBuf>,
    },
}

/// The key that signs lists.
#[derive(Debug, clap::Args)]
pub(crate) struct Key {
    /// Key that signs the list of releases (minisign format; its password is read from OSCTL_KEY_PASSWORD)
    #[arg(long)]
    key: PathBuf,
}

impl Key {
    fn load(&self) -> Result<SecretKey> {
        SecretKey::load(&self.key)
    }
}

pub(crate) fn run(command: Command) -> Result<()> {
    let edit = |path: &Path, key: &Key, change: &dyn Fn(&mut Directory) -> Result<()>| -> Result<()> {
        let (mut directory, key) = (Directory::open(path)?, key.load()?);
        // Before anything large is copied.
        directory.expects(&key)?;
        change(&mut directory)?;
        directory.save(&key)?;
        os_sys::say!("{}: list {}", path.display(), directory.list.serial);
        Ok(())
    };
    match command {
        Command::List { channel, json } => list(&Directory::open(&channel)?, json)?,
        Command::Serve { directory, port, listen } => {
            serve::run(&directory, listen, port)?;
        }
        Command::Init { channel, root, root_key, key } => {
            let key = SecretKey::load_or_make(&key.key)?;
            let root = match (root, root_key) {
                (Some(root), _) => os_sys::files::read_limited(&root, MAX_SIZE)?,
                (None, root_key) => {
                    let root_key = root_key.context("neither --root nor --root-key")?;
                    channel::new_root(&SecretKey::load_or_make(&root_key)?, &key)?
                }
            };
            Directory::init(&channel, &root, &key)?;
            os_sys::say!("{}: an empty channel. Devices need its root.json in their image.", channel.display());
        }
        Command::Publish { channel, bundle, notes, rollout, stepping_stone, keyring, key } => {
            let keyring = keyring_of(keyring, &channel);
            let options = Publish { notes, rollout, stepping_stone, keyring };
            edit(&channel, &key, &|d| {
                let release = d.publish(&bundle, &options)?;
                os_sys::say!("{} {}, {} MiB", release.compatible, release.version, release.bundle.size >> 20);
                Ok(())
            })?;
        }
        Command::Promote { from, to, version, rollout, key } => {
            let from = Directory::open(&from)?;
            edit(&to, &key, &|d| d.promote(&from, &version, rollout))?;
        }
        Command::Rollout { channel, version, percent, key } => {
            edit(&channel, &key, &|d| d.change(&version, |r| r.rollout = percent))?;
        }
        Command::SteppingStone { channel, version, off, key } => {
            edit(&channel, &key, &|d| d.change(&version, |r| r.stepping_stone = !off))?;
        }
        Command::Revoke { channel, version, why, key } => {
            edit(&channel, &key, &|d| d.change(&version, |r| r.revoked = Some(why.clone())))?;
        }
        Command::Renew { channel, key } => edit(&channel, &key, &|_| Ok(()))?,
        Command::Rotate { channel, old_root_key, root_key, key } => {
            let (old, new) = (SecretKey::load(&old_root_key)?, SecretKey::load_or_make(&root_key)?);
            let mut directory = Directory::open(&channel)?;
            directory.rotate(&old, &new, &SecretKey::load_or_make(&key.key)?)?;
            os_sys::say!("{}: root {}", channel.display(), directory.root.version);
        }
        Command::Verify { channel, root, keyring } => {
            let directory = Directory::verify(&channel, root.as_deref())?;
            if let Some(keyring) = keyring_of(keyring, &channel) {
                directory.verify_bundles(&keyring)?;
            }
            os_sys::say!(
                "{}: list {}, root {}, {} releases; everything is as it was signed",
                channel.display(),
                directory.list.serial,
                directory.root.version,
                directory.list.releases.len()
            );
        }
        Command::Mirror { from, to, root } => {
            let status = mirror::run(&os_transport::Source::parse(&from)?, &to, root.as_deref())?;
            os_sys::say!("{}", serde_json::to_string_pretty(&status)?);
        }
    }
    Ok(())
}

/// The certificates that devices have, where anything says which; what is not checked for want of them is said.
fn keyring_of(named: Option<PathBuf>, channel: &Path) -> Option<PathBuf> {
    let image = std::env::var_os("OS_KEYRING").filter(|name| !name.is_empty()).map(PathBuf::from);
    let found = signature::keyring(named, channel, image);
    match &found {
        Some(keyring) => os_sys::say!("signatures of bundles are checked against {}", keyring.display()),
        None => os_sys::say!(
            "signature not checked: nothing says which certificates devices have; name them with --keyring, or put them into {}",
            channel.join(signature::KEYRING).display()
        ),
    }
    found
}

fn list(directory: &Directory, json: bool) -> Result<()> {
    let list = &directory.list;
    if json {
        os_sys::say!("{}", serde_json::to_string_pretty(list)?);
        return Ok(());
    }
    os_sys::say!("{}: list {}, {} releases", list.name, list.serial, list.releases.len());
    let mut releases: Vec<_> = list.releases.iter().collect();
    releases.sort_by(|a, b| (&a.compatible, &b.version).cmp(&(&b.compatible, &a.version)));
    for release in releases {
        let state = match &release.revoked {
            Some(why) => format!("revoked: {why}"),
            None if release.stepping_stone => format!("{} %, stepping stone", release.rollout),
            None => format!("{} %", release.rollout),
        };
        let size = release.bundle.size >> 20;
        os_sys::say!("  {:<24} {:<16} {size:>5} MiB  {state}", release.compatible, release.version.to_string());
    }
    Ok(())
}
