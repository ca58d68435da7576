//! The connection to the engine.

use bollard::Docker;
use std::time::Duration;

/// Where the engine listens.
pub const SOCKET: &str = "/run/docker.sock";

/// Loading an image on a slow card takes minutes.
const TIMEOUT_SECS: u64 = 600;

/// Connects and agrees on an API version.
///
/// # Errors
/// When the engine does not answer.
pub async fn connect() -> Result<Docker, bollard::errors::Error> {
    Docker::connect_with_unix(SOCKET, TIMEOUT_SECS, bollard::API_DEFAULT_VERSION)?.negotiate_version().await
}

/// The engine's version, if it answers within `limit`. The socket is systemd's: asking a stopped engine starts it, so
/// callers that must not do that look at the unit first.
pub async fn version(limit: Duration) -> Option<String> {
    let ask = async { connect().await.ok()?.version().await.ok()?.version };
    tokio::time::timeout(limit, ask).await.ok().flatten()
}

/// Running and existing containers.
///
/// # Errors
/// When the engine does not answer.
pub async fn containers(docker: &Docker) -> Result<(usize, usize), bollard::errors::Error> {
    use bollard::query_parameters::ListContainersOptionsBuilder;
    let all = docker.list_containers(Some(ListContainersOptionsBuilder::default().all(true).build())).await?;
    let running = docker.list_containers(Some(ListContainersOptionsBuilder::default().build())).await?;
    Ok((running.len(), all.len()))
}

/// Names of the containers that run.
///
/// # Errors
/// When the engine does not answer.
pub async fn running(docker: &bollard::Docker) -> Result<Vec<String>, bollard::errors::Error> {
    let list = docker.list_containers(None::<bollard::query_parameters::ListContainersOptions>).await?;
    let name = |names: Vec<String>| names.into_iter().next().map(|n| n.trim_start_matches('/').to_owned());
    Ok(list.into_iter().filter_map(|c| name(c.names?)).collect())
}
