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
use lab::tools_tree::HostTools;
use std::process::ExitCode;

/// End-to-end tests of the built image.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    host_tools: HostTools,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the scenarios
    Run {
        /// Run only this chain, the long ones (long), or scenarios whose name contains this; an unknown name lists the chains
        #[arg(long, default_value = "")]
        only: String,
        /// Number of moments of a recorded update to try as power cuts
        #[arg(long, default_value_t = 40)]
        points: usize,
        /// Time limit of the run; what is not done by then fails [env: OS_TEST_DEADLINE, as a point in time, in seconds
        /// since 1970]
        #[arg(long, value_name = "SECONDS")]
        deadline: Option<u64>,
        #[command(flatten)]
        source: Source,
    },
    /// Connect standard input and output to a port of this machine, for a guest without a network to reach a web server
    #[command(hide = true)]
    Pipe {
        /// Port on 127.0.0.1
        port: u16,
        /// Forwarded port of the same guest behind which nothing listens: connect only once the guest refuses it
        #[arg(long, value_name = "PORT")]
        closed: Option<u16>,
    },
    /// Cut the power at random moments of updates, and write docs/power.md
    Campaign {
        /// Number of power cuts
        #[arg(long, default_value_t = 10)]
        cuts: u64,
        /// Seed for the choice of moments
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[command(flatten)]
        source: Source,
    },
    /// Print the section of docs/benchmarks.md on the size of updates
    Deltas,
    /// Print its last part, the same update in other filesystems, from the images built by `deltas`
    Filesystems,
    /// Print the section on updates on a device, from those images
    Installs,
    /// Measure boot time and memory next to a plain Debian, and write docs/benchmarks.md
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
        args.host_tools.enter(&Repo::find()?)?;
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
