//! Finds out that somebody is in, and goes in.
//!
//! QEMU takes every connection to a port that it forwards, and then tries to reach the guest. While the guest has no
//! address it says nothing, and tries again after longer and longer pauses: a login that begins too early ends late. One
//! that is given up and made anew costs the guest a process each time, for QEMU does not forget it. So the first to be
//! knocked at is a port behind which nobody listens: once the guest has an address, it says so at once, and all by its
//! kernel.

use anyhow::{Result, ensure};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long a guest with an address may take to refuse.
const REFUSAL: Duration = Duration::from_millis(800);
/// How long the program behind the real port may take to say its first word.
const FIRST_WORD: Duration = Duration::from_secs(60);
/// After so long the real port is tried all the same: what drops packets does not refuse.
const ANYWAY: Duration = Duration::from_secs(30);

/// What a connection does that nothing is sent over.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Word,
    End,
    Silence,
}

/// Waits until `port` says something; `closed` leads to where nobody listens. `go_on` is asked between tries.
pub(crate) fn knock(port: u16, closed: u16, go_on: impl Fn() -> bool) -> Result<TcpStream> {
    let mut last = Instant::now();
    loop {
        ensure!(go_on(), "nobody waits for it any more");
        if is_there(closed) || last.elapsed() > ANYWAY {
            last = Instant::now();
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port))
                && listen(&stream, FIRST_WORD) == Answer::Word
            {
                stream.set_read_timeout(None)?;
                return Ok(stream);
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// True when the guest refuses a connection, which takes an address.
fn is_there(closed: u16) -> bool {
    TcpStream::connect(("127.0.0.1", closed)).is_ok_and(|stream| listen(&stream, REFUSAL) == Answer::End)
}

fn listen(stream: &TcpStream, limit: Duration) -> Answer {
    if stream.set_read_timeout(Some(limit)).is_err() {
        return Answer::End;
    }
    match stream.peek(&mut [0]) {
        Ok(1..) => Answer::Word,
        Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Answer::Silence,
        Ok(0) | Err(_) => Answer::End,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn the_first_word_is_left_to_whoever_goes_in() {
        let (real, refusing) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let [port, closed] = [&real, &refusing].map(|l| l.local_addr().unwrap().port());
        let guest = std::thread::spawn(move || {
            // No address yet; then a refusal.
            let silent = refusing.accept().unwrap();
            drop(refusing.accept().unwrap());
            drop(silent);
            real.accept().unwrap().0.write_all(b"SSH-2.0").unwrap();
        });
        let mut word = String::new();
        knock(port, closed, || true).unwrap().read_to_string(&mut word).unwrap();
        assert_eq!(word, "SSH-2.0");
        guest.join().unwrap();
    }

    #[test]
    fn it_ends_when_nobody_waits() {
        assert!(knock(1, 1, || false).is_err());
    }
}
