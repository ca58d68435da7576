//! The question before something that cannot be taken back.

use std::io::{self, BufRead, IsTerminal, Write};

/// Asks the operator at the terminal to type `word`.
///
/// # Errors
/// [`NotAgreed`] when nobody can be asked or the answer is another one.
pub fn agree(meaning: &str, word: &str) -> Result<(), NotAgreed> {
    if !io::stdin().is_terminal() {
        return Err(NotAgreed::Nobody(meaning.to_owned()));
    }
    let mut answer = String::new();
    let asked = (|| {
        crate::out::print(format_args!("This {meaning}. Type {word} to continue: "));
        io::stdout().flush()?;
        io::stdin().lock().read_line(&mut answer)
    })();
    if asked.is_ok() && answer.trim() == word { Ok(()) } else { Err(NotAgreed::No) }
}

/// Nobody agreed.
#[derive(Debug, thiserror::Error)]
pub enum NotAgreed {
    /// There is no terminal to ask at.
    #[error("this {0}; confirm it with --yes")]
    Nobody(String),
    /// The answer was another one.
    #[error("nothing was changed")]
    No,
}
