//! A restart that tells the firmware something.

use std::ffi::CStr;
use std::io;

/// Restarts at once with an argument for the firmware, as `reboot ARGUMENT` does: the kernel hands it to its drivers
/// (reboot(2), `LINUX_REBOOT_CMD_RESTART2`). Returns only when that cannot be done.
#[expect(unsafe_code, reason = "rustix has no restart with an argument")]
pub fn with(argument: &CStr) -> io::Error {
    rustix::fs::sync();
    // SAFETY: reboot(2) takes three integers and a pointer to a string with its end, which lives until the call returns; the
    // kernel writes to no memory of ours.
    unsafe {
        libc::syscall(
            libc::SYS_reboot,
            libc::LINUX_REBOOT_MAGIC1,
            libc::LINUX_REBOOT_MAGIC2,
            libc::LINUX_REBOOT_CMD_RESTART2,
            argument.as_ptr(),
        );
    }
    io::Error::last_os_error()
}
