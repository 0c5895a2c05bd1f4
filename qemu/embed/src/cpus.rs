//! The kernel that you already have, with more CPUs: how many there are, how they start, how one interrupts another.
//!
//! The local APIC, Intel SDM, volume 3A, "Advanced Programmable Interrupt Controller (APIC)"; the start of a CPU, there as well,
//! "Typical AP Initialization Sequence". QEMU numbers the APICs 0, 1, 2 and so on.

use core::arch::global_asm;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};

use x86_64::instructions::{port::Port, tlb};

use crate::machine::{irq_restore, irq_save, out_byte};

/// The most CPUs that this kernel uses.
pub(crate) const MAX_CPUS: usize = 8;
/// The vector of the interrupt that a CPU sends to another.
pub(crate) const VECTOR: u64 = 32;

const APIC: usize = 0xfee0_0000;
const ID: usize = 0x20;
const END_OF_INTERRUPT: usize = 0xb0;
const SPURIOUS: usize = 0xf0;
const COMMAND_LOW: usize = 0x300;
const COMMAND_HIGH: usize = 0x310;
const COMMAND_INIT: u32 = 0x4500;
/// In the last byte, the page to begin at; the vector.
const COMMAND_STARTUP: u32 = 0x4608;
const COMMAND_FIXED: u32 = 0x4020;

/// The page where another CPU begins, in real mode.
const TRAMPOLINE: usize = 0x8000;

global_asm!(
    r#"
    .section .rodata.trampoline, "a", @progbits
    .global trampoline, trampoline_end
    .code16
trampoline:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl 0x8000 + (trampoline_gdt_pointer - trampoline)
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x08, $(0x8000 + (trampoline_32 - trampoline))
    .code32
trampoline_32:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $(0x8000 + 4096), %esp
    movl $enter_long_mode, %eax
    jmpl *%eax
    .code64
    .balign 8
trampoline_gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
trampoline_gdt_pointer:
    .short 23
    .long 0x8000 + (trampoline_gdt - trampoline)
trampoline_end:
    .text
"#,
    options(att_syntax)
);

unsafe extern "C" {
    safe static trampoline: u8;
    safe static trampoline_end: u8;
    safe static boot_next: [AtomicU64; 2];
    safe static boot_pdpt_low: [AtomicU64; 512];
}

/// Maps the APIC's registers: a page table of their own, for the fourth GiB.
#[repr(align(4096))]
struct Table([AtomicU64; 512]);
static APIC_TABLE: Table = Table([const { AtomicU64::new(0) }; 512]);

/// How many CPUs there are.
static N_CPUS: AtomicUsize = AtomicUsize::new(1);
/// How many have been started.
static N_STARTED: AtomicUsize = AtomicUsize::new(1);

fn register(offset: usize) -> *mut u32 {
    core::ptr::with_exposed_provenance_mut(APIC + offset)
}

fn write(offset: usize, value: u32) {
    // SAFETY: `init` mapped it; the constants above name registers of this CPU's own APIC, which touch no memory.
    unsafe { register(offset).write_volatile(value) };
}

/// The number of the CPU that executes this.
pub(crate) fn index() -> usize {
    // SAFETY: as in `write`.
    (unsafe { register(ID).read_volatile() } >> 24) as usize
}

/// How many CPUs there are.
pub(crate) fn n_cpus() -> usize {
    N_CPUS.load(SeqCst)
}

/// Brings the boot CPU's APIC up; before anything asks for [`index`].
pub(crate) fn init() {
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE_UNCACHED: u64 = 0x98;
    let number = APIC >> 21 & 511;
    APIC_TABLE.0[number].store(APIC as u64 | LARGE_UNCACHED | PRESENT_WRITABLE, SeqCst);
    // The kernel is linked at the last 2 GiB, which show the first.
    let table = ((&raw const APIC_TABLE).addr() as u64) & 0x7fff_ffff;
    boot_pdpt_low[3].store(table | PRESENT_WRITABLE, SeqCst);
    tlb::flush_all();
    // The number of CPUs is item 5 of QEMU's fw_cfg, two bytes.
    // SAFETY: ports of QEMU's own device, which touch no memory.
    unsafe { Port::<u16>::new(0x510).write(5) };
    let byte = || {
        // SAFETY: as above.
        let value: u8 = unsafe { Port::new(0x511).read() };
        usize::from(value)
    };
    let n_cpus = byte() | byte() << 8;
    N_CPUS.store(n_cpus.clamp(1, MAX_CPUS), SeqCst);
    init_this_cpu();
}

/// Turns this CPU's APIC on.
pub(crate) fn init_this_cpu() {
    write(SPURIOUS, 0x1ff);
}

/// Starts the other CPUs, one after the other: CPU `n` at `main`, on the stack whose end `stack` gives for `n`.
pub(crate) fn start_others(main: extern "C" fn() -> !, stack: impl Fn(usize) -> u64) {
    let code = &raw const trampoline;
    let length = (&raw const trampoline_end).addr() - code.addr();
    let to = core::ptr::with_exposed_provenance_mut::<u8>(TRAMPOLINE);
    // SAFETY: memory below 1 MiB that nothing else uses, mapped where it is; the source is the image's.
    unsafe { to.copy_from_nonoverlapping(code, length) };
    for cpu in 1..n_cpus() {
        boot_next[0].store(stack(cpu), SeqCst);
        boot_next[1].store((main as *const ()).addr() as u64, SeqCst);
        send(cpu, COMMAND_INIT);
        wait_us(10_000);
        send(cpu, COMMAND_STARTUP);
        while N_STARTED.load(SeqCst) == cpu {
            spin_loop();
        }
    }
}

/// This CPU has begun, and needs what it was started with no more.
pub(crate) fn has_started() {
    N_STARTED.fetch_add(1, SeqCst);
}

/// A write to a port that nothing listens to takes about a microsecond.
fn wait_us(us: u32) {
    (0..us).for_each(|_| out_byte(0x80, 0));
}

fn send(cpu: usize, command: u32) {
    let number = u32::try_from(cpu).expect("CPU numbers are small");
    let were_on = irq_save();
    write(COMMAND_HIGH, number << 24);
    write(COMMAND_LOW, command);
    irq_restore(were_on);
}

/// Sends the interrupt [`VECTOR`] to a CPU.
pub(crate) fn interrupt(cpu: usize) {
    send(cpu, COMMAND_FIXED);
}

/// Calls `yield_now` once; every thousandth round until another CPU runs the caller, if there is one.
pub(crate) fn move_on(round: u32, yield_now: fn()) {
    let here = index();
    yield_now();
    while round.is_multiple_of(1000) && n_cpus() > 1 && index() == here {
        yield_now();
    }
}

/// Waits until another CPU has set `flag`, and sees all that it did before.
pub(crate) fn wait_for(flag: &AtomicBool) {
    while !flag.load(SeqCst) {
        spin_loop();
    }
}

/// Says that it is being served.
pub(crate) fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}
