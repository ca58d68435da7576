use super::*;

fn content(size: usize) -> Vec<u8> {
    (0..size as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn curl(address: &str, range: &str) -> Vec<u8> {
    let out = std::process::Command::new("curl").args(["-sS", "--fail", "-r", range, address]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

#[test]
fn every_range_is_what_the_bundle_has_there() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = content(5 * 1024 * 1024 + 123);
    std::fs::write(dir.path().join("b"), &bytes).unwrap();
    let source = Source::Directory(dir.path().to_owned());
    let relay = Relay::start(Bundle { source, path: "b".to_owned(), size: bytes.len() as u64, limit: 0 }).unwrap();
    for (first, last) in [(0, 0), (0, 4095), (1_048_570, 1_048_590), (5_242_880, 5_243_002), (100, 3_000_000)] {
        assert_eq!(curl(&relay.address(), &format!("{first}-{last}")), bytes[first..=last], "{first}-{last}");
    }
    assert_eq!(curl(&relay.address(), "0-"), bytes);
    let mut past = std::process::Command::new("curl");
    past.args(["-sS", "--fail", "-r", "9999999-", &relay.address()]);
    assert!(!past.output().unwrap().status.success());
}

/// A server that closes every connection after so many bytes, wherever that is, and remembers what it was asked for.
fn serves(bytes: Vec<u8>, after: usize, asked: Arc<Mutex<Vec<(u64, u64)>>>) -> Source {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let Some(request) = read_head(&mut reader) else { continue };
            let (first, last) = request.range.unwrap_or((0, None));
            let first = usize::try_from(first).unwrap();
            let last = last.map_or(bytes.len() - 1, |l| usize::try_from(l).unwrap().min(bytes.len() - 1));
            asked.lock().unwrap().push((first as u64, last as u64));
            let head = format!(
                "HTTP/1.1 206 P\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{last}/{}\r\n\r\n",
                last - first + 1,
                bytes.len()
            );
            let body = &bytes[first..=last];
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&body[..body.len().min(after)]);
            let _ = stream.shutdown(Shutdown::Both);
        }
    });
    Source::parse(&format!("http://127.0.0.1:{port}/stable")).unwrap()
}

#[test]
fn a_server_that_closes_the_connection_again_and_again_is_outlasted() {
    let bytes = content(3 * 1024 * 1024);
    let source = serves(bytes.clone(), 1_500_000, Arc::default());
    let relay = Relay::start(Bundle { source, path: "b".to_owned(), size: bytes.len() as u64, limit: 0 }).unwrap();
    assert_eq!(curl(&relay.address(), "0-"), bytes);
    // What came before a cut and made no whole block is fetched again, and no more than that.
    assert!(relay.passed().fetched < 5 * 1024 * 1024, "{}", relay.passed().fetched);
}

/// A server that gives an answer of its own making; what was asked for, and how often that was before.
fn answers(answer: impl Fn(u64, u64, usize) -> Vec<u8> + Send + 'static) -> Source {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (count, mut stream) in listener.incoming().flatten().enumerate() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let Some(request) = read_head(&mut reader) else { continue };
            let (first, last) = request.range.unwrap();
            let _ = stream.write_all(&answer(first, last.unwrap(), count));
            let _ = stream.shutdown(Shutdown::Both);
        }
    });
    Source::parse(&format!("http://127.0.0.1:{port}/stable")).unwrap()
}

fn part(bytes: &[u8], first: u64, last: u64, more: &str) -> Vec<u8> {
    let (from, to) = (usize::try_from(first).unwrap(), usize::try_from(last).unwrap());
    let head = format!(
        "HTTP/1.1 206 P\r\nContent-Range: bytes {first}-{last}/{}\r\nContent-Length: {}\r\n{more}\r\n",
        bytes.len(),
        last - first + 1
    );
    [head.as_bytes(), &bytes[from..=to]].concat()
}

#[test]
fn nothing_but_what_was_asked_for_reaches_rauc_and_the_reason_is_the_servers() {
    type Answer = Box<dyn Fn(&[u8], u64, u64, usize) -> Vec<u8> + Send>;
    let cases: [(Answer, &str); 5] = [
        (Box::new(|bytes, first, last, _| part(bytes, 0, last - first, "")), "answered with bytes 0 to"),
        (Box::new(|bytes, first, last, _| part(&bytes[..1 << 20], first, last.min(1 << 19), "")), "and "),
        (
            Box::new(|bytes, _, _, _| {
                let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", bytes.len());
                [head.as_bytes(), bytes, b"\r\n0\r\n\r\n"].concat()
            }),
            "range requests",
        ),
        (
            Box::new(|bytes, first, last, count| part(bytes, first, last, &format!("ETag: \"{count}\"\r\n"))),
            "became another one",
        ),
        (
            Box::new(|bytes, first, last, _| {
                let mut more = bytes.to_vec();
                more.resize(bytes.len() + 7, 0);
                part(&more, first, last, "")
            }),
            "where it is served",
        ),
    ];
    for (answer, says) in cases {
        let bytes = content(1_300_000);
        let size = bytes.len() as u64;
        let served = bytes.clone();
        let source = answers(move |first, last, count| answer(&served, first, last, count));
        let relay = Relay::start(Bundle { source, path: "b".to_owned(), size, limit: 0 }).unwrap();
        let out = std::process::Command::new("curl").args(["-s", "-r", "70000-", &relay.address()]).output().unwrap();
        let came = &out.stdout;
        // Of what comes before the lie, every byte is right.
        assert_eq!(came.as_slice(), &bytes[70_000..70_000 + came.len()], "{says}");
        assert!(came.len() < bytes.len() - 70_000, "{says}");
        let trouble = relay.passed().trouble.unwrap();
        assert!(trouble.contains(says), "{says}: {trouble}");
    }
}

#[test]
fn a_cache_that_answers_wrongly_once_is_asked_past() {
    let bytes = content(300_000);
    let size = bytes.len() as u64;
    let served = bytes.clone();
    let source = answers(move |first, last, count| match count {
        1 => part(&served, 0, last - first, ""),
        _ => part(&served, first, last, "ETag: \"a\"\r\n"),
    });
    let relay = Relay::start(Bundle { source, path: "b".to_owned(), size, limit: 0 }).unwrap();
    assert_eq!(curl(&relay.address(), "0-"), bytes);
    assert_eq!(relay.passed().trouble, None);
}

#[test]
fn what_is_left_out_is_not_fetched_and_what_is_read_in_a_row_comes_in_few_transfers() {
    let bytes = content(40 << 20);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let source = serves(bytes.clone(), usize::MAX, Arc::clone(&asked));
    let relay = Relay::start(Bundle { source, path: "b".to_owned(), size: bytes.len() as u64, limit: 0 }).unwrap();
    // Four KiB in every two MiB, each after a look at the end.
    for at in (0..20).map(|n| n * (2 << 20)) {
        assert_eq!(curl(&relay.address(), &format!("{at}-{}", at + 4095)), bytes[at..at + 4096]);
        let end = (39 << 20) + at / 512;
        assert_eq!(curl(&relay.address(), &format!("{end}-{}", end + 4095)), bytes[end..end + 4096]);
    }
    let sum = |asked: &[(u64, u64)]| asked.iter().map(|(first, last)| last - first + 1).sum::<u64>();
    let scattered = std::mem::take(&mut *asked.lock().unwrap());
    assert!(sum(&scattered) <= (20 + 4) * BLOCK, "{scattered:?}");
    assert_eq!(curl(&relay.address(), "0-"), bytes);
    let in_a_row = asked.lock().unwrap().clone();
    assert!(in_a_row.len() < 30, "{in_a_row:?}");
    assert!(relay.passed().fetched < 42 << 20, "{}", relay.passed().fetched);
}

#[test]
fn a_bundle_that_is_not_there_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let source = Source::Directory(dir.path().to_owned());
    let relay = Relay::start(Bundle { source, path: "b".to_owned(), size: 10, limit: 0 }).unwrap();
    let out = std::process::Command::new("curl").args(["-sS", "--fail", &relay.address()]).output().unwrap();
    assert!(!out.status.success());
    assert_eq!(relay.passed().trouble.as_deref(), Some("there is no b"));
}

#[test]
fn other_programs_of_the_device_neither_read_a_bundle_nor_keep_rauc_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = content(300_000);
    std::fs::write(dir.path().join("b"), &bytes).unwrap();
    let source = Source::Directory(dir.path().to_owned());
    let relay = Relay::start(Bundle { source, path: "b".to_owned(), size: bytes.len() as u64, limit: 0 }).unwrap();
    let guess = format!("http://127.0.0.1:{}/bundle.raucb", relay.port);
    let out = std::process::Command::new("curl").args(["-sS", "--fail", &guess]).output().unwrap();
    assert!(!out.status.success() && relay.passed().fetched == 0);
    // Far more than are let wait, and none of them says a word.
    let silent: Vec<_> = (0..300).map(|_| TcpStream::connect(("127.0.0.1", relay.port)).unwrap()).collect();
    assert_eq!(curl(&relay.address(), "0-"), bytes);
    assert!(relay.shared.strangers.lock().unwrap().waiting.len() <= STRANGERS);
    drop(silent);
}

#[test]
fn heads_are_read_and_nonsense_is_none() {
    let read = |text: &str| read_head(&mut text.as_bytes());
    let range = |r| Some(Request { method: "GET".to_owned(), path: "/b".to_owned(), range: r });
    assert_eq!(read("GET /b HTTP/1.1\r\nRange: bytes=5-9\r\n\r\n"), range(Some((5, Some(9)))));
    assert_eq!(read("GET /b HTTP/1.1\r\nrange: bytes=5-\r\n\r\n"), range(Some((5, None))));
    assert_eq!(read("GET /b HTTP/1.1\r\n\r\n"), range(None));
    for bad in ["", "GET\r\n\r\n", "GET / HTTP/1.1\r\n", "GET /\r\nRange: bytes=a-b\r\n\r\n", &"x".repeat(20_000)] {
        assert_eq!(read(bad), None, "{bad:.20}");
    }
}
