//! A page of which each CPU has its own frame, at one address of the lower half: for a unit whose gate is a page-table entry.
//!
//! Page tables are shared by all CPUs, so each CPU gets a top-level table of its own, with the kernel's entries, which never change
//! after boot, and one more for the window. It is loaded in the place of the kernel's table once [`give`] was called there; the
//! tables of processes have no window. Beside it lies one page of plain memory, the same frame on all CPUs.

use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;

use spin::Once;
use x86_64::structures::paging::page_table::PageTable;
use x86_64::structures::paging::{Mapper, Page, PageTableFlags as Flags, PhysFrame, Size4KiB};
use x86_64::{PhysAddr, VirtAddr};

use super::frames::{self, TableFrames};
use super::{PAGE_BYTES, direct_map, paging};
use crate::cpu::{self, MAX_CPUS};
use crate::lock::InterruptsOff;

/// Where the window is: no process of this kernel has anything there.
pub const WINDOW: u64 = 0x4000_0000_0000;
/// Plain memory beside it.
pub const PLAIN: u64 = WINDOW + PAGE_BYTES;

/// What a CPU has of its own.
#[derive(Debug)]
struct Own {
    /// Physical address of the top-level table.
    top: u64,
    /// Physical address of the window's frame.
    frame: u64,
    /// Physical address of the window's entry.
    entry: u64,
}

static OWN: [Once<Own>; MAX_CPUS] = [const { Once::new() }; MAX_CPUS];
/// Physical address of the plain page's frame.
static PLAIN_FRAME: Once<u64> = Once::new();

/// Gives the CPU that executes this its window, with the present bit clear, and loads the table that has it; once or again.
///
/// # Panics
///
/// Without memory for it.
pub fn give() {
    let _off = InterruptsOff::new();
    OWN[cpu::index()].call_once(Own::new);
    // SAFETY: the kernel's table, in whose place the CPU's own is loaded: the caller is a kernel thread.
    unsafe { paging::activate(paging::kernel_table()) };
}

/// Physical address of the table that this CPU loads in the place of the kernel's.
pub(super) fn own_table() -> Option<u64> {
    Some(OWN.get(cpu::index_if_known()?)?.get()?.top)
}

/// The frame and the page-table entry of the window of CPU `cpu`, by the direct map; `None` before [`give`].
pub fn of(cpu: usize) -> Option<(NonNull<[u64; 512]>, NonNull<AtomicU64>)> {
    let own = OWN.get(cpu)?.get()?;
    let frame = NonNull::new(direct_map(own.frame))?;
    Some((frame, NonNull::new(direct_map(own.entry))?))
}

impl Own {
    fn new() -> Self {
        let frame = || frames::allocate().expect("memory for a window");
        let (top, window) = (frame(), frame());
        // SAFETY: the frame is new and zeroed: an empty table, known to nobody else.
        paging::share_kernel(unsafe { &mut *direct_map::<PageTable>(top) });
        map(top, WINDOW, window);
        map(top, PLAIN, *PLAIN_FRAME.call_once(frame));
        let entry = entry(top, WINDOW);
        // SAFETY: the entry that was just made, of a table that is not loaded yet.
        unsafe { &*direct_map::<AtomicU64>(entry) }.fetch_and(
            !Flags::PRESENT.bits(),
            core::sync::atomic::Ordering::Relaxed,
        );
        Self {
            top,
            frame: window,
            entry,
        }
    }
}

/// Maps `frame` at `virt` as user mode's data.
fn map(top: u64, virt: u64, frame: u64) {
    let data = Flags::PRESENT | Flags::WRITABLE | Flags::NO_EXECUTE | Flags::USER_ACCESSIBLE;
    let page = Page::<Size4KiB>::containing_address(VirtAddr::new(virt));
    let frame = PhysFrame::containing_address(PhysAddr::new(frame));
    // SAFETY: the table is new, and nobody else knows it.
    let mut mapper = unsafe { paging::mapper(top) };
    // SAFETY: an address that nobody uses otherwise, and a frame that is only reached by it and by `of`.
    let result = unsafe { mapper.map_to(page, frame, data, &mut TableFrames) };
    result.expect("a window is mapped once").ignore();
}

/// Physical address of the last level's entry for `virt`, which is mapped.
fn entry(top: u64, virt: u64) -> u64 {
    let mut table = top;
    for level in (1..4).rev() {
        let index = (virt >> (12 + 9 * level)) as usize & 511;
        // SAFETY: one of the tables that `map` made, which nobody changes now.
        table = unsafe { &*direct_map::<PageTable>(table) }[index]
            .addr()
            .as_u64();
    }
    table + (virt >> 12 & 511) * 8
}
