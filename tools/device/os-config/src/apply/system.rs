//! The machine itself: name, logins, journal, time, language, kernel, memory.

use super::effect::{self, Applied, Effect, own, set, then, write};
use super::{Device, Rows};
use crate::udev;
use anyhow::{Context, Result, anyhow, bail};
use os_config_model::country::WORLD;
use os_config_model::store::Store;
use os_config_model::types::{Locale, Os};
use os_config_model::{sysctl, zones};
use os_dbus::{Bus, Tried, Verb};
use os_facts::hostname::Hostname;
use os_facts::report::Report;
use os_sys::cmd::Cmd;
use os_sys::files::{self, Written};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// Where sshd reads the keys (sshd_config.d/10-os.conf).
const AUTHORIZED_KEYS: &str = "/run/os/ssh/authorized_keys";
const TIMESYNCD: &str = "/run/systemd/timesyncd.conf.d/50-os-config.conf";
const JOURNALD: &str = "/run/systemd/journald.conf.d/50-os-config.conf";
const DEVELOPMENT_TARGET: &str = "os-development.target";
/// Present while development mode is on; units of the mode check it, so that none of them can start without it.
const DEVELOPMENT_FLAG: &str = "/run/os/development-mode";
const SWAP_FILE: &str = "/mnt/data/swapfile";
const SWAP_UNIT: &str = "mnt-data-swapfile.swap";
/// A swap file leaves at least so much of the data partition, in bytes.
const SWAP_RESERVE: u64 = 512 << 20;

pub(super) async fn identity(device: &Device<'_>, rows: &mut Rows) {
    let config = device.config;
    let name = config.hostname.as_deref().map(Hostname::parse).transpose().map_err(anyhow::Error::msg);
    let hostname = match name {
        Ok(name) => os_hostname::apply(device.bus, name.as_ref()).await.map(Effect::from).map_err(Into::into),
        Err(err) => Err(err),
    };
    rows.add("/hostname", hostname);
    let logging = persistent_logging(device.bus, config.persistent_logging == Some(true)).await;
    rows.add("/persistentLogging", logging.map(Into::into));
    let development = config.development_mode.unwrap_or_else(|| !crate::is_production());
    rows.add("/developmentMode", development_mode(device.bus, development).await.map(Into::into));
    rows.add("/os/sshKeys", ssh_keys(device.store, config.os.ssh_keys.as_deref()));
}

async fn persistent_logging(bus: &Bus, on: bool) -> Result<Written> {
    if on && !files::is_mount_point("/var/log/journal") {
        bail!("the data partition is not mounted; the journal stays in RAM");
    }
    let content = on.then_some("[Journal]\nStorage=persistent\nSystemMaxUse=256M\n");
    let written = write(JOURNALD, content, 0o644)?;
    if written == Written::Changed {
        let done = switch_journal(bus, on).await;
        if done.is_err() && on {
            // What is not in force must not look as if it were: the next application tries again.
            write(JOURNALD, None, 0o644)?;
        }
        done?;
    }
    Ok(written)
}

async fn switch_journal(bus: &Bus, on: bool) -> Result<()> {
    if !on {
        // journald lets go of the files before its new configuration forgets them.
        Cmd::new("journalctl").arg("--relinquish-var").run()?;
    }
    bus.unit_job(Verb::TryRestart, "systemd-journald.service").await?;
    if on {
        Cmd::new("journalctl").arg("--flush").run()?;
    }
    Ok(())
}

async fn development_mode(bus: &Bus, on: bool) -> Result<Written> {
    let written = write(DEVELOPMENT_FLAG, on.then_some(""), 0o644)?;
    if written == Written::Changed {
        let verb = if on { Verb::Start } else { Verb::Stop };
        bus.queue(verb, DEVELOPMENT_TARGET).await?;
    }
    Ok(written)
}

/// Without keys in the configuration those that it named last stay in force; an empty list takes them away.
fn ssh_keys(store: &Store, named: Option<&[String]>) -> Applied {
    if let Some(keys) = named {
        store.keep_ssh_keys(keys)?;
    }
    let kept = store.ssh_keys().unwrap_or_default();
    let keys = named.unwrap_or(&kept);
    let lines: String = keys.iter().map(|key| format!("{}\n", key.trim())).collect();
    Ok(files::write_if_changed(Path::new(AUTHORIZED_KEYS), lines.as_bytes(), 0o600)?.into())
}

pub(super) async fn time(device: &Device<'_>, rows: &mut Rows) {
    let (bus, config) = (device.bus, device.config);
    rows.add("/ntpServers", ntp_servers(bus, config.ntp_servers.as_deref()).await);
    let zone = set("zone", config.os.time.zone.as_deref(), async |zone| {
        let zone = zone.map_or_else(image_zone, |name| zones::current(name).unwrap_or(name).to_owned());
        bus.set_timezone(&zone).await.with_context(|| format!("time zone {zone}"))?;
        // Not systemd's, but many compose files hand it to their containers.
        Ok(files::write_if_changed(Path::new("/etc/timezone"), format!("{zone}\n").as_bytes(), 0o644).map(drop)?)
    });
    rows.add("/os/time/zone", zone.await);
    let lang = set("lang", config.os.locale.lang.as_deref(), async |lang| {
        let lang = lang.unwrap_or(Locale::LANG);
        bus.set_locale(lang).await.with_context(|| format!("locale {lang}"))
    });
    rows.add("/os/locale/lang", lang.await);
    let keymap = set("keymap", config.os.locale.keymap.as_deref(), async |keymap| {
        let keymap = keymap.unwrap_or_default();
        bus.set_keymap(keymap).await.with_context(|| format!("keymap {keymap}"))
    });
    rows.add("/os/locale/keymap", keymap.await);
    let watchdog = config.os.watchdog.map(|s| s.to_string());
    rows.add(
        "/os/watchdog",
        set("watchdog", watchdog.as_deref(), async |seconds| watchdog_seconds(bus, seconds).await).await,
    );
}

async fn ntp_servers(bus: &Bus, servers: Option<&str>) -> Applied {
    let servers = servers.map(|s| s.split_ascii_whitespace().collect::<Vec<_>>().join(" ")).filter(|s| !s.is_empty());
    // Not beside those that a network names.
    let content = servers.map(|s| format!("[Time]\nNTP=\nNTP={s}\n"));
    let written = write(TIMESYNCD, content.as_deref(), 0o644)?;
    then("timesyncd", written, async { Ok(bus.queue(Verb::TryRestart, "systemd-timesyncd.service").await?) }).await
}

fn image_zone() -> String {
    let link = std::fs::read_link(effect::of_image("localtime")).unwrap_or_default();
    let link = link.to_string_lossy();
    link.split_once("zoneinfo/").map_or("UTC", |(_, zone)| zone).to_owned()
}

/// Without a wish, what the image says comes back.
async fn watchdog_seconds(bus: &Bus, seconds: Option<&str>) -> Result<()> {
    let systemd = bus.systemd().await?;
    let before = effect::memory("watchdog-of-image");
    let microseconds = match seconds {
        Some(text) => {
            if !before.exists() {
                let now = systemd.runtime_watchdog_usec().await.tried("cannot ask systemd for the watchdog")?;
                files::write_if_changed(&before, now.to_string().as_bytes(), 0o600)?;
            }
            text.parse::<u64>()?.saturating_mul(1_000_000)
        }
        None => files::read_text(&before)?.trim().parse()?,
    };
    Ok(systemd.set_runtime_watchdog_usec(microseconds).await.tried("systemd refused the time of the watchdog")?)
}

pub(super) async fn kernel(device: &Device<'_>, rows: &mut Rows) {
    let (bus, kernel) = (device.bus, &device.config.os.kernel);
    let options: String = kernel.module_options.iter().map(|(m, o)| format!("options {m} {o}\n")).collect();
    let options = write("/run/modprobe.d/50-os-config.conf", (!options.is_empty()).then_some(&options), 0o644);
    rows.add("/os/kernel/moduleOptions", options.map(Into::into).map_err(Into::into));
    rows.add("/os/kernel/modules", modules(bus, &device.config.os).await);
    let rules = udev_rules(bus, &device.config.os.udev_rules, &mut rows.warnings).await;
    rows.add("/os/udevRules", rules);
    rows.add("/country", country(bus, device.config.country.as_deref()).await);
}

/// Those that are wanted, and those of settings.
async fn modules(bus: &Bus, os: &Os) -> Applied {
    let (wanted, of_settings) = (&os.kernel.modules, sysctl::modules(&sysctl::wanted(os)));
    let others = of_settings.into_iter().filter(|module| !wanted.iter().any(|other| other == module));
    let list: String = wanted.iter().map(String::as_str).chain(others).map(|m| format!("{m}\n")).collect();
    let written = write("/run/modules-load.d/50-os-config.conf", (!list.is_empty()).then_some(&list), 0o644)?;
    // A module that is no longer wanted stays until the next boot: something may use it.
    if list.is_empty() {
        return Ok(written.into());
    }
    then("modules", written, async {
        if os.kernel.sysctl.is_empty() {
            return Ok(bus.queue(Verb::Restart, "systemd-modules-load.service").await?);
        }
        // Settings come next, and may be of these modules. Whether they are there says more than the end of a job for all.
        let _ = bus.unit_job(Verb::Restart, "systemd-modules-load.service").await;
        Ok(())
    })
    .await
}

/// Rules that udevd would drop are not laid down; what was there under their name stays.
async fn udev_rules(bus: &Bus, rules: &BTreeMap<String, String>, warnings: &mut Vec<String>) -> Applied {
    const DIRECTORY: &str = "/etc/udev/rules.d";
    let (mut files, mut refused) = (BTreeMap::new(), Vec::new());
    for (name, text) in rules {
        let file = format!("{}.rules", name.strip_suffix(".rules").unwrap_or(name));
        let text = text.replace('\r', "").trim_end().to_owned() + "\n";
        let verdict = udev::verify(&text)?;
        warnings.extend(verdict.warnings.iter().map(|line| format!("os.udevRules {name}: {line}")));
        let before =
            std::fs::read_to_string(Path::new(DIRECTORY).join(&file)).ok().filter(|_| effect::is_own("udev", &file));
        let text = match verdict.refused.as_slice() {
            [] => Some(text),
            lines => {
                let then = if before.is_some() { "those before stay" } else { "left out" };
                refused.push(format!("{name}: {} (udevadm verify); {then}", lines.join("; ")));
                before
            }
        };
        files.extend(text.map(|text| (file, text)));
    }
    let owned = own("udev", Path::new(DIRECTORY), &files, 0o644)?;
    let effect = then("udev", owned.written(), async {
        bus.queue(Verb::Reload, "systemd-udevd.service").await?;
        Ok(bus.queue(Verb::Restart, "systemd-udev-trigger.service").await?)
    })
    .await?;
    if refused.is_empty() { Ok(effect) } else { bail!("{}", refused.join("; ")) }
}

async fn country(bus: &Bus, country: Option<&str>) -> Applied {
    const FILE: &str = "/run/os/country";
    let country = country.map(str::to_ascii_uppercase);
    // Without any wish in this boot the world's rules are in force already.
    if country.is_none() && !Path::new(FILE).exists() {
        return Ok(Effect::Unchanged);
    }
    let text = format!("COUNTRY={}\n", country.as_deref().unwrap_or(WORLD));
    let written = write(FILE, Some(&text), 0o644)?;
    then("country", written, async { Ok(bus.queue(Verb::Start, "os-country.service").await?) }).await
}

pub(super) async fn memory(device: &Device<'_>, rows: &mut Rows) {
    let (bus, memory) = (device.bus, &device.config.os.memory);
    rows.add("/os/memory/swapFile", swap_file(bus, memory.swap_file.unwrap_or(0)).await);
    let zram = match Report::of_this_boot() {
        // The initramfs made the device; it reads the same file.
        Some(facts) if facts.zram_swap == memory.zram_swap => Ok(Effect::Unchanged),
        Some(_) => Ok(Effect::AtBoot),
        None => Err(anyhow!("the initramfs left no report")),
    };
    rows.add("/os/memory/zramSwap", zram);
}

async fn swap_file(bus: &Bus, mebibytes: u32) -> Applied {
    let wanted = u64::from(mebibytes) << 20;
    let path = Path::new(SWAP_FILE);
    let size = std::fs::metadata(path).map(|m| m.len()).ok();
    let active = std::fs::read_to_string("/proc/swaps").unwrap_or_default().contains(SWAP_FILE);
    if size.unwrap_or(0) == wanted && active == (wanted > 0) {
        return Ok(Effect::Unchanged);
    }
    if wanted > 0 && !files::is_mount_point(os_facts::place::DATA) {
        bail!("the data partition is not mounted");
    }
    if active {
        bus.unit_job(Verb::Stop, SWAP_UNIT).await?;
    }
    if size.unwrap_or(0) != wanted {
        files::remove_if_there(path)?;
    }
    if wanted == 0 {
        return Ok(Effect::Changed);
    }
    if !path.exists() {
        let space = rustix::fs::statvfs("/mnt/data")?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free < wanted.saturating_add(SWAP_RESERVE) {
            bail!(
                "{} MiB are free on the data partition; a swap file of {mebibytes} MiB needs 512 MiB more than itself",
                free >> 20
            );
        }
        make_swap(wanted)?;
    }
    bus.queue(Verb::Start, SWAP_UNIT).await?;
    Ok(Effect::Changed)
}

fn make_swap(size: u64) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    // Under another name until it is whole.
    let new = "/mnt/data/.swapfile.new";
    files::remove_if_there(Path::new(new))?;
    let file = File::options().write(true).create_new(true).mode(0o600).open(new)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size)?;
    drop(file);
    Cmd::new("mkswap").arg(new).run()?;
    Ok(files::rename(Path::new(new), Path::new(SWAP_FILE))?)
}
