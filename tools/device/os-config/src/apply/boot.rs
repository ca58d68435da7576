//! What the next boot reads: kernel arguments, requests to erase, the script of the first boot.

use super::effect::{Applied, Effect, memory, then};
use super::{Device, Rows};

use anyhow::{Context, bail};
use os_boot::Loader;
use os_config_model::wipe;
use os_dbus::Verb;
use os_facts::report::Report;
use os_sys::files::{self, Written};
use std::path::Path;

pub(super) async fn all(device: &Device<'_>, rows: &mut Rows) {
    let os = &device.config.os;
    rows.add(
        "/os/kernel/arguments",
        kernel_arguments(device.store.boot(), os.kernel.arguments.as_deref().unwrap_or("")),
    );
    let facts = Report::of_this_boot();
    rows.add("/os/encryption/data", encryption(os.encryption.data.as_deref(), facts.as_ref()));
    rows.add("/os/firstBoot", first_boot(device, os.first_boot.as_deref()).await);
    let first = facts.is_some_and(|facts| facts.first_boot);
    let request = os.wipe.as_ref().map(|w| (w.what, w.request.as_str()));
    let wipe = wipe::request(device.store.boot(), request, first).map(|asked| match asked {
        wipe::Asked::Pending => Effect::AtBoot,
        wipe::Asked::No => Effect::Unchanged,
    });
    rows.add("/os/wipe", wipe.map_err(Into::into));
}

/// Arguments that a boot did not get to its end with. They stay out until the configuration names others.
const REFUSED: &str = "/mnt/state/os/config/refused-arguments";

fn kernel_arguments(boot: &Path, arguments: &str) -> Applied {
    let arguments = arguments.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    let loader = Loader::on(boot)?;
    let refused = std::fs::read_to_string(REFUSED).ok();
    let running = files::read_text(Path::new("/proc/cmdline"))?;
    let seen = memory("kernel-arguments");
    let written = match refused.as_deref() {
        Some(text) if text == arguments => Written::Unchanged,
        _ => {
            files::remove_if_there(Path::new(REFUSED))?;
            loader.set_arguments(&arguments)?
        }
    };
    if written == Written::Changed {
        // Not what this boot was started with.
        files::write_if_changed(&seen, b"", 0o600)?;
    }
    match (seen.exists(), in_force(&arguments, &running)) {
        (_, true) if written == Written::Unchanged => Ok(Effect::Unchanged),
        (true, _) => Ok(Effect::AtBoot),
        (false, _) => {
            files::write_if_changed(Path::new(REFUSED), arguments.as_bytes(), 0o600)?;
            loader.set_arguments("")?;
            bail!(
                "the last boot did not get to its end with these arguments and was repeated without them; name others, \
                 or unset the key and set it again to try once more"
            )
        }
    }
}

fn in_force(arguments: &str, running: &str) -> bool {
    let mut wanted = arguments.split(' ').filter(|a| !a.is_empty());
    wanted.all(|a| running.split_ascii_whitespace().any(|r| r == a))
}

/// The initramfs does it; here is said what became of it.
fn encryption(wanted: Option<&str>, facts: Option<&Report>) -> Applied {
    let found = &facts.context("the initramfs left no report")?.encryption;
    match (wanted, &found.problem) {
        // Without the key everything stays as it is.
        (None, _) => Ok(Effect::Unchanged),
        (Some(wanted), _) if wanted == found.found.word() => Ok(Effect::Unchanged),
        (Some(wanted), Some(problem)) if found.wanted.as_deref() == Some(wanted) => bail!("{problem}"),
        _ => Ok(Effect::AtBoot),
    }
}

async fn first_boot(device: &Device<'_>, script: Option<&str>) -> Applied {
    let path = Path::new("/run/os/first-boot");
    let Some(script) = script else {
        return Ok(files::remove_if_there(path)?.into());
    };
    if Path::new(crate::FIRST_BOOT_DONE).exists() {
        return Ok(Effect::Unchanged);
    }
    let script = script.replace("\r\n", "\n");
    let written = files::write_if_changed(path, script.as_bytes(), 0o700).context("cannot write the script")?;
    then("first-boot", written, async { Ok(device.bus.queue(Verb::Start, "os-first-boot.service").await?) }).await
}
