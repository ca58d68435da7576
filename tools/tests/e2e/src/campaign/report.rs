//! Writes `docs/power.md`.

use super::{At, Cut, FLICKER, is_mended};
use anyhow::Result;
use lab::repo::Repo;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// From all cuts there are.
pub(super) fn write(repo: &Repo, cuts: &[Cut]) -> Result<()> {
    let mut text = String::from(
        "# Power cuts\n\nMade by `make campaign N=…` from `power.jsonl`, to which every campaign adds; do not edit.\n\n\
         A machine is killed at a random moment, and its disk is looked at: the slot that the bootloader would start is whole, \
         state and data can be mended and hold what the owner put there, no release is refused that is good. Then it is \
         started, and killed again up to fifteen times more, or left to go on until its health is confirmed: its root is \
         verified, no unit fails, what the owner put there is there and the container runs (after a wipe: is gone), nothing \
         good is refused, a bad release is. Three starts in a row that are cut before they are confirmed lead to the rescue \
         system, which tries the slots again when nobody comes; the campaign does not wait the 15 minutes for that.\n\n",
    );
    let wrong: Vec<(usize, &Cut)> = cuts.iter().enumerate().filter(|(_, cut)| cut.wrong.is_some()).collect();
    let mended = wrong.iter().filter(|(place, _)| is_mended(cuts, *place)).count();
    writeln!(text, "{} cuts, {} of them with something wrong, {mended} of that mended.\n", cuts.len(), wrong.len())?;
    let flicker = FLICKER.as_secs_f64();
    writeln!(
        text,
        "| cut in | cuts | and again in the starts after | of those in the first {flicker} s | wrong |\n\
         |---|---|---|---|---|"
    )?;
    for at in [At::FirstBoot, At::Install, At::Trial, At::Rollback, At::Wipe] {
        let count = |which: &dyn Fn(&Cut) -> bool| cuts.iter().filter(|c| c.at == at && which(c)).count();
        let (once, again) = (count(&|c| c.nth == 1), count(&|c| c.nth > 1));
        let early = count(&|c| c.nth > 1 && c.after < flicker);
        writeln!(text, "| {} | {once} | {again} | {early} | {} |", at.words(), count(&|c| c.wrong.is_some()))?;
    }
    let mut phases: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for cut in cuts.iter().filter(|cut| cut.wrong.is_none()) {
        *phases.entry((&cut.left, &cut.then)).or_default() += 1;
    }
    writeln!(text, "\n| what the cut left on the disk | what ran in the end | times |\n|---|---|---|")?;
    for ((left, then), times) in phases {
        writeln!(text, "| {left} | {then} | {times} |")?;
    }
    for (place, cut) in wrong {
        let why = cut.wrong.as_deref().unwrap_or_default();
        write!(text, "\nWrong: {}, {:.1} s after it began: {why}.", cut.at.words(), cut.after)?;
        if let Some(commit) = &cut.fixed_by
            && is_mended(cuts, place)
        {
            write!(text, " Mended by {commit}; later cuts of this kind went well.")?;
        }
        text.push('\n');
    }
    os_sys::files::write_if_changed(&repo.root.join("docs/power.md"), text.as_bytes(), 0o644)?;
    Ok(())
}
