//! A device that takes its releases from a web server of this machine, with all that is around it. It has little memory
//! and three containers in it: what an update costs on top must fit beside them.

use crate::harness::device::{equal, run_containers, settled};
use crate::harness::disk::{Disk, copy};
use crate::harness::lab::Lab;
use crate::harness::liar::Liar;
use crate::harness::release::{Change, Maker};
use crate::harness::settled::Claim;
use crate::harness::site::Site;
use crate::harness::vm::{LIAR, Restart, Start, Vm, WEB};
use anyhow::{Context, Result};
use osctl::channel::Directory;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// The least memory that a device may have, in MiB.
pub(crate) const LITTLE: u32 = 512;

/// Name of the device.
pub(crate) const NAME: &str = "e2e-update";

/// Size of the stick, in MiB: it has to hold a channel.
const STICK: u64 = 1024;

/// The device and what is around it.
pub(crate) struct Rig<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) maker: Maker,
    pub(crate) site: Site,
    /// The channel `stable` of the site.
    pub(crate) channel: Directory,
    pub(crate) stick: Disk,
    liar: Liar,
    /// Names of the containers, in the order of the alphabet.
    pub(crate) containers: Vec<String>,
}

impl<'a> Rig<'a> {
    pub(crate) fn new(lab: &'a Lab) -> Result<Self> {
        let maker = Maker::new(&lab.artifacts, lab.dir.join("releases"))?;
        let site = Site::start(&lab.dir.join("site"))?;
        let channel = maker.channel(&site.path("stable"))?;
        let liar = Liar::start(std::fs::read(site.path("stable/channel.json"))?)?;
        let demo = lab.artifacts.demo.as_ref();
        let containers =
            demo.map_or(Vec::new(), |demo| ["", "-2", "-3"].map(|more| format!("{}{more}", demo.name)).into());
        let stick = Disk::stick(&lab.dir, "UPDATE", STICK)?;
        Ok(Self { lab, maker, site, channel, stick, liar, containers })
    }

    /// What `config.json` of the device says.
    fn config(&self) -> Value {
        json!({ "hostname": NAME, "os": { "update": { "channel": Site::url("stable"), "mode": "manual" } } })
    }

    /// Writes it onto the flashed disk.
    pub(crate) fn configure(&self) -> Result<()> {
        self.lab.disk.fat.write("config.json", &self.lab.config(self.config())?)
    }

    fn machine(&self) -> Start<'_> {
        Start {
            web: vec![(WEB, self.site.port), (LIAR, self.liar.port)],
            extra: self.stick.stick_arguments(),
            memory: LITTLE,
            restart: Restart::Restarts,
            ..self.lab.machine()
        }
    }

    /// Starts the machine.
    pub(crate) fn boot(&self) -> Result<Vm> {
        Vm::start(&self.machine())
    }

    /// The first boot of the flashed device, until it has settled, with a log of every write to the disk; and a copy of
    /// the disk before the first of them. Chains that need no first boot go on from what it leaves.
    pub(crate) fn first_boot(&self) -> Result<(Vm, PathBuf)> {
        let claim = self.claim()?;
        let vm = self.first_boot_with(claim, true)?;
        Ok((vm, self.before()))
    }

    fn before(&self) -> PathBuf {
        self.lab.dir.join("replayed.raw")
    }

    /// A device that has been through its first boot.
    pub(crate) fn settled(&self) -> Result<Vm> {
        let claim = self.claim()?;
        if claim.is_made() { claim.thaw(self.lab, self.machine()) } else { self.first_boot_with(claim, false) }
    }

    fn claim(&self) -> Result<Claim<'a>> {
        let made = format!("{} {LITTLE} {STICK} {}", self.config(), self.more_containers());
        self.lab.artifacts.settled.claim(&self.lab.artifacts, &made)
    }

    fn first_boot_with(&self, claim: Claim<'_>, trace: bool) -> Result<Vm> {
        self.configure()?;
        if trace {
            copy(&self.lab.disk.path, &self.before())?;
        }
        let mut vm = Vm::start(&Start { trace, ..self.machine() })?;
        vm.wait_ssh()?;
        settled(&vm)?;
        // Until the archive that the container came from is gone.
        vm.wait_for("systemctl is-system-running --wait >/dev/null", Duration::from_secs(300))?;
        vm.ssh(&self.more_containers())?;
        run_containers(&vm, &self.containers)?;
        vm.ssh("sync")?;
        if !claim.is_made() {
            claim.keep(self.lab, &mut vm)?;
        }
        Ok(vm)
    }

    /// Makes the containers that did not come with the image. Each wants a signal of its own at its end, and says there that
    /// it got it.
    fn more_containers(&self) -> String {
        let Some(demo) = &self.lab.artifacts.demo else { return "true".to_owned() };
        let works = "trap 'echo bye > /end/said; exit' USR1; /bin/busybox sleep 1000000 & wait";
        let run = |name: &String| {
            format!(
                "mkdir -m 777 /mnt/data/{name} && docker run -d --name {name} --restart unless-stopped --stop-signal USR1 \
                 -v /mnt/data/{name}:/end {} /bin/busybox sh -c \"{works}\" >/dev/null",
                demo.image
            )
        };
        self.others().map(run).collect::<Vec<_>>().join(" && ")
    }

    fn others(&self) -> impl Iterator<Item = &String> {
        let demo = self.lab.artifacts.demo.as_ref().map(|demo| &demo.name);
        self.containers.iter().filter(move |name| Some(*name) != demo)
    }

    /// The containers were stopped as they ask for; until now, and not in the boot that runs.
    pub(crate) fn containers_said_bye(&self, vm: &Vm) -> Result<()> {
        for name in self.others() {
            let said = vm.ssh(&format!("cat /mnt/data/{name}/said 2>&1; rm -f /mnt/data/{name}/said"))?;
            equal(&said, "bye").with_context(|| format!("container {name} did not get its stop signal"))?;
        }
        Ok(())
    }

    /// Publishes a release on the channel.
    pub(crate) fn publish(&mut self, version: &str, change: Change<'_>) -> Result<PathBuf> {
        let bundle = self.maker.bundle(version, change)?;
        self.maker.publish(&mut self.channel, &bundle)?;
        Ok(bundle)
    }

    /// The same with a release whose root lacks these files.
    pub(crate) fn publish_without(&mut self, version: &str, files: &[&str], change: Change<'_>) -> Result<PathBuf> {
        let bundle = self.maker.bundle_without(version, files, change)?;
        self.maker.publish(&mut self.channel, &bundle)?;
        Ok(bundle)
    }

    /// All containers run, and no other.
    pub(crate) fn containers_run(&self, vm: &Vm) -> Result<()> {
        run_containers(vm, &self.containers)
    }
}
