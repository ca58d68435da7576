//! What the networks say of names and of the time: `os-network.service`, whenever NetworkManager's dispatcher or a change of
//! config.json asks for it.

mod default_route;
mod networks;
mod time;

use crate::links;
use anyhow::Result;
use clap::Parser;
use os_config_model::engine;
use os_config_model::names::{self, Names, REMEMBERED, RESOLV_CONF, SERVERS};
use os_dbus::{Bus, Verb};
use os_sys::files::{self, Written};
use std::path::Path;
use std::process::ExitCode;

/// Where config.json's wishes for name servers are, one in a line; missing while there are none.
pub const WISHES: &str = "/run/os/dns-servers";
/// There while os-dns is not to run (its unit has a condition).
pub const RESOLVER_OFF: &str = "/run/os/resolver-off";
/// The service that does it.
pub const SERVICE: &str = "os-network.service";
/// There when something changed since the service began: its path has it run, and once more when it was there already.
const CHANGED: &str = "/run/os/network/changed";
/// Follow what the networks say of names and of the time. NetworkManager's dispatcher calls it with an interface and an event.
#[derive(Debug, Parser)]
#[command(name = "os-network", version)]
pub struct Args {
    /// Interface and event: leave the work to os-network.service, which may do little
    #[arg(num_args = 0..)]
    event: Vec<String>,
}

/// The applet.
///
/// # Errors
/// When there is no system bus, NetworkManager does not answer, or something cannot be written.
pub async fn main(args: Args) -> Result<ExitCode> {
    if !args.event.is_empty() {
        if is_of_interest(&args.event) {
            files::write_if_changed(Path::new(CHANGED), b"", 0o600)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    // What changes from here on is for another run.
    files::remove_if_there(Path::new(CHANGED))?;
    let bus = Bus::system().await?;
    if let Err(err) = follow(&bus).await {
        // NetworkManager that has gone away says itself when it is back.
        if bus.network_manager().await?.is_some() {
            return Err(err);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// NetworkManager-dispatcher(8).
fn is_of_interest(event: &[String]) -> bool {
    const ACTIONS: [&str; 8] =
        ["up", "down", "vpn-up", "vpn-down", "dhcp4-change", "dhcp6-change", "dns-change", "reapply"];
    event.first().is_none_or(|interface| interface != "lo")
        && event.get(1).is_some_and(|a| ACTIONS.contains(&a.as_str()))
}

async fn follow(bus: &Bus) -> Result<()> {
    let routes = default_route::interfaces();
    let of_networks = networks::of_networks(&bus.network_names().await?, &|name| routes.contains(name));
    let wishes = names::wishes(&std::fs::read_to_string(WISHES).unwrap_or_default());
    let names = names::with_wishes(of_networks, &wishes);
    // The one that is there, while another waits for the next boot.
    let links = links::read();
    warn_of_overlaps(&links);
    let bridge = links::address_of(&links, "docker0").map(|address| address.to_string());
    let bridge = bridge.or_else(|| engine::bridge(Path::new("/etc")));
    remember(&names::resolv_conf(&names, false, None));
    files::write_if_changed(
        Path::new(RESOLV_CONF),
        names::resolv_conf(&names, !Path::new(RESOLVER_OFF).exists(), bridge.as_deref()).as_bytes(),
        0o644,
    )?;
    // One service that does not answer keeps nothing from the other.
    let dns = tell(bus, SERVERS, Some(&names::for_dnsmasq(&names)), Verb::Reload, "os-dns.service").await;
    let time = time::drop_in(&bus.time_servers().await?);
    let time = tell(bus, time::DROP_IN, time.as_deref(), Verb::TryRestart, "systemd-timesyncd.service").await;
    dns.and(time)
}

/// Says it when a network comes up that the engine has given to containers, and once; `os status` says it as long as it is so.
fn warn_of_overlaps(links: &[links::Link]) {
    const SAID: &str = "/run/os/network/overlaps";
    let now = links::overlaps(links);
    let before = std::fs::read_to_string(SAID).unwrap_or_default();
    for line in now.iter().filter(|line| !before.lines().any(|said| said == *line)) {
        os_sys::log::warn(line);
    }
    let text: String = now.iter().map(|line| format!("{line}\n")).collect();
    if let Err(err) = files::write_if_changed(Path::new(SAID), text.as_bytes(), 0o644) {
        os_sys::log::warn(&err.to_string());
    }
}

/// Containers that start before the network will have it. What is missing or cannot be written costs them search domains only.
fn remember(resolv_conf: &str) {
    let path = Path::new(os_facts::place::STATE).join(REMEMBERED);
    // Not without a network: the next boot may have this one again.
    if names::recall(resolv_conf) == Names::default() || !path.parent().is_some_and(Path::is_dir) {
        return;
    }
    if let Err(err) = files::write_if_changed(&path, resolv_conf.as_bytes(), 0o644) {
        os_sys::log::warn(&err.to_string());
    }
}

/// Writes a file of a service and tells that; again at the next call when this one ends in between.
async fn tell(bus: &Bus, file: &str, text: Option<&str>, verb: Verb, unit: &str) -> Result<()> {
    let owed = format!("/run/os/network/owed-{unit}");
    if std::fs::read_to_string(file).ok().as_deref() == text && !Path::new(&owed).exists() {
        return Ok(());
    }
    files::write_if_changed(Path::new(&owed), b"", 0o600)?;
    let _: Written = match text {
        Some(text) => files::write_if_changed(Path::new(file), text.as_bytes(), 0o644)?,
        None => files::remove_if_there(Path::new(file))?,
    };
    bus.queue(verb, unit).await?;
    files::remove_if_there(Path::new(&owed))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_names_or_servers_is_followed() {
        let event = |interface: &str, action: &str| is_of_interest(&[interface.to_owned(), action.to_owned()]);
        assert!(event("eth0", "up") && event("", "dns-change") && event("wg0", "down"));
        assert!(!event("lo", "up") && !event("eth0", "pre-up") && !event("none", "hostname") && !is_of_interest(&[]));
        assert!(Args::try_parse_from(["os-network", "", "dns-change"]).is_ok_and(|args| args.event.len() == 2));
    }
}
