//! Boots the built image in QEMU and checks what a user would: over the serial console, QMP, ssh, HTTP and the wire.
//!
//! - [`harness`] is what tests are made of: machines, disks, releases, servers
//! - [`scenarios`] are the boots: the first and long one, changed and broken configurations, releases, rescue
//! - [`campaign`] pulls the plug again and again, and knows what a power cut would have left
//! - [`bench`] measures

#![expect(clippy::print_stdout, reason = "it is no command of the product; a run whose reader goes may end")]

mod bench;
#[expect(clippy::indexing_slicing, reason = "indexing a JSON value that is not there gives null")]
mod campaign;
mod harness;
#[expect(clippy::indexing_slicing, reason = "indexing a JSON value that is not there gives null")]
mod scenarios;

use crate::harness::artifacts::Source;
use crate::harness::deadline;
use anyhow::Result;
use clap::{Parser, Subcommand};
use lab::repo::Repo;
use lab::tools_tree;
use std::process::ExitCode;

/// End-to-end tests of the built image.
#[derive(Debug, Parser)]
struct Args {
    /// Use the programs of this host (QEMU, RAUC, mkfs, ...) instead of the tools tree [env: OS_HOST_TOOLS=1]
    #[arg(long, global = true)]
    host_tools: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the scenarios
    Run {
        /// Only this chain (update, config, lies, bad, hand, cut, jump), the last four (long), or scenarios whose name
        /// contains this
        #[arg(long, default_value = "")]
        only: String,
        /// So many moments of a recorded update are tried as power cuts
        #[arg(long, default_value_t = 40)]
        points: usize,
        /// The run has to be over in so many seconds; what is not done by then fails [env: OS_TEST_DEADLINE, the time
        /// itself, in seconds since 1970]
        #[arg(long, value_name = "SECONDS")]
        deadline: Option<u64>,
        #[command(flatten)]
        source: Source,
    },
    /// Join standard input and output with a port of this machine: how a guest without a network reaches a web server
    #[command(hide = true)]
    Pipe {
        /// Port on 127.0.0.1
        port: u16,
        /// It leads into a guest, as this one does, behind which nobody listens: wait until somebody answers
        #[arg(long, value_name = "PORT")]
        closed: Option<u16>,
    },
    /// Pull the plug at random moments of updates, and write docs/power.md
    Campaign {
        /// How often
        #[arg(long, default_value_t = 10)]
        cuts: u64,
        /// Which moments; another seed tries others
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[command(flatten)]
        source: Source,
    },
    /// Print the section of docs/benchmarks.md about the bytes of an update
    Deltas,
    /// Print its last part: the same update in other filesystems, from the images that `deltas` built
    Filesystems,
    /// Print the section about updates on a device, from those images
    Installs,
    /// Measure boot time and memory beside a plain Debian, and write docs/benchmarks.md
    Bench(bench::Options),
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(code) => code,
        Err(err) => {
            eprintln!("e2e: {err:#}");
            ExitCode::from(1)
        }
    }
}

fn run(args: Args) -> Result<ExitCode> {
    // A pipe is started by QEMU, for every connection, and starts nothing.
    if !matches!(args.command, Command::Pipe { .. }) {
        tools_tree::enter(&Repo::find()?, args.host_tools)?;
    }
    match args.command {
        Command::Run { only, points, deadline, source } => {
            deadline::set(deadline)?;
            scenarios::run(source.find(&Repo::find()?)?, &only, points)
        }
        Command::Pipe { port, closed } => harness::pipe::run(port, closed).map(|()| ExitCode::SUCCESS),
        Command::Campaign { cuts, seed, source } => {
            campaign::run(&Repo::find()?, &source, cuts, seed).map(|()| ExitCode::SUCCESS)
        }
        Command::Deltas => {
            print!("{}", bench::deltas(&Repo::find()?)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Filesystems => {
            print!("{}", bench::filesystems(&Repo::find()?)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Installs => {
            print!("{}", bench::installs(&Repo::find()?)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Bench(options) => bench::run(&Repo::find()?, &options).map(|()| ExitCode::SUCCESS),
    }
}
