//! Keys of the engine, of other services, and of updates.

use super::Keys;
use crate::harness::device::equal;
use crate::harness::vm::Vm;
use anyhow::ensure;
use serde_json::{Value, json};
use std::time::Duration;

pub(super) fn services(vm: &Vm, keys: &mut Keys<'_>) {
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
    keys.check(&["/os/docker/bridge"], || {
        let text = vm.ssh("ip -4 -br addr show docker0; docker info -f '{{.ServerVersion}}'; ss -Hlun sport = :53")?;
        ensure!(text.contains("10.201.0.1/24") && text.contains("10.201.0.1:53"), "{text}");
        Ok(())
    });
    keys.check(&["/os/docker/log"], || equal(&vm.ssh("docker info -f '{{.LoggingDriver}}'")?, "local"));
    keys.check(&["/os/docker/daemon"], || {
        let labels = || vm.ssh("docker info -f '{{json .Labels}}'");
        equal(&labels()?, r#"["site=barn"]"#)?;
        // One that the engine does not know, one that it does not start with, one that is the system's.
        for (option, said) in [("nosuch", "nosuch"), ("default-runtime", "runtime"), ("data-root", "image")] {
            let (code, text) = vm.ssh_code(&format!("os config set /os/docker/daemon/{option} '\"nosuch\"' 2>&1"))?;
            ensure!(code == 1 && text.contains(said), "{option}: exit code {code}: {text}");
            equal(&labels()?, r#"["site=barn"]"#)?;
        }
        vm.ssh("os config set /os/docker/daemon/labels '[\"site=yard\"]'")?;
        equal(&labels()?, r#"["site=yard"]"#)
    });
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
        let pem = include_str!("../../../../../device/os-config-model/examples/ca.pem");
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

pub(super) fn updates(vm: &Vm, keys: &mut Keys<'_>) {
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
        let (code, text) = vm.ssh_code("https_proxy= os update check 2>&1")?;
        ensure!(code == 1 && text.contains("updates.example"), "exit code {code}: {text}");
        Ok(())
    });
}
