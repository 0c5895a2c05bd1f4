//! NMIs at known moments: before and after each step of a load and a save, inside a section, where a test says.

use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::VirtAddr;
use x86_64::registers::model_specific::GsBase;

use super::LIMIT_MS;
use crate::cpu::nmi::N_STOPPED;
use crate::cpu::{self, Cpu, apic, time};
use crate::exit::PANICKED;
use crate::glue::{self, NoSection};
use crate::lock::InterruptsOff;
use crate::step;

static N_REFUSED: AtomicU64 = AtomicU64::new(0);
static N_SERVED: AtomicU64 = AtomicU64::new(0);

/// What NMIs have seen since the start: each asks for a kernel section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nmis {
    /// Those that were refused one, as they must be.
    pub refused: u64,
    /// Those that got one.
    pub served: u64,
}

/// What NMIs have seen so far.
pub fn nmis() -> Nmis {
    Nmis {
        refused: N_REFUSED.load(Ordering::Relaxed),
        served: N_SERVED.load(Ordering::Relaxed),
    }
}

/// NMIs that CPU `cpu` has served.
pub fn nmis_on(cpu: usize) -> u64 {
    cpu::block(cpu).n_nmis.load(Ordering::Relaxed)
}

/// Sends an NMI to CPU `cpu`, and does not wait for it.
pub fn send_nmi(cpu: usize) {
    apic::send_nmi(cpu::block(cpu).apic_id.load(Ordering::Relaxed));
}

/// Lets an NMI come right here, on this CPU.
///
/// # Panics
///
/// When none comes within a minute.
pub fn nmi_here() {
    let _off = InterruptsOff::new();
    let cpu = cpu::this();
    let apic_id = cpu.apic_id.load(Ordering::Relaxed);
    assert!(comes_to(cpu, apic_id), "no NMI comes to the own CPU");
}

/// Sends an NMI to the own CPU and waits for it, without finding anything by `gs`.
fn comes_to(cpu: &Cpu, apic_id: u32) -> bool {
    let before = cpu.n_nmis.load(Ordering::Relaxed);
    let end = time::ticks() + LIMIT_MS * time::ticks_per_ms();
    apic::send_nmi(apic_id);
    while cpu.n_nmis.load(Ordering::Relaxed) == before {
        if time::ticks() > end {
            return false;
        }
    }
    true
}

/// Lets an NMI come before and after each step of a load and a save, of all CPUs, while `f` runs; each step is a call of the
/// unit. Only what the caller waits for in `f` is sure to be over afterwards.
///
/// # Panics
///
/// In a kernel without debug assertions, whose instructions are counted: nothing of this is in it.
pub fn nmi_at_each_step<R>(f: impl FnOnce() -> R) -> R {
    step::watch(step::NMIS);
    let result = f();
    step::unwatch(step::NMIS);
    result
}

/// Lets an NMI come while the base of `gs` is `users`, as between an entry from user mode and its SWAPGS; what the base is then,
/// and what the kernel's is afterwards.
///
/// # Panics
///
/// When none comes within a minute.
pub fn nmi_over_user_gs(users: u64) -> (u64, u64) {
    let _off = InterruptsOff::new();
    let (cpu, kernels) = (cpu::this(), GsBase::read());
    let apic_id = cpu.apic_id.load(Ordering::Relaxed);
    GsBase::write(VirtAddr::new(users));
    let came = comes_to(cpu, apic_id);
    let after = GsBase::read();
    GsBase::write(kernels);
    assert!(came, "no NMI comes while the base of gs is {users:#x}");
    (after.as_u64(), GsBase::read().as_u64())
}

/// Stops CPU `cpu` as a panic of the own one would, which is pretended until it has stopped: it never goes on. Whether it did within
/// a minute.
pub fn stop_as_in_a_panic(cpu: usize) -> bool {
    let _off = InterruptsOff::new();
    let before = N_STOPPED.load(Ordering::Acquire);
    let end = time::ticks() + LIMIT_MS * time::ticks_per_ms();
    let has_stopped = || N_STOPPED.load(Ordering::Acquire) > before;
    PANICKED.store(cpu::index() + 1, Ordering::Release);
    send_nmi(cpu);
    while !has_stopped() && time::ticks() < end {}
    PANICKED.store(0, Ordering::Release);
    has_stopped()
}

/// In an NMI: asks for what it must not have.
pub(crate) fn in_nmi() {
    let counter = match glue::section_in_interrupt(None, || ()) {
        Err(NoSection::Nmi) => &N_REFUSED,
        Err(NoSection::Refused(_)) | Ok(()) => &N_SERVED,
    };
    counter.fetch_add(1, Ordering::Relaxed);
}
