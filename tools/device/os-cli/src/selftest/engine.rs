//! The container engine, with a container that proves it.

use super::root::Root;
use os_facts::selftest::Check;
use os_sys::cmd::{Cmd, CmdError};
use std::fs::File;
use std::path::Path;

const ANSWERS: &str = "engine.answers";
const CGROUPS: &str = "engine.cgroups";
const STORAGE: &str = "engine.storage";
const CONTAINER: &str = "engine.container";

/// The controllers that limits of containers stand on.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// Limits of the container that is run, and what it reads of them.
const MEMORY: u64 = 64 << 20;
const PIDS: u64 = 32;
/// How long each step may take, in seconds: a slow card is written to.
const LIMIT: &str = "120";
/// An archive that holds nothing: blocks of zeros (tar(5)).
const EMPTY: &str = "/run/os/selftest.tar";
const EMPTY_SIZE: usize = 10_240;

/// The engine answers within its time.
pub(super) fn answers(version: Option<&str>) -> Check {
    match version {
        Some(version) => Check::passed(ANSWERS, format!("Docker {version}")),
        None => Check::failed(ANSWERS, "the engine does not answer", "os status; journalctl -u docker -u containerd"),
    }
}

/// The kernel limits and counts what containers use.
pub(super) fn cgroups(root: Root<'_>) -> Check {
    let Some(have) = root.text("/sys/fs/cgroup/cgroup.controllers") else {
        return Check::failed(CGROUPS, "there is no cgroup v2", "the kernel was started with an old hierarchy");
    };
    let lacks: Vec<&str> = CONTROLLERS.into_iter().filter(|name| !have.split(' ').any(|has| has == *name)).collect();
    match lacks.is_empty() {
        true => Check::passed(CGROUPS, format!("cgroup v2 with {have}")),
        false => Check::failed(
            CGROUPS,
            format!("the kernel lacks {}", lacks.join(", ")),
            "a firmware that starts the kernel with cgroup_disable=memory: cgroup_enable=memory in its arguments",
        ),
    }
}

/// Images and containers are layers, not copies. `driver` is the engine's word.
pub(super) fn storage(driver: Result<&str, String>) -> Check {
    const REMEDY: &str = "journalctl -u docker says why it did not take overlay2";
    match driver.map(str::trim) {
        Ok(driver @ ("overlay2" | "overlayfs")) => Check::passed(STORAGE, driver),
        Ok(driver) => Check::failed(STORAGE, format!("the engine keeps images with {driver}"), REMEDY),
        Err(err) => Check::failed(STORAGE, err, REMEDY),
    }
}

/// What a container said of its own limits.
pub(super) fn container(said: Result<String, String>) -> Check {
    const REMEDY: &str = "docker run anything by hand; journalctl -u docker says more";
    match said {
        Err(err) => Check::failed(CONTAINER, err, REMEDY),
        Ok(said) if said.split_whitespace().eq([MEMORY.to_string(), PIDS.to_string()]) => {
            Check::passed(CONTAINER, "one ran, and its limits of memory and processes were in force")
        }
        Ok(said) => Check::failed(CONTAINER, format!("one ran, and its limits were {}", said.trim()), REMEDY),
    }
}

fn docker() -> Cmd {
    Cmd::new("timeout").args([LIMIT, "docker"]).named("docker")
}

/// The engine's storage driver.
///
/// # Errors
/// When the engine does not answer.
pub(super) fn driver() -> Result<String, CmdError> {
    docker().args(["info", "--format", "{{.Driver}}"]).read()
}

/// Runs a container in an image that holds nothing, with the programs of the device itself: it takes neither a network nor an
/// image of anybody, and leaves nothing behind.
pub(super) fn run() -> Result<String, String> {
    let empty = Path::new(EMPTY);
    let import = || -> Result<String, String> {
        os_sys::files::write_if_changed(empty, &[0; EMPTY_SIZE], 0o600).map_err(|err| err.to_string())?;
        let archive = File::open(empty).map_err(|err| err.to_string())?;
        docker().args(["import", "-"]).stdin(archive).read().map_err(|err| err.to_string())
    };
    let image = import();
    let _ = os_sys::files::remove_if_there(empty);
    let image = image?;
    let mut run = docker().args(["run", "--rm", "--read-only", "--cpus", "0.5"]);
    run = run.args(["--memory", &MEMORY.to_string(), "--pids-limit", &PIDS.to_string()]);
    for dir in ["/bin", "/lib", "/lib64", "/usr"] {
        if Path::new(dir).exists() {
            run = run.args(["-v", &format!("{dir}:{dir}:ro")]);
        }
    }
    let said = run.args([image.trim(), "cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max"]).read();
    let removed = docker().args(["rmi", "--force", image.trim()]).run();
    let said = said.map_err(|err| err.to_string())?;
    removed.map_err(|err| format!("its image stays: {err}"))?;
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::super::root::tests::Fake;
    use super::*;
    use os_facts::selftest::Outcome::{Failed, Passed};

    #[test]
    fn limits_take_controllers_that_a_kernel_may_lack() {
        let fake = Fake::with(&[("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n")]);
        assert_eq!(cgroups(fake.root()).outcome, Passed);
        fake.write("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids\n");
        let check = cgroups(fake.root());
        assert!(check.outcome == Failed && check.text.contains("memory"), "{check:?}");
        assert_eq!(cgroups(Fake::with(&[]).root()).outcome, Failed);
    }

    #[test]
    fn an_engine_answers_keeps_layers_and_limits_a_container() {
        assert_eq!((answers(Some("27.5")).outcome, answers(None).outcome), (Passed, Failed));
        let of = |driver| storage(Ok(driver)).outcome;
        assert_eq!((of("overlay2\n"), of("overlayfs"), of("vfs")), (Passed, Passed, Failed));
        assert_eq!(storage(Err("no answer".to_owned())).outcome, Failed);
        assert_eq!(container(Ok("67108864\n32\n".to_owned())).outcome, Passed);
        assert_eq!(container(Ok("max\n32\n".to_owned())).outcome, Failed);
        assert_eq!(container(Err("docker failed".to_owned())).outcome, Failed);
    }
}
