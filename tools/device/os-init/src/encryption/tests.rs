use super::*;

#[test]
fn the_size_of_a_filesystem_is_what_mkfs_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fs");
    File::create(&path).unwrap().set_len(64 << 20).unwrap();
    assert_eq!(ext4_size(&path), None);
    storage::format(&path, "os-data").unwrap();
    assert_eq!(ext4_size(&path), Some(64 << 20));
    Cmd::new("mkfs.ext4").args(["-q", "-F", "-O", "^64bit", "-b", "1024"]).arg(&path).arg("20M").run().unwrap();
    assert_eq!(ext4_size(&path), Some(20 << 20));
}

// The real header; opening takes device-mapper and is tested on the device.
#[test]
fn a_luks2_header_is_known_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("luks");
    File::create(&path).unwrap().set_len(32 << 20).unwrap();
    assert!(!is_luks(&path));
    let key = dir.path().join("key");
    std::fs::write(&key, "secret").unwrap();
    for (kind, wanted) in [("luks1", false), ("luks2", true)] {
        let format = Cmd::new("cryptsetup").args(["luksFormat", "-q", "--type", kind]).args(PBKDF);
        format.arg(&path).arg(&key).run().unwrap();
        assert_eq!(is_luks(&path), wanted, "{kind}");
    }
}

/// The real cryptsetup on a plain file. Every cut that the medium may make of what it was told: the header is one long
/// write, of which any part may be there, and cryptsetup's own copy of what it moved may not.
#[test]
fn a_cut_while_the_header_is_put_in_place_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (state, device) = (dir.path().join("state"), dir.path().join("data"));
    std::fs::create_dir_all(state.join("os")).unwrap();
    File::create(&device).unwrap().set_len(56 << 20).unwrap();
    Cmd::new("mkfs.ext4").args(["-q", "-F"]).arg(&device).arg("24M").run().unwrap();
    let mut before = std::fs::read(&device).unwrap();
    let data = Data {
        device: &device,
        sysroot: Path::new("/"),
        state: Some(&state),
        boot: dir.path(),
        wanted: Some(Protection::Key),
    };
    // What cryptsetup leaves in state is there only while it runs: its end is what it would have removed.
    let kept = dir.path().join("header");
    let watched = state.join(WORK);
    let watch = std::thread::spawn({
        let kept = kept.clone();
        move || {
            let mut whole = Vec::new();
            let start = std::time::Instant::now();
            while start.elapsed().as_secs() < 60 && !kept.with_extension("stop").exists() {
                for entry in std::fs::read_dir(&watched).into_iter().flatten().flatten() {
                    let made = std::fs::read(entry.path()).unwrap_or_default();
                    let is_last = made.windows(16).take(16 << 10).any(|w| w == b"online-reencrypt");
                    if is_last {
                        whole = made;
                    }
                }
            }
            std::fs::write(&kept, &whole).unwrap();
        }
    });
    data.encrypt(|_| Ok(())).unwrap();
    std::fs::write(kept.with_extension("stop"), "").unwrap();
    watch.join().unwrap();
    let after = std::fs::read(&device).unwrap();
    let header = usize::try_from(HEADER).unwrap();
    // The header of the device is what cryptsetup made, so it stands for it where the watch was too slow.
    let made = std::fs::read(&kept).unwrap();
    let made = if made.len() == header { made } else { after[..header].to_vec() };
    let moved = &after[after.len() - header..];
    // The check before it writes the superblock, which tells when that was.
    before[1024..2048].copy_from_slice(&moved[1024..2048]);
    assert!(before[..header] == *moved, "the start is not at the end");
    let pieces = [0, 4 << 10, 16 << 10, 32 << 10, 1 << 20, header];
    for subset in 0..1u32 << (pieces.len() - 1) {
        let mut torn = after.clone();
        for (number, piece) in pieces.windows(2).enumerate() {
            if subset & 1 << number == 0 {
                torn[piece[0]..piece[1]].copy_from_slice(&before[piece[0]..piece[1]]);
            }
        }
        std::fs::write(&device, &torn).unwrap();
        let work = data.new_work().unwrap();
        std::fs::write(work.join("LUKS2-temp.new"), &made).unwrap();
        data.recover().unwrap();
        assert!(std::fs::read(&device).unwrap() == after && !work.exists(), "pieces {subset:05b}");
    }
    // Cut before the header was whole: it is forgotten, and the filesystem was not touched.
    for made in [&made[..0], &made[..3000], &[0; 1 << 20]] {
        std::fs::write(&device, &before).unwrap();
        let work = data.new_work().unwrap();
        std::fs::write(work.join("LUKS2-temp.new"), made).unwrap();
        data.recover().unwrap();
        assert!(std::fs::read(&device).unwrap() == before && !work.exists());
    }
}

#[test]
fn a_header_of_which_only_the_second_is_left_is_no_filesystem() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("luks");
    File::create(&path).unwrap().set_len(64 << 20).unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "secret").unwrap();
    let format = Cmd::new("cryptsetup").args(["luksFormat", "-q", "--type", "luks2"]).args(PBKDF);
    format.arg(&path).arg(&key).run().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..4096].fill(0);
    std::fs::write(&path, bytes).unwrap();
    assert!(is_luks(&path));
    Cmd::new("cryptsetup").arg("luksDump").arg(&path).run().unwrap();
    storage::format(&path, "os-data").unwrap();
    assert!(!is_luks(&path));
}

#[test]
fn a_key_survives_the_wipe_of_state_wherever_the_power_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (state, boot) = (dir.path().join("state"), dir.path().join("boot"));
    let wiped = || {
        let _ = std::fs::remove_dir_all(&state);
        std::fs::create_dir_all(state.join("os")).unwrap();
    };
    std::fs::create_dir(&boot).unwrap();
    wiped();
    carry_key(&state, &boot).unwrap();
    assert!(!boot.join(KEY_IN_TRANSIT).exists());
    std::fs::write(state.join(KEY), "secret").unwrap();
    carry_key(&state, &boot).unwrap();
    wiped();
    // Cut here: the wipe runs again and finds no key in state.
    carry_key(&state, &boot).unwrap();
    wiped();
    return_key(&state, &boot).unwrap();
    return_key(&state, &boot).unwrap();
    assert_eq!(std::fs::read_to_string(state.join(KEY)).unwrap(), "secret");
    assert!(!boot.join(KEY_IN_TRANSIT).exists());
}
