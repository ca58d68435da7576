//! A web server that misbehaves; the first part of the path says how.

use anyhow::Result;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// A running one. It ends with the process; dropping it lets go of those who wait.
#[derive(Debug)]
pub(crate) struct Liar {
    pub(crate) port: u16,
    _stalled: mpsc::Sender<()>,
}

impl Liar {
    /// Starts one; `honest` is what it begins to send where it does not get to the end.
    pub(crate) fn start(honest: Vec<u8>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let (sender, receiver) = mpsc::channel();
        let receiver = Arc::new(std::sync::Mutex::new(receiver));
        let (honest, requests) = (Arc::new(honest), Arc::new(AtomicUsize::new(0)));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (honest, requests, receiver) = (Arc::clone(&honest), Arc::clone(&requests), Arc::clone(&receiver));
                std::thread::spawn(move || answer(stream, &honest, &requests, &receiver));
            }
        });
        Ok(Self { port, _stalled: sender })
    }
}

fn answer(
    stream: TcpStream,
    honest: &[u8],
    requests: &AtomicUsize,
    stalled: &std::sync::Mutex<mpsc::Receiver<()>>,
) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let mut out = stream;
    let promise = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", honest.len());
    // A connection that is closed while the next request is on its way is another lie than the one that was asked for.
    loop {
        let first = lines.next()?.ok()?;
        while !lines.next()?.ok()?.is_empty() {}
        let path = first.split(' ').nth(1)?;
        match path.split('/').nth(1)? {
            "error" => out.write_all(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n").ok()?,
            "redirect" => {
                let head = format!("HTTP/1.1 302 Found\r\nLocation: {path}\r\nContent-Length: 0\r\n\r\n");
                out.write_all(head.as_bytes()).ok()?;
            }
            "stall" => {
                out.write_all(promise.as_bytes()).ok()?;
                out.write_all(honest.get(..10)?).ok()?;
                let _ = stalled.lock().ok()?.recv_timeout(Duration::from_secs(100));
                return None;
            }
            // Each time somewhere else.
            _ => {
                let at = requests.fetch_add(1, Ordering::Relaxed) * 251 % honest.len();
                out.write_all(promise.as_bytes()).ok()?;
                out.write_all(honest.get(..at)?).ok()?;
                return None;
            }
        }
    }
}
