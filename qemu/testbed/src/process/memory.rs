//! The system calls about memory.

use core::ops::Range;

use super::current;
use super::space::Access;
use super::syscall::{Answer, Errno};
use crate::memory::{PAGE_BYTES, USER_END};

pub(super) fn mmap(at: u64, bytes: u64, protection: u64, flags: u64) -> Answer {
    const MAP_SHARED: u64 = 1;
    const MAP_FIXED: u64 = 0x10;
    const MAP_ANONYMOUS: u64 = 0x20;
    if bytes == 0 || flags & MAP_ANONYMOUS == 0 || flags & MAP_SHARED != 0 {
        return Err(Errno::Invalid);
    }
    let access = access(protection)?;
    let fixed = match flags & MAP_FIXED {
        0 => None,
        _ => Some(pages(at, bytes)?),
    };
    pages(0, bytes).map_err(|_| Errno::NoMemory)?;
    current().with_space(|space| {
        let start = match fixed {
            Some(pages) => {
                space.unmap(pages);
                at
            }
            None => space.choose(bytes).ok_or(Errno::NoMemory)?,
        };
        let end = start + bytes;
        if space.map_range(start, end, access).is_none() {
            space.unmap(start..end);
            return Err(Errno::NoMemory);
        }
        Ok(start)
    })
}

/// What a protection asks for; never writable and executable at once.
fn access(protection: u64) -> Result<Access, Errno> {
    const PROT_WRITE: u64 = 2;
    const PROT_EXEC: u64 = 4;
    match (protection & PROT_WRITE != 0, protection & PROT_EXEC != 0) {
        (true, true) => Err(Errno::Perm),
        (true, false) => Ok(Access::ReadWrite),
        (false, true) => Ok(Access::ReadExecute),
        (false, false) if protection == 0 => Ok(Access::None),
        (false, false) => Ok(Access::Read),
    }
}

/// The pages of `start..start + bytes`, which must begin on a page boundary and lie in user memory; 4 GiB at most, which
/// is more than any machine of this kernel has.
fn pages(start: u64, bytes: u64) -> Result<Range<u64>, Errno> {
    let end = start
        .checked_add(bytes)
        .filter(|&end| end <= USER_END && bytes <= 4 << 30);
    match end {
        Some(end) if start.is_multiple_of(PAGE_BYTES) => Ok(start..end),
        _ => Err(Errno::Invalid),
    }
}

pub(super) fn mprotect(start: u64, bytes: u64, protection: u64) -> Answer {
    let pages = pages(start, bytes)?;
    let access = access(protection)?;
    current()
        .with_space(|space| space.protect(pages, access))
        .map(|()| 0)
        .ok_or(Errno::NoMemory)
}

pub(super) fn munmap(start: u64, bytes: u64) -> Answer {
    let pages = pages(start, bytes)?;
    current().with_space(|space| space.unmap(pages));
    Ok(0)
}

/// Moves the heap's end up; it stays where it is when that cannot be done, and memory never goes back.
pub(super) fn brk(wanted: u64) -> u64 {
    current().with_space(|space| {
        if wanted >= space.brk && wanted < space.brk_start + (1 << 30) {
            let from = space.brk.next_multiple_of(PAGE_BYTES);
            if space
                .map_range(from, wanted.max(from), Access::ReadWrite)
                .is_some()
            {
                space.brk = wanted;
            }
        }
        space.brk
    })
}

/// Pages that the program can do without: none is taken back.
pub(super) fn madvise(start: u64, bytes: u64, advice: u64) -> Answer {
    const MADV_FREE: u64 = 8;
    pages(start, bytes)?;
    if advice == MADV_FREE {
        Ok(0)
    } else {
        Err(Errno::Invalid)
    }
}
