//! Memory as the modelled CPU sees it: the process's own, some of which may be declared not to be mapped.

use std::ops::Range;
use std::ptr::NonNull;

use crate::fault::Fault;

/// What a CPU's page tables leave out, and how much it moved.
#[derive(Debug, Default)]
pub struct Memory {
    unmapped: Vec<Range<usize>>,
    /// Bytes of state that saves wrote, headers aside.
    pub stored: u64,
    /// Bytes of state that restores read, headers aside.
    pub loaded: u64,
}

impl Memory {
    /// Declares a range not mapped.
    pub fn unmap(&mut self, range: Range<usize>) {
        self.unmapped.push(range);
    }

    /// Maps everything again.
    pub fn map_all(&mut self) {
        self.unmapped.clear();
    }

    /// Reads `bytes.len()` bytes at `offset` of the area.
    ///
    /// # Safety
    ///
    /// The area is that long.
    pub(crate) unsafe fn load(
        &mut self,
        area: NonNull<u8>,
        offset: usize,
        bytes: &mut [u8],
    ) -> Result<(), Fault> {
        self.check(area, offset, bytes.len())?;
        self.loaded += bytes.len() as u64;
        let (len, to) = (bytes.len(), NonNull::from(bytes).cast());
        // SAFETY: the caller promises so many bytes from there.
        let from = unsafe { area.add(offset) };
        // SAFETY: the same; a slice of the model's own does not overlap the area.
        unsafe { from.copy_to_nonoverlapping(to, len) };
        Ok(())
    }

    /// Writes `bytes` at `offset` of the area.
    ///
    /// # Safety
    ///
    /// The area is that long, and writable.
    pub(crate) unsafe fn store(
        &mut self,
        area: NonNull<u8>,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        self.check(area, offset, bytes.len())?;
        self.stored += bytes.len() as u64;
        // SAFETY: the caller promises so many bytes from there.
        let to = unsafe { area.add(offset) };
        // SAFETY: the same; a slice of the model's own does not overlap the area.
        unsafe { to.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        Ok(())
    }

    fn check(&self, area: NonNull<u8>, offset: usize, len: usize) -> Result<(), Fault> {
        let start = area.addr().get() + offset;
        let hit = self
            .unmapped
            .iter()
            .find(|hole| hole.start < start + len && start < hole.end);
        match hit {
            Some(hole) => Err(Fault::Page(hole.start.max(start))),
            None => Ok(()),
        }
    }
}
