use super::*;
use os_facts::Slot;
use os_facts::place::BOOT;

/// A root slot in a directory, with the state partition there and a `/proc` that sets nothing.
fn root(dir: &Path) -> Root {
    let kernel = Kernel { proc: dir.join("proc"), run: dir.join("run"), image: Vec::new() };
    let root = Root { sysroot: dir.join("sysroot"), run: dir.join("run"), kernel };
    for path in [STATE, BOOT, "/etc", IMAGE_ETC] {
        std::fs::create_dir_all(root.at(path)).unwrap();
    }
    root
}

fn furnish(root: &Root, report: &mut Report) {
    let config = root.configuration();
    root.identify(true, report);
    root.lay_down(&config, report);
    root.leave("SUBSYSTEM==\"block\"", report).unwrap();
}

fn text(path: PathBuf) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

#[test]
fn a_new_device_gets_an_identity_a_name_and_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let root = root(dir.path());
    let mut report = Report::default();
    furnish(&root, &mut report);
    assert!(report.first_boot);
    assert_eq!(report.messages, [""; 0]);
    let id = identity::read_id(&root.at(STATE).join(identity::DEVICE_ID)).unwrap();
    assert_eq!(text(root.at(STATE).join(hostname::FILE)).trim(), &id[..7]);
    assert_eq!(Report::load(&dir.path().join("run/os/init.json")), Some(report));
    assert_eq!(text(dir.path().join("run").join(UDEV_RULES)), "SUBSYSTEM==\"block\"");
    assert!(!root.at(trial::PATH).exists());
    // It stays who it is.
    let mut report = Report::default();
    furnish(&root, &mut report);
    assert_eq!(identity::read_id(&root.at(STATE).join(identity::DEVICE_ID)).unwrap(), id);
}

#[test]
fn what_config_json_says_is_there_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let root = root(dir.path());
    let config = r#"{"hostname": "press", "os": {"network": {"proxy": {"url": "http://proxy.example:3128"}}}}"#;
    std::fs::write(root.at(BOOT).join("config.json"), config).unwrap();
    let mut report = Report::default();
    furnish(&root, &mut report);
    assert_eq!(report.messages, [""; 0]);
    assert_eq!(text(root.at(STATE).join(hostname::FILE)), "press\n");
    assert!(text(root.at(os_config_model::proxy::ENVIRONMENT)).contains("http://proxy.example:3128"));
}

#[test]
fn a_file_that_is_refused_leaves_what_was_accepted_before() {
    let dir = tempfile::tempdir().unwrap();
    let root = root(dir.path());
    let accepted = root.at(STATE).join("os/config");
    std::fs::create_dir_all(&accepted).unwrap();
    std::fs::write(accepted.join("last-good.json"), r#"{"hostname": "before"}"#).unwrap();
    for broken in ["{", r#"{"hostname": 7}"#, "\u{0}\u{0}\u{0}"] {
        std::fs::write(root.at(BOOT).join("config.json"), broken).unwrap();
        let mut report = Report::default();
        furnish(&root, &mut report);
        assert_eq!(text(root.at(STATE).join(hostname::FILE)), "before\n", "{broken}");
    }
}

#[test]
fn a_state_that_takes_nothing_is_said_and_the_boot_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let root = root(dir.path());
    // A file where its directories would be: also root cannot write there.
    std::fs::write(root.at(STATE).join("os"), "").unwrap();
    let mut report = Report::default();
    furnish(&root, &mut report);
    assert!(!report.first_boot);
    let said = report.messages.join("\n");
    assert!(said.contains("cannot make an identity") && said.contains("the device has no name yet"), "{said}");
    assert!(Report::load(&dir.path().join("run/os/init.json")).is_some());
}

#[test]
fn a_trial_is_known_before_any_program_of_the_release_runs() {
    let dir = tempfile::tempdir().unwrap();
    let root = root(dir.path());
    std::fs::create_dir_all(root.at(STATE).join("os/update")).unwrap();
    std::fs::write(root.at(STATE).join("os/update/state.json"), r#"{"phase": "trial", "slot": "B"}"#).unwrap();
    for (slot, wanted) in [(Slot::A, false), (Slot::B, true)] {
        let mut report = Report { slot, ..Report::default() };
        furnish(&root, &mut report);
        assert_eq!(root.at(trial::PATH).exists(), wanted);
    }
}
