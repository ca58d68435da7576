//! Against a real curl and a server that lies.

use super::*;
use proptest::prelude::*;
use std::io::Write as _;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Answers every connection with the same bytes, then closes it or holds it.
fn server(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Source {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let got = stream.read(&mut request).unwrap_or(0);
            let _ = stream.write_all(&answer(&String::from_utf8_lossy(&request[..got])));
        }
    });
    Source::parse(&format!("http://127.0.0.1:{port}/stable/")).unwrap()
}

/// Of a file of ten bytes.
const FOUR: Part = Part { first: 3, length: 4, whole: Some(10), fresh: false };

fn ok(body: &[u8], length: usize) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").as_bytes(), body].concat()
}

#[test]
fn places_are_web_addresses_or_directories() {
    assert_eq!(Source::parse("https://u.example/os/stable/").unwrap().name(), "stable");
    assert_eq!(Source::parse("/media/stick/stable").unwrap().name(), "stable");
    assert_eq!(
        Source::parse("/media/my \"own\" stick\\/stable/").unwrap(),
        Source::Directory("/media/my \"own\" stick\\/stable".into())
    );
    assert_eq!(Source::parse("HTTP://u.example/os/stable?t=1").unwrap().name(), "stable");
    assert_eq!(
        Source::parse("https://u.example/os?t=1").unwrap().within("a"),
        Source::parse("https://u.example/os/a?t=1").unwrap()
    );
    for bad in ["", "ftp://me:secret@x/y", "file:///etc", "stable"] {
        let err = Source::parse(bad).unwrap_err();
        assert!(matches!(err, FetchError::Place(_)) && !err.to_string().contains("secret"), "{bad}");
    }
    for bad in ["https://", "http://a b", "http://x/\ny", "http://x/\"", "http://me:secret@x#y"] {
        let said = Source::parse(bad).unwrap_err().to_string();
        assert!(said.contains("cannot work") && !said.contains("secret"), "{bad}: {said}");
    }
}

#[test]
fn a_file_is_read_whole_and_in_parts_from_both() {
    let body = b"0123456789";
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), body).unwrap();
    let web = server(|request| {
        if request.to_ascii_lowercase().contains("range: bytes=3-6") {
            return b"HTTP/1.1 206 P\r\nContent-Length: 4\r\nContent-Range: bytes 3-6/10\r\nConnection: close\r\n\r\n3456"
                .to_vec();
        }
        assert!(request.starts_with("GET /stable/f HTTP/1.1"), "{request}");
        ok(b"0123456789", 10)
    });
    for source in [Source::Directory(dir.path().to_owned()), web] {
        assert_eq!(source.read("f", 10).unwrap(), body);
        assert!(matches!(source.read("f", 9), Err(FetchError::TooLarge(_))));
        let mut part = Vec::new();
        let mut stream = source.open("f", FOUR).unwrap();
        stream.read_to_end(&mut part).unwrap();
        stream.finish().unwrap();
        assert_eq!(part, b"3456");
        let said = source.open("f", Part { whole: Some(11), ..FOUR }).unwrap_err();
        assert!(said.is_wrong() && said.to_string().contains("it has 10 bytes where it is served"), "{said}");
    }
}

#[test]
fn a_pipe_in_place_of_a_file_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    assert!(std::process::Command::new("mkfifo").arg(dir.path().join("channel.json")).status().unwrap().success());
    let read = Source::Directory(dir.path().to_owned()).read("channel.json", 9);
    assert!(matches!(read, Err(FetchError::Io(..))), "{read:?}");
}

#[test]
fn lies_of_a_server_are_named() {
    let status = |line: &'static str| {
        server(move |_| format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into())
    };
    assert!(matches!(status("404 No").read("f", 9), Err(FetchError::NotFound(_))));
    assert!(status("500 Oops").read("f", 9).unwrap_err().is_transient());
    assert!(status("503 Busy").read("f", 9).unwrap_err().is_transient());
    let forbidden = status("403 No").read("f", 9).unwrap_err();
    assert!(matches!(forbidden, FetchError::Http { .. }) && !forbidden.is_transient(), "{forbidden}");
    // Cut off in the middle.
    assert!(server(|_| ok(b"01234", 10)).read("f", 99).unwrap_err().is_transient());
    // No range although one was asked for.
    let whole = server(|_| ok(b"0123456789", 10));
    let said = whole.open("f", FOUR).unwrap_err();
    assert!(matches!(said, FetchError::NoRanges(_)) && said.to_string().contains("range requests"), "{said}");
    // Without end.
    let endless = server(|_| [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 1 << 20]].concat());
    assert!(matches!(endless.read("f", 1000), Err(FetchError::TooLarge(_))));
    // In circles, and to where nobody wants to go.
    let circle =
        server(|_| b"HTTP/1.1 302 F\r\nLocation: /stable/f\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec());
    let said = circle.read("f", 9).unwrap_err().to_string();
    assert!(said.contains("redirects"), "{said}");
    let away = server(|_| {
        b"HTTP/1.1 302 F\r\nLocation: file:///etc/shadow\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
    });
    assert!(matches!(away.read("f", 9), Err(FetchError::Http { .. })));
    // Nobody there.
    assert!(Source::parse("http://127.0.0.1:1").unwrap().read("f", 9).unwrap_err().is_transient());
}

#[test]
fn another_part_than_was_asked_for_is_no_answer_and_what_came_is_said() {
    for (answer, says) in [
        ("206 P\r\nContent-Range: bytes 0-3/10\r\nContent-Length: 4\r\n\r\n0123", "bytes 0 to 3, and 3 to 6"),
        ("206 P\r\nContent-Range: bytes 3-5/10\r\nContent-Length: 3\r\n\r\n345", "bytes 3 to 5, and 3 to 6"),
        ("206 P\r\nContent-Range: bytes 3-6/99\r\nContent-Length: 4\r\n\r\n3456", "it has 99 bytes"),
        ("206 P\r\nContent-Range: bytes 3-6/10\r\nContent-Length: 5\r\n\r\n34567", "another number of bytes"),
        ("206 P\r\nContent-Length: 4\r\n\r\n3456", "does not say with which bytes"),
        ("206 P\r\nContent-Range: bytes x-y/z\r\nContent-Length: 4\r\n\r\n3456", "does not say with which bytes"),
        ("206 P\r\nContent-Type: multipart/byteranges; boundary=b\r\nContent-Length: 1\r\n\r\n-", "does not say"),
        ("204 No\r\n\r\n", "status 204"),
        ("416 No\r\nContent-Length: 0\r\n\r\n", "shorter where it is served"),
    ] {
        let source = server(move |_| format!("HTTP/1.1 {answer}").into_bytes());
        let said = source.open("f", FOUR).unwrap_err();
        assert!(said.is_wrong() && said.is_transient() && said.to_string().contains(says), "{answer}: {said}");
    }
    for whole in [
        "200 OK\r\nContent-Length: 10\r\n\r\n0123456789",
        "200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n",
        "200 OK\r\nConnection: close\r\n\r\n0123456789",
    ] {
        let source = server(move |_| format!("HTTP/1.1 {whole}").into_bytes());
        assert!(matches!(source.open("f", FOUR), Err(FetchError::NoRanges(_))), "{whole}");
    }
    // A part in place of a whole file.
    let part = server(|_| b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-3/10\r\nContent-Length: 4\r\n\r\n0123".to_vec());
    assert!(part.read("f", 99).unwrap_err().is_wrong());
    // A cache that is asked past is told so.
    let fresh = server(|request| {
        let asked = request.to_ascii_lowercase().contains("cache-control: no-cache");
        let first = if asked { 3 } else { 0 };
        format!("HTTP/1.1 206 P\r\nContent-Range: bytes {first}-6/10\r\nContent-Length: {}\r\n\r\n0123456", 7 - first)
            .into()
    });
    assert!(fresh.open("f", FOUR).is_err() && fresh.open("f", Part { fresh: true, ..FOUR }).is_ok());
    assert_eq!(fresh.open("f", Part { fresh: true, ..FOUR }).unwrap().whole, Some(10));
}

#[test]
fn a_token_goes_with_every_file_and_is_never_told() {
    let Source::Web(_) = server(|_| Vec::new()) else { panic!() };
    let web = server(|request| {
        let good = request.starts_with("GET /stable/a/f?sig=hunter22 ")
            && request.contains("Authorization: Basic bWU6c2VzYW1l");
        if good { ok(b"yes", 3) } else { b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n".to_vec() }
    });
    let Source::Web(address) = web else { panic!() };
    let text = address.secret().replace("http://", "http://me:sesame@");
    let source = Source::parse(&format!("{text}/?sig=hunter22")).unwrap();
    assert_eq!(source.read("a/f", 9).unwrap(), b"yes");
    let Source::Web(address) = &source else { panic!() };
    assert_eq!(Source::File(address.child("a/f")).read("anything", 9).unwrap(), b"yes");
    let said = format!("{:?} {}", source, source.read("b", 9).unwrap_err());
    assert!(said.contains("403") && !said.contains("hunter22") && !said.contains("sesame"), "{said}");
}

#[test]
fn a_proxy_with_a_login_is_asked_for_everything_but_this_machine() {
    let (asked, listener) = (Arc::new(AtomicUsize::new(0)), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let got = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..got]).into_owned();
            count.fetch_add(1, Ordering::SeqCst);
            let good = request.starts_with("GET http://u.example/stable/f ")
                && request.contains("Proxy-Authorization: Basic bWU6cEBzcw==");
            let answer = if good { ok(b"yes", 3) } else { b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n".to_vec() };
            let _ = stream.write_all(&answer);
        }
    });
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    go_through(vec![
        variable("http_proxy", &format!("http://me:p%40ss@127.0.0.1:{port}")),
        variable("no_proxy", "localhost,127.0.0.0/8"),
    ]);
    assert_eq!(Source::parse("http://u.example/stable").unwrap().read("f", 9).unwrap(), b"yes");
    let said = Source::parse("http://other.example/stable").unwrap().read("f", 9).unwrap_err().to_string();
    assert!(said.contains("os.network.proxy") && !said.contains("p%40ss"), "{said}");
    let before = asked.load(Ordering::SeqCst);
    assert_eq!(server(|_| ok(b"me", 2)).read("f", 9).unwrap(), b"me");
    assert_eq!(asked.load(Ordering::SeqCst), before);
}

#[test]
fn an_answer_that_ends_anywhere_is_no_answer() {
    let whole = ok(b"{\"a\": 1}", 8);
    let at = Arc::new(AtomicUsize::new(0));
    let web = {
        let (whole, at) = (whole.clone(), Arc::clone(&at));
        server(move |_| whole[..at.load(Ordering::SeqCst)].to_vec())
    };
    for offset in 0..whole.len() {
        at.store(offset, Ordering::SeqCst);
        let read = web.read("f", 99);
        assert!(read.as_ref().is_err_and(FetchError::is_transient), "after {offset} bytes: {read:?}");
    }
    at.store(whole.len(), Ordering::SeqCst);
    assert_eq!(web.read("f", 99).unwrap(), b"{\"a\": 1}");
}

proptest! {
    // Whatever a list of releases calls a file, it lies in the channel.
    #[test]
    fn no_name_leads_out(name in "[a./\\\\%-]{0,12}") {
        if check_name(&name).is_ok() {
            let path = Path::new("/c").join(&name);
            prop_assert!(path.components().all(|c| c != std::path::Component::ParentDir));
            prop_assert!(path.starts_with("/c") && path != Path::new("/c"));
        }
    }
}
