//! Guest-physical memory, wherever it comes from.

use std::fmt;

/// A source of guest-physical memory.
pub trait PhysicalMemory: fmt::Debug {
    /// Reads from `address` on and returns how many bytes of `buffer` were filled: fewer than asked for where the source ends or
    /// has a hole, 0 where it has nothing. What is missing is never made up of zeros.
    ///
    /// # Errors
    ///
    /// That of the file behind it.
    fn read(&self, address: u64, buffer: &mut [u8]) -> std::io::Result<usize>;
}

/// Reads a little-endian table entry; `None` if the source does not have all of it.
pub(crate) fn read_u64(memory: &dyn PhysicalMemory, address: u64) -> std::io::Result<Option<u64>> {
    let mut bytes = [0; 8];
    let n = memory.read(address, &mut bytes)?;
    Ok((n == bytes.len()).then(|| u64::from_le_bytes(bytes)))
}
