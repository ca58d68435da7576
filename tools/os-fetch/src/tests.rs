//! Against a real curl and a server that lies.

use super::*;
use proptest::prelude::*;
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

fn ok(body: &[u8], length: usize) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").as_bytes(), body].concat()
}

#[test]
fn places_are_web_addresses_or_directories() {
    assert_eq!(Source::parse("https://u.example/os/stable/").unwrap().name(), "stable");
    assert_eq!(Source::parse("/media/stick/stable").unwrap().name(), "stable");
    for bad in ["", "ftp://x/y", "file:///etc", "stable", "https://", "http://a b", "http://x/\ny", "http://x/\""] {
        assert!(matches!(Source::parse(bad), Err(FetchError::Place(_))), "{bad}");
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
        let mut stream = source.open("f", 3, Some(4)).unwrap();
        stream.read_to_end(&mut part).unwrap();
        stream.finish().unwrap();
        assert_eq!(part, b"3456");
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
    let status = |line: &'static str| server(move |_| format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").into());
    assert!(matches!(status("404 No").read("f", 9), Err(FetchError::NotFound(_))));
    assert!(status("500 Oops").read("f", 9).unwrap_err().is_transient());
    assert!(status("503 Busy").read("f", 9).unwrap_err().is_transient());
    let forbidden = status("403 No").read("f", 9).unwrap_err();
    assert!(matches!(forbidden, FetchError::Http { .. }) && !forbidden.is_transient(), "{forbidden}");
    // Cut off in the middle.
    assert!(server(|_| ok(b"01234", 10)).read("f", 99).unwrap_err().is_transient());
    // No range although one was asked for.
    let whole = server(|_| ok(b"0123456789", 10));
    let stream = whole.open("f", 3, Some(4)).unwrap();
    let said = stream.finish().unwrap_err();
    assert!(matches!(said, FetchError::NoRanges(_)) && said.to_string().contains("range requests"), "{said}");
    // Without end.
    let endless = server(|_| [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 1 << 20]].concat());
    assert!(matches!(endless.read("f", 1000), Err(FetchError::TooLarge(_))));
    // In circles, and to where nobody wants to go.
    let circle = server(|_| b"HTTP/1.1 302 F\r\nLocation: /stable/f\r\nContent-Length: 0\r\n\r\n".to_vec());
    let said = circle.read("f", 9).unwrap_err().to_string();
    assert!(said.contains("redirects"), "{said}");
    let away = server(|_| b"HTTP/1.1 302 F\r\nLocation: file:///etc/shadow\r\nContent-Length: 0\r\n\r\n".to_vec());
    assert!(matches!(away.read("f", 9), Err(FetchError::Http { .. })));
    // Nobody there.
    assert!(Source::Web("http://127.0.0.1:1".to_owned()).read("f", 9).unwrap_err().is_transient());
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
