//! Non-maskable interrupts: they come between any two instructions, whatever the level.
//!
//! Once a CPU has panicked, an NMI stops the CPU that it reaches, and looks at nothing else: the panic may be about anything.
//! Otherwise it is counted and done with; tests send such ones ([`testing::nmi_here`](crate::testing::nmi_here)).
//!
//! - *Stack.* It has one of its own (interrupt stack table), since it may come before the kernel has loaded its stack pointer. The
//!   processor keeps a second one back until IRET (Intel SDM, volume 3A, "Handling Multiple NMIs"), so the first one's frame is
//!   safe as long as nothing in between executes IRET: the handler takes no exception and leaves interrupts off.
//! - *`gs`.* It may come between an entry and its SWAPGS, or between SWAPGS and IRET, where the base is the user's though `CS` is
//!   the kernel's; and neither base can be told by its sign here. So it asks nobody: a word on top of the stack is the CPU's own
//!   base, which is written to the MSR, and what was there is written back at the end.
//! - *FPU.* It touches neither registers nor gate, and is refused a kernel section ([`glue::section`](crate::glue::section)):
//!   what it interrupted may have opened the gate for a save that is yet to come.

use core::arch::naked_asm;
use core::mem::size_of;
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::VirtAddr;

use super::this;
use super::trap::{Frame, VECTOR_NMI};
use crate::testing;

const IA32_GS_BASE: u32 = 0xc000_0101;

/// How many CPUs an NMI has stopped.
pub(crate) static N_STOPPED: AtomicU64 = AtomicU64::new(0);

/// Puts the CPU's base of `gs` on top of its stack for NMIs; where that begins below it.
pub(super) fn prepare_stack(top: u64, gs_base: VirtAddr) -> u64 {
    let at = top - 16; // the processor aligns it to 16 bytes
    let place = core::ptr::with_exposed_provenance_mut::<u64>(at as usize);
    // SAFETY: the stack is new and mapped, and nobody runs on it.
    unsafe { place.write(gs_base.as_u64()) };
    at
}

/// Where the stub goes, with the processor's five words on the stack.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn nmi_entry() {
    naked_asm!(
        "cmp qword ptr [rip + {panicked}], 0",
        "je 3f",
        "lock inc qword ptr [rip + {n_stopped}]",
        "2:",
        "cli",
        "hlt",
        "jmp 2b",
        "3:",
        "push 0",
        "push {vector}",
        "push rax",
        "push rbx",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push rbp",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov ecx, {gs_base}",
        "rdmsr",
        "mov r12d, eax",
        "mov r13d, edx",
        "mov eax, [rsp + {frame_bytes}]",
        "mov edx, [rsp + {frame_bytes} + 4]",
        "wrmsr",
        "mov rdi, rsp",
        "cld",
        "call {handler}",
        "mov ecx, {gs_base}",
        "mov eax, r12d",
        "mov edx, r13d",
        "wrmsr",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rbp",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rbx",
        "pop rax",
        "add rsp, 16",
        "iretq",
        panicked = sym crate::exit::PANICKED,
        n_stopped = sym N_STOPPED,
        vector = const VECTOR_NMI,
        gs_base = const IA32_GS_BASE,
        frame_bytes = const size_of::<Frame>(),
        handler = sym handle,
    )
}

/// An NMI with nobody in panic. Nothing here may fault, wait for a lock, or use the FPU.
extern "C" fn handle(_: &Frame) {
    let cpu = this();
    cpu.in_nmi.store(true, Ordering::Relaxed);
    testing::in_nmi();
    cpu.n_nmis.fetch_add(1, Ordering::Relaxed);
    cpu.in_nmi.store(false, Ordering::Relaxed);
}
