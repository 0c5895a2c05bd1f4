//! What can go wrong, in words that say what to do.

use core::fmt;

use super::registry::AREA_ALIGN;
use crate::kernel::CpuId;

/// [`Percpu::init`](super::Percpu::init) refused to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitError {
    /// It was called before.
    Twice,
    /// Between the section's start and stop symbols there is nothing, or not the block.
    SectionMissing {
        /// The address of `__start_set_pcpu`.
        start: usize,
        /// The address of `__stop_set_pcpu`.
        stop: usize,
    },
    /// A variable is not between the section's start and stop symbols.
    Outside {
        /// Its name.
        name: &'static str,
        /// Its address.
        at: usize,
    },
    /// The section does not begin where an area may.
    Misaligned {
        /// Where it begins.
        start: usize,
    },
    /// A variable asks for more alignment than an area has.
    Alignment {
        /// Its name.
        name: &'static str,
        /// What it asks for.
        align: usize,
    },
    /// The initial values do not fit into an area, or its size is no multiple of [`AREA_ALIGN`].
    Stride {
        /// The size of an area.
        stride: usize,
        /// What the initial values need.
        needed: usize,
    },
    /// The groups do not cover all ids.
    TooFewGroups {
        /// How many ids there are.
        max_cpus: u16,
        /// How many groups of 64 were given.
        n_groups: usize,
    },
    /// The table for zpcpu is too small.
    ZpcpuTable {
        /// How many numbers were given.
        words: usize,
        /// How many it takes.
        needed: usize,
    },
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Twice => f.write_str("the per-cpu data are initialised already"),
            Self::SectionMissing { start, stop } => write!(
                f,
                "the linker script loses section set_pcpu: the block is not between __start_set_pcpu ({start:#x}) and \
                 __stop_set_pcpu ({stop:#x}); keep the section, alone, between the two"
            ),
            Self::Outside { name, at } => write!(
                f,
                "per-cpu variable {name} is at {at:#x}, outside section set_pcpu; keep the section whole in the linker script"
            ),
            Self::Misaligned { start } => write!(
                f,
                "section set_pcpu begins at {start:#x}, not at a multiple of {AREA_ALIGN}; align it in the linker script"
            ),
            Self::Alignment { name, align } => write!(
                f,
                "per-cpu variable {name} asks for an alignment of {align}, and areas have {AREA_ALIGN}"
            ),
            Self::Stride { stride, needed } => write!(
                f,
                "an area of {stride} bytes does not do: the per-cpu variables need {needed}, and it must be a multiple of \
                 {AREA_ALIGN}"
            ),
            Self::TooFewGroups { max_cpus, n_groups } => {
                write!(f, "{max_cpus} cpus need more than {n_groups} groups of 64")
            }
            Self::ZpcpuTable { words, needed } => write!(
                f,
                "the table for zpcpu has {words} numbers and needs {needed}"
            ),
        }
    }
}

impl core::error::Error for InitError {}

/// A CPU cannot be what it was asked to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CpuError {
    /// The id is not below the bound that `init` was given, or there was no `init`.
    TooLarge {
        /// The CPU.
        cpu: CpuId,
        /// The bound.
        max_cpus: usize,
    },
    /// The CPU has no data.
    Absent(CpuId),
    /// The CPU has its data already.
    PresentAlready(CpuId),
    /// The CPU runs.
    Runs(CpuId),
    /// The area does not begin at a multiple of [`AREA_ALIGN`].
    Misaligned {
        /// The CPU.
        cpu: CpuId,
        /// Where it begins.
        at: usize,
    },
}

impl fmt::Display for CpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooLarge { cpu, max_cpus: 0 } => {
                write!(
                    f,
                    "cpu {}: the per-cpu data are not initialised",
                    cpu.index()
                )
            }
            Self::TooLarge { cpu, max_cpus } => {
                write!(f, "cpu {}: ids are below {max_cpus}", cpu.index())
            }
            Self::Absent(cpu) => write!(f, "cpu {} has no per-cpu data", cpu.index()),
            Self::PresentAlready(cpu) => {
                write!(f, "cpu {} has its per-cpu data already", cpu.index())
            }
            Self::Runs(cpu) => write!(f, "cpu {} runs", cpu.index()),
            Self::Misaligned { cpu, at } => write!(
                f,
                "cpu {}: an area at {at:#x}, which is no multiple of {AREA_ALIGN}",
                cpu.index()
            ),
        }
    }
}

impl core::error::Error for CpuError {}

/// There is no room for a zpcpu allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// What was asked for.
    pub bytes: usize,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no {} bytes in a row are free in a cpu's area; give init a larger stride",
            self.bytes
        )
    }
}

impl core::error::Error for NoRoom {}
