//! The book: every page of docs/ is in its table of contents, and every link leads somewhere.

use crate::walk;
use anyhow::{Context, Result, ensure};
use lab::repo::Repo;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Pages beside docs/ whose links are followed as well.
const OTHERS: [&str; 4] = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "meta-os/README.md"];

/// Compares table of contents, pages and links.
///
/// # Errors
/// With everything that is missing or leads nowhere.
pub fn check(repo: &Repo) -> Result<()> {
    let book = repo.root.join("docs");
    let pages = walk::files(&book)?;
    let contents = book.join("README.md");
    let listed: Vec<PathBuf> = links(&os_sys::files::read_text(&contents)?).map(|(path, _)| book.join(path)).collect();
    let mut wrong: Vec<String> = pages
        .iter()
        .filter(|page| **page != contents && !listed.contains(page))
        .map(|page| format!("docs/README.md does not name {}", shown(repo, page)))
        .collect();
    let others = OTHERS.iter().map(|path| repo.root.join(path));
    for page in pages.into_iter().filter(|page| page.extension().is_some_and(|ending| ending == "md")).chain(others) {
        let text = os_sys::files::read_text(&page)?;
        let dir = page.parent().context("a page lies in no directory")?;
        for (path, anchor) in links(&text) {
            let target = if path.is_empty() { page.clone() } else { dir.join(path) };
            let found = match anchor {
                None => target.exists(),
                Some(anchor) => std::fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor)),
            };
            if !found {
                let anchor = anchor.map(|anchor| format!("#{anchor}")).unwrap_or_default();
                wrong.push(format!("{}: {path}{anchor} leads nowhere", shown(repo, &page)));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

/// Where the book is for whoever reads it from a device.
const HOME: &str = "https://example.org/os/docs/";

/// Every `Documentation=` of our units leads to a page of the book, a manual page or a site of others: the device has no
/// pages of its own.
///
/// # Errors
/// With everything that leads nowhere.
pub fn of_units(repo: &Repo) -> Result<()> {
    let mut files = walk::files(&repo.meta_os().join("recipes-core/os-base/files/rootfs/etc/systemd/system"))?;
    for entry in std::fs::read_dir(repo.root.join("tools/device"))?.flatten() {
        let dist = entry.path().join("dist");
        if dist.is_dir() {
            files.extend(walk::files(&dist)?);
        }
    }
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| !file.is_symlink()) {
        let text = os_sys::files::read_text(file)?;
        for link in text.lines().filter_map(|line| line.strip_prefix("Documentation=")).flat_map(str::split_whitespace)
        {
            if !leads_somewhere(link, &repo.root.join("docs")) {
                wrong.push(format!("{}: {link} leads nowhere", shown(repo, file)));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

fn leads_somewhere(link: &str, book: &Path) -> bool {
    match link.strip_prefix(HOME) {
        Some(page) => book.join(page).is_file(),
        None => link.starts_with("man:") || link.starts_with("https://"),
    }
}

fn shown(repo: &Repo, page: &Path) -> String {
    page.strip_prefix(&repo.root).unwrap_or(page).display().to_string()
}

/// What the links of a page point to in this repository: path and anchor.
fn links(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).filter_map(|target| {
        let ours = !target.contains("://") && !target.starts_with("mailto:");
        ours.then(|| target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor))))
    })
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut in_code = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        in_code ^= line.starts_with("```");
        let Some(heading) = line.strip_prefix('#').filter(|_| !in_code) else { continue };
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        found.insert(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_page_that_is_not_listed_and_a_link_to_nothing_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        OTHERS.iter().for_each(|path| write(path, "[docs](https://example.org/x)"));
        write("docs/README.md", "[one](one.md#two-words--more) and [two](adr/two.md)");
        write("docs/one.md", "# One\n\n## Two `words` & more\n```\n# none\n```\n[here](#one)");
        write("docs/adr/two.md", "[up](../one.md)");
        let repo = Repo {
            root: root.clone(),
            build: root.join("build"),
            arch: Default::default(),
            wishes: Default::default(),
        };
        check(&repo).unwrap();

        write("docs/adr/three.md", "[a](../one.md#none) [b](four.md)");
        let said = check(&repo).unwrap_err().to_string();
        for part in ["does not name docs/adr/three.md", "one.md#none leads nowhere", "four.md leads nowhere"] {
            assert!(said.contains(part), "{said}");
        }
        write("docs/README.md", "[one](one.md) [two](adr/two.md) [three](adr/three.md)");
        assert!(!check(&repo).unwrap_err().to_string().contains("does not name"));
    }

    #[test]
    fn documentation_of_a_unit_is_a_page_a_manual_or_a_site() {
        let book = tempfile::tempdir().unwrap();
        std::fs::write(book.path().join("update.md"), "").unwrap();
        for (link, wanted) in [
            ("https://example.org/os/docs/update.md", true),
            ("https://example.org/os/docs/gone.md", false),
            ("man:systemd.special(7)", true),
            ("https://containerd.io", true),
            ("file:///usr/share/doc/os/update.md", false),
        ] {
            assert_eq!(leads_somewhere(link, book.path()), wanted, "{link}");
        }
    }
}
