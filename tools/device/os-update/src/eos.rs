//! `/etc/os-update.yml` as EOS's `os-update` reads it, so that an image that comes from there keeps its file:
//!
//! ```yaml
//! update:
//!   server: https://updates.example.com/os
//!   name: stable
//! ```
//!
//! is the channel `https://updates.example.com/os/stable`. EOS reaches its server by ssh with the key `pkey`; a channel is
//! signed files on a web server or in a directory, and needs neither.

use saphyr::{LoadableYamlNode, Yaml};
use thiserror::Error;

/// Where it is.
pub const PATH: &str = "/etc/os-update.yml";

/// Why a file names no channel.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum EosError {
    /// It is none.
    #[error("{PATH} is not valid YAML: {0}")]
    Yaml(String),
    /// A key is not there, or is no text.
    #[error("{PATH} has no text at {0}")]
    Missing(&'static str),
    /// The server of another update system.
    #[error(
        "{PATH} names the server {0}, which is reached by ssh; put the address of a channel there, such as \
         https://updates.example.com/os"
    )]
    Ssh(String),
}

/// The channel that the file names.
///
/// # Errors
/// When it names none.
pub fn channel(text: &str) -> Result<String, EosError> {
    let documents = Yaml::load_from_str(text).map_err(|err| EosError::Yaml(err.to_string()))?;
    let update = documents.first().and_then(|root| root.as_mapping_get("update"));
    let field = |name| update.and_then(|update| update.as_mapping_get(name)).and_then(|value| value.as_str());
    let server = field("server").ok_or(EosError::Missing("update.server"))?.trim_end_matches('/');
    let name = field("name").ok_or(EosError::Missing("update.name"))?;
    match server {
        // A token in the query of the server's address is not part of its path.
        _ if server.contains("://") => match server.split_once('?') {
            Some((path, query)) => Ok(format!("{}/{name}?{query}", path.trim_end_matches('/'))),
            None => Ok(format!("{server}/{name}")),
        },
        _ if server.starts_with('/') => Ok(format!("{server}/{name}")),
        _ => Err(EosError::Ssh(server.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn server_and_name_are_the_channel() {
        let text = "update:\n  pkey: /run/id_fleet\n  server: https://u.example/os/\n  name: stable\n";
        assert_eq!(channel(text).as_deref(), Ok("https://u.example/os/stable"));
        let token = "update: {server: 'https://u.example/os/?t=1', name: a}";
        assert_eq!(channel(token).as_deref(), Ok("https://u.example/os/a?t=1"));
        assert_eq!(channel("update: {server: /media/os, name: a}").as_deref(), Ok("/media/os/a"));
    }

    #[test]
    fn what_it_lacks_is_named() {
        assert_eq!(channel(""), Err(EosError::Missing("update.server")));
        assert_eq!(channel("update: 7"), Err(EosError::Missing("update.server")));
        assert_eq!(channel("update: {server: https://u.example}"), Err(EosError::Missing("update.name")));
        assert_eq!(channel("update: {server: https://u.example, name: [a]}"), Err(EosError::Missing("update.name")));
        assert!(matches!(channel("update: {"), Err(EosError::Yaml(_))));
    }

    #[test]
    fn a_server_of_eos_is_told_apart() {
        let text = "update: {pkey: /run/id_fleet, server: fleet@192.0.2.1, name: stable}";
        assert_eq!(channel(text), Err(EosError::Ssh("fleet@192.0.2.1".to_owned())));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[ -~\n\\-:{}\\[\\]&*]{0,80}") {
            let _ = channel(&text);
        }
    }
}
