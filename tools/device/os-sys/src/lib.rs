//! The narrow seam between the tools and the system they run on.
//!
//! - [`ask`] is the question before something that cannot be taken back
//! - [`cmd`] runs other programs: no shell, the end of their stderr in the error
//! - [`date`] writes times as people read them
//! - [`files`] writes files so that a power cut leaves the old or the new content
//! - [`log`] writes the lines that journald and the console show
//! - [`out`] prints what a command has to say, as text or as JSON
//! - [`release`] says what runs
//! - [`stick`] mounts a USB stick for a moment

pub mod ask;
pub mod cmd;
pub mod date;
pub mod files;
pub mod log;
pub mod out;
pub mod release;
pub mod stick;

/// Bytes as lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The name of this device, as the kernel has it.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
