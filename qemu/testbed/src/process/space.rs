//! An address space: page tables whose upper half is the kernel's, and the frames that its lower half maps.
//!
//! Every page is mapped when it is asked for, so a fault in user mode is always an error. The kernel reads and writes user memory
//! through the direct map after it looked the address up, so no user address can make it fault.
//!
//! Threads share a space, and one at a time changes it or goes by it, under the process's lock. What another CPU may have in its TLB is
//! flushed there before a frame is free and before a right that was taken away is taken for gone. A page that comes to where none was
//! needs no flush: processors remember no entry that is not present (Intel SDM, volume 3A, "Caching Translations in TLBs").
//! What the kernel reads while another thread writes it may be old, new, or of both; nothing is believed of it.

use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};

use x86_64::structures::paging::page_table::PageTable;
use x86_64::structures::paging::{Mapper, Page, PageTableFlags as Flags, PhysFrame, Size4KiB};
use x86_64::{PhysAddr, VirtAddr};

use crate::cpu::crosscall;
use crate::memory::frames::{self, TableFrames};
use crate::memory::{PAGE_BYTES, USER_END, direct_map, paging};

/// Where anonymous mappings begin.
const MMAP_START: u64 = 0x7f00_0000_0000;
/// Frames that processes must leave to the kernel.
const RESERVE: u64 = 256;

/// What user mode may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing; the page keeps its contents.
    None,
    Read,
    ReadWrite,
    ReadExecute,
}

impl Access {
    fn flags(self) -> Flags {
        let more = match self {
            Self::None => return Flags::PRESENT | Flags::NO_EXECUTE,
            Self::Read => Flags::NO_EXECUTE,
            Self::ReadWrite => Flags::NO_EXECUTE | Flags::WRITABLE,
            Self::ReadExecute => Flags::empty(),
        };
        Flags::PRESENT | Flags::USER_ACCESSIBLE | more
    }
}

/// An address space.
#[derive(Debug)]
pub(crate) struct Space {
    top: u64,
    /// Where the heap begins and ends (`brk`).
    pub(crate) brk_start: u64,
    pub(crate) brk: u64,
    mmap_next: u64,
    /// Other CPUs may run in it.
    is_shared: bool,
}

/// How many pages are taken away between two flushes of the other CPUs.
const BATCH_PAGES: usize = 256;

impl Space {
    /// Makes an empty one, `None` without memory.
    pub(crate) fn new() -> Option<Self> {
        let top = frames::allocate()?;
        // SAFETY: the frame is new and zeroed: an empty table, known to nobody else.
        paging::share_kernel(unsafe { &mut *direct_map::<PageTable>(top) });
        Some(Self {
            top,
            brk_start: 0,
            brk: 0,
            mmap_next: MMAP_START,
            is_shared: false,
        })
    }

    /// The physical address of its top-level table.
    pub(crate) fn top(&self) -> u64 {
        self.top
    }

    /// Takes note that more than one thread will run in it.
    pub(crate) fn share(&mut self) {
        self.is_shared = true;
    }

    /// Flushes what other CPUs may remember of it. The holder of the process's lock waits for them with interrupts on, and they answer
    /// though they wait for the lock.
    fn flush_elsewhere(&self) {
        if self.is_shared {
            crosscall::flush_others();
        }
    }

    /// The entry that maps `virt` for user mode.
    fn entry(&self, virt: u64) -> Option<(u64, Flags)> {
        let mut table = self.top;
        if virt >= USER_END {
            return None;
        }
        for level in (0..4).rev() {
            let index = (virt >> (12 + 9 * level)) as usize & 511;
            // SAFETY: `table` is one of this space's tables, and who changes one has `self` alone.
            let entry = &unsafe { &*direct_map::<PageTable>(table) }[index];
            if !entry
                .flags()
                .contains(Flags::PRESENT | Flags::USER_ACCESSIBLE)
            {
                return None;
            }
            if level == 0 {
                return Some((entry.addr().as_u64(), entry.flags()));
            }
            table = entry.addr().as_u64();
        }
        None
    }

    /// Maps a new zeroed page at `virt`; its frame. `None` without memory, outside user addresses, or where a page is.
    pub(crate) fn map(&mut self, virt: u64, access: Access) -> Option<u64> {
        if virt >= USER_END || frames::n_free() < RESERVE {
            return None;
        }
        let frame = frames::allocate()?;
        // SAFETY: the table is this space's own, and the borrow of `self` makes this its only user.
        let mut mapper = unsafe { paging::mapper(self.top) };
        let page = Page::<Size4KiB>::containing_address(VirtAddr::new(virt));
        let to = PhysFrame::containing_address(PhysAddr::new(frame));
        // The rights are the last level's alone, since they may change.
        let tables = Flags::PRESENT | Flags::WRITABLE | Flags::USER_ACCESSIBLE;
        // SAFETY: the page is in the lower half and the frame is new: no other mapping shares it.
        let result = unsafe {
            mapper.map_to_with_table_flags(page, to, access.flags(), tables, &mut TableFrames)
        };
        if let Ok(flush) = result {
            flush.flush();
            return Some(frame);
        }
        // SAFETY: the frame is new, and the mapping did not come about.
        unsafe { frames::free(frame) };
        None
    }

    /// Maps new pages over `start..end`, rounded outwards; `None` when one cannot be.
    pub(crate) fn map_range(&mut self, start: u64, end: u64, access: Access) -> Option<()> {
        let first = start / PAGE_BYTES * PAGE_BYTES;
        (first..end)
            .step_by(PAGE_BYTES as usize)
            .try_for_each(|virt| self.map(virt, access).map(drop))
    }

    /// Changes what user mode may do with mapped pages; `None`, perhaps after some, where none is mapped.
    pub(crate) fn protect(&mut self, pages: Range<u64>, access: Access) -> Option<()> {
        // SAFETY: the table is this space's own, and the borrow of `self` makes this its only user.
        let mut mapper = unsafe { paging::mapper(self.top) };
        let mut change = |virt| {
            let page = Page::<Size4KiB>::containing_address(VirtAddr::new(virt));
            // SAFETY: the page is in the lower half; no kernel reference points there.
            let result = unsafe { mapper.update_flags(page, access.flags()) };
            result.ok()?.flush();
            Some(())
        };
        let result = pages.step_by(PAGE_BYTES as usize).try_for_each(&mut change);
        self.flush_elsewhere();
        result
    }

    /// Takes pages away, where there are any.
    pub(crate) fn unmap(&mut self, pages: Range<u64>) {
        let mut frames = Vec::with_capacity(BATCH_PAGES);
        for virt in pages.step_by(PAGE_BYTES as usize) {
            // SAFETY: the table is this space's own, and the borrow of `self` makes this its only user.
            let mut mapper = unsafe { paging::mapper(self.top) };
            let page = Page::<Size4KiB>::containing_address(VirtAddr::new(virt));
            if let Ok((frame, flush)) = mapper.unmap(page) {
                flush.flush();
                frames.push(frame.start_address().as_u64());
            }
            if frames.len() == BATCH_PAGES {
                self.free(&mut frames);
            }
        }
        self.free(&mut frames);
    }

    /// Frees frames that are mapped no longer.
    fn free(&self, frames: &mut Vec<u64>) {
        if !frames.is_empty() {
            self.flush_elsewhere();
        }
        for frame in frames.drain(..) {
            // SAFETY: the only mapping of the frame is gone, and no CPU has it in its TLB.
            unsafe { frames::free(frame) };
        }
    }

    /// Chooses a place for `bytes` of anonymous memory.
    pub(crate) fn choose(&mut self, bytes: u64) -> Option<u64> {
        let start = self.mmap_next;
        let end = start
            .checked_add(bytes)?
            .checked_next_multiple_of(PAGE_BYTES)?;
        if end >= USER_END - (1 << 30) {
            return None;
        }
        self.mmap_next = end + PAGE_BYTES; // a page in between that is never mapped
        Some(start)
    }

    /// Calls `f` with the direct map's address of each piece of `start..start + len`; `None` (perhaps after some calls) when user
    /// mode may not read, or with `write` not write, all of it.
    fn pieces(
        &self,
        start: u64,
        len: usize,
        write: bool,
        mut f: impl FnMut(*mut u8, Range<usize>),
    ) -> Option<()> {
        let mut done = 0;
        while done < len {
            let virt = start.checked_add(done as u64)?;
            let (frame, flags) = self.entry(virt)?;
            if write && !flags.contains(Flags::WRITABLE) {
                return None;
            }
            let offset = virt % PAGE_BYTES;
            let n = (len - done).min((PAGE_BYTES - offset) as usize);
            f(direct_map(frame + offset), done..done + n);
            done += n;
        }
        Some(())
    }

    /// Copies from user memory.
    pub(crate) fn read(&self, start: u64, to: &mut [u8]) -> Option<()> {
        self.pieces(start, to.len(), false, |from, range| {
            let to = &mut to[range];
            // SAFETY: the piece lies in one mapped frame, and the kernel's buffer is elsewhere.
            unsafe { to.as_mut_ptr().copy_from_nonoverlapping(from, to.len()) };
        })
    }

    /// Copies from user memory as much as user mode may read from `start` on without a gap; how much it was.
    pub(crate) fn read_some(&self, start: u64, to: &mut [u8]) -> usize {
        let mut done = 0;
        let len = to.len();
        let all = self.pieces(start, len, false, |from, range| {
            done = range.end;
            let to = &mut to[range];
            // SAFETY: the piece lies in one mapped frame, and the kernel's buffer is elsewhere.
            unsafe { to.as_mut_ptr().copy_from_nonoverlapping(from, to.len()) };
        });
        debug_assert_eq!(all.is_some(), done == len, "the pieces come in order");
        done
    }

    /// Copies to user memory that user mode may write.
    pub(crate) fn write(&mut self, start: u64, from: &[u8]) -> Option<()> {
        self.copy_in(start, from, true)
    }

    /// Copies to user memory whatever user mode may do with it; for the loader.
    pub(crate) fn fill(&mut self, start: u64, from: &[u8]) -> Option<()> {
        self.copy_in(start, from, false)
    }

    fn copy_in(&mut self, start: u64, from: &[u8], must_be_writable: bool) -> Option<()> {
        self.pieces(start, from.len(), must_be_writable, |to, range| {
            let from = &from[range];
            // SAFETY: the piece lies in one mapped frame of this space, and the kernel's buffer is elsewhere.
            unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        })
    }

    /// Reads a word that threads of the process may be writing; `virt` is a multiple of 4.
    pub(crate) fn word(&self, virt: u64) -> Option<u32> {
        let (frame, _) = self.entry(virt)?;
        let word = direct_map::<AtomicU32>(frame + virt % PAGE_BYTES);
        // SAFETY: the word lies in a mapped frame, aligned, and is only ever looked at by atomic instructions.
        Some(unsafe { &*word }.load(Ordering::SeqCst))
    }

    /// Whether `virt` is mapped, and how.
    pub(crate) fn access(&self, virt: u64) -> Option<Access> {
        self.entry(virt).map(|(_, flags)| access_of(flags))
    }

    /// What is mapped, in ranges of one kind of access each, the lowest first.
    pub(crate) fn ranges(&self) -> Vec<(Range<u64>, Access)> {
        let mut ranges: Vec<(Range<u64>, Access)> = Vec::new();
        for_each_page(self.top, &mut |virt, _, flags| {
            let access = access_of(flags);
            match ranges.last_mut() {
                Some((range, same)) if range.end == virt && *same == access => {
                    range.end += PAGE_BYTES;
                }
                _ => ranges.push((virt..virt + PAGE_BYTES, access)),
            }
        });
        ranges
    }

    /// Makes a copy of everything, `None` without memory.
    pub(crate) fn copy(&self) -> Option<Self> {
        let mut copy = Self::new()?;
        (copy.brk_start, copy.brk, copy.mmap_next) = (self.brk_start, self.brk, self.mmap_next);
        let mut complete = true;
        for_each_page(self.top, &mut |virt, frame, flags| {
            let Some(to) = complete.then(|| copy.map(virt, access_of(flags))).flatten() else {
                complete = false;
                return;
            };
            // SAFETY: both are whole frames, the new one is the copy's alone.
            unsafe { copy_frame(direct_map(frame), direct_map(to)) };
        });
        complete.then_some(copy)
    }
}

/// Copies a frame's contents.
///
/// # Safety
///
/// Both are whole frames in the direct map, `to` is nobody else's.
unsafe fn copy_frame(from: *const u8, to: *mut u8) {
    // SAFETY: the caller promises both.
    unsafe { to.copy_from_nonoverlapping(from, PAGE_BYTES as usize) };
}

fn access_of(flags: Flags) -> Access {
    if !flags.contains(Flags::USER_ACCESSIBLE) {
        Access::None
    } else if flags.contains(Flags::WRITABLE) {
        Access::ReadWrite
    } else if flags.contains(Flags::NO_EXECUTE) {
        Access::Read
    } else {
        Access::ReadExecute
    }
}

/// Calls `f` with the address, frame and flags of every page of the lower half.
fn for_each_page(top: u64, f: &mut impl FnMut(u64, u64, Flags)) {
    walk(top, 3, 0, &mut |virt, level, entry, flags| {
        if level == 0 {
            f(virt, entry, flags);
        }
    });
}

/// Visits the entries of the lower half, the lower levels first.
fn walk(table: u64, level: u32, base: u64, f: &mut impl FnMut(u64, u32, u64, Flags)) {
    let n_entries = if level == 3 { 256 } else { 512 };
    for index in 0..n_entries {
        // SAFETY: `table` is a table of a space that the caller holds; nobody changes it meanwhile.
        let entry = &unsafe { &*direct_map::<PageTable>(table) }[index];
        let (to, flags) = (entry.addr().as_u64(), entry.flags());
        if flags.contains(Flags::PRESENT) {
            let virt = base | (index as u64) << (12 + 9 * level);
            if level > 0 {
                walk(to, level - 1, virt, f);
            }
            f(virt, level, to, flags);
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        walk(self.top, 3, 0, &mut |_, _, frame, _| {
            // SAFETY: the lower half's frames and tables are this space's own, it is loaded on no CPU, and a table is
            // visited after everything below it.
            unsafe { frames::free(frame) };
        });
        // SAFETY: as above; the top-level table is the last.
        unsafe { frames::free(self.top) };
    }
}
