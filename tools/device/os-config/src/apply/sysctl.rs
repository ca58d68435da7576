//! Settings of the kernel. systemd-sysctl writes them, which has them written again when an interface comes; what the kernel
//! says afterwards decides.

use super::effect::Effect;
use super::{Device, Rows};
use anyhow::{Result, anyhow};
use os_config_model::sysctl::{self, Found, Kernel, Setting};
use os_dbus::{Bus, Verb};
use os_sys::files::Written;

const KEY: &str = "/os/kernel/sysctl";
const SWAPPINESS_KEY: &str = "/os/memory/swappiness";

pub(super) async fn all(device: &Device<'_>, rows: &mut Rows) {
    let kernel = Kernel::default();
    let mut settings = sysctl::wanted(&device.config.os);
    if kernel.is_rescue() {
        rows.add(SWAPPINESS_KEY, Ok(wait_for_boot(settings.iter().any(is_swappiness))));
        rows.add(KEY, Ok(wait_for_boot(settings.iter().any(|setting| !is_swappiness(setting)))));
        return;
    }
    let mut ends: Vec<(Setting, End)> = Vec::new();
    settings.retain(|setting| match kernel.too_much(setting) {
        Some(why) => {
            ends.push((setting.clone(), End::Failed(why)));
            false
        }
        None => true,
    });
    match set(device.bus, &kernel, &settings).await {
        Ok(done) => ends.extend(done),
        Err(err) => ends.extend(settings.into_iter().map(|setting| (setting, End::Failed(format!("{err:#}"))))),
    }
    let (swappiness, others): (Vec<_>, Vec<_>) = ends.into_iter().partition(|(setting, _)| is_swappiness(setting));
    for (key, ends) in [(SWAPPINESS_KEY, swappiness), (KEY, others)] {
        rows.notes.extend(ends.iter().filter_map(note));
        rows.add(key, together(&ends));
    }
}

fn is_swappiness(setting: &Setting) -> bool {
    sysctl::path(sysctl::SWAPPINESS).as_deref() == Some(&*setting.path)
}

fn wait_for_boot(wanted: bool) -> Effect {
    if wanted { Effect::AtBoot } else { Effect::Unchanged }
}

/// What became of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// It is in force, or gone; it was not before.
    Set,
    /// It was in force already.
    Unchanged,
    /// It is set when the interface comes.
    Waits(String),
    /// It is no longer wanted, and in force until the next boot.
    Stays,
    /// Why it is not in force.
    Failed(String),
}

/// Brings settings into force; returns what became of each, and of those that are no longer wanted.
async fn set(bus: &Bus, kernel: &Kernel, settings: &[Setting]) -> Result<Vec<(Setting, End)>> {
    let before: Vec<Found> = settings.iter().map(|setting| kernel.look(setting)).collect();
    let last = kernel.wanted_last();
    let written = kernel.write_files(settings)?;
    let mut job = Ok(());
    if written == Written::Changed || before.iter().any(|found| *found != Found::Wanted) {
        job = bus.unit_job(Verb::Restart, "systemd-sysctl.service").await;
    }
    let end = |(setting, before): (&Setting, Found)| match kernel.look(setting) {
        Found::Wanted if before == Found::Wanted => End::Unchanged,
        Found::Wanted => End::Set,
        Found::NoInterface(interface) => End::Waits(interface),
        Found::Unreadable(why) => End::Failed(why),
        Found::Other(found) => match &job {
            Ok(()) => End::Failed(format!("the kernel did not take \"{}\"; it is \"{found}\"", setting.value)),
            Err(err) => End::Failed(format!("is \"{found}\": {err}")),
        },
    };
    let mut ends: Vec<(Setting, End)> = settings.iter().cloned().zip(settings.iter().zip(before).map(end)).collect();
    for (path, value) in last.into_iter().filter(|(path, _)| !settings.iter().any(|setting| setting.path == *path)) {
        let end = if kernel.has_stayed(&path, &value) { End::Stays } else { End::Set };
        ends.push((Setting { name: path.clone(), path, value }, end));
    }
    Ok(ends)
}

fn note((setting, end): &(Setting, End)) -> Option<String> {
    let name = &setting.name;
    match end {
        End::Waits(interface) => Some(format!("os.kernel.sysctl: {name} is set when the interface {interface} comes")),
        End::Stays => Some(format!("os.kernel.sysctl: {name} stays \"{}\" until the next boot", setting.value)),
        End::Set | End::Unchanged | End::Failed(_) => None,
    }
}

/// The result for all settings of a key.
fn together(ends: &[(Setting, End)]) -> super::Applied {
    let failed: Vec<String> = ends
        .iter()
        .filter_map(|(setting, end)| match end {
            End::Failed(why) => Some(format!("{}: {why}", setting.name)),
            _ => None,
        })
        .collect();
    if !failed.is_empty() {
        return Err(anyhow!("{}", failed.join("; ")));
    }
    let any = |wanted: fn(&End) -> bool| ends.iter().any(|(_, end)| wanted(end));
    Ok(if any(|end| matches!(end, End::Waits(_) | End::Stays)) {
        Effect::AtBoot
    } else if any(|end| *end == End::Set) {
        Effect::Changed
    } else {
        Effect::Unchanged
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_applied_when_all_of_it_is() {
        let end = |name: &str, end: End| {
            (Setting { name: name.to_owned(), path: name.replace('.', "/"), value: "1".to_owned() }, end)
        };
        let set = end("vm.a", End::Set);
        assert_eq!(together(&[set.clone(), end("vm.b", End::Unchanged)]).unwrap(), Effect::Changed);
        assert_eq!(together(&[]).unwrap(), Effect::Unchanged);
        let waits = end("net.ipv4.conf.wg0.forwarding", End::Waits("wg0".to_owned()));
        assert!(note(&waits).unwrap().contains("when the interface wg0 comes"));
        assert_eq!(together(&[set.clone(), waits]).unwrap(), Effect::AtBoot);
        let failed = end("vm.nosuch", End::Failed("this kernel has no such setting".to_owned()));
        let said = together(&[set, failed]).unwrap_err().to_string();
        assert_eq!(said, "vm.nosuch: this kernel has no such setting");
    }
}
