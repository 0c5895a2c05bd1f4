//! `Policy::Adaptive`: one LWP's habits, from which the next slice is guessed.
//!
//! A *residency* is a stretch on one CPU with nobody else between. Two counters saturate, as came out best in simulation:
//!
//! - *use*, in `[0, 6 (T + W)]`, one step a residency: `+T` when the unit was used and trapped, `-(W - X)` when it was not, and a
//!   preload would have been in vain. At the top the LWP is preloaded from then on, and its use is invisible; so after
//!   `20 T / W` slices one slice is a *probe* with the gate closed. A use confirms, and the distance to the next probe doubles,
//!   up to 16 times the first; no use ends the preloading at once.
//! - *write*, in `[0, 2 I]`: `+I` when the LWP comes back on another CPU, where a write-through would have saved a cross-call;
//!   `-S` when it comes back to registers that are still its own, where a write-through was for nothing. From `I` on its state is
//!   written through.
//!
//! The costs, in cycles of a Zen 3 server, until they are calibrated: trap T, restore R, save S, TS toggle X, cross-call I.

const T: u16 = 1500;
const R: u16 = 288;
const S: u16 = 100;
const X: u16 = 150;
const I: u16 = 3000;
const W: u16 = R + S;

const USE_TOP: u16 = 6 * (T + W);
const WRITE_TOP: u16 = 2 * I;
const FIRST_PROBE: u16 = 20 * T / W;
const DOUBLINGS: u8 = 4;

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
    /// Takes note that the LWP used the unit through a trap.
    pub(super) fn note_use(&mut self) {
        self.used = true;
    }

    /// Takes note of a switch-in, and says what to do.
    pub(super) fn arrive(&mut self, arrival: Arrival) -> Slice {
        let was_preloaded = self.preload;
        if self.probing {
            self.end_probe();
        }
        match arrival {
            Arrival::Resident => self.writes = self.writes.saturating_sub(S),
            Arrival::Migrated => self.writes = (self.writes + I).min(WRITE_TOP),
            Arrival::Evicted => {}
        }
        if arrival != Arrival::Resident {
            if !was_preloaded {
                self.end_residency();
            }
            self.used = false;
        }
        if !self.preload {
            return Slice::Trap;
        }
        if self.probe_in > 0 {
            self.probe_in -= 1;
            return Slice::Preload;
        }
        self.probing = true;
        self.used = false;
        Slice::Probe
    }

    /// Shall the state be saved at switch-out?
    pub(super) fn writes_through(self) -> bool {
        self.writes >= I
    }

    /// A residency in trap mode is over.
    fn end_residency(&mut self) {
        if !self.used {
            self.uses = self.uses.saturating_sub(W - X);
            return;
        }
        self.uses = (self.uses + T).min(USE_TOP);
        if self.uses == USE_TOP {
            self.preload = true;
            self.doublings = 0;
            self.probe_in = FIRST_PROBE;
        }
    }

    fn end_probe(&mut self) {
        self.probing = false;
        if self.used {
            self.doublings = (self.doublings + 1).min(DOUBLINGS);
            self.probe_in = FIRST_PROBE << self.doublings;
        } else {
            self.preload = false;
            self.uses = USE_TOP - T;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slices that each end with somebody else on the CPU; `uses` says which of them use the unit. A preloaded use is invisible.
    fn live(habits: &mut Habits, uses: impl IntoIterator<Item = bool>) -> [u32; 3] {
        let mut slices = [0; 3];
        for uses in uses {
            let slice = habits.arrive(Arrival::Evicted);
            slices[slice as usize] += 1;
            if uses && slice != Slice::Preload {
                habits.note_use();
            }
            *habits = Habits::unpack(habits.pack());
        }
        slices
    }

    #[test]
    fn who_computes_in_every_slice_ends_in_preload() {
        let mut habits = Habits::default();
        let [preloads, traps, probes] = live(&mut habits, [true; 10_000]);
        assert!(
            traps <= 10 && probes <= 20 && preloads >= 9_970,
            "{preloads} {traps} {probes}"
        );
        assert!(habits.preload);
    }

    #[test]
    fn who_never_computes_stays_in_trap_mode() {
        let mut habits = Habits::default();
        assert_eq!(live(&mut habits, [false; 10_000]), [0, 10_000, 0]);
    }

    #[test]
    fn who_computes_in_phases_is_followed() {
        let mut habits = Habits::default();
        for _ in 0..5 {
            live(&mut habits, [true; 100]);
            assert!(habits.preload, "{habits:?}");
            live(&mut habits, [false; 2_000]);
            assert!(!habits.preload, "{habits:?}");
        }
    }

    #[test]
    fn a_probe_that_finds_no_use_ends_preloading_at_once() {
        let mut habits = Habits::default();
        live(&mut habits, [true; 10]);
        let [preloads, traps, probes] = live(&mut habits, [false; 200]);
        assert_eq!(probes, 1);
        assert!(
            preloads <= u32::from(FIRST_PROBE) && traps > 100,
            "{preloads} {traps}"
        );
    }

    /// `n` slices of the same kind after each other.
    fn then(habits: &mut Habits, uses: bool, n: usize) {
        live(habits, core::iter::repeat_n(uses, n));
    }

    /// The habits of an LWP that used the unit in each of its first `n` residencies; the last one is not over.
    fn after_uses(n: usize) -> Habits {
        let mut habits = Habits::default();
        then(&mut habits, true, n);
        habits
    }

    fn next(mut habits: Habits) -> Slice {
        habits.arrive(Arrival::Evicted)
    }

    /// The top is 6 (T + W) = 11328: seven uses are 10500, eight are above it.
    #[test]
    fn the_eighth_used_residency_reaches_the_top() {
        assert_eq!(next(after_uses(7)), Slice::Trap);
        assert_eq!(next(after_uses(8)), Slice::Preload);
    }

    /// An unused residency takes W - X = 238 away: after two the eighth use still reaches the top, after three it does not.
    #[test]
    fn an_unused_residency_takes_what_a_vain_preload_would_have_cost() {
        for (unused, expected) in [(2, Slice::Preload), (3, Slice::Trap)] {
            let mut habits = after_uses(7);
            then(&mut habits, false, unused);
            then(&mut habits, true, 1);
            assert_eq!(next(habits), expected, "{unused} unused");
        }
    }

    /// It starts again one use below the top: the next use brings preloading back, unless an unused residency comes first.
    #[test]
    fn after_a_probe_without_use_one_use_is_enough() {
        let mut habits = after_uses(8);
        let [preloads, _, probes] = live(&mut habits, [true; FIRST_PROBE as usize + 1]);
        assert_eq!((preloads, probes), (FIRST_PROBE.into(), 1));
        let mut missed = after_uses(8);
        then(&mut missed, true, FIRST_PROBE.into());
        then(&mut missed, false, 1);
        for (unused, expected) in [(0, Slice::Preload), (1, Slice::Trap)] {
            let mut habits = missed;
            then(&mut habits, false, unused);
            then(&mut habits, true, 1);
            assert_eq!(next(habits), expected, "{unused} unused");
        }
    }

    /// The distance between probes doubles with each use that one confirms, four times.
    #[test]
    fn confirmed_probes_become_rare() {
        let mut habits = after_uses(8);
        for doublings in [0, 1, 2, 3, 4, 4] {
            let distance = usize::from(FIRST_PROBE) << doublings;
            let [preloads, traps, probes] =
                live(&mut habits, core::iter::repeat_n(true, distance + 1));
            assert_eq!((preloads as usize, traps, probes), (distance, 0, 1));
        }
    }

    /// Two migrations fill the counter, 2 I = 6000, and a third adds nothing; each return to its own registers takes S = 100.
    #[test]
    fn who_migrated_twice_is_written_through_for_thirty_returns() {
        let mut habits = Habits::default();
        for _ in 0..3 {
            habits.arrive(Arrival::Migrated);
        }
        for _ in 0..30 {
            habits.arrive(Arrival::Resident);
        }
        assert!(habits.writes_through());
        habits.arrive(Arrival::Resident);
        assert!(!habits.writes_through());
    }

    #[test]
    fn who_migrates_is_written_through_until_it_stays() {
        let mut habits = Habits::default();
        assert!(!habits.writes_through());
        habits.arrive(Arrival::Migrated);
        assert!(habits.writes_through());
        for _ in 0..=I / S {
            habits.arrive(Arrival::Resident);
        }
        assert!(!habits.writes_through());
    }
}
