//! Reads files from where a channel lies: a web server, asked with `curl`, or a directory such as a USB stick.

mod curl;

use crate::address::{self, Address};
use crate::head::{Head, Version};
use rustix::fs::OFlags;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout};

pub use curl::go_through;

/// A small file takes no longer, in seconds: a server that drips must not hold up whoever reads.
const SMALL_FILE: &str = "300";
/// A name of the file on the server may have this many bytes.
const MAX_NAME: usize = 512;

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not `http://`, `https://` or an absolute directory.
    #[error("'{0}' is not a valid source; expected an http or https address, or an absolute directory")]
    Place(String),
    /// An address that cannot work.
    #[error("the address cannot work: {0}")]
    Address(#[from] address::AddressError),
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
    /// Another answer than to what was asked, of the server or of a cache on the way; asking past caches may help.
    #[error("{what}: {said}")]
    Wrong {
        /// What was wanted.
        what: String,
        /// What came instead.
        said: String,
    },
    /// The server shows a certificate that is not believed; a wrong clock is one of the reasons.
    #[error("{what}: {said}")]
    Certificate {
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
        matches!(self, Self::Network { .. } | Self::Wrong { .. })
    }

    /// True when it was no answer to what was asked. Whoever gives such answers soon gives the next.
    pub fn is_wrong(&self) -> bool {
        matches!(self, Self::Wrong { .. })
    }
}

/// Where a channel lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// On a server, below an address.
    Web(Address),
    /// One file on a server, whatever name it is asked for by.
    File(Address),
    /// Directory.
    Directory(PathBuf),
}

/// For people, without what is secret of an address.
impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Web(address) | Self::File(address) => address.fmt(f),
            Self::Directory(path) => path.display().fmt(f),
        }
    }
}

/// Bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The first one.
    pub first: u64,
    /// How many.
    pub length: u64,
    /// How many the whole file has to have, where that is known.
    pub whole: Option<u64>,
    /// Caches are not to answer.
    pub fresh: bool,
}

impl Source {
    /// Reads an address or a path.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, FetchError> {
        match Address::parse(text) {
            Ok(address) => Ok(Self::Web(address)),
            Err(address::AddressError::Scheme) if text.starts_with('/') => {
                Ok(Self::Directory(text.trim_end_matches('/').into()))
            }
            Err(address::AddressError::Scheme) => Err(FetchError::Place(address::without_secrets(text))),
            Err(err) => Err(err.into()),
        }
    }

    /// What lies below it under a name; a query stays one.
    pub fn within(&self, name: &str) -> Self {
        match self {
            Self::Web(address) => Self::Web(address.child(name)),
            Self::File(address) => Self::File(address.child(name)),
            Self::Directory(path) => Self::Directory(path.join(name)),
        }
    }

    /// The last part of the address or path: the channel's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Web(address) | Self::File(address) => address.name(),
            Self::Directory(path) => path.file_name().and_then(|n| n.to_str()).unwrap_or_default(),
        }
    }

    /// It takes a network.
    pub fn is_remote(&self) -> bool {
        !matches!(self, Self::Directory(_))
    }

    /// Reads a whole small file.
    ///
    /// # Errors
    /// When it is not there, larger than `max` bytes, or the way to it fails.
    pub fn read(&self, name: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        let mut stream = self.open_within(name, None, Some(SMALL_FILE))?;
        let mut bytes = Vec::new();
        let read = stream.by_ref().take(max.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|err| FetchError::Io(name.to_owned(), err))?;
        if bytes.len() as u64 > max {
            return Err(FetchError::TooLarge(name.to_owned()));
        }
        stream.finish()?;
        Ok(bytes)
    }

    /// Opens a part of a file; the server has said by then that it is what comes. What goes wrong later is said by
    /// [`Stream::finish`].
    ///
    /// # Errors
    /// When the name is none, the file is not there, the server answers with something else or curl cannot be started.
    pub fn open(&self, name: &str, part: Part) -> Result<Stream, FetchError> {
        self.open_within(name, Some(part), None)
    }

    /// How many bytes a file has.
    ///
    /// # Errors
    /// As [`Source::open`], and when the server does not say.
    pub fn size(&self, name: &str) -> Result<u64, FetchError> {
        let stream = self.open(name, Part { first: 0, length: 1, whole: None, fresh: false })?;
        let said = "the server does not say how many bytes it has".to_owned();
        stream.whole.ok_or_else(|| FetchError::Http { what: name.to_owned(), said })
    }

    fn open_within(&self, name: &str, part: Option<Part>, limit: Option<&str>) -> Result<Stream, FetchError> {
        check_name(name)?;
        match self {
            Self::Directory(dir) => open_file(&dir.join(name), name, part),
            Self::Web(address) => curl::open(&address.child(name), name, part, limit),
            Self::File(address) => curl::open(address, name, part, limit),
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
    /// Bytes of the whole file, where that is known.
    whole: Option<u64>,
    /// What the server answered with, once it has.
    status: Option<u16>,
    version: Version,
}

#[derive(Debug)]
enum Inner {
    File(std::io::Take<File>),
    Curl { child: Child, stdout: BufReader<ChildStdout>, address: Address },
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
    /// What the server says that tells this content from another one.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Says how it ended, after the last byte was read.
    ///
    /// # Errors
    /// When bytes are missing.
    pub fn finish(mut self) -> Result<(), FetchError> {
        if let Inner::Curl { child, address, .. } = &mut self.inner {
            curl::finish(child, address, &self.name, self.wanted.is_some(), self.status)?;
        }
        // A connection that closes in the middle passes with curl as the end of an empty file; a channel has none of those.
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

    /// Takes the head of the answer, which says whether it is one to what was asked.
    fn behind_head(mut self, part: Option<Part>) -> Result<Self, FetchError> {
        let Inner::Curl { stdout, .. } = &mut self.inner else { return Ok(self) };
        let head = Head::read(stdout);
        self.status = head.as_ref().map(|head| head.status);
        match head {
            Some(head) if head.status < 400 => {
                curl::check(&head, part, &self.name)?;
                self.whole = head.range.and_then(|(.., whole)| whole).or(head.length.filter(|_| part.is_none()));
                self.version = head.version;
                Ok(self)
            }
            // curl says why.
            _ => {
                let what = self.name.clone();
                self.finish()?;
                Err(FetchError::Network { what, said: "it was no answer of a web server".to_owned() })
            }
        }
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

fn open_file(path: &Path, name: &str, part: Option<Part>) -> Result<Stream, FetchError> {
    let failed = |err: std::io::Error| match err.kind() {
        std::io::ErrorKind::NotFound => FetchError::NotFound(name.to_owned()),
        _ => FetchError::Io(name.to_owned(), err),
    };
    // A pipe in place of a file would be waited for.
    let mut file =
        File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(failed(std::io::Error::other("it is no plain file")));
    }
    let whole = meta.len();
    if let Some(wanted) = part.and_then(|part| part.whole).filter(|wanted| *wanted != whole) {
        return Err(curl::other_size(name, whole, wanted));
    }
    file.seek(SeekFrom::Start(part.map_or(0, |part| part.first))).map_err(failed)?;
    let length = part.map(|part| part.length);
    let inner = Inner::File(file.take(length.unwrap_or(u64::MAX)));
    let name = name.to_owned();
    Ok(Stream { inner, name, read: 0, wanted: length, whole: Some(whole), status: None, version: Version::default() })
}

#[cfg(test)]
mod tests;
