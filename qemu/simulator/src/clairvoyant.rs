//! What nobody can go below: who knows all slices beforehand takes no trap and no cross-call, never moves the gate, and loads
//! only what is used.
//!
//! The registers of a CPU are a cache of one line, so to load on demand is optimal. A load is needed where the LWP was not the
//! CPU's last user, or has used another CPU since; a save, where the state is loaded again.

use super::{Counts, Workload};

/// The fewest restores and saves by which every use finds its registers.
pub fn optimum(workload: &Workload) -> Counts {
    const NOBODY: u32 = u32::MAX;
    const NOWHERE: u16 = u16::MAX;
    let mut last_user = vec![NOBODY; workload.n_cpus];
    let mut last_cpu = vec![NOWHERE; workload.domains.len()];
    let mut counts = Counts::default();
    for slice in workload.slices.iter().filter(|slice| slice.uses) {
        let user = &mut last_user[usize::from(slice.cpu)];
        let cpu = &mut last_cpu[slice.lwp as usize];
        if *user != slice.lwp || *cpu != slice.cpu {
            counts.restores += 1;
            counts.saves += u64::from(*cpu != NOWHERE);
        }
        *user = slice.lwp;
        *cpu = slice.cpu;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::optimum;
    use crate::{Counts, Slice, Workload};

    #[test]
    fn a_state_is_loaded_when_somebody_else_used_the_registers_or_it_was_elsewhere() {
        let use_of = |cpu, lwp| Slice {
            lwp,
            gap: 0,
            cpu,
            uses: true,
            enters_user: true,
        };
        let idle_use = Slice {
            uses: false,
            ..use_of(0, 1)
        };
        let slices = vec![
            use_of(0, 0), // first
            idle_use,     // takes nothing
            use_of(0, 0), // still there
            use_of(1, 0), // from CPU 0
            use_of(0, 0), // and back, though nobody used CPU 0 meanwhile
            use_of(0, 1), // first
            use_of(0, 0), // taken by LWP 1
        ];
        let workload = Workload {
            n_cpus: 2,
            domains: vec![1, 2],
            slices,
        };
        let expected = Counts {
            restores: 5,
            saves: 3,
            ..Counts::default()
        };
        assert_eq!(optimum(&workload), expected);
    }
}
