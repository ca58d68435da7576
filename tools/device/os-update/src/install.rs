//! Installs a bundle into the slot that does not run, from a channel or by hand.

use crate::agent::{Agent, Asked};
use crate::course::Attempt;
use crate::machine::Machine;
use crate::outcome::Done;
use crate::state::Target;
use crate::trust;
use crate::version;
use crate::write::Writing;
use anyhow::{Context, Result, ensure};
use os_channel::Release;
use os_dbus::RaucSlot;
use os_sys::log;
use os_transport::address::AddressError;
use os_transport::relay::{Bundle, Relay};
use os_transport::{Address, Source};

/// What a bundle is called that an operator names by its address.
const BUNDLE: &str = "bundle";

const OLD_RAUC: &str = "this RAUC does not say which bundle it was given; updates need RAUC 1.9 or later";

impl Agent {
    /// Installs a release that a channel offers.
    ///
    /// # Errors
    /// When it is not written, or not the one that the channel's list names.
    pub(crate) async fn install(&mut self, asked: Asked, source: &Source, release: &Release) -> Result<()> {
        let target = Target { version: release.version.to_string(), digest: release.bundle.sha256.clone() };
        let version = target.version.clone();
        log::info(&format!("installing {version}"));
        let bundle = Bundle {
            source: source.clone(),
            path: release.bundle.path.clone(),
            size: release.bundle.size,
            limit: self.policy.limit,
        };
        let write = async |machine: &Machine, transaction: &str| {
            let relay = match Relay::start(bundle) {
                Ok(relay) => relay,
                Err(err) => return Attempt::failed(err.into()),
            };
            let written = write_release(machine, &relay, release, transaction, asked).await;
            let passed = relay.passed();
            Attempt { written, trouble: passed.trouble, fetched: Some(passed.fetched) }
        };
        self.course.install(target, write).await.with_context(|| format!("{version} was not installed"))
    }

    /// Installs a bundle that an operator names, whatever channels say of it: RAUC believes it for its signature, and the
    /// trial decides as always.
    ///
    /// # Errors
    /// When RAUC refuses the bundle or does not write it.
    pub async fn install_by_hand(&mut self, bundle: &str, told: &dyn Fn(&str)) -> Result<Done> {
        self.notice().await?;
        self.not_on_trial()?;
        let relay = self.relay_of(bundle)?;
        let source = relay.as_ref().map_or_else(|| bundle.to_owned(), Relay::address);
        self.course.device.prepare_streaming().await;
        let trouble = || relay.as_ref().and_then(|relay| relay.passed().trouble);
        let facts = self.bus().await?.inspect(&source).await.map_err(|err| {
            let err = trust::with_doubt(err.into());
            trouble().into_iter().fold(err, anyhow::Error::context)
        })?;
        let version = facts.version.context("the bundle names no version")?;
        // No channel could go on from another one.
        version::strict(&version).map_err(anyhow::Error::msg).context("nothing was installed")?;
        let hash = facts.manifest_hash.context(OLD_RAUC)?;
        let target = Target { version: version.clone(), digest: hash.clone() };
        log::info(&format!("installing {version}, as an operator asks"));
        let write = async |machine: &Machine, transaction: &str| {
            let (asked, relay) = (Asked::Person, relay.as_ref());
            let writing = Writing { source: &source, version: &version, hash: &hash, transaction, asked, relay };
            Attempt { written: machine.write(&writing).await, trouble: trouble(), fetched: None }
        };
        self.course.install(target, write).await.with_context(|| format!("{version} was not installed"))?;
        self.restart_into(&version, told).await
    }

    /// What brings a bundle from an address; none for a file. RAUC itself knows no proxy, and says addresses with all that is
    /// secret of them.
    fn relay_of(&self, bundle: &str) -> Result<Option<Relay>> {
        let address = match Address::parse(bundle) {
            Err(AddressError::Scheme) => return Ok(None),
            other => other.context("the address of the bundle cannot work")?,
        };
        let (path, source) = (address.name().to_owned(), Source::File(address));
        let size = source
            .size(BUNDLE)
            .map_err(|err| trust::with_doubt(err.into()).context(format!("{path} cannot be read")))?;
        let bundle = Bundle { source, path: BUNDLE.to_owned(), size, limit: self.policy.limit };
        Ok(Some(Relay::start(bundle)?))
    }
}

/// Has RAUC write a release that comes through a relay, once it is the one that the channel's list names.
async fn write_release(
    machine: &Machine,
    relay: &Relay,
    release: &Release,
    transaction: &str,
    asked: Asked,
) -> Result<Vec<RaucSlot>> {
    machine.prepare_streaming().await;
    let address = relay.address();
    let facts = machine.bus().await?.inspect(&address).await.map_err(|err| trust::with_doubt(err.into()))?;
    // With it the signed list says which bundle this is; RAUC's own signature alone would let an old one through.
    let wanted = &release.bundle.manifest_hash;
    let found = facts.manifest_hash.context(OLD_RAUC)?;
    ensure!(&found == wanted, "the channel served another bundle than the one its list names");
    // Whoever can sign lists only cannot pass an old bundle off as a new release.
    let version = release.version.to_string();
    let inside = facts.version.context("the bundle names no version")?;
    ensure!(inside == version, "the list calls the bundle {version}, the bundle itself {inside}");
    let relay = Some(relay);
    machine.write(&Writing { source: &address, version: &version, hash: wanted, transaction, asked, relay }).await
}
