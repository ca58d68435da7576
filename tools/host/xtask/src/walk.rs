//! The files below a directory.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Everything below a directory that is no directory itself, in order. Links are named, not followed.
///
/// # Errors
/// When a directory cannot be read: what was not seen must not look as if it agreed.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let entry = entry?;
            let list = if entry.file_type()?.is_dir() { &mut left } else { &mut found };
            list.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_named_and_a_directory_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("b/c")).unwrap();
        std::fs::write(at("b/c/d"), "").unwrap();
        std::os::unix::fs::symlink("b", at("a")).unwrap();
        assert_eq!(files(dir.path()).unwrap(), [at("a"), at("b/c/d")]);
        assert!(files(&at("none")).is_err());
    }
}
