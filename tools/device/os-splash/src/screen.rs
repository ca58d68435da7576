//! The kernel's framebuffer.

use crate::picture::Picture;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A screen without pictures.
#[derive(Debug, thiserror::Error)]
pub enum ScreenError {
    /// There is none, or its facts cannot be read.
    #[error("there is no screen to draw on: {path}: {cause}")]
    Missing {
        /// What was read.
        path: PathBuf,
        /// What the kernel answered.
        cause: io::Error,
    },
    /// It has facts that make no sense.
    #[error("the screen says of itself: {0}")]
    Strange(String),
    /// Pixels of a form that is not known here.
    #[error("the screen has {0} bits per pixel; 16, 24 and 32 are known")]
    Depth(usize),
    /// It does not take the picture.
    #[error("cannot draw: {0}")]
    Draw(io::Error),
}

/// How a pixel lies in memory. The kernel's drivers have these three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// 5 bits of red, 6 of green, 5 of blue.
    Rgb565,
    /// Blue, green, red.
    Bgr,
    /// Blue, green, red, nothing.
    Bgrx,
}

/// The screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screen {
    width: usize,
    height: usize,
    /// Bytes from one row to the next.
    stride: usize,
    form: Form,
}

impl Screen {
    /// Reads what the kernel says of a framebuffer in sysfs.
    ///
    /// # Errors
    /// When there is none, or none that is known here.
    pub fn first(sysfs: &Path) -> Result<Self, ScreenError> {
        let read = |name: &str| {
            let path = sysfs.join(name);
            let text = std::fs::read_to_string(&path).map_err(|cause| ScreenError::Missing { path, cause })?;
            Ok::<_, ScreenError>(text.trim().to_owned())
        };
        let number = |text: &str| text.parse::<usize>().map_err(|_| ScreenError::Strange(text.to_owned()));
        let form = match number(&read("bits_per_pixel")?)? {
            16 => Form::Rgb565,
            24 => Form::Bgr,
            32 => Form::Bgrx,
            other => return Err(ScreenError::Depth(other)),
        };
        // What is seen may be less than what there is memory for; the mode knows, where there is one.
        let (width, height) = read("modes").ok().and_then(|text| mode(&text)).map_or_else(
            || {
                let text = read("virtual_size")?;
                let (width, height) = text.split_once(',').ok_or_else(|| ScreenError::Strange(text.clone()))?;
                Ok((number(width)?, number(height)?))
            },
            Ok,
        )?;
        let stride = number(&read("stride")?)?;
        if width == 0
            || height == 0
            || width > 1 << 14
            || height > 1 << 14
            || stride < width * form.size()
            || stride > 1 << 18
        {
            return Err(ScreenError::Strange(format!("{width} x {height} pixels, {stride} bytes in a row")));
        }
        Ok(Self { width, height, stride, form })
    }

    /// Draws a picture in the middle, on black; one that is too large is made smaller.
    ///
    /// # Errors
    /// When the framebuffer does not take it.
    pub fn show(&self, picture: &Picture, device: &Path) -> Result<(), ScreenError> {
        let file = File::options().write(true).open(device).map_err(ScreenError::Draw)?;
        file.write_all_at(&self.frame(picture), 0).map_err(ScreenError::Draw)
    }

    fn frame(&self, picture: &Picture) -> Vec<u8> {
        // The side that is most too large decides; both keep their proportion.
        let larger = |side: usize, room: usize| side * 1000 / room.max(1);
        let (shown_width, shown_height) =
            match larger(picture.width, self.width).max(larger(picture.height, self.height)) {
                0..=1000 => (picture.width, picture.height),
                factor => ((picture.width * 1000 / factor).max(1), (picture.height * 1000 / factor).max(1)),
            };
        let (left, top) =
            ((self.width.saturating_sub(shown_width)) / 2, (self.height.saturating_sub(shown_height)) / 2);
        let mut frame = vec![0; self.stride * self.height];
        for (y, row) in frame.chunks_exact_mut(self.stride).enumerate().skip(top).take(shown_height) {
            let source_y = (y - top) * picture.height / shown_height;
            for (x, pixel) in
                row.chunks_exact_mut(self.form.size()).take(self.width).enumerate().skip(left).take(shown_width)
            {
                let colour = picture.at((x - left) * picture.width / shown_width, source_y);
                pixel.copy_from_slice(self.form.bytes(colour).get(..pixel.len()).unwrap_or_default());
            }
        }
        frame
    }
}

impl Form {
    fn size(self) -> usize {
        match self {
            Self::Rgb565 => 2,
            Self::Bgr => 3,
            Self::Bgrx => 4,
        }
    }

    fn bytes(self, [r, g, b]: [u8; 3]) -> [u8; 4] {
        match self {
            Self::Rgb565 => {
                let [low, high] = (u16::from(r >> 3) << 11 | u16::from(g >> 2) << 5 | u16::from(b >> 3)).to_le_bytes();
                [low, high, 0, 0]
            }
            Self::Bgr | Self::Bgrx => [b, g, r, 0],
        }
    }
}

/// Width and height of a mode such as `U:1280x800p-0`.
fn mode(text: &str) -> Option<(usize, usize)> {
    let (width, rest) = text.lines().next()?.split_once(':')?.1.split_once('x')?;
    let height: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((width.parse().ok()?, height.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sysfs(facts: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in facts {
            std::fs::write(dir.path().join(name), format!("{text}\n")).unwrap();
        }
        dir
    }

    fn red(width: u32, height: u32) -> Picture {
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, width, height);
        encoder.set_color(png::ColorType::Rgb);
        let data: Vec<u8> = [255, 0, 0].repeat((width * height) as usize);
        encoder.write_header().unwrap().write_image_data(&data).unwrap();
        Picture::decode(&out).unwrap()
    }

    #[test]
    fn what_the_kernel_says_is_understood() {
        let dir = sysfs(&[("bits_per_pixel", "32"), ("virtual_size", "8,12"), ("stride", "40"), ("modes", "U:8x6p-0")]);
        assert_eq!(Screen::first(dir.path()).unwrap(), Screen { width: 8, height: 6, stride: 40, form: Form::Bgrx });
        let dir = sysfs(&[("bits_per_pixel", "16"), ("virtual_size", "8,12"), ("stride", "16")]);
        assert_eq!(Screen::first(dir.path()).unwrap(), Screen { width: 8, height: 12, stride: 16, form: Form::Rgb565 });
        for facts in [
            &[("bits_per_pixel", "8"), ("virtual_size", "8,12"), ("stride", "8")][..],
            &[("bits_per_pixel", "32"), ("virtual_size", "8,12"), ("stride", "8")],
            &[("bits_per_pixel", "32"), ("virtual_size", "0,0"), ("stride", "0")],
            &[("bits_per_pixel", "32"), ("virtual_size", "wide"), ("stride", "8")],
            &[],
        ] {
            assert!(Screen::first(sysfs(facts).path()).is_err(), "{facts:?}");
        }
    }

    #[test]
    fn a_picture_is_in_the_middle_and_the_rest_is_black() {
        let screen = Screen { width: 5, height: 3, stride: 24, form: Form::Bgrx };
        let frame = screen.frame(&red(1, 1));
        let at = frame.iter().position(|b| *b == 255).unwrap();
        assert_eq!(at, 24 + 2 * 4 + 2);
        assert_eq!(frame.iter().filter(|b| **b != 0).count(), 1);
    }

    #[test]
    fn a_picture_that_is_too_large_is_made_smaller_in_proportion() {
        let screen = Screen { width: 10, height: 10, stride: 20, form: Form::Rgb565 };
        let frame = screen.frame(&red(40, 20));
        let rows: Vec<usize> = frame.chunks(20).map(|row| row.chunks(2).filter(|p| *p == [0, 0xf8]).count()).collect();
        assert_eq!(rows, [0, 0, 10, 10, 10, 10, 10, 0, 0, 0]);
    }
}
