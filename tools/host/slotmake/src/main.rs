//! `os-slotmake`: the slot maker as a program, for `os_disk.bbclass`.

use clap::{Parser, Subcommand};
use os_slotmake::size::Room;
use os_slotmake::slot::Slot;
use os_slotmake::{SlotError, data};
use os_sys::cmd::Cmd;
use std::path::PathBuf;
use std::process::ExitCode;

/// Make the images of a slot and of the data partition.
#[derive(Debug, Parser)]
#[command(name = "os-slotmake", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the images of the root and the kernel partition
    Slot {
        /// Root filesystem; the hash tree is appended to it
        #[arg(long, value_name = "FILE")]
        root: PathBuf,
        /// Size of the root partition, such as 640M
        #[arg(long, value_name = "OS_ROOT_SIZE")]
        root_size: String,
        /// What the image of the root partition may have, such as 180M; empty for no limit but the partition
        #[arg(long, value_name = "OS_ROOT_MAX_SIZE", default_value = "")]
        root_max: String,
        /// Kernel
        #[arg(long, value_name = "FILE")]
        kernel: PathBuf,
        /// Initramfs
        #[arg(long, value_name = "FILE")]
        initramfs: PathBuf,
        /// Directory with what else the kernel partition holds, such as device trees
        #[arg(long, value_name = "DIRECTORY")]
        more: Option<PathBuf>,
        /// Kernel arguments: consoles, and what every slot has
        #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
        arguments: String,
        /// Where to write slot.cfg; slot.env and cmdline.txt are written beside it
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Where to write the image of the kernel partition
        #[arg(long, value_name = "FILE")]
        image: PathBuf,
        /// Size of the kernel partition
        #[arg(long, value_name = "OS_KERNEL_SIZE")]
        size: String,
        /// Time of everything in the kernel partition, in seconds since 1970
        #[arg(long, value_name = "SECONDS")]
        epoch: u64,
    },
    /// Make the image of the data partition
    Data {
        /// Directory with what it holds
        #[arg(long, value_name = "DIRECTORY")]
        tree: PathBuf,
        /// Where to write the image
        #[arg(long, value_name = "FILE")]
        image: PathBuf,
        /// Size of the partition
        #[arg(long, value_name = "OS_DATA_SIZE")]
        size: String,
        /// Options of mke2fs
        #[arg(long, value_name = "OS_DATA_MKFS_OPTIONS", allow_hyphen_values = true)]
        options: String,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("os-slotmake: {err}");
            ExitCode::from(1)
        }
    }
}

fn run(command: Command) -> Result<(), SlotError> {
    match command {
        Command::Slot { root, root_size, root_max, kernel, initramfs, more, arguments, config, image, size, epoch } => {
            let root_room = Room::of("OS_ROOT_SIZE", &root_size)?;
            let root_max = (!root_max.is_empty()).then(|| Room::of("OS_ROOT_MAX_SIZE", &root_max)).transpose()?;
            let room = Room::of("OS_KERNEL_SIZE", &size)?;
            Slot { root, root_room, root_max, kernel, initramfs, more, arguments, config, image, room, epoch }.make()
        }
        Command::Data { tree, image, size, options } => {
            let room = Room::of("OS_DATA_SIZE", &size)?;
            data::image(Cmd::new("mke2fs"), &tree, &image, &room, &options)
        }
    }
}
