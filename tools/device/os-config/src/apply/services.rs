//! Services that are off until they are configured: the proxy, OpenVPN, the broker.

use super::effect::{Applied, Effect, memory, own, then, write};
use super::{Device, Rows, proxy};
use anyhow::{Context, Result};
use os_config_model::types::{Listen, Mqtt};
use os_dbus::{Bus, Verb};
use os_sys::cmd::Cmd;
use os_sys::files::{self, Written};
use std::collections::BTreeMap;
use std::path::Path;

pub(super) async fn all(device: &Device<'_>, rows: &mut Rows) {
    proxy::all(device, rows).await;
    let openvpn = &device.config.os.openvpn;
    rows.add("/os/openvpn/clients", tunnels(device.bus, "client", &openvpn.clients).await);
    let server = openvpn.server.as_ref().filter(|s| s.enabled);
    let server = server.map(|s| ("os".to_owned(), s.config.clone())).into_iter().collect();
    rows.add("/os/openvpn/server", tunnels(device.bus, "server", &server).await);
    rows.add("/os/mqtt", broker(device.bus, device.config.os.mqtt.as_ref().filter(|m| m.enabled)).await);
}

/// OpenVPN's own units, `openvpn-client@` and `openvpn-server@`, read one file each.
async fn tunnels(bus: &Bus, side: &str, wanted: &BTreeMap<String, String>) -> Applied {
    let files = wanted.iter().map(|(name, text)| (format!("{name}.conf"), text.replace('\r', "") + "\n")).collect();
    let owned = own(&format!("openvpn-{side}"), &Path::new("/etc/openvpn").join(side), &files, 0o600)?;
    let unit = |file: &String| format!("openvpn-{side}@{}.service", file.trim_end_matches(".conf"));
    then(&format!("openvpn-{side}"), owned.written(), async {
        for file in &owned.removed {
            bus.queue(Verb::Stop, &unit(file)).await?;
        }
        for file in &owned.changed {
            bus.queue(Verb::Restart, &unit(file)).await?;
        }
        Ok(())
    })
    .await
}

const BROKER: &str = "os-mqtt.service";
const BROKER_CONFIG: &str = "/run/os/mqtt/mosquitto.conf";
const BROKER_USERS: &str = "/run/os/mqtt/users";

async fn broker(bus: &Bus, mqtt: Option<&Mqtt>) -> Applied {
    let config = mqtt.map(broker_config);
    let users: Option<String> =
        mqtt.map(|m| m.users.iter().map(|(name, password)| format!("{name}:{password}\n")).collect());
    // What was hashed last, to know whether it changed: a hash is another one every time.
    let plain = memory("mqtt-users");
    let changed = match &users {
        Some(users) => files::write_if_changed(&plain, users.as_bytes(), 0o600)?,
        None => files::remove_if_there(&plain)?,
    };
    if changed == Written::Changed || users.is_some() && !Path::new(BROKER_USERS).exists() {
        hash_users(users.as_deref()).inspect_err(|_| {
            let _ = files::remove_if_there(&plain);
        })?;
    }
    let written = super::effect::either(write(BROKER_CONFIG, config.as_deref(), 0o644)?, changed);
    let verb = if mqtt.is_some() { Verb::Restart } else { Verb::Stop };
    if mqtt.is_none() && written == Written::Unchanged {
        return Ok(Effect::Unchanged);
    }
    then("mqtt", written, async { Ok(bus.queue(verb, BROKER).await?) }).await
}

fn broker_config(mqtt: &Mqtt) -> String {
    let port = mqtt.port.unwrap_or(Mqtt::PORT);
    let listeners = match mqtt.listen.unwrap_or_default() {
        Listen::All => format!("listener {port}\n"),
        Listen::Local => format!("listener {port} 127.0.0.1\n"),
    };
    format!(
        "# Made from config.json\n{listeners}allow_anonymous false\n\
         password_file /run/credentials/{BROKER}/users\npersistence false\nlog_dest stderr\nlog_timestamp false\n"
    )
}

/// mosquitto_passwd(1) hashes a file in place, so no password is ever an argument.
fn hash_users(users: Option<&str>) -> Result<()> {
    let Some(users) = users else {
        files::remove_if_there(Path::new(BROKER_USERS))?;
        return Ok(());
    };
    let new = format!("{BROKER_USERS}.new");
    files::write_if_changed(Path::new(&new), users.as_bytes(), 0o600)?;
    Cmd::new("mosquitto_passwd").arg("-U").arg(&new).run().context("cannot hash the passwords of the broker")?;
    Ok(files::rename(Path::new(&new), Path::new(BROKER_USERS))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_always_asks_for_a_password() {
        let mut mqtt = Mqtt { enabled: true, listen: None, port: None, users: BTreeMap::new() };
        let text = broker_config(&mqtt);
        assert!(text.contains("listener 1883 127.0.0.1\n") && text.contains("allow_anonymous false\n"), "{text}");
        mqtt.listen = Some(Listen::All);
        mqtt.port = Some(8883);
        assert!(broker_config(&mqtt).contains("listener 8883\n"));
    }
}
