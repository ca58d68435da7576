//! A web server for a bench. BusyBox's answers range requests, which a channel needs; Python's does not.

use anyhow::{Result, ensure};
use os_sys::cmd::{Cmd, CmdError};
use std::net::IpAddr;
use std::path::Path;

/// Serves a directory until it is ended.
///
/// # Errors
/// When there is no such directory, no busybox, or somebody listens there already.
pub fn run(directory: &Path, listen: IpAddr, port: u16) -> Result<()> {
    ensure!(directory.is_dir(), "there is no directory {}", directory.display());
    let at = match listen {
        IpAddr::V4(v4) => format!("{v4}:{port}"),
        IpAddr::V6(v6) => format!("[{v6}]:{port}"),
    };
    os_sys::say!("Serving {} at http://{at}/ until Ctrl-C.", directory.display());
    Cmd::new("busybox").args(arguments(&at)).arg(directory).run().map_err(|err| {
        let said = match err {
            CmdError::Start { .. } => {
                "busybox, the web server, is missing; install it with: sudo apt-get install busybox"
            }
            _ => "the web server ended",
        };
        anyhow::Error::new(err).context(said)
    })
}

/// Of busybox; the directory follows.
fn arguments(at: &str) -> [&str; 5] {
    ["httpd", "-f", "-p", at, "-h"]
}

#[cfg(test)]
mod tests {
    use super::*;
    use os_transport::{Part, Source};
    use std::net::TcpListener;
    use std::process::Command;

    #[test]
    fn a_part_of_a_file_can_be_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("bundle"), "0123456789").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = format!("127.0.0.1:{port}");
        let mut server = Command::new("busybox").args(arguments(&at)).arg(dir.path()).spawn().unwrap();
        let source = Source::parse(&format!("http://127.0.0.1:{port}")).unwrap();
        let part = || -> Result<String, os_transport::FetchError> {
            let mut stream = source.open("bundle", Part { first: 3, length: 4, whole: Some(10), fresh: false })?;
            let mut text = String::new();
            std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
            stream.finish().map(|()| text)
        };
        let start = std::time::Instant::now();
        let found = loop {
            match part() {
                Err(err) if err.is_transient() && start.elapsed().as_secs() < 20 => {
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
                other => break other,
            }
        };
        server.kill().unwrap();
        server.wait().unwrap();
        assert_eq!(found.unwrap(), "3456");
        assert!(run(Path::new("/nonexistent"), "127.0.0.1".parse().unwrap(), port).is_err());
    }
}
