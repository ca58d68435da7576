//! `osctl layer new`: the layer of a board, for a vendor who has a BSP layer with its machine.
//!
//! What the machine's configuration says is taken from there where it can be read without BitBake; the rest is left to a
//! person, by name. Nothing is built: that is for the kas file that comes with the layer.

mod bsp;
mod conf;
mod fill;
mod git;
mod kickstart;
mod machine;
mod name;
mod release;
mod repos;

use anyhow::{Context, Result, bail};
use bsp::Layer;
pub use machine::{Bootloader, Layout};
use name::{Board, Console, DeviceTree, Machine, Person, Url};
pub use release::Release;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// Who reports a vulnerability or a patch to, where nobody says so.
const NOBODY: &str = "Your Name <you@example.com>";

/// What is known of the board.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Name of the board or of a family of boards, such as acme-gateway; the layer is meta-os-BOARD
    pub board: Board,
    /// Machine that the image is for
    #[arg(long, value_name = "NAME")]
    pub machine: Machine,
    /// Layer with the machine: its directory in a git checkout
    #[arg(long, value_name = "DIR")]
    pub bsp: PathBuf,
    /// Another layer that the layer with the machine needs; may be given more than once
    #[arg(long, value_name = "DIR")]
    pub depends: Vec<PathBuf>,
    /// Release of the Yocto Project
    #[arg(long, value_enum, default_value_t = Release::Scarthgap)]
    pub release: Release,
    /// What starts the kernel; by default what the machine's configuration says
    #[arg(long, value_enum)]
    pub bootloader: Option<Bootloader>,
    /// Partition table; by default that of the machine's kickstart file (WKS_FILE), or else gpt
    #[arg(long, value_enum)]
    pub layout: Option<Layout>,
    /// Console, such as ttyS0,115200, the main one last; may be given more than once. By default the machine's first one
    #[arg(long = "console", value_name = "CONSOLE")]
    pub consoles: Vec<Console>,
    /// Device tree, such as vendor/board.dtb; may be given more than once. By default those of the machine
    #[arg(long = "device-tree", value_name = "FILE")]
    pub device_trees: Vec<DeviceTree>,
    /// Who maintains the layer, "Name <mail>"; by default as git signs commits
    #[arg(long, value_name = "PERSON")]
    pub maintainer: Option<Person>,
    /// Address of the repository of the layer with the machine; by default that of its checkout
    #[arg(long, value_name = "URL")]
    pub bsp_url: Option<Url>,
    /// Branch of that repository
    #[arg(long, value_name = "NAME")]
    pub bsp_branch: Option<String>,
    /// Commit of that repository, the full hash
    #[arg(long, value_name = "HASH", value_parser = git::full_hash)]
    pub bsp_commit: Option<String>,
    /// Checkout of this project; by default the one that the working directory is in
    #[arg(long, value_name = "DIR")]
    pub os: Option<PathBuf>,
    /// Address of this project's repository; by default that of its checkout
    #[arg(long, value_name = "URL")]
    pub os_url: Option<Url>,
    /// Commit of this project, the full hash; by default that of its checkout
    #[arg(long, value_name = "HASH", value_parser = git::full_hash)]
    pub os_commit: Option<String>,
    /// Directory in which to create the layer, outside of other repositories
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub output: PathBuf,
}

impl Options {
    fn layer_name(&self) -> String {
        format!("meta-os-{}", self.board)
    }
}

/// A setting that was read, and not asked of a person.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct Read {
    name: String,
    value: String,
    from: String,
}

/// What was read, and what is left to a person.
#[derive(Debug, Default)]
struct Notes {
    read: Vec<Read>,
    check: Vec<String>,
}

impl Notes {
    fn read(&mut self, name: &str, value: &str, from: &str) {
        self.read.push(Read { name: name.to_owned(), value: value.to_owned(), from: from.to_owned() });
    }

    fn check(&mut self, what: impl Into<String>) {
        self.check.push(what.into());
    }
}

/// The layer that was made.
#[derive(Debug, Serialize)]
pub struct Made {
    layer: PathBuf,
    machine: String,
    release: Release,
    kas: String,
    files: Vec<String>,
    read: Vec<Read>,
    check: Vec<String>,
}

/// Makes the layer.
///
/// # Errors
/// When the layer or the machine is not there, git does not say what a kas file needs, or the directory exists. Nothing is
/// written then.
pub fn new(options: &Options) -> Result<Made> {
    let mut notes = Notes::default();
    let parent = parent(&options.output)?;
    let bsp = Layer::open(&options.bsp)?;
    let conf = machine_conf(&bsp, options)?;
    let others = options.depends.iter().map(|dir| Layer::open(dir)).collect::<Result<Vec<_>>>()?;
    let layers: Vec<&Layer> = std::iter::once(&bsp).chain(&others).collect();
    let checkout = repos::os_checkout(options)?;
    if let Some(checkout) = &checkout {
        not_ours(checkout, options)?;
    }
    let roots: Vec<&Path> = layers.iter().map(|layer| layer.dir.as_path()).collect();
    let facts = machine::Facts::read(&conf, &roots, options, &mut notes)?;
    compatible(&layers, options, &mut notes);
    repos::missing_layers(&layers, &mut notes);
    let os = repos::os(options, checkout.as_deref(), &mut notes)?;
    let repos = repos::of_layers(&layers, options, &options.layer_name(), &mut notes)?;
    let maintainer = maintainer(options, &parent, &mut notes)?;
    let depends = depends(&bsp, &mut notes);
    let contents = fill::Contents {
        options,
        facts: &facts,
        maintainer: &maintainer,
        os: &os,
        repos: &repos,
        depends: &depends,
        bsp: &bsp.dir.file_name().unwrap_or_default().to_string_lossy(),
        check: &notes.check,
    };
    let files = contents.files()?;
    let layer = fill::write(&parent, &options.layer_name(), &files)?;
    Ok(Made {
        kas: format!("{}/kas/{}.yml", options.layer_name(), options.board),
        layer,
        machine: options.machine.to_string(),
        release: options.release,
        files: files.into_iter().map(|(name, _)| name).collect(),
        read: notes.read,
        check: notes.check,
    })
}

/// Where the layer goes. It is a repository of its own: kas takes the repository that a kas file is in as the layer.
fn parent(output: &Path) -> Result<PathBuf> {
    let parent = output.canonicalize().with_context(|| format!("cannot open {}", output.display()))?;
    if let Some(top) = git::top(&parent) {
        bail!(
            "{} is in the repository {}, and a layer is one of its own; --output names a directory outside",
            parent.display(),
            top.display()
        );
    }
    Ok(parent)
}

fn machine_conf(bsp: &Layer, options: &Options) -> Result<PathBuf> {
    let conf = bsp.machine_conf(options.machine.as_str());
    if conf.is_file() {
        return Ok(conf);
    }
    let machines = bsp.machines();
    let known = if machines.is_empty() { "none".to_owned() } else { machines.join(", ") };
    bail!("{} has no machine {}; it has: {known}", bsp.dir.display(), options.machine)
}

/// A second file of the same name would hide this project's own, or be hidden by it.
fn not_ours(checkout: &Path, options: &Options) -> Result<()> {
    let file = format!("conf/machine/include/os-{}.inc", options.machine);
    for entry in std::fs::read_dir(checkout).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("meta-os") && entry.path().join(&file).is_file() {
            bail!("{name} of this project has the machine {} already, and kas/ a kas file for it", options.machine);
        }
    }
    Ok(())
}

fn compatible(layers: &[&Layer], options: &Options, notes: &mut Notes) {
    let release = options.release.as_str();
    for layer in layers {
        match &layer.series {
            Some(series) if !series.iter().any(|name| name == release) => notes.check(format!(
                "The layer {} names other releases than {release} as compatible ({}), and BitBake refuses it: take its branch for {release}.",
                layer.collection,
                series.join(" ")
            )),
            _ => {}
        }
    }
    // Their boards have much in common, which is in layers of this project.
    for (collection, family) in [("raspberrypi", "raspberrypi"), ("odroid-layer", "odroid")] {
        if layers.iter().any(|layer| layer.collection == collection) {
            notes.check(format!(
                "What boards of this family have in common is in meta-os-{family}/conf/machine/include: require the file that fits in place of what is written here, add meta-os-{family} to LAYERDEPENDS and, as a layer of os, to the kas file.",
            ));
        }
    }
}

fn maintainer(options: &Options, parent: &Path, notes: &mut Notes) -> Result<Person> {
    if let Some(person) = &options.maintainer {
        return Ok(person.clone());
    }
    if let Some(person) = git::person(parent).and_then(|person| person.parse::<Person>().ok()) {
        notes.read("maintainer", person.as_str(), "git");
        return Ok(person);
    }
    notes.check("Who maintains the layer, and where are vulnerabilities reported? README.md, SECURITY.md.");
    NOBODY.parse()
}

fn depends(bsp: &Layer, notes: &mut Notes) -> Vec<String> {
    let mut names = vec!["core".to_owned(), "meta-os".to_owned()];
    if !names.contains(&bsp.collection) {
        names.push(bsp.collection.clone());
        notes.read("LAYERDEPENDS", &bsp.collection, "BBFILE_COLLECTIONS");
    }
    names
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} for {}", self.layer.display(), self.machine, self.release.as_str())?;
        writeln!(f, "\nRead:")?;
        for Read { name, value, from } in &self.read {
            writeln!(f, "  {name:<15} {value}   ({from})")?;
        }
        if !self.check.is_empty() {
            writeln!(f, "\nTo check (also in README.md):")?;
            for what in &self.check {
                writeln!(f, "  - {what}")?;
            }
        }
        let parent = self.layer.parent().unwrap_or(Path::new(""));
        writeln!(f, "\nIn {}:", parent.display())?;
        writeln!(
            f,
            "  kas shell {} -c 'bitbake -n os-image os-bundle'   # resolves all tasks, compiles nothing",
            self.kas
        )?;
        writeln!(f, "  kas build {}", self.kas)
    }
}
