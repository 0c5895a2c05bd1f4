//! `Policy::Adaptive`: one LWP's habits, from which the next slice is guessed.
//!
//! A *residency* is a stretch on one CPU with nobody else between. Two counters saturate:
//!
//! - *use*, in `[0, 4 (T + W)]` with W = R + S, one step a residency: `+T` when the unit was used and trapped, `-(W - X)` when it was
//!   not, and a preload would have been in vain. At the top the LWP is preloaded from then on, and its use is invisible; so after
//!   `5 T / W` slices one slice is a *probe* with the gate closed. A use confirms, and the distance to the next probe doubles,
//!   up to 32 times the first. No use ends the preloading at once, one use below the top. If that use comes soon, before
//!   unused residencies have taken another half of T, the probe was bad luck and counts as a confirmed one; else the distance
//!   begins anew.
//! - *write*, in `[0, 2 I]`: `+I` when the state is wanted on another CPU than it was left on, where a write-through saves a
//!   cross-call; `-S` when the LWP comes back to registers that are still its own, where one is for nothing. From `I` on its
//!   state is written through.
//!
//! The rule was chosen by simulation (`cargo simulate sweep`): short distances at first follow who computes in bursts, and the
//! memory of confirmed ones keeps probes rare for who computes by chance. Whoever is resident finds its gate open in either mode,
//! as under `Lazy`: that it uses the unit in this residency is known.
//!
//! The steps and bounds are a [`Rule`].

use super::costs::Rule;

/// How often the distance between probes doubles.
pub(super) const DOUBLINGS: u8 = 5;
/// What `Policy::Adaptive` remembers of an LWP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Habits {
    pub(super) uses: u16,
    pub(super) writes: u16,
    pub(super) probe_in: u16,
    pub(super) doublings: u8,
    pub(super) preload: bool,
    pub(super) probing: bool,
    /// The unit was used in this residency, seen by a trap.
    pub(super) used: bool,
}

impl Habits {
    /// The bit of [`used`](Self::used) among those that [`pack`](Self::pack) gives.
    pub(super) const USED: u64 = 1 << 50;

    pub(super) fn pack(self) -> u64 {
        let flags = u8::from(self.preload)
            | u8::from(self.probing) << 1
            | u8::from(self.used) << 2
            | self.doublings << 3;
        let [u0, u1] = self.uses.to_le_bytes();
        let [w0, w1] = self.writes.to_le_bytes();
        let [p0, p1] = self.probe_in.to_le_bytes();
        u64::from_le_bytes([u0, u1, w0, w1, p0, p1, flags, 0])
    }

    pub(super) fn unpack(packed: u64) -> Self {
        let [u0, u1, w0, w1, p0, p1, flags, _] = packed.to_le_bytes();
        Self {
            uses: u16::from_le_bytes([u0, u1]),
            writes: u16::from_le_bytes([w0, w1]),
            probe_in: u16::from_le_bytes([p0, p1]),
            doublings: flags >> 3,
            preload: flags & 1 != 0,
            probing: flags & 2 != 0,
            used: flags & 4 != 0,
        }
    }
}

/// Where an LWP finds its state when it is switched in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// In this CPU's registers: the residency goes on.
    Resident,
    /// On another CPU, live or clean.
    Migrated,
    /// In memory alone: somebody took the registers.
    Evicted,
}

/// What the slice that begins is to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slice {
    /// The state is brought in, the gate opened.
    Preload,
    /// The gate is closed, and a use traps.
    Trap,
    /// The same, to find out whether preloading still pays.
    Probe,
}

impl Habits {
    /// Takes note that the state is wanted here, and was left on another CPU: there it had to be saved, then or now.
    pub(super) fn note_fetch(&mut self, rule: &Rule) {
        self.writes = self
            .writes
            .saturating_add(rule.migration_step)
            .min(rule.write_top());
    }

    /// Takes note of a switch-in, and says what to do.
    pub(super) fn arrive(&mut self, arrival: Arrival, rule: &Rule) -> Slice {
        let was_preloaded = self.preload;
        if self.probing {
            self.end_probe(rule);
        }
        match arrival {
            Arrival::Resident => self.writes = self.writes.saturating_sub(rule.return_step),
            Arrival::Migrated | Arrival::Evicted => {}
        }
        if arrival != Arrival::Resident {
            if !was_preloaded {
                self.end_residency(rule);
            }
            self.used = false;
        }
        if !self.preload {
            return Slice::Trap;
        }
        if self.probe_in > 0 {
            self.probe_in -= 1;
            if arrival == Arrival::Migrated {
                self.note_fetch(rule);
            }
            return Slice::Preload;
        }
        self.probing = true;
        self.used = false;
        Slice::Probe
    }

    /// Shall the state be saved at switch-out?
    pub(super) fn writes_through(self, rule: &Rule) -> bool {
        self.writes >= rule.migration_step
    }

    /// A residency in trap mode is over.
    fn end_residency(&mut self, rule: &Rule) {
        if self.used {
            self.uses = self.uses.saturating_add(rule.use_step).min(rule.use_top);
            if self.uses == rule.use_top {
                self.preload = true;
                self.probe_in = rule.distance(self.doublings);
            }
            return;
        }
        self.uses = self.uses.saturating_sub(rule.miss_step);
        if self.uses < rule.soon() {
            self.doublings = 0;
        }
    }

    fn end_probe(&mut self, rule: &Rule) {
        self.probing = false;
        self.doublings = (self.doublings + 1).min(DOUBLINGS);
        if self.used {
            self.probe_in = rule.distance(self.doublings);
        } else {
            self.preload = false;
            self.uses = rule.use_top.saturating_sub(rule.use_step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcu::Costs;

    const RULE: Rule = Rule::of(Costs::ZEN3);
    const FIRST_PROBE: usize = 19;

    fn arrive(habits: &mut Habits, arrival: Arrival) -> Slice {
        habits.arrive(arrival, &RULE)
    }

    /// Slices that each end with somebody else on the CPU; `uses` says which of them use the unit. A preloaded use is invisible.
    fn live(habits: &mut Habits, uses: impl IntoIterator<Item = bool>) -> [usize; 3] {
        let mut slices = [0; 3];
        for uses in uses {
            let slice = arrive(habits, Arrival::Evicted);
            slices[slice as usize] += 1;
            if uses && slice != Slice::Preload {
                habits.used = true;
            }
            *habits = Habits::unpack(habits.pack());
        }
        slices
    }

    /// `n` slices of the same kind after each other.
    fn then(habits: &mut Habits, uses: bool, n: usize) -> [usize; 3] {
        live(habits, core::iter::repeat_n(uses, n))
    }

    /// The habits of an LWP that used the unit in each of its first `n` residencies; the last one is not over.
    fn after_uses(n: usize) -> Habits {
        let mut habits = Habits::default();
        then(&mut habits, true, n);
        habits
    }

    fn next(mut habits: Habits) -> Slice {
        arrive(&mut habits, Arrival::Evicted)
    }

    #[test]
    fn habits_are_kept_whole() {
        let all = Habits {
            uses: 0x1234,
            writes: 0x5678,
            probe_in: 0x9abc,
            doublings: DOUBLINGS,
            preload: true,
            probing: false,
            used: true,
        };
        assert_eq!(Habits::unpack(all.pack()), all);
        let other = Habits {
            preload: false,
            probing: true,
            used: false,
            ..all
        };
        assert_eq!(Habits::unpack(other.pack()), other);
    }

    #[test]
    fn who_computes_in_every_slice_ends_in_preload() {
        let mut habits = Habits::default();
        let [preloads, traps, probes] = then(&mut habits, true, 10_000);
        assert!(
            traps <= 6 && probes <= 22 && preloads >= 9_970,
            "{preloads} {traps} {probes}"
        );
        assert!(habits.preload);
    }

    #[test]
    fn who_never_computes_stays_in_trap_mode() {
        let mut habits = Habits::default();
        assert_eq!(then(&mut habits, false, 10_000), [0, 10_000, 0]);
    }

    #[test]
    fn who_computes_in_phases_is_followed() {
        let mut habits = Habits::default();
        for _ in 0..5 {
            then(&mut habits, true, 100);
            assert!(habits.preload, "{habits:?}");
            then(&mut habits, false, 1_000);
            assert!(!habits.preload, "{habits:?}");
        }
    }

    /// The top is 4 (T + W) = 7552: five uses are 7500, six are above it.
    #[test]
    fn the_sixth_used_residency_reaches_the_top() {
        assert_eq!(next(after_uses(5)), Slice::Trap);
        assert_eq!(next(after_uses(6)), Slice::Preload);
    }

    /// W - X = 238, what a preload would have cost in vain.
    #[test]
    fn an_unused_residency_takes_what_a_vain_preload_would_have_cost() {
        for (unused, left) in [(1, 762), (4, 48), (5, 0)] {
            let mut habits = Habits {
                uses: 1000,
                ..Habits::default()
            };
            then(&mut habits, false, unused);
            assert_eq!(habits.uses, left, "{unused} unused");
        }
    }

    /// A residency of many slices, whatever they do, is one step, and its use is not forgotten.
    #[test]
    fn a_residency_counts_once() {
        let mut habits = Habits::default();
        for _ in 0..5 {
            assert_eq!(arrive(&mut habits, Arrival::Evicted), Slice::Trap);
            habits.used = true;
            for _ in 0..20 {
                assert_eq!(arrive(&mut habits, Arrival::Resident), Slice::Trap);
            }
        }
        assert_eq!((habits.uses, habits.used), (6000, true));
    }

    #[test]
    fn a_probe_that_finds_no_use_ends_preloading_at_once() {
        let mut habits = after_uses(6);
        assert_eq!(
            then(&mut habits, false, FIRST_PROBE + 1),
            [FIRST_PROBE, 0, 1]
        );
        assert_eq!(next(habits), Slice::Trap);
        assert_eq!(then(&mut habits, false, 1_000), [0, 1_000, 0]);
    }

    /// The distance between probes doubles with each use that one confirms, five times.
    #[test]
    fn confirmed_probes_become_rare() {
        let mut habits = after_uses(6);
        for doublings in [0, 1, 2, 3, 4, 5, 5] {
            let distance = FIRST_PROBE << doublings;
            assert_eq!(then(&mut habits, true, distance + 1), [distance, 0, 1]);
        }
    }

    /// After a probe without use one use brings preloading back, and it counts as a confirmed one: up to three unused residencies
    /// lie in between, by which the counter stays above 7552 - 1500 - 750. After a fourth the distance begins anew.
    #[test]
    fn a_use_soon_after_a_vain_probe_confirms_it() {
        let mut missed = after_uses(6);
        then(&mut missed, false, FIRST_PROBE + 1);
        for (unused, distance) in [(0, 2), (3, 2), (4, 1), (40, 1)] {
            let mut habits = missed;
            then(&mut habits, false, unused);
            while next(habits) == Slice::Trap {
                then(&mut habits, true, 1);
            }
            let [preloads, _, probes] = then(&mut habits, true, distance * FIRST_PROBE + 1);
            assert_eq!(
                (preloads, probes),
                (distance * FIRST_PROBE, 1),
                "{unused} unused"
            );
        }
        let mut habits = missed;
        then(&mut habits, true, 1);
        assert_eq!(next(habits), Slice::Preload);
    }

    /// Two fetches fill the counter, 2 I = 6000, and a third adds nothing; each return to its own registers takes S = 100.
    #[test]
    fn who_was_fetched_twice_is_written_through_for_thirty_returns() {
        let mut habits = Habits::default();
        for _ in 0..3 {
            habits.note_fetch(&RULE);
        }
        for _ in 0..30 {
            arrive(&mut habits, Arrival::Resident);
        }
        assert!(habits.writes_through(&RULE));
        arrive(&mut habits, Arrival::Resident);
        assert!(!habits.writes_through(&RULE));
    }

    #[test]
    fn one_fetch_is_enough_and_an_eviction_says_nothing() {
        let mut habits = Habits::default();
        assert!(!habits.writes_through(&RULE));
        arrive(&mut habits, Arrival::Evicted);
        arrive(&mut habits, Arrival::Migrated);
        assert!(!habits.writes_through(&RULE));
        habits.note_fetch(&RULE);
        arrive(&mut habits, Arrival::Evicted);
        assert!(habits.writes_through(&RULE));
    }

    /// In preload mode a state that comes from another CPU's memory is wanted, with no trap that would say so; a probe's is not.
    #[test]
    fn a_preload_of_a_state_that_was_elsewhere_is_a_fetch() {
        let mut habits = after_uses(6);
        assert_eq!(arrive(&mut habits, Arrival::Evicted), Slice::Preload);
        assert_eq!(habits.writes, 0);
        assert_eq!(arrive(&mut habits, Arrival::Migrated), Slice::Preload);
        assert_eq!(habits.writes, 3000);
        habits.probe_in = 0;
        assert_eq!(arrive(&mut habits, Arrival::Migrated), Slice::Probe);
        assert_eq!(habits.writes, 3000);
    }

    /// While the figures change, a CPU may see some old ones beside new ones.
    #[test]
    fn figures_that_do_not_fit_together_do_no_harm() {
        let rule = Rule { use_top: 1, ..RULE };
        let mut habits = after_uses(5);
        assert_eq!(habits.arrive(Arrival::Evicted, &rule), Slice::Preload);
        habits.probe_in = 0;
        assert_eq!(habits.arrive(Arrival::Evicted, &rule), Slice::Probe);
        assert_eq!(habits.arrive(Arrival::Evicted, &rule), Slice::Trap);
        assert_eq!(habits.uses, 0);
    }

    #[test]
    fn a_pause_makes_probes_frequent_again_and_a_short_one_does_not() {
        let doublings_after = |uses| {
            let mut habits = Habits {
                uses,
                doublings: 3,
                ..Habits::default()
            };
            habits.end_residency(&RULE);
            habits.doublings
        };
        let short = RULE.soon() + RULE.miss_step;
        assert_eq!(doublings_after(short), 3);
        assert_eq!(doublings_after(short - 1), 0);
    }
}
