//! Where the fields of [`CpuPcu`] and [`LwpPcu`] lie, for whoever reads a kernel's memory from outside.
//!
//! Both are `repr(C)` with what depends on the number of units at the end, so every offset here is one for all kernels; the
//! offsets are asserted, since readers of old dumps rely on them. What the words and tags mean is in the module `word`, and,
//! for readers, in [`percpu::header`](crate::percpu::header).

use core::mem::offset_of;
use core::sync::atomic::AtomicU64;

use static_assertions::const_assert;

use super::state::{CpuPcu, CpuUnit, LwpPcu};
use super::stats::{UnitCounters, UnitStats};
use super::unit::UnitId;

/// The sizes and offsets, in bytes, of what `pcu9` keeps for a CPU and for an LWP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Layout {
    /// The number of units, `N`.
    pub n_units: u32,
    /// The number of counters of a unit; each is a `u64`.
    pub n_counters: u32,
    /// Bytes of a [`CpuPcu`].
    pub cpu_bytes: u32,
    /// `u64`: bit U says that the gate of unit U is open; bit 32 that the residue summary is not 0.
    pub cpu_attention: u32,
    /// `u32`: how many kernel sections the CPU is in.
    pub cpu_section_depth: u32,
    /// `u64`: the domain whose bits the registers hold; 0 for none, all ones for several.
    pub cpu_residue_summary: u32,
    /// `u64`: the serial that was given last.
    pub cpu_serial: u32,
    /// The first unit's entry.
    pub cpu_units: u32,
    /// From one unit's entry to the next.
    pub unit_bytes: u32,
    /// In an entry, a pointer: the LWP whose registers the unit holds, or held; the tag says what it is worth.
    pub unit_owner: u32,
    /// In an entry, `u64`: the tag.
    pub unit_tag: u32,
    /// In an entry, `u64`: the residue's domain.
    pub unit_residue: u32,
    /// In an entry: the first counter.
    pub unit_counters: u32,
    /// Bytes of an [`LwpPcu`].
    pub lwp_bytes: u32,
    /// `u32`: bit U is clear if the LWP never used unit U since its last discard.
    pub lwp_used: u32,
    /// `u32`: bit U: the state of unit U is known to be the initial one.
    pub lwp_initial: u32,
    /// `u64`: what `Adaptive` remembers; the last byte is the LWP's own policy.
    pub lwp_habits: u32,
    /// The first of `n_units` words, each a `u64`.
    pub lwp_words: u32,
}

impl Layout {
    /// The layout for LWPs of type `L` and `N` units.
    pub const fn of<L, const N: usize>() -> Self {
        const { assert!(N <= UnitId::LIMIT, "a table holds 32 units") };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "structures of at most 32 units are small"
        )]
        Self {
            n_units: N as u32,
            n_counters: (size_of::<UnitCounters>() / size_of::<AtomicU64>()) as u32,
            cpu_bytes: size_of::<CpuPcu<L, N>>() as u32,
            cpu_attention: offset_of!(CpuPcu<L, N>, attention) as u32,
            cpu_section_depth: offset_of!(CpuPcu<L, N>, section_depth) as u32,
            cpu_residue_summary: offset_of!(CpuPcu<L, N>, residue_summary) as u32,
            cpu_serial: offset_of!(CpuPcu<L, N>, serial) as u32,
            cpu_units: offset_of!(CpuPcu<L, N>, units) as u32,
            unit_bytes: size_of::<CpuUnit<L>>() as u32,
            unit_owner: offset_of!(CpuUnit<L>, owner) as u32,
            unit_tag: offset_of!(CpuUnit<L>, tag) as u32,
            unit_residue: offset_of!(CpuUnit<L>, residue) as u32,
            unit_counters: offset_of!(CpuUnit<L>, counters) as u32,
            lwp_bytes: size_of::<LwpPcu<N>>() as u32,
            lwp_used: offset_of!(LwpPcu<N>, used) as u32,
            lwp_initial: offset_of!(LwpPcu<N>, initial) as u32,
            lwp_habits: offset_of!(LwpPcu<N>, habits) as u32,
            lwp_words: offset_of!(LwpPcu<N>, words) as u32,
        }
    }

    /// The names of a unit's counters in their order in memory, each with a line feed after it.
    pub const fn counter_names() -> &'static str {
        UnitStats::NAMES
    }
}

const fn lines(text: &str) -> usize {
    let (mut n_lines, mut at) = (0, 0);
    while at < text.len() {
        n_lines += (text.as_bytes()[at] == b'\n') as usize;
        at += 1;
    }
    n_lines
}

const THREE: Layout = Layout::of::<u8, 3>();
const_assert!(THREE.n_counters as usize == lines(UnitStats::NAMES));
const_assert!(THREE.n_counters as usize * 8 == size_of::<UnitCounters>());
const_assert!(THREE.cpu_attention == 0);
const_assert!(THREE.cpu_section_depth == 8);
const_assert!(THREE.cpu_residue_summary == 16);
const_assert!(THREE.cpu_serial == 24);
const_assert!(THREE.cpu_units == 40);
const_assert!(THREE.unit_owner == 0);
const_assert!(THREE.unit_tag == 8);
const_assert!(THREE.unit_residue == 16);
const_assert!(THREE.unit_counters == 24);
const_assert!(THREE.unit_bytes == 24 + THREE.n_counters * 8);
const_assert!(THREE.cpu_bytes == 40 + 3 * THREE.unit_bytes);
const_assert!(THREE.lwp_used == 0);
const_assert!(THREE.lwp_initial == 4);
const_assert!(THREE.lwp_habits == 8);
const_assert!(THREE.lwp_words == 16);
const_assert!(THREE.lwp_bytes == 16 + 3 * 8);
