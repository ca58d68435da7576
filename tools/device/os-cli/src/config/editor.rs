//! `os config edit`: the file in an editor, until it is good.

use super::change::write;
use anyhow::{Context, Result, bail};
use os_config::lock::Lock;
use os_config_model::store::Store;
use os_config_model::{json, model};
use os_sys::out;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

pub(super) async fn edit_file(store: &Store, json: bool) -> Result<ExitCode> {
    if !std::io::stdin().is_terminal() {
        bail!(
            "os config edit needs a terminal; in a script use os config set, or write the file and run os config apply"
        );
    }
    let given = std::env::var("VISUAL").or_else(|_| std::env::var("EDITOR")).ok();
    let editor = given
        .or_else(|| {
            ["/usr/bin/nano", "/usr/bin/vi", "/bin/vi"].iter().find(|p| Path::new(p).exists()).map(|p| (*p).to_owned())
        })
        .context("no editor: set EDITOR, or use os config set")?;
    let before = store.read().unwrap_or_else(|_| b"{\n}\n".to_vec());
    // On RAM: the file may hold passwords.
    let work = Path::new("/run/os").join(format!("edit-{}.json", std::process::id()));
    os_sys::files::write_if_changed(&work, &before, 0o600)?;
    let result = edit_until_good(store, &editor, &work, &before, json).await;
    let _ = os_sys::files::remove_if_there(&work);
    result
}

async fn edit_until_good(store: &Store, editor: &str, work: &Path, before: &[u8], json: bool) -> Result<ExitCode> {
    let secrets = store.secrets();
    loop {
        let words: Vec<&str> = editor.split_ascii_whitespace().collect();
        let (program, arguments) = words.split_first().context("EDITOR is empty")?;
        let status = std::process::Command::new(program).args(arguments).arg(work).status();
        if !status.with_context(|| format!("cannot start {program}"))?.success() {
            bail!("the editor ended with an error; nothing was changed");
        }
        let text = os_sys::files::read_limited(work, os_config_model::MAX_SIZE)?;
        if text == before {
            os_sys::say!("Nothing was changed.");
            return Ok(ExitCode::SUCCESS);
        }
        match model::parse_with(&text, &|id| secrets.get(id).cloned()) {
            Ok(_) => {
                let lock = Lock::take()?;
                if store.read().is_ok_and(|now| now != before) {
                    let kept = work.with_extension("kept.json");
                    os_sys::files::rename(work, &kept)?;
                    bail!(
                        "somebody else changed config.json meanwhile, and it stays as it is; what you wrote is in {} until the \
                         next restart: take it over with os config edit",
                        kept.display()
                    );
                }
                let value = |bytes: &[u8]| json::read(bytes).unwrap_or_default();
                return write(store, &lock, &value(before), &value(&text), &text, json).await;
            }
            Err(problems) => {
                problems.iter().for_each(|problem| os_sys::say!("{problem}"));
                out::print(format_args!("Edit again? [Y/n] "));
                std::io::stdout().flush()?;
                let mut answer = String::new();
                std::io::stdin().read_line(&mut answer)?;
                if answer.trim().eq_ignore_ascii_case("n") || answer.is_empty() {
                    os_sys::say!("Nothing was changed.");
                    return Ok(ExitCode::from(1));
                }
            }
        }
    }
}
