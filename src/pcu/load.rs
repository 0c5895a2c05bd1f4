//! Getting a unit for the current LWP: by a call, or by the trap of a use.

use core::fmt;
use core::ptr::NonNull;

use super::Pcu;
use super::local::{Command, Local};
use super::unit::{StateError, UnitId, UnitOps};
use super::word::Word;
use crate::kernel::{CpuId, Current, Held, IplPcu, Kernel, NoAnswer};

/// The current LWP did not get the unit; nobody's state was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError {
    /// The kernel's table has no such unit.
    NoSuchUnit(UnitId),
    /// The CPU that holds the state does not answer, or the caller's token does not let it be asked.
    NoAnswer(CpuId),
    /// The unit did not load: no area, or a bad image. Registers that were not the LWP's own were wiped.
    State(StateError),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchUnit(unit) => write!(f, "no unit {} in the kernel's table", unit.index()),
            Self::NoAnswer(cpu) => write!(
                f,
                "the state is on cpu {}, which does not answer",
                cpu.index()
            ),
            Self::State(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for LoadError {}

impl From<NoAnswer> for LoadError {
    fn from(NoAnswer(cpu): NoAnswer) -> Self {
        Self::NoAnswer(cpu)
    }
}

/// Who asks for a load: only the counters differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Trap,
    /// A trap although the core had opened the gate: something else closed it.
    SpuriousTrap,
    Call,
}

/// What a load found on this CPU.
enum Round {
    /// The registers are the LWP's own again, or the unit refused.
    Done(Result<(), StateError>),
    /// The newest state is in memory.
    Acquire,
    /// It is in the registers of that CPU.
    Fetch(CpuId),
}

impl<K: Kernel<N>, const N: usize> Pcu<K, N> {
    /// Loads `unit` for the current LWP, taking it from whoever holds it. NetBSD: `pcu_load`.
    ///
    /// Context: current LWP, below `IPL_PCU`, not from an interrupt; may wait for a cross-call.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; the LWP's state stays where it was.
    #[doc(alias = "pcu_load")]
    #[inline]
    pub fn load(&self, lwp: &mut Current<'_, K, N>, unit: UnitId) -> Result<(), LoadError> {
        let slot = self.unit(unit).ok_or(LoadError::NoSuchUnit(unit))?;
        let ipl = IplPcu::up(lwp.kernel());
        let cpu = ipl.kernel().this_cpu_pcu(&ipl);
        let counters = cpu.counters(unit);
        counters.loads.bump();
        // What a kernel that loads before each use of its own finds mostly; the gate stays open.
        if cpu.is_enabled(unit) && cpu.is_owner(unit, lwp.lwp()) {
            return match Local::<K, N>::reenable_in_place(counters, slot, lwp.lwp()) {
                Ok(()) => Ok(()),
                Err(error) => Err(failed(error)),
            };
        }
        self.load_for(ipl, lwp, slot, Cause::Call)
    }

    /// Serves the unit's trap (`#NM` on x86): what [`load`](Self::load) does, and counted as a trap.
    ///
    /// An LWP that finds its registers still here is re-enabled, never reloaded: they may be newer than memory.
    ///
    /// Context: the trap's entry, which left interrupts off (an interrupt gate) and took the bracket over with
    /// [`IplPcu::adopt`]: had the LWP migrated since, the trap would say nothing about the gate of the CPU that it is on. No
    /// lock is held that the scheduler takes; may go below `IPL_PCU` and wait for a cross-call; returns there.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load): the kernel turns it into a signal, or ends the LWP.
    pub fn trap(
        &self,
        ipl: IplPcu<'_, K, N>,
        lwp: &mut Current<'_, K, N>,
        unit: UnitId,
    ) -> Result<(), LoadError> {
        let slot = self.unit(unit).ok_or(LoadError::NoSuchUnit(unit))?;
        let local = self.local(&ipl);
        local.cpu.counters(slot.id).traps.bump();
        let cause = if local.gate_was_closed(slot.id) {
            Cause::SpuriousTrap
        } else {
            Cause::Trap
        };
        self.load_for(ipl, lwp, slot, cause)
    }

    /// The rest of a load.
    #[inline(never)]
    fn load_for(
        &self,
        mut ipl: IplPcu<'_, K, N>,
        lwp: &Current<'_, K, N>,
        unit: &UnitOps<K::Lwp>,
        cause: Cause,
    ) -> Result<(), LoadError> {
        loop {
            let local = self.local(&ipl);
            let pcu = local.lwp_pcu(lwp.lwp());
            let word = pcu.word(unit.id);
            debug_assert!(
                local.agrees(unit.id, lwp.lwp(), word),
                "{:?}: {word:?}, {:?}",
                local.id,
                local.cpu
            );
            let round = if word.is_somewhere() {
                self.load_here(&local, unit, lwp.lwp(), word, cause)
            } else {
                Round::Acquire
            };
            match round {
                Round::Acquire => {
                    pcu.note_use();
                    return match local.acquire(unit, lwp.lwp(), word) {
                        Ok(()) => Ok(()),
                        Err(error) => Err(failed(error)),
                    };
                }
                Round::Done(result) => return result.map_err(LoadError::State),
                Round::Fetch(holder) => ipl = self.fetch(ipl, unit, holder, lwp.lwp())?,
            }
        }
    }

    /// Has `holder` save and give up the state of the current LWP. It may have migrated meanwhile: everything is read anew.
    #[inline(never)]
    fn fetch<'k>(
        &self,
        ipl: IplPcu<'k, K, N>,
        unit: &UnitOps<K::Lwp>,
        holder: CpuId,
        lwp: NonNull<K::Lwp>,
    ) -> Result<IplPcu<'k, K, N>, LoadError> {
        let kernel = ipl.kernel();
        let (answer, ipl) = if ipl.may_wait() {
            let answer = self.send_to(ipl, unit, holder, lwp, Command::SaveRelease);
            (answer, IplPcu::up(kernel))
        } else {
            (Err(NoAnswer(holder)), ipl)
        };
        match answer {
            Ok(_) => Ok(ipl),
            Err(error) => {
                self.local(&ipl).cpu.counters(unit.id).failed.bump();
                Err(error.into())
            }
        }
    }

    /// One round of a load whose state was in registers last, of this CPU or of another, on the CPU where the LWP is now.
    #[inline(never)]
    fn load_here(
        &self,
        local: &Local<'_, K, N>,
        unit: &UnitOps<K::Lwp>,
        lwp: NonNull<K::Lwp>,
        word: Word,
        cause: Cause,
    ) -> Round {
        let counters = local.cpu.counters(unit.id);
        let pcu = local.lwp_pcu(lwp);
        if !word.is_live_on(local.id) {
            // Where the unit's is `Lazy`, and no LWP has a policy of its own, nobody asks how often that was: a later `Adaptive` begins
            // to learn with its own time.
            if self.may_move(unit.id.bit_of::<N>()) && word.cpu().is_some_and(|cpu| cpu != local.id)
            {
                let mut habits = pcu.habits();
                habits.note_fetch(&self.rule.load());
                pcu.set_habits(habits);
            }
            if let Some(holder) = word.live_cpu() {
                return Round::Fetch(holder);
            }
            if !word.links(local.id, local.cpu.tag(unit.id)) {
                return Round::Acquire;
            }
        }
        pcu.note_use();
        let result = local.reenable(unit, lwp);
        if result.is_ok() {
            match cause {
                Cause::Call => &counters.reenables_load,
                Cause::SpuriousTrap => &counters.spurious,
                Cause::Trap => &counters.reenables_trap,
            }
            .bump();
        }
        Round::Done(result)
    }
}

/// Out of the way of what succeeds.
#[cold]
#[inline(never)]
fn failed(error: StateError) -> LoadError {
    LoadError::State(error)
}
