//! `os wipe`: asks the initramfs of the next boot to erase.

use crate::WipeTarget;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, IsTerminal, Write};
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
        if !std::io::stdin().is_terminal() {
            bail!("this erases {meaning}; say --yes if that is meant");
        }
        print!("This erases {meaning} at the next boot. Type {word} to go on: ");
        std::io::stdout().flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if answer.trim() != word {
            println!("Nothing was changed.");
            return Ok(ExitCode::from(1));
        }
    }
    let path = Path::new("/mnt/boot").join(os_config::wipe::REQUEST);
    os_sys::files::write_if_changed(&path, word.as_bytes(), 0o644)
        .context("the boot partition does not take the request")?;
    println!("{word} is erased at the next boot; remove {} to take it back.", path.display());
    if reboot {
        os_sys::cmd::Cmd::new("systemctl").arg("reboot").run()?;
    }
    Ok(ExitCode::SUCCESS)
}
