//! Comes to a machine's ports from outside until what is behind them answers.

use super::results::Milestone;
use crate::harness::vm::knock::knock;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

/// How often. The guest only has to say that nobody listens.
const INTERVAL: Duration = Duration::from_millis(250);
/// Before the guest has a network nobody says anything. A visit that began then must not be the one that is waited for:
/// QEMU repeats it ever more seldom.
const UNHEARD: Duration = Duration::from_secs(1);
/// And after that a slow answer is one.
const PATIENT: Duration = Duration::from_secs(60);

/// What a visit found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// The page.
    Page,
    /// Somebody else, or the guest's kernel, which says that nobody listens.
    Network,
    Silence,
}

/// Visits both ports on threads of their own, and says when each answered. They end with the visitor.
#[derive(Debug)]
pub(super) struct Visitor {
    gone: Arc<AtomicBool>,
}

impl Visitor {
    /// Ports of the host that lead to the guest's ssh, to where nobody listens, and to the container.
    pub(super) fn start(ssh: u16, closed: u16, web: u16, say: &Sender<Milestone>) -> Self {
        let gone = Arc::new(AtomicBool::new(false));
        let (nobody, tell) = (Arc::clone(&gone), say.clone());
        std::thread::spawn(move || {
            // An ssh server speaks first.
            if knock(ssh, closed, || !nobody.load(Ordering::Relaxed)).is_ok() {
                let _ = tell.send(Milestone::Login);
            }
        });
        let (nobody, tell) = (Arc::clone(&gone), say.clone());
        std::thread::spawn(move || {
            let mut limit = UNHEARD;
            while !nobody.load(Ordering::Relaxed) {
                match visit(web, limit) {
                    Found::Page => {
                        let _ = tell.send(Milestone::Page);
                        return;
                    }
                    Found::Network => limit = PATIENT,
                    Found::Silence => {}
                }
                std::thread::sleep(INTERVAL);
            }
        });
        Self { gone }
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

fn visit(port: u16, limit: Duration) -> Found {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return Found::Silence };
    let asked = stream.set_read_timeout(Some(limit)).and_then(|()| stream.write_all(b"GET / HTTP/1.0\r\n\r\n"));
    if asked.is_err() {
        return Found::Silence;
    }
    let mut buffer = [0; 512];
    match stream.read(&mut buffer) {
        Ok(got) if is_page(buffer.get(..got).unwrap_or_default()) => Found::Page,
        Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Found::Silence,
        Ok(_) | Err(_) => Found::Network,
    }
}

fn is_page(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let mut words = text.split_ascii_whitespace();
    words.next().is_some_and(|version| version.starts_with("HTTP/")) && words.next() == Some("200")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A server that says this to everybody, or nothing and hangs up.
    fn server(says: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.write_all(says);
            }
        });
        port
    }

    #[test]
    fn only_the_page_is_the_page() {
        assert_eq!(visit(server(b"HTTP/1.0 200 OK\r\n\r\n"), PATIENT), Found::Page);
        assert_eq!(visit(server(b"HTTP/1.0 404 Not Found\r\n\r\n"), PATIENT), Found::Network);
        assert_eq!(visit(server(b""), PATIENT), Found::Network);
        assert!(!is_page(b"") && !is_page(b"SSH-2.0 200"));
    }

    #[test]
    fn silence_is_no_network() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(visit(listener.local_addr().unwrap().port(), Duration::from_millis(50)), Found::Silence);
        drop(listener);
    }

    #[test]
    fn each_port_is_a_milestone() {
        let (send, receive) = std::sync::mpsc::channel();
        let visitor = Visitor::start(server(b"SSH-2.0-x\r\n"), server(b""), server(b"HTTP/1.0 200 OK\r\n\r\n"), &send);
        let mut seen = [(); 2].map(|()| receive.recv_timeout(Duration::from_secs(20)).unwrap());
        seen.sort();
        assert_eq!(seen, [Milestone::Login, Milestone::Page]);
        drop(visitor);
    }
}
