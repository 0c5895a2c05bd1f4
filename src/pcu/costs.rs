//! What moving a state costs on the machine at hand, by which [`Policy::Adaptive`](super::Policy::Adaptive) weighs.

use core::sync::atomic::{AtomicU16, Ordering};

use super::Pcu;
use super::adaptive::DOUBLINGS;
use crate::kernel::Kernel;

/// What a machine's operations cost, in cycles or in any other unit: only their ratios count.
///
/// A kernel measures them at its start, on x86-64 by [`calibrate`](crate::x86_64::calibrate), or writes them down; any of them can be
/// overridden:
///
/// ```
/// use pcu9::pcu::Costs;
/// let costs = Costs { cross_call: 20_000, ..Costs::ZEN3 };
/// ```
///
/// Where `trap` is not known exactly, less is better than more: to believe twice the true figure costs more than to believe half
/// of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// T: a use with the gate closed, up to the use itself, beyond what is moved: the trap, the kernel's way in and out, and the
    /// opening of the gate.
    pub trap: u32,
    /// R: a state is brought into the registers.
    pub restore: u32,
    /// S: a state is saved.
    pub save: u32,
    /// X: the gate is opened or closed, other than by a trap.
    pub toggle: u32,
    /// I: a state is fetched from another CPU, beyond the save there.
    pub cross_call: u32,
}

impl Costs {
    /// A server with Zen 3 cores: R and S measured, the others of that order of magnitude. In force until others are set.
    pub const ZEN3: Self = Self {
        trap: 1500,
        restore: 288,
        save: 100,
        toggle: 150,
        cross_call: 3000,
    };
}

impl Default for Costs {
    fn default() -> Self {
        Self::ZEN3
    }
}

/// The longest first distance between probes: doubled, it still fits into 16 bits.
const MOST_PROBE: u64 = (u16::MAX >> DOUBLINGS) as u64;

/// The steps and bounds of an LWP's counters, in a unit of its own: 16 bits hold them whatever the machine's costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// T.
    pub(super) use_step: u16,
    /// W - X.
    pub(super) miss_step: u16,
    /// 4 (T + W).
    pub(super) use_top: u16,
    /// 5 T / W, in slices.
    pub(super) first_probe: u16,
    /// I; the counter's top is twice that.
    pub(super) migration_step: u16,
    /// S.
    pub(super) return_step: u16,
}

impl Rule {
    /// The counters' tops fit into 16 bits: all costs are halved until they do, and none becomes 0 that was not.
    pub(super) const fn of(costs: Costs) -> Self {
        let trap = costs.trap as u64;
        let moved = costs.restore as u64 + costs.save as u64;
        let top = 4 * (trap + moved);
        let write_top = 2 * costs.cross_call as u64;
        let mut shift = 0;
        while (top | write_top) >> shift > u16::MAX as u64 {
            shift += 1;
        }
        let first_probe = match (5 * trap).checked_div(moved) {
            Some(0) => 1,
            Some(slices) if slices < MOST_PROBE => slices,
            _ => MOST_PROBE,
        };
        Self {
            use_step: scaled(trap, shift),
            miss_step: scaled(moved.saturating_sub(costs.toggle as u64), shift),
            use_top: scaled(top, shift),
            first_probe: scaled(first_probe, 0),
            migration_step: scaled(costs.cross_call as u64, shift),
            return_step: scaled(costs.save as u64, shift),
        }
    }

    /// How many slices are preloaded before the next probe.
    pub(super) const fn distance(&self, doublings: u8) -> u16 {
        self.first_probe << doublings
    }

    /// Above this a use comes soon after the preloading ended.
    pub(super) const fn soon(&self) -> u16 {
        self.use_top
            .saturating_sub(self.use_step)
            .saturating_sub(self.use_step / 2)
    }

    pub(super) const fn write_top(&self) -> u16 {
        self.migration_step.saturating_mul(2)
    }

    const fn to_array(self) -> [u16; 6] {
        [
            self.use_step,
            self.miss_step,
            self.use_top,
            self.first_probe,
            self.migration_step,
            self.return_step,
        ]
    }

    const fn from_array(figures: [u16; 6]) -> Self {
        let [
            use_step,
            miss_step,
            use_top,
            first_probe,
            migration_step,
            return_step,
        ] = figures;
        Self {
            use_step,
            miss_step,
            use_top,
            first_probe,
            migration_step,
            return_step,
        }
    }
}

/// In units of 2^`shift`; none becomes 0 that was not.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the shift was chosen so that it fits"
)]
const fn scaled(cost: u64, shift: u32) -> u16 {
    if cost == 0 {
        0
    } else if cost >> shift == 0 {
        1
    } else {
        (cost >> shift) as u16
    }
}

/// A [`Rule`], changed while CPUs read it: who reads in between sees some figures of each, and decides no worse than by a guess.
#[derive(Debug)]
pub(super) struct SharedRule([AtomicU16; 6]);

impl SharedRule {
    pub(super) const fn new(costs: Costs) -> Self {
        let figures = Rule::of(costs).to_array();
        let mut slots = [const { AtomicU16::new(0) }; 6];
        let mut nth = 0;
        while nth < slots.len() {
            slots[nth] = AtomicU16::new(figures[nth]);
            nth += 1;
        }
        Self(slots)
    }

    pub(super) fn load(&self) -> Rule {
        Rule::from_array(
            self.0
                .each_ref()
                .map(|figure| figure.load(Ordering::Relaxed)),
        )
    }

    fn store(&self, rule: Rule) {
        for (slot, figure) in self.0.iter().zip(rule.to_array()) {
            slot.store(figure, Ordering::Relaxed);
        }
    }
}

impl<K: Kernel<N>, const N: usize> Pcu<K, N> {
    /// The same with the costs of another machine than [`Costs::ZEN3`], from before the first LWP ran; later there is
    /// [`set_costs`](Self::set_costs).
    #[must_use]
    pub const fn with_costs(mut self, costs: Costs) -> Self {
        self.rule = SharedRule::new(costs);
        self
    }

    /// Sets what this machine's operations cost. What LWPs have learnt stays, and is weighed anew.
    ///
    /// Context: any; does not wait.
    pub fn set_costs(&self, costs: Costs) {
        self.rule.store(Rule::of(costs));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule::of(Costs::ZEN3);

    #[test]
    fn the_costs_are_the_steps() {
        let expected = Rule {
            use_step: 1500,
            miss_step: 238,
            use_top: 7552,
            first_probe: 19,
            migration_step: 3000,
            return_step: 100,
        };
        assert_eq!(RULE, expected);
        assert_eq!(Rule::from_array(RULE.to_array()), RULE);
        let shared = SharedRule::new(Costs::ZEN3);
        assert_eq!(shared.load(), RULE);
        let other = Costs {
            trap: 150,
            restore: 120,
            ..Costs::ZEN3
        };
        shared.store(Rule::of(other));
        assert_eq!(shared.load(), Rule::of(other));
    }

    /// 4 (T + W) = 65536 is one too many for 16 bits, 65532 is not; so is 2 I.
    #[test]
    fn costs_are_halved_until_the_tops_fit() {
        let of = |trap, restore, cross_call| {
            Rule::of(Costs {
                trap,
                restore,
                save: 1,
                toggle: 1,
                cross_call,
            })
        };
        let fits = of(10_000, 6_382, 32_767);
        assert_eq!(
            (fits.use_top, fits.use_step, fits.migration_step),
            (65_532, 10_000, 32_767)
        );
        let of_uses = of(10_000, 6_383, 1);
        assert_eq!((of_uses.use_top, of_uses.use_step), (32_768, 5_000));
        let of_writes = of(10_000, 6_382, 32_768);
        assert_eq!(
            (of_writes.use_top, of_writes.migration_step),
            (32_766, 16_384)
        );
        // What would become 0 by it stays 1; what was 0 stays so.
        assert_eq!((of_writes.return_step, of_uses.migration_step), (1, 1));
        assert_eq!(of(10_000, 0, 0).migration_step, 0);
        // Each top counts for itself: these have no bit that the other lacks.
        let equal = of(32_766, 1, 65_536);
        assert_eq!((equal.use_top, equal.migration_step), (32_768, 16_384));
        let most = of(u32::MAX, u32::MAX, u32::MAX);
        assert_eq!(
            (most.use_step, most.use_top, most.migration_step),
            (8191, 65_535, 8191)
        );
    }

    #[test]
    fn soon_is_a_use_and_a_half_below_the_top() {
        assert_eq!(RULE.soon(), 7552 - 1500 - 750);
    }

    #[test]
    fn the_first_distance_is_5_t_to_w_from_1_on() {
        let of = |trap, restore, save| {
            Rule::of(Costs {
                trap,
                restore,
                save,
                ..Costs::ZEN3
            })
            .first_probe
        };
        assert_eq!(
            [of(100, 40, 10), of(100, 300, 100), of(100, 400, 200)],
            [10, 1, 1]
        );
        assert_eq!(
            [of(4_000, 8, 2), of(4_096, 8, 2), of(1, 0, 0)],
            [2_000, 2_047, 2_047]
        );
        let rule = Rule {
            first_probe: 2_047,
            ..RULE
        };
        assert_eq!(rule.distance(DOUBLINGS), 65_504);
    }
}
