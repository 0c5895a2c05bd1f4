//! What two CPUs do at once, in every interleaving and with every value that a weakly ordered machine may show.
//!
//! Leak rule: each scenario names its own.

#[cfg(loom)]
mod elsewhere;
#[cfg(loom)]
mod lives;
#[cfg(loom)]
mod rules;
#[cfg(loom)]
mod thieves;

#[cfg(loom)]
pub(crate) mod cast {
    use pcu9_loom::Handle;

    /// The LWPs of a scenario.
    pub(crate) const A: usize = 0;
    pub(crate) const B: usize = 1;
    pub(crate) const C: usize = 2;

    /// A's newest state, 11, is in the registers of CPU 1, where B runs now; A runs on CPU 0.
    pub(crate) fn a_is_live_on_1_and_runs_on_0(k: &Handle) {
        k.be(1).switch(Some(A));
        k.use_unit(pcu9_loom::FPU, 11);
        k.switch(Some(B));
        k.be(0).switch(Some(A));
    }
}

#[cfg(not(loom))]
#[test]
#[ignore = "NOT RUN: loom's scenarios need `--cfg loom`, which `cargo verify` sets"]
fn scenarios() {
    panic!(
        "compile with RUSTFLAGS=\"--cfg loom -C debug-assertions\", or run `cargo verify --short`"
    );
}
