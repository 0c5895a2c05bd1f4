//! A second kernel on the same CPUs: tables of other shapes than the testbed's own, with units that are real registers.
//!
//! The units are registers of which each CPU has one and that the testbed does not use: `DR0`, and `IA32_SYSENTER_ESP`. No processor
//! traps their use, so a [`Fellow`] looks at the gate itself, and traps if it is closed. An LWP of the testbed plays a fellow by taking
//! [`turn`](Board::turn)s.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use pcu9::kernel::{CpuId, CrossCall, Current, Domain, IplPcu, Kernel, NoAnswer};
use pcu9::pcu::{CpuPcu, LoadError, LoadFlags, LwpPcu, Pcu, PcuFlags, PcuOps, StateError, UnitId};
use pcu9::pcu::{UnitOps, UnitStats};
use x86_64::instructions::interrupts;
use x86_64::registers::debug::{DebugAddressRegister, Dr0};
use x86_64::registers::model_specific::Msr;

use crate::cpu::{self, MAX_CPUS, crosscall};
use crate::glue::cpu_id;
use crate::lock::InterruptsOff;

/// The place of the breakpoint register in the tables.
pub const BREAKPOINT: UnitId = UnitId::new(1);
/// The place of the other one.
pub const SYSENTER: UnitId = UnitId::new(3);

/// A kernel with `N` units.
#[derive(Debug)]
pub struct Board<const N: usize> {
    cpus: [CpuPcu<Fellow<N>, N>; MAX_CPUS],
}

/// Its LWPs.
#[derive(Debug)]
pub struct Fellow<const N: usize> {
    pcu: LwpPcu<N>,
    domain: Option<Domain>,
    /// Where unit U's register is saved.
    saved: [AtomicU64; N],
}

/// A table with two units and two gaps.
pub static SPARSE: (Board<4>, Pcu<Board<4>, 4>) = (
    Board::new(),
    // SAFETY: the board's only one.
    unsafe {
        Pcu::new([
            None,
            Some(UnitOps::of::<Unit<Breakpoint>>()),
            None,
            Some(UnitOps::of::<Unit<Sysenter>>()),
        ])
    },
);

/// A table without units.
pub static EMPTY: (Board<0>, Pcu<Board<0>, 0>) = (
    Board::new(),
    // SAFETY: the board's only one.
    unsafe { Pcu::new([]) },
);

/// The current fellow's token.
pub type Me<'a, const N: usize> = Current<'a, Board<N>, N>;

impl<const N: usize> Board<N> {
    const fn new() -> Self {
        Self {
            cpus: [const { CpuPcu::new() }; MAX_CPUS],
        }
    }

    /// What the board's CPU `cpu` has.
    pub fn cpu(&self, cpu: usize) -> &CpuPcu<Fellow<N>, N> {
        &self.cpus[cpu]
    }

    /// What was counted of `unit`, on all CPUs.
    pub fn stats(&self, unit: UnitId) -> UnitStats {
        self.cpus.iter().fold(UnitStats::default(), |mut sum, cpu| {
            sum += cpu.stats(unit);
            sum
        })
    }

    /// The caller's LWP plays `fellow` on its CPU, from the switch-in to the switch-out, while `f` runs.
    pub fn turn<R>(
        &'static self,
        pcu: &Pcu<Self, N>,
        fellow: &Fellow<N>,
        f: impl FnOnce(&mut Me<'static, N>) -> R,
    ) -> R {
        // SAFETY: one LWP plays it at a time, here and now; no other token is used meanwhile.
        let mut me = unsafe { Current::new(self, NonNull::from(fellow)) };
        let at_switch = |hook: &dyn Fn(&IplPcu<'_, Self, N>, &mut Me<'static, N>), me: &mut _| {
            let _off = InterruptsOff::new();
            // SAFETY: interrupts are off.
            hook(&unsafe { IplPcu::assume(self) }, me);
        };
        at_switch(&|ipl, me| pcu.switchpoint(ipl, Some(me)), &mut me);
        let result = f(&mut me);
        at_switch(&|ipl, me| pcu.switch_out(ipl, me), &mut me);
        result
    }
}

impl<const N: usize> Fellow<N> {
    /// Makes one, in a domain of its own.
    pub fn new() -> Self {
        Self {
            pcu: LwpPcu::new(),
            domain: Domain::new(super::new_domain()),
            saved: [const { AtomicU64::new(0) }; N],
        }
    }

    /// What is kept of it.
    pub fn pcu(&self) -> &LwpPcu<N> {
        &self.pcu
    }
}

impl<const N: usize> Default for Fellow<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// The current fellow uses the unit whose register is `R`: adds 1, and gives what was there before.
///
/// # Errors
///
/// [`LoadError`] of the trap.
pub fn increment<R: Register, const N: usize>(
    (board, pcu): &'static (Board<N>, Pcu<Board<N>, N>),
    me: &mut Me<'static, N>,
) -> Result<u64, LoadError> {
    loop {
        let off = InterruptsOff::new();
        if board.cpus[cpu::index()].is_enabled(R::ID) {
            let before = R::read();
            R::write(before + 1);
            return Ok(before);
        }
        core::mem::forget(off);
        // SAFETY: interrupts were turned off a line above, where they were on, and the trap turns them on again.
        let ipl = unsafe { IplPcu::adopt(board, true) };
        pcu.trap(ipl, me, R::ID)?;
    }
}

// SAFETY:
// P1: interrupts off, as for the testbed itself.
// P2: `cpu::index` reads the executing CPU's own block.
// P3: the board's own array.
// P4: a field of the fellow, which outlives its turns.
// P5: `new_domain` gives each number once, and a fellow keeps its own.
// P6: `crosscall::call` does just that.
// P7: a fellow's turn is not preempted: nobody else plays on its CPU.
unsafe impl<const N: usize> Kernel<N> for Board<N> {
    type Lwp = Fellow<N>;
    type Saved = bool;

    fn splraise(&self) -> bool {
        let were_on = interrupts::are_enabled();
        interrupts::disable();
        were_on
    }

    unsafe fn splx(&self, were_on: bool) {
        if were_on {
            interrupts::enable();
        }
    }

    fn cpu_id(&self, _: &IplPcu<'_, Self, N>) -> CpuId {
        cpu_id(cpu::index())
    }

    fn cpu_pcu(&self, cpu: CpuId) -> &CpuPcu<Fellow<N>, N> {
        &self.cpus[cpu.index()]
    }

    unsafe fn lwp_pcu(&self, lwp: NonNull<Fellow<N>>) -> NonNull<LwpPcu<N>> {
        // SAFETY: the caller promises that the fellow is valid; only the field's address is taken.
        let field = unsafe { &raw const (*lwp.as_ptr()).pcu };
        // SAFETY: the address of a field is not null.
        unsafe { NonNull::new_unchecked(field.cast_mut()) }
    }

    unsafe fn domain(&self, lwp: NonNull<Fellow<N>>) -> Option<Domain> {
        // SAFETY: the caller promises that the fellow is valid; the field does not change.
        unsafe { (*lwp.as_ptr()).domain }
    }

    fn cross_call(
        &self,
        ipl: IplPcu<'_, Self, N>,
        cpu: CpuId,
        f: CrossCall<'_, Self, N>,
    ) -> Result<(), NoAnswer> {
        let run = || {
            // SAFETY: a cross-call's function runs with interrupts off on its CPU until it returns.
            f(&unsafe { IplPcu::assume(self) });
        };
        crosscall::call(ipl, cpu.index(), &run).map_err(|crosscall::NoAnswer| NoAnswer(cpu))
    }
}

/// A register of which each CPU has one, and that nobody else uses. It begins as 0.
pub trait Register {
    /// Its unit.
    const ID: UnitId;
    /// Reads this CPU's.
    fn read() -> u64;
    /// Writes it.
    fn write(value: u64);
}

/// `DR0`, with no breakpoint enabled.
#[derive(Debug)]
pub enum Breakpoint {}

impl Register for Breakpoint {
    const ID: UnitId = BREAKPOINT;

    fn read() -> u64 {
        Dr0::read()
    }

    fn write(value: u64) {
        Dr0::write(value);
    }
}

/// `IA32_SYSENTER_ESP`, which SYSCALL does not read. Intel SDM, volume 4.
#[derive(Debug)]
pub enum Sysenter {}

const IA32_SYSENTER_ESP: Msr = Msr::new(0x175);

impl Register for Sysenter {
    const ID: UnitId = SYSENTER;

    fn read() -> u64 {
        // SAFETY: every x86-64 CPU has the register.
        unsafe { IA32_SYSENTER_ESP.read() }
    }

    fn write(value: u64) {
        // SAFETY: nobody executes SYSENTER, which alone reads it.
        unsafe { { IA32_SYSENTER_ESP }.write(value) };
    }
}

/// A unit of one register.
#[derive(Debug)]
pub struct Unit<R>(PhantomData<R>);

/// The place in memory for unit `R` of `lwp`.
///
/// # Safety
///
/// `lwp` is valid while the answer is used.
unsafe fn saved<'a, R: Register, const N: usize>(lwp: NonNull<Fellow<N>>) -> &'a AtomicU64 {
    // SAFETY: the caller's promise; the field is atomic.
    let saved = unsafe { &(*lwp.as_ptr()).saved };
    &saved[R::ID.index()]
}

// SAFETY: the register is all there is, and 0 is its initial state. The gate is the board's mask of enabled units, which every use
// looks at.
unsafe impl<R: Register, const N: usize> PcuOps<Fellow<N>> for Unit<R> {
    const ID: UnitId = R::ID;

    unsafe fn state_save(lwp: NonNull<Fellow<N>>) {
        // SAFETY: `lwp` is valid.
        unsafe { saved::<R, N>(lwp) }.store(R::read(), Ordering::Relaxed);
    }

    unsafe fn state_load(lwp: NonNull<Fellow<N>>, flags: LoadFlags) -> Result<(), StateError> {
        if flags.contains(PcuFlags::PCU_REENABLE) {
            return Ok(());
        }
        let value = if flags.contains(PcuFlags::PCU_VALID) {
            // SAFETY: `lwp` is valid.
            unsafe { saved::<R, N>(lwp) }.load(Ordering::Relaxed)
        } else {
            0
        };
        R::write(value);
        Ok(())
    }

    unsafe fn state_release(_: NonNull<Fellow<N>>) {}

    unsafe fn unit_enable() {}

    unsafe fn unit_trap() {}

    unsafe fn state_wipe() {
        R::write(0);
    }

    unsafe fn state_copy(parent: NonNull<Fellow<N>>, child: NonNull<Fellow<N>>) {
        // SAFETY: both are valid.
        let value = unsafe { saved::<R, N>(parent) }.load(Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { saved::<R, N>(child) }.store(value, Ordering::Relaxed);
    }

    unsafe fn is_initial(lwp: NonNull<Fellow<N>>) -> bool {
        // SAFETY: `lwp` is valid.
        unsafe { saved::<R, N>(lwp) }.load(Ordering::Relaxed) == 0
    }
}
