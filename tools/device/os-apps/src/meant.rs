//! Containers that are meant to run and do not, as the engine's own state shows it.

use bollard::models::{ContainerInspectResponse, RestartPolicyNameEnum};
use os_config_model::json::tame;

/// So much of what the engine says is shown, in characters.
const SHOWN: usize = 200;

/// The name of a container, as people know it.
pub fn name(container: &ContainerInspectResponse) -> Option<String> {
    Some(container.name.as_ref()?.trim_start_matches('/').to_owned())
}

/// True for one that runs, not for one that is between two tries.
pub fn runs(container: &ContainerInspectResponse) -> bool {
    container.state.as_ref().is_some_and(|state| state.running == Some(true) && state.restarting != Some(true))
}

/// True when the engine should run the container, and its last start failed. It is not tried again by the engine: a restart
/// policy is for containers that end.
pub fn start_failed(container: &ContainerInspectResponse) -> bool {
    let state = container.state.as_ref();
    let is = |flag: Option<bool>| flag.unwrap_or_default();
    let failed = state.and_then(|state| state.error.as_deref()).is_some_and(|error| !error.is_empty());
    let up = state.is_some_and(|state| is(state.running) || is(state.restarting) || is(state.paused));
    policy(container).is_some() && failed && !up
}

/// Why a container that is meant to run does not. None for one that runs, was stopped by a person (the engine starts the others
/// again itself), or may have ended.
pub fn why_not(container: &ContainerInspectResponse) -> Option<String> {
    let (policy, most) = policy(container)?;
    let state = container.state.as_ref()?;
    let code = state.exit_code.unwrap_or_default();
    let count = container.restart_count.unwrap_or_default();
    let memory = if state.oom_killed == Some(true) { ", out of memory" } else { "" };
    if start_failed(container) {
        let error = state.error.as_deref().unwrap_or_default();
        return Some(format!("it cannot be started (exit code {code}): {}", tame(error.trim(), SHOWN)));
    }
    if state.restarting == Some(true) {
        return Some(format!("it ends again and again, {count} times by now (exit code {code}{memory})"));
    }
    if state.running == Some(true) {
        return None;
    }
    if state.dead == Some(true) {
        return Some("it is half removed; docker rm -f takes away the rest".to_owned());
    }
    let given_up = policy == RestartPolicyNameEnum::ON_FAILURE && code != 0 && most > 0 && count >= most;
    given_up.then(|| {
        format!("it ended {count} times and is given up, as its restart policy says (exit code {code}{memory})")
    })
}

/// The policy of a container that is to come back, and how often it may fail.
fn policy(container: &ContainerInspectResponse) -> Option<(RestartPolicyNameEnum, i64)> {
    use RestartPolicyNameEnum::{ALWAYS, ON_FAILURE, UNLESS_STOPPED};
    let policy = container.host_config.as_ref()?.restart_policy.as_ref()?;
    let name = policy.name.filter(|name| matches!(name, ALWAYS | UNLESS_STOPPED | ON_FAILURE))?;
    Some((name, policy.maximum_retry_count.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(json: &str) -> ContainerInspectResponse {
        serde_json::from_str(json).unwrap()
    }

    // What the engine (26.1) says of a container whose device was missing, without the fields that are not looked at.
    const MISSING: &str = r#"{"Id": "0a", "Name": "/zigbee", "RestartCount": 0, "HostConfig": {"RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0}},
        "State": {"Status": "exited", "Running": false, "Paused": false, "Restarting": false, "OOMKilled": false, "Dead": false, "ExitCode": 128,
        "Error": "error gathering device information while adding custom device \"/dev/ttyUSB0\": no such file or directory"}}"#;

    #[test]
    fn a_start_that_failed_is_told_with_the_engines_words() {
        for policy in ["unless-stopped", "always", "on-failure"] {
            let found = container(&MISSING.replace("unless-stopped", policy));
            assert!(start_failed(&found));
            let why = why_not(&found).unwrap();
            assert!(why.contains("exit code 128") && why.contains("/dev/ttyUSB0"), "{why}");
        }
        assert_eq!(name(&container(MISSING)).unwrap(), "zigbee");
        let long = MISSING.replace("error gathering", &"x".repeat(5000)).replace("device \\\"", "\\n");
        assert!(why_not(&container(&long)).unwrap().len() < 400);
    }

    #[test]
    fn what_ended_by_itself_was_stopped_or_runs_is_left_alone() {
        let without_error = |state: &str, policy: &str| {
            container(&format!(
                r#"{{"RestartCount": 5, "HostConfig": {{"RestartPolicy": {policy}}}, "State": {{{state}}}}}"#
            ))
        };
        let always = r#"{"Name": "always"}"#;
        for (state, policy) in [
            (r#""Status": "exited", "ExitCode": 143, "Error": """#, always),
            (r#""Status": "created", "ExitCode": 0"#, always),
            (r#""Status": "running", "Running": true, "ExitCode": 0, "Error": """#, always),
            (r#""Status": "paused", "Running": true, "Paused": true"#, always),
            (r#""Status": "exited", "ExitCode": 1, "Error": "no such device""#, r#"{"Name": "no"}"#),
            (r#""Status": "exited", "ExitCode": 0"#, r#"{"Name": "on-failure", "MaximumRetryCount": 5}"#),
            (r#""Status": "exited", "ExitCode": 143"#, r#"{"Name": "on-failure", "MaximumRetryCount": 0}"#),
        ] {
            let found = without_error(state, policy);
            assert_eq!((start_failed(&found), why_not(&found)), (false, None), "{state} {policy}");
        }
        assert_eq!(why_not(&container("{}")), None);
    }

    #[test]
    fn what_cannot_stay_up_is_told() {
        let loops = r#"{"RestartCount": 37, "HostConfig": {"RestartPolicy": {"Name": "always"}},
            "State": {"Status": "restarting", "Running": true, "Restarting": true, "OOMKilled": true, "ExitCode": 137, "Error": ""}}"#;
        let why = why_not(&container(loops)).unwrap();
        assert!(why.contains("37 times") && why.contains("137, out of memory"), "{why}");
        let given_up = r#"{"RestartCount": 3, "HostConfig": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}},
            "State": {"Status": "exited", "ExitCode": 2, "Error": ""}}"#;
        assert!(why_not(&container(given_up)).unwrap().contains("given up"));
    }
}
