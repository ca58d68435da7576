//! The course of an update on a device: what happens goes through [`step`], and what follows is done and written down.

use crate::hand;
use crate::machine::{Device, Mark};
use crate::state::{Phase, State, Target, Verdict};
use crate::step::{Action, Event, Step, step};
use crate::write::Stopped;
use anyhow::{Context, Result};
use os_dbus::RaucSlot;
use os_disk::gpt::Guid;
use os_facts::Slot;
use os_facts::clock::now;
use os_sys::log;

/// Where an update stands, and the device that it is on.
#[derive(Debug)]
pub(crate) struct Course<D> {
    pub(crate) device: D,
    pub(crate) state: State,
}

/// What an attempt to write a release came to.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// What RAUC says of the slots afterwards, or why it is not written.
    pub(crate) written: Result<Vec<RaucSlot>>,
    /// What was in the way of whatever the bundle came through.
    pub(crate) trouble: Option<String>,
    /// Bytes that came from a channel; none where an operator named a bundle, which is not tried again.
    pub(crate) fetched: Option<u64>,
}

impl Attempt {
    /// One of which nothing came.
    pub(crate) fn failed(why: anyhow::Error) -> Self {
        Self { written: Err(why), trouble: None, fetched: Some(0) }
    }
}

impl<D: Device> Course<D> {
    /// Something happened. Of what follows everything is done that can be; the first thing that cannot is the error.
    ///
    /// # Errors
    /// When the state cannot be written, or something that follows cannot be done.
    pub(crate) async fn happened(&mut self, event: Event) -> Result<()> {
        let healthy = matches!(event, Event::Healthy(_));
        let next = step(&self.state.phase, event);
        for action in &next.first {
            match (self.act(action, &next).await, action) {
                // The other slot runs already, whatever the bootloader knows of this one.
                (Err(err), Action::MarkBad(_)) => log::warn(&format!("{err:#}")),
                (done, _) => done?,
            }
        }
        let then = next.then.clone();
        let written = self.advance(&next);
        if written.is_err() && !leads_back(&next) && !healthy {
            return written;
        }
        // A boot that does what it should is kept, whatever the state partition is like: that is no fault of the release.
        let mut done = if healthy { written.or_else(|err| self.in_ram(&err)) } else { written };
        for action in &then {
            let acted = self.act(action, &next).await;
            if let Err(err) = &acted {
                log::error(&format!("{err:#}"));
            }
            done = done.and(acted);
        }
        done
    }

    /// What has been done is known until the next start, although it could not be written down.
    fn in_ram(&self, why: &anyhow::Error) -> Result<()> {
        log::error(&format!("{why:#}; what is known of updates is in RAM until the next start"));
        self.device.keep_in_ram(&self.state)
    }

    /// Installs a release: `write` has it written into the slot that does not run, under the identifier that it is given.
    /// What an attempt came to is written down, whatever it is; a channel's release is tried again later and later.
    ///
    /// # Errors
    /// When the state cannot be written, in which case nothing was begun, or the release is not written.
    pub(crate) async fn install(&mut self, target: Target, write: impl AsyncFnOnce(&D, &str) -> Attempt) -> Result<()> {
        let transaction = Guid::random()?.to_string();
        self.state.began = Some(transaction.clone());
        self.note(Event::Found(target.clone(), transaction.clone()))?;
        let Attempt { written, trouble, fetched } = write(&self.device, &transaction).await;
        let event = match &written {
            Ok(slots) => {
                hand::wrote(&mut self.state, slots, self.device.booted()?.other(), &target);
                if fetched.is_some() {
                    self.state.waiting = None;
                }
                Event::Written
            }
            Err(err) => {
                // It is no fault of the release, nor of the channel, when somebody stops it.
                if fetched.is_some() && err.downcast_ref::<Stopped>().is_none() {
                    self.state.wait_for(now(), &target.digest);
                }
                let trouble = trouble.map(|t| format!(" ({t})")).unwrap_or_default();
                Event::NotWritten(format!("{err:#}{trouble}"))
            }
        };
        if let Some(fetched) = fetched {
            self.state.note(now(), format!("{} MiB came from the channel", fetched >> 20));
        }
        self.note(event)?;
        written.map(drop)
    }

    /// Writes what follows of an event of which nothing is to be done here.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub(crate) fn note(&mut self, event: Event) -> Result<()> {
        let next = step(&self.state.phase, event);
        self.advance(&next)
    }

    fn advance(&mut self, next: &Step) -> Result<()> {
        let at = now();
        if let (Phase::Trial { target, .. }, true) = (&self.state.phase, next.first.contains(&Action::MarkGood)) {
            self.state.running = Some(target.clone());
            self.state.before = None;
        }
        if let Some((target, verdict)) = next.refuse.clone() {
            log::warn(&format!("{} does not stay: {}", target.version, verdict.reason));
            self.state.before = None;
            self.state.refuse(at, target, verdict);
        }
        if let Some(note) = next.note.clone() {
            self.state.note(at, note);
        }
        self.state.phase = next.phase.clone();
        self.device.save(&self.state)
    }

    async fn act(&self, action: &Action, next: &Step) -> Result<()> {
        match action {
            Action::Activate(slot) => self.mark(Mark::Active, *slot).await,
            Action::MarkBad(slot) => self.mark(Mark::Bad, *slot).await,
            // A release that RAUC does not work in could never be left for another one: it is not kept.
            Action::MarkGood if next.first.contains(action) => {
                self.device.mark(Mark::Good, self.device.booted()?).await
            }
            Action::MarkGood => self.mark(Mark::Good, self.device.booted()?).await,
            Action::Reboot => self.device.restart().await.context("the device cannot be restarted"),
            Action::Jump => self.device.jump().await,
        }
    }

    /// Through RAUC, and without it where it does not.
    async fn mark(&self, mark: Mark, slot: Slot) -> Result<()> {
        let Err(err) = self.device.mark(mark, slot).await else { return Ok(()) };
        log::warn(&format!("{err:#}; the bootloader is told without RAUC"));
        let told = self.device.mark_directly(mark, slot);
        told.with_context(|| format!("slot {slot} cannot be marked {}", mark.word()))
    }

    /// Starts what is installed, in this slot, for a trial; also where an earlier start did not get so far as to restart.
    ///
    /// # Errors
    /// As [`Course::happened`].
    pub(crate) async fn start(&mut self, slot: Slot, jump: bool) -> Result<()> {
        match &self.state.phase {
            Phase::Trial { armed: true, jump: false, verdict: None, .. } => return self.happened(Event::Armed).await,
            Phase::Trial { .. } => self.booted().await?,
            _ => {}
        }
        self.happened(Event::Start { slot, jump }).await?;
        self.happened(Event::Armed).await
    }

    /// A trial was to begin with a restart, which has not come.
    ///
    /// # Errors
    /// When nothing says which slot runs.
    pub(crate) fn waits_for_restart(&self) -> Result<bool> {
        let here = self.device.booted()?;
        Ok(matches!(&self.state.phase, Phase::Trial { slot, .. } if *slot != here))
    }

    /// Called in every boot before its health is known.
    ///
    /// # Errors
    /// As [`Course::happened`].
    pub(crate) async fn booted(&mut self) -> Result<()> {
        let here = self.device.booted()?;
        let fate = match &self.state.phase {
            Phase::Trial { slot, .. } if *slot != here => self.device.fate(*slot),
            _ => None,
        };
        self.happened(Event::Booted(here, fate)).await
    }

    /// This boot does what it should.
    ///
    /// # Errors
    /// As [`Course::happened`]. A trial that RAUC does not end goes on. That nothing can be written down is no error here.
    pub(crate) async fn healthy(&mut self) -> Result<()> {
        let here = self.device.booted()?;
        if let Err(err) = self.booted().await {
            log::error(&format!("{err:#}"));
        }
        if !matches!(self.state.phase, Phase::Trial { .. } | Phase::Installed { jumped: true, .. }) {
            self.state.before = None;
        }
        let jumped = matches!(self.state.phase, Phase::Trial { jump: true, verdict: None, .. });
        self.happened(Event::Healthy(here)).await?;
        // The bootloader was told just now, and the slot is still to be marked.
        if jumped { self.happened(Event::Healthy(here)).await } else { Ok(()) }
    }

    /// This boot does not do what it should, or an operator does not want it. In a trial the other slot is started again.
    ///
    /// # Errors
    /// As [`Course::happened`].
    pub(crate) async fn unhealthy(&mut self, verdict: Verdict) -> Result<()> {
        if let Err(err) = self.booted().await {
            log::error(&format!("{err:#}"));
        }
        self.happened(Event::Unhealthy(self.device.booted()?, verdict)).await
    }
}

/// What ends a trial is done even when it cannot be written down: the boot that comes then finds the trial that failed.
fn leads_back(next: &Step) -> bool {
    matches!(next.phase, Phase::Trial { verdict: Some(_), .. }) && next.then.contains(&Action::Reboot)
}

#[cfg(test)]
mod tests;
