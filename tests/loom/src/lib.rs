//! A kernel for loom, the model checker: two CPUs, each a thread of loom's, and units that are a `u64` each.
//!
//! What pcu9 promises of its atomics shows here: the registers of a CPU and the memory of an LWP are cells of loom's, so an access
//! that nothing orders after another CPU's fails, in the interleaving where it happens. A mutex per CPU plays `IPL_PCU`.
//! Compiled with `--cfg loom` alone; elsewhere this crate is empty.
#![cfg(loom)]

mod handle;
mod inbox;
mod reg;
mod scenario;

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Mutex as Unmodelled;

use loom::cell::UnsafeCell;
use loom::sync::Mutex;
use loom::sync::atomic::AtomicBool;
use loom::thread::Thread;
use pcu9::kernel::CpuId;
use pcu9::pcu::{AcceptLazyFp, CpuPcu, LeakRule, LwpPcu, Pcu, Policy, UnitId, UnitOps};

pub use handle::Handle;
pub use reg::{INITIAL, Reg};
pub use scenario::Scenario;

use inbox::Inbox;

/// Units in the table; a machine may leave the second slot empty.
pub const UNITS: usize = 2;
/// CPUs of the machine.
pub const CPUS: usize = 2;
/// The first unit.
pub const FPU: UnitId = UnitId::new(0);
/// The second unit.
pub const DSP: UnitId = UnitId::new(1);
/// Plain pcu(9).
pub const TRUSTING: LeakRule = LeakRule::Trusting(AcceptLazyFp);
/// What is in the memory of an LWP that was freed.
const FREED: u64 = 0xdead;

/// An LWP: what the crate wants of one, and a memory for each unit.
#[derive(Debug)]
pub struct Lwp {
    number: usize,
    /// Dropped when the LWP is freed; a machine ends with live registers.
    pcu: ManuallyDrop<LwpPcu<UNITS>>,
    memory: [UnsafeCell<u64>; UNITS],
    /// Read by whoever uses the LWP, written when it is freed.
    lifetime: UnsafeCell<()>,
}

/// What the hardware of one CPU holds; at `IPL_PCU` its owner alone.
#[derive(Debug)]
struct Hardware {
    registers: [u64; UNITS],
    open: [bool; UNITS],
    current: Option<usize>,
}

/// A CPU.
#[derive(Debug)]
struct Cpu {
    pcu: CpuPcu<Lwp, UNITS>,
    /// Held at `IPL_PCU`.
    ipl: Mutex<()>,
    hardware: UnsafeCell<Hardware>,
    /// One for each execution context that may ask this CPU.
    inboxes: [Inbox; CPUS],
    /// The run queue is empty: whoever wants to run here may.
    is_free: AtomicBool,
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    /// The crate.
    pub pcu: Pcu<Handle, UNITS>,
    cpus: [Cpu; CPUS],
    lwps: Vec<NonNull<Lwp>>,
    /// Which CPUs a scenario sends cross-calls to; the others do not look for any.
    is_asked: [bool; CPUS],
    /// The contexts' threads, to be woken when there is something to look at.
    threads: Unmodelled<Vec<Thread>>,
    /// What this execution led to.
    outcomes: Unmodelled<Vec<&'static str>>,
}

// SAFETY: the LWPs are boxes that the machine owns; everything in it that two contexts touch is loom's, or behind P1.
unsafe impl Send for Machine {}
// SAFETY: as above.
unsafe impl Sync for Machine {}

/// The id of a CPU.
///
/// # Panics
///
/// If the number is too large.
pub fn cpu_id(index: usize) -> CpuId {
    CpuId::new(u16::try_from(index).unwrap()).unwrap()
}

impl Machine {
    /// Makes a machine of two CPUs and one unit, whose LWPs are processes of their own, all of them stopped.
    pub fn new(n_lwps: usize, rule: LeakRule, policy: Policy) -> Self {
        Self::around([Some(UnitOps::of::<Reg<0>>()), None], n_lwps, rule, policy)
    }

    /// The same with two units.
    pub fn with_two_units(n_lwps: usize, rule: LeakRule, policy: Policy) -> Self {
        let table = [Some(UnitOps::of::<Reg<0>>()), Some(UnitOps::of::<Reg<1>>())];
        Self::around(table, n_lwps, rule, policy)
    }

    fn around(
        table: [Option<UnitOps<Lwp>>; UNITS],
        n_lwps: usize,
        rule: LeakRule,
        policy: Policy,
    ) -> Self {
        // SAFETY: the machine has this one alone.
        let pcu = unsafe { Pcu::new(table) };
        Self {
            pcu: pcu.with_policy(policy).with_leak_rule(rule),
            cpus: std::array::from_fn(|_| Cpu {
                pcu: CpuPcu::new(),
                ipl: Mutex::new(()),
                hardware: UnsafeCell::new(Hardware {
                    registers: [INITIAL; UNITS],
                    open: [false; UNITS],
                    current: None,
                }),
                inboxes: std::array::from_fn(|_| Inbox::new()),
                is_free: AtomicBool::new(false),
            }),
            lwps: (0..n_lwps)
                .map(|number| {
                    NonNull::from(Box::leak(Box::new(Lwp {
                        number,
                        pcu: ManuallyDrop::new(LwpPcu::new()),
                        memory: std::array::from_fn(|_| UnsafeCell::new(INITIAL)),
                        lifetime: UnsafeCell::new(()),
                    })))
                })
                .collect(),
            is_asked: [false; CPUS],
            threads: Unmodelled::default(),
            outcomes: Unmodelled::default(),
        }
    }

    /// Sums of the statistics of both CPUs; for the end, when nothing runs any more.
    pub fn stats(&self, unit: UnitId) -> pcu9::pcu::UnitStats {
        let mut sum = pcu9::pcu::UnitStats::default();
        self.cpus.iter().for_each(|cpu| sum += cpu.pcu.stats(unit));
        sum
    }

    fn lwp(&self, lwp: usize) -> &Lwp {
        // SAFETY: a box that lives as long as the machine; changed through cells and atomics alone, but for `free`.
        unsafe { self.lwps[lwp].as_ref() }
    }

    /// Lets every context that sleeps look again. To whom it matters, the atomics say so too, so this orders nothing more.
    fn wake_all(&self) {
        let threads = self.threads.lock().expect("nobody panics with it").clone();
        threads.iter().for_each(Thread::unpark);
    }

    fn into_outcomes(mut self) -> Vec<&'static str> {
        std::mem::take(self.outcomes.get_mut().expect("nobody panics with it"))
    }

    /// Ends an LWP's life: from here on nobody may touch what it was, and loom makes sure that nobody who did is unordered.
    ///
    /// The memory itself goes with the machine, so that a late access is found by loom, not by accident.
    ///
    /// # Safety
    ///
    /// The LWP has exited, and is freed once.
    unsafe fn free(&self, lwp: usize) {
        for memory in &self.lwp(lwp).memory {
            // SAFETY: what the crate promises, and loom checks: nobody else touches it.
            memory.with_mut(|memory| unsafe { *memory = FREED });
        }
        self.lwp(lwp).lifetime.with_mut(|_| ());
        let lwp = self.lwps[lwp].as_ptr();
        // SAFETY: as above; no reference to the field is in use.
        let pcu = unsafe { &mut (*lwp).pcu };
        // SAFETY: the caller frees it once.
        unsafe { ManuallyDrop::drop(pcu) };
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for lwp in &self.lwps {
            // SAFETY: made by `Box::leak`; `pcu` is forgotten, for the machine ends with live registers.
            drop(unsafe { Box::from_raw(lwp.as_ptr()) });
        }
    }
}
