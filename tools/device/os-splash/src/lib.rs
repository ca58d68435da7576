//! A picture from the boot partition on the screen while the device starts, and until something else draws there.
//!
//! It is drawn once into the kernel's framebuffer (Documentation/fb/framebuffer.rst); nothing stays resident. Messages of
//! the kernel and a login appear over it: a device in trouble must be able to say so.
//!
//! - [`picture`] reads a PNG that anybody may have put there
//! - [`screen`] is the framebuffer

pub mod picture;
pub mod screen;

use anyhow::{Context, Result};
use clap::Parser;
use picture::Picture;
use screen::Screen;
use std::path::{Path, PathBuf};

/// Ours, and the name that balenaOS gives it.
const NAMES: &[&str] = &["logo.png", "balena-logo.png"];

/// Show splash/logo.png from the boot partition on the screen.
#[derive(Debug, Parser)]
#[command(name = "os-splash", version)]
pub struct Args {
    /// Directory with the picture
    #[arg(long, default_value = "/mnt/boot/splash")]
    dir: PathBuf,
}

/// The applet.
///
/// # Errors
/// When the picture is none, or the screen takes no pictures.
pub fn main(args: &Args) -> Result<()> {
    let Some(path) = NAMES.iter().map(|name| args.dir.join(name)).find(|path| path.exists()) else { return Ok(()) };
    let bytes = os_sys::files::read_limited(&path, picture::MAX_FILE)?;
    let picture = Picture::decode(&bytes).with_context(|| format!("{} cannot be shown", path.display()))?;
    let screen = Screen::first(Path::new("/sys/class/graphics/fb0"))?;
    // The text console's cursor would blink in the picture.
    let _ = std::fs::write("/dev/tty1", "\x1b[?25l");
    screen.show(&picture, Path::new("/dev/fb0"))?;
    Ok(())
}
