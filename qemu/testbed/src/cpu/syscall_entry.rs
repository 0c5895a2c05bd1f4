//! The SYSCALL instruction's way in: it builds the same [`Frame`](super::trap::Frame) as an interrupt and leaves by the same
//! IRET, which has no trouble with addresses that SYSRET would fault on in the kernel.
//!
//! Intel SDM, volume 3A, "Fast System Calls in 64-Bit Mode"; volume 2B, "SYSCALL".

use core::arch::naked_asm;
use core::mem::offset_of;

use pcu9::percpu::Pcpu;
use x86_64::VirtAddr;
use x86_64::registers::model_specific::{Efer, EferFlags, LStar, Msr, SFMask};
use x86_64::registers::rflags::RFlags;

use super::Cpu;
use super::gdt::{KERNEL_CODE, KERNEL_DATA, USER_CODE, USER_DATA};
use super::trap::{VECTOR_SYSCALL, return_from_trap};
use crate::glue::PCPU;
use crate::lwp::Lwp;

/// Lets user mode of this CPU make system calls.
pub(super) fn init() {
    const IA32_STAR: u32 = 0xc000_0081;
    LStar::write(VirtAddr::new(syscall_entry as *const () as u64));
    SFMask::write(
        RFlags::INTERRUPT_FLAG
            | RFlags::TRAP_FLAG
            | RFlags::DIRECTION_FLAG
            | RFlags::ALIGNMENT_CHECK
            | RFlags::NESTED_TASK,
    );
    let selectors = u64::from(KERNEL_CODE) << 32 | u64::from(KERNEL_DATA) << 48;
    // SAFETY: SYSCALL takes CS and the SS after it from bits 32 to 47, which name the kernel's segments.
    unsafe { Msr::new(IA32_STAR).write(selectors) };
    // SAFETY: the entry point is set, so the instruction may be allowed.
    unsafe { Efer::update(|efer| efer.insert(EferFlags::SYSTEM_CALL_EXTENSIONS)) };
}

/// Where SYSCALL goes: interrupts off, the user's stack pointer still in `rsp`, its `rip` in `rcx`, its flags in `r11`.
#[unsafe(naked)]
extern "C" fn syscall_entry() {
    naked_asm!(
        "swapgs",
        "mov gs:[rip + {pcpu} + {user_rsp}], rsp",
        "mov rsp, gs:[rip + {pcpu} + {kernel_rsp}]",
        "push {user_data}",
        "push qword ptr gs:[rip + {pcpu} + {user_rsp}]",
        "push r11",
        "push {user_code}",
        "push rcx",
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
        "mov rdi, rsp",
        "cld",
        "call {handler}",
        "jmp {leave}",
        pcpu = sym PCPU,
        user_rsp = const offset_of!(Pcpu<Lwp, Cpu>, extension.user_rsp),
        kernel_rsp = const offset_of!(Pcpu<Lwp, Cpu>, extension.kernel_rsp),
        user_data = const USER_DATA,
        user_code = const USER_CODE,
        vector = const VECTOR_SYSCALL,
        handler = sym super::trap::handle,
        leave = sym return_from_trap,
    )
}
