//! The words for the switching policies, the same on the runner's command line, the kernel's, and in the JSON.

use clap::ValueEnum;
use clap::builder::PossibleValue;

/// The switching policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// NetBSD's: the state moves when an LWP uses the unit
    Lazy,
    /// Linux's since 5.2: saved at switch-out, restored at switch-in unless the registers still hold it
    Deferred,
    /// Saved and restored at every switch
    Eager,
    /// Per LWP, by its use of the unit and its migrations so far
    Adaptive,
    /// As adaptive, and every state is saved at switch-out, so that no CPU asks another
    AdaptiveWriteThrough,
    /// For traces: the first use in every slice traps
    Probe,
}

/// Which policies the programs run under, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policies {
    /// This one.
    One(Policy),
    /// Every one.
    All,
}

impl Policy {
    /// Returns the word for the command lines and the JSON.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Lazy => "lazy",
            Self::Deferred => "deferred",
            Self::Eager => "eager",
            Self::Adaptive => "adaptive",
            Self::AdaptiveWriteThrough => "adaptive-write-through",
            Self::Probe => "probe",
        }
    }
}

impl Policies {
    /// Returns them in the order in which they run.
    pub(crate) fn list(self) -> Vec<Policy> {
        match self {
            Self::One(policy) => vec![policy],
            Self::All => Policy::value_variants().to_vec(),
        }
    }

    /// Returns the word for the JSON.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::One(policy) => policy.word(),
            Self::All => "all",
        }
    }
}

impl ValueEnum for Policies {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::One(Policy::Lazy),
            Self::One(Policy::Deferred),
            Self::One(Policy::Eager),
            Self::One(Policy::Adaptive),
            Self::One(Policy::AdaptiveWriteThrough),
            Self::One(Policy::Probe),
            Self::All,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::One(policy) => policy.to_possible_value(),
            Self::All => Some(
                PossibleValue::new("all")
                    .help("Every policy in turn with the same programs, side by side in one table"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Policies, Policy};
    use clap::ValueEnum;

    #[test]
    fn each_policy_is_chosen_by_the_word_that_the_kernel_knows() {
        for policy in Policy::value_variants() {
            let chosen = Policies::from_str(policy.word(), false);
            assert_eq!(chosen, Ok(Policies::One(*policy)));
        }
        let all = Policies::from_str("all", false).expect("a word");
        assert_eq!((all, all.word()), (Policies::All, "all"));
        assert_eq!(all.list(), Policy::value_variants());
        assert_eq!(Policies::value_variants().len(), all.list().len() + 1);
    }
}
