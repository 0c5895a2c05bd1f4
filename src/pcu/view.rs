//! What the protocol remembers, in words: for debuggers, traces, and tests that compare whole states.

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use super::state::{CpuPcu, LwpPcu, MIXED_DOMAINS, NO_DOMAIN};
use super::unit::UnitId;
use super::word::{Serial, Tag, Validity, Word};
use crate::kernel::{CpuId, Domain};

/// Where an LWP's state of one unit is. A serial names one stay of a state in one CPU's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// In memory, if there is one.
    Nowhere,
    /// The registers of this CPU may be newer than memory.
    Live(CpuId, u64),
    /// Memory is the newest; the registers of this CPU equal it while the CPU shows the same serial.
    Clean(CpuId, u64),
}

/// What an LWP carries for one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LwpView {
    /// Where the state is.
    pub location: Location,
    /// Is there one?
    pub validity: Validity,
    /// Has the LWP used the unit since its last discard? `false` never lies.
    pub is_used: bool,
    /// Is the state known to be the initial one?
    pub is_known_initial: bool,
}

/// Whose state the registers of one unit hold.
#[derive(Debug)]
#[non_exhaustive]
pub enum Registers<L> {
    /// Nobody's.
    Nobodys,
    /// This LWP's newest.
    Live(NonNull<L>, u64),
    /// What equals the memory of the LWP whose word has the serial too, if there is such an LWP still.
    Clean(u64),
    /// A kernel section's.
    Section,
}

/// Whose bits the registers of one unit hold, whoever owns them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Residue {
    /// Nobody's: they are initial.
    None,
    /// This domain's.
    Of(Domain),
    /// The kernel's, or more than one domain's.
    Mixed,
}

// Derived, it would ask of the kernel's LWPs that they can be compared.
impl<L> PartialEq for Registers<L> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Live(owner, serial), Self::Live(others, its)) => {
                (owner, serial) == (others, its)
            }
            (Self::Clean(serial), Self::Clean(its)) => serial == its,
            (Self::Nobodys, Self::Nobodys) | (Self::Section, Self::Section) => true,
            _ => false,
        }
    }
}

impl<L> Eq for Registers<L> {}

/// What a CPU knows of one of its units.
#[derive(Debug)]
#[non_exhaustive]
pub struct CpuView<L> {
    /// Whose state the registers hold.
    pub registers: Registers<L>,
    /// Whose bits they hold.
    pub residue: Residue,
    /// Is the gate open?
    pub is_enabled: bool,
}

impl<const N: usize> LwpPcu<N> {
    /// Is there a state of `unit` that the next load will bring back? NetBSD: `pcu_valid_p`.
    ///
    /// Context: anybody, any LWP; the answer about a running foreign LWP may be old before it is read.
    #[doc(alias = "pcu_valid_p")]
    pub fn valid_p(&self, unit: UnitId) -> bool {
        unit.index() < N && self.word(unit).is_valid()
    }

    /// The CPU whose registers are newer than this LWP's memory, if any: a hint for the scheduler, which saves a cross-call
    /// and a load by running the LWP there. NetBSD: `l_pcu_cpu[]`.
    ///
    /// Context: as [`valid_p`](Self::valid_p).
    #[doc(alias = "l_pcu_cpu")]
    pub fn live_cpu(&self, unit: UnitId) -> Option<CpuId> {
        if unit.index() < N {
            self.word(unit).live_cpu()
        } else {
            None
        }
    }

    /// What this LWP carries for `unit`; `None` for a unit that the table does not have.
    ///
    /// Context: anybody, any LWP; the answer about a running foreign LWP may be old before it is read.
    pub fn view(&self, unit: UnitId) -> Option<LwpView> {
        if unit.index() >= N {
            return None;
        }
        let word = self.word(unit);
        let location = match word.cpu() {
            None => Location::Nowhere,
            Some(cpu) if word.is_live() => Location::Live(cpu, word.serial().raw()),
            Some(cpu) => Location::Clean(cpu, word.serial().raw()),
        };
        Some(LwpView {
            location,
            validity: word.validity(),
            is_used: self.used() & unit.bit() != 0,
            is_known_initial: self.is_known_initial(unit),
        })
    }
}

impl<L, const N: usize> CpuPcu<L, N> {
    /// What this CPU knows of `unit`; `None` for a unit that the table does not have.
    ///
    /// Context: anybody, any CPU; the answer about a foreign one may be old before it is read, and put together from two
    /// moments. Never dereference the owner.
    pub fn view(&self, unit: UnitId) -> Option<CpuView<L>> {
        if unit.index() >= N {
            return None;
        }
        let tag = self.tag(unit);
        let serial = tag.serial();
        let registers = if tag.is_section() {
            Registers::Section
        } else if let Some(owner) = self.owner(unit) {
            Registers::Live(owner, serial.raw())
        } else if serial == Serial::NONE {
            Registers::Nobodys
        } else {
            Registers::Clean(serial.raw())
        };
        let residue = match self.residue(unit) {
            NO_DOMAIN => Residue::None,
            MIXED_DOMAINS => Residue::Mixed,
            number => Domain::new(number).map_or(Residue::Mixed, Residue::Of),
        };
        Some(CpuView {
            registers,
            residue,
            is_enabled: self.is_enabled(unit),
        })
    }
}

impl<L, const N: usize> fmt::Debug for CpuPcu<L, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owners = self.units.iter().map(|slot| {
            let tag = Tag::from_raw(slot.tag.load(Ordering::Relaxed));
            (slot.owner.load(Ordering::Relaxed), tag)
        });
        f.debug_struct("CpuPcu")
            .field("enabled", &self.enabled())
            .field("owners", &OneByOne(owners))
            .finish_non_exhaustive()
    }
}

/// Shows an iterator as a list; the fake kernel's failure messages are made of it.
struct OneByOne<I>(I);

impl<I: Iterator<Item: fmt::Debug> + Clone> fmt::Debug for OneByOne<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.clone()).finish()
    }
}

impl<const N: usize> fmt::Debug for LwpPcu<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self
            .words
            .iter()
            .map(|word| Word::from_raw(word.load(Ordering::Relaxed)));
        f.debug_list().entries(words).finish()
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let serial = self.raw() >> 16;
        match (self.is_live(), self.cpu()) {
            (true, Some(cpu)) => write!(f, "live on cpu {} (serial {serial})", cpu.index()),
            (true, None) => write!(f, "live nowhere: {:#x}", self.raw()),
            (false, Some(cpu)) => write!(f, "clean on cpu {} (serial {serial})", cpu.index()),
            (false, None) if self.is_valid() => f.write_str("in memory"),
            (false, None) => f.write_str("none"),
        }
    }
}
