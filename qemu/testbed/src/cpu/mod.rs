//! One CPU: its block of data, its tables (`gdt`, `idt`), the way into the kernel (`trap`), its local APIC (`apic`),
//! [`time`], the start of the other CPUs (`smp`), and calls from one to another ([`crosscall`]).
//!
//! In the kernel `gs` points to the CPU's `Cpu` block; `swapgs` brings it in on entry from user mode and puts the
//! user's base back on the way out. Intel SDM, volume 2B, "SWAPGS".

pub(crate) mod apic;
pub mod crosscall;
pub(crate) mod gdt;
mod idt;
pub(crate) mod smp;
mod syscall_entry;
pub mod time;
pub(crate) mod trap;

use core::arch::asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use x86_64::VirtAddr;
use x86_64::registers::model_specific::{GsBase, KernelGsBase};

use crate::sched::Counters;

/// The most CPUs that the kernel uses.
pub const MAX_CPUS: usize = 8;

/// What a CPU keeps for itself. Written by its own CPU, but for what says otherwise; read by all.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Cpu {
    /// Where the system call entry leaves the user's stack pointer for a moment.
    pub(crate) user_rsp: AtomicU64,
    /// Top of the current LWP's kernel stack.
    pub(crate) kernel_rsp: AtomicU64,
    /// The current LWP (an `Arc` turned raw).
    pub(crate) current: AtomicU64,
    /// What `pcu9` keeps of this CPU: the address, for a switch that has no time to compute it.
    pcu: AtomicU64,
    index: AtomicU32,
    pub(crate) apic_id: AtomicU32,
    /// The field of this CPU's TSS that names the stack for entries from user mode.
    tss_rsp0: AtomicU64,
    /// Set by anyone: the scheduler should look for another LWP.
    pub(crate) need_resched: AtomicBool,
    /// Set once the CPU takes part.
    pub(crate) started: AtomicBool,
    /// The LWP that the last switch left, until the next one has put it away.
    pub(crate) switched_from: AtomicU64,
    /// The LWP that runs when nothing else does.
    pub(crate) idle: AtomicU64,
    pub(crate) counters: Counters,
}

static CPUS: [Cpu; MAX_CPUS] = [const {
    Cpu {
        user_rsp: AtomicU64::new(0),
        kernel_rsp: AtomicU64::new(0),
        current: AtomicU64::new(0),
        pcu: AtomicU64::new(0),
        index: AtomicU32::new(0),
        apic_id: AtomicU32::new(0),
        tss_rsp0: AtomicU64::new(0),
        need_resched: AtomicBool::new(false),
        started: AtomicBool::new(false),
        switched_from: AtomicU64::new(0),
        idle: AtomicU64::new(0),
        counters: Counters::new(),
    }
}; MAX_CPUS];

/// How many CPUs have a block behind `gs`.
static N_STARTED: AtomicUsize = AtomicUsize::new(0);

/// The number of CPUs that run.
pub fn n_cpus() -> usize {
    N_STARTED.load(Ordering::Acquire)
}

/// The number of the CPU that executes this; it stays true only while interrupts (or preemption) are off.
pub fn index() -> usize {
    let index: u32;
    // SAFETY: `gs` points to this CPU's block from `enter` on, and the field is in it.
    unsafe {
        asm!("mov {index:e}, gs:[{offset}]", index = out(reg) index, offset = const offset_of!(Cpu, index),
             options(nostack, readonly, preserves_flags));
    }
    index as usize
}

/// As [`index`], `None` while no CPU has its block yet.
pub(crate) fn index_if_known() -> Option<usize> {
    (n_cpus() > 0 && GsBase::read() != VirtAddr::zero()).then(index)
}

/// The block of the CPU that executes this; it stays its own only while interrupts (or preemption) are off.
pub(crate) fn this() -> &'static Cpu {
    &CPUS[index()]
}

/// The block of CPU `cpu`.
pub(crate) fn block(cpu: usize) -> &'static Cpu {
    &CPUS[cpu]
}

/// The raw pointer to the current LWP: right even where the LWP may be moved, since it is read by one instruction.
pub(crate) fn current_raw() -> u64 {
    let current: u64;
    // SAFETY: as for `index`.
    unsafe {
        asm!("mov {current}, gs:[{offset}]", current = out(reg) current, offset = const offset_of!(Cpu, current),
             options(nostack, readonly, preserves_flags));
    }
    current
}

/// The address of what `pcu9` keeps of the CPU that executes this.
pub(crate) fn pcu_raw() -> u64 {
    let pcu: u64;
    // SAFETY: as for `index`.
    unsafe {
        asm!("mov {pcu}, gs:[{offset}]", pcu = out(reg) pcu, offset = const offset_of!(Cpu, pcu),
             options(nostack, readonly, preserves_flags));
    }
    pcu
}

impl Cpu {
    /// Names the stack that entries from user mode use.
    pub(crate) fn set_kernel_stack(&self, top: u64) {
        self.kernel_rsp.store(top, Ordering::Relaxed);
        let rsp0 = core::ptr::with_exposed_provenance_mut::<u64>(
            self.tss_rsp0.load(Ordering::Relaxed) as usize,
        );
        // SAFETY: the TSS is leaked, this CPU's own, and only the processor reads it; the field may be misaligned.
        unsafe { rsp0.write_unaligned(top) };
    }
}

/// Brings up what a CPU needs before it can take interrupts, as CPU number `cpu`.
fn enter(cpu: usize) {
    let block = block(cpu);
    GsBase::write(VirtAddr::from_ptr(block));
    KernelGsBase::write(VirtAddr::zero());
    block
        .index
        .store(u32::try_from(cpu).unwrap_or(0), Ordering::Relaxed);
    let pcu = core::ptr::from_ref(crate::glue::cpu_pcu(cpu)).expose_provenance();
    block.pcu.store(pcu as u64, Ordering::Relaxed);
    block.tss_rsp0.store(gdt::load(), Ordering::Relaxed);
    // `gdt::load` loaded a null selector into `gs`, which may clear the base.
    GsBase::write(VirtAddr::from_ptr(block));
    idt::load();
    syscall_entry::init();
    apic::init();
    block
        .apic_id
        .store(u32::from(apic::own_id()), Ordering::Relaxed);
    N_STARTED.fetch_add(1, Ordering::AcqRel);
    crate::glue::init_cpu();
    block.started.store(true, Ordering::Release);
}

/// Brings the boot CPU up.
pub(crate) fn init_boot_cpu() {
    idt::build();
    apic::mask_legacy();
    enter(0);
}
