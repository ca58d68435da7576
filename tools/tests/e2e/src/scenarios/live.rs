//! Changes of config.json on a running device.

use crate::harness::artifacts::NO_DEMO;
use crate::harness::checks::Checks;
use crate::harness::device::{equal, journal_on_data, run_containers, time_servers};
use crate::harness::lab::Lab;
use crate::harness::vm::Vm;
use anyhow::{Result, ensure};
use serde_json::json;
use std::time::Duration;

pub(super) fn live_changes(vm: &Vm, lab: &Lab, checks: &mut Checks) {
    let put = |config: &[u8]| -> Result<()> {
        // As an editor saves: a new file under the old name.
        let text = String::from_utf8_lossy(config);
        vm.ssh(&format!(
            "cat > /mnt/boot/config.new <<'EOF'\n{text}\nEOF\nmv /mnt/boot/config.new /mnt/boot/config.json"
        ))?;
        Ok(())
    };
    checks.check("a flood of lines leaves the kernel's and the boot's in the journal", || {
        let kept = || vm.ssh("journalctl -b -o cat --no-pager | grep -c '^Linux version\\|^Started .*os-config\\|^Finished .*Apply config.json' || true");
        let before = kept()?;
        vm.ssh("systemd-run -q --wait -p LogRateLimitIntervalSec=0 seq -f 'e2e writes line %.0f, and one after the other' 20000")?;
        equal(&kept()?, before.trim())?;
        ensure!(before.trim() != "0", "nothing to look for");
        let lines = vm.ssh("journalctl -b -o cat --no-pager | grep -c '^e2e writes line'; du -s -k /run/log/journal | cut -f1")?;
        let numbers: Vec<u64> = lines.lines().map(|line| line.trim().parse()).collect::<Result<_, _>>()?;
        ensure!(numbers[0] < 20_000, "{lines}: it was no flood");
        ensure!(numbers[1] <= 9 << 10, "{lines}: the journal takes more than 8 MB");
        vm.wait_for("! systemctl is-active os-boot-log.path", Duration::from_secs(20)).map(drop)
    });
    let changed = || -> Result<()> {
        put(&lab.config(json!({ "hostname": "e2e-two", "persistentLogging": true }))?)?;
        vm.wait_for("test $(hostname) = e2e-two", Duration::from_secs(30))?;
        vm.wait_for("ls /var/log/journal/$(cat /etc/machine-id)/system.journal", Duration::from_secs(30))?;
        vm.wait_for("os config status >/dev/null", Duration::from_secs(10))?;
        time_servers(vm, "")
    };
    match &lab.artifacts.demo {
        Some(demo) => checks.check("a change is applied at once and restarts no container", || {
            let started = format!("docker inspect -f '{{{{.State.StartedAt}}}} {{{{.State.Status}}}}' {}", demo.name);
            let before = vm.ssh(&started)?;
            ensure!(before.contains("running"), "{before}");
            changed()?;
            equal(&vm.ssh(&started)?, before.trim())
        }),
        None => {
            checks.check("a change is applied at once", changed);
            checks.skip("and restarts no container", NO_DEMO);
        }
    }
    checks.check("many changes in a row wear nothing out", || {
        vm.ssh("for i in $(seq 12); do os config set ntpServers 192.0.2.$i >/dev/null || exit; done; os config status >/dev/null")?;
        time_servers(vm, "192.0.2.12")?;
        vm.ssh("for i in $(seq 60); do touch /mnt/boot/config.json; sleep 0.1; done; os config unset ntpServers")?;
        vm.wait_for("systemctl is-active os-config.path && systemctl is-active systemd-timesyncd", Duration::from_secs(20)).map(drop)
    });
    checks.check("a refused file keeps the last good one in force and says why", || {
        put(br#"{"hostname": 7, "os": {"sshKeys": "none"}}"#)?;
        vm.wait_for("os config status --json | grep -q last-good", Duration::from_secs(30))?;
        let (code, text) = vm.ssh_code("os config status")?;
        ensure!(
            code == 1 && text.contains("config.json hostname:") && text.contains("config.json os.sshKeys:"),
            "exit code {code}: {text}"
        );
        equal(&vm.ssh("hostname")?, "e2e-two")
    });
    checks.check("developmentMode false closes consoles and the Docker API, at once", || {
        put(&lab.config(json!({ "hostname": "e2e-two", "developmentMode": false }))?)?;
        let open = format!("systemctl is-active serial-getty@{} os-docker-tcp.socket", lab.artifacts.console);
        vm.wait_for(&format!("! {open}"), Duration::from_secs(40))?;
        let (code, _) = vm.ssh_code("(exec 3<>/dev/tcp/127.0.0.1/2375) 2>/dev/null")?;
        ensure!(code != 0, "port 2375 is still open");
        vm.ssh("test -e /mnt/boot/system-connections")?;
        run_containers(vm, &lab.artifacts.containers())?;
        journal_on_data(vm, false)
    });
}
