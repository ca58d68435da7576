use super::*;

struct Fixture {
    _dir: tempfile::TempDir,
    store: Store,
    stick: std::path::PathBuf,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let (boot, stick) = (dir.path().join("boot"), dir.path().join("stick"));
    std::fs::create_dir_all(&boot).unwrap();
    std::fs::create_dir_all(&stick).unwrap();
    Fixture { store: Store::at(&boot, &dir.path().join("state")), stick, _dir: dir }
}

fn put(stick: &Path, name: &str, text: &str) {
    let path = stick.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn key(comment: &str) -> String {
    format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3s0Cv1XoS0JkWlTdmIcJ2xq6l5fM1m8rWkqS0Zt0Aa {comment}")
}

fn full(stick: &Path) {
    put(stick, "config.json", "{\"hostname\": \"from-stick\", \"country\": null}");
    put(stick, "authorized_keys", &format!("# mine\r\n{}\r\n", key("b")));
    put(stick, "timesyncd.conf", "[Time]\nNTP=192.0.2.9\n");
    put(stick, "modules/extra.conf", "dummy\n# no\n");
    put(stick, "modprobe/dummy.conf", "options dummy numdummies=2\n");
    put(stick, "udev/99-x.rules", "KERNEL==\"x\"\n");
    put(stick, "certificates/ca.crt", include_str!("../../../os-config-model/examples/ca.pem"));
    put(stick, "network/wifi.nmconnection", "[connection]\r\nid=x\r\n");
    put(stick, "update.raucb", "x");
    put(stick, "holiday.jpg", "x");
}

#[test]
fn everything_becomes_a_change_of_the_configuration() {
    let f = fixture();
    let before = json!({"hostname": "old", "country": "DE", "os": {"sshKeys": [key("a")], "watchdog": 20}});
    f.store.write(&edit::to_text(&before)).unwrap();
    full(&f.stick);
    let checked = import(&f.store, &f.stick, None, true).unwrap();
    assert!(!checked.taken && checked.problems.is_empty(), "{checked}");
    assert_eq!(json::read(&f.store.read().unwrap()).unwrap(), before);
    let report = import(&f.store, &f.stick, None, false).unwrap();
    assert!(report.taken, "{report}");
    assert_eq!(report.changed, checked.changed);
    assert!(report.files.iter().any(|i| i.file == "update.raucb" && i.result.contains("left alone")));
    let now = json::read(&f.store.read().unwrap()).unwrap();
    assert_eq!(now["hostname"], "from-stick");
    assert_eq!(now.get("country"), None);
    assert_eq!(now["os"]["sshKeys"], json!([key("a"), key("b")]));
    assert_eq!(now["os"]["watchdog"], 20);
    assert_eq!(now["ntpServers"], "192.0.2.9");
    assert_eq!(now["os"]["kernel"], json!({"modules": ["dummy"], "moduleOptions": {"dummy": "numdummies=2"}}));
    assert_eq!(now["os"]["udevRules"]["99-x"], "KERNEL==\"x\"\n");
    assert!(f.store.boot().join("system-connections/wifi.nmconnection").exists());
    assert!(import(&f.store, &f.stick, None, false).unwrap().changed.is_empty());
}

#[test]
fn a_bad_configuration_keeps_all_of_it_out() {
    for text in ["{\"hostname\": 7}", "[]", "{", "{\"os\": {\"sshKeys\": [\"ssh-ed25519 AAAA\"]}}"] {
        let f = fixture();
        full(&f.stick);
        put(&f.stick, "config.json", text);
        let report = import(&f.store, &f.stick, None, false).unwrap();
        assert!(!report.taken && !report.problems.is_empty(), "{text}: {report}");
        assert_eq!(std::fs::read_dir(f.store.boot()).unwrap().count(), 0, "{text}");
    }
}

#[test]
fn another_bad_file_is_named_and_holds_no_other_back() {
    for (name, text) in [
        ("authorized_keys", "command=\"x\" ssh-ed25519 AAAA"),
        ("network/x", "hello"),
        ("certificates/x.crt", "hello"),
        ("modprobe/x.conf", "install dummy /bin/sh\n"),
        ("modprobe/x.conf", "blacklist dummy\n"),
        ("udev/61-os-disk.rules", "x"),
        ("modules/x.conf", "not a module\n"),
        ("timesyncd.conf", "[Time]\nRootDistanceMaxSec=5\n"),
    ] {
        let f = fixture();
        full(&f.stick);
        put(&f.stick, name, text);
        let report = import(&f.store, &f.stick, None, false).unwrap();
        assert!(report.taken && report.problems.is_empty(), "{name}: {report}");
        assert!(report.complaints.len() == 1 && report.complaints[0].starts_with(name), "{name}: {report}");
        assert_eq!(json::read(&f.store.read().unwrap()).unwrap()["hostname"], "from-stick", "{name}");
    }
}

#[test]
fn files_from_windows_and_their_names_are_understood() {
    let f = fixture();
    let bom = "\u{feff}";
    put(&f.stick, "Config.json", &format!("{bom}{{\"hostname\": \"from-windows\"}}"));
    put(&f.stick, "authorized_keys.txt", &format!("{bom}{}\r\nssh-ed25519 AAAA\r\n", key("b")));
    put(&f.stick, "Timesyncd.conf", &format!("{bom}[Time]\r\n NTP = a.example\r\nNTP=b.example\r\n"));
    put(&f.stick, "Network/office.nmconnection", &format!("{bom}[connection]\r\nid=x\r\n"));
    put(&f.stick, "modules/bus.conf", "i2c-dev # bus\n");
    put(&f.stick, "readme.md", "x");
    let report = import(&f.store, &f.stick, None, false).unwrap();
    assert!(report.taken && report.complaints.is_empty(), "{report}");
    let now = json::read(&f.store.read().unwrap()).unwrap();
    assert_eq!(now["hostname"], "from-windows");
    assert_eq!(now["os"]["sshKeys"], json!([key("b")]));
    assert_eq!(now["ntpServers"], "a.example b.example");
    assert_eq!(now["os"]["kernel"]["modules"], json!(["i2c-dev"]));
    let profile = std::fs::read(f.store.boot().join("system-connections/office.nmconnection")).unwrap();
    assert_eq!(profile, b"[connection]\nid=x\n");
    let item = |name: &str| report.files.iter().find(|item| item.file == name).map(|item| item.result.clone()).unwrap();
    assert!(
        item("authorized_keys").contains("1 lines left out") && item("readme.md").contains("left alone"),
        "{report}"
    );
}

#[test]
fn links_and_large_files_are_left_out() {
    let f = fixture();
    put(&f.stick, "timesyncd.conf", "[Time]\nNTP=192.0.2.9\n");
    std::os::unix::fs::symlink("/etc/passwd", f.stick.join("authorized_keys")).unwrap();
    std::os::unix::fs::symlink("/etc", f.stick.join("udev")).unwrap();
    put(&f.stick, "modules/huge.conf", &"a\n".repeat(100_000));
    let report = import(&f.store, &f.stick, None, false).unwrap();
    assert!(report.taken);
    assert_eq!(report.changed, ["ntpServers"]);
    assert!(report.files.iter().any(|i| i.file == "udev" && i.result.contains("no directory")), "{report}");
    assert!(report.files.iter().any(|i| i.file == "modules/huge.conf" && i.result.contains("larger")), "{report}");
}

#[test]
fn a_refused_file_on_the_device_is_rescued() {
    let f = fixture();
    f.store.keep(b"{\"hostname\":\"good\"}").unwrap();
    std::fs::write(f.store.path(), "{\"hostname\": 7}").unwrap();
    put(&f.stick, "timesyncd.conf", "[Time]\nNTP=192.0.2.9\n");
    assert!(import(&f.store, &f.stick, None, false).unwrap().taken);
    let now = json::read(&f.store.read().unwrap()).unwrap();
    assert_eq!(now, json!({"hostname": "good", "ntpServers": "192.0.2.9"}));
}

// With the real openssl: the program that checks on the device.
#[test]
fn only_what_the_right_key_signed_is_taken() {
    let f = fixture();
    let keys = f.stick.parent().unwrap().to_owned();
    for name in ["good", "other"] {
        Cmd::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "10", "-subj", "/CN=x", "-keyout"])
            .arg(keys.join(format!("{name}.key")))
            .arg("-out")
            .arg(keys.join(format!("{name}.pem")))
            .run()
            .unwrap();
    }
    let keyring = keys.join("good.pem");
    let take = || import(&f.store, &f.stick, Some(&keyring), false).unwrap();
    put(&f.stick, "timesyncd.conf", "[Time]\nNTP=192.0.2.9\n");
    assert!(take().problems[0].message.contains("signed configurations only"));
    let sign = |key: &str| {
        let text = std::fs::read(f.stick.join("timesyncd.conf")).unwrap();
        put(&f.stick, MANIFEST, &format!("{}  timesyncd.conf\n", hex(&Sha256::digest(text))));
        Cmd::new("openssl")
            .args(["cms", "-sign", "-binary", "-outform", "DER", "-in"])
            .arg(f.stick.join(MANIFEST))
            .arg("-signer")
            .arg(keys.join(format!("{key}.pem")))
            .arg("-inkey")
            .arg(keys.join(format!("{key}.key")))
            .arg("-out")
            .arg(f.stick.join(SIGNATURE))
            .run()
            .unwrap();
    };
    sign("other");
    assert!(take().problems[0].message.contains("signature"));
    sign("good");
    put(&f.stick, "config.json", "{\"hostname\":\"unsigned\"}");
    put(&f.stick, "timesyncd.conf", "[Time]\nNTP=192.0.2.66\n");
    assert!(take().problems[0].message.contains("not what was signed"));
    put(&f.stick, "timesyncd.conf", "[Time]\nNTP=192.0.2.9\n");
    let report = take();
    assert!(report.taken && report.changed == ["ntpServers"], "{report}");
    assert!(report.files.iter().any(|i| i.file == "config.json" && i.result.contains("not signed")));
}

// A text in the place of a boolean decides as it is understood, or a device would take what is not signed.
#[test]
fn whether_a_stick_has_to_be_signed_follows_what_is_in_force() {
    let f = fixture();
    for (text, wanted) in [("\"true\"", true), ("1", true), ("\"False\"", false), ("true", true), ("false", false)] {
        f.store.write(format!("{{\"os\": {{\"import\": {{\"signedOnly\": {text}}}}}}}").as_bytes()).unwrap();
        assert_eq!(signed_only(&f.store), wanted, "{text}");
    }
    // A file that is refused changes nothing of it.
    f.store.keep(br#"{"os": {"import": {"signedOnly": true}}}"#).unwrap();
    f.store.write(br#"{"hostname": "bad name"}"#).unwrap();
    assert!(signed_only(&f.store));
}
