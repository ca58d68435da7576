//! `os config` on the device.

use super::{FIXED_MAC, Keys};
use crate::harness::artifacts::NO_DEMO;
use crate::harness::device::equal;
use crate::harness::lab::Lab;
use crate::harness::vm::Vm;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;

pub(super) fn commands(vm: &Vm, lab: &Lab, keys: &mut Keys<'_>) {
    const NAME: &str = "os config restarts no container";
    let started = "docker inspect -f '{{.State.StartedAt}} {{.State.Status}}' witness";
    let witness = lab.artifacts.demo.as_ref().map(|demo| -> Result<String> {
        let archive = demo.files.first().context("the container has no archive")?;
        vm.ssh(&format!(
            "docker load -q < /mnt/boot/{archive} >/dev/null && rm {} && docker run -d --name witness {} >/dev/null",
            demo.files.iter().map(|file| format!("/mnt/boot/{file}")).collect::<Vec<_>>().join(" "),
            demo.image
        ))?;
        vm.ssh(started)
    });
    keys.checks.check("os config set, get, unset, diff, history and rollback", || {
        equal(&vm.ssh("os config set hostname e2e-set && hostname && os config get hostname")?, "hostname: applied\ne2e-set\ne2e-set")?;
        let (code, text) = vm.ssh_code("os config set hostname 'not a name'")?;
        ensure!(code == 1 && text.contains("expected"), "exit code {code}: {text}");
        let (code, _) = vm.ssh_code("os config set os.watchdog 9999")?;
        ensure!(code == 1, "a watchdog of 9999 seconds was taken");
        // Two at a time, and neither loses what the other one wrote.
        vm.ssh("os config set country AT >/dev/null & os config set os.watchdog 45 >/dev/null; wait")?;
        equal(&vm.ssh("os config get country; os config get os.watchdog")?, "AT\n45")?;
        equal(&vm.ssh("os config unset os.watchdog >/dev/null; systemctl show -p RuntimeWatchdogUSec --value")?, "30s")?;
        let history: Value = serde_json::from_str(&vm.ssh("os config history --json")?)?;
        let last = history["versions"].as_array().and_then(|h| h.last()).context("no history")?;
        ensure!(last["changed"] == json!(["os.watchdog"]), "{history}");
        vm.ssh("os config rollback >/dev/null")?;
        equal(&vm.ssh("systemctl show -p RuntimeWatchdogUSec --value; hostname")?, "45s\ne2e-set")?;
        vm.ssh("echo '{' > /mnt/boot/config.json; sleep 1")?;
        let (code, _) = vm.ssh_code("os config validate >/dev/null")?;
        ensure!(code == 1, "a broken file is valid");
        vm.ssh("os config rollback $(os config history --json | grep -o '\"number\": [0-9]*' | tail -1 | grep -o '[0-9]*')")?;
        equal(&vm.ssh("os config get hostname; os config diff")?, "e2e-set")
    });
    keys.checks.check("what can mean one thing only is understood with a warning; an old zone is the zone of today", || {
        let zone = "timedatectl show -p Timezone --value";
        equal(&vm.ssh(&format!("os config set os.time.zone US/Eastern >/dev/null && {zone}"))?, "America/New_York")?;
        equal(&vm.ssh(&format!("os config set os.time.zone Europe/Berlin >/dev/null && {zone}"))?, "Europe/Berlin")?;
        let (code, text) = vm.ssh_code("os config set country UK")?;
        ensure!(code == 1 && text.contains("write \"GB\""), "exit code {code}: {text}");
        let validate = |config: &Value| vm.ssh_code(&format!("echo '{config}' | os config validate -"));
        let key = json!({"persistentLogging": "true", "os": null, "wifiSsid": "a", "wifiKey": "0a".repeat(32), "ntpServers": ""});
        let (code, text) = validate(&key)?;
        ensure!(code == 0 && text.contains("persistentLogging: is a text; taken as true"), "exit code {code}: {text}");
        ensure!(text.contains("wifiKey: is a key of 64"), "{text}");
        let (code, text) = validate(&json!({"hostname": "localhost", "os": {"sshKeys": "null"}}))?;
        ensure!(code == 1 && text.contains("null without quotes") && text.contains("hostname: is"), "exit code {code}: {text}");
        Ok(())
    });
    const NAMES: &str = "names for containers, on every kind of network";
    match &lab.artifacts.demo {
        None => keys.checks.skip(NAMES, NO_DEMO),
        Some(demo) => keys.checks.check(NAMES, || container_names(vm, &demo.image)),
    }
    keys.check(&["/os/network/resolver"], || port_53(vm, lab.artifacts.demo.as_ref().map(|demo| demo.image.as_str())));
    match witness {
        None => keys.checks.skip(NAME, NO_DEMO),
        Some(before) => keys.checks.check(NAME, || {
            let before = before?;
            ensure!(before.contains("running"), "{before}");
            equal(&vm.ssh(started)?, before.trim())
        }),
    }
    keys.check(&["/os/sealSecrets"], || {
        let secrets = ["correct horse battery", "a long password", "PRIVATE KEY", "yAnz5TF"];
        let file = vm.ssh("cat /mnt/boot/config.json")?;
        ensure!(secrets.iter().all(|s| file.contains(s)), "not every secret is in the file: {file}");
        vm.ssh("os config set os.sealSecrets true")?;
        let file = vm.ssh("cat /mnt/boot/config.json")?;
        ensure!(!secrets.iter().any(|s| file.contains(s)) && file.contains("$sealed"), "{file}");
        let shown = vm.ssh("os config get")?;
        ensure!(!secrets.iter().any(|s| shown.contains(s)), "{shown}");
        equal(&vm.ssh("os config get os.network.wifi.networks.0.password --secrets; stat -c %a /mnt/state/os/config/secrets.json")?, "correct horse battery\n600")?;
        vm.ssh("os config status")?;
        let log = vm.ssh("journalctl -b -u os-config -u os-mqtt --no-pager -o cat")?;
        ensure!(!secrets.iter().any(|s| log.contains(s)), "a secret is in the journal");
        Ok(())
    });
}

/// On the engine's bridge a container asks os-dns itself; on a network that cannot reach the host, the engine does.
fn container_names(vm: &Vm, image: &str) -> Result<()> {
    vm.ssh(&format!(
        "systemd-run -q -u e2e-names dnsmasq -k --conf-file=/dev/null --no-resolv --no-hosts --port=5399 --user=root \
         --listen-address=127.0.0.1 --bind-interfaces --pid-file= --address=/corp.example/10.1.1.1 --local=/#/ && \
         os config set dnsServers '/corp.example/127.0.0.1#5399' && \
         docker network create -d macvlan --subnet 10.95.0.0/24 --gateway 10.95.0.1 \
         -o parent=$(ip -br link | awk '/{FIXED_MAC}/ {{print $1}}') e2e-macvlan"
    ))?;
    for (network, name) in [("bridge", "a.corp.example"), ("e2e-macvlan", "b.corp.example")] {
        let text =
            vm.ssh(&format!("docker run --rm --network {network} {image} /bin/busybox nslookup {name} 2>&1; true"))?;
        ensure!(text.contains("10.1.1.1"), "{network}: {text}");
    }
    // As it was started.
    let text = vm.ssh("cat $(docker inspect -f '{{.ResolvConfPath}}' witness)")?;
    let has = |wanted: &str| text.lines().any(|line| line == wanted);
    ensure!(has("nameserver 10.201.0.1") && has("search site.example") && !text.contains("127.0.0.1"), "{text}");
    vm.ssh("docker network rm e2e-macvlan && systemctl stop e2e-names && os config unset dnsServers").map(drop)
}

/// A container can have the port when the device does without its resolver.
fn port_53(vm: &Vm, image: Option<&str>) -> Result<()> {
    const LISTENS: &str = "ss -Hltun sport = :53 | grep -c ' 127.0.0.1:53 '";
    equal(&vm.ssh(LISTENS)?, "2")?;
    vm.ssh("os config set os.network.resolver off")?;
    equal(&vm.ssh("ss -Hltun sport = :53 | wc -l; grep -c '^nameserver 127' /etc/resolv.conf || true")?, "0\n0")?;
    if let Some(image) = image {
        vm.ssh(&format!(
            "docker run -d --name e2e-53 -p 53:53 -p 53:53/udp {image} >/dev/null && docker rm -f e2e-53 >/dev/null"
        ))?;
    }
    vm.ssh("os config set os.network.resolver local")?;
    vm.wait_for(
        &format!("test $({LISTENS}) = 2 && grep -q '^nameserver 127.0.0.1' /etc/resolv.conf"),
        Duration::from_secs(30),
    )
    .map(drop)
}
