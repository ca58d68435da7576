//! `os wipe`: asks the initramfs of the next boot to erase.

use crate::WipeTarget;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn request(what: WipeTarget, yes: bool, reboot: bool) -> Result<ExitCode> {
    let (word, meaning) = match what {
        WipeTarget::Apps => ("apps", "every container and image on this device"),
        WipeTarget::State => ("state", "the identity and the configuration of this device"),
        WipeTarget::Data => ("data", "every container, app and log on this device"),
        WipeTarget::All => ("all", "everything but the system itself"),
    };
    if !yes {
        os_sys::ask::agree(&format!("erases {meaning} at the next boot"), word)?;
    }
    let path = Path::new("/mnt/boot").join(os_config::wipe::REQUEST);
    os_sys::files::write_if_changed(&path, word.as_bytes(), 0o644)
        .context("the boot partition does not take the request")?;
    os_sys::say!("{word} is erased at the next boot; remove {} to take it back.", path.display());
    if reboot {
        os_sys::cmd::Cmd::new("systemctl").arg("reboot").run()?;
    }
    Ok(ExitCode::SUCCESS)
}
