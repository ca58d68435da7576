//! Containers that could not be started when the engine came up.
//!
//! The engine starts before the drivers of most devices are loaded and before there is a network. It tries a container with
//! a restart policy once; where that fails (a serial adapter in `--device` that is not there yet, an address to publish a
//! port on, the parent interface of a macvlan network) it says why in the container's state and never tries again: the
//! policy is for containers that end. So they are tried again for a while here.

use crate::engine;
use anyhow::{Context, Result};
use bollard::Docker;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};
use os_sys::log;
use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

/// Pauses before each look, in seconds: three minutes in all. A modem on USB takes up to one until it shows.
const PAUSES: &[u64] = &[0, 2, 3, 5, 5, 10, 10, 15, 20, 20, 30, 30, 30];

/// Tries until none is left, or the time is over.
///
/// # Errors
/// When the engine cannot be asked.
pub async fn run() -> Result<ExitCode> {
    let docker = engine::connect().await.context("cannot reach the container engine")?;
    let mut failing = Vec::new();
    for pause in PAUSES {
        tokio::time::sleep(Duration::from_secs(*pause)).await;
        failing.clear();
        for missed in missed(&docker).await.context("cannot ask the engine for its containers")? {
            match docker.start_container(&missed, None).await {
                Ok(()) => log::info(&format!("container {missed} is started; what it needs came after the engine")),
                Err(err) => failing.push(format!("container {missed} cannot be started: {err}")),
            }
        }
        if failing.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
    }
    // The owner's to mend; a container that cannot run is no failed unit of the system.
    for line in failing {
        log::warn(&line);
    }
    Ok(ExitCode::SUCCESS)
}

/// Names of the containers that should run and could not be started.
async fn missed(docker: &Docker) -> Result<Vec<String>, bollard::errors::Error> {
    let ended = HashMap::from([("status", vec!["exited", "created"])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&ended).build();
    let mut out = Vec::new();
    for id in docker.list_containers(Some(options)).await?.into_iter().filter_map(|container| container.id) {
        match docker.inspect_container(&id, None::<InspectContainerOptions>).await {
            Ok(container) => out.extend(is_missed(&container).then(|| name(&container).unwrap_or(id))),
            // It was removed in the meantime.
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {}
            Err(err) => return Err(err),
        }
    }
    Ok(out)
}

fn name(container: &ContainerInspectResponse) -> Option<String> {
    Some(container.name.as_ref()?.trim_start_matches('/').to_owned())
}

/// True when the policy wants the container to run, and its last start failed.
fn is_missed(container: &ContainerInspectResponse) -> bool {
    let policy = container.host_config.as_ref().and_then(|host| host.restart_policy.as_ref()?.name);
    let wanted = policy.is_some_and(engine::comes_back);
    let state = container.state.as_ref();
    let failed = state.and_then(|state| state.error.as_deref()).is_some_and(|error| !error.is_empty());
    wanted && failed && !state.and_then(|state| state.running).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(json: &str) -> ContainerInspectResponse {
        serde_json::from_str(json).unwrap()
    }

    // What the engine (26.1) says of a container whose device was missing, without the fields that are not looked at.
    const MISSING: &str = r#"{"Id": "0a", "Name": "/zigbee", "HostConfig": {"RestartPolicy": {"Name": "unless-stopped"}},
        "State": {"Status": "exited", "Running": false, "ExitCode": 128,
        "Error": "error gathering device information while adding custom device \"/dev/ttyUSB0\": no such file or directory"}}"#;

    #[test]
    fn a_start_that_failed_is_tried_again() {
        assert!(is_missed(&container(MISSING)));
        assert_eq!(name(&container(MISSING)).unwrap(), "zigbee");
    }

    #[test]
    fn what_ended_by_itself_or_was_stopped_is_left_alone() {
        let stopped =
            r#"{"HostConfig": {"RestartPolicy": {"Name": "always"}}, "State": {"Status": "exited", "Error": ""}}"#;
        let without_policy = MISSING.replace("unless-stopped", "no");
        let running = MISSING.replace("\"Running\": false", "\"Running\": true");
        for text in [stopped, &without_policy, &running, "{}"] {
            assert!(!is_missed(&container(text)), "{text}");
        }
    }

    #[test]
    fn three_minutes_are_enough() {
        assert_eq!(PAUSES.iter().sum::<u64>(), 180);
    }
}
