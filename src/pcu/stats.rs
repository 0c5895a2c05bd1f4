//! What happened on a CPU to a unit, counted where it happened; nothing is counted on the hit path of a switch.
//!
//! Identities, checked by the tests (sums over all CPUs, for one unit, whenever no operation is under way):
//!
//! - `traps + loads + preloads == inits + restores + reenables_trap + reenables_load + spurious + failed`
//! - `inits + restores + elided_restores == releases +` the number of live owners now
//! - `saves >= releases - discards`, since a state is given up either saved or discarded

use core::ops::AddAssign;
use core::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of one unit on one CPU, as they were when they were read; sums are made by `+=`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct UnitStats {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl UnitStats {
            /// The names of the counters in the order in which they lie in memory, each with a line feed after it.
            #[cfg(not(loom))]
            pub(super) const NAMES: &str = concat!($(stringify!($name), "\n"),*);
        }

        impl AddAssign for UnitStats {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }

        /// The counters themselves, written by their own CPU alone.
        #[repr(C)]
        pub(super) struct UnitCounters {
            $(pub(super) $name: Counter,)*
        }

        impl UnitCounters {
            pub(super) const fn new() -> Self {
                Self { $($name: Counter(AtomicU64::new(0)),)* }
            }

            pub(super) fn snapshot(&self) -> UnitStats {
                UnitStats { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Calls of [`Pcu::trap`](super::Pcu::trap).
    traps,
    /// Calls of [`Pcu::load`](super::Pcu::load).
    loads,
    /// States that a switch, or the way to user mode, brought in without a trap.
    preloads,
    /// Initial states loaded.
    inits,
    /// States loaded from memory.
    restores,
    /// States that were in the registers still, and equal to memory: the link held, nothing was loaded.
    elided_restores,
    /// Traps of an LWP whose registers were still here: the gate was opened, nothing was moved.
    reenables_trap,
    /// The same by an explicit load.
    reenables_load,
    /// The same at a switch, without a trap.
    reenables_switch,
    /// Traps although the gate was open and the registers the LWP's own.
    spurious,
    /// Slices that began with the gate closed although the registers were the LWP's own, to see whether it uses them.
    probes,
    /// Loads, preloads and traps that ended in an error.
    failed,
    /// States saved to memory.
    saves,
    /// Switches away from an LWP that has used the unit, under a policy that saves, where nothing was live to be saved.
    elided_saves,
    /// Live states given up: written through, stolen, fetched, saved with release, discarded.
    releases,
    /// Of these, the ones thrown away unsaved.
    discards,
    /// Registers wiped because another domain was about to run.
    wipes,
    /// Kernel sections entered, nested ones too.
    sections,
    /// Cross-calls that this CPU asked another one for on behalf of an LWP's state.
    xcalls,
    /// Of these, the ones that came too late: the state had been given up meanwhile.
    xcalls_raced,
}

/// A counter with one writer, its own CPU at `IPL_PCU` (I1): a plain load and store lose nothing.
pub(super) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(super) fn bump(&self) {
        self.add(1);
    }

    #[inline]
    pub(super) fn add(&self, number: u64) {
        let count = self.0.load(Ordering::Relaxed);
        self.0.store(count.wrapping_add(number), Ordering::Relaxed);
    }
}
