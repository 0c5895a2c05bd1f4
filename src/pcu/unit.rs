//! What a unit is to the core: its operations, and the table that the core finds them in.

use core::fmt;
use core::num::NonZeroU32;
use core::ops::Deref;
use core::ptr::NonNull;

use bitflags::bitflags;

/// The number of a unit: its place in the kernel's table. NetBSD: `pcu_id`.
#[doc(alias = "pcu_id")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitId(u8);

impl UnitId {
    /// The number of units that a table can hold: a mask of units has 32 bits, as in NetBSD.
    pub const LIMIT: usize = 32;

    /// Gives the id of the unit at `index` of the table.
    ///
    /// # Panics
    ///
    /// If `index` is [`LIMIT`](Self::LIMIT) or more; as a constant this does not compile.
    pub const fn new(index: u8) -> Self {
        assert!((index as usize) < Self::LIMIT, "a table holds 32 units");
        Self(index)
    }

    /// The place in the table.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The unit's bit in a mask of units.
    #[inline]
    pub(crate) const fn bit(self) -> u32 {
        1 << self.0
    }

    /// The same, of a unit of a table of `N` units: where there is one, there is nothing to compute.
    #[inline]
    pub(super) const fn bit_of<const N: usize>(self) -> u32 {
        if N == 1 { 1 } else { self.bit() }
    }

    /// The place in a table of `N` units that has this one. Most kernels have one unit, which leaves nothing to compute.
    #[inline]
    pub(super) fn place<const N: usize>(self) -> usize {
        debug_assert!(self.index() < N, "a unit of another table");
        if N == 1 { 0 } else { self.index() }
    }

    /// The units of a mask, in the order of their numbers.
    #[inline]
    pub(super) fn in_mask<const N: usize>(mut mask: u32) -> impl Iterator<Item = Self> {
        core::iter::from_fn(move || {
            let lowest = NonZeroU32::new(mask)?.trailing_zeros();
            mask &= mask - 1;
            if N == 1 {
                mask = 0;
                return Some(Self(0));
            }
            #[expect(clippy::cast_possible_truncation, reason = "a mask has 32 bits")]
            let unit = Self(lowest as u8);
            Some(unit)
        })
    }
}

bitflags! {
    /// The bits of [`LoadFlags`], with NetBSD's names and values.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PcuFlags: u32 {
        /// The LWP's state is valid and need not be initialised.
        const PCU_VALID = 0x01;
        /// The registers hold the LWP's newest state: only enable the unit. Loading would destroy newer contents.
        const PCU_REENABLE = 0x02;
    }
}

/// What [`PcuOps::state_load`] is to do. Of the four combinations of the bits only three have a meaning, and only those
/// can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadFlags(PcuFlags);

impl LoadFlags {
    /// Load the initial state: the LWP has none yet, or it was discarded.
    pub const INIT: Self = Self(PcuFlags::empty());
    /// Load the state from memory.
    pub const VALID: Self = Self(PcuFlags::PCU_VALID);
    /// Load nothing, only enable.
    pub const REENABLE: Self = Self(PcuFlags::PCU_VALID.union(PcuFlags::PCU_REENABLE));
}

impl Deref for LoadFlags {
    type Target = PcuFlags;
    fn deref(&self) -> &PcuFlags {
        &self.0
    }
}

/// The unit did not load what it was asked to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StateError {
    /// The kernel gave no area to save the state in.
    Refused,
    /// The processor refused the image in memory.
    BadImage,
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "the kernel refused an area for the state",
            Self::BadImage => "the processor refused the saved state",
        })
    }
}

impl core::error::Error for StateError {}

/// Whether a unit can be used on a CPU without a trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It can.
    Open,
    /// A use traps.
    Closed,
}

/// The operations of one unit, implemented by the machine-dependent side. NetBSD: `pcu_ops_t`.
///
/// The core calls all of them at `IPL_PCU`; none may wait, call back into [`Pcu`](super::Pcu), or look at who is current:
/// `lwp` may be asleep, or run on another CPU. Those that touch registers are called with the unit enabled.
///
/// # Safety
///
/// The core moves state only by these functions, so its promise that no bit is lost or leaked is theirs too:
/// `state_save` writes the newest registers to memory whole; `state_load` leaves in the registers what its flags say,
/// and nothing of another LWP when it fails; `state_wipe` leaves the initial state in every register of the unit.
#[doc(alias = "pcu_ops_t")]
pub unsafe trait PcuOps<L> {
    /// The unit's place in the kernel's table.
    const ID: UnitId;

    /// Can a use of the disabled unit be detected at all? Policies that wait for a use need it. Without it the kernel must call
    /// [`Pcu::switch_out`](super::Pcu::switch_out) at every switch and [`Pcu::before_user`](super::Pcu::before_user) at every
    /// return to user mode, and a state that cannot be loaded (no area, a bad image) shows in the counters alone.
    const USE_TRAPS: bool = true;

    /// Saves this CPU's registers to the memory of `lwp`, whose they are. NetBSD: `pcu_state_save`.
    ///
    /// # Safety
    ///
    /// This CPU holds the live registers of `lwp`, or those of a kernel section whose slot `lwp` is; the unit is enabled.
    #[doc(alias = "pcu_state_save")]
    unsafe fn state_save(lwp: NonNull<L>);

    /// Loads the state of `lwp` as the flags say. NetBSD: `pcu_state_load`.
    ///
    /// # Errors
    ///
    /// [`StateError`]; the core then wipes the unit, and nobody owns it, but after `PCU_REENABLE`, where the LWP keeps what it has.
    ///
    /// # Safety
    ///
    /// `lwp` is current on this CPU, or the slot of a kernel section; nobody's live state is in the registers but, with
    /// `PCU_REENABLE`, its own; the unit is enabled.
    #[doc(alias = "pcu_state_load")]
    unsafe fn state_load(lwp: NonNull<L>, flags: LoadFlags) -> Result<(), StateError>;

    /// Takes note that the next use by `lwp` will be detected, from the end of the core's section on. NetBSD:
    /// `pcu_state_release`.
    ///
    /// Never touches registers: another LWP's may be live. The core itself moves the gate, so most units have nothing to
    /// do here.
    ///
    /// # Safety
    ///
    /// `lwp` is valid for the time of the call.
    #[doc(alias = "pcu_state_release")]
    unsafe fn state_release(lwp: NonNull<L>);

    /// Opens the gate: from now on this CPU may use the unit without a trap.
    ///
    /// # Safety
    ///
    /// At `IPL_PCU`. The core decides who may find the gate open (I3, I5).
    unsafe fn unit_enable();

    /// Closes the gate: from now on a use of the unit traps on this CPU.
    ///
    /// # Safety
    ///
    /// As for [`unit_enable`](Self::unit_enable).
    unsafe fn unit_trap();

    /// Loads the initial state into every register of the unit.
    ///
    /// # Safety
    ///
    /// Nobody's live state is in the registers, and the unit is enabled.
    unsafe fn state_wipe();

    /// Saves the registers to the memory of `lwp`, loads the initial state and closes the gate: [`Pcu::flush`](super::Pcu::flush).
    /// A unit that can does this by the same instructions whether the registers were in use or not, which goes for the gate too.
    ///
    /// # Safety
    ///
    /// At `IPL_PCU`. The live registers here are those of `lwp`; or there are none, and the memory of `lwp` is free for whatever
    /// the registers hold.
    unsafe fn unit_flush(lwp: NonNull<L>, gate: Gate) {
        if gate == Gate::Closed {
            // SAFETY: at IPL_PCU; the gate is closed again below.
            unsafe { Self::unit_enable() };
        }
        // SAFETY: the gate is open, and the caller promises the registers or the memory.
        unsafe { Self::state_save(lwp) };
        // SAFETY: what was live is saved.
        unsafe { Self::state_wipe() };
        // SAFETY: at IPL_PCU, the gate is open.
        unsafe { Self::unit_trap() };
    }

    /// Copies the saved state of `parent` to `child`, memory to memory. It cannot fail: the kernel gave the child its
    /// area before.
    ///
    /// # Safety
    ///
    /// The memory of `parent` holds its newest state, and nobody else touches the memory of `child`.
    unsafe fn state_copy(parent: NonNull<L>, child: NonNull<L>);

    /// Is the saved state of `lwp` the initial state, so that it need not be loaded or saved again?
    ///
    /// # Safety
    ///
    /// The memory of `lwp` holds its newest state.
    unsafe fn is_initial(lwp: NonNull<L>) -> bool;
}

/// One slot of the kernel's table: the operations of a unit as function pointers. Built by [`of`](Self::of) alone.
pub struct UnitOps<L> {
    pub(super) id: UnitId,
    pub(super) use_traps: bool,
    pub(super) state_save: unsafe fn(NonNull<L>),
    pub(super) state_load: unsafe fn(NonNull<L>, LoadFlags) -> Result<(), StateError>,
    pub(super) state_release: unsafe fn(NonNull<L>),
    pub(super) unit_enable: unsafe fn(),
    pub(super) unit_trap: unsafe fn(),
    pub(super) state_wipe: unsafe fn(),
    pub(super) unit_flush: unsafe fn(NonNull<L>, Gate),
    pub(super) state_copy: unsafe fn(NonNull<L>, NonNull<L>),
    pub(super) is_initial: unsafe fn(NonNull<L>) -> bool,
}

impl<L> UnitOps<L> {
    /// Makes the slot of unit `U`.
    pub const fn of<U: PcuOps<L>>() -> Self {
        Self {
            id: U::ID,
            use_traps: U::USE_TRAPS,
            state_save: U::state_save,
            state_load: U::state_load,
            state_release: U::state_release,
            unit_enable: U::unit_enable,
            unit_trap: U::unit_trap,
            state_wipe: U::state_wipe,
            unit_flush: U::unit_flush,
            state_copy: U::state_copy,
            is_initial: U::is_initial,
        }
    }
}

impl<L> fmt::Debug for UnitOps<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnitOps")
            .field("id", &self.id)
            .field("use_traps", &self.use_traps)
            .finish_non_exhaustive()
    }
}
