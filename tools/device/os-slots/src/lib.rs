//! Which slot the bootloader starts, and its counters of tries: what RAUC asks for as its `bootloader-custom-backend`
//! on boards that GRUB starts.
//!
//! RAUC's own backend for GRUB calls `grub-editenv`, which empties the file before it writes it anew. A power cut in
//! between takes the counters away, and the bootloader starts a slot that may be half written. Here the one sector that
//! holds them is written in place, as GRUB itself does it, and a copy is kept beside it.
//!
//! - [`block`] is GRUB's environment block
//! - [`counters`] is what is in it

pub mod block;
pub mod counters;
pub mod start;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use counters::{Counters, CountersError, State};
use std::path::Path;

/// Where GRUB's files are on the device.
pub const DIR: &str = "/mnt/boot/EFI/BOOT";
/// The same, from the top of the boot partition.
pub const IN_BOOT: &str = "EFI/BOOT";
/// A person's own kernel arguments: an environment block beside the counters, in a file that RAUC does not write.
pub const ARGUMENTS: &str = "argsenv";
/// The variable in it.
pub const ARGUMENTS_VARIABLE: &str = "os_user_args";

/// The bootloader's choice of slots, for RAUC; people use: os slot
#[derive(Debug, Parser)]
#[command(name = "os-slots", version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// What RAUC asks (its documentation, "Custom bootloader backend").
#[derive(Debug, Subcommand)]
enum Command {
    /// Print the slot that is started next
    GetPrimary,
    /// Have a slot started from the next boot on
    SetPrimary {
        /// A or B
        slot: String,
    },
    /// Print whether a slot may be started: good or bad
    GetState {
        /// A or B
        slot: String,
    },
    /// Say whether a slot may be started
    SetState {
        /// A or B
        slot: String,
        /// Whether it may
        state: State,
    },
}

/// The applet.
///
/// # Errors
/// When the boot partition cannot be read or written.
pub fn main(args: &Args) -> Result<()> {
    run(&args.command, Path::new(DIR))
}

/// Gives the slots that were never called bad their tries back, and says which; for when none is left to start.
///
/// # Errors
/// When the boot partition cannot be read or written.
pub fn give_back(dir: &Path) -> Result<Vec<&'static str>, CountersError> {
    let mut counters = Counters::load(dir)?;
    let slots = counters.give_back();
    if !slots.is_empty() {
        counters.save(dir)?;
    }
    Ok(slots)
}

/// Has a slot started from the next boot on.
///
/// # Errors
/// When there is no such slot, or the boot partition cannot be read or written.
pub fn set_primary(dir: &Path, slot: &str) -> Result<()> {
    let mut counters = Counters::load(dir)?;
    counters.set_primary(known(slot)?);
    Ok(counters.save(dir)?)
}

/// Says whether a slot may be started.
///
/// # Errors
/// As [`set_primary`].
pub fn set_state(dir: &Path, slot: &str, state: State) -> Result<()> {
    let mut counters = Counters::load(dir)?;
    counters.set_state(known(slot)?, state);
    Ok(counters.save(dir)?)
}

fn run(command: &Command, dir: &Path) -> Result<()> {
    match command {
        Command::GetPrimary => {
            let counters = Counters::load(dir)?;
            match counters.next().or_else(|| counters.order().first().copied()) {
                Some(slot) => os_sys::say!("{slot}"),
                None => bail!("the bootloader knows no slot"),
            }
        }
        Command::GetState { slot } => match Counters::load(dir)?.state(known(slot)?) {
            State::Good => os_sys::say!("good"),
            State::Bad => os_sys::say!("bad"),
        },
        Command::SetPrimary { slot } => set_primary(dir, slot)?,
        Command::SetState { slot, state } => set_state(dir, slot, *state)?,
    }
    Ok(())
}

fn known(slot: &str) -> Result<&'static str> {
    match counters::SLOTS.iter().find(|s| **s == slot) {
        Some(slot) => Ok(slot),
        None => bail!("'{slot}' is no slot; there are {}", counters::SLOTS.join(" and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rauc_sets_is_what_grub_starts() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(counters::FILE), counters::fresh()).unwrap();
        let run = |args: &[&str]| run(&Args::parse_from([&["os-slots"], args].concat()).command, dir.path());
        run(&["set-state", "B", "bad"]).unwrap();
        run(&["set-primary", "B"]).unwrap();
        assert_eq!(Counters::load(dir.path()).unwrap().next(), Some("B"));
        run(&["set-state", "B", "bad"]).unwrap();
        assert_eq!(Counters::load(dir.path()).unwrap().next(), Some("A"));
        assert!(run(&["get-state", "C"]).is_err());
        run(&["get-primary"]).unwrap();
    }
}
