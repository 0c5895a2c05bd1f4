//! Kernel stacks, each with an unmapped page below it: an overflow is a fault, not damage.
//!
//! A stack that comes back stays mapped and is used again, so that no other CPU's TLB has to be flushed.

use alloc::vec::Vec;

use super::{PAGE_BYTES, paging};
use crate::lock::IrqLock;

/// Where the stacks lie.
pub(super) const STACKS: u64 = 0xffff_c000_0000_0000;
/// 64 KiB: a test's LWP, the section of an interrupt that comes into it and the watch each have a few register files, of up to
/// 3.5 KiB, in their frames.
const STACK_PAGES: u64 = 16;
const SLOT_BYTES: u64 = 2 * STACK_PAGES * PAGE_BYTES;

#[derive(Debug)]
struct Stacks {
    n_slots: u64,
    free: Vec<u64>,
}

static STACK_SLOTS: IrqLock<Stacks> = IrqLock::new(Stacks {
    n_slots: 0,
    free: Vec::new(),
});

/// A kernel stack; it goes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Stack {
    top: u64,
}

impl Stack {
    /// Takes a stack, `None` when there is no memory for one.
    pub(crate) fn new() -> Option<Self> {
        let mut stacks = STACK_SLOTS.lock();
        if let Some(top) = stacks.free.pop() {
            return Some(Self { top });
        }
        let top = STACKS + (stacks.n_slots + 1) * SLOT_BYTES;
        stacks.n_slots += 1;
        for page in 1..=STACK_PAGES {
            paging::map_new(top - page * PAGE_BYTES)?;
        }
        Some(Self { top })
    }

    /// The address just above the stack, aligned to 16 bytes.
    pub(crate) fn top(&self) -> u64 {
        self.top
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        STACK_SLOTS.lock().free.push(self.top);
    }
}
