//! Replays a workload for a policy: the switches that the slices stand for, in their order.

use clap::ValueEnum;
use pcu9::pcu::Policy;

use super::machine::Machine;
use super::models::{Eager, LinuxDeferred, LinuxLazy, Netbsd, Sel4};
use super::{Counts, Table, Workload};

/// Whose registers may lie behind a closed gate, under the crate's policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Leak {
    /// Anybody's: plain pcu(9).
    Trusting,
    /// The LWP's own domain's alone.
    Domain,
}

impl Leak {
    /// Its word on the command line and in results.
    pub fn word(self) -> &'static str {
        match self {
            Self::Trusting => "trusting",
            Self::Domain => "domain",
        }
    }
}

/// Who decides when a state moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// The crate, under a policy.
    Pcu9(Policy),
    /// NetBSD's pcu(9): the gate is closed over kernel threads and idle as over every other LWP that is not the owner.
    Netbsd,
    /// The same, with the gate left alone over kernel threads and idle.
    NetbsdQuiet,
    /// Linux up to 4.5 without eager switching: a restore beforehand after more than 5 uses in a row.
    LinuxLazy,
    /// Linux since 5.2: saved at switch-out, restored before user mode unless the registers are still the LWP's.
    LinuxDeferred,
    /// seL4 since 14: a flag that the first use sets for good.
    Sel4,
    /// A save and a restore at each switch.
    Eager,
}

impl Contender {
    /// All of them, the crate's first.
    pub const ALL: [Self; 11] = [
        Self::Pcu9(Policy::Lazy),
        Self::Pcu9(Policy::Deferred),
        Self::Pcu9(Policy::Eager),
        Self::Pcu9(Policy::Adaptive),
        Self::Pcu9(Policy::AdaptiveWriteThrough),
        Self::Netbsd,
        Self::NetbsdQuiet,
        Self::LinuxLazy,
        Self::LinuxDeferred,
        Self::Sel4,
        Self::Eager,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcu9(Policy::Lazy) => "lazy",
            Self::Pcu9(Policy::Deferred) => "deferred",
            Self::Pcu9(Policy::Eager) => "eager",
            Self::Pcu9(Policy::Adaptive) => "adaptive",
            Self::Pcu9(Policy::AdaptiveWriteThrough) => "adaptive-write-through",
            Self::Pcu9(_) => "pcu9",
            Self::Netbsd => "NetBSD pcu(9)",
            Self::NetbsdQuiet => "same, TS left alone",
            Self::LinuxLazy => "Linux 4.4, counter",
            Self::LinuxDeferred => "Linux 5.2, deferred",
            Self::Sel4 => "seL4 14, flag",
            Self::Eager => "eager, plain",
        }
    }

    /// Does it decide by the machine's costs?
    pub fn is_adaptive(self) -> bool {
        matches!(
            self,
            Self::Pcu9(Policy::Adaptive | Policy::AdaptiveWriteThrough)
        )
    }
}

/// What a policy does at the switches of a kernel.
pub(crate) trait Switching {
    /// `lwp` leaves the CPU that it is current on.
    fn leaves(&mut self, cpu: u16, lwp: u32);
    /// The CPU, which nobody is current on, idles.
    fn idles(&mut self, cpu: u16);
    /// `lwp` becomes current on the CPU, and then enters user mode or not.
    fn arrives(&mut self, cpu: u16, lwp: u32, enters_user: bool);
    /// `lwp`, current on the CPU, uses the unit.
    fn uses(&mut self, cpu: u16, lwp: u32);
    /// What was done.
    fn end(self) -> Counts;
}

/// What `contender` does on `workload`; `table` is the machine that it believes to run on, and `leak` the rule that the crate's
/// policies obey.
pub fn replay(workload: &Workload, contender: Contender, leak: Leak, table: &Table) -> Counts {
    match contender {
        Contender::Pcu9(policy) => run(workload, Machine::new(workload, policy, leak, table.costs)),
        Contender::Netbsd => run(workload, Netbsd::new(workload, true)),
        Contender::NetbsdQuiet => run(workload, Netbsd::new(workload, false)),
        Contender::LinuxLazy => run(workload, LinuxLazy::new(workload)),
        Contender::LinuxDeferred => run(workload, LinuxDeferred::new(workload)),
        Contender::Sel4 => run(workload, Sel4::new(workload)),
        Contender::Eager => run(workload, Eager::new(workload)),
    }
}

fn run(workload: &Workload, mut kernel: impl Switching) -> Counts {
    const NOWHERE: u16 = u16::MAX;
    let mut current: Vec<Option<u32>> = vec![None; workload.n_cpus];
    let mut runs_on = vec![NOWHERE; workload.domains.len()];
    for slice in &workload.slices {
        let (cpu, lwp) = (slice.cpu, slice.lwp);
        let stays = current[usize::from(cpu)] == Some(lwp) && slice.gap == 0;
        if !stays {
            let before = runs_on[lwp as usize];
            // Two CPUs' slices that touch in time may be in either order.
            if before != NOWHERE && before != cpu {
                kernel.leaves(before, lwp);
                kernel.idles(before);
                current[usize::from(before)] = None;
            }
            if let Some(other) = current[usize::from(cpu)].replace(lwp) {
                kernel.leaves(cpu, other);
                runs_on[other as usize] = NOWHERE;
            }
            if slice.gap > 0 {
                kernel.idles(cpu);
            }
            runs_on[lwp as usize] = cpu;
            kernel.arrives(cpu, lwp, slice.enters_user);
        }
        if slice.uses {
            kernel.uses(cpu, lwp);
        }
    }
    kernel.end()
}
