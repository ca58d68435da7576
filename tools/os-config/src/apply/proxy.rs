//! The proxy, from the configuration or from balenaOS's files.

use super::effect::{Applied, Effect, then, write};
use super::{Device, Rows, docker};
use crate::proxy::{DIRECTORY, ENVIRONMENT, ENVIRONMENT_MODE, environment, from_files};
use crate::types::Proxy;
use anyhow::anyhow;

pub(super) async fn all(device: &Device<'_>, rows: &mut Rows) {
    let files = from_files(&device.store.boot().join(DIRECTORY));
    let any = !matches!(files, Ok(None));
    let wrong = files.as_ref().err().map(|err| anyhow!("{err:#}"));
    let configured = device.config.os.network.proxy.as_ref();
    let of_files = files.ok().flatten();
    let result = bring(device, configured.or(of_files.as_ref())).await;
    // The result belongs to whom the proxy comes from; config.json goes first.
    let (of_config, of_files) = match (wrong, configured.is_none() && of_files.is_some()) {
        (Some(wrong), _) => (result, Err(wrong)),
        (None, true) => (Ok(Effect::Unchanged), result),
        (None, false) => (result, Ok(Effect::Unchanged)),
    };
    rows.add("/os/network/proxy", of_config);
    rows.add_as("system-proxy/", any, of_files);
}

async fn bring(device: &Device<'_>, proxy: Option<&Proxy>) -> Applied {
    let text = proxy.map(environment);
    let written = write(ENVIRONMENT, text.as_deref(), ENVIRONMENT_MODE)?;
    then("proxy", written, docker::restart(device)).await
}
