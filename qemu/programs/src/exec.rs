//! Other programs in the place of the one that asks: `execve(2)`.

use core::ffi::CStr;
use core::fmt::{self, Write};

use crate::held::Call;
use crate::syscalls::EXECVE;

/// The strings that a program is to begin with, at most so many, and the zero that ends them.
#[derive(Debug)]
pub struct Strings([usize; Self::MOST + 1]);

/// A number as a string.
#[derive(Debug, Default)]
pub struct Digits {
    bytes: [u8; 24],
    used: usize,
}

impl Strings {
    /// How many there are at most.
    pub const MOST: usize = 7;

    /// Makes the list, which names the strings: they must live as long.
    ///
    /// # Panics
    ///
    /// When there are too many.
    pub fn new(strings: &[&CStr]) -> Self {
        let mut list = [0; Self::MOST + 1];
        assert!(strings.len() <= Self::MOST, "too many strings");
        for (place, string) in list.iter_mut().zip(strings) {
            *place = string.as_ptr().expose_provenance();
        }
        Self(list)
    }
}

impl Digits {
    /// Writes the number.
    pub fn new(number: u64) -> Self {
        let mut digits = Self::default();
        // 24 bytes are enough for any.
        let _ = write!(digits, "{number}");
        digits
    }

    /// The string.
    pub fn text(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

impl Write for Digits {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.used + text.len();
        let place = self.bytes.get_mut(self.used..end).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.used = end;
        Ok(())
    }
}

/// The call that begins the program at `path`. On success it does not come back, and nothing of this program is left.
pub fn call(path: &CStr, arguments: &Strings, environment: &Strings) -> Call {
    let path = path.as_ptr().expose_provenance();
    let list = |strings: &Strings| strings.0.as_ptr().expose_provenance();
    [EXECVE, path, list(arguments), list(environment), 0]
}
