//! systemd: units and their jobs.

use crate::{Bus, BusError, SystemdManagerProxy, Tried};

/// What to do with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Start it.
    Start,
    /// Stop it.
    Stop,
    /// Restart it, or start it.
    Restart,
    /// Restart it if it runs.
    TryRestart,
    /// Have it read its configuration again if it runs.
    Reload,
}

impl Bus {
    /// systemd's manager.
    ///
    /// # Errors
    /// When the proxy cannot be built.
    pub async fn systemd(&self) -> Result<SystemdManagerProxy<'_>, BusError> {
        SystemdManagerProxy::new(&self.0).await.tried("cannot reach systemd")
    }

    /// True when the unit that goes by a name, its own or another, is active.
    ///
    /// # Errors
    /// When systemd does not answer.
    pub async fn is_active(&self, name: &str) -> Result<bool, BusError> {
        let units = self.systemd().await?.list_units_by_names(&[name]).await.tried("cannot ask for a unit")?;
        Ok(units.iter().any(|unit| unit.3 == "active"))
    }

    /// Starts, stops or restarts a unit and waits until its job is done.
    ///
    /// # Errors
    /// When systemd refuses or the job fails.
    pub async fn unit_job(&self, verb: Verb, unit: &str) -> Result<(), BusError> {
        use futures_util::StreamExt;
        let systemd = self.systemd().await?;
        // The second time in one process systemd answers that it knows us; without its signals the wait below would show it.
        let _ = systemd.subscribe().await;
        // Subscribed before the call: a job may be over before the call returns.
        let mut removed = systemd.receive_job_removed().await.tried("cannot listen to systemd")?;
        let job = self.job(verb, unit).await?;
        while let Some(signal) = removed.next().await {
            let args = signal.args().tried("systemd sent a signal that cannot be read")?;
            if args.job.as_str() == job.as_str() {
                return match args.result {
                    "done" | "skipped" => Ok(()),
                    other => Err(BusError::Job { unit: unit.to_owned(), result: other.to_owned() }),
                };
            }
        }
        Err(BusError::Job { unit: unit.to_owned(), result: "systemd went away".to_owned() })
    }

    /// Has the main process of a unit read its files again (SIGHUP). No job: nothing has to be waited for in between.
    ///
    /// # Errors
    /// When systemd refuses.
    pub async fn hang_up(&self, unit: &str) -> Result<(), BusError> {
        const SIGHUP: i32 = 1;
        self.systemd().await?.kill_unit(unit, "main", SIGHUP).await.tried("systemd refused to signal a unit")
    }

    /// Begins to leave the system for a target such as `reboot.target`, as `systemctl reboot` does: no job that comes later
    /// takes it back.
    ///
    /// # Errors
    /// When systemd refuses.
    pub async fn leave(&self, target: &str) -> Result<(), BusError> {
        let job = self.systemd().await?.start_unit(target, "replace-irreversibly").await;
        job.map(drop).tried("systemd refused to leave the system")
    }

    async fn job(&self, verb: Verb, unit: &str) -> Result<zbus::wire::OwnedObjectPath, BusError> {
        let systemd = self.systemd().await?;
        // Somebody asked for it: how often that was lately is no reason to refuse (StartLimitBurst=). A unit that is not loaded
        // has nothing to reset.
        if verb != Verb::Stop {
            let _ = systemd.reset_failed_unit(unit).await;
        }
        match verb {
            Verb::Start => systemd.start_unit(unit, "replace").await,
            Verb::Stop => systemd.stop_unit(unit, "replace").await,
            Verb::Restart => systemd.restart_unit(unit, "replace").await,
            Verb::TryRestart => systemd.try_restart_unit(unit, "replace").await,
            Verb::Reload => systemd.reload_or_try_restart_unit(unit, "replace").await,
        }
        .tried("systemd refused the job")
    }

    /// Queues a job without waiting: for units that are ordered after the caller, where waiting would never end.
    ///
    /// # Errors
    /// When systemd refuses.
    pub async fn queue(&self, verb: Verb, unit: &str) -> Result<(), BusError> {
        self.job(verb, unit).await.map(drop)
    }
}
