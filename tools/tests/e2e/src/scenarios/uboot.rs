//! U-Boot's boot script, which counts as `grub.cfg` does: on QEMU's ARM machines, with kernel partitions that hold no kernel.
//! Every boot is compared with what `os-boot` says of the same files.

use crate::harness::checks::Checks;
use crate::harness::device::equal;
use crate::harness::lab::Lab;
use crate::harness::uboot::{Board, Boot};
use anyhow::{Context, Result, ensure};
use lab::arch::Arch;
use os_boot::{Counters, State, counters};
use os_disk::table::PartId;
use os_facts::Slot;

/// What a person added to the kernel's arguments.
const OWN: &str = "loglevel=7 acme.x=1";

pub(super) fn uboot(lab: &Lab, checks: &mut Checks) -> Result<()> {
    if let Some(why) = Board::missing() {
        checks.skip("U-Boot starts the slots as GRUB does", &why);
        return Ok(());
    }
    // The commands are the same on both, the programs are not.
    checks.check("a 32-bit U-Boot starts what os-boot says: three tries of each slot, then the rescue system", || {
        all_tries(&Board::new(Arch::Armv7, &lab.dir)?)
    });
    let board = Board::new(Arch::Arm64, &lab.dir)?;
    checks.check("U-Boot starts what os-boot says: three tries of each slot, then the rescue system", || {
        all_tries(&board)
    });
    checks.check("U-Boot takes what os-boot tells it, and os-boot what U-Boot wrote", || {
        board.tell(|loader| loader.set_primary(Slot::B))?;
        ensure!(counted(&board)?.slot == Slot::B, "the slot that was put first is not started");
        board.tell(|loader| loader.set_state(Slot::B, State::Bad))?;
        board.tell(|loader| loader.set_state(Slot::A, State::Good))?;
        ensure!(counted(&board)?.slot == Slot::A, "a slot that was called bad is started");
        Ok(())
    });
    checks.check("counters that are damaged lead to their copy, and without one the first slot is started", || {
        let whole = counters::fresh();
        let headless = [&b"#"[..], &whole[..whole.len() - 1]].concat();
        let short = whole[..512].to_vec();
        for damage in [vec![0xa5; 1024], vec![0; 1024], headless, short, Vec::new()] {
            board.tell(|loader| loader.set_primary(Slot::B))?;
            board.put(counters::FILE, &damage)?;
            let boot = board.boot(None)?;
            ensure!(boot.slot == Slot::B, "{} bytes of damage: {boot:?}", damage.len());
        }
        board.put(counters::COPY, &[0xa5; 1024])?;
        let boot = board.boot(None)?;
        ensure!(boot.slot == Slot::A && !boot.rescue, "{boot:?}");
        Ok(())
    });
    checks.check("wherever the power fails while U-Boot counts, a slot starts", || {
        board.put(counters::FILE, &counters::fresh())?;
        board.put(counters::COPY, &counters::fresh())?;
        let tried = board.cut_everywhere(|loader| {
            let found = loader.counters()?;
            ensure!(found.next() == Some(Slot::A), "no slot, or another one, would be started");
            Ok(())
        })?;
        println!("{tried} disks");
        ensure!(tried > 1, "U-Boot wrote nothing");
        Ok(())
    });
    checks.check("U-Boot names the boot partition of a GPT and of an MBR as the device reads it", || {
        ensure!(matches!(board.id()?, PartId::Gpt(_)) && counted(&board)?.id == board.id()?, "of the GPT");
        board.put_mbr()?;
        ensure!(
            matches!(board.id()?, PartId::Mbr { number: 1, .. }) && counted(&board)?.id == board.id()?,
            "of the MBR"
        );
        Ok(())
    });
    checks.check("U-Boot writes nothing but the counters to the boot partition", || {
        let names = board.files()?;
        equal(&names.join(" "), "boot.scr os/argsenv os/grubenv os/grubenv.copy")
    });
    Ok(())
}

/// Seven boots.
fn all_tries(board: &Board) -> Result<()> {
    board.tell(|loader| loader.set_state(Slot::B, State::Good))?;
    board.tell_arguments(OWN)?;
    for _ in 0..6 {
        counted(board)?;
    }
    let before = board.counters()?;
    ensure!(before.next().is_none(), "a slot has tries left");
    let boot = board.boot(None)?;
    ensure!(boot.rescue && boot.slot == Slot::A && !boot.arguments.contains(OWN), "{boot:?}");
    ensure!(board.counters()? == before, "the rescue system was counted");
    Ok(())
}

/// One boot, which is what the counters before it say, and counts as they say.
fn counted(board: &Board) -> Result<Boot> {
    let before = board.counters()?;
    let wanted = before.next().context("no slot has tries left")?;
    let first = tries(&before, wanted)? == 0;
    let boot = board.boot(None)?;
    ensure!(boot.slot == wanted && !boot.rescue, "slot {wanted} should be started: {boot:?}");
    ensure!(boot.arguments.contains(OWN) == first, "own arguments are for the first try: {boot:?}");
    ensure!(boot.arguments.contains(&format!("os.roothash={wanted}")), "not the slot's own arguments: {boot:?}");
    let after = board.counters()?;
    for slot in Slot::BOTH {
        let more = u32::from(slot == wanted);
        ensure!(tries(&after, slot)? == tries(&before, slot)? + more, "slot {slot} is counted wrong");
    }
    equal(&boot.tries, &after.tries().to_string())?;
    Ok(boot)
}

fn tries(counters: &Counters, slot: Slot) -> Result<u32> {
    let text = counters.tries().to_string();
    let (a, b) = text.split_once(',').context("no tries")?;
    Ok(if slot == Slot::A { a } else { b }.parse()?)
}
