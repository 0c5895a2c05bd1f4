//! The kernel that you already have: the outside world, the interrupt flag, the table of exceptions.

use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use x86_64::VirtAddr;
use x86_64::instructions::{hlt, interrupts, port::Port, tables::lidt};
use x86_64::structures::DescriptorTablePointer;

/// The first serial line.
#[derive(Debug)]
pub(crate) struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| out_byte(0x3f8, byte));
        Ok(())
    }
}

macro_rules! say {
    ($($arg:tt)*) => {
        core::fmt::Write::write_fmt(&mut $crate::machine::Serial, format_args!("{}\n", format_args!($($arg)*)))
            .expect("the serial line does not fail")
    };
}
pub(crate) use say;

/// Writes to a port.
pub(crate) fn out_byte(port: u16, value: u8) {
    // SAFETY: the ports of the serial line and of the interrupt controllers; they do not touch memory.
    unsafe { Port::new(port).write(value) };
}

/// QEMU's isa-debug-exit: status 33 for 0x10, 35 for 0x11.
pub(crate) fn exit_emulator(value: u32) -> ! {
    // SAFETY: a port of QEMU's own device, which ends the run.
    unsafe { Port::new(0xf4).write(value) };
    halt()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Serial, "@panic {}", info.message());
    exit_emulator(0x11)
}

/// Halts, and serves interrupts where they are on.
pub(crate) fn halt() -> ! {
    loop {
        hlt();
    }
}

/// Turns interrupts off; says whether they were on.
pub(crate) fn irq_save() -> bool {
    let were_on = interrupts::are_enabled();
    interrupts::disable();
    were_on
}

/// Turns them on again, if they were.
pub(crate) fn irq_restore(were_on: bool) {
    if were_on {
        interrupts::enable();
    }
}

/// An LWP's stack.
#[derive(Debug)]
#[repr(align(16))]
pub(crate) struct Stack(pub(crate) [AtomicU64; 1024]);

impl Stack {
    /// Makes an empty one.
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 1024])
    }
}

/// What is on the stack when `exception` runs: pushed by the stubs, then by the CPU.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Frame {
    pub(crate) scratch: [u64; 9],
    pub(crate) vector: u64,
    pub(crate) error: u64,
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) rflags: u64,
}

unsafe extern "C" {
    // `asm.s` defines it.
    safe static exception_stubs: [[u8; 16]; 33];
}

static IDT: [[AtomicU64; 2]; 33] = [const { [const { AtomicU64::new(0) }; 2] }; 33];

/// All gates are interrupt gates: nothing may come between `#NM` and the call of `Pcu::trap`.
pub(crate) fn load_idt() {
    const PRESENT_INTERRUPT_GATE_CS_8: u64 = 0x8e00 << 32 | 8 << 16;
    for (gate, stub) in IDT.iter().zip(&exception_stubs) {
        let at = stub.as_ptr().addr() as u64;
        let low = at & 0xffff | (at & 0xffff_0000) << 32 | PRESENT_INTERRUPT_GATE_CS_8;
        gate[0].store(low, Relaxed);
        gate[1].store(at >> 32, Relaxed);
    }
    let base = VirtAddr::from_ptr(&raw const IDT);
    // SAFETY: a static table, each gate of which leads to a stub.
    unsafe { lidt(&DescriptorTablePointer { limit: 527, base }) };
}
