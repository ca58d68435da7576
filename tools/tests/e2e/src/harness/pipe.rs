//! Joins standard input and output with a port of this machine, for programs that only know those: QEMU, which starts one
//! for every connection that a guest makes to a web server of ours, and ssh, which reaches a guest through one.

use crate::harness::vm::knock::knock;
use anyhow::Result;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;

/// Runs until one side has ended. `closed`: the port leads into a guest, as this one does, behind which nobody listens;
/// somebody is waited for.
pub(crate) fn run(port: u16, closed: Option<u16>) -> Result<()> {
    let parent = rustix::process::getppid();
    let mut stream = match closed {
        Some(closed) => knock(port, closed, || rustix::process::getppid() == parent)?,
        None => TcpStream::connect(("127.0.0.1", port))?,
    };
    let from = stream.try_clone()?;
    // Not through the standard library's buffers, which hold back what has no newline.
    let (input, output) = (std::io::stdin(), std::io::stdout());
    let input = File::from(input.as_fd().try_clone_to_owned()?);
    let output = File::from(output.as_fd().try_clone_to_owned()?);
    std::thread::spawn(move || {
        let _ = copy(input, &mut stream);
        let _ = stream.shutdown(Shutdown::Write);
    });
    copy(from, output)
}

/// What [`std::io::copy`] does, without splice(2): that keeps a pipe locked while it waits for more from a socket, and
/// whoever reads the pipe waits with it for what is there already.
fn copy(mut from: impl Read, mut to: impl Write) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let got = from.read(&mut buffer)?;
        if got == 0 {
            return Ok(());
        }
        to.write_all(buffer.get(..got).unwrap_or_default())?;
    }
}
