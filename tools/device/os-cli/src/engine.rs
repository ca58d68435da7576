//! The engine and its containers, for `os status`.

use os_apps::{engine, meant, volatile};
use serde::Serialize;
use std::time::Duration;

/// How long the engine may take to answer.
const ANSWERS: Duration = Duration::from_secs(10);
/// A container gets no line of its own beyond so many.
const NAMED: usize = 10;

/// What the engine says.
#[derive(Debug, Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Engine {
    /// `running`, `starting`, `silent`, or `off` where data cannot be used.
    pub(crate) state: &'static str,
    pub(crate) version: Option<String>,
    pub(crate) running: usize,
    pub(crate) containers: usize,
    /// Containers that are meant to run and do not.
    pub(crate) not_running: Vec<NotRunning>,
    /// Directories of the host that containers write to and that are gone after a restart.
    pub(crate) in_memory: Vec<InMemory>,
}

/// A container that is meant to run and does not.
#[derive(Debug, Serialize)]
pub(crate) struct NotRunning {
    pub(crate) container: String,
    pub(crate) reason: String,
}

/// A directory of the host that is in RAM.
#[derive(Debug, Serialize)]
pub(crate) struct InMemory {
    pub(crate) container: String,
    pub(crate) path: String,
}

impl Engine {
    /// Asks an engine that is up; returns what is wrong.
    pub(crate) async fn ask(&mut self) -> Vec<String> {
        self.version = engine::version(ANSWERS).await;
        if self.version.is_none() {
            self.state = "silent";
            return vec!["the container engine does not answer; see journalctl -u docker".to_owned()];
        }
        self.state = "running";
        let asked = async { engine::inspected(&engine::connect().await?).await };
        let containers = match tokio::time::timeout(ANSWERS, asked).await {
            Ok(Ok(containers)) => containers,
            Ok(Err(err)) => return vec![format!("the container engine does not tell its containers: {err}")],
            Err(_) => return vec!["the container engine takes long to tell its containers".to_owned()],
        };
        self.containers = containers.len();
        let runs = |c: &&_| meant::runs(c);
        self.running = containers.iter().filter(runs).count();
        self.not_running = containers
            .iter()
            .filter_map(|c| Some(NotRunning { container: meant::name(c)?, reason: meant::why_not(c)? }))
            .collect();
        let lost = volatile::lost_here(&containers).into_iter();
        self.in_memory = lost.map(|(container, path)| InMemory { container, path }).collect();
        self.wrong()
    }

    /// What is wrong, for people.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let stopped = self.not_running.iter().map(|NotRunning { container, reason }| {
            format!("container {container} is meant to run and does not: {reason}")
        });
        let lost = self.in_memory.iter().map(|InMemory { container, path }| {
            format!(
                "container {container} writes to {path}, which is in RAM and gone after a restart; a volume, or a directory \
                 below /mnt/data/apps, stays"
            )
        });
        let more = |rest: usize| (rest > 0).then(|| format!("and {rest} more of the kind; --json has all"));
        let over = |all: usize| more(all.saturating_sub(NAMED));
        let (all_stopped, all_lost) = (self.not_running.len(), self.in_memory.len());
        stopped.take(NAMED).chain(over(all_stopped)).chain(lost.take(NAMED)).chain(over(all_lost)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_names_and_does_not_fill_the_screen() {
        let stopped = |n: usize| NotRunning { container: format!("c{n}"), reason: "exit code 1".to_owned() };
        let lost = InMemory { container: "grafana".to_owned(), path: "/var/lib/grafana".to_owned() };
        let engine = Engine { not_running: (0..12).map(stopped).collect(), in_memory: vec![lost], ..Engine::default() };
        let said = engine.wrong();
        assert_eq!(said.len(), 12, "{said:?}");
        assert!(said[0].contains("container c0 ") && said[0].contains("exit code 1"));
        assert!(said[10].contains("2 more"));
        assert!(said[11].contains("grafana") && said[11].contains("/var/lib/grafana"));
        assert!(Engine::default().wrong().is_empty());
    }
}
