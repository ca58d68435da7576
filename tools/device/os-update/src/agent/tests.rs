//! The agent on a device whose root is a directory, and whose RAUC and systemd are on a bus of their own.

use super::*;
use crate::machine::{Mark, mark_in};
use minisign::KeyPair;
use os_boot::{Bootloader, Loader, counters};
use os_channel::channel::{Bundle, Release};
use os_channel::{Envelope, Role, Root};
use os_dbus::fake::Fake;
use os_facts::place::under;
use os_facts::report::{self, Report};
use os_facts::{board, place};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const VERSION: &str = "2.0.0";
const HASH: &str = "the hash of its manifest";
const DAY: u64 = 86_400;

/// A device, the services that it talks to, and a channel that offers one release.
struct Desk {
    dir: TempDir,
    fake: Fake,
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn signed(value: &impl serde::Serialize, key: &KeyPair) -> Vec<u8> {
    let signed = serde_json::to_string(value).unwrap();
    let signature = minisign::sign(Some(&key.pk), &key.sk, signed.as_bytes(), None, None).unwrap();
    serde_json::to_vec(&Envelope { signed, signatures: vec![signature.into_string()] }).unwrap()
}

impl Desk {
    /// Slot A runs 1.0.0; the channel has [`VERSION`].
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::start(dir.path(), "1.0.0").await.unwrap();
        fake.world(|world| world.bundle = (VERSION.to_owned(), HASH.to_owned()));
        let desk = Self { dir, fake };
        write(&desk.at(board::PATH), "BOOTLOADER=grub\n");
        write(&desk.at(place::BOOT).join("EFI/BOOT").join(counters::FILE), counters::fresh());
        desk.runs(Slot::A);
        // What restarts without the bus must not restart the machine that tests.
        let systemctl = desk.at("/usr/bin/systemctl");
        write(&systemctl, format!("#!/bin/sh\necho \"$@\" >>{}\n", desk.dir.path().join("systemctl.log").display()));
        std::fs::set_permissions(&systemctl, std::fs::Permissions::from_mode(0o755)).unwrap();
        let loader = desk.loader();
        desk.fake.world(|world| {
            world.backend = Box::new(move |mark, slot| {
                let mark = match mark {
                    "active" => Mark::Active,
                    "good" => Mark::Good,
                    _ => Mark::Bad,
                };
                let slot = if slot == "rootfs.0" { Slot::A } else { Slot::B };
                mark_in(&loader, mark, slot).unwrap();
            });
        });
        desk.publish(VERSION);
        desk
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn at(&self, path: &str) -> PathBuf {
        under(&self.root(), path)
    }

    fn publish(&self, version: &str) {
        let key = KeyPair::generate_unencrypted_keypair().unwrap();
        let role = || Role { keys: vec![key.pk.to_base64()], threshold: 1 };
        let expires = now() + 14 * DAY;
        let root = Root { kind: "root".to_owned(), version: 1, expires, root: role(), channel: role() };
        let path = format!("{version}.raucb");
        let bundle = Bundle { path, size: 4, sha256: "the digest of it".to_owned(), manifest_hash: HASH.to_owned() };
        let release = Release {
            compatible: "os-test".to_owned(),
            version: version.parse().unwrap(),
            build: String::new(),
            bundle,
            published: now(),
            notes: None,
            rollout: 100,
            stepping_stone: false,
            revoked: None,
        };
        let (kind, name) = ("channel".to_owned(), "stable".to_owned());
        let list = Channel { kind, name, serial: 1, issued: now(), expires, releases: vec![release] };
        write(&self.at(trust::BUILT_IN), signed(&root, &key));
        write(&self.channel().join("channel.json"), signed(&list, &key));
        write(&self.channel().join(format!("{version}.raucb")), "raucb");
    }

    fn channel(&self) -> PathBuf {
        self.dir.path().join("stable")
    }

    fn source(&self) -> Source {
        Source::Directory(self.channel())
    }

    /// The slot that the initramfs says runs.
    fn runs(&self, slot: Slot) {
        let report = Report { slot, ..Report::default() };
        write(&self.at(report::PATH), serde_json::to_vec(&report).unwrap());
        self.fake.world(|world| {
            for rauc in &mut world.slots {
                let booted = rauc.bootname.as_deref() == Some(slot.name());
                rauc.state = if booted { "booted" } else { "inactive" }.to_owned();
            }
        });
    }

    async fn machine(&self) -> Machine {
        Machine::under(&self.root(), Some(Bus::at(self.fake.address()).await.unwrap()))
    }

    async fn agent(&self) -> Agent {
        Agent::of(self.machine().await, false).await.unwrap()
    }

    /// What was asked of the services, without what only looks.
    fn done(&self) -> Vec<String> {
        let looks = ["GetSlotStatus", "InspectBundle", "ListUnits", "StartUnit modprobe@"];
        let calls = self.fake.world(|world| std::mem::take(&mut world.calls));
        calls.into_iter().filter(|call| !looks.iter().any(|look| call.starts_with(look))).collect()
    }

    fn loader(&self) -> Loader {
        Loader::new(Bootloader::Grub, &self.at(place::BOOT))
    }

    fn restarts_without_the_bus(&self) -> bool {
        self.dir.path().join("systemctl.log").exists()
    }
}

/// A person asks for what the channel has; and what the device restarts into, if it does.
async fn apply(desk: &Desk) -> Result<Done> {
    let source = desk.source();
    desk.agent().await.run(Asked::Person, Some(&source), &|_| ()).await
}

#[tokio::test]
async fn a_release_is_installed_started_and_kept() {
    let desk = Desk::new().await;
    let mut agent = desk.agent().await;
    let found = agent.check(Some(&desk.source())).await.unwrap();
    assert_eq!((found.running.as_str(), found.offered.as_deref()), ("1.0.0", Some(VERSION)));
    assert!(desk.done().is_empty(), "a check changes nothing");
    drop(agent);
    let said = std::cell::RefCell::new(String::new());
    let told = |text: &str| said.replace(text.to_owned());
    let source = desk.source();
    let done = desk.agent().await.run(Asked::Person, Some(&source), &|text| drop(told(text))).await.unwrap();
    assert_eq!(done.outcome, Outcome::Restarting);
    assert_eq!(said.borrow().as_str(), "2.0.0 is installed; restarting into it");
    assert_eq!(desk.done(), ["InstallBundle", "Mark active rootfs.1", "StartUnit reboot.target"]);
    desk.runs(Slot::B);
    let mut agent = desk.agent().await;
    let on_trial = agent.run(Asked::Person, Some(&source), &|_| ()).await.unwrap();
    assert_eq!(on_trial.outcome, Outcome::OnTrial);
    agent.healthy().await.unwrap();
    assert_eq!(agent.state().phase, Phase::Idle);
    assert_eq!(agent.state().running.as_ref().unwrap().version, VERSION);
    assert_eq!(desk.done(), ["Mark good rootfs.1"]);
}

#[tokio::test]
async fn a_release_that_is_not_healthy_is_left_and_not_installed_again() {
    let desk = Desk::new().await;
    apply(&desk).await.unwrap();
    desk.runs(Slot::B);
    desk.done();
    desk.agent().await.unhealthy(Verdict::failed("the engine does not answer")).await.unwrap();
    assert_eq!(desk.done(), ["Mark active rootfs.0", "Mark bad rootfs.1", "StartUnit reboot.target"]);
    assert!(desk.at(crate::state::DIR).join(FAILED_JOURNAL).exists() || !Path::new("/usr/bin/journalctl").exists());
    desk.runs(Slot::A);
    desk.agent().await.healthy().await.unwrap();
    assert_eq!(desk.done(), ["Mark bad rootfs.1", "Mark good rootfs.0"]);
    let again = apply(&desk).await.unwrap();
    assert_eq!(again.outcome, Outcome::FailedHere);
    assert!(desk.done().is_empty());
}

#[tokio::test]
async fn the_timer_keeps_to_the_rules() {
    let desk = Desk::new().await;
    let timer = async || {
        let mut agent = desk.agent().await;
        agent.policy.channel = Ok(Some(desk.source()));
        agent.run(Asked::Timer, None, &|_| ()).await.unwrap()
    };
    let config = |text: &str| write(&desk.at(place::BOOT).join("config.json"), text);
    config(r#"{"os": {"update": {"mode": "manual"}}}"#);
    assert!(timer().await.text.contains("os update apply installs it"));
    config(r#"{"os": {"update": {"mode": "download"}}}"#);
    write(&desk.at(crate::policy::INHIBIT).join("welding"), "");
    assert!(timer().await.text.contains("welding asks for no update now"));
    std::fs::remove_file(desk.at(crate::policy::INHIBIT).join("welding")).unwrap();
    let hook = desk.at("/mnt/state/os/update-allow.d/battery");
    write(&hook, "#!/bin/sh\necho the battery is low >&2; exit 1\n");
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(timer().await.text.contains("the battery is low"));
    std::fs::remove_file(&hook).unwrap();
    desk.agent().await.course.device.store.pause(true).unwrap();
    assert!(timer().await.text.contains("updates are paused"));
    desk.agent().await.course.device.store.pause(false).unwrap();
    assert!(desk.done().is_empty());
    let done = timer().await;
    assert!(done.outcome == Outcome::Waiting && done.text.contains("is installed and waits"), "{}", done.text);
    assert_eq!(desk.done(), ["InstallBundle"]);
    config(r#"{"os": {"update": {"mode": "automatic"}}}"#);
    assert_eq!(timer().await.outcome, Outcome::Restarting);
    assert_eq!(desk.done(), ["Mark active rootfs.1", "StartUnit reboot.target"]);
}

#[tokio::test]
async fn what_rauc_refuses_is_told_and_tried_again_later() {
    let desk = Desk::new().await;
    desk.fake.world(|world| world.refuses = Some("no space left on device".to_owned()));
    let err = apply(&desk).await.unwrap_err();
    assert_eq!(format!("{err:#}"), "2.0.0 was not installed: no space left on device");
    let agent = desk.agent().await;
    assert_eq!(agent.state().phase, Phase::Idle);
    assert!(agent.state().waiting.is_some() && agent.state().refused.is_empty());
}

#[tokio::test]
async fn a_bundle_that_is_not_what_the_list_names_is_not_written() {
    for (version, hash, why) in [("2.0.0", "another", "another bundle"), ("1.9.0", HASH, "the bundle itself 1.9.0")] {
        let desk = Desk::new().await;
        desk.fake.world(|world| world.bundle = (version.to_owned(), hash.to_owned()));
        let err = format!("{:#}", apply(&desk).await.unwrap_err());
        assert!(err.contains(why), "{err}");
        assert!(desk.done().is_empty(), "nothing was written");
    }
}

/// Whichever call is not answered, before or after it did its work: what is asked for again is done in the end, nothing is
/// refused, and the device does not restart into a slot that the bootloader does not know to be on trial.
#[tokio::test]
async fn any_call_may_fail_and_the_next_try_gets_there() {
    for after in [false, true] {
        for number in 0.. {
            let desk = Desk::new().await;
            desk.fake.world(|world| (world.fails, world.fails_after) = (Some(number), after));
            let first = apply(&desk).await;
            let reached = desk.fake.world(|world| world.calls.len()) > number;
            let which = desk.fake.world(|world| world.calls.get(number).cloned()).unwrap_or_default();
            let calls = desk.fake.world(|world| {
                world.fails = None;
                world.calls.clone()
            });
            if calls.iter().any(|call| call == "StartUnit reboot.target") {
                let next = desk.loader().counters().unwrap().next();
                assert_eq!(next, Some(Slot::B), "{which} failed, and the device restarts");
            }
            let state = desk.agent().await.state().clone();
            assert_eq!(state.refused, [], "{which} failed");
            let restarts = matches!(&first, Ok(done) if done.outcome == Outcome::Restarting);
            if restarts {
                let known = matches!(state.phase, Phase::Trial { slot: Slot::B, armed: true, .. });
                assert!(known, "{which} failed: {:?}", state.phase);
            } else {
                let done = apply(&desk).await.unwrap();
                assert_eq!(done.outcome, Outcome::Restarting, "{which} failed: {}", done.text);
            }
            desk.runs(Slot::B);
            let mut agent = desk.agent().await;
            agent.healthy().await.unwrap();
            assert_eq!(agent.state().running.as_ref().map(|t| t.version.as_str()), Some(VERSION), "{which} failed");
            if !reached {
                assert!(number > 5, "an update takes more than {number} calls");
                break;
            }
        }
    }
}

/// The same for the boot that decides.
#[tokio::test]
async fn any_call_may_fail_while_a_release_is_kept_or_left() {
    for (healthy, after) in [(true, false), (true, true), (false, false), (false, true)] {
        for number in 0.. {
            let desk = Desk::new().await;
            apply(&desk).await.unwrap();
            desk.runs(Slot::B);
            desk.done();
            desk.fake.world(|world| (world.fails, world.fails_after) = (Some(number), after));
            let mut agent = desk.agent().await;
            let decided = match healthy {
                true => agent.healthy().await,
                false => agent.unhealthy(Verdict::failed("ill")).await,
            };
            let (reached, which) = desk.fake.world(|world| {
                world.fails = None;
                (world.calls.len() > number, world.calls.get(number).cloned())
            });
            decided.unwrap_or_else(|err| panic!("{which:?} failed: {err:#}"));
            if healthy {
                assert_eq!(agent.state().phase, Phase::Idle, "{which:?} failed");
            } else {
                let left = desk.done().contains(&"StartUnit reboot.target".to_owned());
                assert!(left || desk.restarts_without_the_bus(), "{which:?} failed, and the device stays");
                let next = desk.loader().counters().unwrap().next();
                let told = next == Some(Slot::A);
                assert!(told, "{which:?} failed, and the bootloader starts {next:?}");
            }
            if !reached {
                break;
            }
        }
    }
}

#[tokio::test]
async fn an_operator_goes_back_marks_and_switches() {
    let desk = Desk::new().await;
    apply(&desk).await.unwrap();
    desk.runs(Slot::B);
    desk.agent().await.healthy().await.unwrap();
    desk.done();
    assert_eq!(desk.agent().await.mark_by_hand(Mark::Good, None).await.unwrap(), Slot::B);
    assert_eq!(desk.done(), ["Mark good rootfs.1"]);
    assert_eq!(desk.agent().await.switch().await.unwrap(), Slot::A);
    assert_eq!(desk.done(), ["Mark active rootfs.0"]);
    desk.fake.world(|world| world.slots[0].boot_status = Some("bad".to_owned()));
    assert!(desk.agent().await.switch().await.is_err() && desk.agent().await.go_back().await.is_err());
    assert!(desk.agent().await.mark_by_hand(Mark::Bad, None).await.is_err(), "nothing else could be started");
    desk.fake.world(|world| world.slots[0].boot_status = Some("good".to_owned()));
    desk.done();
    desk.agent().await.go_back().await.unwrap();
    assert_eq!(desk.done(), ["Mark active rootfs.0", "StartUnit reboot.target"]);
    desk.runs(Slot::A);
    assert_eq!(apply(&desk).await.unwrap().outcome, Outcome::FailedHere, "what an operator left is not taken again");
}

#[tokio::test]
async fn one_agent_at_a_time() {
    let desk = Desk::new().await;
    let first = desk.agent().await;
    let second = take_lock(&desk.machine().await, Some(Duration::ZERO)).await;
    assert!(format!("{:#}", second.unwrap_err()).contains("an update is under way already"));
    drop(first);
    take_lock(&desk.machine().await, Some(Duration::ZERO)).await.unwrap();
}

#[tokio::test]
async fn an_installation_whose_agent_was_killed_is_begun_again() {
    let desk = Desk::new().await;
    let mut agent = desk.agent().await;
    let target = crate::state::Target { version: VERSION.to_owned(), digest: "the digest of it".to_owned() };
    agent.course.note(Event::Found(target, "x".to_owned())).unwrap();
    drop(agent);
    desk.done();
    let agent = desk.agent().await;
    assert_eq!(desk.done(), ["StopUnit rauc.service"]);
    assert_eq!(agent.state().phase, Phase::Idle);
    drop(agent);
    assert_eq!(apply(&desk).await.unwrap().outcome, Outcome::Restarting);
}

#[tokio::test]
async fn a_damaged_state_begins_anew_and_says_so() {
    let desk = Desk::new().await;
    write(&desk.at(crate::state::DIR).join("state.json"), "{\"phase\": 7");
    let agent = desk.agent().await;
    assert_eq!(agent.state().phase, Phase::Idle);
    assert!(agent.state().history.iter().any(|event| event.text.contains("damaged")));
}

#[tokio::test]
async fn the_rescue_system_gives_tries_back_only_where_they_were_used_up() {
    let desk = Desk::new().await;
    let said = desk.agent().await.leave_rescue().await.unwrap();
    assert_eq!(said, "no slot needs its tries back; the rescue system stays");
    assert!(desk.done().is_empty());
    let used_up = String::from_utf8(counters::fresh()).unwrap().replace("A_TRY=0", "A_TRY=3");
    write(&desk.loader().directory().join(counters::FILE), used_up);
    let said = desk.agent().await.leave_rescue().await.unwrap();
    assert_eq!(said, "nobody came to the rescue system; slot A is tried again");
    assert_eq!(desk.loader().counters().unwrap().next(), Some(Slot::A));
    assert_eq!(desk.done(), ["StartUnit reboot.target"]);
}

#[test]
fn who_typed_nothing_is_gone_before_the_rescue_system_is_left() {
    let timer = include_str!("../../dist/os-rescue.timer");
    let minutes = timer.lines().find_map(|line| line.strip_prefix("OnActiveSec=")?.strip_suffix("min"));
    let waits = Duration::from_secs(60 * minutes.unwrap().parse::<u64>().unwrap());
    assert!(TYPED < waits);
}
