//! Guest-physical memory, wherever it comes from.

use std::fmt;

use thiserror::Error;

/// A source of guest-physical memory.
pub trait PhysicalMemory: fmt::Debug {
    /// Reads from `address` on and returns how many bytes of `buffer` were filled: fewer than asked for where the source ends or
    /// has a hole, 0 where it has nothing. What is missing is never made up of zeros.
    ///
    /// # Errors
    ///
    /// That of the file behind it.
    fn read(&self, address: u64, buffer: &mut [u8]) -> std::io::Result<usize>;

    /// Does the guest run, so that the same byte may be another one when it is read again?
    fn is_live(&self) -> bool {
        false
    }

    /// Forgets what was read ahead: what is read from now on is not older than this call.
    fn forget(&self) {}

    /// Says that what is read is still the guest's that the source was opened for. A dump stays what it is.
    ///
    /// # Errors
    ///
    /// [`Gone`], which says what became of the guest.
    fn check(&self) -> Result<(), Gone> {
        Ok(())
    }
}

/// A guest that is no longer there.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gone {
    /// QEMU closed its control socket: it has ended, by itself or not.
    #[error("the guest has ended: QEMU closed its control socket")]
    Closed,
    /// QEMU says that the guest ended its run.
    #[error("the guest has ended: QEMU says so")]
    Shutdown,
    /// The machine was reset, and whatever runs now is not what was looked at.
    #[error("the guest was reset")]
    Reset,
}

/// Reads a little-endian table entry; `None` if the source does not have all of it.
pub(crate) fn read_u64(memory: &dyn PhysicalMemory, address: u64) -> std::io::Result<Option<u64>> {
    let mut bytes = [0; 8];
    let n = memory.read(address, &mut bytes)?;
    Ok((n == bytes.len()).then(|| u64::from_le_bytes(bytes)))
}
