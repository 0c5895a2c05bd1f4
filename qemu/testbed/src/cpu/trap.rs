//! The way into the kernel and out of it: every exception and interrupt, one frame, one function.
//!
//! Exceptions in user mode are signals to the process; exceptions in the kernel end the run. Three ask `pcu9` first: #NM, whose
//! trap it serves, and #GP and #PF, which a restore of a bad image may raise.

use core::arch::{global_asm, naked_asm};
use core::sync::atomic::Ordering;

use pcu9::x86_64::{DeviceNotAvailable, UsedBy};
use x86_64::instructions::interrupts;
use x86_64::registers::control::Cr2;

use super::gdt::{USER_CODE, USER_DATA};
use super::{apic, crosscall};
use crate::glue::{HERE, SYSCALLS, TICKS, TRAPS};
use crate::testing::{annex, missing_clts};
use crate::{glue, process, sched, testing, trace};

pub(crate) const VECTOR_DEBUG: u64 = 1;
pub(super) const VECTOR_NMI: u64 = 2;
pub(crate) const VECTOR_DEVICE_NOT_AVAILABLE: u64 = 7;
pub(super) const VECTOR_DOUBLE_FAULT: u64 = 8;
const VECTOR_GENERAL_PROTECTION: u64 = 13;
pub(crate) const VECTOR_PAGE_FAULT: u64 = 14;
/// Not a real vector: what the system call entry puts in its place.
pub(super) const VECTOR_SYSCALL: u64 = 0x100;

/// Names of the exceptions; Intel SDM, volume 3A, "Exceptions and Interrupts", table of vectors.
const NAMES: [&str; 22] = [
    "#DE divide error",
    "#DB debug",
    "NMI",
    "#BP breakpoint",
    "#OF overflow",
    "#BR bound range exceeded",
    "#UD invalid opcode",
    "#NM device not available",
    "#DF double fault",
    "coprocessor segment overrun",
    "#TS invalid TSS",
    "#NP segment not present",
    "#SS stack fault",
    "#GP general protection",
    "#PF page fault",
    "reserved",
    "#MF x87 floating-point error",
    "#AC alignment check",
    "#MC machine check",
    "#XM SIMD floating-point error",
    "#VE virtualization",
    "#CP control protection",
];

/// What an entry into the kernel saves; the lower fields are pushed by the stubs, from `rip` on by the processor.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub(crate) struct Frame {
    pub(crate) r15: u64,
    pub(crate) r14: u64,
    pub(crate) r13: u64,
    pub(crate) r12: u64,
    pub(crate) r11: u64,
    pub(crate) r10: u64,
    pub(crate) r9: u64,
    pub(crate) r8: u64,
    pub(crate) rbp: u64,
    pub(crate) rdi: u64,
    pub(crate) rsi: u64,
    pub(crate) rdx: u64,
    pub(crate) rcx: u64,
    pub(crate) rbx: u64,
    pub(crate) rax: u64,
    pub(crate) vector: u64,
    pub(crate) error: u64,
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
    pub(crate) ss: u64,
}

impl Frame {
    /// What a program begins with in user mode: everything zero but these.
    pub(crate) fn of_user(rip: u64, rsp: u64) -> Self {
        Self {
            rip,
            cs: u64::from(USER_CODE),
            rflags: 1 << 9 | 2,
            rsp,
            ss: u64::from(USER_DATA),
            ..Self::default()
        }
    }

    fn is_user(&self) -> bool {
        self.cs & 3 == 3
    }

    /// Whose instruction was interrupted. A kernel thread that was given FPU state plays a user LWP, and has interrupts on; with
    /// interrupts off it is the kernel's own code.
    fn used_by(&self) -> UsedBy {
        let are_on = self.rflags & 1 << 9 != 0;
        if self.is_user() || (are_on && glue::kernel_lwp_has_fpu()) {
            UsedBy::Lwp
        } else {
            UsedBy::Kernel
        }
    }
}

/// How far apart the stubs are.
pub(super) const STUB_BYTES: u64 = 16;

global_asm!(
    r#"
    .text
    .balign 16
    .global trap_stubs
trap_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if vector == 2
    jmp nmi_entry
    .else
    .if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21)
    .else
    pushq $0
    .endif
    pushq $vector
    jmp trap_entry
    .endif
    .set vector, vector + 1
    .endr
"#,
    options(att_syntax)
);

unsafe extern "C" {
    static trap_stubs: u8;
}

/// The address of the first stub.
pub(super) fn stubs() -> u64 {
    (&raw const trap_stubs).addr() as u64
}

/// Saves the registers, calls [`handle`], and leaves by [`return_from_trap`]. The stack is aligned to 16 bytes at the call:
/// the processor aligns it, and the frame is 22 words.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn trap_entry() {
    naked_asm!(
        "test byte ptr [rsp + 24], 3",
        "jz 2f",
        "swapgs",
        "2:",
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
        handler = sym handle,
        leave = sym return_from_trap,
    )
}

/// Restores what the stack pointer names as a [`Frame`]; interrupts are off.
#[unsafe(naked)]
pub(super) extern "C" fn return_from_trap() {
    naked_asm!(
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
        "test byte ptr [rsp + 8], 3",
        "jz 2f",
        "swapgs",
        "2:",
        "iretq",
    )
}

/// Enters user mode for the first time with the registers of `frame`.
///
/// # Safety
///
/// `frame` describes user mode (selectors, interrupt flag set, nothing privileged), and the current LWP's address space is
/// loaded. Interrupts are off, and [`before_user`] has run.
#[unsafe(naked)]
unsafe extern "C" fn enter_user(frame: *const Frame) -> ! {
    naked_asm!("mov rsp, rdi", "jmp {leave}", leave = sym return_from_trap)
}

/// Starts a process's LWP in user mode.
pub(crate) fn start_user(mut frame: Frame) -> ! {
    assert!(frame.is_user(), "a user LWP starts in user mode");
    interrupts::disable();
    before_user(&mut frame);
    // SAFETY: the frame was built by the ELF loader or copied by fork, the scheduler loaded the address space, and the
    // line above did the rest.
    unsafe { enter_user(&raw const frame) }
}

/// Every entry comes here, with interrupts off, and they are off again at the end.
pub(super) extern "C" fn handle(frame: &mut Frame) {
    if frame.vector == VECTOR_SYSCALL {
        SYSCALLS.increment(HERE);
    } else {
        TRAPS.increment(HERE);
    }
    match frame.vector {
        VECTOR_SYSCALL => {
            interrupts::enable();
            process::syscall::handle(frame);
            interrupts::disable();
        }
        0..32 => exception(frame),
        apic::VECTOR_TIMER => {
            apic::end_of_interrupt();
            TICKS.increment(HERE);
            sched::tick();
            testing::in_timer();
        }
        apic::VECTOR_RESCHEDULE => apic::end_of_interrupt(),
        apic::VECTOR_CROSS_CALL => {
            apic::end_of_interrupt();
            crosscall::serve();
        }
        apic::VECTOR_SPURIOUS => {}
        vector => panic!("interrupt {vector:#x} came, which nothing sends"),
    }
    if frame.is_user() {
        before_user(frame);
    } else if frame.rflags & 1 << 9 != 0 {
        // Only where interrupts were on: what runs with them off is not to be preempted.
        sched::preempt();
    }
}

/// The last stop before user mode, which goes on with `frame`; interrupts are off.
fn before_user(frame: &mut Frame) {
    loop {
        sched::preempt();
        if process::signal::is_pending() {
            interrupts::enable();
            process::signal::deliver(frame);
            interrupts::disable();
            continue;
        }
        // It may wait with interrupts on, so both questions are asked again.
        glue::before_user();
        if !super::this().need_resched.load(Ordering::Relaxed) && !process::signal::is_pending() {
            trace::note_user();
            return;
        }
    }
}

fn exception(frame: &mut Frame) {
    let address = Cr2::read_raw();
    match frame.vector {
        VECTOR_DEBUG | VECTOR_DEVICE_NOT_AVAILABLE | VECTOR_PAGE_FAULT
            if frame.used_by() == UsedBy::Kernel && annex::serves(frame, address) =>
        {
            return;
        }
        VECTOR_DEVICE_NOT_AVAILABLE
            if !frame.is_user() && missing_clts::is_behind(frame.rflags) =>
        {
            return;
        }
        VECTOR_DEVICE_NOT_AVAILABLE => {
            let unit = match glue::whose_trap(frame.used_by(), frame.rip) {
                DeviceNotAvailable::Unit(unit) => unit,
                DeviceNotAvailable::Calibration => return,
                DeviceNotAvailable::KernelBug { rip } => {
                    let Some(resume) = testing::caught(rip) else {
                        panic_with(frame, address)
                    };
                    frame.rip = resume;
                    return;
                }
            };
            // Interrupts stay off up to the first section of `trap`, so that the CPU that trapped is the CPU that it looks
            // at; the cross-call turns them on while it waits.
            if let Err(error) = glue::trap(unit) {
                interrupts::enable();
                assert!(frame.is_user(), "#NM at {:#x}: {error}", frame.rip);
                process::kill(error);
            }
            return;
        }
        VECTOR_GENERAL_PROTECTION | VECTOR_PAGE_FAULT if !frame.is_user() => {
            if let Some(rip) = glue::fixup(frame.rip) {
                frame.rip = rip;
                return;
            }
        }
        _ => {}
    }
    if frame.is_user() {
        interrupts::enable();
        let name = NAMES.get(frame.vector as usize).unwrap_or(&"exception");
        process::signal::exception(frame, name, address);
        interrupts::disable();
        return;
    }
    panic_with(frame, address)
}

/// Reports an exception of the kernel itself.
fn panic_with(frame: &Frame, address: u64) -> ! {
    let name = NAMES.get(frame.vector as usize).unwrap_or(&"exception");
    crate::serial::write_line_forced(format_args!(
        "{name} in the kernel\n  rip {:#018x} rsp {:#018x} rflags {:#x} error {:#x} cr2 {address:#x}\n  \
         rax {:#018x} rbx {:#018x} rcx {:#018x} rdx {:#018x}\n  rsi {:#018x} rdi {:#018x} rbp {:#018x} r8  {:#018x}\n  \
         r9  {:#018x} r10 {:#018x} r11 {:#018x} r12 {:#018x}\n  r13 {:#018x} r14 {:#018x} r15 {:#018x}",
        frame.rip,
        frame.rsp,
        frame.rflags,
        frame.error,
        frame.rax,
        frame.rbx,
        frame.rcx,
        frame.rdx,
        frame.rsi,
        frame.rdi,
        frame.rbp,
        frame.r8,
        frame.r9,
        frame.r10,
        frame.r11,
        frame.r12,
        frame.r13,
        frame.r14,
        frame.r15,
    ));
    panic!(
        "{name} in the kernel at rip {:#x} (error {:#x}, address {address:#x})",
        frame.rip, frame.error
    )
}
