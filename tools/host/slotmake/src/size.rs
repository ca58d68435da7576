//! Sizes of partitions, as the variables of os-layout.inc give them.

use crate::SlotError;
use std::fmt;
use std::path::Path;

/// What a partition has room for, or an image may have, and the variable that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Name of the variable.
    pub variable: &'static str,
    /// Its value in bytes.
    pub bytes: u64,
}

impl Room {
    /// Reads the value of a size variable, such as `64M`.
    ///
    /// # Errors
    /// When it is no size.
    pub fn of(variable: &'static str, text: &str) -> Result<Self, SlotError> {
        let bytes = bytes(text).ok_or_else(|| SlotError::Size { variable, text: text.to_owned() })?;
        Ok(Self { variable, bytes })
    }

    /// Checks that an image fits.
    ///
    /// # Errors
    /// When it does not, or is not there.
    pub fn takes(&self, image: &Path) -> Result<(), SlotError> {
        let size = len(image)?;
        if size > self.bytes {
            return Err(SlotError::TooLarge { path: image.to_owned(), size, room: self.clone() });
        }
        Ok(())
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (os-layout.inc) gives {} KiB", self.variable, kib(self.bytes))
    }
}

/// Bytes of a text such as `64M`; none when it is no size.
fn bytes(text: &str) -> Option<u64> {
    let (at, unit) = text.char_indices().next_back()?;
    let shift = match unit {
        'K' => 10,
        'M' => 20,
        'G' => 30,
        _ => return None,
    };
    let digits = text.get(..at).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// KiB that so many bytes need.
pub(crate) fn kib(bytes: u64) -> u64 {
    bytes.div_ceil(1024)
}

pub(crate) fn len(path: &Path) -> Result<u64, SlotError> {
    std::fs::metadata(path).map(|meta| meta.len()).map_err(SlotError::file("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(Room::of("X", "64M").unwrap().bytes, 64 << 20);
        for bad in ["", "64", "M", "-1M", "+1M", "1T", "6 4M", "64MM", "99999999999G", "64é"] {
            let said = Room::of("OS_X", bad).unwrap_err().to_string();
            assert!(said.contains("OS_X") && said.contains("K, M or G"), "{said}");
        }
    }

    #[test]
    fn one_byte_too_many_is_named_with_the_variable() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("root.img");
        let room = Room::of("OS_ROOT_SIZE", "2K").unwrap();
        std::fs::write(&image, [0; 2048]).unwrap();
        room.takes(&image).unwrap();
        std::fs::write(&image, [0; 2049]).unwrap();
        let said = room.takes(&image).unwrap_err().to_string();
        for part in ["root.img has 3 KiB", "OS_ROOT_SIZE (os-layout.inc) gives 2 KiB", "1 KiB too much"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(room.takes(&dir.path().join("none")).is_err());
    }
}
