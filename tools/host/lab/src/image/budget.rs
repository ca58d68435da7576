//! How large the device binary may be: each slot and each initramfs carries it, so what makes it grow has to be meant.

use anyhow::{Context, Result, ensure};
use std::path::Path;

/// As the lab builds it, in bytes: without link-time optimisation half as large again as what ships.
pub const LAB: u64 = 8_000_000;
/// As it ships, in bytes: the release profile, stripped. The goal is 4,500,000, which it has outgrown.
pub const SHIPPED: u64 = 5_200_000;

/// The size of a binary in bytes, when it is within a budget.
///
/// # Errors
/// When it is larger, or not there.
pub fn check(binary: &Path, budget: u64) -> Result<u64> {
    let size = std::fs::metadata(binary).with_context(|| format!("cannot look at {}", binary.display()))?.len();
    ensure!(
        size <= budget,
        "{} has {size} bytes, and its budget is {budget}; find what grew (cargo tree -p os-tools -e normal), or say in \
         tools/host/lab/src/image/budget.rs why it may",
        binary.display()
    );
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_too_many_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("os-tools");
        std::fs::write(&binary, [0; 100]).unwrap();
        assert_eq!(check(&binary, 100).unwrap(), 100);
        let said = check(&binary, 99).unwrap_err().to_string();
        assert!(said.contains("has 100 bytes") && said.contains("budget is 99"), "{said}");
        assert!(check(&dir.path().join("none"), 100).is_err());
    }
}
