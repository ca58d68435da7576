//! What an operator does to the slots, through this program or past it.

use crate::agent::Agent;
use crate::hand;
use crate::machine::{Device, Mark};
use crate::state::{Phase, Verdict};
use crate::step::Event;
use anyhow::{Context, Result, bail, ensure};
use os_facts::Slot;
use os_facts::clock::now;
use os_sys::log;

impl Agent {
    /// Takes over what RAUC says of the slots, and remembers what an operator did there by hand.
    ///
    /// # Errors
    /// When RAUC does not answer, or nothing says which slot runs.
    pub(crate) async fn notice(&mut self) -> Result<()> {
        let slots = self.bus().await?.slots().await?;
        let here = self.course.device.booted()?;
        let fate = self.course.device.fate(here.other());
        let state = &mut self.course.state;
        let before = state.clone();
        for said in hand::notice(state, &slots, here, fate) {
            log::warn(&said);
            state.note(now(), said);
        }
        if *state != before
            && let Err(err) = self.course.device.store.save(&self.course.state)
        {
            // It is noticed again.
            log::warn(&format!("{err}"));
        }
        Ok(())
    }

    /// Goes back to the other slot, because a person says so.
    ///
    /// # Errors
    /// When there is nothing to go back to.
    pub async fn go_back(&mut self) -> Result<()> {
        let booted = self.course.device.booted()?;
        if matches!(self.course.state.phase, Phase::Trial { .. }) {
            return self.unhealthy(Verdict::by_operator()).await;
        }
        self.notice().await?;
        let Phase::Idle = self.course.state.phase else {
            bail!("the other slot holds a release that was not started yet; there is nothing to go back to");
        };
        let slots = self.bus().await?.slots().await?;
        let back = booted.other();
        let there =
            slots.iter().find(|s| s.bootname.as_deref() == Some(back.name())).context("RAUC knows no other slot")?;
        ensure!(there.boot_status.as_deref() == Some("good"), "slot {back} holds nothing that may be started");
        if let Some(target) = self.course.state.running.take() {
            self.course.state.refuse(now(), target, Verdict::by_operator());
        }
        self.course.happened(Event::GoBack(back)).await
    }

    /// Marks a slot because a person says so; nothing restarts.
    ///
    /// # Errors
    /// When a release is on trial, or the bootloader would be left without a slot to start.
    pub async fn mark_by_hand(&mut self, state: Mark, slot: Option<Slot>) -> Result<Slot> {
        self.notice().await?;
        self.not_on_trial()?;
        let slot = slot.map_or_else(|| self.course.device.booted(), Ok)?;
        let slots = self.bus().await?.slots().await?;
        let good = |slot: Slot| {
            slots.iter().any(|s| s.bootname.as_deref() == Some(slot.name()) && s.boot_status.as_deref() == Some("good"))
        };
        match state {
            Mark::Bad => {
                ensure!(good(slot.other()), "slot {} is not good either; nothing could be started", slot.other())
            }
            Mark::Active => ensure!(good(slot), "slot {slot} holds nothing that may be started"),
            Mark::Good => {}
        }
        self.course.device.mark(state, slot).await?;
        self.remember(&format!("an operator marked slot {slot} {}", state.word()))?;
        Ok(slot)
    }

    /// Has the slot that does not run be started from the next boot on, because a person says so. Unlike
    /// [`Agent::go_back`] it says nothing against the release that runs.
    ///
    /// # Errors
    /// As [`Agent::mark_by_hand`].
    pub async fn switch(&mut self) -> Result<Slot> {
        self.mark_by_hand(Mark::Active, Some(self.course.device.booted()?.other())).await
    }
}
