//! What is laid down in the root slot before it is entered: who the device is, and what systemd and the engine read of
//! config.json before anything else of ours runs. Nothing here mounts anything.

use super::note;
use anyhow::{Context, Result};
use os_config_model::daemon::{PROVED, Proved, RELEASE};
use os_config_model::engine::Places;
use os_config_model::store::Store;
use os_config_model::sysctl::{self, Kernel};
use os_config_model::types::Config;
use os_facts::hostname::{self, Hostname};
use os_facts::place::{IMAGE_ETC, STATE, under};
use os_facts::report::{self, Report};
use os_facts::{identity, trial};
use os_sys::files;
use std::path::{Path, PathBuf};

/// Names of the disk that we started from, for udev.
const UDEV_RULES: &str = "udev/rules.d/61-os-disk.rules";

/// The root slot with the partitions mounted below it, and `/run`, which is moved into it later.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) sysroot: PathBuf,
    pub(super) run: PathBuf,
    pub(super) kernel: Kernel,
}

impl Root {
    /// Where a path of the running device is now.
    fn at(&self, path: &str) -> PathBuf {
        match Path::new(path).strip_prefix("/run") {
            Ok(inside) => self.run.join(inside),
            Err(_) => under(&self.sysroot, path),
        }
    }

    fn store(&self) -> Store {
        Store::under(&self.sysroot)
    }

    /// The initramfs needs a few keys of config.json. Anything wrong is said later, by who applies the rest.
    pub(super) fn configuration(&self) -> Config {
        let (decision, _) = os_config_model::decide::from_store(&self.store());
        decision.accepted.config
    }

    /// Makes the identity of a device that has none.
    pub(super) fn identify(&self, first_boot: bool, report: &mut Report) {
        let state = self.at(STATE);
        let made = match identity::read(&state) {
            Some(_) => Ok(()),
            None => identity::create(&state),
        };
        report.first_boot = first_boot && made.is_ok();
        if let Err(err) = made {
            note(report, format!("cannot make an identity: {err}"));
        }
    }

    /// Lays down the name of the device, what [`os_config_model::engine`] says, and the settings of the kernel.
    pub(super) fn lay_down(&self, config: &Config, report: &mut Report) {
        if let Err(err) = self.name(config) {
            note(report, format!("the device has no name yet: {err:#}"));
        }
        let places = Places {
            etc: self.at("/etc"),
            image_etc: self.at(IMAGE_ETC),
            store: self.store(),
            proxy: self.at(os_config_model::proxy::ENVIRONMENT),
            proved: Proved { record: self.at(PROVED), release: self.at(RELEASE) },
            state: self.at(STATE),
            resolv_conf: self.at(os_config_model::names::RESOLV_CONF),
        };
        let settings = sysctl::lay_down(&config.os, &self.kernel);
        for problem in os_config_model::engine::lay_down(config, &places).into_iter().chain(settings) {
            note(report, problem);
        }
    }

    fn name(&self, config: &Config) -> Result<()> {
        let state = self.at(STATE);
        let wanted = config.hostname.as_deref().map(Hostname::parse).transpose().map_err(anyhow::Error::msg)?;
        let name = hostname::effective(wanted.as_ref(), &state)?;
        files::write_if_changed(&state.join(hostname::FILE), format!("{name}\n").as_bytes(), 0o644)?;
        Ok(())
    }

    /// Leaves in `/run` what the system that starts now has to know of this boot.
    ///
    /// # Errors
    /// When `/run`, which is RAM, takes nothing: nothing could work then.
    pub(super) fn leave(&self, udev_rules: &str, report: &Report) -> Result<()> {
        let write = |path: PathBuf, bytes: &[u8]| {
            files::write_if_changed(&path, bytes, 0o644).with_context(|| format!("cannot write {}", path.display()))
        };
        write(self.at(report::PATH), &serde_json::to_vec_pretty(report)?)?;
        if trial::is_in(&self.at(STATE), report.slot) {
            write(self.at(trial::PATH), b"")?;
        }
        write(self.run.join(UDEV_RULES), udev_rules.as_bytes())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
