//! Keys of the network.

use super::{FIXED_MAC, Keys};
use crate::harness::device::{equal, time_servers};
use crate::harness::vm::Vm;
use anyhow::{Result, ensure};
use std::time::Duration;

pub(super) fn network(vm: &Vm, keys: &mut Keys<'_>) {
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
        let text =
            vm.ssh(&format!("nmcli -e no -g GENERAL.CONNECTION,IP4.GATEWAY,IP4.DNS,IP4.SEARCHES device show {card}"))?;
        equal(&text, &format!("config.json {FIXED_MAC}\n10.98.0.1\n10.98.0.1\nsite.example"))
    });
    keys.checks.check(
        "a profile in system-connections/ is in force at once, and one that does not come up cuts nobody off",
        || changed_profile(vm),
    );
    keys.check(&["/wifiSsid", "/wifiKey"], || {
        let psk = "nmcli -s -g 802-11-wireless.ssid,802-11-wireless-security.psk connection show 'config.json Barn'";
        equal(&vm.ssh(psk)?, "Barn\nstaple in the barn")
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
        vm.wait_for(asked, Duration::from_secs(10))?;
        name_servers(vm)
    });
    keys.checks.check("a second network is asked for its own names, and names the time server", || second_network(vm));
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
    keys.checks.check("what a person looks for in a channel goes through the proxy, login and all, and not past it", || {
        // Nobody listens there, which is said at once.
        vm.ssh("cp -p /run/os/proxy /run/proxy.kept; echo 'http_proxy=\"http://me:sesame@127.0.0.1:9\"' >/run/os/proxy")?;
        let (code, said) = vm.ssh_code("os update check --from http://192.0.2.9/stable 2>&1")?;
        vm.ssh("mv /run/proxy.kept /run/os/proxy")?;
        ensure!(code == 1 && said.contains("127.0.0.1 port 9") && !said.contains("sesame"), "exit code {code}: {said}");
        Ok(())
    });
    keys.checks.check("system-proxy/redsocks.conf serves when config.json names no proxy", || {
        vm.ssh("os config unset os.network.proxy")?;
        vm.wait_for("docker info -f '{{.HTTPProxy}}' | grep -q '@192.0.2.30:8080$'", Duration::from_secs(60))?;
        equal(&vm.ssh("sed -n 's/^HTTP_PROXY=//p' /run/os/proxy")?, "\"http://e2e:a%3B%7D%23%22b@192.0.2.30:8080\"")
    });
    keys.checks.check("a redsocks.conf that is not understood is named with its line, and the proxy stays", || {
        const FILE: &str = "/mnt/boot/system-proxy/redsocks.conf";
        let (code, text) = vm.ssh_code(&format!("echo '# mine' >> {FILE}; os config apply"))?;
        ensure!(code == 1 && text.contains("redsocks.conf: line 10: '#'"), "exit code {code}: {text}");
        vm.ssh("docker info -f '{{.HTTPProxy}}' | grep -q '@192.0.2.30:8080$'")?;
        vm.ssh(&format!("sed -i '$d' {FILE}; os config apply")).map(drop)
    });
    keys.checks.check("a profile that waits for a person is taken, and os config status says so", || {
        let profile = "[connection]\nid=asks\ntype=ethernet\ninterface-name=none1\npermissions=user:alice:;\n";
        let boot = "/mnt/boot/system-connections/asks.nmconnection";
        let (code, text) = vm.ssh_code(&format!("printf '{profile}' > {boot}; os config apply; os config status"))?;
        let warning = "asks.nmconnection: can never connect without a person: permissions=";
        ensure!(code == 0 && text.contains(warning), "exit code {code}: {text}");
        vm.ssh("test -e /etc/NetworkManager/system-connections/asks.nmconnection")?;
        vm.ssh(&format!("rm {boot}; os config apply")).map(drop)
    });
}

/// On a card that is connected already, with a profile of config.json.
fn changed_profile(vm: &Vm) -> Result<()> {
    const FILE: &str = "/mnt/boot/system-connections/site.nmconnection";
    let profile = |ipv4: &str| {
        vm.ssh(&format!(
            "printf '[connection]\\nid=site\\ntype=ethernet\\nautoconnect-priority=20\\n[ethernet]\\nmac-address={FIXED_MAC}\\n\
             [ipv4]\\n{ipv4}\\n[ipv6]\\nmethod=disabled\\n' > {FILE} && systemctl start os-config"
        ))
    };
    let has = |address: &str| {
        let card = format!("$(ip -br link | awk '/{FIXED_MAC}/ {{print $1}}')");
        vm.wait_for(&format!("ip -4 -br addr show {card} | grep -q ' {address}/24'"), Duration::from_secs(30)).map(drop)
    };
    for address in ["10.99.0.5", "10.99.0.6"] {
        profile(&format!("method=manual\\naddress1={address}/24"))?;
        has(address)?;
    }
    // The only server of that network is not to be believed.
    profile("method=auto\\ndhcp-timeout=3\\ndhcp-reject-servers=10.0.0.0/8")?;
    has("10.99.0.6")?;
    let (code, text) = vm.ssh_code("os config status")?;
    ensure!(code == 1 && text.contains("site.nmconnection: ") && text.contains("stays connected as it was"), "{text}");
    vm.ssh(&format!("rm {FILE} && systemctl start os-config"))?;
    has("10.98.0.5")?;
    vm.ssh("os config status").map(drop)
}

/// A company's server that knows its own names only, and one that is as fast and says of every name that there is none.
fn name_servers(vm: &Vm) -> Result<()> {
    let serve = |port: u16, what: &str| {
        vm.ssh(&format!(
            "systemd-run -q -u e2e-dns-{port} dnsmasq -k --conf-file=/dev/null --no-resolv --no-hosts --port={port} --user=root \
             --listen-address=127.0.0.1 --bind-interfaces --pid-file= {what}"
        ))
    };
    serve(5398, "--local=/#/")?;
    serve(5399, "--address=/corp.example/site.example/10.1.1.1 --local=/#/")?;
    // Of ten names, in a domain or short ones, so many are found.
    let found = |domain: &str| {
        vm.ssh(&format!(
            "for n in 0 1 2 3 4 5 6 7 8 9; do getent ahostsv4 n$n{domain} | grep '^10.1.1.1 *STREAM'; done | wc -l"
        ))
    };
    vm.ssh("os config set dnsServers '127.0.0.1#5399 127.0.0.1#5398'")?;
    equal(&found(".corp.example")?, "10")?;
    vm.ssh("os config set dnsServers '127.0.0.1#5398 /lab.corp.example/corp.example/127.0.0.1#5399'")?;
    equal(&found(".lab.corp.example")?, "10")?;
    let (code, text) = vm.ssh_code("os config set dnsServers 127.0.0.1:5399 2>&1")?;
    ensure!(code == 1 && text.contains("#5353"), "exit code {code}: {text}");
    // The domain of a network.
    vm.ssh("os config set dnsServers '/site.example/127.0.0.1#5399'")?;
    equal(&found("")?, "10")?;
    vm.ssh("systemctl stop e2e-dns-5398 e2e-dns-5399; os config unset dnsServers")?;
    let text = vm.ssh("cat /run/os/network/servers.conf /etc/resolv.conf /mnt/state/os/network/resolv.conf")?;
    let has = |wanted: &str| text.lines().filter(|line| *line == wanted).count();
    ensure!(has("server=/site.example/10.98.0.1") == 1 && has("server=10.98.0.1") == 1, "{text}");
    ensure!(has("search site.example") == 2, "{text}");
    Ok(())
}

/// A network with a server for addresses and names, behind a card that is only a cable into another namespace.
fn second_network(vm: &Vm) -> Result<()> {
    vm.ssh(
        "ip netns add far && ip link add e2e0 type veth peer name far0 netns far && ip -n far addr add 10.94.0.1/24 dev far0 && \
         ip -n far link set far0 up && ip -n far link set lo up && \
         systemd-run -q -u e2e-far ip netns exec far dnsmasq -k --conf-file=/dev/null --no-resolv --no-hosts --interface=far0 \
         --user=root --pid-file= --dhcp-leasefile=/run/e2e-far --dhcp-range=10.94.0.50,10.94.0.60 --dhcp-option=3 \
         --dhcp-option=option:ntp-server,10.94.0.1 --dhcp-option=option:domain-search,lab.example \
         --address=/plc.lab.example/10.94.0.7 --local=/#/ && \
         nmcli connection add type ethernet ifname e2e0 con-name e2e-far ipv6.method disabled >/dev/null && \
         nmcli device set e2e0 managed yes && nmcli connection up e2e-far >/dev/null",
    )?;
    vm.wait_for("getent ahostsv4 plc.lab.example | grep -q '^10.94.0.7 '", Duration::from_secs(30))?;
    vm.ssh("grep -q '^search .*lab.example' /etc/resolv.conf")?;
    // config.json goes first.
    vm.wait_for("grep -q 10.94.0.1 /run/systemd/timesyncd.conf.d/40-os-network.conf", Duration::from_secs(30))?;
    time_servers(vm, "0.pool.ntp.org 192.0.2.1")?;
    vm.ssh("os config unset ntpServers")?;
    time_servers(vm, "10.94.0.1")?;
    // Addresses that containers have (os.docker.bridge); and a bridge that is none of the engine's.
    vm.ssh("nmcli connection modify e2e-far +ipv4.addresses 10.201.0.77/30 && nmcli connection up e2e-far >/dev/null")?;
    let said =
        "journalctl -b -u os-network --no-pager -o cat | grep -q 'the network of e2e0 has the addresses of docker0'";
    vm.wait_for(said, Duration::from_secs(30))?;
    vm.ssh("nmcli connection add type bridge ifname br-lan con-name br-lan ipv4.method disabled ipv6.method disabled bridge.stp no")?;
    vm.wait_for("nmcli -t -f DEVICE,STATE device | grep -q '^br-lan:connect'", Duration::from_secs(30))?;
    vm.ssh("ip link add br-0123456789ab type bridge && ip link set br-0123456789ab up")?;
    vm.wait_for("nmcli -t -f DEVICE,STATE device | grep -q '^br-0123456789ab:unmanaged'", Duration::from_secs(30))?;
    vm.ssh("ip link delete br-0123456789ab; nmcli connection delete br-lan >/dev/null")?;
    vm.ssh("nmcli connection delete e2e-far >/dev/null; systemctl stop e2e-far; ip netns delete far")?;
    vm.wait_for("! grep -q 10.94.0.1 /run/os/network/servers.conf", Duration::from_secs(30))?;
    time_servers(vm, "")
}
