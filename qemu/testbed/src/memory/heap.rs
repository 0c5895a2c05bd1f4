//! The kernel heap: one piece of the direct map, given to `linked_list_allocator` under a lock that interrupts respect.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;

use linked_list_allocator::Heap;

use super::{PAGE_BYTES, direct_map, frames};
use crate::lock::IrqLock;

/// 8 MiB: enough for a few hundred LWPs with their FPU areas.
const HEAP_BYTES: u64 = 8 << 20;

struct KernelHeap(IrqLock<Heap>);

#[global_allocator]
static HEAP: KernelHeap = KernelHeap(IrqLock::new(Heap::empty()));

// SAFETY: the heap gives disjoint pieces of memory that it owns, with the alignment asked for, and the lock makes every
// call one at a time, with interrupts off: an interrupt that allocates cannot come in between.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0
            .lock()
            .allocate_first_fit(layout)
            .map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the caller promises that the pointer came from `alloc` with this layout.
            unsafe { self.0.lock().deallocate(pointer, layout) };
        }
    }
}

/// Gives the heap its memory.
pub(super) fn init() {
    let start =
        frames::allocate_contiguous(HEAP_BYTES / PAGE_BYTES).expect("no room for the kernel heap");
    let start = direct_map::<u8>(start);
    // SAFETY: these frames are nobody else's from now on, and the direct map covers them for the rest of the run.
    unsafe { HEAP.0.lock().init(start, HEAP_BYTES as usize) };
}
