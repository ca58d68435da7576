//! The proxy, from the configuration or from balenaOS's files.

use super::effect::{Applied, Effect, then, write};
use super::{Device, Rows, docker};
use anyhow::anyhow;
use os_config_model::proxy::{ENVIRONMENT, ENVIRONMENT_MODE, environment, of_system};
use os_config_model::types::Proxy;

pub(super) async fn all(device: &Device<'_>, rows: &mut Rows) {
    let files = of_system(device.store);
    let any = files.understood || !files.problems.is_empty();
    let kept = files.keep(device.store);
    let configured = device.config.os.network.proxy.as_ref();
    let result = bring(device, configured.or(files.proxy.as_ref())).await;
    // The result belongs to whom the proxy comes from; config.json goes first.
    let (of_config, of_files) = match configured.is_none() && files.proxy.is_some() {
        true => (Ok(Effect::Unchanged), result),
        false => (result, Ok(Effect::Unchanged)),
    };
    rows.add("/os/network/proxy", of_config);
    let of_files = kept.and(of_files);
    let mut problems = files.problems;
    let of_files = of_files.inspect_err(|err| problems.push(format!("{err:#}")));
    let of_files = if problems.is_empty() { of_files } else { Err(anyhow!("{}", problems.join("; "))) };
    rows.add_as("system-proxy/", any, of_files);
}

async fn bring(device: &Device<'_>, proxy: Option<&Proxy>) -> Applied {
    let text = proxy.map(environment);
    let written = write(ENVIRONMENT, text.as_deref(), ENVIRONMENT_MODE)?;
    then("proxy", written, docker::restart(device)).await
}
