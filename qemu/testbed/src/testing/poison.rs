//! Poison for kernel memory through which FPU state goes to user mode: if a byte of it gets there, two frames of the same state differ.

use core::sync::atomic::{AtomicU64, Ordering};

use pcu9::x86_64::fpu;

/// 0: off. Else how often it was used.
static USES: AtomicU64 = AtomicU64::new(0);

/// Turns it on or off.
pub fn poison_frames(on: bool) {
    USES.store(u64::from(on), Ordering::Relaxed);
}

/// Another byte each time, `None` while it is off.
fn next() -> Option<u8> {
    if USES.load(Ordering::Relaxed) == 0 {
        return None;
    }
    Some(0x80 | USES.fetch_add(1, Ordering::Relaxed) as u8)
}

/// Fills a buffer that is about to be written.
pub(crate) fn spoil(buffer: &mut [u8]) {
    if let Some(poison) = next() {
        buffer.fill(poison);
    }
}

/// Fills what is not state in a new LWP's area: where there is a header its `XSTATE_BV` is 0, so that every component is what its first
/// save leaves; without, the unused bytes. Intel SDM, volume 1, "XSAVE Area".
///
/// Not x87's opcode, nor the reserved bytes behind each of its registers: QEMU 7.2's saves do not write them (`do_xsave_fpu` in
/// `target/i386/tcg/fpu_helper.c`), so they stay what they were in the area, zero or the program's own.
pub(crate) fn spoil_area(area: &mut [u8]) {
    let Some(poison) = next() else { return };
    if fpu::features().xcr0() == 0 {
        area[416..512].fill(poison);
        return;
    }
    area[..6].fill(poison);
    area[8..24].fill(poison);
    for register in area[32..160].chunks_mut(16) {
        register[..10].fill(poison);
    }
    area[160..512].fill(poison);
    area[576..].fill(poison);
}
