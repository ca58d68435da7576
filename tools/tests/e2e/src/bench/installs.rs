//! What an installation costs on a device: `os-update` and RAUC in a virtual machine that runs the older of the two images
//! that `deltas` built, from a web server of this machine.

use crate::harness::artifacts::{Artifacts, VARIANT};
use crate::harness::device::{settled, update_status};
use crate::harness::lab::Lab;
use crate::harness::release::Maker;
use crate::harness::site::Site;
use crate::harness::vm::{Restart, Vm};
use anyhow::{Context, Result, bail, ensure};
use lab::image::bundle::{self, ADAPTIVE, Images};
use lab::repo::{self, Repo};
use serde_json::json;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// How long an installation may take under software emulation.
const LIMIT: Duration = Duration::from_secs(900);

/// Has the device install what its channel offers, and leaves in a file: seconds of the beginning and the end, most memory
/// of `os-update` and of RAUC in KiB, bytes fetched, sectors written.
const MEASURE: &str = r#"
fetched() { cat /sys/class/net/e*/statistics/rx_bytes | awk '{ sum += $1 } END { print sum }'; }
written() { awk '{ print $7 }' /sys/block/vda/stat; }
seconds() { cut -d ' ' -f 1 /proc/uptime; }
# Processes of a service with the most that each has held so far. Seldom: under emulation a look costs what it looks at.
look() {
    time=0
    while sleep 10; do
        time=$((time + 1))
        for unit in os-update rauc; do
            for process in $(cat "/sys/fs/cgroup/system.slice/$unit.service/cgroup.procs"); do
                echo "$unit $time $(grep VmHWM: "/proc/$process/status")"
            done
        done 2>/dev/null >>/run/seen
    done
}
most() {
    awk -v unit="$1" '$1 == unit { sum[$2] += $4; if (sum[$2] > most) most = sum[$2] } END { print most + 0 }' /run/seen
}
systemctl stop rauc
sync
: >/run/seen
from=$(fetched); before=$(written); start=$(seconds)
look &
systemctl start os-update
sync
end=$(seconds)
kill $!
echo "$start $end $(most os-update) $(most rauc) $(($(fetched) - from)) $(($(written) - before))" >/run/measured
"#;

/// The section for `docs/benchmarks.md`, of the images that [`super::deltas::section`] built last.
pub(crate) fn section(repo: &Repo) -> Result<String> {
    let built = |which: &str| Repo { build: repo.build.join("bench").join(which), ..repo.clone() };
    let (old, new) = (built("old"), built("new"));
    let artifacts = Arc::new(Artifacts::lab(&old, VARIANT)?);
    let accel = artifacts.accel;
    let lab = Lab::new(&artifacts, old.build.join("device"), 0)?;
    let maker = Maker::new(&artifacts, lab.dir.join("releases"))?;
    let site = Site::start(&lab.dir.join("site"))?;
    let mut channel = maker.channel(&site.path("bench"))?;
    let config =
        json!({ "hostname": "bench", "os": { "update": { "channel": Site::url("bench"), "mode": "download" } } });
    lab.disk.fat.write("config.json", &lab.config(config)?)?;
    println!("Booting the older image, and installing on it …");
    let mut vm = lab.boot_with_web(site.port, Restart::Ends)?;
    vm.wait_ssh()?;
    settled(&vm)?;
    vm.wait_for("systemctl is-system-running --wait >/dev/null", Duration::from_secs(300))?;
    vm.ssh(&format!("systemctl stop os-update.timer; cat > /run/measure <<'EOF'{MEASURE}EOF"))?;
    let mut text = format!(
        "\n## Updates on a device\n\nThe same two images, kernel partition and all, installed by `os-update` on a virtual \
         machine that runs the older one (processors: {}, emulation {accel:?}): from a web server, one after the other, in \
         this order. \"fetched\" is what its network card received, \"written\" what its disk was given, \"time\" until all of \
         it is on the disk, \"memory\" what the processes of `os-update` and of RAUC held at most. A release of which no block \
         is on the device costs what the last row says.\n\n\
         | | fetched | written | time | memory: os-update | RAUC |\n|---|---|---|---|---|---|\n",
        accel.processors()
    );
    let compatible = repo::need(&repo.vars()?, "OS_COMPATIBLE")?;
    for (version, words, of, adaptive) in [
        ("0.2.0", "the same image again, adaptive, the first since flashing", &old, Some(ADAPTIVE)),
        ("0.3.0", "the same image again, adaptive", &old, Some(ADAPTIVE)),
        ("0.4.0", "security update, adaptive", &new, Some(ADAPTIVE)),
        ("0.5.0", "security update, streamed whole", &new, None),
    ] {
        let bundle = lab.dir.join(format!("{version}.raucb"));
        bundle::make_with(&artifacts.keys, &compatible, version, &Images::built(of, VARIANT)?, &bundle, adaptive)?;
        maker.publish(&mut channel, &bundle)?;
        let row = install(&vm, version)?;
        println!("  {words}: {row}");
        writeln!(text, "| {words} | {row} |")?;
    }
    Ok(text)
}

/// Has a release installed and returns the cells of its row.
fn install(vm: &Vm, version: &str) -> Result<String> {
    vm.ssh("rm -f /run/measured; systemd-run --quiet --collect --unit=measure sh /run/measure")?;
    vm.wait_for("! systemctl is-active measure >/dev/null", LIMIT)?;
    let status = update_status(vm)?;
    ensure!(status.pointer("/phase").is_some_and(|phase| phase == "installed"), "{version}: {status}");
    let text = vm.ssh("cat /run/measured")?;
    let numbers: Vec<f64> = text.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().context(text)?;
    let &[start, end, ours, theirs, fetched, sectors] = numbers.as_slice() else { bail!("{numbers:?}") };
    let mib = |bytes: f64| format!("{:.1} MiB", bytes / 1048576.0);
    let [fetched, written, ours, theirs] = [fetched, sectors * 512.0, ours * 1024.0, theirs * 1024.0].map(mib);
    Ok(format!("{fetched} | {written} | {:.0} s | {ours} | {theirs}", end - start))
}
