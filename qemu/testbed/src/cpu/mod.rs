//! One CPU: its block of data, its tables (`gdt`, `idt`), the way into the kernel (`trap`), its local APIC (`apic`),
//! [`time`], the start of the other CPUs (`smp`), calls from one to another ([`crosscall`]), and CPUs that leave and come back
//! ([`hotplug`]).
//!
//! In the kernel `gs` leads to the CPU's own data ([`glue`]); `swapgs` brings it in on entry from user mode and puts the user's
//! base back on the way out. Intel SDM, volume 2B, "SWAPGS".

pub(crate) mod apic;
pub mod crosscall;
pub(crate) mod gdt;
pub mod hotplug;
mod idt;
pub(crate) mod nmi;
pub(crate) mod smp;
mod syscall_entry;
pub mod time;
pub(crate) mod trap;

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use pcu9::percpu::Pcpu;
use x86_64::VirtAddr;
use x86_64::registers::model_specific::{GsBase, KernelGsBase};

use crate::glue::{self, HERE, PCPU, PERCPU};
use crate::lwp::Lwp;
use crate::sched::Counters;

/// The most CPUs that the kernel uses.
pub const MAX_CPUS: usize = 8;

/// What a CPU keeps for itself, behind what every kernel's block has. Written by its own CPU, but for what says otherwise; read
/// by all.
#[derive(Debug)]
#[repr(C)]
pub struct Cpu {
    /// Where the system call entry leaves the user's stack pointer for a moment.
    pub(crate) user_rsp: AtomicU64,
    /// Top of the current LWP's kernel stack.
    pub(crate) kernel_rsp: AtomicU64,
    pub(crate) apic_id: AtomicU32,
    /// The field of this CPU's TSS that names the stack for entries from user mode.
    tss_rsp0: AtomicU64,
    /// Top of the stack that it starts on, which becomes its idle LWP's; 0 for the boot CPU.
    idle_stack: AtomicU64,
    /// Set by anyone: the scheduler should look for another LWP.
    pub(crate) need_resched: AtomicBool,
    /// Set once the CPU takes part.
    pub(crate) started: AtomicBool,
    /// It serves an NMI.
    pub(crate) in_nmi: AtomicBool,
    /// NMIs that it has served.
    pub(crate) n_nmis: AtomicU64,
    /// The LWP that the last switch left, until the next one has put it away.
    pub(crate) switched_from: AtomicU64,
    pub(crate) counters: Counters,
}

impl Cpu {
    pub(crate) const fn new() -> Self {
        Self {
            user_rsp: AtomicU64::new(0),
            kernel_rsp: AtomicU64::new(0),
            apic_id: AtomicU32::new(0),
            tss_rsp0: AtomicU64::new(0),
            idle_stack: AtomicU64::new(0),
            need_resched: AtomicBool::new(false),
            started: AtomicBool::new(false),
            in_nmi: AtomicBool::new(false),
            n_nmis: AtomicU64::new(0),
            switched_from: AtomicU64::new(0),
            counters: Counters::new(),
        }
    }
}

/// How many CPUs have a block behind `gs`.
static N_STARTED: AtomicUsize = AtomicUsize::new(0);

/// The number of CPUs that have been started; some of them may be offline now: see [`hotplug::is_online`].
pub fn n_cpus() -> usize {
    N_STARTED.load(Ordering::Acquire)
}

/// The number of the CPU that executes this; it stays true only while interrupts (or preemption) are off.
pub fn index() -> usize {
    PCPU.this_cpu(HERE) as usize
}

/// As [`index`], `None` while no CPU has its block yet.
pub(crate) fn index_if_known() -> Option<usize> {
    (n_cpus() > 0 && GsBase::read() != VirtAddr::zero()).then(index)
}

/// The block of the CPU that executes this; it stays its own only while interrupts (or preemption) are off.
pub(crate) fn pcpu() -> &'static Pcpu<Lwp, Cpu> {
    // SAFETY: a present CPU's copy, all of it atomic, and no CPU is ever removed.
    unsafe { &*PCPU.this_copy(HERE) }
}

/// This kernel's part of [`pcpu`].
pub(crate) fn this() -> &'static Cpu {
    &pcpu().extension
}

/// This kernel's part of the block of CPU `cpu`.
pub(crate) fn block(cpu: usize) -> &'static Cpu {
    let pcpu = PCPU.on(&PERCPU, glue::cpu_id(cpu));
    &pcpu.expect("a CPU with data").extension
}

/// The raw pointer to the current LWP: right even where the LWP may be moved, since it is read by one instruction.
pub(crate) fn current_raw() -> u64 {
    PCPU.this_lwp(HERE).expose_provenance() as u64
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

/// Brings up what a CPU needs before it can take interrupts, as CPU number `cpu`, which has its data; for the first time, or again.
fn enter(cpu: usize) {
    let id = glue::cpu_id(cpu);
    // The processor wants an address as base; the difference of two kernel addresses is in one of the two halves.
    let gs_base = VirtAddr::new(PERCPU.offset(id).expect("a CPU with data") as u64);
    GsBase::write(gs_base);
    KernelGsBase::write(VirtAddr::zero());
    let block = block(cpu);
    let tss_rsp0 = block.tss_rsp0.load(Ordering::Relaxed);
    block
        .tss_rsp0
        .store(gdt::load(tss_rsp0, gs_base), Ordering::Relaxed);
    // `gdt::load` loaded a null selector into `gs`, which may clear the base.
    GsBase::write(gs_base);
    idt::load();
    syscall_entry::init();
    apic::init();
    block
        .apic_id
        .store(u32::from(apic::own_id()), Ordering::Relaxed);
    N_STARTED.fetch_max(cpu + 1, Ordering::AcqRel);
    if tss_rsp0 != 0 {
        hotplug::spoil();
    }
    glue::init_cpu();
    PERCPU.set_started(id).expect("a CPU with data");
    block.started.store(true, Ordering::SeqCst);
}

/// Brings the boot CPU up.
pub(crate) fn init_boot_cpu() {
    idt::build();
    apic::mask_legacy();
    glue::percpu::init();
    glue::add_cpu(glue::cpu_id(0));
    glue::percpu::allocate_counters();
    enter(0);
}
