//! Configurations that a stick brings.

use super::Keys;
use crate::harness::device::{equal, time_servers};
use crate::harness::disk::Disk;
use crate::harness::lab::Lab;
use crate::harness::vm::Vm;
use anyhow::{Context, Result, ensure};
use os_sys::cmd::Cmd;
use serde_json::{Value, json};
use std::time::Duration;

pub(super) fn stick_import(vm: &Vm, lab: &Lab, stick: &Disk, keys: &mut Keys<'_>) -> Result<()> {
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
    stick.fat.write("config.json", b"{\"hostname\": \"from-stick\", \"country\": \"FR\"}")?;
    stick.fat.write("timesyncd.conf", b"[Time]\r\nNTP=192.0.2.77\r\n")?;
    stick.fat.make_dir("network")?;
    stick.fat.write("network/office.nmconnection", b"[connection]\nid=office\nuuid=2b0f7f5e-0d3c-4f0f-9d43-0123456789ab\ntype=ethernet\n[match]\ninterface-name=none0\n")?;
    keys.checks.check("a stick labelled CONFIG is taken over when it is plugged in, and says so", || {
        plug()?;
        equal(&vm.ssh("hostname; os config get country")?, "from-stick\nFR")?;
        time_servers(vm, "192.0.2.77")?;
        vm.wait_for("nmcli -g NAME connection | grep -q ^office$", Duration::from_secs(30))?;
        unplug()?;
        let report: Value = serde_json::from_slice(&stick.fat.read("report-e2e-set.json")?)?;
        ensure!(report["taken"] == true && report["problems"] == json!([]), "{report}");
        Ok(())
    });
    keys.checks.check("a stick with one bad value changes nothing and says why", || {
        stick.fat.write("config.json", b"{\"hostname\": \"bad name\"}")?;
        plug()?;
        unplug()?;
        equal(&vm.ssh("hostname")?, "from-stick")?;
        let text = String::from_utf8(stick.fat.read("report-from-stick.txt")?)?;
        ensure!(text.contains("nothing was taken over") && text.contains("! hostname:"), "{text}");
        Ok(())
    });
    // Nothing unsigned is taken, and what the key of the updates signed is.
    keys.check(&["/os/import/signedOnly"], || {
        vm.ssh("os config set os.import.signedOnly true")?;
        stick.fat.write("config.json", b"{\"hostname\": \"signed\"}")?;
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
        std::fs::write(path, stick.fat.read(name)?)?;
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
        .arg(&lab.artifacts.keys.bundle_cert)
        .arg("-inkey")
        .arg(&lab.artifacts.keys.bundle_key)
        .dir(&dir)
        .run()?;
    for name in ["CONFIG.sha256", "CONFIG.sha256.p7s"] {
        stick.fat.write(name, &std::fs::read(dir.join(name))?)?;
    }
    Ok(())
}
