//! A machine for the crate's own code: CPUs and LWPs by the thousand, and a unit that counts.
//!
//! The unit's register is a number, the one that the LWP stored last; each use checks that it is still that.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

use pcu9::kernel::{CpuId, CrossCall, Current, Domain, IplPcu, Kernel, NoAnswer};
use pcu9::pcu::{
    AcceptLazyFp, Costs, CpuPcu, LeakRule, LoadFlags, LwpPcu, Pcu, PcuFlags, PcuOps, Policy,
    StateError, UnitId, UnitOps,
};

use super::replay::{Leak, Switching};
use super::{Counts, Workload};

const UNIT: UnitId = UnitId::new(0);
/// What a register holds in its initial state.
const INITIAL: u64 = 0;

/// What the unit's operations reach: they know the LWP alone.
#[derive(Default)]
struct Hardware {
    /// Of each CPU.
    registers: RefCell<Vec<u64>>,
    /// The CPU that executes.
    here: Cell<usize>,
    counts: Cell<Counts>,
    /// The gate moves as a part of the trap.
    in_trap: Cell<bool>,
}

thread_local! {
    static HARDWARE: Hardware = Hardware::default();
}

fn count(change: impl FnOnce(&mut Counts)) {
    HARDWARE.with(|hardware| {
        let mut counts = hardware.counts.get();
        change(&mut counts);
        hardware.counts.set(counts);
    });
}

fn with_register<R>(f: impl FnOnce(&mut u64) -> R) -> R {
    HARDWARE.with(|hardware| f(&mut hardware.registers.borrow_mut()[hardware.here.get()]))
}

fn count_toggle() {
    if !HARDWARE.with(|hardware| hardware.in_trap.get()) {
        count(|counts| counts.toggles += 1);
    }
}

/// An LWP, and the memory for its register.
struct Lwp {
    pcu: LwpPcu<1>,
    domain: u64,
    saved: Cell<u64>,
    /// How often it used the unit: what its register must hold.
    uses: Cell<u64>,
}

/// The unit.
enum Counter {}

// SAFETY: the number is the whole state.
unsafe impl PcuOps<Lwp> for Counter {
    const ID: UnitId = UNIT;

    unsafe fn state_save(lwp: NonNull<Lwp>) {
        count(|counts| counts.saves += 1);
        // SAFETY: the core calls with a valid LWP.
        let lwp = unsafe { lwp.as_ref() };
        lwp.saved.set(with_register(|register| *register));
    }

    unsafe fn state_load(lwp: NonNull<Lwp>, flags: LoadFlags) -> Result<(), StateError> {
        if flags.contains(PcuFlags::PCU_REENABLE) {
            return Ok(());
        }
        count(|counts| counts.restores += 1);
        // SAFETY: the core calls with a valid LWP.
        let lwp = unsafe { lwp.as_ref() };
        let value = if flags.contains(PcuFlags::PCU_VALID) {
            lwp.saved.get()
        } else {
            INITIAL
        };
        with_register(|register| *register = value);
        Ok(())
    }

    unsafe fn state_release(_: NonNull<Lwp>) {}

    unsafe fn unit_enable() {
        count_toggle();
    }

    unsafe fn unit_trap() {
        count_toggle();
    }

    unsafe fn state_wipe() {
        count(|counts| counts.wipes += 1);
        with_register(|register| *register = INITIAL);
    }

    unsafe fn state_copy(parent: NonNull<Lwp>, child: NonNull<Lwp>) {
        // SAFETY: the core calls with a valid LWP.
        let parent = unsafe { parent.as_ref() };
        // SAFETY: as above.
        unsafe { child.as_ref() }.saved.set(parent.saved.get());
    }

    unsafe fn is_initial(lwp: NonNull<Lwp>) -> bool {
        // SAFETY: the core calls with a valid LWP.
        unsafe { lwp.as_ref() }.saved.get() == INITIAL
    }
}

/// The kernel around the crate: who is current is known to the replay.
struct Seam {
    cpus: Vec<CpuPcu<Lwp, 1>>,
}

// SAFETY: P1: one thread plays all CPUs, and nothing interrupts it. P2, P3: the index of a vector. P4: LWPs stand in a vector
// that does not move. P5: the workload's numbers. P6: the call is made at once.
unsafe impl Kernel<1> for Seam {
    type Lwp = Lwp;
    type Saved = ();

    fn splraise(&self) {}

    unsafe fn splx(&self, (): ()) {}

    fn cpu_id(&self, _: &IplPcu<'_, Self, 1>) -> CpuId {
        cpu_id(HARDWARE.with(|hardware| hardware.here.get()))
    }

    fn cpu_pcu(&self, cpu: CpuId) -> &CpuPcu<Lwp, 1> {
        &self.cpus[cpu.index()]
    }

    unsafe fn lwp_pcu(&self, lwp: NonNull<Lwp>) -> NonNull<LwpPcu<1>> {
        // SAFETY: the caller promises a valid LWP, which is changed through atomics and cells alone.
        NonNull::from(&unsafe { lwp.as_ref() }.pcu)
    }

    unsafe fn domain(&self, lwp: NonNull<Lwp>) -> Option<Domain> {
        // SAFETY: the caller promises a valid LWP.
        Domain::new(unsafe { lwp.as_ref() }.domain)
    }

    fn cross_call(
        &self,
        ipl: IplPcu<'_, Self, 1>,
        cpu: CpuId,
        f: CrossCall<'_, Self, 1>,
    ) -> Result<(), NoAnswer> {
        count(|counts| counts.cross_calls += 1);
        let caller = HARDWARE.with(|hardware| hardware.here.replace(cpu.index()));
        f(&ipl);
        HARDWARE.with(|hardware| hardware.here.set(caller));
        Ok(())
    }
}

fn cpu_id(index: usize) -> CpuId {
    u16::try_from(index)
        .ok()
        .and_then(CpuId::new)
        .expect("fewer CPUs than the crate can tell apart")
}

/// The crate on its machine.
pub(crate) struct Machine {
    pcu: Pcu<Seam, 1>,
    seam: Seam,
    lwps: Vec<Lwp>,
}

impl Machine {
    pub(crate) fn new(workload: &Workload, policy: Policy, leak: Leak, costs: Costs) -> Self {
        let rule = match leak {
            Leak::Trusting => LeakRule::Trusting(AcceptLazyFp),
            Leak::Domain => LeakRule::DomainAware,
        };
        HARDWARE.with(|hardware| {
            *hardware.registers.borrow_mut() = vec![INITIAL; workload.n_cpus];
            hardware.counts.set(Counts::default());
        });
        // SAFETY: these CPUs and LWPs have this one alone.
        let pcu = unsafe { Pcu::new([Some(UnitOps::of::<Counter>())]) };
        Self {
            pcu: pcu
                .with_policy(policy)
                .with_leak_rule(rule)
                .with_costs(costs),
            seam: Seam {
                cpus: (0..workload.n_cpus).map(|_| CpuPcu::new()).collect(),
            },
            lwps: workload
                .domains
                .iter()
                .map(|&domain| Lwp {
                    pcu: LwpPcu::new(),
                    domain,
                    saved: Cell::new(INITIAL),
                    uses: Cell::new(0),
                })
                .collect(),
        }
    }

    /// Runs `f` on a CPU at `IPL_PCU`.
    fn on<R>(&self, cpu: u16, f: impl FnOnce(&IplPcu<'_, Seam, 1>) -> R) -> R {
        HARDWARE.with(|hardware| hardware.here.set(usize::from(cpu)));
        IplPcu::with(&self.seam, f)
    }

    fn token(&self, lwp: u32) -> Current<'_, Seam, 1> {
        // SAFETY: the replay calls for the LWP that is current on the CPU, or becomes or ceases to be so; one token at a time.
        unsafe { Current::new(&self.seam, NonNull::from(&self.lwps[lwp as usize])) }
    }
}

impl Switching for Machine {
    fn leaves(&mut self, cpu: u16, lwp: u32) {
        self.on(cpu, |ipl| self.pcu.switch_out(ipl, &mut self.token(lwp)));
    }

    fn idles(&mut self, cpu: u16) {
        self.on(cpu, |ipl| self.pcu.switchpoint(ipl, None));
    }

    fn arrives(&mut self, cpu: u16, lwp: u32, enters_user: bool) {
        self.on(cpu, |ipl| {
            self.pcu.switchpoint(ipl, Some(&mut self.token(lwp)));
        });
        if enters_user {
            // SAFETY: no other token of this thread exists.
            let ipl = unsafe { IplPcu::raise(&self.seam) };
            drop(self.pcu.before_user(ipl, &mut self.token(lwp)));
        }
    }

    fn uses(&mut self, cpu: u16, lwp: u32) {
        HARDWARE.with(|hardware| hardware.here.set(usize::from(cpu)));
        if !self.seam.cpus[usize::from(cpu)].is_enabled(UNIT) {
            count(|counts| counts.traps += 1);
            HARDWARE.with(|hardware| hardware.in_trap.set(true));
            // SAFETY: as in `arrives`.
            let ipl = unsafe { IplPcu::raise(&self.seam) };
            let served = self.pcu.trap(ipl, &mut self.token(lwp), UNIT);
            assert_eq!(
                served,
                Ok(()),
                "areas are not refused, and every CPU answers"
            );
            HARDWARE.with(|hardware| hardware.in_trap.set(false));
        }
        let uses = &self.lwps[lwp as usize].uses;
        with_register(|register| {
            assert_eq!(
                *register,
                uses.get(),
                "lwp {lwp} on cpu {cpu}: not its own register"
            );
            *register += 1;
        });
        uses.set(uses.get() + 1);
    }

    fn end(self) -> Counts {
        let counts = HARDWARE.with(|hardware| hardware.counts.get());
        for cpu in 0..self.seam.cpus.len() {
            // Nobody may end while a CPU holds its registers.
            HARDWARE.with(|hardware| hardware.here.set(cpu));
            IplPcu::with(&self.seam, |ipl| self.pcu.save_all_on_cpu(ipl));
        }
        counts
    }
}
