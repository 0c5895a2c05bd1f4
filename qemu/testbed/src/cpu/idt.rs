//! The interrupt descriptor table: 256 gates to the stubs of [`trap`](super::trap), all of them interrupt gates (interrupts
//! are off when the kernel is entered).
//!
//! Intel SDM, volume 3A, "64-Bit Mode IDT". It is written by hand because the handler types of the `x86_64` crate need a
//! calling convention that stable Rust does not have.

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

use super::gdt::{IST_DOUBLE_FAULT, IST_NMI, KERNEL_CODE};
use super::trap::{STUB_BYTES, VECTOR_DOUBLE_FAULT, VECTOR_NMI, stubs};

/// One gate: offset, selector, stack, type and privilege.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
struct Gate([u32; 4]);

static IDT: Once<[Gate; 256]> = Once::new();

impl Gate {
    fn new(handler: u64, ist: u8) -> Self {
        const PRESENT_INTERRUPT_GATE: u32 = 0x8e00;
        let [low, high] = [handler as u32, (handler >> 32) as u32];
        Self([
            u32::from(KERNEL_CODE) << 16 | low & 0xffff,
            low & 0xffff_0000 | PRESENT_INTERRUPT_GATE | u32::from(ist),
            high,
            0,
        ])
    }
}

/// Fills the table, once for all CPUs.
pub(super) fn build() {
    IDT.call_once(|| {
        let mut vector = 0;
        [(); 256].map(|()| {
            let ist = match vector {
                VECTOR_NMI => IST_NMI,
                VECTOR_DOUBLE_FAULT => IST_DOUBLE_FAULT,
                _ => 0,
            };
            let gate = Gate::new(stubs() + vector * STUB_BYTES, ist);
            vector += 1;
            gate
        })
    });
}

/// Loads the table on this CPU.
pub(super) fn load() {
    let table = IDT.get().expect("the table is built first");
    let pointer = DescriptorTablePointer {
        limit: 256 * 16 - 1,
        base: VirtAddr::from_ptr(table.as_ptr()),
    };
    // SAFETY: the table is static, and every gate leads to a stub.
    unsafe { lidt(&pointer) };
}
