//! `osctl`: the one command on the workstation.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use osctl::lab::{self, compose};
use osctl::qemu::{self, Machine};
use osctl::repo::Repo;
use osctl::{check, crates_inc};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
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
        #[command(subcommand)]
        command: Lab,
    },
    /// Disk images and cards
    Image {
        #[command(subcommand)]
        command: Image,
    },
    /// Write the crate list of the Yocto recipe from tools/Cargo.lock
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
enum Lab {
    /// Build the disk image
    Build(Build),
    /// Boot the image in QEMU with the console on this terminal; Ctrl-A X leaves
    Run(Run),
    /// Make a signed update bundle of the built slot
    Bundle {
        /// production, development or standalone
        #[arg(long, default_value = "development")]
        variant: String,
    },
    #[command(hide = true)]
    Compose(compose::Args),
}

#[derive(Debug, clap::Args)]
struct Build {
    /// production, development or standalone
    #[arg(long, default_value = "development")]
    variant: String,
    /// config.json for the boot partition; without it, one with the key in build/keys
    #[arg(long)]
    config: Option<PathBuf>,
    /// Container archive to preload, as docker save writes it; NAME.json beside it describes the container
    #[arg(long)]
    preload: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Run {
    /// production, development or standalone
    #[arg(long, default_value = "development")]
    variant: String,
    /// Memory in MiB
    #[arg(long, default_value_t = 1024)]
    memory: u32,
    /// Processors
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Size of the disk in GiB; data grows into it
    #[arg(long, default_value_t = 8)]
    disk: u64,
    /// Port of this machine that leads to ssh in the guest
    #[arg(long, default_value_t = 22222)]
    ssh_port: u16,
    /// Port of this machine that leads to port 80 in the guest
    #[arg(long, default_value_t = 8080)]
    web_port: u16,
    /// Start from the image again, forgetting what the machine did so far
    #[arg(long)]
    fresh: bool,
    /// Emulate in software even where hardware virtualisation works
    #[arg(long)]
    tcg: bool,
    /// Further arguments for QEMU
    #[arg(last = true)]
    qemu: Vec<String>,
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
        Command::Lab { command } => lab_command(command),
        Command::Image { command: Image::Configure { image, change } } => {
            let config = osctl::image::configure(&image, &change)?;
            println!("{}", serde_json::to_string_pretty(&config)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Crates { check } => crates(&Repo::find()?, check),
        Command::Check => check::run(&Repo::find()?),
        Command::Docs => {
            osctl::config_docs::write(&Repo::find()?)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn lab_command(command: Lab) -> Result<ExitCode> {
    let repo = Repo::find()?;
    match command {
        Lab::Build(Build { variant, config, preload }) => {
            lab::build(&repo, &lab::Options { variant, config, preload })?;
        }
        Lab::Run(options) => return boot(&repo, &options),
        Lab::Bundle { variant } => {
            lab::bundle::build(&repo, &variant)?;
        }
        Lab::Compose(args) => compose::run(&repo, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn boot(repo: &Repo, options: &Run) -> Result<ExitCode> {
    let image = repo.image(&options.variant);
    let dir = repo.build.join("run").join(&options.variant);
    std::fs::create_dir_all(&dir)?;
    let (disk, firmware_vars) = (dir.join("disk.qcow2"), dir.join("firmware-vars.fd"));
    let modified = |path: &PathBuf| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    if options.fresh || modified(&disk).is_none() || modified(&image) > modified(&disk) {
        let _ = std::fs::remove_file(&disk);
        qemu::overlay(&image, &disk, options.disk << 30)?;
        std::fs::copy(qemu::firmware()?.1, &firmware_vars)?;
    }
    let accel = if options.tcg { qemu::Accel::Tcg } else { qemu::accel(repo, &options.variant)? };
    let machine = Machine {
        disk,
        format: "qcow2",
        firmware_vars,
        memory: options.memory,
        cpus: options.cpus,
        forwards: vec![(options.ssh_port, 22222), (options.web_port, 80)],
        isolated: false,
        accel,
        extra: options.qemu.clone(),
    };
    println!("Leave with Ctrl-A X. From another terminal:");
    println!("  ssh -i {}/keys/ssh_ed25519 -p {} root@localhost", repo.build.display(), options.ssh_port);
    println!("  http://localhost:{}/", options.web_port);
    if accel == qemu::Accel::Tcg {
        println!("No usable hardware virtualisation: the machine is emulated, a boot takes about a minute.");
    }
    let err = machine.command()?.args(["-display", "none", "-serial", "mon:stdio"]).exec();
    Err(err).context("cannot start qemu-system-x86_64; install it with: sudo apt-get install qemu-system-x86")
}

fn crates(repo: &Repo, check: bool) -> Result<ExitCode> {
    let lock = os_sys::files::read_text(&repo.root.join("tools/Cargo.lock"))?;
    let path = repo.meta_os().join("recipes-core/os-tools/os-tools-crates.inc");
    let text = crates_inc::generate(&lock)?;
    if check {
        if std::fs::read_to_string(&path).unwrap_or_default() == text {
            return Ok(ExitCode::SUCCESS);
        }
        eprintln!("osctl: {} is out of date; run: osctl crates", path.display());
        return Ok(ExitCode::from(1));
    }
    os_sys::files::write_if_changed(&path, text.as_bytes(), 0o644)?;
    Ok(ExitCode::SUCCESS)
}
