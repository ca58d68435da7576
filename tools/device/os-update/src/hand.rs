//! What an operator did with RAUC by hand: RAUC says what lies in each slot, and that is compared with what this program knows
//! of it. What is in a slot decides what is started, kept and refused under which name; nothing else is blamed for it.

use crate::state::{Phase, State, Target};
use os_boot::Fate;
use os_dbus::RaucSlot;
use os_facts::Slot;
use serde::{Deserialize, Serialize};

/// What was seen in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The release.
    #[serde(flatten)]
    pub target: Target,
    /// SHA-256 of the manifest of its bundle, hex.
    pub hash: String,
    /// What tells one installation from another: RAUC's identifiers of them.
    pub installation: String,
}

/// What RAUC wrote down of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    version: String,
    hash: String,
    installation: String,
    /// All of it was written to its end.
    whole: bool,
}

impl Content {
    /// Of the slot that the bootloader knows by a name and those that belong to it; none when RAUC installed nothing there.
    fn of(slots: &[RaucSlot], slot: Slot) -> Option<Self> {
        let number = |slot: &RaucSlot| slot.name.rsplit('.').next().map(str::to_owned);
        let own = number(slots.iter().find(|rauc| rauc.bootname.as_deref() == Some(slot.name()))?);
        let members: Vec<&RaucSlot> = slots.iter().filter(|slot| number(slot) == own).collect();
        let id = |slot: &&RaucSlot| slot.transaction.clone().or_else(|| slot.manifest_hash.clone());
        let mut ids: Vec<String> = members.iter().filter_map(id).collect();
        ids.sort();
        ids.dedup();
        let named = members.iter().find(|slot| slot.version.is_some())?;
        Some(Self {
            version: named.version.clone()?,
            hash: named.manifest_hash.clone().unwrap_or_default(),
            installation: ids.join(" "),
            whole: members.iter().all(|slot| slot.status.as_deref().is_none_or(|status| status == "ok")),
        })
    }

    fn held(&self, target: Target) -> Held {
        Held { target, hash: self.hash.clone(), installation: self.installation.clone() }
    }

    /// It goes by the hash of its manifest: of the file it came from nothing is known.
    fn target(&self) -> Target {
        Target { version: self.version.clone(), digest: self.hash.clone() }
    }
}

/// Takes over what RAUC says of the slots; what was done by hand, a line each. `here`: the slot that runs. `fate`: what the
/// bootloader says of the other one.
pub(crate) fn notice(state: &mut State, slots: &[RaucSlot], here: Slot, fate: Option<Fate>) -> Vec<String> {
    let there = here.other();
    let mut said = notice_other(state, slots, there, fate);
    said.extend(notice_own(state, slots, here, there));
    state.looked = true;
    said
}

/// Remembers what this program had RAUC write.
pub(crate) fn wrote(state: &mut State, slots: &[RaucSlot], slot: Slot, target: &Target) {
    if let Some(content) = Content::of(slots, slot) {
        state.slots.insert(slot, content.held(target.clone()));
    }
    state.by_hand = None;
}

fn notice_other(state: &mut State, slots: &[RaucSlot], there: Slot, fate: Option<Fate>) -> Vec<String> {
    // The way back while this slot is on trial: looked at when that is over.
    let way_back = matches!(&state.phase, Phase::Trial { slot, .. } if *slot != there);
    let Some(content) = Content::of(slots, there).filter(|_| !way_back) else { return Vec::new() };
    let known = state.slots.get(&there).cloned();
    let waiting = state.phase.target().cloned();
    let ours = state.began.as_deref() == Some(&content.installation);
    if !content.whole {
        // What this program began and did not finish, it knows of.
        let (Phase::Installed { target, .. }, false) = (&state.phase, ours) else { return Vec::new() };
        let said = format!("slot {there} was written by hand, and not to its end; {} is lost", target.version);
        (state.phase, state.by_hand) = (Phase::Idle, None);
        return vec![said];
    }
    if known.as_ref().is_some_and(|known| known.installation == content.installation) {
        return Vec::new();
    }
    let same = |target: &&Target| target.version == content.version;
    if ours || !state.looked && waiting.as_ref().is_none_or(|target| same(&target)) {
        // A release that did not look before takes it as it is.
        let target = waiting.filter(|target| same(&target)).unwrap_or_else(|| content.target());
        state.slots.insert(there, content.held(target.clone()));
        if let Phase::Installed { target: waits, .. } = &mut state.phase
            && *waits != target
        {
            (*waits, state.by_hand) = (target, None);
        }
        return Vec::new();
    }
    let again = known.filter(|known| known.hash == content.hash && !content.hash.is_empty()).map(|known| known.target);
    let target = again.clone().unwrap_or_else(|| content.target());
    state.slots.insert(there, content.held(target.clone()));
    let instead =
        waiting.filter(|waiting| *waiting != target).map(|waiting| format!(" in place of {}", waiting.version));
    let said = format!(
        "slot {there} holds {}, which was installed by hand{}",
        target.version,
        instead.as_deref().unwrap_or_default()
    );
    match &mut state.phase {
        // It was started, and is what failed.
        Phase::Trial { target: tried, verdict, .. } if verdict.is_some() || fate == Some(Fate::NoTriesLeft) => {
            *tried = target;
        }
        phase => {
            // The same bundle once more: what was to become of it still is.
            let as_before = instead.is_none() && !matches!(phase, Phase::Idle) && state.by_hand.is_none();
            state.by_hand = (!as_before).then(|| target.clone());
            *phase = Phase::Installed { target, jumped: false };
        }
    }
    vec![said]
}

fn notice_own(state: &mut State, slots: &[RaucSlot], here: Slot, there: Slot) -> Vec<String> {
    let content = Content::of(slots, here).filter(|content| content.whole);
    let known = state.slots.get(&here).cloned();
    let held = content.map(|content| match known {
        Some(held) if held.installation == content.installation => held,
        _ => {
            let known = [state.phase.target(), state.running.as_ref()].into_iter().flatten();
            let target = known.into_iter().find(|target| target.version == content.version).cloned();
            content.held(target.unwrap_or_else(|| content.target()))
        }
    });
    match &held {
        Some(held) => state.slots.insert(here, held.clone()),
        None => state.slots.remove(&here),
    };
    let running = held.map(|held| held.target);
    let elsewhere = state.slots.get(&there).map(|held| held.target.clone());
    let mut said = Vec::new();
    match (&mut state.phase, running) {
        (Phase::Trial { target, slot, .. }, Some(running)) if *slot == here => {
            if *target != running {
                said.push(format!(
                    "slot {here} holds {}, which was installed by hand in place of {}; it is what is on trial",
                    running.version, target.version
                ));
                *target = running;
            }
        }
        (Phase::Trial { .. }, _) => {}
        // What waited to be started runs: an operator started it.
        (Phase::Installed { target, .. }, Some(running))
            if *target == running && elsewhere.as_ref() != Some(&running) =>
        {
            said.push(format!("{} was started in slot {here} by hand; no trial decides about it", running.version));
            (state.phase, state.by_hand, state.running) = (Phase::Idle, None, Some(running));
        }
        (_, running) => state.running = running,
    }
    said
}

#[cfg(test)]
mod tests;
