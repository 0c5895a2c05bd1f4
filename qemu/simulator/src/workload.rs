//! What ran where, in the order of time.

/// A stretch of one LWP on one CPU between two switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The LWP's place in [`Workload::domains`].
    pub lwp: u32,
    /// For how long the CPU idled before it, in ticks; 0 where it took over from the LWP before.
    pub gap: u32,
    /// The CPU's number.
    pub cpu: u16,
    /// It uses the unit.
    pub uses: bool,
    /// It enters user mode.
    pub enters_user: bool,
}

/// Slices, and who the LWPs are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// How many CPUs there are.
    pub n_cpus: usize,
    /// The protection domain of each LWP; 0 for a kernel thread.
    pub domains: Vec<u64>,
    /// Sorted by their begin.
    pub slices: Vec<Slice>,
}

impl Workload {
    /// The slices that enter user mode, and how many of them use the unit.
    pub fn user_slices(&self) -> (u64, u64) {
        let user = self.slices.iter().filter(|slice| slice.enters_user);
        user.fold((0, 0), |(slices, uses), slice| {
            (slices + 1, uses + u64::from(slice.uses))
        })
    }
}
