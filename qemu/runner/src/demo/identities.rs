//! Equations between the counters that hold in every correct run, and what each policy promises besides.

use std::fmt;

use super::session::Counters;
use crate::cli::Policy;

/// A statement about counters, with its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    left: Side,
    relation: Relation,
    right: Side,
}

type Side = Vec<(&'static str, u64)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Equal,
    AtMost,
    /// The left side alone is 0.
    Zero,
}

/// Returns what holds for the sums over all CPUs under `policy`.
///
/// It holds for the sums only: an LWP may trap on one CPU and, having waited, be served on another. Ownership that was
/// gained has been dropped when all LWPs have exited, so what is said of that is left out when some have not.
pub(crate) fn identities(totals: &Counters, policy: Policy, all_exited: bool) -> Vec<Identity> {
    let side = |names: &[&'static str]| -> Side {
        names.iter().map(|&name| (name, totals.get(name))).collect()
    };
    let say = |left: &[&'static str], relation, right: &[&'static str]| Identity {
        left: side(left),
        relation,
        right: side(right),
    };
    let counted = |name: &&'static str| totals.get(name) > 0;

    // What never happened is not named: under `Lazy` the first one reads as pcu(9) has it.
    let mut asked = vec!["traps"];
    asked.extend(["loads", "preloads"].iter().filter(|name| counted(name)));
    let mut led_to = vec!["inits", "restores", "reenables_trap"];
    led_to.extend(["reenables_load"].iter().filter(|name| counted(name)));
    led_to.extend(["spurious", "failed"]);
    let mut found = vec![say(&asked, Relation::Equal, &led_to)];

    if all_exited {
        let mut gained = vec!["inits", "restores"];
        gained.extend(["elided_restores"].iter().filter(|name| counted(name)));
        found.push(say(&["releases"], Relation::Equal, &gained));
    }
    // A state is given up saved or discarded; it may have been saved before.
    found.push(say(&["releases"], Relation::AtMost, &["saves", "discards"]));

    let no_cross_calls = say(&["xcalls"], Relation::Zero, &[]);
    match policy {
        Policy::Lazy | Policy::Probe => found.push(say(&["preloads"], Relation::Zero, &[])),
        Policy::Deferred | Policy::Eager => {
            // No trap after the first use.
            let first_uses = ["inits", "spurious", "failed"];
            found.push(say(&["traps"], Relation::AtMost, &first_uses));
            found.push(no_cross_calls);
        }
        Policy::AdaptiveWriteThrough => found.push(no_cross_calls),
        Policy::Adaptive => {}
    }
    found
}

impl Identity {
    /// Tells whether it is true.
    pub(crate) fn holds(&self) -> bool {
        let sum = |side: &Side| {
            let values = side.iter().map(|&(_, value)| u128::from(value));
            values.sum::<u128>()
        };
        let (left, right) = (sum(&self.left), sum(&self.right));
        match self.relation {
            Relation::Equal => left == right,
            Relation::AtMost => left <= right,
            Relation::Zero => left == 0,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |parts: Vec<String>| parts.join(" + ");
        let names = |side: &Side| join(side.iter().map(|&(name, _)| name.to_owned()).collect());
        let values = |side: &Side| join(side.iter().map(|(_, value)| value.to_string()).collect());
        let (sign, not) = match self.relation {
            Relation::Equal => ("=", "is not"),
            Relation::AtMost => ("<=", "is more than"),
            Relation::Zero if self.holds() => return write!(f, "{} = 0", names(&self.left)),
            Relation::Zero => {
                return write!(f, "{} = 0: it is {}", names(&self.left), values(&self.left));
            }
        };
        write!(
            f,
            "{} {sign} {}: {} {} {}",
            names(&self.left),
            names(&self.right),
            values(&self.left),
            if self.holds() { sign } else { not },
            values(&self.right)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::identities;
    use crate::cli::Policy;
    use crate::demo::session::tests::session;

    fn check(policy: Policy, counters: &str) -> Vec<(bool, String)> {
        let totals = session(&format!("@cpu 0 {counters}")).totals();
        let all = identities(&totals, policy, true);
        all.iter()
            .map(|identity| (identity.holds(), identity.to_string()))
            .collect()
    }

    #[test]
    fn traps_are_what_they_led_to() {
        let found = check(
            Policy::Lazy,
            "traps=10 inits=2 restores=5 reenables_trap=2 spurious=1 failed=0 loads=0 releases=7 saves=6 discards=2",
        );
        let expected = [
            "traps = inits + restores + reenables_trap + spurious + failed: 10 = 2 + 5 + 2 + 1 + 0",
            "releases = inits + restores: 7 = 2 + 5",
            "releases <= saves + discards: 7 <= 6 + 2",
            "preloads = 0",
        ];
        assert_eq!(found, expected.map(|text| (true, text.to_owned())));
    }

    #[test]
    fn explicit_loads_and_preloads_stand_beside_traps() {
        let found = check(
            Policy::Adaptive,
            "traps=10 loads=3 preloads=1 inits=2 restores=6 elided_restores=4 reenables_trap=2 reenables_load=3 spurious=1 \
             failed=0 releases=12 saves=12",
        );
        let first = "traps + loads + preloads = inits + restores + reenables_trap + reenables_load + spurious + failed: ";
        assert!(found[0].0 && found[0].1.starts_with(first), "{found:?}");
        let second = "releases = inits + restores + elided_restores: 12 = 2 + 6 + 4";
        assert_eq!(found[1], (true, second.into()));
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn a_broken_identity_is_shown() {
        let found = check(
            Policy::Probe,
            "traps=11 preloads=1 inits=2 restores=5 reenables_trap=2 spurious=1 releases=6 saves=5",
        );
        assert!(found.iter().all(|(holds, _)| !holds), "{found:?}");
        assert!(found[0].1.contains("11 + 1 is not 2 + 5 + 2 + 1 + 0"));
        assert!(found[2].1.contains("6 is more than 5 + 0"));
        assert_eq!(found[3].1, "preloads = 0: it is 1");
    }

    #[test]
    fn who_preloads_never_traps_again_and_never_asks_another_cpu() {
        let counters = "traps=3 preloads=9 inits=2 restores=9 spurious=1 releases=11 saves=11";
        for policy in [Policy::Deferred, Policy::Eager] {
            let found = check(policy, counters);
            assert!(found.iter().all(|(holds, _)| *holds), "{found:?}");
            assert_eq!(
                found[3].1,
                "traps <= inits + spurious + failed: 3 <= 2 + 1 + 0"
            );
            assert_eq!(found[4].1, "xcalls = 0");
            let found = check(
                policy,
                &format!("{counters} xcalls=1 reenables_trap=1").replace("traps=3", "traps=4"),
            );
            assert!(found[0].0 && !found[3].0 && !found[4].0, "{found:?}");
        }
        let found = check(Policy::AdaptiveWriteThrough, "xcalls=2");
        assert_eq!(found[3], (false, "xcalls = 0: it is 2".into()));
        assert!(
            check(Policy::Adaptive, "xcalls=2")
                .iter()
                .all(|(holds, _)| *holds)
        );
    }
}
