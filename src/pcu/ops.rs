//! The operations of pcu(9), NetBSD's names without the prefix.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use super::Pcu;
use super::local::{Command, Local};
use super::unit::{UnitId, UnitOps};
use super::word::Validity;
use crate::kernel::{CpuId, Held, IplPcu, Kernel, NoAnswer};
use crate::shared;

/// Is the LWP being dumped? Then [`Pcu::save_all`] gives the registers up too, so that the dumper finds everything in
/// memory. NetBSD: the flag `LW_WCORE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoreDump {
    /// No: the registers stay the LWP's.
    No,
    /// Yes: saving gives them up.
    Yes,
}

/// The proof that an LWP has no state in a unit and that its memory is the bearer's to write, for the time of
/// [`Pcu::replace`]'s `write`.
#[derive(Debug)]
pub struct Replacing<'a, L> {
    lwp: NonNull<L>,
    unit: UnitId,
    scope: PhantomData<&'a mut L>,
}

impl<L> Replacing<'_, L> {
    /// Whose state is replaced.
    pub const fn lwp(&self) -> NonNull<L> {
        self.lwp
    }

    /// In which unit.
    pub const fn unit(&self) -> UnitId {
        self.unit
    }
}

impl<K: Kernel<N>, const N: usize> Pcu<K, N> {
    /// Brings memory up to date and gives the registers up. NetBSD: `pcu_save`.
    ///
    /// Context: the LWP's holder, below `IPL_PCU`; may wait for a cross-call. The current LWP's next use traps.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`] from the CPU that holds the registers; nothing has changed.
    #[doc(alias = "pcu_save")]
    pub fn save(&self, lwp: &mut impl Held<K, N>, unit: UnitId) -> Result<(), NoAnswer> {
        self.unit(unit)
            .map_or(Ok(()), |unit| self.operate(lwp, unit, Command::SaveRelease))
    }

    /// Brings memory up to date for all units; the registers stay the LWP's unless it is being dumped. NetBSD:
    /// `pcu_save_all`.
    ///
    /// Context: as [`save`](Self::save).
    ///
    /// # Errors
    ///
    /// [`NoAnswer`]; units before the one that failed are saved.
    #[doc(alias = "pcu_save_all")]
    pub fn save_all(&self, lwp: &mut impl Held<K, N>, dump: CoreDump) -> Result<(), NoAnswer> {
        self.units().try_for_each(|unit| {
            let command = match dump {
                CoreDump::No => Command::Save,
                CoreDump::Yes => Command::SaveRelease,
            };
            self.operate(lwp, unit, command)
        })
    }

    /// Brings memory up to date for reading, and says whether it holds a state: with [`Validity::Invalid`] the LWP's state is the
    /// initial one, whatever its memory holds. Registers and clean links stay as they are, so that looking costs the LWP nothing.
    /// NetBSD: `pcu_save` serves for this too, and takes the registers.
    ///
    /// This is what a debugger, a signal frame and a core dump read by. Who writes memory next uses [`replace`](Self::replace).
    ///
    /// Context: as [`save`](Self::save). What a current LWP has in memory is old again with its next use.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`] from the CPU that holds the registers; nothing has changed.
    pub fn inspect(&self, lwp: &mut impl Held<K, N>, unit: UnitId) -> Result<Validity, NoAnswer> {
        let Some(slot) = self.unit(unit) else {
            return Ok(Validity::Invalid);
        };
        self.operate(lwp, slot, Command::Save)?;
        let ipl = IplPcu::up(lwp.kernel());
        Ok(self.local(&ipl).lwp_pcu(lwp.lwp()).word(unit).validity())
    }

    /// Throws the registers away. With [`Validity::Valid`] memory is the state from now on; with [`Validity::Invalid`] the next
    /// use gives the initial state. NetBSD: `pcu_discard`.
    ///
    /// Who wants to write memory uses [`replace`](Self::replace): under policies that preload, a switch could bring the old
    /// contents in before they are overwritten.
    ///
    /// Context: as [`save`](Self::save).
    ///
    /// # Errors
    ///
    /// [`NoAnswer`] from the CPU that holds the registers; nothing has changed.
    #[doc(alias = "pcu_discard")]
    pub fn discard(
        &self,
        lwp: &mut impl Held<K, N>,
        unit: UnitId,
        validity: Validity,
    ) -> Result<(), NoAnswer> {
        self.unit(unit).map_or(Ok(()), |unit| {
            self.operate(lwp, unit, Command::Discard(validity))
        })
    }

    /// Replaces the state: throws the registers away, lets `write` fill the LWP's memory, and makes that the state. This is
    /// what sigreturn, setcontext and a debugger do. NetBSD: `pcu_discard(.., true)` and a store.
    ///
    /// While `write` runs there is no state at all, so that no switch brings a half-written one in; the token that it gets says
    /// so. The area must exist, and what is written must be an image as the unit would save it: what comes from outside is not
    /// one until it was checked.
    ///
    /// Context: as [`save`](Self::save); `write` may sleep and fault.
    ///
    /// # Errors
    ///
    /// That of `write`: then the LWP has no state. [`NoAnswer`] from the CPU that holds the registers: nothing was written.
    pub fn replace<E: From<NoAnswer>>(
        &self,
        lwp: &mut impl Held<K, N>,
        unit: UnitId,
        write: impl FnOnce(&mut Replacing<'_, K::Lwp>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.discard(lwp, unit, Validity::Invalid)?;
        write(&mut Replacing {
            lwp: lwp.lwp(),
            unit,
            scope: PhantomData,
        })?;
        Ok(self.discard(lwp, unit, Validity::Valid)?)
    }

    /// Changes the state where it lies in memory: brings memory up to date, gives the registers up, lets `change` work on the
    /// LWP's memory, and makes what is there the state. [`replace`](Self::replace) is for who writes all of it.
    ///
    /// `change` is told what memory holds: with [`Validity::Invalid`] no image at all, since the LWP's state is the initial one.
    /// While it runs there is no state, as in [`replace`](Self::replace).
    ///
    /// Context: as [`replace`](Self::replace).
    ///
    /// # Errors
    ///
    /// That of `change`: then the LWP has no state. [`NoAnswer`] from the CPU that holds the registers: nothing was changed.
    pub fn edit<E: From<NoAnswer>>(
        &self,
        lwp: &mut impl Held<K, N>,
        unit: UnitId,
        change: impl FnOnce(&mut Replacing<'_, K::Lwp>, Validity) -> Result<(), E>,
    ) -> Result<(), E> {
        // A policy may bring the state in again before it is thrown away: memory equals it, since the LWP does not use it here.
        let validity = self.inspect(lwp, unit)?;
        self.replace(lwp, unit, |replacing| change(replacing, validity))
    }

    /// Throws the state of all units away: the LWP is as if it had never used one. NetBSD: `pcu_discard_all`.
    ///
    /// Context: as [`save`](Self::save).
    ///
    /// # Errors
    ///
    /// [`NoAnswer`]; the LWP must not be freed then, since a CPU still names it as the owner of its registers.
    #[doc(alias = "pcu_discard_all")]
    pub fn discard_all(&self, lwp: &mut impl Held<K, N>) -> Result<(), NoAnswer> {
        self.units()
            .try_for_each(|unit| self.operate(lwp, unit, Command::Discard(Validity::Invalid)))?;
        let ipl = IplPcu::up(lwp.kernel());
        self.local(&ipl).lwp_pcu(lwp.lwp()).set_used(0);
        Ok(())
    }

    /// Saves whatever is live on this CPU and gives it up: before a kernel use of the units, a CPU's going offline, a
    /// suspend. Clean links to this CPU are broken as well. NetBSD: `pcu_save_all_on_cpu`.
    ///
    /// Context: anywhere at `IPL_PCU`, from an interrupt too; does not wait.
    #[doc(alias = "pcu_save_all_on_cpu")]
    pub fn save_all_on_cpu(&self, ipl: &IplPcu<'_, K, N>) {
        let local = self.local(ipl);
        for unit in self.units() {
            local.evict(unit);
            local.forget_owner(unit);
            local.close(unit);
        }
    }

    /// Does `command` to the state of `lwp`, wherever it is.
    ///
    /// The request names the LWP: if a thief was faster, the holder finds another owner, which is success, since the thief
    /// saved the state; the next round then finishes on memory. A round sees "not live" and finishes in one section (I6). Nobody
    /// makes a stopped LWP live again (I2), so it takes two rounds at most; a current one takes another round each time that a
    /// thief was faster, and a policy brought the state in on a third CPU, which the LWP left without `switch_out`.
    pub(super) fn operate<H: Held<K, N>>(
        &self,
        lwp: &H,
        unit: &UnitOps<K::Lwp>,
        command: Command<K::Lwp>,
    ) -> Result<(), NoAnswer> {
        let kernel = lwp.kernel();
        let mut rounds = 0;
        loop {
            rounds += 1;
            debug_assert!(
                rounds <= if H::IS_CURRENT { 100 } else { 2 },
                "unit {}: {:?}: round {rounds}",
                unit.id.index(),
                lwp.lwp()
            );
            let ipl = IplPcu::up(kernel);
            let local = self.local(&ipl);
            let word = local.lwp_pcu(lwp.lwp()).word(unit.id);
            debug_assert!(
                local.agrees(unit.id, lwp.lwp(), word),
                "{:?}: {word:?}, {:?}",
                local.id,
                local.cpu
            );
            if word.is_live_on(local.id) {
                local.apply(unit, lwp.lwp(), command);
                return Ok(());
            }
            let Some(holder) = word.live_cpu() else {
                local.apply_to_memory(unit, lwp.lwp(), command);
                Self::close_over(&local, unit, lwp);
                return Ok(());
            };
            if self.send_to(ipl, unit, holder, lwp.lwp(), command)? {
                return Ok(());
            }
        }
    }

    /// Asks `holder` to do `command` to `owner`: publishes the request at `IPL_PCU` and waits below it. Says whether the holder did
    /// it, or found another owner.
    #[inline(never)]
    pub(super) fn send_to(
        &self,
        ipl: IplPcu<'_, K, N>,
        unit: &UnitOps<K::Lwp>,
        holder: CpuId,
        owner: NonNull<K::Lwp>,
        command: Command<K::Lwp>,
    ) -> Result<bool, NoAnswer> {
        let kernel = ipl.kernel();
        self.local(&ipl).cpu.counters(unit.id).xcalls.bump();
        let request = Request {
            pcu: self,
            unit,
            owner,
            command,
            served: shared::AtomicBool::new(false),
        };
        kernel.cross_call(ipl, holder, &|ipl| request.serve(ipl))?;
        let served = request.served.load(Ordering::Relaxed);
        if !served {
            let ipl = IplPcu::up(kernel);
            let local = self.local(&ipl);
            local.cpu.counters(unit.id).xcalls_raced.bump();
        }
        Ok(served)
    }

    /// Closes the gate over a current LWP that is live nowhere. It is closed already, unless this is a kernel thread that had no
    /// state until now, over which the gate was left as the last user LWP had it.
    fn close_over<H: Held<K, N>>(local: &Local<'_, K, N>, unit: &UnitOps<K::Lwp>, _: &H) {
        if H::IS_CURRENT {
            local.close(unit);
        }
    }
}

/// What one CPU asks of another. It lives on the asker's stack until the answer.
struct Request<'a, K: Kernel<N>, const N: usize> {
    pcu: &'a Pcu<K, N>,
    unit: &'a UnitOps<K::Lwp>,
    owner: NonNull<K::Lwp>,
    command: Command<K::Lwp>,
    served: shared::AtomicBool,
}

// SAFETY: the pointers in it name LWPs that the asker holds for as long as the request exists; they are only handed to the
// protocol, whose entries are atomic, and to the unit's callbacks, which may run on any CPU.
unsafe impl<K: Kernel<N>, const N: usize> Sync for Request<'_, K, N> {}

impl<K: Kernel<N>, const N: usize> Request<'_, K, N> {
    /// Runs on the holder. A mismatch is success: a thief there saved the owner's state and gave it up.
    fn serve(&self, ipl: &IplPcu<'_, K, N>) {
        let local = self.pcu.local(ipl);
        if local.live_owner(self.unit.id) == Some(self.owner) {
            self.served.store(true, Ordering::Relaxed);
            local.apply(self.unit, self.owner, self.command);
        }
    }
}
