//! Lines on file descriptor 1.
//!
//! A line is put together first and then written by one call (or a few, when it is long), so that the lines of a parent and
//! its child never mix.

use core::fmt::{self, Arguments, Write};

use crate::syscalls::write_all;

/// Prints one line, like `println!`, to file descriptor 1.
pub fn line(text: Arguments<'_>) {
    let mut buffer = Buffer {
        bytes: [0; 256],
        used: 0,
    };
    // Buffer::write_str never fails, so neither do these.
    let _ = buffer.write_fmt(text);
    let _ = buffer.write_str("\n");
    buffer.flush();
}

struct Buffer {
    bytes: [u8; 256],
    used: usize,
}

impl Buffer {
    fn flush(&mut self) {
        write_all(1, &self.bytes[..self.used]);
        self.used = 0;
    }
}

impl Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.used == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.used] = byte;
            self.used += 1;
        }
        Ok(())
    }
}

/// Prints one line: the arguments are those of `format_args!`.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::print::line(format_args!($($text)*)) };
}

/// Prints one line and ends the program with status 1: its check failed.
#[macro_export]
macro_rules! fail {
    ($($text:tt)*) => { $crate::start::fail(format_args!($($text)*)) };
}
