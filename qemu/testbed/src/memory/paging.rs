//! The kernel's own page tables: W^X, and nothing in the lower half.
//!
//! Every mapping is writable or executable, never both; text and constants are read-only in the direct map as well.
//! Intel SDM, volume 3A, chapter "Paging", section "Access Rights".

use spin::Once;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::page_table::PageTable;
use x86_64::structures::paging::{
    Mapper, OffsetPageTable, Page, PageTableFlags as Flags, PhysFrame, Size2MiB, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

use super::frames::{self, TableFrames};
use super::{DIRECT_MAP, PAGE_BYTES, direct_map, window};
use crate::boot::info::BootInfo;

/// Where the kernel image is linked.
pub(crate) const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;
/// First of the 512 entries of a top-level table that belong to the kernel, and are the same in all of them.
const KERNEL_ENTRIES: core::ops::Range<usize> = 256..512;
const LARGE_PAGE_BYTES: u64 = 2 << 20;

/// Physical address of the kernel's top-level table.
static KERNEL_TABLE: Once<u64> = Once::new();

unsafe extern "C" {
    // Symbols of `kernel.ld`; their addresses are the values.
    static text_start: u8;
    static text_end: u8;
    static rodata_end: u8;
    static kernel_end: u8;
}

fn address(symbol: *const u8) -> u64 {
    symbol.addr() as u64
}

/// Physical address of the kernel's top-level table.
pub(crate) fn kernel_table() -> u64 {
    *KERNEL_TABLE
        .get()
        .expect("the kernel's tables are built first")
}

/// The table at physical address `top`, ready for changes.
///
/// # Safety
///
/// `top` is a top-level table that nobody else changes or reads through a reference meanwhile.
pub(crate) unsafe fn mapper(top: u64) -> OffsetPageTable<'static> {
    let table = direct_map::<PageTable>(top);
    // SAFETY: the caller promises that it is a table and that nobody else uses it; the direct map covers it.
    let table = unsafe { &mut *table };
    // SAFETY: every frame of every table is in the direct map.
    unsafe { OffsetPageTable::new(table, VirtAddr::new(DIRECT_MAP)) }
}

/// Builds the kernel's tables and switches to them; how much physical memory their direct map covers.
pub(super) fn init(info: &BootInfo) -> u64 {
    let top = frames::allocate().expect("no memory for page tables");
    // SAFETY: the frame is new and zeroed: an empty table, known to nobody else.
    let mut mapper = unsafe { mapper(top) };
    let memory_end = info
        .usable()
        .last()
        .map_or(0, |range| range.end)
        .max(4 << 30)
        .next_multiple_of(LARGE_PAGE_BYTES);

    for phys in (0..memory_end).step_by(LARGE_PAGE_BYTES as usize) {
        if phys < frames::image_end() {
            for phys in (phys..phys + LARGE_PAGE_BYTES).step_by(PAGE_BYTES as usize) {
                let constant = (address(&raw const text_start)..address(&raw const rodata_end))
                    .contains(&(phys + KERNEL_BASE));
                let writable = if constant {
                    Flags::empty()
                } else {
                    Flags::WRITABLE
                };
                map_small(
                    &mut mapper,
                    DIRECT_MAP + phys,
                    phys,
                    writable | Flags::NO_EXECUTE,
                );
            }
        } else {
            map_large(&mut mapper, DIRECT_MAP + phys, phys, info);
        }
    }
    for (start, end, flags) in [
        (&raw const text_start, &raw const text_end, Flags::empty()),
        (
            &raw const text_end,
            &raw const rodata_end,
            Flags::NO_EXECUTE,
        ),
        (
            &raw const rodata_end,
            &raw const kernel_end,
            Flags::NO_EXECUTE | Flags::WRITABLE,
        ),
    ] {
        for virt in (address(start)..address(end)).step_by(PAGE_BYTES as usize) {
            map_small(&mut mapper, virt, virt - KERNEL_BASE, flags);
        }
    }
    reserve_kernel_entries(&mut mapper);
    KERNEL_TABLE.call_once(|| top);
    // SAFETY: the tables map the running code, its stack (in the image) and the direct map as the boot tables did.
    unsafe { activate(top) };
    memory_end
}

/// Gives every kernel entry that is used later its second-level table now, so that all address spaces share it.
fn reserve_kernel_entries(mapper: &mut OffsetPageTable<'_>) {
    let index = usize::from(VirtAddr::new(super::stacks::STACKS).p4_index());
    let entry = &mut mapper.level_4_table_mut()[index];
    let table = frames::allocate().expect("no memory for page tables");
    entry.set_addr(PhysAddr::new(table), Flags::PRESENT | Flags::WRITABLE);
}

fn map_small(mapper: &mut OffsetPageTable<'_>, virt: u64, phys: u64, flags: Flags) {
    let page = Page::<Size4KiB>::containing_address(VirtAddr::new(virt));
    let frame = PhysFrame::containing_address(PhysAddr::new(phys));
    // SAFETY: called for kernel addresses only, for the mappings that this module's documentation lists.
    let result = unsafe { mapper.map_to(page, frame, flags | Flags::PRESENT, &mut TableFrames) };
    result
        .expect("a kernel page is mapped once, and there is memory for its tables")
        .ignore();
}

fn map_large(mapper: &mut OffsetPageTable<'_>, virt: u64, phys: u64, info: &BootInfo) {
    // Device registers: whatever lies in no usable range is mapped uncached if it is above the memory below 4 GiB.
    let memory = info
        .usable()
        .iter()
        .any(|range| range.start < phys + LARGE_PAGE_BYTES && range.end > phys);
    let device = !memory && phys >= 0xe000_0000;
    let cache = if device {
        Flags::NO_CACHE | Flags::WRITE_THROUGH
    } else {
        Flags::empty()
    };
    let page = Page::<Size2MiB>::containing_address(VirtAddr::new(virt));
    let frame = PhysFrame::containing_address(PhysAddr::new(phys));
    let flags = Flags::PRESENT | Flags::WRITABLE | Flags::NO_EXECUTE | cache;
    // SAFETY: the direct map is data, for the kernel alone.
    let result = unsafe { mapper.map_to(page, frame, flags, &mut TableFrames) };
    result
        .expect("the direct map is mapped once, and there is memory for its tables")
        .ignore();
}

/// Maps a zeroed frame at a kernel address.
pub(super) fn map_new(virt: u64) -> Option<()> {
    let frame = frames::allocate()?;
    // SAFETY: called under the lock of the kernel stacks, the only ones who change the kernel's tables after boot.
    let mut mapper = unsafe { mapper(kernel_table()) };
    map_small(
        &mut mapper,
        virt,
        frame,
        Flags::WRITABLE | Flags::NO_EXECUTE,
    );
    Some(())
}

/// Copies the kernel's entries into a new top-level table.
pub(crate) fn share_kernel(table: &mut PageTable) {
    // SAFETY: these entries never change after boot, so reading them competes with nobody.
    let kernel = unsafe { &*direct_map::<PageTable>(kernel_table()) };
    for index in KERNEL_ENTRIES {
        table[index] = kernel[index].clone();
    }
}

/// Loads CR3; in the place of the kernel's table the CPU's own, if it has one.
///
/// # Safety
///
/// `top` is a top-level table that maps the kernel as all of them do, and stays while it is loaded.
pub(crate) unsafe fn activate(top: u64) {
    let own = (KERNEL_TABLE.get() == Some(&top)).then(window::own_table);
    let top = own.flatten().unwrap_or(top);
    let frame = PhysFrame::containing_address(PhysAddr::new(top));
    // SAFETY: passed on to the caller; a CPU's own table has the kernel's entries, and stays for good.
    unsafe { Cr3::write(frame, Cr3Flags::empty()) };
}
