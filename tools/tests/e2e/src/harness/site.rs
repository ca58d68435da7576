//! A web server of this machine, for channels.

use crate::harness::vm::WEB;
use anyhow::{Context, Result};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A directory with channels, served over HTTP.
#[derive(Debug)]
pub(crate) struct Site {
    dir: PathBuf,
    pub(crate) port: u16,
    server: Child,
}

impl Site {
    pub(crate) fn start(dir: &Path) -> Result<Self> {
        let _ = std::fs::remove_dir_all(dir);
        std::fs::create_dir_all(dir)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let server = Command::new("busybox")
            .args(["httpd", "-f", "-p", &format!("127.0.0.1:{port}"), "-h"])
            .arg(dir)
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start a web server; install it with: sudo apt-get install busybox")?;
        Ok(Self { dir: dir.to_owned(), port, server })
    }

    /// Where a channel lies on this machine.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the guest finds it.
    pub(crate) fn url(name: &str) -> String {
        format!("http://{WEB}/{name}")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
