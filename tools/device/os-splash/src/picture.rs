//! PNG (ISO/IEC 15948) into pixels.

use png::{Decoder, Limits, Transformations};
use std::io::Cursor;

/// A larger file is not read, in bytes.
pub const MAX_FILE: u64 = 8 << 20;
/// A side is not longer, in pixels.
const MAX_SIDE: u32 = 8192;
/// What decoding may take, in bytes.
const MAX_MEMORY: usize = 64 << 20;

/// A picture that is not shown.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// Not a PNG, or a damaged one.
    #[error("it is no PNG that can be read: {0}")]
    Png(#[from] png::DecodingError),
    /// Too large.
    #[error("it has {0} x {1} pixels; allowed are {MAX_SIDE} x {MAX_SIDE} and what fits into 64 MiB")]
    Large(u32, u32),
}

/// Pixels over black.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Red, green, blue; row by row.
    pixels: Vec<[u8; 3]>,
}

impl Picture {
    /// Reads a PNG.
    ///
    /// # Errors
    /// When it is none, damaged, or too large.
    pub fn decode(bytes: &[u8]) -> Result<Self, PictureError> {
        let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: MAX_MEMORY });
        decoder.set_transformations(Transformations::normalize_to_color8() | Transformations::ALPHA);
        let mut reader = decoder.read_info()?;
        let (width, height) = reader.info().size();
        let size = reader.output_buffer_size().filter(|size| *size <= MAX_MEMORY && width.max(height) <= MAX_SIDE);
        let mut buffer = vec![0; size.ok_or(PictureError::Large(width, height))?];
        let frame = reader.next_frame(&mut buffer)?;
        buffer.truncate(frame.buffer_size());
        let pixels = match frame.color_type.samples() {
            2 => buffer.chunks_exact(2).filter_map(|p| p.first_chunk().map(|[grey, a]| over([*grey; 3], *a))).collect(),
            _ => buffer
                .chunks_exact(4)
                .filter_map(|p| p.first_chunk().map(|[r, g, b, a]| over([*r, *g, *b], *a)))
                .collect(),
        };
        Ok(Self { width: frame.width as usize, height: frame.height as usize, pixels })
    }

    /// A pixel; black where there is none.
    pub fn at(&self, x: usize, y: usize) -> [u8; 3] {
        if x >= self.width {
            return [0; 3];
        }
        self.pixels.get(y * self.width + x).copied().unwrap_or_default()
    }
}

/// A colour over black.
fn over(colour: [u8; 3], alpha: u8) -> [u8; 3] {
    colour.map(|c| u8::try_from(u16::from(c) * u16::from(alpha) / 255).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn png(width: u32, height: u32, colour: png::ColorType, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, width, height);
        encoder.set_color(colour);
        encoder.write_header().unwrap().write_image_data(data).unwrap();
        out
    }

    #[test]
    fn every_kind_of_colour_is_read() {
        let grey = Picture::decode(&png(2, 1, png::ColorType::Grayscale, &[0, 200])).unwrap();
        assert_eq!((grey.at(0, 0), grey.at(1, 0), grey.at(2, 0), grey.at(0, 1)), ([0; 3], [200; 3], [0; 3], [0; 3]));
        let colours = Picture::decode(&png(1, 2, png::ColorType::Rgb, &[1, 2, 3, 4, 5, 6])).unwrap();
        assert_eq!((colours.at(0, 0), colours.at(0, 1)), ([1, 2, 3], [4, 5, 6]));
        let half = Picture::decode(&png(1, 1, png::ColorType::Rgba, &[255, 100, 0, 51])).unwrap();
        assert_eq!(half.at(0, 0), [51, 20, 0]);
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let whole = png(9, 9, png::ColorType::Rgb, &[7; 9 * 9 * 3]);
        for bytes in [&b""[..], b"GIF89a", whole.get(..whole.len() / 2).unwrap()] {
            assert!(Picture::decode(bytes).is_err());
        }
        // A head that promises more than the memory of a small board.
        let mut bomb = png(1, 1, png::ColorType::Rgb, &[7; 3]);
        bomb.splice(16..24, [0, 1, 0, 0, 0, 1, 0, 0]);
        assert!(Picture::decode(&bomb).is_err());
        let wide = png(MAX_SIDE + 1, 1, png::ColorType::Grayscale, &vec![7; MAX_SIDE as usize + 1]);
        assert!(Picture::decode(&wide).unwrap_err().to_string().contains("8193 x 1"));
    }

    proptest! {
        #[test]
        fn a_damaged_file_is_read_or_refused(at in 8usize..200, to in any::<u8>()) {
            let mut bytes = png(16, 16, png::ColorType::Rgba, &[9; 16 * 16 * 4]);
            let at = at % bytes.len();
            bytes[at] = to;
            let _ = Picture::decode(&bytes);
        }
    }
}
