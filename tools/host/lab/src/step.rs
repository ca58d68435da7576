//! Build steps: run when an input changed, whole or not at all, with their time.

use anyhow::{Context, Result};
use os_sys::hex;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Collects what a step depends on.
#[derive(Debug, Default)]
pub struct Inputs(Sha256);

impl Inputs {
    /// No inputs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A text, such as a version or a list.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
        self
    }

    /// A file or a directory with everything below it: names, modes, contents.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn path(mut self, path: &Path) -> Result<Self> {
        self.add(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(self)
    }

    fn add(&mut self, path: &Path) -> std::io::Result<()> {
        let meta = std::fs::symlink_metadata(path)?;
        self.0.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        self.0.update(meta.permissions().mode().to_le_bytes());
        if meta.is_symlink() {
            self.0.update(std::fs::read_link(path)?.as_os_str().as_encoded_bytes());
        } else if meta.is_dir() {
            let mut names: Vec<PathBuf> =
                std::fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
            names.sort();
            for name in names {
                self.add(&name)?;
            }
        } else if meta.is_file() {
            self.0.update(meta.len().to_le_bytes());
            let mut file = File::open(path)?;
            let mut buffer = vec![0; 1 << 20];
            loop {
                let got = file.read(&mut buffer)?;
                if got == 0 {
                    break;
                }
                self.0.update(buffer.get(..got).unwrap_or_default());
            }
        }
        Ok(())
    }

    fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

/// Runs the steps of one build, several at a time where the caller does, and prints a line for each when it ends.
#[derive(Debug)]
pub struct Steps {
    dir: PathBuf,
    quiet: bool,
    times: Arc<Mutex<Vec<(String, f64)>>>,
}

/// How often a step that takes long says that it is still at it.
const PROGRESS: Duration = Duration::from_secs(20);

impl Steps {
    /// Keeps its records in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.join("stamps"), quiet: false, times: Arc::default() }
    }

    /// Says nothing of steps that are up to date.
    #[must_use]
    pub fn quiet(self) -> Self {
        Self { quiet: true, ..self }
    }

    /// Steps of the same build whose records lie in another directory.
    #[must_use]
    pub fn kept_in(&self, dir: &Path) -> Self {
        Self { dir: dir.join("stamps"), quiet: self.quiet, times: Arc::clone(&self.times) }
    }

    /// Whether a step did its work.
    pub fn did(&self, name: &str) -> bool {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|(done, _)| done == name)
    }

    /// What stands for the output of a step that was run before, see [`Steps::run`].
    ///
    /// # Errors
    /// When it was not, or was interrupted.
    pub fn identity(&self, name: &str) -> Result<String> {
        let stamp = self.stamp(name);
        std::fs::read_to_string(&stamp).with_context(|| format!("step '{name}' is not done: no {}", stamp.display()))
    }

    fn stamp(&self, name: &str) -> PathBuf {
        self.dir.join(name.replace(' ', "-"))
    }

    /// Does work that decides by itself what is out of date.
    ///
    /// # Errors
    /// When the work fails.
    pub fn always<T>(&self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let done = with_progress(name, work);
        let seconds = start.elapsed().as_secs_f64();
        match &done {
            Ok(_) => os_sys::say!("  {name:<28} {seconds:.1} s"),
            Err(_) => os_sys::say!("  {name:<28} failed after {seconds:.1} s"),
        }
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.push((name.to_owned(), seconds));
        done.with_context(|| format!("step '{name}'"))
    }

    /// Runs `work` unless `output` was made from the same inputs before. `work` writes to the directory it is given;
    /// that directory becomes `output` only when it is complete, so an interrupted build leaves nothing half-made.
    /// Returns what stands for the output among the inputs of later steps: it changes whenever the work was done again.
    ///
    /// # Errors
    /// When the work fails.
    pub fn run(
        &self,
        name: &str,
        inputs: Inputs,
        output: &Path,
        work: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<String> {
        let stamp = self.stamp(name);
        let digest = inputs.finish();
        if output.exists()
            && let Ok(old) = std::fs::read_to_string(&stamp)
            && old.split(' ').next() == Some(&digest)
        {
            if !self.quiet {
                os_sys::say!("  {name:<28} unchanged");
            }
            return Ok(old);
        }
        self.always(name, || {
            let _ = std::fs::remove_file(&stamp);
            let fresh = output.with_extension("new");
            remove(&fresh)?;
            std::fs::create_dir_all(&fresh).with_context(|| format!("cannot create {}", fresh.display()))?;
            let done = work(&fresh);
            if done.is_err() {
                let _ = remove(&fresh);
            }
            done?;
            remove(output)?;
            std::fs::rename(&fresh, output)?;
            std::fs::create_dir_all(&self.dir)?;
            let made = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let identity = format!("{digest} {}", made.as_nanos());
            std::fs::write(&stamp, &identity)?;
            Ok(identity)
        })
    }
}

/// Works, and says now and then that it still does.
fn with_progress<T>(name: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while wait.recv_timeout(PROGRESS) == Err(RecvTimeoutError::Timeout) {
                os_sys::say!("  {name:<28} ... {:.0} s", start.elapsed().as_secs_f64());
            }
        });
        let result = work();
        // The other end sees that nobody will send any more.
        drop(done);
        result
    })
}

/// The output of a step: where it lies, and what stands for it among the inputs of later steps.
#[derive(Debug, Clone)]
pub struct Output {
    /// File or directory.
    pub path: PathBuf,
    /// See [`Steps::run`].
    pub identity: String,
}

fn remove(path: &Path) -> Result<()> {
    let gone = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match gone {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            Err(err).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_runs_once_per_input_and_leaves_nothing_half_made() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let steps = Steps::new(dir.path());
        let mut ran = 0;
        for input in ["a", "a", "b"] {
            steps
                .run("s", Inputs::new().text(input), &out, |d| {
                    ran += 1;
                    Ok(std::fs::write(d.join("x"), input)?)
                })
                .unwrap();
        }
        assert_eq!(ran, 2);
        assert!(steps.did("s") && !steps.did("t"));
        let failed = steps.run("s", Inputs::new().text("c"), &out, |d| {
            std::fs::write(d.join("x"), "half")?;
            anyhow::bail!("interrupted")
        });
        assert!(failed.is_err());
        assert!(steps.identity("s").is_err());
        assert_eq!(std::fs::read_to_string(out.join("x")).unwrap(), "b");
        // The former output stands, but it was not made from "c": the next run works again.
        steps.run("s", Inputs::new().text("c"), &out, |d| Ok(std::fs::write(d.join("x"), "c")?)).unwrap();
        assert_eq!(std::fs::read_to_string(out.join("x")).unwrap(), "c");
    }

    #[test]
    fn steps_run_side_by_side_and_keep_their_records_apart() {
        let dir = tempfile::tempdir().unwrap();
        let steps = Steps::new(&dir.path().join("one"));
        let other = steps.kept_in(&dir.path().join("two"));
        // Neither can end before the other began.
        let both = std::sync::Barrier::new(2);
        let run = |steps: &Steps, name: &str| {
            let wait = |_: &Path| {
                both.wait();
                Ok(())
            };
            steps.run(name, Inputs::new(), &dir.path().join(name), wait).unwrap();
        };
        std::thread::scope(|scope| {
            scope.spawn(|| run(&steps, "first"));
            run(&other, "second");
        });
        assert!(steps.did("first") && steps.did("second"));
        assert!(steps.identity("first").is_ok() && steps.identity("second").is_err());
        assert!(other.identity("second").is_ok());
    }

    #[test]
    fn inputs_see_names_modes_and_contents() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "1").unwrap();
        let digest = || Inputs::new().path(dir.path()).unwrap().finish();
        let first = digest();
        std::fs::write(&file, "2").unwrap();
        let second = digest();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(first != second && second != digest());
    }
}
