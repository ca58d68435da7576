//! Reads files from where a channel lies: a web server, or a directory such as a USB stick.
//!
//! HTTP is curl's, as a program: proxies, certificates and redirects behave as people know them, RAUC brings its library
//! anyway, and a connection that goes wrong cannot take the caller with it. The address goes through curl's standard
//! input, because it may hold a password and arguments are for everybody to read.

use rustix::fs::OFlags;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// A transfer slower than this for [`STALLED`] seconds is given up, in bytes per second.
const SLOWEST: &str = "64";
/// See [`SLOWEST`].
const STALLED: &str = "30";
/// A small file takes no longer, in seconds: a server that drips must not hold up whoever reads.
const SMALL_FILE: &str = "300";
/// A name of the file on the server may have this many bytes.
const MAX_NAME: usize = 512;

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not `http://`, `https://` or an absolute directory.
    #[error("'{0}' is no place to read from; wanted is an http or https address, or a directory")]
    Place(String),
    /// A name that leads out of the channel.
    #[error("'{0}' is no name of a file in a channel")]
    Name(String),
    /// The file is not there.
    #[error("there is no {0}")]
    NotFound(String),
    /// The server answered, and not with the file.
    #[error("{what}: {said}")]
    Http {
        /// What was wanted.
        what: String,
        /// What curl says.
        said: String,
    },
    /// No answer, or none to the end; trying again may help.
    #[error("{what}: {said}")]
    Network {
        /// What was wanted.
        what: String,
        /// What curl says.
        said: String,
    },
    /// More bytes than allowed.
    #[error("{0} is larger than it may be")]
    TooLarge(String),
    /// A bundle is read in parts.
    #[error(
        "{0}: the server sends the whole file when it is asked for a part of it; a channel needs a server that answers \
         range requests (HTTP 206), as osctl channel serve, nginx, Apache, Caddy and object stores do"
    )]
    NoRanges(String),
    /// A local file or program failed.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
}

impl FetchError {
    /// True when the same may work in a moment.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Network { .. })
    }
}

/// Where a channel lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Address without a slash at its end.
    Web(String),
    /// Directory.
    Directory(PathBuf),
}

impl Source {
    /// Reads an address or a path.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, FetchError> {
        let trimmed = text.trim_end_matches('/');
        let host = ["http://", "https://"].iter().find_map(|scheme| trimmed.strip_prefix(scheme));
        match host {
            Some(host) if !host.is_empty() && !trimmed.contains(|c: char| c.is_control() || c == ' ' || c == '"') => {
                Ok(Self::Web(trimmed.to_owned()))
            }
            None if text.starts_with('/') => Ok(Self::Directory(trimmed.into())),
            _ => Err(FetchError::Place(text.to_owned())),
        }
    }

    /// The last part of the address or path: the channel's name.
    pub fn name(&self) -> &str {
        let last = match self {
            Self::Web(url) => url.rsplit('/').next(),
            Self::Directory(path) => path.file_name().and_then(|n| n.to_str()),
        };
        last.unwrap_or_default()
    }

    /// Reads a whole small file.
    ///
    /// # Errors
    /// When it is not there, larger than `max` bytes, or the way to it fails.
    pub fn read(&self, name: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        let mut stream = self.open_within(name, 0, None, Some(SMALL_FILE))?;
        let mut bytes = Vec::new();
        let read = stream.by_ref().take(max.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|err| FetchError::Io(name.to_owned(), err))?;
        if bytes.len() as u64 > max {
            return Err(FetchError::TooLarge(name.to_owned()));
        }
        stream.finish()?;
        Ok(bytes)
    }

    /// Opens a file at an offset. With `length` no more than so many bytes are asked for.
    ///
    /// # Errors
    /// When the name is none, the file is not there or curl cannot be started. What goes wrong later is said by
    /// [`Stream::finish`].
    pub fn open(&self, name: &str, from: u64, length: Option<u64>) -> Result<Stream, FetchError> {
        self.open_within(name, from, length, None)
    }

    fn open_within(
        &self,
        name: &str,
        from: u64,
        length: Option<u64>,
        limit: Option<&str>,
    ) -> Result<Stream, FetchError> {
        check_name(name)?;
        match self {
            Self::Directory(dir) => open_file(&dir.join(name), name, from, length),
            Self::Web(url) => open_url(&format!("{url}/{name}"), name, from, length, limit),
        }
    }
}

/// Every part of a name is plain: nothing leads out of the channel, nothing needs quoting in an address.
fn check_name(name: &str) -> Result<(), FetchError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+~-".contains(c);
    let good = name.len() <= MAX_NAME
        && name.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && part.chars().all(plain));
    if good { Ok(()) } else { Err(FetchError::Name(name.to_owned())) }
}

/// Bytes on their way.
#[derive(Debug)]
pub struct Stream {
    inner: Inner,
    name: String,
    read: u64,
    /// Bytes that have to come, where that is known.
    wanted: Option<u64>,
}

#[derive(Debug)]
enum Inner {
    File(std::io::Take<File>),
    Curl { child: Child, stdout: ChildStdout },
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let got = match &mut self.inner {
            Inner::File(file) => file.read(buffer)?,
            Inner::Curl { stdout, .. } => stdout.read(buffer)?,
        };
        self.read = self.read.saturating_add(got as u64);
        Ok(got)
    }
}

impl Stream {
    /// Says how it ended, after the last byte was read.
    ///
    /// # Errors
    /// When bytes are missing.
    pub fn finish(mut self) -> Result<(), FetchError> {
        if let Inner::Curl { child, .. } = &mut self.inner {
            let mut said = String::new();
            if let Some(stderr) = &mut child.stderr {
                let _ = stderr.take(4096).read_to_string(&mut said);
            }
            let status = child.wait().map_err(|err| FetchError::Io("curl".to_owned(), err))?;
            if !status.success() {
                return Err(failure(&self.name, status.code().unwrap_or_default(), &said, self.wanted.is_some()));
            }
        }
        // A connection that closes in the middle of the head passes with curl as the end of an empty file; a channel has
        // none of those.
        let wanted = self.wanted.unwrap_or(u64::from(matches!(self.inner, Inner::Curl { .. })));
        if self.read < wanted {
            let said = match self.read {
                0 => "nothing came".to_owned(),
                read => format!("{read} of {wanted} bytes came"),
            };
            return Err(FetchError::Network { what: self.name.clone(), said });
        }
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Inner::Curl { child, .. } = &mut self.inner {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn open_file(path: &Path, name: &str, from: u64, length: Option<u64>) -> Result<Stream, FetchError> {
    let failed = |err: std::io::Error| match err.kind() {
        std::io::ErrorKind::NotFound => FetchError::NotFound(name.to_owned()),
        _ => FetchError::Io(name.to_owned(), err),
    };
    // A pipe in place of a file would be waited for.
    let mut file =
        File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("it is no plain file")));
    }
    file.seek(SeekFrom::Start(from)).map_err(failed)?;
    let inner = Inner::File(file.take(length.unwrap_or(u64::MAX)));
    Ok(Stream { inner, name: name.to_owned(), read: 0, wanted: length })
}

fn open_url(url: &str, name: &str, from: u64, length: Option<u64>, limit: Option<&str>) -> Result<Stream, FetchError> {
    let failed = |err| FetchError::Io("cannot run curl".to_owned(), err);
    let mut command = Command::new("curl");
    // First of all no .curlrc of anybody.
    command.args(["--disable", "--silent", "--show-error", "--fail", "--globoff", "--location", "--max-redirs", "5"]);
    // Who asked for https does not get http, and nobody gets file:// or scp://.
    let protocols = if url.starts_with("https:") { "=https" } else { "=http,https" };
    command.args(["--proto", protocols, "--proto-redir", protocols]);
    command.args(["--connect-timeout", "20", "--speed-limit", SLOWEST, "--speed-time", STALLED]);
    if let Some(limit) = limit {
        command.args(["--max-time", limit]);
    }
    if from > 0 || length.is_some() {
        let last = length.map(|length| from.saturating_add(length).saturating_sub(1).to_string()).unwrap_or_default();
        command.args(["--range", &format!("{from}-{last}")]);
    }
    if let Some(length) = length {
        // A server that knows no ranges answers with the whole file: that is an error, not the wanted bytes.
        command.args(["--max-filesize", &length.to_string()]);
    }
    command.args(["--config", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A curl that ended already says why by its exit status.
        let _ = writeln!(stdin, "url = \"{}\"", url.replace('\\', "\\\\").replace('"', "\\\""));
    }
    let stdout = child.stdout.take().ok_or_else(|| failed(std::io::Error::other("it has no output")))?;
    Ok(Stream { inner: Inner::Curl { child, stdout }, name: name.to_owned(), read: 0, wanted: length })
}

/// What an exit status of curl means (curl(1), "EXIT CODES").
fn failure(name: &str, code: i32, said: &str, part: bool) -> FetchError {
    let what = name.to_owned();
    let said = said.lines().last().unwrap_or("curl said nothing").trim();
    let said = said.strip_prefix("curl: ").unwrap_or(said).to_owned();
    match code {
        22 if said.contains("404") || said.contains("410") => FetchError::NotFound(what),
        // 429 and 5xx pass; other answers do not.
        22 if [" 429", " 500", " 502", " 503", " 504"].iter().any(|s| said.contains(s)) => {
            FetchError::Network { what, said }
        }
        // Asked for a part, it sends the whole.
        63 if part => FetchError::NoRanges(what),
        63 => FetchError::TooLarge(what),
        5 | 6 | 7 | 16 | 18 | 28 | 35 | 52 | 55 | 56 | 92 => FetchError::Network { what, said },
        _ => FetchError::Http { what, said },
    }
}

#[cfg(test)]
mod tests;
