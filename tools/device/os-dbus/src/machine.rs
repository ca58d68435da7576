//! The machine as systemd's smaller services have it: its name, time zone, locale and keymap, and who is logged in.

use crate::{Bus, BusError, HostnamedProxy, LocaledProxy, LogindProxy, LogindSessionProxy, TimedatedProxy, Tried};
use std::time::{Duration, UNIX_EPOCH};

impl Bus {
    /// hostnamed, started on demand.
    ///
    /// # Errors
    /// When the proxy cannot be built.
    pub async fn hostnamed(&self) -> Result<HostnamedProxy<'_>, BusError> {
        HostnamedProxy::new(&self.0).await.tried("cannot reach hostnamed")
    }

    /// Users who are logged in from another machine, or typed something on a console not longer ago than that: a
    /// development variant logs in there by itself.
    ///
    /// # Errors
    /// When logind cannot be started or does not answer.
    pub async fn people(&self, typed: Duration) -> Result<Vec<String>, BusError> {
        let logind = LogindProxy::new(&self.0).await.tried("cannot reach logind")?;
        let mut people = Vec::new();
        for (_, _, user, _, path) in logind.list_sessions().await.tried("cannot ask logind who is logged in")? {
            let session = LogindSessionProxy::new(&self.0, path).await.tried("cannot reach a login")?;
            // A login that ends in this moment is none.
            let remote = session.remote().await.unwrap_or(false);
            let since = UNIX_EPOCH + Duration::from_micros(session.idle_since_hint().await.unwrap_or(0));
            if remote || since.elapsed().is_ok_and(|idle| idle < typed) {
                people.push(user);
            }
        }
        Ok(people)
    }

    /// Sets the time zone through timedated.
    ///
    /// # Errors
    /// When timedated refuses it: no such zone, above all.
    pub async fn set_timezone(&self, zone: &str) -> Result<(), BusError> {
        let timedated = TimedatedProxy::new(&self.0).await.tried("cannot reach timedated")?;
        timedated.set_timezone(zone, false).await.tried("timedated refused it")
    }

    /// Sets the locale through localed.
    ///
    /// # Errors
    /// When localed refuses it: the image does not hold it, above all.
    pub async fn set_locale(&self, lang: &str) -> Result<(), BusError> {
        let localed = LocaledProxy::new(&self.0).await.tried("cannot reach localed")?;
        localed.set_locale(&[&format!("LANG={lang}")], false).await.tried("localed refused it")
    }

    /// Sets the keymap of the text console through localed; empty for the kernel's own.
    ///
    /// # Errors
    /// When localed refuses it: the image does not hold it, above all.
    pub async fn set_keymap(&self, keymap: &str) -> Result<(), BusError> {
        let localed = LocaledProxy::new(&self.0).await.tried("cannot reach localed")?;
        localed.set_keymap(keymap, "", false, false).await.tried("localed refused it")
    }
}
