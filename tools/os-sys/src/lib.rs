//! The narrow seam between the tools and the system they run on.
//!
//! - [`cmd`] runs other programs: no shell, the end of their stderr in the error
//! - [`files`] writes files so that a power cut leaves the old or the new content
//! - [`log`] writes the lines that journald and the console show

pub mod cmd;
pub mod files;
pub mod log;
