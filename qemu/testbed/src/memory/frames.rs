//! Physical frames: handed out in order from the loader's ranges, then from the list of those that came back.
//!
//! Every frame is zeroed when it is handed out, so that no process sees what another one left.

use x86_64::PhysAddr;
use x86_64::structures::paging::{FrameAllocator, FrameDeallocator, PhysFrame, Size4KiB};

use super::{PAGE_BYTES, direct_map};
use crate::boot::info::{BootInfo, PhysRange};
use crate::lock::IrqLock;

const MAX_RANGES: usize = 34;
/// What the boot tables map, and so all that can be used before the kernel's own tables stand.
const EARLY_LIMIT: u64 = 1 << 30;

/// The frames that are not in use.
#[derive(Debug)]
struct Frames {
    ranges: [PhysRange; MAX_RANGES],
    n_ranges: usize,
    /// No frame at or above this address is handed out yet.
    limit: u64,
    /// First of the returned frames; each holds the address of the next one in its first word, 0 ends the list.
    returned: u64,
    n_free: u64,
}

static FRAMES: IrqLock<Frames> = IrqLock::new(Frames {
    ranges: [PhysRange { start: 0, end: 0 }; MAX_RANGES],
    n_ranges: 0,
    limit: EARLY_LIMIT,
    returned: 0,
    n_free: 0,
});

unsafe extern "C" {
    /// The end of the image in physical memory: a symbol of `kernel.ld` whose address is the value.
    static kernel_end_phys: u8;
}

/// The physical address after the kernel image.
pub(super) fn image_end() -> u64 {
    (&raw const kernel_end_phys).addr() as u64
}

/// Takes over the usable memory above 1 MiB, without the kernel and the archive. What the firmware and the loader left
/// below 1 MiB, and the start of the other CPUs there, stay alone.
pub(super) fn init(info: &BootInfo) {
    let mut frames = FRAMES.lock();
    for range in info.usable() {
        let start = range.start.max(image_end()).next_multiple_of(PAGE_BYTES);
        let end = range.end / PAGE_BYTES * PAGE_BYTES;
        match info.module {
            Some(module) if module.start < end && module.end > start => {
                frames.add(start, module.start / PAGE_BYTES * PAGE_BYTES);
                frames.add(module.end.next_multiple_of(PAGE_BYTES), end);
            }
            _ => frames.add(start, end),
        }
    }
}

/// Allows the frames that only the kernel's own direct map covers.
pub(super) fn use_all() {
    FRAMES.lock().limit = u64::MAX;
}

/// How many frames are free.
pub(crate) fn n_free() -> u64 {
    FRAMES.lock().n_free
}

/// Takes a frame, zeroed; its physical address.
pub(crate) fn allocate() -> Option<u64> {
    let frame = FRAMES.lock().take()?;
    // SAFETY: the frame was free, so nothing else uses it, and the direct map covers it.
    unsafe { direct_map::<u8>(frame).write_bytes(0, PAGE_BYTES as usize) };
    Some(frame)
}

/// Takes `n` frames that lie one after the other, for the heap at boot and the trace; only from memory that was never used.
pub(crate) fn allocate_contiguous(n: u64) -> Option<u64> {
    let bytes = n * PAGE_BYTES;
    let mut frames = FRAMES.lock();
    let n_ranges = frames.n_ranges;
    let range = frames.ranges[..n_ranges]
        .iter_mut()
        .find(|range| range.end - range.start >= bytes)?;
    let start = range.start;
    range.start += bytes;
    frames.n_free -= n;
    Some(start)
}

/// Takes the last `n` frames of the memory, from what was never used; zeroed.
pub(crate) fn allocate_at_the_end(n: u64) -> Option<u64> {
    let bytes = n * PAGE_BYTES;
    let mut frames = FRAMES.lock();
    let n_ranges = frames.n_ranges;
    let last = frames.ranges[..n_ranges].last_mut()?;
    last.end
        .checked_sub(last.start)
        .filter(|&left| left >= bytes)?;
    last.end -= bytes;
    let start = last.end;
    frames.n_free -= n;
    // SAFETY: the frames were free, so nothing else uses them, and the direct map covers them.
    unsafe { direct_map::<u8>(start).write_bytes(0, bytes as usize) };
    Some(start)
}

/// Gives a frame back.
///
/// # Safety
///
/// The frame came from [`allocate`], and nothing maps it or points to it any more.
pub(crate) unsafe fn free(frame: u64) {
    let mut frames = FRAMES.lock();
    let link = direct_map::<u64>(frame);
    // SAFETY: the frame is the caller's, whole and aligned, and now the list's.
    unsafe { link.write(frames.returned) };
    frames.returned = frame;
    frames.n_free += 1;
}

impl Frames {
    fn add(&mut self, start: u64, end: u64) {
        if start < end && self.n_ranges < MAX_RANGES {
            self.ranges[self.n_ranges] = PhysRange { start, end };
            self.n_ranges += 1;
            self.n_free += (end - start) / PAGE_BYTES;
        }
    }

    fn take(&mut self) -> Option<u64> {
        if self.returned != 0 {
            let frame = self.returned;
            // SAFETY: the list's frames belong to it, and `free` wrote the link.
            self.returned = unsafe { direct_map::<u64>(frame).read() };
            self.n_free -= 1;
            return Some(frame);
        }
        let limit = self.limit;
        let range = self.ranges[..self.n_ranges]
            .iter_mut()
            .find(|range| range.start < range.end.min(limit))?;
        let frame = range.start;
        range.start += PAGE_BYTES;
        self.n_free -= 1;
        Some(frame)
    }
}

/// The allocator as the `x86_64` crate's page table code wants it.
#[derive(Debug)]
pub(crate) struct TableFrames;

// SAFETY: `allocate` gives each frame to one caller.
unsafe impl FrameAllocator<Size4KiB> for TableFrames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        allocate().map(|frame| PhysFrame::containing_address(PhysAddr::new(frame)))
    }
}

impl FrameDeallocator<Size4KiB> for TableFrames {
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame) {
        // SAFETY: passed on to the caller, who promises the same.
        unsafe { free(frame.start_address().as_u64()) };
    }
}
