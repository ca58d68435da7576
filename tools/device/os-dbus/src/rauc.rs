//! RAUC: its slots, and what it does with a bundle.

use crate::systemd::Verb;
use crate::{Bus, BusError, RaucProxy, Tried};
use std::collections::HashMap;
use std::time::Duration;
use zbus::wire::{OwnedVariant, Variant};

/// How often an installation is looked at when RAUC says nothing of its progress.
const PROGRESS: Duration = Duration::from_secs(2);

/// One slot as RAUC sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaucSlot {
    /// RAUC's name, such as `rootfs.0`.
    pub name: String,
    /// Slot class, such as `rootfs`.
    pub class: String,
    /// Name for the bootloader, `A` or `B`; only the slot that is booted directly has one.
    pub bootname: Option<String>,
    /// `booted`, `active` or `inactive`.
    pub state: String,
    /// `good` or `bad`, where the bootloader counts.
    pub boot_status: Option<String>,
    /// Version of the bundle that was installed, where RAUC did it.
    pub version: Option<String>,
    /// Identifier of the installation.
    pub transaction: Option<String>,
    /// SHA-256 of the manifest of the bundle that was installed, hex.
    pub manifest_hash: Option<String>,
    /// `ok`, `failed` or `pending`, where RAUC installed it.
    pub status: Option<String>,
}

/// What a bundle says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleFacts {
    /// Version in its manifest.
    pub version: Option<String>,
    /// SHA-256 of its manifest, hex; `None` when this RAUC does not tell (before 1.9).
    pub manifest_hash: Option<String>,
}

impl Bus {
    /// RAUC, started on demand.
    ///
    /// # Errors
    /// When the proxy cannot be built.
    pub async fn rauc(&self) -> Result<RaucProxy<'_>, BusError> {
        RaucProxy::new(&self.0).await.tried("cannot reach RAUC")
    }

    /// The slots as RAUC sees them.
    ///
    /// # Errors
    /// When RAUC cannot be started or does not answer.
    pub async fn slots(&self) -> Result<Vec<RaucSlot>, BusError> {
        let list = self.rauc().await?.get_slot_status().await.tried("cannot read the slot status from RAUC")?;
        let mut slots: Vec<RaucSlot> = list.into_iter().map(|(name, values)| slot(name, &values)).collect();
        slots.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(slots)
    }

    /// Ends RAUC unless it is at work. It is started on demand and never leaves by itself, and idle memory is for
    /// containers.
    ///
    /// # Errors
    /// When RAUC or systemd does not answer, or the caller may not stop units.
    pub async fn let_rauc_rest(&self) -> Result<(), BusError> {
        if !self.has_owner("de.pengutronix.rauc").await? {
            return Ok(());
        }
        let operation = self.rauc().await?.operation().await.tried("cannot ask RAUC what it does")?;
        if operation == "idle" { self.unit_job(Verb::Stop, "rauc.service").await } else { Ok(()) }
    }

    /// What a bundle says of itself; RAUC checks its signature for it.
    ///
    /// # Errors
    /// What RAUC says against the bundle.
    pub async fn inspect(&self, source: &str) -> Result<BundleFacts, BusError> {
        let facts = self.rauc().await?.inspect_bundle(source, HashMap::new()).await.tried("RAUC refuses the bundle")?;
        let text = |value: Option<&OwnedVariant>| value.and_then(|v| String::try_from(v.clone()).ok());
        let update = facts.get("update").and_then(dictionary);
        Ok(BundleFacts {
            version: text(update.as_ref().and_then(|u| u.get("version"))),
            manifest_hash: text(facts.get("manifest-hash")),
        })
    }

    /// Installs a bundle into the slots that are not booted, and waits until that is over. Nothing is activated.
    /// `progress` is called with RAUC's percent whenever that changes, and every two seconds.
    ///
    /// `hash` is what [`Bus::inspect`] said of the bundle's manifest. RAUC reads the bundle again: from 1.14 on it refuses
    /// another one itself; what earlier ones wrote, [`RaucSlot::manifest_hash`] says.
    ///
    /// # Errors
    /// When RAUC cannot be reached or goes away; what it says against the bundle otherwise, as [`BusError::Refused`].
    pub async fn install(
        &self,
        source: &str,
        transaction: &str,
        hash: &str,
        progress: &dyn Fn(i32),
    ) -> Result<(), BusError> {
        use futures_util::StreamExt;
        let rauc = self.rauc().await?;
        // Subscribed before the call: it may be over before the call returns.
        let mut completed = rauc.receive_completed().await.tried("cannot listen to RAUC")?;
        let mut percent = rauc.receive_progress_changed().await;
        let plain = HashMap::from([("transaction-id", Variant::Str(transaction.into()))]);
        let mut pinned = plain.clone();
        pinned.insert("require-manifest-hash", Variant::Str(hash.into()));
        // One that does not know an argument refuses the call.
        if rauc.install_bundle(source, pinned).await.is_err() {
            rauc.install_bundle(source, plain).await.tried("RAUC does not begin to install")?;
        }
        let mut owner = rauc.inner().receive_owner_changed().await.tried("cannot watch RAUC")?;
        let mut ticks = tokio::time::interval(PROGRESS);
        let mut reached = 0;
        loop {
            tokio::select! {
                _ = ticks.tick() => progress(reached),
                signal = completed.next() => {
                    let result = signal.and_then(|s| s.args().ok().map(|a| a.result));
                    if result == Some(0) {
                        return Ok(());
                    }
                    let why = rauc.last_error().await.unwrap_or_else(|err| err.to_string());
                    return Err(BusError::Refused(why));
                }
                Some(change) = percent.next() => {
                    if let Ok((percent, _, _)) = change.get().await {
                        reached = percent;
                        progress(percent);
                    }
                }
                Some(now) = owner.next() => {
                    if now.is_none() {
                        return Err(BusError::Refused("RAUC went away in the middle; see journalctl -u rauc".to_owned()));
                    }
                }
            }
        }
    }
}

/// A dictionary in a dictionary. RAUC puts a variant into the variant.
fn dictionary(value: &OwnedVariant) -> Option<HashMap<String, OwnedVariant>> {
    let value = match Variant::from(value.clone()) {
        Variant::Variant(inner) => *inner,
        other => other,
    };
    HashMap::try_from(value.try_into_owned().ok()?).ok()
}

fn slot(name: String, values: &HashMap<String, OwnedVariant>) -> RaucSlot {
    let text = |key: &str| values.get(key).and_then(|v| String::try_from(v.clone()).ok());
    RaucSlot {
        class: text("class").unwrap_or_default(),
        bootname: text("bootname"),
        state: text("state").unwrap_or_default(),
        boot_status: text("boot-status"),
        version: text("bundle.version"),
        transaction: text("installed.transaction"),
        manifest_hash: text("bundle.hash"),
        status: text("status"),
        name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rauc_says_of_a_bundle_is_found_in_its_double_wrapping() {
        let inner = HashMap::from([("version", Variant::from("1.2.3"))]);
        for value in [Variant::from(inner.clone()), Variant::Variant(Box::new(Variant::from(inner.clone())))] {
            let found = dictionary(&value.try_into_owned().unwrap()).unwrap();
            let version = found.get("version").and_then(|v| String::try_from(v.clone()).ok());
            assert_eq!(version.as_deref(), Some("1.2.3"));
        }
        assert!(dictionary(&Variant::from("text").try_into_owned().unwrap()).is_none());
    }
}
