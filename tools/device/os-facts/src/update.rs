//! What is known of updates, as far as the rest of the system needs it.

use os_sys::files;
use serde::de::DeserializeOwned;
use std::path::Path;

/// Where it lies (`os_update::state`), below the state partition.
pub(crate) const STATE: &str = "os/update/state.json";
/// A larger file is damaged, in bytes.
const MAX: u64 = 1 << 20;

/// The fields of it that `T` has; none when there is no file, or it is damaged. `state` is the state partition.
pub(crate) fn read<T: DeserializeOwned>(state: &Path) -> Option<T> {
    serde_json::from_slice(&files::read_limited(&state.join(STATE), MAX).ok()?).ok()
}
