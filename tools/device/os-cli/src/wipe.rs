//! `os wipe`: asks the initramfs of the next boot to erase.

use crate::{WipeTarget, finish};
use anyhow::{Context, Result};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn request(what: WipeTarget, yes: bool, reboot: bool, json: bool) -> Result<ExitCode> {
    let (word, meaning) = match what {
        WipeTarget::Apps => ("apps", "every container and image on this device"),
        WipeTarget::State => ("state", "the identity of this device and what it keeps of its configuration"),
        WipeTarget::Data => ("data", "every container, app and log on this device"),
        WipeTarget::All => ("all", "everything but the system itself and config.json"),
    };
    if !yes {
        os_sys::ask::agree(&format!("erases {meaning} at the next boot"), word)?;
    }
    let path = Path::new(os_facts::place::BOOT).join(os_config_model::wipe::REQUEST);
    os_sys::files::write_if_changed(&path, word.as_bytes(), 0o644)
        .context("the boot partition does not take the request")?;
    let text = format!("The next boot erases {word}; remove {} to cancel this.", path.display());
    finish(&text, &json!({ "what": word, "request": path }), reboot, json)
}
