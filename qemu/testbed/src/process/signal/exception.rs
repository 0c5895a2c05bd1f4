//! Exceptions in user mode, as the signals that they are.

use core::fmt;

use pcu9::x86_64::fpu::foreign::Form;

use super::{Info, Signal, force};
use crate::cpu::trap::Frame;
use crate::glue::foreign;

const VECTOR_PAGE_FAULT: u64 = 14;

/// Codes of the signals: Linux, `include/uapi/asm-generic/siginfo.h`.
const SI_KERNEL: i32 = 0x80;
const ILL_ILLOPN: i32 = 2;
const TRAP_TRACE: i32 = 2;
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const FPE_INTDIV: i32 = 1;
const FPE_FLTDIV: i32 = 3;
const FPE_FLTOVF: i32 = 4;
const FPE_FLTUND: i32 = 5;
const FPE_FLTRES: i32 = 6;
const FPE_FLTINV: i32 = 7;

/// Why the process ends, if it has no handler.
struct Why<'a> {
    frame: &'a Frame,
    name: &'a str,
    address: u64,
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            frame,
            name,
            address,
        } = self;
        write!(
            f,
            "{name}, rip {:#x}, address {address:#x}, error code {:#x}",
            frame.rip, frame.error
        )
    }
}

/// The exception `name` came in user mode, with `cr2` in CR2: the process gets a signal, and ends here if it does not handle it.
/// Interrupts are on. Which signal: Linux, `arch/x86/kernel/traps.c`, `arch/x86/mm/fault.c`.
pub(crate) fn exception(frame: &Frame, name: &str, cr2: u64) {
    let is_page_fault = frame.vector == VECTOR_PAGE_FAULT;
    let address = if is_page_fault { cr2 } else { frame.rip };
    let (signal, code, value) = match frame.vector {
        0 => (Signal::FPE, FPE_INTDIV, address),
        1 => (Signal::TRAP, TRAP_TRACE, address),
        3 => (Signal::TRAP, SI_KERNEL, 0),
        6 => (Signal::ILL, ILL_ILLOPN, address),
        VECTOR_PAGE_FAULT if frame.error & 1 == 0 => (Signal::SEGV, SEGV_MAPERR, address),
        VECTOR_PAGE_FAULT => (Signal::SEGV, SEGV_ACCERR, address),
        16 | 19 => match float_code(frame.vector) {
            // As Linux does: what is gone when it is looked at needs no handler, and is tried again.
            Some(0) => return,
            code => (Signal::FPE, code.unwrap_or(SI_KERNEL), address),
        },
        _ => (Signal::SEGV, SI_KERNEL, 0),
    };
    let info = Info {
        code,
        value,
        trap: [
            frame.error,
            frame.vector,
            if is_page_fault { cr2 } else { 0 },
        ],
    };
    let why = Why {
        frame,
        name,
        address,
    };
    force(frame, signal, info, why);
}

/// What x87 or SSE found wrong, by its unmasked flags; 0 for nothing, `None` if the state cannot be looked at. Linux,
/// `arch/x86/kernel/fpu/core.c`, `fpu__exception_code`.
fn float_code(vector: u64) -> Option<i32> {
    let image = foreign::export(Form::Regset).ok()?;
    let word = |at| u16::from_le_bytes([image[at], image[at + 1]]);
    let wrong = if vector == 16 {
        word(2) & !word(0)
    } else {
        word(24) & !(word(24) >> 7)
    };
    Some(if wrong & 0x01 != 0 {
        FPE_FLTINV
    } else if wrong & 0x04 != 0 {
        FPE_FLTDIV
    } else if wrong & 0x08 != 0 {
        FPE_FLTOVF
    } else if wrong & 0x12 != 0 {
        FPE_FLTUND
    } else if wrong & 0x20 != 0 {
        FPE_FLTRES
    } else {
        0
    })
}
