//! Memory, from the bottom up: the direct map, `frames`, the kernel's own mappings (`paging`), the `heap`, and
//! kernel `stacks` with guard pages.
//!
//! | addresses | what |
//! |---|---|
//! | lower half | the current process (`process::space`); in kernel threads of some boot tests a page a CPU ([`window`]) |
//! | `0xffff_8000_0000_0000` | all physical memory and the devices below 4 GiB: the direct map, never executable |
//! | `0xffff_c000_0000_0000` | kernel stacks |
//! | `0xffff_ffff_8000_0000` | the kernel image, as `kernel.ld` lays it out |

pub(crate) mod frames;
mod heap;
pub(crate) mod paging;
pub(crate) mod stacks;
pub mod window;

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::boot::info::BootInfo;

/// Bytes in a frame and in the smallest page.
pub const PAGE_BYTES: u64 = 4096;
/// Where the direct map begins.
pub(crate) const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// The end of user addresses; the last page is left out, as Linux does.
pub(crate) const USER_END: u64 = 0x0000_7fff_ffff_f000;

/// How much physical memory the direct map covers; the boot tables cover 1 GiB.
static DIRECT_MAP_BYTES: AtomicU64 = AtomicU64::new(1 << 30);

/// How much physical memory the direct map covers.
pub(crate) fn direct_map_bytes() -> u64 {
    DIRECT_MAP_BYTES.load(Ordering::Relaxed)
}

/// Where physical address `phys` appears in the direct map.
///
/// # Panics
///
/// When the direct map does not cover it.
pub(crate) fn direct_map<T>(phys: u64) -> *mut T {
    assert!(
        phys < DIRECT_MAP_BYTES.load(Ordering::Relaxed),
        "physical address {phys:#x} is outside the direct map"
    );
    core::ptr::with_exposed_provenance_mut((DIRECT_MAP + phys) as usize)
}

/// The physical address of what is on the heap, which is a piece of the direct map.
///
/// # Panics
///
/// For anything else.
pub(crate) fn heap_phys<T>(pointer: *const T) -> u64 {
    let phys = (pointer.addr() as u64).wrapping_sub(DIRECT_MAP);
    assert!(phys < direct_map_bytes(), "{pointer:?} is not on the heap");
    phys
}

/// A number that may be read from any memory.
pub(crate) trait Number: Copy {}
impl Number for u8 {}
impl Number for u32 {}
impl Number for u64 {}

/// Reads a number that the loader or the firmware left in memory.
pub(crate) fn read_phys<T: Number>(at: u64) -> T {
    let pointer = direct_map::<T>(at);
    // SAFETY: `direct_map` checked that the address is mapped, any bits are a `T`, and a volatile read of memory that
    // only firmware and loader write competes with nothing.
    unsafe { pointer.read_unaligned() }
}

/// Memory for `n` values, which begin as `value`, for the rest of the run; `None` if there is not as much in one piece.
pub(crate) fn forever<T: Copy>(n: usize, value: T) -> Option<&'static mut [T]> {
    let bytes = (n * size_of::<T>()) as u64;
    let at = frames::allocate_contiguous(bytes.div_ceil(PAGE_BYTES))?;
    let first = direct_map::<MaybeUninit<T>>(at);
    // SAFETY: the frames are nobody else's for the rest of the run, the direct map covers them, and a page is aligned well
    // enough.
    let places = unsafe { core::slice::from_raw_parts_mut(first, n) };
    for place in &mut *places {
        place.write(value);
    }
    // SAFETY: each of them was written.
    Some(unsafe { places.assume_init_mut() })
}

/// Brings memory up: called once, by the boot CPU, on the boot tables.
pub(crate) fn init(info: &BootInfo) {
    frames::init(info);
    let covered = paging::init(info);
    DIRECT_MAP_BYTES.store(covered, Ordering::Relaxed);
    frames::use_all();
    heap::init();
}
