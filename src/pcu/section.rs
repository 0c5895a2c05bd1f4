//! Kernel sections: the kernel itself uses a unit for a while, in an LWP or in an interrupt.
//!
//! ```text
//!   owner's registers   --enter-->  initial registers, the kernel's  --leave-->  initial registers, nobody's
//!   (saved, given up)               gate open, tag "section"                     gate closed: the owner's next use traps
//! ```
//!
//! A section is an owner of its own kind: no LWP owns the unit on this CPU while it lasts, so a cross-call that arrives inside
//! finds another owner, which is success, and nothing that is served inside closes the gate. Interrupts stay on; only
//! preemption is off (P7), and nothing else of the protocol needs to know.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use super::Pcu;
use super::local::Local;
use super::state::{MIXED_DOMAINS, NO_DOMAIN};
use super::unit::{LoadFlags, UnitId, UnitOps};
use super::word::Tag;
use crate::kernel::{Current, Held, IplPcu, Kernel, Stopped};

/// The kernel does not get the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SectionError {
    /// The kernel's table has no such unit.
    NoSuchUnit(UnitId),
    /// A kernel section on this CPU uses the unit already, and there is no slot for its registers.
    Nested(UnitId),
}

impl fmt::Display for SectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchUnit(unit) => write!(f, "no unit {} in the kernel's table", unit.index()),
            Self::Nested(unit) => write!(
                f,
                "a kernel section uses unit {} already, and no slot was given for its registers",
                unit.index()
            ),
        }
    }
}

impl core::error::Error for SectionError {}

/// Proof that the kernel may use a unit's registers: it exists inside a section alone, on the CPU that entered it.
///
/// It is only ever lent, so it can neither be leaked nor outlive its section:
///
/// ```compile_fail
/// # use pcu9::{kernel::{Current, Kernel}, pcu::{Pcu, Section, UnitId}};
/// fn leak<'a, K: Kernel<1>>(pcu: &Pcu<K, 1>, lwp: &mut Current<'_, K, 1>, fpu: UnitId) -> &'a Section<'a, K, 1> {
///     pcu.section(lwp, fpu, |section| section).unwrap() // lifetime may not live long enough
/// }
/// ```
///
/// What may sleep or wait needs the token of the current LWP, which the section keeps:
///
/// ```compile_fail,E0500
/// # use pcu9::{kernel::{Current, Kernel}, pcu::{Pcu, UnitId}};
/// fn sleep<K: Kernel<1>>(pcu: &Pcu<K, 1>, lwp: &mut Current<'_, K, 1>, fpu: UnitId) {
///     pcu.section(lwp, fpu, |_| pcu.load(lwp, fpu)).unwrap().unwrap(); // `lwp` is borrowed
/// }
/// ```
///
/// It belongs to one CPU and is not sent to another:
///
/// ```compile_fail,E0277
/// # use pcu9::{kernel::{Current, Kernel}, pcu::{Pcu, UnitId}};
/// fn on_another_cpu(_: impl FnOnce() + Send) {}
/// fn send<K: Kernel<1>>(pcu: &Pcu<K, 1>, lwp: &mut Current<'_, K, 1>, fpu: UnitId) {
///     pcu.section(lwp, fpu, |section| on_another_cpu(|| drop(section.unit()))).unwrap();
/// }
/// ```
pub struct Section<'s, K: Kernel<N>, const N: usize> {
    pcu: &'s Pcu<K, N>,
    kernel: &'s K,
    unit: &'s UnitOps<K::Lwp>,
    /// The slot that holds the registers of the section around this one.
    outer: Option<NonNull<K::Lwp>>,
    not_send: PhantomData<*mut ()>,
}

impl<K: Kernel<N>, const N: usize> Pcu<K, N> {
    /// Lets the kernel use `unit` for the time of `f`: the registers are in their initial state, control words too, and are
    /// wiped afterwards. Whoever owned the unit here keeps its state, in memory. NetBSD: `fpu_kern_enter`, `fpu_kern_leave`.
    ///
    /// `f` runs at the caller's level, without preemption (P7); it may use `unit` alone.
    ///
    /// Context: current LWP, not from an interrupt; does not wait. The LWP's own next use traps, or
    /// [`before_user`](Self::before_user) brings its state back.
    ///
    /// # Errors
    ///
    /// [`SectionError::NoSuchUnit`]; [`SectionError::Nested`] if the caller is in a section of this unit by other means.
    #[doc(alias = "fpu_kern_leave")]
    #[doc(alias = "fpu_kern_enter")]
    #[doc(alias = "kernel_fpu_begin")]
    pub fn section<R>(
        &self,
        lwp: &mut Current<'_, K, N>,
        unit: UnitId,
        f: impl FnOnce(&Section<'_, K, N>) -> R,
    ) -> Result<R, SectionError> {
        self.run_section(lwp.kernel(), unit, None, f)
    }

    /// The same in an interrupt, which may have come inside a section: then the registers of that one are saved to `slot`, and
    /// brought back afterwards, or without a slot this one is refused, and the caller does without the unit.
    ///
    /// A slot is an LWP that never runs, with an area: one for each CPU and level of interrupts that nest.
    ///
    /// Context: an interrupt that `IPL_PCU` keeps out, or any other code that is not preempted; does not wait. Not an NMI (P7), which
    /// may have come between a gate that was opened for a save and the save: a kernel whose NMIs might ask keeps a flag on each CPU
    /// while it serves one, and refuses them itself.
    ///
    /// # Errors
    ///
    /// [`SectionError`].
    pub fn section_in_interrupt<R>(
        &self,
        kernel: &K,
        unit: UnitId,
        slot: Option<&mut Stopped<'_, K, N>>,
        f: impl FnOnce(&Section<'_, K, N>) -> R,
    ) -> Result<R, SectionError> {
        self.run_section(kernel, unit, slot.map(|slot| slot.lwp()), f)
    }

    fn run_section<R>(
        &self,
        kernel: &K,
        unit: UnitId,
        slot: Option<NonNull<K::Lwp>>,
        f: impl FnOnce(&Section<'_, K, N>) -> R,
    ) -> Result<R, SectionError> {
        let unit = self.unit(unit).ok_or(SectionError::NoSuchUnit(unit))?;
        let outer = {
            let ipl = IplPcu::up(kernel);
            self.local(&ipl).enter_section(unit, slot)?
        };
        // Its end is the section's, if `f` unwinds too.
        let section = Section {
            pcu: self,
            kernel,
            unit,
            outer,
            not_send: PhantomData,
        };
        Ok(f(&section))
    }
}

impl<K: Kernel<N>, const N: usize> Section<'_, K, N> {
    /// The unit that the kernel may use.
    pub fn unit(&self) -> UnitId {
        self.unit.id
    }
}

impl<K: Kernel<N>, const N: usize> Drop for Section<'_, K, N> {
    fn drop(&mut self) {
        let ipl = IplPcu::up(self.kernel);
        self.pcu.local(&ipl).leave_section(self.unit, self.outer);
    }
}

impl<K: Kernel<N>, const N: usize> fmt::Debug for Section<'_, K, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Section")
            .field("unit", &self.unit.id)
            .finish_non_exhaustive()
    }
}

impl<K: Kernel<N>, const N: usize> Local<'_, K, N> {
    /// Gives the unit to the kernel: the owner's state is saved and given up, the registers are initial, the gate is open.
    /// The registers of a section that is under way are saved to `slot`, which is returned then; without a slot the new
    /// section is refused.
    pub(super) fn enter_section(
        &self,
        unit: &UnitOps<K::Lwp>,
        slot: Option<NonNull<K::Lwp>>,
    ) -> Result<Option<NonNull<K::Lwp>>, SectionError> {
        let outer = if self.cpu.tag(unit.id).is_section() {
            let slot = slot.ok_or(SectionError::Nested(unit.id))?;
            // SAFETY: at IPL_PCU, the gate is open; the registers are the outer section's, the slot is held by the caller.
            unsafe { (unit.state_save)(slot) };
            Some(slot)
        } else {
            self.evict(unit);
            self.cpu.set_owner(unit.id, None, Tag::SECTION);
            self.open(unit);
            None
        };
        if self.cpu.residue(unit.id) != NO_DOMAIN {
            // SAFETY: at IPL_PCU, what was in the registers is saved or nobody's, the gate is open.
            unsafe { (unit.state_wipe)() };
        }
        self.cpu.set_residue(unit.id, MIXED_DOMAINS);
        self.cpu.counters(unit.id).sections.bump();
        self.cpu.set_section_depth(self.cpu.section_depth() + 1);
        Ok(outer)
    }

    /// Takes the unit back from the kernel: the registers are wiped, or become again those of the section around this one.
    pub(super) fn leave_section(&self, unit: &UnitOps<K::Lwp>, outer: Option<NonNull<K::Lwp>>) {
        debug_assert!(
            self.cpu.tag(unit.id).is_section(),
            "cpu {} unit {}: left a kernel section that nobody was in",
            self.id.index(),
            unit.id.index()
        );
        self.cpu.set_section_depth(self.cpu.section_depth() - 1);
        if let Some(slot) = outer {
            // SAFETY: at IPL_PCU, the gate is open, nobody's live state is in the registers; the slot holds an image that
            // `enter_section` saved.
            let result = unsafe { (unit.state_load)(slot, LoadFlags::VALID) };
            assert_eq!(result, Ok(()), "the registers of a kernel section are lost");
            return;
        }
        self.cpu.set_owner(unit.id, None, Tag::NONE);
        self.wipe(unit);
        self.close(unit);
    }
}
