//! Equations between the counters that hold in every correct run.

use std::fmt;

use super::session::Counters;

/// An equation with its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    left: Vec<(&'static str, u64)>,
    right: Vec<(&'static str, u64)>,
}

/// Returns the equations for the sums over all CPUs.
///
/// They hold for the sums only: an LWP may trap on one CPU and, having waited, be served on another. Ownership that was
/// gained has been dropped when all LWPs have exited, so the last one is left out when some have not.
pub(crate) fn identities(totals: &Counters, all_exited: bool) -> Vec<Identity> {
    let side =
        |names: &[&'static str]| names.iter().map(|&name| (name, totals.get(name))).collect();
    let mut equations = vec![if totals.get("loads") == 0 {
        Identity {
            left: side(&["traps"]),
            right: side(&["inits", "restores", "reenables_trap", "spurious", "failed"]),
        }
    } else {
        Identity {
            left: side(&["traps", "loads"]),
            right: side(&[
                "inits",
                "restores",
                "reenables_trap",
                "reenables_load",
                "spurious",
                "failed",
            ]),
        }
    }];
    if all_exited {
        equations.push(Identity {
            left: side(&["releases"]),
            right: side(&["inits", "restores"]),
        });
    }
    equations
}

impl Identity {
    /// Tells whether both sides are equal.
    pub(crate) fn holds(&self) -> bool {
        let sum = |side: &[(_, u64)]| {
            side.iter()
                .map(|&(_, value)| u128::from(value))
                .sum::<u128>()
        };
        sum(&self.left) == sum(&self.right)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |parts: Vec<String>| parts.join(" + ");
        let names =
            |side: &[(&str, _)]| join(side.iter().map(|(name, _)| (*name).to_owned()).collect());
        let values =
            |side: &[(_, u64)]| join(side.iter().map(|(_, value)| value.to_string()).collect());
        write!(
            f,
            "{} = {}: {} {} {}",
            names(&self.left),
            names(&self.right),
            values(&self.left),
            if self.holds() { "=" } else { "is not" },
            values(&self.right)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::identities;
    use crate::demo::session::tests::session;

    fn check(counters: &str) -> Vec<(bool, String)> {
        let totals = session(&format!("@cpu 0 {counters}")).totals();
        let all = identities(&totals, true);
        all.iter()
            .map(|identity| (identity.holds(), identity.to_string()))
            .collect()
    }

    #[test]
    fn traps_are_what_they_led_to() {
        let found = check(
            "traps=10 inits=2 restores=5 reenables_trap=2 spurious=1 failed=0 loads=0 releases=7",
        );
        assert_eq!(
            found[0],
            (
                true,
                "traps = inits + restores + reenables_trap + spurious + failed: 10 = 2 + 5 + 2 + 1 + 0".into()
            )
        );
        assert_eq!(
            found[1],
            (true, "releases = inits + restores: 7 = 2 + 5".into())
        );
    }

    #[test]
    fn explicit_loads_stand_beside_traps() {
        let found = check(
            "traps=10 loads=3 inits=2 restores=5 reenables_trap=2 reenables_load=3 spurious=1 failed=0",
        );
        assert!(found[0].0 && found[0].1.starts_with("traps + loads = "));
    }

    #[test]
    fn a_broken_identity_is_shown() {
        let found = check("traps=11 inits=2 restores=5 reenables_trap=2 spurious=1 releases=6");
        assert!(!found[0].0 && found[0].1.contains("11 is not 2 + 5 + 2 + 1 + 0"));
        assert!(!found[1].0);
    }
}
