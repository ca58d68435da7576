//! Hands a bundle to RAUC over loopback HTTP, and gets it from the channel in its own way.
//!
//! RAUC gives up after a few seconds without an answer, and knows no pause, no limit and no progress in bytes. Here a
//! request waits until its bytes are there, however often the connection breaks. Nothing here has to be trusted: RAUC
//! checks every block against the hash in the signed manifest.
//!
//! Loopback is open to every program of the device, so the address has a part that only RAUC is told, and whoever does
//! not name it is shown the door, and soon: nobody else reads a bundle here, or keeps RAUC from reading it.
//!
//! RAUC reads a bundle from front to back, with looks at the hash tree at its end, and leaves out what the slots of the
//! device have already. So there are two ways forward, each a transfer that grows as long as it is followed and is given
//! up when the next block lies far ahead: what is left out costs little, and what is read in a row comes in one piece.

use crate::head::Version;
use crate::{FetchError, Part, Source, Stream};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What is handled at a time, in bytes.
const BLOCK: u64 = 64 << 10;
/// Blocks that are kept, 12 MiB: the hash tree of a bundle has a few, and the kernel reads ahead.
const KEPT: usize = 192;
/// Ways forward: one through the images, one through the hash tree.
const WAYS: usize = 2;
/// So many blocks are rather read and left than another transfer begun.
const SKIPPED: u64 = 4;
/// Blocks of the first transfer of a way, and of the longest; each is twice the one before.
const SHORTEST: u64 = 1;
const LONGEST: u64 = 1024;
/// RAUC's block device gives up a read after 300 seconds (its src/nbd.c); a request is answered before.
const PATIENCE: Duration = Duration::from_secs(240);
/// How often a server, or a cache, that gives another answer than to what was asked is asked again.
const WRONG_ANSWERS: u32 = 3;
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// A request has no larger head, in bytes.
const MAX_HEAD: u64 = 8 << 10;
/// Connections that have not named the secret yet; one more ends the oldest. RAUC names it with its first bytes.
const STRANGERS: usize = 16;
/// How long a stranger may take, and how long RAUC may ask nothing: it connects anew when it goes on.
const STRANGER_PATIENCE: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(60);

/// What is handed on.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Where the channel lies.
    pub source: Source,
    /// Name of the bundle in it.
    pub path: String,
    /// Bytes that it has, as the signed list says.
    pub size: u64,
    /// At most so many bytes per second; 0 for as many as come.
    pub limit: u64,
}

/// What a relay has handed on so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Bytes up to the furthest place that RAUC has read, without its looks at the hash tree.
    pub reached: u64,
    /// Bytes that came over the network.
    pub fetched: u64,
    /// Bytes of the bundle.
    pub size: u64,
    /// Why the last attempt to fetch failed, if the last one did.
    pub trouble: Option<String>,
}

impl Passed {
    /// Of what lies in front of the hash tree. A hundred is for RAUC to say.
    pub fn percent(&self) -> u64 {
        let done = u128::from(self.reached) * 100;
        u64::try_from(done.checked_div(front(self.size).into()).unwrap_or(0)).unwrap_or(0).min(self.most())
    }

    fn most(&self) -> u64 {
        if self.reached == u64::MAX { 100 } else { 99 }
    }

    /// RAUC says that it is done, whatever it did not have to read.
    #[must_use]
    pub fn ended(self) -> Self {
        Self { reached: u64::MAX, ..self }
    }
}

/// Bytes in front of the hash tree of a bundle: dm-verity keeps 32 bytes of every 4096.
fn front(size: u64) -> u64 {
    size - size / 128
}

/// A running relay. Dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    port: u16,
}

/// Who has not said the secret yet, oldest first.
#[derive(Debug, Default)]
struct Strangers {
    waiting: VecDeque<(u64, TcpStream)>,
    next: u64,
}

impl Strangers {
    /// Lets one in, and the oldest out where there are too many.
    fn enter(&mut self, stream: TcpStream) -> u64 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.waiting.push_back((number, stream));
        if self.waiting.len() > STRANGERS
            && let Some((_, oldest)) = self.waiting.pop_front()
        {
            let _ = oldest.shutdown(Shutdown::Both);
        }
        number
    }

    fn leave(&mut self, number: u64) {
        self.waiting.retain(|(waiting, _)| *waiting != number);
    }
}

#[derive(Debug)]
struct Shared {
    bundle: Bundle,
    /// What a request asks for.
    path: String,
    strangers: Mutex<Strangers>,
    cache: Mutex<Cache>,
    fetched: AtomicU64,
    reached: AtomicU64,
    stop: AtomicBool,
    /// Why the last attempt failed, for people.
    trouble: Mutex<Option<String>>,
    /// What the server said of the bundle first: blocks of two versions make none.
    version: OnceLock<Version>,
}

#[derive(Debug, Default)]
struct Cache {
    blocks: VecDeque<(u64, Arc<Vec<u8>>)>,
    /// The one that was used last is in front.
    ways: VecDeque<Way>,
}

impl Cache {
    fn keep(&mut self, number: u64, bytes: Vec<u8>) -> Arc<Vec<u8>> {
        let block = Arc::new(bytes);
        self.blocks.push_front((number, Arc::clone(&block)));
        self.blocks.truncate(KEPT);
        block
    }
}

/// Blocks that come one after the other, over as many transfers as it takes.
#[derive(Debug)]
struct Way {
    /// Number of the block that comes next.
    next: u64,
    /// Blocks that the transfer has left.
    left: u64,
    /// Blocks of the transfer that follows.
    length: u64,
    stream: Option<Stream>,
}

impl Way {
    fn from(number: u64) -> Self {
        Self { next: number, left: 0, length: SHORTEST, stream: None }
    }

    fn reaches(&self, number: u64) -> bool {
        (self.next..=self.next.saturating_add(SKIPPED)).contains(&number)
    }
}

impl Relay {
    /// Starts one on a port of its own.
    ///
    /// # Errors
    /// When there is no loopback, no random number or no thread.
    pub fn start(bundle: Bundle) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let secret = secret().map_err(std::io::Error::other)?;
        let shared = Arc::new(Shared {
            bundle,
            path: format!("/{secret}/bundle.raucb"),
            strangers: Mutex::default(),
            cache: Mutex::default(),
            fetched: AtomicU64::new(0),
            reached: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            trouble: Mutex::default(),
            version: OnceLock::new(),
        });
        let own = Arc::clone(&shared);
        std::thread::Builder::new().name("relay".to_owned()).spawn(move || {
            for stream in listener.incoming() {
                if own.stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else {
                    // No file is left to be opened: whoever holds them lets go of them before long.
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                };
                let shared = Arc::clone(&own);
                // Without a thread the connection ends, and RAUC makes another one.
                let _ = std::thread::Builder::new().spawn(move || shared.serve(stream));
            }
        })?;
        Ok(Self { shared, port })
    }

    /// Where RAUC finds the bundle.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}{}", self.port, self.shared.path)
    }

    /// How far it is.
    pub fn passed(&self) -> Passed {
        Passed {
            reached: self.shared.reached.load(Ordering::Relaxed),
            fetched: self.shared.fetched.load(Ordering::Relaxed),
            size: self.shared.bundle.size,
            trouble: self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    /// Answers the requests of one connection.
    fn serve(&self, stream: TcpStream) {
        let (Ok(mut out), Ok(handle)) = (stream.try_clone(), stream.try_clone()) else { return };
        let strangers = || self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let number = strangers().enter(handle);
        let _ = out.set_read_timeout(Some(STRANGER_PATIENCE));
        // A head and its bytes are two writes; the second must not wait for an answer to the first.
        let _ = out.set_nodelay(true);
        let mut reader = BufReader::new(stream);
        let first = read_head(&mut reader).filter(|request| request.path == self.path);
        strangers().leave(number);
        let Some(mut request) = first else {
            let _ = out.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return;
        };
        let _ = out.set_read_timeout(Some(IDLE));
        while self.answer(&request, &mut out).is_ok() && !self.stop.load(Ordering::Relaxed) {
            let next = read_head(&mut reader).filter(|request| request.path == self.path);
            let Some(next) = next else { return };
            request = next;
        }
    }

    fn answer(&self, request: &Request, out: &mut TcpStream) -> std::io::Result<()> {
        let size = self.bundle.size;
        let (first, last) = match request.range {
            Some((first, last)) => (first, last.unwrap_or(u64::MAX).min(size.saturating_sub(1))),
            None => (0, size.saturating_sub(1)),
        };
        if !matches!(request.method.as_str(), "GET" | "HEAD") || first > last || first >= size {
            return out.write_all(
                format!(
                    "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */{size}\r\nContent-Length: 0\r\n\r\n"
                )
                .as_bytes(),
            );
        }
        let length = last - first + 1;
        let status = match request.range {
            Some(_) => format!("206 Partial Content\r\nContent-Range: bytes {first}-{last}/{size}"),
            None => "200 OK".to_owned(),
        };
        let head = format!("HTTP/1.1 {status}\r\nAccept-Ranges: bytes\r\nContent-Length: {length}\r\n\r\n");
        let mut at = first;
        // The head goes out when the first bytes are there: until then an error can still be told as one.
        let mut pending = Some(head);
        while request.method == "GET" && at <= last {
            let block = match self.block(at / BLOCK) {
                Ok(block) => block,
                Err(err) => {
                    *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(err.to_string());
                    let answer = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    if pending.is_some() {
                        out.write_all(answer.as_bytes())?;
                    }
                    return Err(std::io::Error::other(err));
                }
            };
            if let Some(head) = pending.take() {
                out.write_all(head.as_bytes())?;
            }
            let from = usize::try_from(at % BLOCK).unwrap_or_default();
            let wanted = usize::try_from(last - at + 1).unwrap_or(usize::MAX);
            let bytes = block.get(from..).unwrap_or_default();
            let bytes = bytes.get(..wanted).unwrap_or(bytes);
            if bytes.is_empty() {
                return Err(std::io::Error::other("a block is shorter than it must be"));
            }
            out.write_all(bytes)?;
            at += bytes.len() as u64;
            if at <= front(size) {
                self.reached.fetch_max(at, Ordering::Relaxed);
            }
        }
        match pending {
            Some(head) => out.write_all(head.as_bytes()),
            None => Ok(()),
        }
    }

    /// A block, from the cache or from the channel, however long that takes up to [`PATIENCE`].
    fn block(&self, number: u64) -> Result<Arc<Vec<u8>>, FetchError> {
        // One at a time: the channel is one server, and every reader waits for the same connection.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, block)) = cache.blocks.iter().find(|(n, _)| *n == number) {
            return Ok(Arc::clone(block));
        }
        let start = Instant::now();
        let mut pause = Duration::from_millis(500);
        let mut wrong = 0;
        loop {
            match self.fetch(&mut cache, number, wrong > 0) {
                Ok(block) => {
                    *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    return Ok(block);
                }
                Err(err) => {
                    wrong += u32::from(err.is_wrong());
                    let over = start.elapsed() + pause > PATIENCE
                        || wrong > WRONG_ANSWERS
                        || self.stop.load(Ordering::Relaxed);
                    if over || !err.is_transient() {
                        return Err(err);
                    }
                    *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(err.to_string());
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Follows a way to a block, or begins one there. A way on which something goes wrong is given up.
    /// `fresh`: past caches.
    fn fetch(&self, cache: &mut Cache, number: u64, fresh: bool) -> Result<Arc<Vec<u8>>, FetchError> {
        let known = cache.ways.iter().position(|way| way.reaches(number));
        let mut way = known.and_then(|at| cache.ways.remove(at)).unwrap_or_else(|| Way::from(number));
        loop {
            let at = way.next;
            let start = Instant::now();
            let bytes = self.step(&mut way, fresh)?;
            self.slow_down(bytes.len() as u64, start.elapsed());
            let block = cache.keep(at, bytes);
            if at == number {
                cache.ways.push_front(way);
                cache.ways.truncate(WAYS);
                return Ok(block);
            }
        }
    }

    /// The next block of a way.
    fn step(&self, way: &mut Way, fresh: bool) -> Result<Vec<u8>, FetchError> {
        let from = way.next.saturating_mul(BLOCK);
        let rest = self.bundle.size.saturating_sub(from);
        if way.left == 0 {
            let length = rest.min(way.length.saturating_mul(BLOCK));
            way.stream = Some(self.open(Part { first: from, length, whole: Some(self.bundle.size), fresh })?);
            way.left = length.div_ceil(BLOCK);
            way.length = way.length.saturating_mul(2).min(LONGEST);
        }
        let Some(mut stream) = way.stream.take() else { return Ok(Vec::new()) };
        match self.take(&mut stream, BLOCK.min(rest)) {
            Ok(bytes) => {
                way.stream = Some(stream);
                way.next += 1;
                way.left = way.left.saturating_sub(1);
                Ok(bytes)
            }
            // Why there was too little, it says itself.
            Err(err) => Err(stream.finish().err().unwrap_or(err)),
        }
    }

    /// Begins a transfer of the bundle that the first one was of.
    fn open(&self, part: Part) -> Result<Stream, FetchError> {
        let stream = self.bundle.source.open(&self.bundle.path, part)?;
        if !self.version.get_or_init(|| stream.version().clone()).is_same(stream.version()) {
            let said = "it became another one on the server while it was fetched".to_owned();
            return Err(FetchError::Wrong { what: self.bundle.path.clone(), said });
        }
        Ok(stream)
    }

    fn take(&self, stream: &mut Stream, length: u64) -> Result<Vec<u8>, FetchError> {
        let mut bytes = Vec::new();
        let read = stream.by_ref().take(length).read_to_end(&mut bytes);
        self.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        read.map_err(|err| FetchError::Io(self.bundle.path.clone(), err))?;
        if (bytes.len() as u64) < length {
            let said = format!("{} of {length} bytes came", bytes.len());
            return Err(FetchError::Network { what: self.bundle.path.clone(), said });
        }
        Ok(bytes)
    }

    /// Waits as long as the limit asks for.
    fn slow_down(&self, bytes: u64, took: Duration) {
        if let Some(milliseconds) = bytes.saturating_mul(1000).checked_div(self.bundle.limit) {
            std::thread::sleep(Duration::from_millis(milliseconds).saturating_sub(took));
        }
    }
}

/// What nobody guesses.
fn secret() -> Result<String, getrandom::Error> {
    Ok(format!("{:016x}{:016x}", getrandom::u64()?, getrandom::u64()?))
}

/// A request, as far as it matters.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    method: String,
    path: String,
    /// First and last byte (RFC 9110, 14.1.2).
    range: Option<(u64, Option<u64>)>,
}

/// Reads the head of a request; `None` at the end of the connection, or when it is none.
fn read_head(reader: &mut impl BufRead) -> Option<Request> {
    let mut head = reader.take(MAX_HEAD);
    let mut line = String::new();
    head.read_line(&mut line).ok().filter(|got| *got > 0)?;
    let mut words = line.trim_end().split(' ');
    let mut request = Request { method: words.next()?.to_owned(), path: words.next()?.to_owned(), range: None };
    loop {
        line.clear();
        if head.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim();
        if line.is_empty() {
            return Some(request);
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("range")
        {
            let (first, last) = value.trim().strip_prefix("bytes=")?.split_once('-')?;
            let last = if last.is_empty() { None } else { Some(last.parse().ok()?) };
            request.range = Some((first.parse().ok()?, last));
        }
    }
}

#[cfg(test)]
mod tests;
