//! What `--json` prints is what docs/json.md shows: the examples there are compared with what these values become.

use super::*;
use crate::config::change::Change;
use crate::config::validate::{Validation, WithoutEffect};
use crate::config::versions::Accepted;
use os_config::import::{Item, Report as Import};
use os_config::status::{Outcome, Row, Status as ConfigStatus};
use os_config_model::decide::Source;
use os_config_model::edit::Difference;
use os_config_model::model::Problem;
use os_facts::protection::{Encryption, Protection};
use os_update::outcome::{Done, Found, Outcome as Became};
use os_update::standing::{Log, Standing};
use os_update::state::{Event, Refused, Target, Verdict};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const DOCUMENT: &str = include_str!("../../../../docs/json.md");

/// The examples of the document: what stands in back quotes in a heading, and the JSON below it.
fn examples() -> BTreeMap<&'static str, &'static str> {
    let block = |section: &'static str| {
        let name = section.lines().next()?.trim_matches('`');
        let block = section.split_once("```json\n")?.1.split_once("\n```")?.0;
        Some((name, block))
    };
    DOCUMENT.split("\n### ").skip(1).filter_map(block).collect()
}

fn target() -> Target {
    Target { version: "0.3.0".to_owned(), digest: "9f86d081".to_owned() }
}

fn standing() -> Standing {
    let older = Target { version: "0.2.5".to_owned(), digest: "ba7816bf".to_owned() };
    let refused = Refused { target: older, verdict: Verdict::failed("no engine"), at: 1_764_237_900 };
    Standing {
        phase: "trial",
        running: Some(Target { version: "0.2.0".to_owned(), digest: "2c26b46b".to_owned() }),
        release: Some(target()),
        by_hand: false,
        slot: Some(os_facts::Slot::B),
        progress: None,
        paused: false,
        last: "0.3.0 is on trial in slot B".to_owned(),
        checked_at: Some(1_764_237_600),
        retry_at: None,
        refused: vec![refused],
        unsaved: false,
        policy: os_update::policy::Shown::default(),
    }
}

fn row(key: &str, outcome: Outcome) -> Row {
    let reason = (outcome == Outcome::Failed).then(|| "timedated refused it".to_owned());
    Row { key: key.to_owned(), set: true, outcome, reason }
}

fn problem() -> Problem {
    Problem { pointer: "/hostname".to_owned(), message: "is 7; expected a host name".to_owned() }
}

fn warning() -> Problem {
    let message = "is a text; taken as true, which is written without quotes";
    Problem { pointer: "/persistentLogging".to_owned(), message: message.to_owned() }
}

fn answers() -> Vec<(&'static str, Value)> {
    let text = |value: &str| value.to_owned();
    vec![
        ("os status", serde_json::to_value(status::tests::example(standing())).unwrap()),
        ("os selftest", serde_json::to_value(selftest::tests::example()).unwrap()),
        (
            "os config status",
            serde_json::to_value(ConfigStatus {
                version: 1,
                source: Source::File,
                problems: vec![problem()],
                unknown: vec![text("/vendor")],
                without_effect: vec![],
                warnings: vec![warning().to_string()],
                notes: vec![],
                keys: vec![row("/hostname", Outcome::Applied), row("/os/time/zone", Outcome::Failed)],
            })
            .unwrap(),
        ),
        ("os config get os.time.zone", json!({ "key": "os.time.zone", "set": true, "value": "Europe/Berlin" })),
        (
            "os config set hostname till-3",
            serde_json::to_value(Change {
                taken: true,
                keys: vec![row("/hostname", Outcome::Applied)],
                problems: vec![],
                unknown: vec![],
                warnings: vec![],
            })
            .unwrap(),
        ),
        (
            "os config validate FILE",
            serde_json::to_value(Validation {
                good: false,
                problems: vec![problem()],
                unknown: vec![text("/vendor")],
                without_effect: vec![WithoutEffect { key: text("/apiKey"), reason: "there is no cloud here" }],
                warnings: vec![warning()],
            })
            .unwrap(),
        ),
        (
            "os config diff",
            json!({ "differences": [Difference { key: text("/os/time/zone"), before: None, after: Some(json!("UTC")) }] }),
        ),
        (
            "os config history",
            json!({ "versions": [Accepted { number: 2, at: Some(1_764_237_600), changed: vec![text("hostname")] }] }),
        ),
        ("os config seal", json!({ "sealed": 2 })),
        (
            "os config import DIRECTORY",
            serde_json::to_value(Import {
                version: 1,
                hostname: text("till-3"),
                release: text("0.1.0"),
                taken: true,
                changed: vec![text("hostname")],
                files: vec![Item { file: text("config.json"), result: text("understood") }],
                problems: vec![],
                complaints: vec![],
                warnings: vec![],
            })
            .unwrap(),
        ),
        (
            "os update check",
            serde_json::to_value(Found {
                running: text("0.2.0"),
                offered: Some(text("0.3.0")),
                text: text("0.3.0 is there (96 MiB); 0.2.0 runs"),
            })
            .unwrap(),
        ),
        (
            "os update apply",
            serde_json::to_value(Done { outcome: Became::Restarting, text: text("restarting into 0.3.0") }).unwrap(),
        ),
        ("os update pause", json!({ "paused": true })),
        ("os update status", serde_json::to_value(standing()).unwrap()),
        (
            "os update log",
            serde_json::to_value(Log {
                history: vec![Event { at: 1_764_237_600, text: text("0.3.0 is on trial in slot B") }],
                failed_boot: None,
            })
            .unwrap(),
        ),
        ("os slot status", json!({ "slots": slot::tests::example() })),
        ("os slot switch", json!({ "slot": "B", "state": "active" })),
        (
            "os disk encryption",
            serde_json::to_value(Encryption { wanted: Some(text("tpm2")), found: Protection::Tpm2, problem: None })
                .unwrap(),
        ),
        ("os disk recovery-key", json!({ "recoveryKey": "01234567-89abcdef-01234567-89abcdef" })),
        ("os wipe apps", json!({ "what": "apps", "request": "/mnt/boot/wipe" })),
        ("Errors", json!({ "error": { "text": "no channel is set" } })),
    ]
}

#[test]
fn every_answer_is_as_the_document_shows_it() {
    let examples = examples();
    let answers = answers();
    let wrong: Vec<String> = answers
        .iter()
        .filter_map(|(name, answer)| {
            let text = out::json_text(answer);
            let shown = examples.get(name).copied().unwrap_or_default();
            (shown != text).then(|| format!("### `{name}`\n\n```json\n{text}\n```\n"))
        })
        .collect();
    assert!(wrong.is_empty(), "docs/json.md is to say:\n\n{}", wrong.join("\n"));
    let named: Vec<&str> = answers.iter().map(|(name, _)| *name).collect();
    let more: Vec<_> = examples.keys().filter(|name| !named.contains(name)).collect();
    assert!(more.is_empty(), "docs/json.md has examples that nothing here makes: {more:?}");
}

#[test]
fn what_is_not_understood_is_said_in_the_form_that_was_asked_for() {
    let parse = |words: &[&str]| parse(words.iter().map(Into::into));
    assert!(parse(&["os", "status", "--json"]).is_ok());
    for words in [&["os", "stauts"] as &[&str], &["os", "--json", "stauts"], &["os"]] {
        assert_eq!(format!("{:?}", parse(words).unwrap_err()), format!("{:?}", ExitCode::from(2)));
    }
    let suggested = Args::try_parse_from(["os", "stauts"]).unwrap_err().render().to_string();
    assert!(suggested.contains("'status'"), "{suggested}");
}
