//! What is asked of QEMU itself.

use super::Vm;
use anyhow::{Result, bail};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

impl Vm {
    /// Asks QEMU over QMP and returns the answer.
    pub(crate) fn qmp(&self, command: &str) -> Result<Value> {
        self.qmp_with(command, serde_json::json!({}))
    }

    /// The same with arguments; an error that QEMU answers is one.
    pub(crate) fn qmp_with(&self, command: &str, arguments: Value) -> Result<Value> {
        ask(&self.qmp, command, arguments)
    }

    /// Plugs the stick in.
    pub(crate) fn plug(&self) -> Result<()> {
        let stick = serde_json::json!({
            "driver": "usb-storage", "id": "plugged", "drive": "stick", "bus": "xhci.0", "removable": true
        });
        self.qmp_with("device_add", stick).map(drop)
    }

    /// Pulls it out.
    pub(crate) fn unplug(&self) -> Result<()> {
        self.qmp_with("device_del", serde_json::json!({ "id": "plugged" })).map(drop)
    }
}

/// Asks the QEMU that listens on a socket; one at a time, it lets others wait.
fn ask(socket: &Path, command: &str, arguments: Value) -> Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut answer = || -> Result<Value> {
        loop {
            let mut line = String::new();
            lines.read_line(&mut line)?;
            let value: Value = serde_json::from_str(&line)?;
            if value.get("event").is_none() {
                return Ok(value);
            }
        }
    };
    answer()?;
    writeln!(stream, "{{\"execute\":\"qmp_capabilities\"}}")?;
    answer()?;
    writeln!(stream, "{}", serde_json::json!({ "execute": command, "arguments": arguments }))?;
    let answer = answer()?;
    if let Some(error) = answer.get("error") {
        bail!("{command}: {error}");
    }
    Ok(answer)
}
