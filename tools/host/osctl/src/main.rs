//! `osctl`: the one command on the workstation.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use osctl::channel::keys::SecretKey;
use osctl::channel::{self, Directory, Publish};
use osctl::lab::wishes::Wishes;
use osctl::lab::{self, compose};
use osctl::repo::Repo;
use osctl::{check, crates_inc};
use semver::Version;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Build, run and look into the OS from a workstation.
#[derive(Debug, Parser)]
#[command(name = "osctl", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The image for developing and testing, made of Debian's binary packages
    Lab {
        /// Use the programs of this host (QEMU, RAUC, mkfs, ...) instead of the tools tree [env: OS_HOST_TOOLS=1]
        #[arg(long, global = true)]
        host_tools: bool,
        #[command(subcommand)]
        command: Lab,
    },
    /// Disk images and cards
    Image {
        #[command(subcommand)]
        command: Image,
    },
    /// Releases for devices: a directory of static, signed files
    Channel {
        #[command(subcommand)]
        command: Channel,
    },
    /// A device on the network, over ssh
    Device {
        #[command(subcommand)]
        command: Device,
    },
    /// Write the lock file and the crate list of the Yocto recipe from tools/Cargo.lock
    Crates {
        /// Only compare; exit code 1 when the committed list is out of date
        #[arg(long)]
        check: bool,
    },
    /// Compare what both build lanes must agree on
    Check,
    /// Write the reference of config.json into docs/ from its table of keys
    Docs,
}

#[derive(Debug, Subcommand)]
enum Device {
    /// Install a bundle on it and wait until its health check has decided; no server and no channel is needed
    Update {
        /// Name or address
        host: String,
        /// The bundle, signed for that device
        bundle: PathBuf,
        #[command(flatten)]
        ssh: osctl::device::Ssh,
    },
}

#[derive(Debug, Subcommand)]
enum Image {
    /// Write config.json into an image or onto a card; what the device would refuse is not written
    Configure {
        /// Image (raw, .zst, .gz, .xz) or disk, such as /dev/sdb
        image: PathBuf,
        #[command(flatten)]
        change: osctl::image::Change,
    },
}

#[derive(Debug, Subcommand)]
enum Channel {
    /// Show the releases of a channel, newest first
    List {
        /// Directory
        channel: PathBuf,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Serve a channel, or a directory with several, by HTTP until Ctrl-C: for a bench, without encryption
    Serve {
        /// Directory
        directory: PathBuf,
        /// Port
        #[arg(long, default_value_t = 8000)]
        port: u16,
        /// Address to listen at; 0.0.0.0 for everybody
        #[arg(long, default_value = "0.0.0.0")]
        listen: std::net::IpAddr,
    },
    /// Make an empty channel, named as its directory
    Init {
        /// Directory
        channel: PathBuf,
        /// root.json of another channel, or of the image, so that the same devices believe this one
        #[arg(long, required_unless_present = "root_key", conflicts_with = "root_key")]
        root: Option<PathBuf>,
        /// Key that signs roots; made when it is not there. Keep it offline
        #[arg(long)]
        root_key: Option<PathBuf>,
        #[command(flatten)]
        key: Key,
    },
    /// Add a bundle as a release
    Publish {
        /// Directory
        channel: PathBuf,
        /// Bundle, signed by the key that devices have in their keyring
        bundle: PathBuf,
        /// Release notes, Markdown
        #[arg(long)]
        notes: Option<PathBuf>,
        /// Devices of a hundred that take it
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(0..=100))]
        rollout: u8,
        /// Older devices must go through it
        #[arg(long)]
        stepping_stone: bool,
        /// Certificates that devices have; by default the channel's keyring.pem, or what OS_KEYRING names
        #[arg(long)]
        keyring: Option<PathBuf>,
        #[command(flatten)]
        key: Key,
    },
    /// Take a release over from another channel
    Promote {
        /// Channel that has it
        from: PathBuf,
        /// Channel that gets it
        to: PathBuf,
        /// Version
        version: Version,
        /// Devices of a hundred that take it
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(0..=100))]
        rollout: u8,
        #[command(flatten)]
        key: Key,
    },
    /// Change how many devices take a release
    Rollout {
        /// Directory
        channel: PathBuf,
        /// Version
        version: Version,
        /// Devices of a hundred
        #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
        percent: u8,
        #[command(flatten)]
        key: Key,
    },
    /// Have older devices go through a release
    SteppingStone {
        /// Directory
        channel: PathBuf,
        /// Version
        version: Version,
        /// It is none any more
        #[arg(long)]
        off: bool,
        #[command(flatten)]
        key: Key,
    },
    /// Have no device take a release any more
    Revoke {
        /// Directory
        channel: PathBuf,
        /// Version
        version: Version,
        /// Why, for people
        #[arg(long)]
        why: String,
        #[command(flatten)]
        key: Key,
    },
    /// Sign the list again with a new date; run it from a timer
    Renew {
        /// Directory
        channel: PathBuf,
        #[command(flatten)]
        key: Key,
    },
    /// Replace the keys; devices follow by themselves
    Rotate {
        /// Directory
        channel: PathBuf,
        /// Root key until now
        #[arg(long)]
        old_root_key: PathBuf,
        /// Root key from now on; made when it is not there
        #[arg(long)]
        root_key: PathBuf,
        #[command(flatten)]
        key: Key,
    },
    /// Check everything that a device would, and every bundle
    Verify {
        /// Directory
        channel: PathBuf,
        /// Root that devices have; the channel's own first one by default
        #[arg(long)]
        root: Option<PathBuf>,
        /// Certificates that devices have; by default the channel's keyring.pem, or what OS_KEYRING names
        #[arg(long)]
        keyring: Option<PathBuf>,
    },
    /// Copy a channel from its server, checked, and remove what it lists no more; run it from a timer
    Mirror {
        /// Address or directory of the channel
        from: String,
        /// Directory to serve
        to: PathBuf,
        /// Root to believe, for the first time
        #[arg(long)]
        root: Option<PathBuf>,
    },
}

/// The key that signs lists.
#[derive(Debug, clap::Args)]
struct Key {
    /// Key that signs the list of releases (minisign's form; the password of one is read from OSCTL_KEY_PASSWORD)
    #[arg(long)]
    key: PathBuf,
}

impl Key {
    fn load(&self) -> Result<SecretKey> {
        SecretKey::load(&self.key)
    }
}

#[derive(Debug, Subcommand)]
enum Lab {
    /// Build the disk image
    Build(Build),
    /// Boot the image in QEMU with the console on this terminal; Ctrl-A X leaves
    Run(osctl::run::Options),
    /// Make a signed update bundle of the built slot
    Bundle {
        /// production, development or standalone
        #[arg(long, default_value = "development", value_parser = lab::VARIANTS.to_vec())]
        variant: String,
    },
    /// Build the device binary as it ships, which takes minutes, and compare its size with its budget
    Size,
    #[command(hide = true)]
    Compose(compose::Args),
}

#[derive(Debug, clap::Args)]
struct Build {
    /// production, development or standalone
    #[arg(long, default_value = "development", value_parser = lab::VARIANTS.to_vec())]
    variant: String,
    /// config.json for the boot partition; without it, one with the key in build/keys
    #[arg(long)]
    config: Option<PathBuf>,
    /// Container archive that comes with the system, as docker save writes it; NAME.json beside it describes the container
    #[arg(long)]
    preload: Vec<PathBuf>,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(code) => code,
        Err(err) => {
            eprintln!("osctl: {err:#}");
            ExitCode::from(1)
        }
    }
}

fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Lab { host_tools, command } => lab_command(command, host_tools),
        Command::Image { command: Image::Configure { image, change } } => {
            let config = osctl::image::configure(&image, &change)?;
            os_sys::say!("{}", serde_json::to_string_pretty(&config)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Device { command: Device::Update { host, bundle, ssh } } => {
            os_sys::say!("{}", osctl::device::update(&host, &bundle, &ssh)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Channel { command } => channel_command(command),
        Command::Crates { check } => crates(&Repo::find()?, check),
        Command::Check => check::run(&Repo::find()?),
        Command::Docs => {
            osctl::config_docs::write(&Repo::find()?)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn channel_command(command: Channel) -> Result<ExitCode> {
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
        Channel::List { channel, json } => list(&Directory::open(&channel)?, json)?,
        Channel::Serve { directory, port, listen } => {
            if let Ok(repo) = Repo::find() {
                lab::tools_tree::enter(&repo, false)?;
            }
            channel::serve::run(&directory, listen, port)?;
        }
        Channel::Init { channel, root, root_key, key } => {
            let key = SecretKey::load_or_make(&key.key)?;
            let root = match (root, root_key) {
                (Some(root), _) => os_sys::files::read_limited(&root, os_channel::MAX_SIZE)?,
                (None, root_key) => {
                    let root_key = root_key.context("neither --root nor --root-key")?;
                    channel::new_root(&SecretKey::load_or_make(&root_key)?, &key)?
                }
            };
            Directory::init(&channel, &root, &key)?;
            os_sys::say!("{}: an empty channel. Devices need its root.json in their image.", channel.display());
        }
        Channel::Publish { channel, bundle, notes, rollout, stepping_stone, keyring, key } => {
            let keyring = keyring_of(keyring, &channel);
            let options = Publish { notes, rollout, stepping_stone, keyring };
            edit(&channel, &key, &|d| {
                let release = d.publish(&bundle, &options)?;
                os_sys::say!("{} {}, {} MiB", release.compatible, release.version, release.bundle.size >> 20);
                Ok(())
            })?;
        }
        Channel::Promote { from, to, version, rollout, key } => {
            let from = Directory::open(&from)?;
            edit(&to, &key, &|d| d.promote(&from, &version, rollout))?;
        }
        Channel::Rollout { channel, version, percent, key } => {
            edit(&channel, &key, &|d| d.change(&version, |r| r.rollout = percent))?;
        }
        Channel::SteppingStone { channel, version, off, key } => {
            edit(&channel, &key, &|d| d.change(&version, |r| r.stepping_stone = !off))?;
        }
        Channel::Revoke { channel, version, why, key } => {
            edit(&channel, &key, &|d| d.change(&version, |r| r.revoked = Some(why.clone())))?;
        }
        Channel::Renew { channel, key } => edit(&channel, &key, &|_| Ok(()))?,
        Channel::Rotate { channel, old_root_key, root_key, key } => {
            let (old, new) = (SecretKey::load(&old_root_key)?, SecretKey::load_or_make(&root_key)?);
            let mut directory = Directory::open(&channel)?;
            directory.rotate(&old, &new, &SecretKey::load_or_make(&key.key)?)?;
            os_sys::say!("{}: root {}", channel.display(), directory.root.version);
        }
        Channel::Verify { channel, root, keyring } => {
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
        Channel::Mirror { from, to, root } => {
            let status = channel::mirror::run(&os_fetch::Source::parse(&from)?, &to, root.as_deref())?;
            os_sys::say!("{}", serde_json::to_string_pretty(&status)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The certificates that devices have, where anything says which; what is not checked for want of them is said.
fn keyring_of(named: Option<PathBuf>, channel: &Path) -> Option<PathBuf> {
    let image = std::env::var_os("OS_KEYRING").filter(|name| !name.is_empty()).map(PathBuf::from);
    let found = channel::signature::keyring(named, channel, image);
    match &found {
        Some(keyring) => os_sys::say!("signatures of bundles are checked against {}", keyring.display()),
        None => os_sys::say!(
            "signature not checked: nothing says which certificates devices have; name them with --keyring, or put them into {}",
            channel.join(channel::signature::KEYRING).display()
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

fn lab_command(command: Lab, host_tools: bool) -> Result<ExitCode> {
    let mut repo = Repo::find()?;
    // cargo needs none of its programs.
    if !matches!(command, Lab::Size) {
        lab::tools_tree::enter(&repo, host_tools)?;
    }
    match command {
        Lab::Build(Build { variant, config, preload }) => {
            lab::build(&repo, &lab::Options { variant, config, preload })?;
        }
        Lab::Run(options) => return osctl::run::run(repo, &options),
        Lab::Bundle { variant } => {
            // Of the slot that is there: its version too.
            let _ = Wishes::again(&mut repo, &variant);
            lab::bundle::build(&repo, &variant)?;
        }
        Lab::Size => lab::size(&repo)?,
        Lab::Compose(args) => compose::run(&repo, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn crates(repo: &Repo, check: bool) -> Result<ExitCode> {
    let tools = repo.root.join("tools");
    let lock = crates_inc::device_lock(&tools)?;
    let list = crates_inc::generate(&lock)?;
    let files = [
        (tools.join("device/Cargo.lock"), lock),
        (repo.meta_os().join("recipes-core/os-tools/os-tools-crates.inc"), list),
    ];
    for (path, text) in &files {
        if !check {
            os_sys::files::write_if_changed(path, text.as_bytes(), 0o644)?;
        } else if std::fs::read_to_string(path).unwrap_or_default() != *text {
            eprintln!("osctl: {} is out of date; run: osctl crates", path.display());
            return Ok(ExitCode::from(1));
        }
    }
    Ok(ExitCode::SUCCESS)
}
