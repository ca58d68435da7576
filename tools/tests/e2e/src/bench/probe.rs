//! What looks from inside: units that come in through the firmware (systemd credentials), the same ones into ours and
//! into Debian, and into neither image. They wait for units and never poll.

use super::results::System;
use anyhow::Result;
use os_sys::cmd::Cmd;
use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;

/// What the probe writes on the console.
pub(super) const DOCKER: &str = "BENCH-DOCKER";
pub(super) const HEALTHY: &str = "BENCH-HEALTHY";
pub(super) const IDLE: &str = "BENCH-IDLE";
pub(super) const USED: &str = "BENCH-USED";
pub(super) const OWN: &str = "BENCH-OWN";
pub(super) const PROGRAM: &str = "BENCH-PSS";
pub(super) const END: &str = "BENCH-END";

/// What it answers when asked over the second serial port.
pub(super) const ASK_IDLE: &str = "idle";
pub(super) const ASK_MEMORY: &str = "memory";

/// The engine is up for systemd when it has said so itself; then a client asks it.
const DOCKER_UNIT: &str = "[Unit]\nDefaultDependencies=no\nAfter=docker.service\n[Service]\nType=oneshot\n\
    ExecStart=/bin/sh -c 'until docker version >/dev/null 2>&1; do sleep 1; done; echo BENCH-DOCKER >/dev/ttyS0'\n";

/// Ours says that all is well by keeping the slot.
const OURS_UNIT: &str = "[Unit]\nDefaultDependencies=no\nRequires=os-commit.service\nAfter=os-commit.service\n\
    [Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo BENCH-HEALTHY kept >/dev/ttyS0'\n";

/// Debian says it when every unit was started.
const DEBIAN_UNIT: &str = "[Unit]\nAfter=dbus.service\n[Service]\nType=exec\n\
    ExecStart=/bin/sh -c 'echo BENCH-HEALTHY $(systemctl is-system-running --wait) >/dev/ttyS0'\n";

/// Blocks on the second serial port and costs nothing until asked. `MemAvailable` is read before anything else is. The
/// console is opened for each answer: a login that starts on it cuts everybody else off.
const ANSWER_UNIT: &str = "[Unit]\nDefaultDependencies=no\n[Service]\nType=exec\n\
    ExecStart=/bin/sh -c 'while read -r ask; do case $ask in \
    idle) read -r line </proc/stat; echo BENCH-IDLE $line;; \
    memory) used=$(awk \"/^MemTotal/{t=\\$2} /^MemAvailable/{a=\\$2} END{print t-a}\" /proc/meminfo); own=0; \
    for p in /proc/[0-9]*; do \
    case $(readlink $p/exe) in */os-tools) own=$((own + $(awk \"/^VmRSS/{print \\$2}\" $p/status)));; esac; \
    while read -r key kib unit; do case $key in Pss:) echo BENCH-PSS $kib $(cat $p/comm);; esac; done <$p/smaps_rollup; \
    done 2>/dev/null; \
    echo BENCH-USED $used; echo BENCH-OWN $own; echo BENCH-END;; \
    esac >/dev/ttyS0; done </dev/ttyS1'\n";

/// The arguments for QEMU that put the probe into a system. `settings` is in the form of sysctl.d.
pub(super) fn arguments(system: System, settings: &str, dir: &Path) -> Result<Vec<String>> {
    let healthy = match system {
        System::Ours => OURS_UNIT,
        System::Debian => DEBIAN_UNIT,
        // These have no systemd; their own first process says it.
        System::Floor | System::FloorVerity | System::Firmware => return Ok(Vec::new()),
    };
    let mut out = Vec::new();
    let mut wants = String::from("[Unit]\n");
    for (name, unit) in [("docker", DOCKER_UNIT), ("healthy", healthy), ("answer", ANSWER_UNIT)] {
        let name = format!("bench-{name}.service");
        writeln!(wants, "Wants={name}")?;
        out.extend(credential(&format!("systemd.extra-unit.{name}"), &escaped(unit), dir)?);
    }
    out.extend(credential("systemd.unit-dropin.multi-user.target", &wants, dir)?);
    if !settings.is_empty() {
        out.extend(credential("sysctl.extra", settings, dir)?);
    }
    Ok(out)
}

/// systemd must not take the shell's signs for its own.
fn escaped(unit: &str) -> String {
    unit.replace('$', "$$").replace('%', "%%")
}

fn credential(key: &str, value: &str, dir: &Path) -> Result<[String; 2]> {
    let path = dir.join("credential");
    std::fs::write(&path, value)?;
    let encoded = Cmd::new("base64").arg("-w0").stdin(File::open(path)?).read()?;
    Ok(["-smbios".to_owned(), format!("type=11,value=io.systemd.credential.binary:{key}={}", encoded.trim())])
}
