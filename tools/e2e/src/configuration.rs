//! Every key of config.json, applied on a device and read back through the service that it is for.

use crate::checks::Checks;
use crate::disk::Disk;
use crate::scenarios::{Lab, data_is_wiped, equal};
use crate::tpm::Tpm;
use crate::updates::settled;
use crate::vm::{PATIENCE, Vm};
use anyhow::{Context, Result, ensure};
use os_config::keys::KEYS;
use os_config::{edit, model};
use os_sys::cmd::Cmd;
use osctl::image::{self, Change};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// The card that the example of `os.network.ethernet` is for.
const FIXED_MAC: &str = "52:54:00:05:e2:e0";

/// Where the TPM keeps its state.
const TPM: &str = "tpm";

/// Keys whose documented example cannot work by itself, and why.
const NOT_AS_DOCUMENTED: &[(&str, &str)] = &[
    ("/os/sshKeys", "the test's own key has to be among them"),
    ("/os/openvpn/clients", "needs a server and certificates"),
    ("/os/openvpn/server", "needs certificates"),
    ("/os/kernel/arguments", "has a scenario of its own"),
    ("/os/wipe", "has a scenario of its own"),
];

/// The documented examples together, as one configuration.
fn examples() -> Result<Value> {
    let mut root = json!({});
    for key in KEYS.iter().filter(|k| !NOT_AS_DOCUMENTED.iter().any(|(p, _)| *p == k.pointer)) {
        edit::merge(&mut root, &model::only(key.pointer, serde_json::from_str(key.example)?));
    }
    Ok(root)
}

/// Certificates of one authority for a server and a client of OpenVPN, each with its key, as configurations hold them.
fn openvpn(dir: &Path) -> Result<(String, String)> {
    let at = |name: &str| dir.join(format!("vpn-{name}"));
    let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"];
    let make = |name: &str| Cmd::new("openssl").args(new).arg("-subj").arg(format!("/CN={name}"));
    make("ca").arg("-keyout").arg(at("ca.key")).arg("-out").arg(at("ca.pem")).run()?;
    let mut parts = Vec::new();
    for name in ["server", "client"] {
        let (key, cert) = (at(&format!("{name}.key")), at(&format!("{name}.pem")));
        make(name)
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&cert)
            .arg("-CA")
            .arg(at("ca.pem"))
            .arg("-CAkey")
            .arg(at("ca.key"))
            .run()?;
        let read = |path: &Path| os_sys::files::read_text(path);
        let (ca, cert, key) = (read(&at("ca.pem"))?, read(&cert)?, read(&key)?);
        parts.push(format!("<ca>\n{ca}</ca>\n<cert>\n{cert}</cert>\n<key>\n{key}</key>\n"));
    }
    let common = "proto udp\nverb 3\n";
    let server =
        format!("server 10.96.0.0 255.255.255.0\ntopology subnet\ndev tun9\nport 1194\ndh none\n{common}{}", parts[0]);
    let client = format!("client\nremote 127.0.0.1 1194\ndev tun8\nnobind\n{common}{}", parts[1]);
    Ok((server, client))
}

/// Remembers which keys were checked, so that none is forgotten.
struct Keys<'a> {
    checks: &'a mut Checks,
    done: RefCell<BTreeSet<&'static str>>,
}

impl Keys<'_> {
    fn check(&mut self, keys: &[&'static str], check: impl FnOnce() -> Result<()>) {
        self.done.borrow_mut().extend(keys);
        self.checks.check(&format!("{} in force", keys.join(" ")), check);
    }
}

const SWAP_PERCENT: u64 = 30;

pub(crate) fn every_key(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let mut config = examples()?;
    let (server, client) = openvpn(&lab.dir)?;
    let own = lab.keys.ssh_public()?;
    let documented = KEYS.iter().find(|k| k.pointer == "/os/sshKeys").context("no such key")?.example;
    let documented: Vec<String> = serde_json::from_str(documented)?;
    edit::merge(
        &mut config,
        &json!({"os": {
            "sshKeys": [own, documented[0]],
            "openvpn": {"server": {"enabled": true, "config": server}, "clients": {"office": client}},
        }}),
    );
    let file = lab.dir.join("every-key.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
    checks.check("osctl image configure writes every documented example into the image", || {
        lab.disk.remove("config.json")?;
        image::configure(&lab.disk.path, &Change { config: Some(file.clone()), ..Change::default() }).map(drop)
    });
    lab.disk.make_dir("dispatcher.d")?;
    lab.disk.write("dispatcher.d/50-e2e", b"#!/bin/sh\r\necho \"$1 $2\" >> /run/dispatched\r\n")?;
    lab.disk.make_dir("system-proxy")?;
    lab.disk.write(
        "system-proxy/redsocks.conf",
        b"redsocks {\n type = http-connect;\n ip = 192.0.2.30;\n port = 8080;\n}\n",
    )?;
    let stick = Disk::stick(&lab.dir, "CONFIG", 32)?;
    let _ = std::fs::remove_dir_all(lab.dir.join(TPM));
    let tpm = Tpm::start(&lab.dir.join(TPM))?;
    let mut vm = lab.boot([devices(&stick), tpm.arguments()].concat())?;
    vm.wait_ssh()?;
    checks.say(&format!("login after {:.0} s", vm.started.elapsed().as_secs_f64()));
    let settled = vm.wait_for(
        "systemctl is-system-running --wait >/dev/null; systemctl is-system-running",
        Duration::from_secs(240),
    );
    checks.check("every unit came up", || {
        let failed = vm.ssh("systemctl --failed --no-legend --plain")?;
        ensure!(failed.trim().is_empty(), "{}", failed.trim());
        settled.map(drop)
    });
    data_is_wiped(lab, &vm, checks);
    checks.check("os config status has every key, and nothing failed", || {
        let (code, text) = vm.ssh_code("os config status --json")?;
        let status: Value = serde_json::from_str(&text)?;
        let rows = status["keys"].as_array().context("no rows")?;
        for key in KEYS {
            let row =
                rows.iter().find(|r| r["key"] == key.pointer).with_context(|| format!("no row for {}", key.pointer))?;
            ensure!(row["outcome"] != "failed" && row["outcome"] != "pending", "{row}");
        }
        ensure!(code == 0, "exit code {code}: {text}");
        Ok(())
    });
    let mut keys = Keys { checks, done: RefCell::default() };
    machine(&vm, &mut keys);
    network(&vm, &mut keys);
    services(&vm, &mut keys);
    updates(&vm, &mut keys);
    commands(&vm, &mut keys);
    stick_import(&vm, lab, &stick, &mut keys)?;
    let done = keys.done.into_inner();
    checks.check("no key was left out", || {
        // These two need a boot of their own.
        let later = ["/os/kernel/arguments", "/os/wipe"];
        let missing: Vec<&str> =
            KEYS.iter().map(|k| k.pointer).filter(|p| !done.contains(p) && !later.contains(p)).collect();
        ensure!(missing.is_empty(), "{}", missing.join(" "));
        Ok(())
    });
    // For the next scenario: what is wanted at its boot.
    checks.check("kernel arguments and a wipe wait for the next boot", || {
        vm.ssh("os config set os.kernel.arguments 'mitigations=auto os-e2e=1'; os config set os.wipe '{\"what\":\"apps\",\"request\":\"e2e-1\"}'")?;
        let status = vm.ssh_code("os config status --json")?.1;
        let status: Value = serde_json::from_str(&status)?;
        let pending: Vec<&str> = status["keys"].as_array().into_iter().flatten().filter(|r| r["outcome"] == "pending").filter_map(|r| r["key"].as_str()).collect();
        ensure!(pending == ["/os/kernel/arguments", "/os/wipe"], "{pending:?}");
        Ok(())
    });
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}

fn devices(stick: &Disk) -> Vec<String> {
    let text =
        format!("-netdev user,id=fixed,restrict=on -device virtio-net-pci,netdev=fixed,mac={FIXED_MAC},romfile=");
    text.split(' ').map(str::to_owned).chain(stick.stick_arguments()).collect()
}

fn machine(vm: &Vm, keys: &mut Keys<'_>) {
    keys.check(&["/hostname"], || equal(&vm.ssh("hostnamectl --static; hostname")?, "kiosk-3\nkiosk-3"));
    keys.check(&["/persistentLogging"], || journal_on_data(vm, true));
    keys.check(&["/developmentMode"], || equal(&vm.ssh("systemctl is-active os-docker-tcp.socket")?, "active"));
    keys.check(&["/ntpServers"], || {
        equal(&vm.ssh("timedatectl show-timesync --property=SystemNTPServers --value")?, "0.pool.ntp.org 192.0.2.1")
    });
    keys.check(&["/os/sshKeys"], || {
        let file = vm.ssh("mkdir -p /run/sshd; /usr/sbin/sshd -T | sed -n 's/^authorizedkeysfile //p'")?;
        equal(&vm.ssh(&format!("grep -c ssh-ed25519 {}", file.trim()))?, "2")
    });
    keys.check(&["/os/time/zone"], || {
        equal(&vm.ssh("timedatectl show -p Timezone --value; date -d 2026-07-01T12:00 +%Z")?, "Europe/Berlin\nCEST")
    });
    keys.check(&["/os/locale/lang"], || {
        let text = vm.ssh(
            "busctl get-property org.freedesktop.locale1 /org/freedesktop/locale1 org.freedesktop.locale1 Locale",
        )?;
        equal(&text, "as 1 \"LANG=C\"")
    });
    // Debian builds systemd without the helper that loads it into the kernel; localed is as far as this image goes.
    keys.check(&["/os/locale/keymap"], || {
        let text = vm.ssh(
            "busctl get-property org.freedesktop.locale1 /org/freedesktop/locale1 org.freedesktop.locale1 VConsoleKeymap",
        )?;
        equal(&text, "s \"de\"")
    });
    keys.check(&["/os/watchdog"], || {
        equal(
            &vm.ssh("systemctl show -p RuntimeWatchdogUSec --value; cat /sys/class/watchdog/watchdog0/timeout")?,
            "1min\n60",
        )
    });
    keys.check(&["/os/udevRules"], || equal(&vm.ssh("readlink /dev/example")?, "null"));
    keys.check(&["/os/kernel/modules", "/os/kernel/moduleOptions"], || {
        equal(&vm.ssh("cat /sys/module/nbd/parameters/nbds_max")?, "4")
    });
    keys.check(&["/os/memory/zramSwap"], || {
        let swap: u64 = vm.ssh("swapon --show=SIZE --bytes --noheadings --raw | head -1")?.trim().parse()?;
        let ram: u64 = vm.ssh("awk '/MemTotal/ {print $2 * 1024}' /proc/meminfo")?.trim().parse()?;
        let wanted = ram / 100 * SWAP_PERCENT;
        ensure!(swap.abs_diff(wanted) < 1 << 20, "{swap} bytes, wanted {wanted}");
        Ok(())
    });
    keys.check(&["/os/memory/swapFile"], || {
        let text = vm.ssh("swapon --show=NAME,SIZE --bytes --noheadings --raw | grep swapfile")?;
        let size: u64 = text.trim().strip_prefix("/mnt/data/swapfile ").context("no swap file")?.parse()?;
        // Without the header, and as the kernel's table rounds it.
        ensure!(size.abs_diff(64 << 20) < 64 << 10, "{text}");
        Ok(())
    });
    keys.check(&["/os/memory/swappiness"], || equal(&vm.ssh("sysctl -n vm.swappiness")?, "60"));
    keys.check(&["/os/firstBoot"], || {
        equal(
            &vm.ssh("cat /mnt/data/first-boot; ls /mnt/state/os/first-boot.done")?,
            "hello\n/mnt/state/os/first-boot.done",
        )
    });
    keys.check(&["/os/encryption/data"], || {
        equal(&vm.ssh("os disk encryption; ls /mnt/state/os/data.key 2>/dev/null || true")?, "tpm2")?;
        let dump = vm.ssh("cryptsetup luksDump /dev/disk/os/os-data")?;
        ensure!(dump.matches(": luks2\n").count() == 1 && dump.contains("systemd-tpm2"), "{dump}");
        Ok(())
    });
}

/// Where journald keeps its files, from the files it has open.
pub(crate) fn journal_on_data(vm: &Vm, wanted: bool) -> Result<()> {
    let pid = "$(systemctl show -p MainPID --value systemd-journald)";
    let open = format!("ls -l /proc/{pid}/fd | grep -c ' /run/log/journal/\\| /var/log/journal/.*' || true");
    ensure!(vm.ssh(&open)?.trim() != "0", "journald has no journal open at all");
    let not = if wanted { "" } else { "!" };
    vm.wait_for(&format!("{not} ls -l /proc/{pid}/fd | grep -q /var/log/journal"), Duration::from_secs(20)).map(drop)
}

fn network(vm: &Vm, keys: &mut Keys<'_>) {
    const MANAGER: &str =
        "org.freedesktop.NetworkManager /org/freedesktop/NetworkManager org.freedesktop.NetworkManager";
    // Two simulated radios; the second becomes the access point.
    let radios = || -> Result<()> {
        vm.ssh("modprobe mac80211_hwsim radios=2")?;
        vm.wait_for("nmcli -t device status | grep -q ^wlan1:wifi:disconnected", Duration::from_secs(60))?;
        vm.ssh(
            "nmcli connection add type wifi ifname wlan1 con-name ap ssid Workshop mode ap wifi-sec.key-mgmt wpa-psk \
             wifi-sec.psk 'correct horse battery' ipv4.method shared ipv6.method disabled autoconnect no && nmcli connection up ap",
        )
        .map(drop)
    };
    let radios = radios();
    keys.check(&["/os/network/wifi/networks"], || {
        radios?;
        vm.wait_for(
            "nmcli -t -f DEVICE,STATE,CONNECTION device | grep -q '^wlan0:connected:config.json Workshop'",
            Duration::from_secs(120),
        )?;
        let text = vm.ssh("ip -4 -br addr show wlan0")?;
        ensure!(text.contains("10.42.0."), "{text}");
        Ok(())
    });
    keys.check(&["/country"], || vm.wait_for("iw reg get | grep -q '^country DE'", Duration::from_secs(30)).map(drop));
    let _ = vm.ssh("nmcli connection delete ap; rmmod mac80211_hwsim");
    keys.check(&["/os/network/ethernet"], || {
        let card = format!("$(ip -br link | awk '/{FIXED_MAC}/ {{print $1}}')");
        vm.wait_for(
            &format!("ip -br addr show {card} | grep 10.98.0.5/24 | grep -q fd00:98::5/64"),
            Duration::from_secs(30),
        )?;
        let text = vm.ssh(&format!("nmcli -e no -g GENERAL.CONNECTION,IP4.GATEWAY,IP4.DNS device show {card}"))?;
        equal(&text, &format!("config.json {FIXED_MAC}\n10.98.0.1\n10.98.0.1"))
    });
    keys.check(&["/os/network/wireguard"], || {
        let text = vm.ssh(
            "ip -4 -br addr show wg0; ip -d link show wg0 | grep -o wireguard; nmcli -g GENERAL.STATE device show wg0",
        )?;
        ensure!(
            text.contains("10.97.0.2/24") && text.contains("wireguard") && text.contains("100 (connected)"),
            "{text}"
        );
        Ok(())
    });
    keys.check(&["/dnsServers"], || {
        vm.ssh("systemctl kill -s USR1 os-dns")?;
        let asked = "journalctl -u os-dns -b --no-pager -o cat | grep -q 'server 192.0.2.53#53: queries'";
        vm.wait_for(asked, Duration::from_secs(10)).map(drop)
    });
    keys.check(&["/os/network/connectivity/uri"], || {
        let ask = |p: &str| vm.ssh(&format!("busctl get-property {MANAGER} {p}"));
        equal(&ask("ConnectivityCheckUri")?, "s \"http://connectivity.example/check\"")?;
        equal(&ask("ConnectivityCheckEnabled")?, "b true")
    });
    keys.check(
        &[
            "/os/network/connectivity/interval",
            "/os/network/connectivity/response",
            "/os/network/wifi/randomMacAddressScan",
        ],
        || {
            let text = vm.ssh("NetworkManager --print-config")?;
            for line in ["interval=600", "response=online", "wifi.scan-rand-mac-address=yes"] {
                ensure!(text.lines().any(|l| l == line), "no {line}");
            }
            Ok(())
        },
    );
    keys.checks.check("dispatcher.d/ is run by NetworkManager", || {
        vm.wait_for("grep -q ' up$' /run/dispatched", Duration::from_secs(30)).map(drop)
    });
    keys.check(&["/os/network/proxy"], || {
        let text = vm.ssh("docker info -f '{{.HTTPProxy}} {{.HTTPSProxy}} {{.NoProxy}}'")?;
        ensure!(
            text.contains("@proxy.example:3128") && text.contains("localhost,127.0.0.0/8,::1,.lan,10.0.0.0/8"),
            "{text}"
        );
        let mode = vm.ssh("stat -c %a /run/os/proxy; systemctl show docker -p Environment | grep -c secret || true")?;
        equal(&mode, "600\n0")
    });
    keys.checks.check("system-proxy/redsocks.conf serves when config.json names no proxy", || {
        vm.ssh("os config unset os.network.proxy")?;
        vm.wait_for("docker info -f '{{.HTTPProxy}}' | grep -q '^http://192.0.2.30:8080$'", Duration::from_secs(60))
            .map(drop)
    });
}

fn services(vm: &Vm, keys: &mut Keys<'_>) {
    keys.check(&["/os/docker/registryMirrors", "/os/docker/insecureRegistries"], || {
        let text = vm.ssh("docker info -f '{{json .RegistryConfig}}'")?;
        let found: Value = serde_json::from_str(&text)?;
        ensure!(found["Mirrors"] == json!(["https://mirror.example/"]), "{text}");
        ensure!(found["IndexConfigs"]["registry.lan:5000"]["Secure"] == false, "{text}");
        Ok(())
    });
    keys.check(&["/os/docker/addressPools"], || {
        let text = vm.ssh("docker network create e2e >/dev/null && docker network inspect -f '{{(index .IPAM.Config 0).Subnet}}' e2e; docker network rm e2e >/dev/null")?;
        ensure!(text.starts_with("10.200."), "{text}");
        Ok(())
    });
    keys.check(&["/os/docker/log"], || equal(&vm.ssh("docker info -f '{{.LoggingDriver}}'")?, "local"));
    keys.check(&["/os/openvpn/server", "/os/openvpn/clients"], || {
        vm.wait_for("ip -4 -br addr show tun8 | grep -q 10.96.0.2/24", Duration::from_secs(90))?;
        equal(&vm.ssh("systemctl is-active openvpn-server@os openvpn-client@office; stat -c %a /etc/openvpn/client/office.conf")?, "active\nactive\n600")
    });
    keys.check(&["/os/mqtt"], || {
        vm.wait_for("systemctl is-active os-mqtt", Duration::from_secs(30))?;
        // CONNECT and CONNACK of MQTT 3.1.1; the last byte of the answer is 0 for yes, 5 for not authorized.
        let log_in = |password: &str| {
            vm.ssh(&format!(
                "exec 3<>/dev/tcp/127.0.0.1/1883; printf '\\x10\\x{:02x}\\x00\\x04MQTT\\x04\\xc2\\x00\\x0a\\x00\\x01e\\x00\\x06sensor\\x00\\x{:02x}{password}' >&3; timeout 10 head -c 4 <&3 | od -An -tx1",
                10 + 3 + 8 + 2 + password.len(), password.len()
            ))
        };
        equal(&log_in("a long password")?, "20 02 00 00")?;
        equal(&log_in("another password")?, "20 02 00 05")
    });
    keys.check(&["/os/caCertificates", "/balenaRootCA"], || {
        let pem = include_str!("../../os-config/examples/ca.pem");
        vm.ssh(&format!("cat > /tmp/ca.pem <<'EOF'\n{pem}EOF"))?;
        let trusted = || Ok::<_, anyhow::Error>(vm.ssh_code("openssl verify /tmp/ca.pem >/dev/null 2>&1")?.0 == 0);
        let bundle = || vm.ssh("grep -c BEGIN /etc/ssl/certs/ca-certificates.crt");
        ensure!(trusted()?, "it is not trusted");
        let with = bundle()?;
        vm.ssh("os config unset os.caCertificates")?;
        ensure!(trusted()?, "balenaRootCA alone is not trusted");
        vm.ssh("os config unset balenaRootCA")?;
        ensure!(!trusted()?, "it is still trusted");
        let without = bundle()?;
        ensure!(with.trim().parse::<u32>()? == without.trim().parse::<u32>()? + 1, "{with} and {without} certificates");
        Ok(())
    });
}

fn updates(vm: &Vm, keys: &mut Keys<'_>) {
    const POLICY: &[&str] =
        &["/os/update/mode", "/os/update/window", "/os/update/metered", "/os/update/rateLimit", "/os/update/trial"];
    keys.check(POLICY, || {
        let status: Value = serde_json::from_str(&vm.ssh("os update status --json")?)?;
        let wanted = json!({"channel": "http://updates.example/os/stable", "mode": "download",
            "window": "Mon,Tue,Wed,Thu,Fri 02:00-05:00", "metered": true, "rateLimit": 2048, "trial": "kexec"});
        ensure!(status["policy"] == wanted, "{status}");
        Ok(())
    });
    keys.check(&["/os/update/channel"], || {
        let (code, text) = vm.ssh_code("os update check 2>&1")?;
        ensure!(code == 1 && text.contains("updates.example"), "exit code {code}: {text}");
        Ok(())
    });
}

fn commands(vm: &Vm, keys: &mut Keys<'_>) {
    keys.checks.check("os config set, get, unset, diff, history and rollback", || {
        let started = "docker inspect -f '{{.State.StartedAt}}' $(docker ps -q) 2>/dev/null || true";
        let before = vm.ssh(started)?;
        equal(&vm.ssh("os config set hostname e2e-set && hostname && os config get hostname")?, "hostname: applied\ne2e-set\ne2e-set")?;
        let (code, text) = vm.ssh_code("os config set hostname 'not a name'")?;
        ensure!(code == 1 && text.contains("allowed"), "exit code {code}: {text}");
        let (code, _) = vm.ssh_code("os config set os.watchdog 9999")?;
        ensure!(code == 1, "a watchdog of 9999 seconds was taken");
        // Two at a time, and neither loses what the other one wrote.
        vm.ssh("os config set country AT >/dev/null & os config set os.watchdog 45 >/dev/null; wait")?;
        equal(&vm.ssh("os config get country; os config get os.watchdog")?, "AT\n45")?;
        equal(&vm.ssh("os config unset os.watchdog >/dev/null; systemctl show -p RuntimeWatchdogUSec --value")?, "30s")?;
        let history: Value = serde_json::from_str(&vm.ssh("os config history --json")?)?;
        let last = history.as_array().and_then(|h| h.last()).context("no history")?;
        ensure!(last["changed"] == json!(["os.watchdog"]), "{history}");
        vm.ssh("os config rollback >/dev/null")?;
        equal(&vm.ssh("systemctl show -p RuntimeWatchdogUSec --value; hostname")?, "45s\ne2e-set")?;
        vm.ssh("echo '{' > /mnt/boot/config.json; sleep 1")?;
        let (code, _) = vm.ssh_code("os config validate >/dev/null")?;
        ensure!(code == 1, "a broken file is valid");
        vm.ssh("os config rollback $(os config history --json | grep -o '\"version\": [0-9]*' | tail -1 | grep -o '[0-9]*')")?;
        equal(&vm.ssh("os config get hostname; os config diff")?, "e2e-set")?;
        equal(&vm.ssh(started)?, before.trim())
    });
    keys.check(&["/os/sealSecrets"], || {
        let secrets = ["correct horse battery", "a long password", "PRIVATE KEY", "yAnz5TF"];
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

fn stick_import(vm: &Vm, lab: &Lab, stick: &Disk, keys: &mut Keys<'_>) -> Result<()> {
    let plug = || -> Result<()> {
        let ended = "journalctl -b --no-pager -o cat | grep -c '^\\(Finished\\|Failed to start\\) os-import@' || true";
        let before = vm.ssh(ended)?;
        vm.plug()?;
        vm.wait_for(&format!("test $({ended}) -gt {}", before.trim()), Duration::from_secs(90))?;
        Ok(())
    };
    let unplug = || -> Result<()> {
        vm.unplug()?;
        vm.wait_for("! ls /dev/disk/by-label/CONFIG 2>/dev/null", Duration::from_secs(30)).map(drop)
    };
    stick.write("config.json", b"{\"hostname\": \"from-stick\", \"country\": \"FR\"}")?;
    stick.write("timesyncd.conf", b"[Time]\r\nNTP=192.0.2.77\r\n")?;
    stick.make_dir("network")?;
    stick.write("network/office.nmconnection", b"[connection]\nid=office\nuuid=2b0f7f5e-0d3c-4f0f-9d43-0123456789ab\ntype=ethernet\n[match]\ninterface-name=none0\n")?;
    keys.checks.check("a stick labelled CONFIG is taken over when it is plugged in, and says so", || {
        plug()?;
        equal(
            &vm.ssh("hostname; timedatectl show-timesync --property=SystemNTPServers --value; os config get country")?,
            "from-stick\n192.0.2.77\nFR",
        )?;
        vm.wait_for("nmcli -g NAME connection | grep -q ^office$", Duration::from_secs(30))?;
        unplug()?;
        let report: Value = serde_json::from_slice(&stick.read("report-e2e-set.json")?)?;
        ensure!(report["taken"] == true && report["problems"] == json!([]), "{report}");
        Ok(())
    });
    keys.checks.check("a stick with one bad value changes nothing and says why", || {
        stick.write("config.json", b"{\"hostname\": \"bad name\"}")?;
        plug()?;
        unplug()?;
        equal(&vm.ssh("hostname")?, "from-stick")?;
        let text = String::from_utf8(stick.read("report-from-stick.txt")?)?;
        ensure!(text.contains("nothing was taken over") && text.contains("/hostname"), "{text}");
        Ok(())
    });
    // Nothing unsigned is taken, and what the key of the updates signed is.
    keys.check(&["/os/import/signedOnly"], || {
        vm.ssh("os config set os.import.signedOnly true")?;
        stick.write("config.json", b"{\"hostname\": \"signed\"}")?;
        plug()?;
        unplug()?;
        equal(&vm.ssh("hostname")?, "from-stick")?;
        sign(lab, stick, &["config.json", "timesyncd.conf", "network/office.nmconnection"])?;
        plug()?;
        unplug()?;
        equal(&vm.ssh("hostname")?, "signed")
    });
    Ok(())
}

/// What docs/config.md tells a person to do.
fn sign(lab: &Lab, stick: &Disk, files: &[&str]) -> Result<()> {
    let dir = lab.dir.join("to-sign");
    let _ = std::fs::remove_dir_all(&dir);
    for name in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().context("no directory")?)?;
        std::fs::write(path, stick.read(name)?)?;
    }
    let list = Cmd::new("sha256sum").args(files).dir(&dir).read()?;
    std::fs::write(dir.join("CONFIG.sha256"), list)?;
    Cmd::new("openssl")
        .args([
            "cms",
            "-sign",
            "-binary",
            "-outform",
            "DER",
            "-in",
            "CONFIG.sha256",
            "-out",
            "CONFIG.sha256.p7s",
            "-signer",
        ])
        .arg(&lab.keys.bundle_cert)
        .arg("-inkey")
        .arg(&lab.keys.bundle_key)
        .dir(&dir)
        .run()?;
    for name in ["CONFIG.sha256", "CONFIG.sha256.p7s"] {
        stick.write(name, &std::fs::read(dir.join(name))?)?;
    }
    Ok(())
}

/// The boot after [`every_key`], and one that fails.
pub(crate) fn next_boot(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let tpm = Tpm::start(&lab.dir.join(TPM))?;
    let mut vm = lab.boot(tpm.arguments())?;
    vm.wait_ssh()?;
    vm.wait_for("os config status", Duration::from_secs(60))?;
    let mut recovery = String::new();
    checks.check("data was opened with the TPM, and a recovery key can be had", || {
        equal(&vm.ssh("os disk encryption; findmnt -n -o SOURCE /mnt/data")?, "tpm2\n/dev/mapper/os-data")?;
        vm.ssh("os disk recovery-key")?;
        recovery = vm.ssh("os disk recovery-key")?;
        let dump = vm.ssh("cryptsetup luksDump /dev/disk/os/os-data")?;
        ensure!(dump.matches(": luks2\n").count() == 2, "the second recovery key did not replace the first: {dump}");
        Ok(())
    });
    checks.check("kernel arguments of config.json are in force", || {
        equal(&vm.ssh("grep -o 'mitigations=auto os-e2e=1' /proc/cmdline")?, "mitigations=auto os-e2e=1")
    });
    checks.check("the wipe of config.json erased the containers, once, and nothing else", || {
        let status = vm.ssh_code("os config status --json")?.1;
        ensure!(!status.contains("pending"), "{status}");
        vm.wait_for("systemctl is-active docker", Duration::from_secs(120))?;
        equal(&vm.ssh("docker ps -aq; docker images -q; cat /mnt/data/first-boot; ls /mnt/boot/wipe 2>/dev/null; cat /mnt/boot/wipe.last")?, "hello\ne2e-1")
    });
    checks.check("sealed secrets serve the next boot too", || {
        let text = vm.ssh("nmcli -s -g 802-11-wireless-security.psk connection show 'config.json Workshop'")?;
        equal(&text, "correct horse battery")
    });
    checks.check("the first-boot script does not run again", || {
        let (code, _) = vm.ssh_code("journalctl -b -u os-first-boot --no-pager -o cat | grep -q Starting")?;
        ensure!(code != 0, "it ran");
        Ok(())
    });
    checks.check("the health of the boot was confirmed", || {
        vm.wait_for("grep -aqx A_TRY=0 /mnt/boot/EFI/BOOT/grubenv", Duration::from_secs(180)).map(drop)
    });
    vm.ssh("os config set os.encryption.data key")?;
    // So little memory that the kernel cannot unpack the initramfs.
    vm.ssh("os config set os.kernel.arguments mem=48M")?;
    checks.check("the power button turns the device off", || vm.power_off());
    let failing = lab.boot(Vec::new())?;
    let start = std::time::Instant::now();
    while !failing.console().contains("Kernel panic") && start.elapsed() < Duration::from_secs(60) * PATIENCE {
        std::thread::sleep(Duration::from_millis(200));
    }
    let console = failing.console();
    drop(failing);
    checks.check("a kernel argument that breaks the boot really did", || {
        // -no-reboot ends the machine where a real one would start again.
        ensure!(console.contains("Kernel panic"), "the device came up with mem=48M");
        Ok(())
    });
    lab.disk.write("recovery-key", format!("{}\r\n", recovery.trim()).as_bytes())?;
    let mut vm = lab.boot(Vec::new())?;
    checks.check(
        "without its TPM, data is opened with the recovery key, which leaves nothing on the boot partition",
        || {
            vm.wait_ssh()?;
            equal(
                &vm.ssh("os disk encryption; cat /mnt/data/first-boot; ls /mnt/boot/recovery-key 2>/dev/null || true")?,
                "key\nhello",
            )
        },
    );
    checks.check("the boot after that leaves the arguments out and says so", || {
        vm.wait_ssh()?;
        let (code, _) = vm.ssh_code("grep -q mem=48M /proc/cmdline")?;
        ensure!(code != 0, "mem=48M is still there");
        let text = vm.wait_for(
            "os config status | grep 'did not get to its end with these arguments'",
            Duration::from_secs(60),
        )?;
        ensure!(text.contains("/os/kernel/arguments"), "{text}");
        vm.ssh("os config unset os.kernel.arguments && os config status >/dev/null").map(drop)
    });
    // For the boot that comes next. Starts that were not confirmed are counted, and there was one already.
    vm.ssh("echo kept > /mnt/data/mark")?;
    settled(&vm)?;
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}

/// The boot after a wipe of everything that was cut off.
pub(crate) fn wiped(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let mut vm = lab.boot(Vec::new())?;
    checks.check("after the plug was pulled in the middle, it is carried out again, to the end", || {
        vm.wait_ssh()?;
        let status = vm.wait_for("os status --json || true", Duration::from_secs(60))?;
        let status: Value = serde_json::from_str(&status)?;
        let boot = &status["boot"];
        ensure!(boot["state"] == "formatted" && boot["data"] == "formatted" && boot["firstBoot"] == true, "{boot}");
        equal(&vm.ssh("ls /mnt/boot/wipe 2>/dev/null; ls /mnt/data/mark 2>/dev/null; true")?, "")
    });
    checks.check("the device has a new identity", || {
        let before = std::fs::read_to_string(lab.dir.join("identity"))?;
        let id = vm.ssh("cat /etc/machine-id")?;
        ensure!(!before.contains(id.trim()), "the machine id is the old one");
        Ok(())
    });
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}
