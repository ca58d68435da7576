//! Whether the options that the OS needs of kernels and of U-Boot survive the real Kconfig, for each board.
//!
//! A table names what is tried, a line each; see `docs/internals.md`:
//!
//! ```text
//! MACHINE ARCH MODE SOURCE CONFIG FRAGMENT…
//! raspberrypi5 arm64 alldefconfig linux-rpi linux-rpi/arch/arm64/configs/bcm2712_defconfig meta-os/files/kernel/os.cfg
//! ```

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use lab::repo::Repo;
use os_sys::cmd::Cmd;
use os_sys::files::read_text;
use osctl::kconfig::{self, Configuration, Group, Lack};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where the results are that [`table`] is made of.
const RECORD: &str = "docs/kconfig.json";
/// The document that has the table, and its marks there.
const PAGE: &str = "docs/status.md";
const BEGIN: &str = "<!-- made by: xtask kconfig -->";
const END: &str = "<!-- end of: xtask kconfig -->";

/// Whose configuration it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A Linux kernel
    Kernel,
    /// U-Boot
    UBoot,
}

impl Kind {
    /// As the record names it.
    const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::UBoot => "u-boot",
        }
    }
}

/// A line of the table.
#[derive(Debug, PartialEq, Eq)]
struct Trial {
    machine: String,
    /// As make takes it, unless it is `-`: U-Boot finds out by itself.
    arch: String,
    /// What options are that nobody names: `alldefconfig`, or `allnoconfig` as linux-yocto has it.
    mode: String,
    source: PathBuf,
    config: PathBuf,
    fragments: Vec<PathBuf>,
}

impl Trial {
    /// `dir`: what source and configuration are relative to; `root`: what fragments are relative to.
    fn parse(line: &str, dir: &Path, root: &Path) -> Result<Self> {
        let mut words = line.split_ascii_whitespace();
        let mut next = |what: &str| words.next().with_context(|| format!("'{line}' has no {what}"));
        let (machine, arch, mode) = (next("machine")?, next("architecture")?, next("mode")?);
        ensure!(matches!(mode, "alldefconfig" | "allnoconfig"), "'{mode}' is neither alldefconfig nor allnoconfig");
        let (source, config) = (dir.join(next("source")?), dir.join(next("configuration")?));
        let fragments: Vec<_> = words.map(|path| root.join(path)).collect();
        ensure!(!fragments.is_empty(), "'{line}' has no fragment");
        Ok(Self {
            machine: machine.to_owned(),
            arch: arch.to_owned(),
            mode: mode.to_owned(),
            source,
            config,
            fragments,
        })
    }

    /// What Kconfig makes of configuration and fragments.
    fn configure(&self) -> Result<Configuration> {
        let dir = tempfile::tempdir()?;
        let (all, result) = (dir.path().join("all.config"), dir.path().join(".config"));
        let mut text = read_text(&self.config)?;
        for fragment in &self.fragments {
            // Of two values the later one counts, as in merge_config.sh.
            text = text + "\n" + &read_text(fragment)?;
        }
        std::fs::write(&all, text)?;
        let mut make = Cmd::new("make").arg("-s").arg("-C").arg(&self.source);
        make = make.arg(format!("O={}", dir.path().display())).arg(format!("KCONFIG_ALLCONFIG={}", all.display()));
        if self.arch != "-" {
            make = make.arg(format!("ARCH={}", self.arch));
        }
        // Some options depend on what the compiler can do.
        let compiler = match self.arch.as_str() {
            "arm64" => "aarch64-linux-gnu-",
            "arm" => "arm-linux-gnueabihf-",
            _ => "",
        };
        if !compiler.is_empty() && Cmd::new(format!("{compiler}gcc")).arg("--version").read().is_ok() {
            make = make.arg(format!("CROSS_COMPILE={compiler}"));
        }
        make.arg(&self.mode).read().with_context(|| format!("Kconfig of {} refuses", self.source.display()))?;
        Ok(Configuration::parse(&read_text(&result)?))
    }

    /// The result as it is recorded.
    fn record(&self, version: &str, groups: &[Group], lacks: &[Lack]) -> Value {
        let base = self.config.file_name().unwrap_or_default().to_string_lossy();
        let lacks: Vec<_> = (lacks.iter())
            .map(|lack| json!({"option": lack.option, "found": lack.found, "breaks": lack.what}))
            .collect();
        json!({
            "machine": self.machine, "version": version, "base": base, "mode": self.mode,
            "options": groups.iter().map(Group::size).sum::<usize>(), "lacks": lacks,
        })
    }
}

/// Version of a source, without that of its corrections: its Makefile begins with it.
fn version(makefile: &str) -> Option<String> {
    let value = |name: &str| {
        let line = makefile.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix('='));
        line.map(str::trim)
    };
    Some(format!("{}.{}", value("VERSION")?, value("PATCHLEVEL")?))
}

/// Tries every line of a table, and prints a line for each. `record`: writes the results into the docs.
///
/// # Errors
/// When the table is not one, or a source cannot be configured at all.
pub fn run(repo: &Repo, kind: Kind, table: &Path, record: bool) -> Result<ExitCode> {
    let dir = table.parent().map(Path::to_owned).unwrap_or_default().canonicalize()?;
    let text = read_text(table)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (mut results, mut failed) = (Vec::new(), false);
    for line in lines {
        let trial = Trial::parse(line, &dir, &repo.root)?;
        let mut groups = Vec::new();
        for fragment in &trial.fragments {
            groups.extend(kconfig::groups(&read_text(fragment)?));
        }
        let version = version(&read_text(&trial.source.join("Makefile"))?).context("the Makefile has no version")?;
        let config = trial.configure()?;
        let lacks: Vec<Lack> = groups.iter().flat_map(|group| group.lacks(&config)).collect();
        failed |= !lacks.is_empty();
        let said = if lacks.is_empty() { "ok     " } else { "FAILED " };
        os_sys::say!("{said} {} {version} {}", trial.machine, trial.config.display());
        for lack in &lacks {
            os_sys::say!("        {} is '{}': {}", lack.option, lack.found, lack.what);
        }
        results.push(trial.record(&version, &groups, &lacks));
    }
    ensure!(!results.is_empty(), "{} names no machine", table.display());
    if record {
        write(repo, kind, results)?;
    }
    Ok(ExitCode::from(u8::from(failed)))
}

fn write(repo: &Repo, kind: Kind, results: Vec<Value>) -> Result<()> {
    let path = repo.root.join(RECORD);
    let mut all: Value = if path.exists() { serde_json::from_str(&read_text(&path)?)? } else { json!({}) };
    let object = all.as_object_mut().context("the record is no object")?;
    object.insert(kind.name().to_owned(), Value::Array(results));
    let rows = table(&all)?;
    std::fs::write(&path, serde_json::to_string_pretty(&all)? + "\n")?;
    let page = repo.root.join(PAGE);
    let old = read_text(&page)?;
    let (before, rest) = old.split_once(BEGIN).with_context(|| format!("{PAGE} has no {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{PAGE} has no {END}"))?;
    std::fs::write(&page, format!("{before}{rows}{after}"))?;
    Ok(())
}

/// The table of the results, with its marks.
fn table(all: &Value) -> Result<String> {
    let mut out = format!("{BEGIN}\n| machine | of | begins with | options | lacks |\n|---|---|---|---|---|\n");
    for (kind, title) in [(Kind::Kernel, "Linux"), (Kind::UBoot, "U-Boot")] {
        for result in all.get(kind.name()).and_then(Value::as_array).into_iter().flatten() {
            let text = |name: &str| result.get(name).and_then(Value::as_str).with_context(|| format!("no {name}"));
            let options = result.get("options").and_then(Value::as_u64).context("no options")?;
            let lacks = result.get("lacks").and_then(Value::as_array).context("no lacks")?;
            let lacks: Vec<String> = (lacks.iter())
                .map(|lack| {
                    let word = |name: &str| lack.get(name).and_then(Value::as_str).unwrap_or_default();
                    format!("`{}`: {}", word("option"), word("breaks"))
                })
                .collect();
            let lacks = if lacks.is_empty() { "nothing".to_owned() } else { lacks.join("<br>") };
            let (machine, version, base) = (text("machine")?, text("version")?, text("base")?);
            out.push_str(&format!("| {machine} | {title} {version} | `{base}` | {options} | {lacks} |\n"));
        }
    }
    out.push_str(END);
    Ok(out)
}

/// Compares the page with the record.
///
/// # Errors
/// When they differ.
pub fn check(repo: &Repo) -> Result<()> {
    let all: Value = serde_json::from_str(&read_text(&repo.root.join(RECORD))?)?;
    let page = read_text(&repo.root.join(PAGE))?;
    ensure!(page.contains(&table(&all)?), "{PAGE} has not the table of {RECORD}; xtask kconfig … --record writes both");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table() {
        let (dir, root) = (Path::new("/d"), Path::new("/r"));
        let trial = Trial::parse("rpi5 arm64 alldefconfig src src/x_defconfig a.cfg b.cfg", dir, root).unwrap();
        assert_eq!((trial.source, trial.config), ("/d/src".into(), "/d/src/x_defconfig".into()));
        assert_eq!(trial.fragments, [PathBuf::from("/r/a.cfg"), "/r/b.cfg".into()]);
        assert!(Trial::parse("rpi5 arm64 alldefconfig src cfg", dir, root).is_err());
        assert!(Trial::parse("rpi5 arm64 sometimes src cfg a.cfg", dir, root).is_err());
    }

    #[test]
    fn a_version_is_found() {
        let makefile = "# SPDX-License-Identifier: GPL-2.0+\n\nVERSION = 2025\nPATCHLEVEL = 01\nSUBLEVEL =\n";
        assert_eq!(version(makefile).as_deref(), Some("2025.01"));
        assert_eq!(version("all:\n"), None);
    }

    #[test]
    fn kconfig_itself_decides() {
        // A source with Kconfig's own rules in little: B survives only where A is on.
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write(
            "Makefile",
            "VERSION = 1\nPATCHLEVEL = 2\nalldefconfig:\n\tgrep -q '^CONFIG_A=y' $(KCONFIG_ALLCONFIG) && cp $(KCONFIG_ALLCONFIG) $(O)/.config || echo > $(O)/.config\n",
        );
        write("with", "CONFIG_A=y\n");
        write("without", "\n");
        write("os.cfg", "# B works.\nCONFIG_B=y\n");
        let lacks = |config: &str| {
            let line = format!("m - alldefconfig . {config} os.cfg");
            let configuration = Trial::parse(&line, dir.path(), dir.path()).unwrap().configure().unwrap();
            kconfig::groups(&std::fs::read_to_string(dir.path().join("os.cfg")).unwrap())
                .iter()
                .map(|group| group.lacks(&configuration).len())
                .sum::<usize>()
        };
        assert_eq!((lacks("with"), lacks("without")), (0, 1));
    }
}
