//! Runs other programs. Never through a shell; a failure carries what the program said last.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::Read;
use std::process::{Command, Output, Stdio};

/// How much of a failed program's stderr goes into the error, in bytes.
const STDERR_TAIL: usize = 2048;

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CmdError {
    /// The program could not be started at all.
    #[error("cannot run {program}: {cause}")]
    Start {
        /// Name or path as it was called.
        program: String,
        /// What the kernel answered.
        cause: std::io::Error,
    },
    /// The program ran and ended with an error.
    #[error("{program} failed ({status}){}{stderr}", if .stderr.is_empty() { "" } else { ": " })]
    Failed {
        /// Name or path as it was called.
        program: String,
        /// Exit status in words.
        status: String,
        /// Exit code, where there is one.
        code: Option<i32>,
        /// The last of what it wrote to stderr, trimmed.
        stderr: String,
    },
}

impl CmdError {
    /// The exit code of a program that ran and failed.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Start { .. } => None,
            Self::Failed { code, .. } => *code,
        }
    }
}

/// `PATH` with the directories of system programs, which the kernel's first process and Debian's plain users lack.
fn search_path() -> String {
    let given = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
    format!("{given}:/usr/sbin:/sbin")
}

/// One call of a program, built up like [`Command`].
#[derive(Debug)]
pub struct Cmd {
    program: String,
    inner: Command,
}

impl Cmd {
    /// A call of `program`, found on `PATH` when it is not a path.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref();
        let mut inner = Command::new(program);
        inner.env("LC_ALL", "C").env("PATH", search_path()).stdin(Stdio::null()).stdout(Stdio::null());
        Self { program: program.to_string_lossy().into_owned(), inner }
    }

    /// Calls it something else in errors: by what it runs, when it only leads there.
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.program);
        self
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.inner.arg(arg);
        self
    }

    /// Adds several arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.inner.args(args);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(key, value);
        self
    }

    /// Sets the working directory.
    pub fn dir(mut self, dir: impl AsRef<std::path::Path>) -> Self {
        self.inner.current_dir(dir);
        self
    }

    /// Gives the program a file as its standard input.
    pub fn stdin(mut self, file: std::fs::File) -> Self {
        self.inner.stdin(file);
        self
    }

    /// Gives the program a file as its standard output; for [`Cmd::run`].
    pub fn stdout(mut self, file: std::fs::File) -> Self {
        self.inner.stdout(file);
        self
    }

    /// Runs to the end; stdout is thrown away unless a file was given for it.
    ///
    /// # Errors
    /// When the program cannot be started or does not exit with 0.
    pub fn run(mut self) -> Result<(), CmdError> {
        let child = self.inner.stderr(Stdio::piped());
        // `output()` would replace a stdout that was set; spawn keeps it.
        let child = child.spawn().map_err(|cause| CmdError::Start { program: self.program.clone(), cause })?;
        let out = child.wait_with_output().map_err(|cause| CmdError::Start { program: self.program.clone(), cause })?;
        self.check(out).map(drop)
    }

    /// Runs to the end and returns stdout as text, invalid UTF-8 replaced.
    ///
    /// # Errors
    /// When the program cannot be started or does not exit with 0.
    pub fn read(mut self) -> Result<String, CmdError> {
        let out = self
            .inner
            .stdout(Stdio::piped())
            .output()
            .map_err(|cause| CmdError::Start { program: self.program.clone(), cause })?;
        self.check(out).map(|out| String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Runs to the end; an error carries the last of what it wrote to stdout and stderr, in the order it came. For programs
    /// that are not ours: where they say why is theirs to choose.
    ///
    /// # Errors
    /// When the program cannot be started or does not exit with 0.
    pub fn hear(mut self) -> Result<(), CmdError> {
        let failed = |cause| CmdError::Start { program: self.program.clone(), cause };
        let (mut reader, writer) = std::io::pipe().map_err(failed)?;
        let both = writer.try_clone().map_err(failed)?;
        let mut child = self.inner.stdout(writer).stderr(both).spawn().map_err(failed)?;
        // Its ends of the pipe are still open in here, and the end would never come.
        self.inner = Command::new(&self.program);
        let mut said = VecDeque::new();
        let mut piece = [0; 4096];
        loop {
            match reader.read(&mut piece) {
                Ok(0) => break,
                Ok(got) => said.extend(piece.iter().take(got)),
                Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
            said.drain(..said.len().saturating_sub(STDERR_TAIL));
        }
        let status = child.wait().map_err(|cause| CmdError::Start { program: self.program.clone(), cause })?;
        self.check(Output { status, stdout: Vec::new(), stderr: said.into() }).map(drop)
    }

    fn check(&self, out: Output) -> Result<Output, CmdError> {
        if out.status.success() {
            return Ok(out);
        }
        let start = out.stderr.len().saturating_sub(STDERR_TAIL);
        let tail = out.stderr.get(start..).unwrap_or_default();
        Err(CmdError::Failed {
            program: self.program.clone(),
            status: out.status.to_string(),
            code: out.status.code(),
            stderr: String::from_utf8_lossy(tail).trim().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_carries_stderr_and_code() {
        let err = Cmd::new("sh").args(["-c", "echo broken >&2; exit 3"]).run().unwrap_err();
        assert_eq!(err.code(), Some(3));
        assert!(err.to_string().contains("broken"), "{err}");
    }

    #[test]
    fn missing_program_is_named() {
        let err = Cmd::new("/no/such/program").read().unwrap_err();
        assert!(err.to_string().contains("/no/such/program"), "{err}");
        assert_eq!(err.code(), None);
    }

    #[test]
    fn what_leads_to_a_program_is_not_blamed() {
        let err = Cmd::new("env").arg("false").named("false").run().unwrap_err();
        assert!(err.to_string().starts_with("false failed"), "{err}");
    }

    #[test]
    fn what_a_program_says_is_heard_wherever_it_says_it() {
        let run = |script: &str| Cmd::new("sh").args(["-c", script]).named("till").hear();
        let said = run("echo the till; echo does not answer >&2; exit 1").unwrap_err().to_string();
        assert_eq!(said, "till failed (exit status: 1): the till\ndoes not answer");
        let long = run("yes | head -c 1000000; echo the end; exit 1").unwrap_err().to_string();
        assert!(long.ends_with("the end") && long.len() < 3000);
        run("yes | head -c 1000000").unwrap();
    }

    #[test]
    fn read_returns_stdout() {
        assert_eq!(Cmd::new("echo").arg("hi").read().unwrap(), "hi\n");
    }
}
