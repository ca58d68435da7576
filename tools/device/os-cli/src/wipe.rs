//! `os wipe`: asks the initramfs of the next boot to erase.

use crate::finish;
use anyhow::{Context, Result};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use os_facts::WipeScope;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

/// The scopes, each with what it is.
pub(crate) fn scopes() -> impl TypedValueParser<Value = WipeScope> {
    let value = |scope: WipeScope| PossibleValue::new(scope.word()).help(short(scope));
    PossibleValuesParser::new(WipeScope::EACH.map(value)).try_map(|word| word.parse::<WipeScope>())
}

fn short(scope: WipeScope) -> &'static str {
    match scope {
        WipeScope::Apps => "Containers and images",
        WipeScope::State => "Identity and host configuration",
        WipeScope::Data => "The whole data partition: containers, apps and logs",
        WipeScope::All => "State and data",
    }
}

pub(crate) fn request(what: WipeScope, yes: bool, reboot: bool, json: bool) -> Result<ExitCode> {
    let meaning = match what {
        WipeScope::Apps => "every container and image on this device",
        WipeScope::State => "the identity of this device and what it keeps of its configuration",
        WipeScope::Data => "every container, app and log on this device",
        WipeScope::All => "everything but the system itself and config.json",
    };
    if !yes {
        os_sys::ask::agree(&format!("erases {meaning} at the next boot"), what.word())?;
    }
    let boot = Path::new(os_facts::place::BOOT);
    os_config_model::wipe::ask(boot, what, None).context("the boot partition does not take the request")?;
    let path = boot.join(os_config_model::wipe::REQUEST);
    let text = format!("The next boot erases {what}; remove {} to cancel this.", path.display());
    finish(&text, &json!({ "what": what, "request": path }), reboot, json)
}
