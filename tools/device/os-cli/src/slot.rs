//! `os slot`: the two system slots, by hand.

use crate::{SlotCommand, finish};
use anyhow::Result;
use os_dbus::{Bus, RaucSlot};
use os_disk::ext4;
use os_facts::report::Report;
use os_facts::{Role, Slot};
use os_sys::out;
use os_update::standing::Standing;
use os_update::state::Store;
use serde::Serialize;
use serde_json::json;
use std::fmt;
use std::process::ExitCode;

/// A slot and what it is good for. The JSON form is stable; fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    /// Which one.
    name: Slot,
    /// `booted`, `inactive`, `installing`, or `empty`.
    state: &'static str,
    /// The bootloader may start it; `null` where that is not known now.
    good: Option<bool>,
    /// Version of the OS in it, where that is known.
    version: Option<String>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let good = match self.good {
            Some(_) if self.state == "empty" => "",
            Some(true) => "good",
            Some(false) => "bad",
            None => "",
        };
        let line = format!("{} {:<10} {good:<5} {}", self.name, self.state, self.version.as_deref().unwrap_or(""));
        f.write_str(line.trim_end())
    }
}

pub(crate) async fn run(command: SlotCommand, json: bool) -> Result<ExitCode> {
    match command {
        SlotCommand::Status => {
            let rows = rows(&Bus::system().await?).await?;
            if json {
                out::json(&json!({ "slots": rows }));
            } else {
                rows.iter().for_each(|row| os_sys::say!("{row}"));
            }
            Ok(ExitCode::SUCCESS)
        }
        SlotCommand::Switch { yes, reboot } => {
            if !yes {
                os_sys::ask::agree("makes the device boot its other slot from the next restart on", "switch")?;
            }
            let slot = os_update::switch().await?;
            let text = format!("Slot {slot} is booted at the next restart; os slot mark active reverts this.");
            finish(&text, &json!({ "slot": slot, "state": "active" }), reboot, json)
        }
        SlotCommand::Mark { state, slot } => {
            let slot = os_update::mark(state, slot).await?;
            let answer = json!({ "slot": slot, "state": state.word() });
            finish(&format!("Slot {slot} is marked {}.", state.word()), &answer, false, json)
        }
    }
}

/// Both slots, through RAUC; while that is at work it answers nobody, and what is written down has to do.
///
/// # Errors
/// When RAUC cannot be asked.
pub(crate) async fn rows(bus: &Bus) -> Result<Vec<Row>> {
    let standing = Standing::of_device();
    if standing.phase == "installing" {
        let booted = Report::of_this_boot().map(|report| report.slot);
        return Ok(while_installing(booted, standing.release.map(|release| release.version)));
    }
    let slots = bus.slots().await;
    os_update::let_rauc_rest(bus).await;
    let shipped = Store::device().load().shipped;
    let is_empty = |name: Slot| ext4::is_blank(&Role::Kernel(name).device()).unwrap_or(false);
    Ok(slots?.into_iter().filter_map(|slot| row(slot, shipped.as_deref(), &is_empty)).collect())
}

/// Only the slot of a pair that the bootloader knows has a name for it.
fn row(slot: RaucSlot, shipped: Option<&str>, is_empty: &dyn Fn(Slot) -> bool) -> Option<Row> {
    let name = slot.bootname?.parse().ok()?;
    let good = slot.boot_status.map(|status| status == "good");
    let booted = slot.state == "booted";
    if !booted && is_empty(name) {
        return Some(Row { name, state: "empty", good, version: None });
    }
    let running = || booted.then(|| os_sys::release::field("VERSION_ID")).flatten();
    let version = slot.version.or_else(running).or_else(|| shipped.map(str::to_owned));
    Some(Row { name, state: if booted { "booted" } else { "inactive" }, good, version })
}

fn while_installing(booted: Option<Slot>, version: Option<String>) -> Vec<Row> {
    let row = |name: Slot| match booted == Some(name) {
        true => Row { name, state: "booted", good: None, version: os_sys::release::field("VERSION_ID") },
        false => Row { name, state: "installing", good: None, version: version.clone() },
    };
    Slot::BOTH.map(row).into()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a device has after its first update.
    pub(crate) fn example() -> Vec<Row> {
        let row = |name, state, version: &str| Row { name, state, good: Some(true), version: Some(version.to_owned()) };
        vec![row(Slot::A, "inactive", "0.1.0"), row(Slot::B, "booted", "0.2.0")]
    }

    fn slot(bootname: Option<&str>, state: &str, good: bool, version: Option<&str>) -> RaucSlot {
        RaucSlot {
            name: "kernel.0".to_owned(),
            class: "kernel".to_owned(),
            bootname: bootname.map(str::to_owned),
            state: state.to_owned(),
            boot_status: Some(if good { "good" } else { "bad" }.to_owned()),
            version: version.map(str::to_owned),
            transaction: None,
            manifest_hash: None,
            status: None,
        }
    }

    #[test]
    fn a_slot_is_one_line_and_says_what_it_holds() {
        let said = |slot, empty: bool| row(slot, Some("0.1.0"), &|_| empty).map(|row| row.to_string());
        assert_eq!(said(slot(Some("B"), "booted", true, Some("0.2.0")), false).unwrap(), "B booted     good  0.2.0");
        assert_eq!(said(slot(Some("A"), "inactive", true, None), false).unwrap(), "A inactive   good  0.1.0");
        assert_eq!(said(slot(Some("B"), "inactive", false, None), true).unwrap(), "B empty");
        assert_eq!(said(slot(None, "inactive", false, None), false), None);
    }

    #[test]
    fn while_rauc_is_at_work_the_slots_are_known_all_the_same() {
        let rows = while_installing(Some(Slot::B), Some("0.3.0".to_owned()));
        assert_eq!(rows[0].to_string(), "A installing       0.3.0");
        assert_eq!((rows[1].name, rows[1].state), (Slot::B, "booted"));
    }
}
