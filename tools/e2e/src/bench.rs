//! Measures.

use anyhow::Result;
use osctl::repo::Repo;

pub(crate) fn run(_repo: &Repo) -> Result<()> {
    Ok(())
}
