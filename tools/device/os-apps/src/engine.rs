//! The connection to the engine.

use bollard::Docker;
use bollard::models::{ContainerInspectResponse, RestartPolicyNameEnum};
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

/// All containers, with everything that the engine knows of them.
///
/// # Errors
/// When the engine does not answer.
pub async fn inspected(docker: &Docker) -> Result<Vec<ContainerInspectResponse>, bollard::errors::Error> {
    use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};
    let listed = docker.list_containers(Some(ListContainersOptionsBuilder::default().all(true).build())).await?;
    let mut out = Vec::new();
    for id in listed.into_iter().filter_map(|container| container.id) {
        match docker.inspect_container(&id, None::<InspectContainerOptions>).await {
            Ok(container) => out.push(container),
            // It was removed in the meantime.
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {}
            Err(err) => return Err(err),
        }
    }
    Ok(out)
}

/// Names of the containers that run and are meant to after a restart: those with the policy `always` or `unless-stopped`. One
/// without may have ended, and one that removes itself may be gone, with nothing wrong.
///
/// # Errors
/// When the engine does not answer.
pub async fn meant_to_run(docker: &Docker) -> Result<Vec<String>, bollard::errors::Error> {
    use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};
    let mut names = Vec::new();
    for listed in docker.list_containers(None::<ListContainersOptions>).await? {
        let Some(id) = listed.id else { continue };
        // One that was removed meanwhile is none.
        let Ok(found) = docker.inspect_container(&id, None::<InspectContainerOptions>).await else { continue };
        let kept = found.host_config.and_then(|host| host.restart_policy?.name).is_some_and(comes_back);
        names.extend(found.name.filter(|_| kept).map(|name| name.trim_start_matches('/').to_owned()));
    }
    Ok(names)
}

/// Whether the engine starts a container again by itself.
fn comes_back(policy: RestartPolicyNameEnum) -> bool {
    matches!(policy, RestartPolicyNameEnum::ALWAYS | RestartPolicyNameEnum::UNLESS_STOPPED)
}
