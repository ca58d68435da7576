//! Real keys, real signatures.

use crate::channel::{Asking, Bundle, Channel, Choice, Clock, Held, Release, Seen};
use crate::{Envelope, Error, Role, Root};
use minisign::KeyPair;
use proptest::prelude::*;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

fn key() -> KeyPair {
    KeyPair::generate_unencrypted_keypair().unwrap()
}

fn role(keys: &[&KeyPair], threshold: usize) -> Role {
    Role { keys: keys.iter().map(|k| k.pk.to_base64()).collect(), threshold }
}

fn sign(value: &impl serde::Serialize, keys: &[&KeyPair]) -> Vec<u8> {
    let signed = serde_json::to_string(value).unwrap();
    let signatures = keys
        .iter()
        .map(|k| minisign::sign(Some(&k.pk), &k.sk, signed.as_bytes(), None, None).unwrap().into_string())
        .collect();
    serde_json::to_vec(&Envelope { signed, signatures }).unwrap()
}

fn root(version: u32, root: Role, channel: Role) -> Root {
    Root { kind: "root".to_owned(), version, expires: NOW + 365 * DAY, root, channel }
}

fn release(version: &str) -> Release {
    Release {
        compatible: "os-test".to_owned(),
        version: version.parse().unwrap(),
        build: String::new(),
        bundle: Bundle {
            path: format!("bundles/{version}.raucb"),
            size: 1,
            sha256: format!("digest-{version}"),
            manifest_hash: String::new(),
        },
        published: NOW,
        notes: None,
        rollout: 100,
        stepping_stone: false,
        revoked: None,
    }
}

fn list(serial: u64, releases: Vec<Release>) -> Channel {
    Channel {
        kind: "channel".to_owned(),
        name: "stable".to_owned(),
        serial,
        issued: NOW,
        expires: NOW + 14 * DAY,
        releases,
    }
}

fn choose<'a>(list: &'a Channel, version: &str, refused: &[String]) -> Choice<'a> {
    list.choose(Asking { compatible: "os-test", version: &version.parse().unwrap(), id: "device", refused })
}

fn version(choice: &Choice<'_>) -> String {
    match choice {
        Choice::Offer(release) => release.version.to_string(),
        other => format!("{other:?}"),
    }
}

struct World {
    root_key: KeyPair,
    ci: KeyPair,
    root: Root,
}

fn world() -> World {
    let (root_key, ci) = (key(), key());
    let root = root(1, role(&[&root_key], 1), role(&[&ci], 1));
    World { root_key, ci, root }
}

fn accept(bytes: &[u8], root: &Root, seen: &Seen, now: u64) -> Result<(Channel, Seen), Error> {
    Channel::accept(bytes, root, "stable", seen, Clock { now, set: now != 0 })
}

#[test]
fn a_signed_list_is_believed_and_remembered() {
    let w = world();
    let bytes = sign(&list(3, vec![release("1.0.0")]), &[&w.ci]);
    let (found, seen) = accept(&bytes, &w.root, &Seen::default(), NOW).unwrap();
    assert_eq!((found.serial, seen.serial, seen.issued), (3, 3, NOW));
    accept(&bytes, &w.root, &seen, NOW).unwrap();
}

#[test]
fn a_stranger_cannot_sign_and_one_key_does_not_count_twice() {
    let w = world();
    let stranger = key();
    let bytes = sign(&list(1, vec![]), &[&stranger]);
    let none = Err(Error::Signatures { valid: 0, needed: 1 });
    assert_eq!(accept(&bytes, &w.root, &Seen::default(), NOW).map(drop), none);
    // The root's keys are for roots alone.
    let bytes = sign(&list(1, vec![]), &[&w.root_key]);
    assert_eq!(accept(&bytes, &w.root, &Seen::default(), NOW).map(drop), none);
    let other = key();
    let two = root(1, role(&[&w.root_key], 1), role(&[&w.ci, &other], 2));
    let bytes = sign(&list(1, vec![]), &[&w.ci, &w.ci]);
    let found = accept(&bytes, &two, &Seen::default(), NOW).map(drop);
    assert_eq!(found, Err(Error::Signatures { valid: 1, needed: 2 }));
    // Nor when the root lists it twice.
    let twice = root(1, role(&[&w.root_key], 1), role(&[&w.ci, &w.ci], 2));
    assert!(accept(&bytes, &twice, &Seen::default(), NOW).is_err());
    accept(&sign(&list(1, vec![]), &[&w.ci, &other]), &two, &Seen::default(), NOW).unwrap();
}

#[test]
fn old_lists_two_faced_lists_and_other_channels_are_refused() {
    let w = world();
    let seen = accept(&sign(&list(5, vec![]), &[&w.ci]), &w.root, &Seen::default(), NOW).unwrap().1;
    let old = accept(&sign(&list(4, vec![]), &[&w.ci]), &w.root, &seen, NOW).map(drop);
    assert_eq!(old, Err(Error::Older { found: 4, seen: 5 }));
    let other = accept(&sign(&list(5, vec![release("9.0.0")]), &[&w.ci]), &w.root, &seen, NOW).map(drop);
    assert_eq!(other, Err(Error::TwoFaced(5)));
    let mut beta = list(6, vec![]);
    beta.name = "beta".to_owned();
    let found = accept(&sign(&beta, &[&w.ci]), &w.root, &seen, NOW).map(drop);
    assert!(matches!(found, Err(Error::OtherChannel { .. })), "{found:?}");
}

#[test]
fn a_frozen_list_expires_even_when_the_clock_stands_in_1970() {
    let w = world();
    let bytes = sign(&list(1, vec![]), &[&w.ci]);
    assert!(matches!(accept(&bytes, &w.root, &Seen::default(), NOW + 15 * DAY), Err(Error::Expired { .. })));
    // 1970: the list's own date is the floor, so it is accepted once...
    let seen = accept(&bytes, &w.root, &Seen::default(), 0).unwrap().1;
    // ...and what was seen later makes it old.
    let later = Seen { issued: NOW + 20 * DAY, ..seen };
    assert!(matches!(accept(&bytes, &w.root, &later, 0), Err(Error::Expired { .. })));
    // A root past its date believes nothing.
    let found = accept(&bytes, &Root { expires: NOW - 1, ..w.root }, &Seen::default(), NOW).map(drop);
    assert!(matches!(found, Err(Error::Expired { .. })), "{found:?}");
}

#[test]
fn what_a_stolen_key_said_is_forgotten_when_it_is_rotated_away() {
    let w = world();
    let seen = accept(&sign(&list(5, vec![]), &[&w.ci]), &w.root, &Seen::default(), NOW).unwrap().1;
    // The thief's last list: nothing that the owner signs comes after it.
    let thief = Channel { serial: u64::MAX, issued: NOW + 80 * DAY, expires: NOW + 90 * DAY, ..list(0, vec![]) };
    let stolen = accept(&sign(&thief, &[&w.ci]), &w.root, &seen, 0).unwrap().1;
    let own = list(6, vec![]);
    assert!(accept(&sign(&own, &[&w.ci]), &w.root, &stolen, NOW).is_err());
    let new = key();
    let next = root(2, role(&[&w.root_key], 1), role(&[&new], 1));
    let found = accept(&sign(&own, &[&new]), &next, &stolen, NOW).unwrap().1;
    assert_eq!((found.serial, found.issued), (6, NOW));
    // A root that keeps the keys keeps the memory.
    let same = root(3, role(&[&key()], 1), role(&[&w.ci], 1));
    assert!(matches!(accept(&sign(&list(4, vec![]), &[&w.ci]), &same, &seen, NOW), Err(Error::Older { .. })));
}

#[test]
fn a_list_is_neither_from_the_future_nor_good_for_ever() {
    let w = world();
    let ahead = Channel { issued: NOW + 2 * DAY, expires: NOW + 9 * DAY, ..list(1, vec![]) };
    let bytes = sign(&ahead, &[&w.ci]);
    assert!(matches!(accept(&bytes, &w.root, &Seen::default(), NOW), Err(Error::Future { .. })));
    // Whose clock was never set does not know.
    assert!(accept(&bytes, &w.root, &Seen::default(), 0).is_ok());
    for expires in [NOW + 100 * DAY, NOW - 1] {
        let odd = Channel { expires, ..list(1, vec![]) };
        assert!(matches!(accept(&sign(&odd, &[&w.ci]), &w.root, &Seen::default(), 0), Err(Error::Malformed(_))));
    }
}

#[test]
fn keys_rotate_along_the_chain_and_nowhere_else() {
    let w = world();
    let (new_root, new_ci) = (key(), key());
    let second = root(2, role(&[&new_root], 1), role(&[&new_ci], 1));
    // Both generations have to sign.
    for keys in [vec![&w.root_key], vec![&new_root]] {
        assert!(w.root.successor(&sign(&second, &keys)).is_err());
    }
    let next = w.root.successor(&sign(&second, &[&w.root_key, &new_root])).unwrap();
    assert_eq!(next, second);
    // The old CI key is worth nothing any more.
    assert!(accept(&sign(&list(1, vec![]), &[&w.ci]), &next, &Seen::default(), NOW).is_err());
    accept(&sign(&list(1, vec![]), &[&new_ci]), &next, &Seen::default(), NOW).unwrap();
    // No version is left out, and none comes again.
    let third = root(3, role(&[&new_root], 1), role(&[&new_ci], 1));
    let skipped = w.root.successor(&sign(&third, &[&w.root_key, &new_root]));
    assert_eq!(skipped, Err(Error::NotNext { found: 3, trusted: 1 }));
    assert_eq!(Root::built_in(&sign(&third, &[&new_root])).unwrap(), third);
    assert!(Root::built_in(&sign(&third, &[&new_ci])).is_err());
    // A list is no root, whoever signed it.
    assert!(matches!(w.root.successor(&sign(&list(2, vec![]), &[&w.root_key])), Err(Error::Malformed(_))));
}

#[test]
fn the_newest_release_is_offered_unless_it_failed_here_or_is_revoked() {
    let mut revoked = release("3.0.0");
    revoked.revoked = Some("eats batteries".to_owned());
    let mut other = release("4.0.0");
    other.compatible = "os-other".to_owned();
    let list = list(1, vec![release("2.0.0"), release("1.0.0"), revoked, other]);
    assert_eq!(version(&choose(&list, "1.0.0", &[])), "2.0.0");
    assert_eq!(choose(&list, "2.0.0", &[]), Choice::UpToDate);
    // What failed is not taken again; what is older but still newer than the device is.
    let failed = ["digest-2.0.0".to_owned()];
    assert!(matches!(choose(&list, "1.0.0", &failed), Choice::Held { why: Held::FailedHere, .. }));
    assert_eq!(version(&choose(&list, "0.9.0", &failed)), "1.0.0");
}

#[test]
fn a_stepping_stone_is_gone_through() {
    let mut stone = release("2.0.0");
    stone.stepping_stone = true;
    let list = list(1, vec![release("1.5.0"), stone, release("3.0.0")]);
    assert_eq!(version(&choose(&list, "1.0.0", &[])), "2.0.0");
    assert_eq!(version(&choose(&list, "2.0.0", &[])), "3.0.0");
    // One that failed here is not jumped over.
    assert_eq!(version(&choose(&list, "1.0.0", &["digest-2.0.0".to_owned()])), "1.5.0");
}

#[test]
fn a_stepping_stone_that_was_revoked_lies_in_the_way_until_there_is_another() {
    let mut stone = release("2.0.0");
    stone.stepping_stone = true;
    stone.revoked = Some("eats disks".to_owned());
    let mut other = release("2.0.1");
    other.stepping_stone = true;
    let held = list(1, vec![stone.clone(), release("3.0.0")]);
    assert!(matches!(choose(&held, "1.0.0", &[]), Choice::Held { why: Held::Revoked, .. }));
    assert_eq!(version(&choose(&held, "2.0.0", &[])), "3.0.0");
    let open = list(2, vec![other, stone, release("3.0.0")]);
    assert_eq!(version(&choose(&open, "1.0.0", &[])), "2.0.1");
}

#[test]
fn a_rollout_reaches_about_its_share_and_keeps_whom_it_reached() {
    let mut part = release("2.0.0");
    part.rollout = 20;
    let devices: Vec<String> = (0..2000).map(|n| format!("device-{n}")).collect();
    let reached = devices.iter().filter(|id| part.reaches(id)).count();
    assert!((300..500).contains(&reached), "{reached}");
    let mut more = part.clone();
    more.rollout = 60;
    assert!(devices.iter().filter(|id| part.reaches(id)).all(|id| more.reaches(id)));
    part.rollout = 0;
    assert!(!devices.iter().any(|id| part.reaches(id)));
    assert!(matches!(choose(&list(1, vec![part]), "1.0.0", &[]), Choice::Held { why: Held::Rollout, .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // Whatever byte of a signed list is another one: it is refused, or says exactly the same.
    #[test]
    fn no_tampered_list_is_believed(at in 0usize..4000, flip in 1u8..=255) {
        let w = world();
        let original = list(7, vec![release("1.0.0")]);
        let mut bytes = sign(&original, &[&w.ci]);
        let at = at % bytes.len();
        bytes[at] ^= flip;
        if let Ok((found, _)) = accept(&bytes, &w.root, &Seen::default(), NOW) {
            prop_assert_eq!(found, original);
        }
    }

    #[test]
    fn noise_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let w = world();
        prop_assert!(accept(&bytes, &w.root, &Seen::default(), NOW).is_err());
        prop_assert!(w.root.successor(&bytes).is_err());
    }
}
