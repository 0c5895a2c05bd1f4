//! The start of the other CPUs: INIT, STARTUP, a few instructions below 1 MiB, and the same Rust code as the boot CPU.
//!
//! Intel SDM, volume 3A, "Multiple-Processor (MP) Initialization" and "Typical AP Initialization Sequence". One CPU after the
//! other, so one mailbox is enough. A CPU that left comes back the same way.

use core::arch::{global_asm, naked_asm};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{apic, block, hotplug, n_cpus, time};
use crate::memory::stacks::Stack;
use crate::memory::{direct_map, paging};
use crate::{glue, sched};

/// The page in which the other CPUs begin; the frame allocator never touches memory below 1 MiB.
const TRAMPOLINE: u64 = 0x8000;

global_asm!(
    r#"
    .section .rodata.trampoline, "a", @progbits
    .global trampoline_start, trampoline_end
    .code16
trampoline_start:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl 0x8000 + (trampoline_gdt_pointer - trampoline_start)
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x18, $(0x8000 + (trampoline_32 - trampoline_start))
    .code32
trampoline_32:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $(0x8000 + 4096), %esp
    movl $boot_enable_paging, %eax
    call *%eax
    ljmpl $0x08, $(0x8000 + (trampoline_64 - trampoline_start))
    .code64
trampoline_64:
    xorl %eax, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw %ax, %fs
    movw %ax, %gs
    movabsq ${upper_half}, %rcx
    jmpq *%rcx
    .balign 8
trampoline_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x00cf9b000000ffff
trampoline_gdt_pointer:
    .short 31
    .long 0x8000 + (trampoline_gdt - trampoline_start)
trampoline_end:
    .text
"#,
    upper_half = sym upper_half,
    options(att_syntax)
);

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
}

/// The mailbox: the stack of the CPU that is being started.
static STACK_TOP: AtomicU64 = AtomicU64::new(0);
/// The kernel's top-level page table, where [`upper_half`] finds it.
static TABLE: AtomicU64 = AtomicU64::new(0);
/// The number of the CPU that is being started.
static INDEX: AtomicU64 = AtomicU64::new(0);

/// Starts every CPU of `apic_ids` but the first, which is the caller.
///
/// # Panics
///
/// When a CPU does not come up.
pub(crate) fn start_others(apic_ids: &[u8]) {
    let code = &raw const trampoline_start;
    let len = (&raw const trampoline_end).addr() - code.addr();
    // SAFETY: the page at this address is usable memory below 1 MiB that nothing else uses; the source is the image's.
    unsafe { direct_map::<u8>(TRAMPOLINE).copy_from_nonoverlapping(code, len) };
    TABLE.store(paging::kernel_table(), Ordering::Relaxed);
    for (cpu, &apic_id) in apic_ids.iter().enumerate().skip(1) {
        let stack = Stack::new().expect("no memory for a CPU's first stack");
        glue::add_cpu(glue::cpu_id(cpu));
        block(cpu).idle_stack.store(stack.top(), Ordering::Relaxed);
        core::mem::forget(stack); // it becomes the CPU's idle stack
        assert!(
            start(cpu, apic_id.into()),
            "CPU {cpu} (APIC id {apic_id}) does not start"
        );
    }
}

/// Starts CPU `cpu`, which ran before and stands still now; whether it did start, and runs LWPs. One caller at a time.
pub(super) fn start_again(cpu: usize) -> bool {
    start(cpu, block(cpu).apic_id.load(Ordering::Relaxed))
}

/// Leaves the mailbox for CPU `cpu`, wakes it, and waits until it takes part.
fn start(cpu: usize, apic_id: u32) -> bool {
    static IS_IN_USE: AtomicBool = AtomicBool::new(false);
    let was_in_use = IS_IN_USE.swap(true, Ordering::AcqRel);
    assert!(!was_in_use, "two CPUs are started at once");
    let stack = block(cpu).idle_stack.load(Ordering::Relaxed);
    STACK_TOP.store(stack, Ordering::Relaxed);
    INDEX.store(cpu as u64, Ordering::Release);
    apic::send_init(apic_id);
    time::delay_us(10_000);
    for _ in 0..2 {
        apic::send_startup(apic_id, (TRAMPOLINE >> 12) as u8);
        wait_for(cpu, 200);
    }
    wait_for(cpu, 10_000_000);
    IS_IN_USE.store(false, Ordering::Release);
    takes_part(cpu)
}

/// Does CPU `cpu` answer the others, and run LWPs? What is pinned to it goes elsewhere until then.
fn takes_part(cpu: usize) -> bool {
    block(cpu).started.load(Ordering::Acquire) && hotplug::is_online(cpu)
}

fn wait_for(cpu: usize, us: u64) {
    let end = time::ticks() + us * time::ticks_per_ms() / 1000;
    while time::ticks() < end {
        if takes_part(cpu) {
            return;
        }
    }
}

/// Changes from the boot tables to the kernel's, which alone map the stack.
#[unsafe(naked)]
extern "C" fn upper_half() -> ! {
    naked_asm!(
        "mov rax, [rip + {table}]",
        "mov cr3, rax",
        "mov rsp, [rip + {stack_top}]",
        "xor ebp, ebp",
        "call {enter}",
        "ud2",
        table = sym TABLE,
        stack_top = sym STACK_TOP,
        enter = sym enter,
    )
}

/// The first Rust code of another CPU, on its own stack.
extern "C" fn enter() -> ! {
    let cpu = INDEX.load(Ordering::Acquire) as usize;
    super::enter(cpu);
    sched::init_cpu();
    sched::idle()
}

/// Stops all other CPUs, from a panic.
pub(crate) fn stop_others() {
    if n_cpus() > 1 {
        apic::send_nmi_to_others();
    }
}
