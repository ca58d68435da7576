//! State is gone, or config.json is broken, or both.

use crate::harness::artifacts::Demo;
use crate::harness::checks::Checks;
use crate::harness::device::{equal, remember_identity, run_containers, settled, time_servers};
use crate::harness::lab::Lab;
use crate::harness::vm::Vm;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;

/// Colour of the picture of the test.
const LOGO: [u8; 3] = [10, 160, 220];

fn picture(colour: [u8; 3]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 64, 48);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&colour.repeat(64 * 48))?;
    Ok(bytes)
}

/// Two pixels of a screenshot in QEMU's form, netpbm's P6.
fn middle_and_corner(ppm: &[u8]) -> Result<([u8; 3], [u8; 3])> {
    let mut words = ppm.splitn(4, |b| b.is_ascii_whitespace());
    ensure!(words.next() == Some(b"P6"), "no screenshot");
    let mut number = || -> Result<usize> { Ok(std::str::from_utf8(words.next().context("no size")?)?.parse()?) };
    let (width, height) = (number()?, number()?);
    let body = ppm.get(ppm.len().saturating_sub(width * height * 3)..).unwrap_or_default();
    let at =
        |x: usize, y: usize| body.get((y * width + x) * 3..).and_then(|b| b.first_chunk().copied()).context("short");
    Ok((at(width / 2, height / 2)?, at(width - 1, height - 1)?))
}

/// Broken configurations, one after the other, on a device that runs; the last one before them stays in force.
fn broken(lab: &Lab, vm: &Vm, checks: &mut Checks) -> Result<()> {
    let good = good(lab)?;
    let unknown = lab.config(json!({ "hostname": "e2e-good", "developmentMode": false, "colour": "blue" }))?;
    let slip = lab.config(json!({ "hostnmae": "e2e-slip", "developmentMode": false }))?;
    let half = good.get(..good.len() / 2).unwrap_or_default();
    // Name, how it is written, still in force from the file, what console and status must say.
    let put = |content: &[u8]| format!("printf %s '{}'", String::from_utf8_lossy(content));
    let live = [
        ("unknown keys", put(&unknown), true, "config.json colour: unknown key, no effect"),
        ("a slip", put(&slip), false, "config.json hostnmae: is no key; did you mean hostname?"),
        ("truncated JSON", put(half), false, "config.json: not valid JSON: EOF while parsing"),
        (
            "wrong types",
            put(br#"{"hostname": ["x"], "persistentLogging": "yes", "os": 7}"#),
            false,
            "config.json persistentLogging: is a string; expected true or false",
        ),
        ("10 MB of noise", "head -c 10485760 /dev/urandom".to_owned(), false, "is larger than"),
    ];
    for (name, write, in_force, message) in live {
        checks.check(
            &format!("{name}: the last good configuration stays in force, console and status say why"),
            || {
                vm.ssh(&format!("{write} > /mnt/boot/config.json"))?;
                says(vm, if in_force { "file" } else { "last-good" }, message)
            },
        );
    }
    checks.check("a file without os.sshKeys locks nobody out, and [] does", || {
        let keys = "cat /run/os/ssh/authorized_keys";
        let before = vm.ssh(keys)?;
        ensure!(!before.trim().is_empty(), "nobody may log in");
        vm.ssh(r#"echo '{"hostname": "e2e-good", "developmentMode": false}' > /mnt/boot/config.json"#)?;
        vm.wait_for("os config status | grep 'set last stay in force'", Duration::from_secs(60))?;
        equal(&vm.ssh(keys)?, before.trim())?;
        // A name that is none is refused, and nothing is written for it.
        let (code, text) = vm.ssh_code("os config set os.sshKey x 2>&1")?;
        ensure!(code == 1 && text.contains("did you mean os.sshKeys?"), "exit code {code}: {text}");
        // What a service refuses is taken back.
        let (code, text) = vm.ssh_code("os config set os.locale.lang xx_XX.UTF-8 2>&1")?;
        ensure!(code == 1 && text.contains("as it was before"), "exit code {code}: {text}");
        equal(&vm.ssh("os config get os.locale.lang 2>/dev/null || echo none")?, "none")?;
        // The file is gone: what is in force is what is edited.
        vm.ssh("rm /mnt/boot/config.json && os config set persistentLogging false")?;
        equal(&vm.ssh("os config get hostname")?, "e2e-good")?;
        // This login stays.
        vm.ssh("os config set os.sshKeys '[]'")?;
        equal(&vm.ssh(keys)?, "")
    });
    // What a person does next: put a good one back.
    put_good(vm, &good)
}

fn good(lab: &Lab) -> Result<Vec<u8>> {
    lab.config(json!({ "hostname": "e2e-good", "developmentMode": false }))
}

fn put_good(vm: &Vm, good: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(good);
    vm.ssh(&format!("printf %s '{text}' > /mnt/boot/config.json"))?;
    vm.wait_for("test $(hostname) = e2e-good && os config status", Duration::from_secs(60)).map(drop)
}

/// [`good`] is in force, and console and status say why it is not the file, or what is wrong with that.
fn says(vm: &Vm, source: &str, message: &str) -> Result<()> {
    vm.wait_for(&format!("os config status | grep -qF '{message}'"), Duration::from_secs(30))?;
    let status: Value = serde_json::from_str(&vm.ssh_code("os config status --json")?.1)?;
    ensure!(status["source"] == source, "{status}");
    ensure!(vm.console().contains(message), "the console does not say '{message}'");
    equal(&vm.ssh("hostname")?, "e2e-good")
}

/// State is gone, the configuration is broken in many ways, then it is gone, too.
pub(super) fn lost(lab: &Lab, checks: &mut Checks) -> Result<()> {
    lab.disk.fat.write("config.json", &good(lab)?)?;
    lab.disk.fat.write("wipe", b"state")?;
    // What the flashed image has in /mnt/data/preload, which is long used up.
    for (file, content) in lab.preloaded()? {
        lab.disk.fat.write(&file, &content)?;
    }
    lab.disk.fat.make_dir("CONFIG")?;
    lab.disk.fat.write("CONFIG/timesyncd.conf", b"[Time]\r\nNTP=192.0.2.88\r\n")?;
    lab.disk.fat.make_dir("splash")?;
    lab.disk.fat.write("splash/logo.png", &picture(LOGO)?)?;
    let mut vm = lab.boot(vec!["-device".to_owned(), "VGA".to_owned()])?;
    vm.wait_ssh()?;
    checks.check("the picture of splash/ is on the screen", || {
        let shot = lab.dir.join("screen.ppm");
        vm.qmp_with("screendump", json!({ "filename": shot }))?;
        let (middle, corner) = middle_and_corner(&std::fs::read(&shot)?)?;
        ensure!(middle == LOGO && corner == [0; 3], "in the middle {middle:?}, in the lower right corner {corner:?}");
        equal(&vm.ssh("systemctl is-failed os-splash || true")?, "inactive")
    });
    checks.check("CONFIG/ on the boot partition is taken over, reported, and not taken again", || {
        vm.wait_for("test -d /mnt/boot/CONFIG.done && ! test -e /mnt/boot/CONFIG", Duration::from_secs(60))?;
        time_servers(&vm, "192.0.2.88")?;
        let report = vm.ssh("cat /mnt/boot/CONFIG.done/report-*.txt")?;
        ensure!(report.contains("taken over") && report.contains("time servers"), "{report}");
        Ok(())
    });
    vm.wait_for("test $(hostname) = e2e-good && os config status", Duration::from_secs(60))?;
    checks.check("no console login outside development mode", || {
        let (code, _) = vm.ssh_code("systemctl is-active 'getty@*' 'serial-getty@*' >/dev/null")?;
        ensure!(code != 0 && !vm.console().contains("automatic login"), "a getty runs");
        Ok(())
    });
    checks.check("a wipe of state leaves data and its key", || {
        let status: Value = serde_json::from_str(&vm.wait_for("os status --json || true", Duration::from_secs(60))?)?;
        let boot = &status["boot"];
        ensure!(boot["state"] == "formatted" && boot["firstBoot"] == true && boot["data"] == "ok", "{boot}");
        equal(
            &vm.ssh("os disk encryption; cat /mnt/data/mark; ls /mnt/boot/data.key 2>/dev/null || true")?,
            "key\nkept",
        )
    });
    broken(lab, &vm, checks)?;
    settled(&vm)?;
    // The plug is pulled: that must not matter, nor to a container that is just being started. Without the sync the
    // engine would not know it at all.
    if let Some(Demo { name, image, port, files }) = &lab.artifacts.demo {
        checks.check("a preloaded container is made, and the plug is pulled while it is started", || {
            let archive = files.first().context("no archive")?;
            let put: Vec<String> = files.iter().map(|file| format!("cp /mnt/boot/{file} /mnt/data/preload/")).collect();
            vm.ssh(&format!(
                "mkdir -p /mnt/data/preload && {} && docker load -q < /mnt/boot/{archive} && docker create --name {name} \
                 --restart unless-stopped -p {port}:8080 {image} && sync && docker start {name}",
                put.join(" && ")
            ))
            .map(drop)
        });
    }
    drop(vm);
    lab.disk.fat.remove("config.json")?;
    let mut vm = lab.boot(Vec::new())?;
    checks.check("a missing file: the device boots and lets its owner in", || vm.wait_ssh());
    checks.check("a missing file: the last good configuration is in force, console and status say why", || {
        says(&vm, "last-good", "config.json: the file is missing")
    });
    const CUT_OFF: &str = "the container whose start was cut off runs";
    match lab.artifacts.no_demo() {
        Some(why) => checks.skip(CUT_OFF, why),
        None => checks.check(CUT_OFF, || {
            vm.wait_for("systemctl is-active os-preload", Duration::from_secs(180))?;
            run_containers(&vm, &lab.artifacts.containers())?;
            equal(&vm.ssh("ls /mnt/data/preload")?, "")
        }),
    }
    put_good(&vm, &good(lab)?)?;
    // For the wipe that comes next.
    remember_identity(lab, &vm)?;
    checks.check("the power button turns the device off", || vm.power_off());
    Ok(())
}
