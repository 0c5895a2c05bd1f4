//! The seam to the hosting kernel: one trait, [`Kernel`], and the tokens that prove where a call comes from.
//!
//! A kernel implements the trait once and hands out tokens; everything in [`pcu`](crate::pcu) takes a token instead of
//! trusting a comment. This module knows no unit and no machine.
//!
//! ## The hooks
//!
//! | when | call |
//! |---|---|
//! | an LWP leaves a CPU, before it can be picked elsewhere; a switchpoint follows, also if it stays after all | [`Pcu::switch_out`](crate::pcu::Pcu::switch_out) |
//! | an LWP arrives on a CPU (its first run too), or the CPU goes idle (`None`) | [`Pcu::switchpoint`](crate::pcu::Pcu::switchpoint) |
//! | on the way to user mode, interrupts off (it only avoids traps, so it is optional where every unit's use traps) | [`Pcu::before_user`](crate::pcu::Pcu::before_user) |
//! | the unit's trap, interrupts still off, no lock held | [`Pcu::trap`](crate::pcu::Pcu::trap) |
//! | fork, exec, exit | [`Pcu::fork`](crate::pcu::Pcu::fork), [`Pcu::exec`](crate::pcu::Pcu::exec), [`Pcu::exit`](crate::pcu::Pcu::exit) |
//! | a signal frame, a debugger or a core dump reads a state, sets one, or changes a part of it | [`Pcu::inspect`](crate::pcu::Pcu::inspect), [`Pcu::replace`](crate::pcu::Pcu::replace), [`Pcu::edit`](crate::pcu::Pcu::edit) |
//! | a CPU goes offline or is suspended, and comes back | [`Pcu::cpu_offline`](crate::pcu::Pcu::cpu_offline), [`Pcu::cpu_online`](crate::pcu::Pcu::cpu_online) |
//! | a cross-call arrives | the function that [`Kernel::cross_call`] was given |

use core::fmt;
use core::marker::PhantomData;
use core::num::NonZeroU64;
use core::ptr::NonNull;

use static_assertions::assert_eq_size;

use crate::pcu::{CpuPcu, LwpPcu};

/// What `pcu9` needs of the kernel that hosts it, for a table of `N` units.
///
/// # Safety
///
/// The crate's memory safety and its invariants stand on these promises:
///
/// - **P1** Between [`splraise`](Self::splraise) and the matching [`splx`](Self::splx) the caller stays on its CPU, no
///   interrupt is served there, no cross-call either, and nothing else runs there. Both nest. Memory accesses do not
///   move out of the bracket.
/// - **P2** [`cpu_id`](Self::cpu_id) names the CPU that executes the call, and two CPUs never have the same number.
/// - **P3** [`cpu_pcu`](Self::cpu_pcu) gives one object for one number, always the same, never shared by two numbers, and
///   [`this_cpu_pcu`](Self::this_cpu_pcu) that of the executing CPU.
/// - **P4** [`lwp_pcu`](Self::lwp_pcu) gives one object for one LWP, always the same, valid and not moved as long as any
///   CPU may hold the LWP's registers or any token for it exists; it creates no reference to the whole LWP.
/// - **P5** [`domain`](Self::domain) never gives the number of one protection domain to another, not even after the first
///   has ended; an exec counts as a new domain. An LWP's domain changes in [`Pcu::exec`](crate::pcu::Pcu::exec) alone.
/// - **P6** [`cross_call`](Self::cross_call): `Ok` means that `f` ran once, to its end, on the CPU asked for, at `IPL_PCU`
///   there, and what it wrote is visible to the caller. `Err` means that `f` has not run and never will. It publishes the
///   request at `IPL_PCU`, lowers the level, waits, and returns below `IPL_PCU`, so that two CPUs that ask each other
///   both serve. It does not change which LWP is current for the caller, though the LWP may have migrated meanwhile.
/// - **P7** A CPU is not preempted, and does not sleep or switch otherwise, while it is in a kernel section
///   ([`CpuPcu::in_section`]). No section is entered from an interrupt that `IPL_PCU` does not keep out (an NMI).
#[doc(alias = "PCU_UNIT_COUNT")]
pub unsafe trait Kernel<const N: usize>: Sized {
    /// The kernel's LWP. The crate only carries pointers to it, to hand them to the units.
    type Lwp;
    /// What [`splraise`](Self::splraise) must remember for [`splx`](Self::splx), the flags register for instance.
    type Saved: Copy;

    /// Raises this CPU to `IPL_PCU`: interrupts off, no migration, no cross-call served. NetBSD: `splhigh`.
    fn splraise(&self) -> Self::Saved;

    /// Goes back to the level that `splraise` left. NetBSD: `splx`.
    ///
    /// # Safety
    ///
    /// `saved` comes from the matching `splraise` of the same execution context; brackets nest.
    unsafe fn splx(&self, saved: Self::Saved);

    /// The CPU that executes this call; the token proves that the answer stays true.
    fn cpu_id(&self, ipl: &IplPcu<'_, Self, N>) -> CpuId;

    /// The state that the crate keeps for a CPU, wherever the kernel put it. A static array is enough.
    fn cpu_pcu(&self, cpu: CpuId) -> &CpuPcu<Self::Lwp, N>;

    /// The state that the crate keeps for the CPU that executes this call. A kernel that reaches it faster than by the CPU's
    /// number, through a per-CPU register for instance, says so here: this is on the hit path of every switch.
    fn this_cpu_pcu(&self, ipl: &IplPcu<'_, Self, N>) -> &CpuPcu<Self::Lwp, N> {
        self.cpu_pcu(self.cpu_id(ipl))
    }

    /// The state that the crate keeps for an LWP, usually a field of it.
    ///
    /// # Safety
    ///
    /// `lwp` points to an LWP for which P4 holds at this moment.
    unsafe fn lwp_pcu(&self, lwp: NonNull<Self::Lwp>) -> NonNull<LwpPcu<N>>;

    /// The protection domain of an LWP, `None` for one that never enters user mode; that one may have a state all the same
    /// ([Kernel threads](crate::pcu#kernel-threads)).
    ///
    /// # Safety
    ///
    /// As for [`lwp_pcu`](Self::lwp_pcu).
    unsafe fn domain(&self, lwp: NonNull<Self::Lwp>) -> Option<Domain>;

    /// Runs `f` on `cpu` at `IPL_PCU` and waits for its end; on the own CPU it runs at once.
    ///
    /// Context: called with a token whose end lowers the level ([`IplPcu::raise`] or [`IplPcu::adopt`]), from a context that may
    /// wait; never from an interrupt.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`] when the CPU did not begin within the kernel's own bound; the request is withdrawn and never runs.
    /// From a panic it is returned at once.
    fn cross_call(
        &self,
        ipl: IplPcu<'_, Self, N>,
        cpu: CpuId,
        f: CrossCall<'_, Self, N>,
    ) -> Result<(), NoAnswer>;
}

/// What a cross-call runs, with a token of the CPU that it runs on.
pub type CrossCall<'a, K, const N: usize> = &'a (dyn Fn(&IplPcu<'_, K, N>) + Sync + 'a);

/// The CPU did not begin the cross-call in time; nothing of it has happened or will happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAnswer(pub CpuId);

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpu {} does not answer a cross-call", self.0.index())
    }
}

impl core::error::Error for NoAnswer {}

/// The number of a CPU, small enough for the location field of an LWP's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuId(u16);

impl CpuId {
    /// The number of CPUs that can be told apart: the location field has 14 bits, and one value means "none".
    pub const LIMIT: u16 = (1 << 14) - 1;

    /// Gives the id of CPU `index`, `None` from [`LIMIT`](Self::LIMIT) on.
    pub const fn new(index: u16) -> Option<Self> {
        if index < Self::LIMIT {
            Some(Self(index))
        } else {
            None
        }
    }

    /// The number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The number as an index into the kernel's own tables.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A protection domain: whoever may see the same registers. Usually the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Domain(NonZeroU64);
assert_eq_size!(Option<Domain>, u64);

impl Domain {
    /// Gives domain `number`, `None` for 0 and for the two highest numbers, which the crate uses itself.
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(n) if number < u64::MAX - 1 => Some(Self(n)),
            _ => None,
        }
    }

    /// The number that [`new`](Self::new) was given.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

/// Proof that this CPU is at `IPL_PCU`, branded with its kernel; dropping it goes back to the level before.
///
/// A token belongs to the execution context that made it, so none lives across a switch of stacks: the scheduler takes one with
/// [`assume`](Self::assume) for each hook that it calls.
#[doc(alias = "splpcu")]
pub struct IplPcu<'k, K: Kernel<N>, const N: usize> {
    kernel: &'k K,
    /// `None` when somebody else will lower the level.
    saved: Option<K::Saved>,
    not_send: PhantomData<*mut ()>,
}

impl<'k, K: Kernel<N>, const N: usize> IplPcu<'k, K, N> {
    /// Raises the CPU to `IPL_PCU` for the time of `f`.
    pub fn with<R>(kernel: &'k K, f: impl FnOnce(&Self) -> R) -> R {
        f(&Self::up(kernel))
    }

    /// Raises the CPU to `IPL_PCU`.
    ///
    /// # Safety
    ///
    /// The tokens of one execution context are dropped in the reverse order of their making.
    pub unsafe fn raise(kernel: &'k K) -> Self {
        Self::up(kernel)
    }

    /// As [`raise`](Self::raise), within the crate, whose tokens nest by their scopes.
    pub(crate) fn up(kernel: &'k K) -> Self {
        Self {
            kernel,
            saved: Some(kernel.splraise()),
            not_send: PhantomData,
        }
    }

    /// Takes note that the CPU is at `IPL_PCU` already: in the scheduler, in the cross-call's interrupt. Dropping this
    /// token lowers nothing, and it cannot be used for a cross-call.
    ///
    /// # Safety
    ///
    /// What P1 says of the bracket holds for as long as the token exists.
    pub unsafe fn assume(kernel: &'k K) -> Self {
        Self {
            kernel,
            saved: None,
            not_send: PhantomData,
        }
    }

    /// Takes over a bracket that the kernel opened itself, with `cli` on its way to user mode for instance: dropping the token
    /// goes back to `saved`, and so does a wait.
    ///
    /// # Safety
    ///
    /// What P1 says of the bracket holds, and nobody else ends it; `saved` is a level that `splx` may go to here.
    pub unsafe fn adopt(kernel: &'k K, saved: K::Saved) -> Self {
        Self {
            kernel,
            saved: Some(saved),
            not_send: PhantomData,
        }
    }

    /// Ends the token without lowering anything: the kernel does so itself, with `iretq` for instance.
    pub fn keep(mut self) {
        self.saved = None;
    }

    /// May a cross-call be made with this token?
    pub(crate) fn may_wait(&self) -> bool {
        self.saved.is_some()
    }

    /// The kernel that the token is branded with.
    pub fn kernel(&self) -> &'k K {
        self.kernel
    }
}

impl<K: Kernel<N>, const N: usize> Drop for IplPcu<'_, K, N> {
    fn drop(&mut self) {
        if let Some(saved) = self.saved.take() {
            // SAFETY: `saved` is what `splraise` gave for this token, or what `adopt` was promised; who made the token answers
            // for the nesting.
            unsafe { self.kernel.splx(saved) };
        }
    }
}

impl<K: Kernel<N>, const N: usize> fmt::Debug for IplPcu<'_, K, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IplPcu")
            .field("lowers", &self.saved.is_some())
            .finish_non_exhaustive()
    }
}

/// The unique token of the LWP that executes the caller. NetBSD: `curlwp`.
pub struct Current<'k, K: Kernel<N>, const N: usize> {
    kernel: &'k K,
    lwp: NonNull<K::Lwp>,
    not_send: PhantomData<*mut ()>,
}

/// The unique token of an LWP that runs nowhere and that the caller keeps from running: stopped, or never started.
pub struct Stopped<'k, K: Kernel<N>, const N: usize> {
    kernel: &'k K,
    lwp: NonNull<K::Lwp>,
    not_send: PhantomData<*mut ()>,
}

/// An LWP whose holder the caller is: [`Current`] or [`Stopped`]. A foreign LWP that runs has no token:
///
/// ```compile_fail,E0277
/// # use pcu9::{kernel::Kernel, pcu::{Pcu, UnitId}};
/// # use core::ptr::NonNull;
/// fn peek<K: Kernel<1>>(pcu: &Pcu<K, 1>, running: &mut NonNull<K::Lwp>, fpu: UnitId) {
///     let _ = pcu.save(running, fpu); // a pointer is no proof that the LWP is stopped
/// }
/// ```
pub trait Held<K: Kernel<N>, const N: usize>: sealed::Sealed {
    /// The kernel that the token is branded with.
    fn kernel(&self) -> &K;
    /// The LWP that the token stands for.
    fn lwp(&self) -> NonNull<K::Lwp>;
}

mod sealed {
    pub trait Sealed {
        /// Does the LWP execute the caller?
        const IS_CURRENT: bool;
    }
    impl<K: super::Kernel<N>, const N: usize> Sealed for super::Current<'_, K, N> {
        const IS_CURRENT: bool = true;
    }
    impl<K: super::Kernel<N>, const N: usize> Sealed for super::Stopped<'_, K, N> {
        const IS_CURRENT: bool = false;
    }
}

impl<'k, K: Kernel<N>, const N: usize> Current<'k, K, N> {
    /// Makes the token of the LWP that executes the caller.
    ///
    /// # Safety
    ///
    /// `lwp` is current on this CPU, or (in the scheduler, at `IPL_PCU`) becomes so or ceases to be so by this very
    /// switch, whenever the token is used; whatever it did on another CPU happened before; P4 holds for it; no method of
    /// [`Pcu`](crate::pcu::Pcu) is under way with another token for it. A token that is merely in scope while a trap or the
    /// scheduler makes its own does no harm.
    pub unsafe fn new(kernel: &'k K, lwp: NonNull<K::Lwp>) -> Self {
        Self {
            kernel,
            lwp,
            not_send: PhantomData,
        }
    }
}

impl<'k, K: Kernel<N>, const N: usize> Stopped<'k, K, N> {
    /// Makes the token of an LWP that runs nowhere.
    ///
    /// # Safety
    ///
    /// `lwp` runs on no CPU and starts on none while the token exists; whatever it did happened before; P4 holds for it;
    /// no other token for it is in use at the same time.
    pub unsafe fn new(kernel: &'k K, lwp: NonNull<K::Lwp>) -> Self {
        Self {
            kernel,
            lwp,
            not_send: PhantomData,
        }
    }
}

impl<K: Kernel<N>, const N: usize> Held<K, N> for Current<'_, K, N> {
    fn kernel(&self) -> &K {
        self.kernel
    }
    fn lwp(&self) -> NonNull<K::Lwp> {
        self.lwp
    }
}

impl<K: Kernel<N>, const N: usize> Held<K, N> for Stopped<'_, K, N> {
    fn kernel(&self) -> &K {
        self.kernel
    }
    fn lwp(&self) -> NonNull<K::Lwp> {
        self.lwp
    }
}

impl<K: Kernel<N>, const N: usize> fmt::Debug for Current<'_, K, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Current").field(&self.lwp).finish()
    }
}

impl<K: Kernel<N>, const N: usize> fmt::Debug for Stopped<'_, K, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stopped").field(&self.lwp).finish()
    }
}
