//! `os-slots`: what RAUC asks as its `bootloader-custom-backend`.

use crate::counters::State;
use crate::loader::Loader;
use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use os_facts::Slot;

/// Slot selection of the bootloader, for RAUC; the command for operators is `os slot`
#[derive(Debug, Parser)]
#[command(name = "os-slots", version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// What RAUC asks (its documentation, "Custom bootloader backend").
#[derive(Debug, Subcommand)]
enum Command {
    /// Print the slot that is booted next
    GetPrimary,
    /// Select the slot to boot from now on
    SetPrimary {
        /// A or B
        slot: Slot,
    },
    /// Print whether a slot is bootable: good or bad
    GetState {
        /// A or B
        slot: Slot,
    },
    /// Set whether a slot is bootable
    SetState {
        /// A or B
        slot: Slot,
        /// New state
        state: State,
    },
}

/// The applet.
///
/// # Errors
/// When the boot partition cannot be read or written.
pub fn main(args: &Args) -> Result<()> {
    run(&args.command, &Loader::of_this_device()?)
}

fn run(command: &Command, loader: &Loader) -> Result<()> {
    match command {
        Command::GetPrimary => {
            let counters = loader.counters()?;
            match counters.next().or_else(|| counters.order().first().copied()) {
                Some(slot) => os_sys::say!("{slot}"),
                None => bail!("the bootloader knows no slot"),
            }
        }
        Command::GetState { slot } => match loader.counters()?.state(*slot) {
            State::Good => os_sys::say!("good"),
            State::Bad => os_sys::say!("bad"),
        },
        Command::SetPrimary { slot } => loader.set_primary(*slot)?,
        Command::SetState { slot, state } => loader.set_state(*slot, *state)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters;
    use crate::loader::Bootloader;

    #[test]
    fn what_rauc_sets_is_what_the_bootloader_starts() {
        let boot = tempfile::tempdir().unwrap();
        let loader = Loader::new(Bootloader::Grub, boot.path());
        std::fs::create_dir_all(loader.directory()).unwrap();
        std::fs::write(loader.directory().join(counters::FILE), counters::fresh()).unwrap();
        let run = |args: &[&str]| run(&Args::parse_from([&["os-slots"], args].concat()).command, &loader);
        let next = || loader.counters().unwrap().next();
        run(&["set-state", "B", "bad"]).unwrap();
        run(&["set-primary", "B"]).unwrap();
        assert_eq!(next(), Some(Slot::B));
        run(&["set-state", "B", "bad"]).unwrap();
        assert_eq!(next(), Some(Slot::A));
        run(&["get-primary"]).unwrap();
        let said = Args::try_parse_from(["os-slots", "get-state", "C"]).unwrap_err().to_string();
        assert!(said.contains("'C' is no slot; there are A and B"), "{said}");
    }
}
