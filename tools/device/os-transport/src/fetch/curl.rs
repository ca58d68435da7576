//! HTTP is curl's, as a program: proxies, certificates and redirects behave as people know them, RAUC brings its library
//! anyway, and a connection that goes wrong cannot take the caller with it. The address goes through curl's standard
//! input, because it may hold a password and arguments are for everybody to read; so does a proxy, through the environment.

use super::{FetchError, Inner, Part, Stream};
use crate::Address;
use crate::head::{Head, Version};
use std::io::{BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// A transfer slower than this for [`STALLED`] seconds is given up, in bytes per second.
const SLOWEST: &str = "64";
/// See [`SLOWEST`].
const STALLED: &str = "30";
/// What curl knows a proxy by (curl(1), "ENVIRONMENT").
const PROXIES: &[&str] = &["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// See [`go_through`].
static PROXY: OnceLock<Vec<(String, String)>> = OnceLock::new();

/// Has every transfer of this process go through the proxy that these variables name, unless whoever started it named one.
pub fn go_through(variables: Vec<(String, String)>) {
    // Once: a process lives no longer than what it was asked for.
    let _ = PROXY.set(variables);
}

pub(super) fn open(
    address: &Address,
    name: &str,
    part: Option<Part>,
    limit: Option<&str>,
) -> Result<Stream, FetchError> {
    let failed = |err| FetchError::Io("cannot run curl".to_owned(), err);
    let mut command = Command::new("curl");
    // First of all no .curlrc of anybody.
    command.args(["--disable", "--silent", "--show-error", "--fail", "--globoff", "--location", "--max-redirs", "5"]);
    command.args(["--include", "--suppress-connect-headers"]);
    // Who asked for https does not get http, and nobody gets file:// or scp://.
    let protocols = if address.is_https() { "=https" } else { "=http,https" };
    command.args(["--proto", protocols, "--proto-redir", protocols]);
    command.args(["--connect-timeout", "20", "--speed-limit", SLOWEST, "--speed-time", STALLED]);
    if let Some(limit) = limit {
        command.args(["--max-time", limit]);
    }
    if let Some(Part { first, length, fresh, .. }) = part {
        command.args(["--range", &format!("{first}-{}", first.saturating_add(length).saturating_sub(1))]);
        if fresh {
            command.args(["--header", "Cache-Control: no-cache"]);
        }
    }
    if !PROXIES.iter().any(|name| std::env::var_os(name).is_some()) {
        let own = PROXY.get().into_iter().flatten().filter(|(name, _)| std::env::var_os(name).is_none());
        command.envs(own.map(|(name, value)| (name, value)));
    }
    command.args(["--config", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        let url = address.secret().replace('\\', "\\\\").replace('"', "\\\"");
        // A curl that ended already says why by its exit status.
        let _ = writeln!(stdin, "url = \"{url}\"");
    }
    let stdout = child.stdout.take().ok_or_else(|| failed(std::io::Error::other("it has no output")))?;
    let inner = Inner::Curl { child, stdout: BufReader::new(stdout), address: address.clone() };
    let wanted = part.map(|part| part.length);
    let name = name.to_owned();
    Stream { inner, name, read: 0, wanted, whole: None, status: None, version: Version::default() }.behind_head(part)
}

/// Is this the answer to what was asked?
pub(super) fn check(head: &Head, part: Option<Part>, name: &str) -> Result<(), FetchError> {
    let wrong = |said: String| Err(FetchError::Wrong { what: name.to_owned(), said });
    let whose = "the server, or a cache on the way,";
    match (part, head.status, head.range) {
        (None, 200 | 203, _) => Ok(()),
        (None, 206, _) => wrong(format!("{whose} answered with a part of it, and all of it was asked for")),
        (None, status, _) => {
            Err(FetchError::Http { what: name.to_owned(), said: format!("the server answered with status {status}") })
        }
        (Some(_), 200, _) => Err(FetchError::NoRanges(name.to_owned())),
        (Some(part), 206, Some((first, last, whole))) => {
            let asked = part.first.saturating_add(part.length).saturating_sub(1);
            if first != part.first || last != asked {
                return wrong(format!(
                    "{whose} answered with bytes {first} to {last}, and {} to {asked} were asked for",
                    part.first
                ));
            }
            if let (Some(found), Some(wanted)) = (whole, part.whole)
                && found != wanted
            {
                return Err(other_size(name, found, wanted));
            }
            if head.length.is_some_and(|length| length != part.length) {
                return wrong(format!("{whose} announced another number of bytes than it says to answer with"));
            }
            Ok(())
        }
        (Some(_), status, _) => {
            wrong(format!("{whose} answered with status {status} and does not say with which bytes"))
        }
    }
}

pub(super) fn other_size(name: &str, found: u64, wanted: u64) -> FetchError {
    let said = format!("it has {found} bytes where it is served, and {wanted} by what is signed");
    FetchError::Wrong { what: name.to_owned(), said }
}

/// Waits for the end of curl. `status`: what the server answered with, if it came to that.
pub(super) fn finish(
    child: &mut Child,
    address: &Address,
    name: &str,
    part: bool,
    status: Option<u16>,
) -> Result<(), FetchError> {
    let mut said = String::new();
    if let Some(stderr) = &mut child.stderr {
        let _ = stderr.take(4096).read_to_string(&mut said);
    }
    let ended = child.wait().map_err(|err| FetchError::Io("curl".to_owned(), err))?;
    if ended.success() {
        return Ok(());
    }
    Err(failure(name, ended.code().unwrap_or_default(), status, &address.scrub(&said), part))
}

/// What an exit status of curl means (curl(1), "EXIT CODES"). What it says beside it is for people.
fn failure(name: &str, code: i32, status: Option<u16>, said: &str, part: bool) -> FetchError {
    let what = name.to_owned();
    let said = said.lines().last().unwrap_or("curl said nothing").trim();
    let mut said = said.strip_prefix("curl: ").unwrap_or(said).to_owned();
    // A proxy that is asked for a tunnel answers out of our sight.
    if status == Some(407) || said.contains(" 407") {
        said.push_str("; the proxy wants another login (os.network.proxy)");
    }
    match (code, status) {
        (22, Some(404 | 410)) => FetchError::NotFound(what),
        // These pass; other answers do not.
        (22, Some(429 | 500 | 502 | 503 | 504)) => FetchError::Network { what, said },
        (22, Some(416)) if part => {
            FetchError::Wrong { what, said: "the file is shorter where it is served (416)".to_owned() }
        }
        // What it says last may be of the connection that it could not use again.
        (47, _) => FetchError::Http { what, said: "(47) the server redirects more than five times".to_owned() },
        (60, _) => FetchError::Certificate { what, said },
        (63, _) => FetchError::TooLarge(what),
        (5 | 6 | 7 | 16 | 18 | 28 | 35 | 52 | 55 | 56 | 92, _) => FetchError::Network { what, said },
        _ => FetchError::Http { what, said },
    }
}
