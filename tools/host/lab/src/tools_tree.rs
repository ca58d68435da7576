//! The tools tree: the host's programs (QEMU, RAUC, mkfs, …) of the same Debian release as the image, extracted beside
//! the build. Nothing is installed, and every host works with the same versions.
//!
//! `tools.txt` says which programs. Each has a small script in `bin/` that starts it by the tree's own loader with the
//! tree's own libraries; the scripts find the tree by where they lie, so it may be moved. The libraries are named to the
//! loader and not in the environment: what such a program starts in turn may be the host's.
//!
//! Programs are looked for on `PATH`, by ours and by those that ours start. So [`enter`] puts `bin/` there and starts
//! the same command again.

use crate::image::base::SUITE;
use crate::repo::{self, Repo};
use crate::step::{Inputs, Steps};
use anyhow::{Context, Result, bail};
use os_sys::cmd::{Cmd, CmdError};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set to anything but `0` or nothing, this variable of the environment turns the tree off.
pub const HOST_TOOLS: &str = "OS_HOST_TOOLS";

/// Variable that leads to the tree in use; set by [`enter`] for itself and for what it starts.
const TREE: &str = "OS_TOOLS_TREE";

/// A host that the tree can be made for, which is what its packages are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Host {
    /// Rust's name of its architecture.
    arch: &'static str,
    /// Debian's.
    debian: &'static str,
    /// Libraries of the tree.
    lib: &'static str,
    /// Their loader, in the same directory.
    loader: &'static str,
}

const HOSTS: [Host; 2] = [
    Host { arch: "x86_64", debian: "amd64", lib: "usr/lib/x86_64-linux-gnu", loader: "ld-linux-x86-64.so.2" },
    Host { arch: "aarch64", debian: "arm64", lib: "usr/lib/aarch64-linux-gnu", loader: "ld-linux-aarch64.so.1" },
];

impl Host {
    /// The one that this runs on.
    fn this() -> Result<Self> {
        let arch = std::env::consts::ARCH;
        let found = HOSTS.into_iter().find(|host| host.arch == arch);
        found.with_context(|| {
            let known = HOSTS.map(|host| host.arch).join(" and ");
            format!("there are tools trees for {known}, and this host is {arch}; with --host-tools its own programs are used")
        })
    }

    /// Asks the loader whether a program gets every library from the tree: one of the host would work here and not there.
    fn complete(self, tree: &Path, program: &Path) -> Result<()> {
        let text = Cmd::new(tree.join(self.lib).join(self.loader))
            .args(["--inhibit-cache", "--library-path", &self.library_path(&tree.display().to_string()), "--list"])
            .arg(program)
            .read()?;
        match foreign(&text, tree) {
            Some(line) => bail!("{}: not from the tools tree: {line}", program.display()),
            None => Ok(()),
        }
    }

    fn library_path(self, tree: &str) -> String {
        let lib = self.lib;
        let dirs = std::iter::once(format!("{tree}/{lib}"));
        dirs.chain(PRIVATE_LIBS.iter().map(|dir| format!("{tree}/{lib}/{dir}"))).collect::<Vec<_>>().join(":")
    }
}

/// Directories below [`Host::lib`] with libraries of one package alone.
const PRIVATE_LIBS: [&str; 2] = ["swtpm", "systemd"];

/// Every package with its version, as its archive is called.
const PACKAGES: &str = "packages";

/// Where Debian's keys are when the package debian-archive-keyring is installed.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What the tree offers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tools {
    packages: Vec<String>,
    programs: Vec<Program>,
}

#[derive(Debug, PartialEq, Eq)]
struct Program {
    name: String,
    /// `VAR=VALUE`, with `@lib` for the tree's libraries and `@` for the tree.
    env: Vec<String>,
    /// Arguments before the caller's, in the same form.
    args: Vec<String>,
}

/// Which programs of the host a command uses.
#[derive(Debug, clap::Args)]
pub struct HostTools {
    /// Use the programs of this host (QEMU, RAUC, mkfs, ...) instead of the tools tree [env: OS_HOST_TOOLS=1]
    #[arg(long, global = true)]
    host_tools: bool,
}

impl HostTools {
    /// Has this process use them ([`enter`]).
    ///
    /// # Errors
    /// When the tree cannot be made.
    pub fn enter(&self, repo: &Repo) -> Result<()> {
        enter(repo, self.host_tools)
    }
}

/// Has this process and what it starts use the tree, or the host's own programs when `host_tools` or the environment says
/// so: starts the same command again where the environment is not yet what it should be, else returns.
///
/// # Errors
/// When the tree cannot be made.
pub fn enter(repo: &Repo, host_tools: bool) -> Result<()> {
    let wish = std::env::var_os(HOST_TOOLS).is_some_and(|v| !v.is_empty() && v != "0");
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let tree = std::env::var_os(TREE).map(PathBuf::from);
    let mut again = Command::new(std::env::current_exe().context("cannot tell which program this is")?);
    match (host_tools || wish, tree) {
        (false, Some(tree)) if first_on(&path, &tree) => return Ok(()),
        (true, None) if wish => return Ok(()),
        (true, tree) => {
            // A flag is for this process, the variable for those that it starts, too.
            again.env(HOST_TOOLS, "1").env_remove(TREE);
            if let Some(tree) = tree {
                again.env("PATH", without(&path, &tree)?);
            }
        }
        (false, _) => {
            let tree = ensure(repo)?;
            let mut dirs = vec![tree.join("bin")];
            dirs.extend(std::env::split_paths(&path));
            again.env("PATH", std::env::join_paths(dirs)?).env(TREE, tree);
        }
    }
    let mut args = std::env::args_os();
    if let Some(name) = args.next() {
        again.arg0(name);
    }
    Err(again.args(args).exec()).context("cannot start this program again with the tools tree")
}

/// What the programs in use are, for the inputs of steps whose output depends on them.
///
/// # Errors
/// When the tree in use cannot be read.
pub fn identity() -> Result<String> {
    match std::env::var_os(TREE) {
        Some(tree) => Ok(os_sys::files::read_text(&Path::new(&tree).join(PACKAGES))?),
        None => Ok("host".to_owned()),
    }
}

/// Whether programs come from the tree.
pub fn in_use() -> bool {
    std::env::var_os(TREE).is_some()
}

/// The directory that data of host packages lies below: the tree in use, or the host's own `/`.
pub fn root() -> PathBuf {
    std::env::var_os(TREE).map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

fn first_on(path: &OsStr, tree: &Path) -> bool {
    std::env::split_paths(path).next().is_some_and(|dir| dir == tree.join("bin"))
}

fn without(path: &OsStr, tree: &Path) -> Result<OsString> {
    Ok(std::env::join_paths(std::env::split_paths(path).filter(|dir| *dir != tree.join("bin")))?)
}

/// Makes the tree unless it is there and up to date, and returns where it is.
fn ensure(repo: &Repo) -> Result<PathBuf> {
    let host = Host::this()?;
    let mut lines = repo::list(&repo.data("tools.txt"))?;
    if !repo.arch.is_native() {
        lines.extend(repo::list(&repo.data("tools-emulation.txt"))?);
    }
    let tools = Tools::parse(&lines)?;
    let mirror = std::env::var("OS_DEBIAN_MIRROR").ok().filter(|m| !m.is_empty());
    let mut inputs = Inputs::new().text(SUITE).text(mirror.as_deref().unwrap_or(""));
    for package in &tools.packages {
        inputs = inputs.text(package);
    }
    for program in &tools.programs {
        inputs = inputs.text(&program.name).text(&program.script(host, "usr/bin"));
    }
    fs::create_dir_all(&repo.build).with_context(|| format!("cannot create {}", repo.build.display()))?;
    // A step of its own for each: one does not take the other for out of date.
    let (step, name) = match repo.arch.is_native() {
        true => ("tools tree", "tools-tree"),
        false => ("tools tree for emulation", "tools-tree-emulation"),
    };
    let out = repo.build.canonicalize()?.join(name);
    Steps::new(&repo.build).quiet().run(step, inputs, &out, |dir| tools.make(host, dir, mirror.as_deref()))?;
    Ok(out)
}

impl Tools {
    fn parse(lines: &[String]) -> Result<Self> {
        let mut tools = Self::default();
        let words = |text: &str| text.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for line in lines {
            if let Some((names, needs)) = line.split_once(" = ") {
                let (args, env) = split_environment(words(needs));
                for name in words(names) {
                    let program = tools.programs.iter_mut().find(|p| p.name == name);
                    let program = program.with_context(|| format!("tools.txt: no package lends {name}: {line}"))?;
                    program.env.clone_from(&env);
                    program.args.clone_from(&args);
                }
            } else if let Some((package, names)) = line.rsplit_once(':') {
                // A package of another architecture is called NAME:ARCHITECTURE, as apt does.
                tools.packages.push(package.to_owned());
                let program = |name| Program { name, env: Vec::new(), args: Vec::new() };
                tools.programs.extend(words(names).into_iter().map(program));
            } else {
                bail!("tools.txt: neither PACKAGE: PROGRAM… nor PROGRAM… = WORD…: {line}");
            }
        }
        Ok(tools)
    }

    fn make(&self, host: Host, dir: &Path, mirror: Option<&str>) -> Result<()> {
        let archive = dir.join("tree.tar");
        // A tar archive even where mmdebstrap could write the directory itself: a plain user's would belong to users
        // of a namespace, who alone could remove it.
        let mut cmd = Cmd::new("mmdebstrap")
            .args(["--variant=extract", "--format=tar", "--aptopt=APT::Install-Recommends \"false\""])
            .arg(format!("--include={}", self.packages.join(",")))
            .arg(format!(
                "--extract-hook=for deb in $MMDEBSTRAP_ESSENTIAL; do echo \"${{deb##*/}}\"; done | sort >\"$1/{PACKAGES}\""
            ));
        let foreign: BTreeSet<&str> = self.packages.iter().filter_map(|name| Some(name.split_once(':')?.1)).collect();
        if !foreign.is_empty() {
            let others = foreign.into_iter().filter(|arch| *arch != host.debian);
            let all: Vec<&str> = std::iter::once(host.debian).chain(others).collect();
            cmd = cmd.arg(format!("--architectures={}", all.join(",")));
        }
        if !rustix::process::geteuid().is_root() {
            // Nothing of the packages is run, so that neither namespaces nor another root are needed.
            cmd = cmd.arg("--mode=chrootless");
        }
        cmd = cmd.arg(SUITE).arg(&archive);
        if let Some(mirror) = mirror {
            cmd = cmd.arg(mirror);
        }
        cmd.run().map_err(with_advice)?;
        Cmd::new("tar")
            .args(["--no-same-owner", "--no-same-permissions", "-xf"])
            .arg(&archive)
            .arg("-C")
            .arg(dir)
            .args(["--exclude=./usr/share/doc", "--exclude=./usr/share/man", "--exclude=./usr/share/locale"])
            .args(["./usr", "./etc", &format!("./{PACKAGES}")])
            .run()?;
        fs::remove_file(&archive)?;
        fs::create_dir(dir.join("bin"))?;
        for program in &self.programs {
            let place = ["usr/bin", "usr/sbin"].into_iter().find(|place| dir.join(place).join(&program.name).exists());
            let place = place.with_context(|| format!("tools.txt: no package has a program {}", program.name))?;
            host.complete(dir, &dir.join(place).join(&program.name))?;
            let script = dir.join("bin").join(&program.name);
            fs::write(&script, program.script(host, place))?;
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }
}

/// Sorts `VAR=VALUE` from other words.
fn split_environment(words: Vec<String>) -> (Vec<String>, Vec<String>) {
    words.into_iter().partition(|word| {
        let name = word.split_once('=').map_or("", |(name, _)| name);
        name.is_empty() || !name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    })
}

impl Program {
    /// The script that starts the program, which is in directory `place` of the tree.
    fn script(&self, host: Host, place: &str) -> String {
        let lib = format!("$tree/{}", host.lib);
        let quoted = |text: &String| format!(" \"{}\"", text.replace("@lib", &lib).replace('@', "$tree"));
        let mut script =
            "#!/bin/sh\n# Starts the program of this tools tree; written by lab.\ntree=${0%/*}/..\n".to_owned();
        for variable in &self.env {
            script.push_str(&format!("export{}\n", quoted(variable)));
        }
        // LD_LIBRARY_PATH last: fakeroot finds its library by it, which is the host's.
        script.push_str(&format!(
            "exec \"{lib}/{loader}\" --inhibit-cache --argv0 {name} \\\n    --library-path \
             \"{libs}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\" \\\n    \"$tree/{place}/{name}\"{args} \"$@\"\n",
            loader = host.loader,
            name = self.name,
            libs = host.library_path("$tree"),
            args = self.args.iter().map(quoted).collect::<String>(),
        ));
        script
    }
}

/// A line of the loader's list that does not lead into the tree.
fn foreign<'a>(list: &'a str, tree: &Path) -> Option<&'a str> {
    let leads_away = |line: &&str| line.split_once(" => ").is_some_and(|(_, to)| !Path::new(to).starts_with(tree));
    list.lines().map(str::trim).find(leads_away)
}

/// Says what to do about a tree that could not be fetched.
fn with_advice(err: CmdError) -> anyhow::Error {
    let advice = advice(&err, Path::new(KEYRING).exists());
    anyhow::Error::new(err)
        .context(format!("no tools tree from Debian {SUITE}: {advice}. Or use the programs of this host: --host-tools"))
}

fn advice(err: &CmdError, keyring: bool) -> String {
    if matches!(err, CmdError::Start { .. }) {
        "mmdebstrap is missing; install it with: sudo apt-get install mmdebstrap".to_owned()
    } else if !keyring {
        format!("Debian's keys ({KEYRING}) are missing; install them with: sudo apt-get install debian-archive-keyring")
    } else {
        "mmdebstrap could not fetch it; check the network, or name a mirror in OS_DEBIAN_MIRROR".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_list_names_packages_programs_and_what_they_take() {
        let list = "ovmf:\nu-boot:arm64:\nmtools: mcopy mmd\nmcopy mmd = A_1=@/x -L @/y=z";
        let tools = Tools::parse(&lines(list)).unwrap();
        assert_eq!(tools.packages, ["ovmf", "u-boot:arm64", "mtools"]);
        assert_eq!(tools.programs.len(), 2);
        assert_eq!(tools.programs[1].env, ["A_1=@/x"]);
        assert_eq!(tools.programs[1].args, ["-L", "@/y=z"]);
        for bad in ["mcopy", "mcopy = X=1", "ovmf:\nmcopy = X=1"] {
            assert!(Tools::parse(&lines(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_list_in_use_is_understood() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tools.txt");
        let tools = Tools::parse(&repo::list(&path).unwrap()).unwrap();
        assert!(tools.packages.iter().any(|p| p == "ovmf") && !tools.programs.is_empty());
    }

    #[test]
    fn a_script_finds_its_tree_and_keeps_arguments_and_environment_apart() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("a tree");
        fs::create_dir_all(tree.join("bin")).unwrap();
        let put = |path: &Path, text: &str| {
            fs::write(path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let program = Program {
            name: "tool".to_owned(),
            env: vec!["X=@lib/conf".to_owned()],
            args: vec!["-L".to_owned(), "@/data".to_owned()],
        };
        let script = tree.join("bin/tool");
        for host in HOSTS {
            let loader = tree.join(host.lib).join(host.loader);
            fs::create_dir_all(loader.parent().unwrap()).unwrap();
            put(&loader, "#!/bin/sh\nprintf '%s\\n' \"$X\" \"$LD_LIBRARY_PATH\" \"$@\"\n");
            put(&script, &program.script(host, "usr/sbin"));
            let said = |cmd: Cmd| cmd.args(["one two", ""]).read().unwrap();
            let top = tree.join("bin/..").display().to_string();
            let text = said(Cmd::new(&script).env("LD_LIBRARY_PATH", ""));
            let (lib, libs) = (host.lib, host.library_path(&top));
            let expected = format!(
                "{top}/{lib}/conf\n\n--inhibit-cache\n--argv0\ntool\n--library-path\n{libs}\n{top}/usr/sbin/tool\n-L\n{top}/data\none \
                 two\n\n"
            );
            assert_eq!(text, expected);
            let text = said(Cmd::new(&script).env("LD_LIBRARY_PATH", "/fakeroot"));
            assert!(text.contains(&format!("\n{libs}:/fakeroot\n")), "{text}");
        }
    }

    #[test]
    fn a_library_of_the_host_is_noticed() {
        let tree = Path::new("/b/tools-tree");
        let own = "\tlinux-vdso.so.1 (0x1)\n\tlibz.so.1 => /b/tools-tree/usr/lib/libz.so.1 (0x2)\n";
        assert_eq!(foreign(own, tree), None);
        let of_the_host = format!("{own}\tlibc.so.6 => /usr/lib/libc.so.6 (0x3)\n");
        assert_eq!(foreign(&of_the_host, tree), Some("libc.so.6 => /usr/lib/libc.so.6 (0x3)"));
        assert_eq!(foreign("libx.so => not found", tree), Some("libx.so => not found"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let failed = || Cmd::new("false").run().unwrap_err();
        assert!(advice(&failed(), true).contains("OS_DEBIAN_MIRROR"));
        assert!(advice(&failed(), false).contains("debian-archive-keyring"));
        assert!(advice(&Cmd::new("/no/such/program").run().unwrap_err(), true).contains("install mmdebstrap"));
        assert!(with_advice(failed()).to_string().contains("--host-tools"));
    }

    #[test]
    fn the_tree_is_first_on_the_path_or_not_on_it() {
        let tree = Path::new("/b/tools-tree");
        assert!(first_on("/b/tools-tree/bin:/usr/bin".as_ref(), tree));
        assert!(!first_on("/usr/bin:/b/tools-tree/bin".as_ref(), tree));
        assert_eq!(without("/b/tools-tree/bin:/usr/bin".as_ref(), tree).unwrap(), "/usr/bin");
    }
}
