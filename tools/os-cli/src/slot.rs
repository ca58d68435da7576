//! `os slot`: the two system slots, by hand.

use crate::{SlotCommand, print_json, status};
use anyhow::Result;
use os_dbus::Bus;
use std::process::ExitCode;

pub(crate) async fn run(command: SlotCommand, json: bool) -> Result<ExitCode> {
    match command {
        SlotCommand::Status => {
            let slots = status::slots(&Bus::system().await?).await?;
            if json {
                print_json(&slots)?;
            } else {
                slots.iter().for_each(|slot| os_sys::say!("{slot}"));
            }
        }
        SlotCommand::Switch { yes, reboot } => {
            if !yes {
                os_sys::ask::agree("has the device start its other slot from the next boot on", "switch")?;
            }
            let slot = os_update::switch().await?;
            os_sys::say!("slot {slot} is started at the next boot; os slot mark active takes it back");
            if reboot {
                os_sys::cmd::Cmd::new("systemctl").arg("reboot").run()?;
            }
        }
        SlotCommand::Mark { state, slot } => {
            let slot = os_update::mark(state, slot.as_deref()).await?;
            os_sys::say!("slot {slot} is marked");
        }
    }
    Ok(ExitCode::SUCCESS)
}
