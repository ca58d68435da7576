//! Slots that the Raspberry Pi's firmware starts: the real kernel, initramfs and system, with QEMU in place of the board and our
//! reading of its rules in place of the firmware.

use crate::harness::checks::Checks;
use crate::harness::device::equal;
use crate::harness::firmware::Start;
use crate::harness::firmware::board::Board;
use crate::harness::lab::Lab;
use crate::harness::taken::Taken;
use crate::harness::vm::{BOOT_LIMIT, PATIENCE};
use anyhow::{Context, Result, ensure};
use os_boot::{Bootloader, Counters, State, tryboot};
use os_facts::{Role, Slot};
use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;

pub(super) fn tryboot(lab: &Lab, checks: &mut Checks) -> Result<()> {
    if let Some(why) = Board::missing(lab) {
        checks.skip("the Raspberry Pi's firmware tries slots", &why);
        return Ok(());
    }
    let mut board = Board::new(lab)?;
    let limit = BOOT_LIMIT * PATIENCE;
    checks.check("slot A is started, counted and confirmed", || {
        equal(&said(&board.run(limit, &goes_through(lab, &["1,0", "0,0"], Slot::A))?), "2")
    });
    checks.check("a release in slot B is tried, and kept once it has passed", || {
        for role in [Role::Kernel, Role::Root] {
            copy(lab, role(Slot::A), role(Slot::B))?;
        }
        taken(lab)?.tell(|loader| loader.set_primary(Slot::B))?;
        equal(&said(&board.run(limit, &goes_through(lab, &["0,1", "0,0"], Slot::B))?), "2 3t")?;
        equal(&said(&board.run(limit, &goes_through(lab, &["0,1"], Slot::B))?), "3")
    });
    checks.check("one whose root is broken is tried three times, and the slot before stays", || {
        erase(lab, Role::Root(Slot::A))?;
        taken(lab)?.tell(|loader| loader.set_state(Slot::B, State::Good))?;
        taken(lab)?.tell(|loader| loader.set_primary(Slot::A))?;
        equal(&said(&board.run(limit, &goes_through(lab, &["3,1", "3,0"], Slot::B))?), "3 2t 3 2t 3 2t 3")
    });
    Ok(())
}

/// True from the moment on that the tries have been all of these in turn, and the firmware is to start `kept`.
fn goes_through<'a>(lab: &'a Lab, each: &'a [&'a str], kept: Slot) -> impl Fn() -> Result<bool> + 'a {
    let seen = Cell::new(0);
    move || {
        // The device may be writing: what cannot be read now is read again.
        let Ok((counters, committed)) = found(lab) else { return Ok(false) };
        if each.get(seen.get()).is_some_and(|tries| *tries == counters.tries().to_string()) {
            seen.set(seen.get() + 1);
        }
        Ok(seen.get() == each.len() && committed == Some(kept))
    }
}

/// Partitions in the order of their starts; `t` is one with the flag.
fn said(starts: &[Start]) -> String {
    let each = starts.iter().map(|start| format!("{}{}", start.partition, if start.tryboot { "t" } else { "" }));
    each.collect::<Vec<_>>().join(" ")
}

fn taken(lab: &Lab) -> Result<Taken> {
    Taken::from(&lab.disk.fat, Bootloader::RpiTryboot)
}

fn found(lab: &Lab) -> Result<(Counters, Option<Slot>)> {
    let taken = taken(lab)?;
    Ok((taken.loader().counters()?, tryboot::committed(taken.path())))
}

fn copy(lab: &Lab, from: Role, to: Role) -> Result<()> {
    let (from, to) = (lab.artifacts.part(&from.to_string())?, lab.artifacts.part(&to.to_string())?);
    ensure!(from.size == to.size, "the slots have different sizes");
    let disk = File::options().read(true).write(true).open(&lab.disk.path)?;
    let mut buffer = vec![0; 1 << 20];
    for at in (0..from.size).step_by(1 << 20) {
        let part = buffer.get_mut(..usize::try_from((from.size - at).min(1 << 20))?).context("no buffer")?;
        disk.read_exact_at(part, from.start + at)?;
        disk.write_all_at(part, to.start + at)?;
    }
    Ok(())
}

fn erase(lab: &Lab, role: Role) -> Result<()> {
    let part = lab.artifacts.part(&role.to_string())?;
    Ok(File::options().write(true).open(&lab.disk.path)?.write_all_at(&[0; 4 << 20], part.start)?)
}
