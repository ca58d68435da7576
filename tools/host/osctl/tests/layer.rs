//! `osctl layer new` on the BSP layer of a board that this project does not have.

// clippy.toml allows these in tests; it does not see that the functions here belong to tests.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/layer");

/// A directory with clones of both layers, as a vendor has them.
struct Vendor {
    dir: tempfile::TempDir,
}

impl Vendor {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for layer in ["meta-acme", "meta-acme-soc"] {
            copy(&Path::new(FIXTURES).join(layer), &dir.path().join(layer));
            let git = |arguments: &[&str]| git(&dir.path().join(layer), arguments);
            git(&["init", "--quiet", "--initial-branch=scarthgap"]);
            git(&["add", "--all"]);
            git(&["commit", "--quiet", "--message=A layer"]);
            git(&["remote", "add", "origin", &format!("https://user:secret@git.example.com/{layer}.git")]);
            git(&["update-ref", "refs/remotes/origin/scarthgap", "HEAD"]);
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn osctl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_osctl"));
        command.args(["layer", "new", "--maintainer", "Ann Doe <ann@example.com>"]).args(arguments);
        isolated(&mut command).current_dir(self.dir.path()).output().unwrap()
    }

    /// What is there beside the clones.
    fn made(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with("meta-acme")).collect()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|err| panic!("{name}: {err}"))
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Whoever runs the test has settings of git; it has none of them.
fn isolated(command: &mut Command) -> &mut Command {
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CEILING_DIRECTORIES", "/tmp")
}

fn git(dir: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.arg("-C").arg(dir).args(["-c", "user.name=Ann", "-c", "user.email=ann@example.com"]).args(arguments);
    let output = isolated(&mut command).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn said(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr.clone()).unwrap()
}

const GATEWAY: [&str; 7] = ["acme", "--machine", "acme-gateway2", "--bsp", "meta-acme", "--depends", "meta-acme-soc"];

/// What a file is to be; OS_ACCEPT=1 writes it anew, for a look at the difference.
fn same(vendor: &Vendor, file: &str, expected: &str) {
    let mut text = vendor.read(file);
    for layer in ["meta-acme", "meta-acme-soc"] {
        // One that begins with a digit has quotes.
        let commit = git(&vendor.path(layer), &["rev-parse", "HEAD"]);
        text = text.replace(&format!("\"{commit}\""), &commit).replace(&commit, &format!("COMMIT-OF-{layer}"));
    }
    let path = Path::new(FIXTURES).join("expected").join(expected);
    if std::env::var_os("OS_ACCEPT").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap_or_default(), "{expected}");
}

#[test]
fn a_layer_has_what_the_machine_says() {
    let vendor = Vendor::new();
    let output = vendor.osctl(&[&GATEWAY[..], &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    same(&vendor, "meta-os-acme/conf/machine/include/os-acme-gateway2.inc", "os-acme-gateway2.inc");
    same(&vendor, "meta-os-acme/kas/acme.yml", "acme.yml");
    same(&vendor, "meta-os-acme/README.md", "README.md");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let files = answer["files"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
    for file in files {
        assert!(!vendor.read(&format!("meta-os-acme/{file}")).contains("secret"), "{file}");
    }
    assert_eq!(answer["version"], 1);
    assert_eq!(answer["kas"], "meta-os-acme/kas/acme.yml");
    assert!(answer["read"].as_array().unwrap().iter().any(|read| read["name"] == "OS_CONSOLES"));
    // kas takes the repository that the file is in as the layer.
    assert_eq!(git(&vendor.path("meta-os-acme"), &["rev-parse", "--show-prefix"]), "");
    assert_eq!(vendor.made(), ["meta-os-acme"]);
}

#[test]
fn what_a_person_says_comes_first() {
    let vendor = Vendor::new();
    let hash = "0123456789012345678901234567890123456789";
    let more = ["--layout", "mbr", "--console", "ttyACM1,9600", "--console", "tty0", "--device-tree", "acme/g2.dtb"];
    let pins = ["--bsp-url", "https://git.example.com/mirror/meta-acme", "--bsp-commit", hash, "--os-commit", hash];
    let output = vendor.osctl(&[&GATEWAY[..], &more, &pins, &["--release", "wrynose"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let inc = vendor.read("meta-os-acme/conf/machine/include/os-acme-gateway2.inc");
    assert!(inc.contains("OS_CONSOLES ?= \"console=ttyACM1,9600 console=tty0\""), "{inc}");
    assert!(inc.contains("OS_WKS_FILE = \"os-mbr.wks.in\""), "{inc}");
    assert!(inc.contains("    g2.dtb;dtb/g2.dtb \\\n    g2.dtb;dtb/acme/g2.dtb \\\n\""), "{inc}");
    let kas = vendor.read("meta-os-acme/kas/acme.yml");
    // A hash of digits alone is a text, too.
    assert_eq!(kas.matches(&format!("commit: \"{hash}\"")).count(), 2, "{kas}");
    assert!(kas.contains("url: https://git.example.com/mirror/meta-acme\n"), "{kas}");
    assert!(kas.contains("kas/include/wrynose.yml"), "{kas}");
    assert!(vendor.read("meta-os-acme/conf/layer.conf").contains("LAYERSERIES_COMPAT_meta-os-acme = \"wrynose\""));
}

#[test]
fn firmware_with_efi_starts_grub() {
    let vendor = Vendor::new();
    let output = vendor.osctl(&["acme-server", "--machine", "acme-server", "--bsp", "meta-acme"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("depends on acme-soc, which the kas file lacks"), "{text}");
    let inc = vendor.read("meta-os-acme-server/conf/machine/include/os-acme-server.inc");
    for line in ["OS_BOOTLOADER = \"grub\"", "EFI_PROVIDER = \"grub-efi\"", "OS_CONSOLES ?= \"console=ttyS1,115200\""] {
        assert!(inc.lines().any(|found| found == line), "{inc}");
    }
    assert!(!inc.contains("OS_EFI_ARCH") && !inc.contains("OS_KERNEL_FILES"), "{inc}");
}

#[test]
fn what_is_refused_leaves_nothing() {
    let vendor = Vendor::new();
    let refused = |arguments: &[&str]| said(&vendor.osctl(arguments));
    let text = refused(&["acme", "--machine", "acme-gateway3", "--bsp", "meta-acme"]);
    assert!(text.contains("has no machine acme-gateway3; it has: acme-gateway2, acme-server"), "{text}");
    let text = refused(&["acme", "--machine", "acme-gateway2", "--bsp", "."]);
    assert!(text.contains("layers in it: meta-acme, meta-acme-soc"), "{text}");
    let text = refused(&[&GATEWAY[..], &["--output", "meta-acme"]].concat());
    assert!(text.contains("--output names a directory outside"), "{text}");
    // The include that says what starts the kernel is in the other layer.
    std::fs::write(vendor.path("meta-acme/conf/machine/acme-bare.conf"), "MACHINE_FEATURES = \"wifi\"\n").unwrap();
    let text = refused(&["acme", "--machine", "acme-bare", "--bsp", "meta-acme"]);
    assert!(text.contains("write --bootloader grub, u-boot or rpi-tryboot"), "{text}");
    git(&vendor.path("meta-acme-soc"), &["remote", "remove", "origin"]);
    let text = refused(&GATEWAY);
    assert!(text.contains("has no remote"), "{text}");
    assert!(vendor.made().is_empty(), "{:?}", vendor.made());

    std::fs::create_dir(vendor.path("meta-os-acme")).unwrap();
    std::fs::write(vendor.path("meta-os-acme/mine"), "").unwrap();
    git(&vendor.path("meta-acme-soc"), &["remote", "add", "origin", "https://git.example.com/meta-acme-soc"]);
    let text = refused(&GATEWAY);
    assert!(text.contains("exists already; nothing was written"), "{text}");
    assert_eq!(
        (vendor.made(), std::fs::read_dir(vendor.path("meta-os-acme")).unwrap().count()),
        (vec!["meta-os-acme".to_owned()], 1)
    );
}
