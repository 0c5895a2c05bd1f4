//! The line `@event CPU BEGIN EVENT..`: what happened on one CPU, in order; the kernel's side is `timeline` of the testbed.
//!
//! `BEGIN` is a time (hexadecimal) in nanoseconds since the timeline began. An event is `TIME,KIND[,A,B]`: how long after the one
//! before it, or after `BEGIN`, it came (hexadecimal), and one letter; some have two numbers more.

use super::Who;

/// What each letter counts.
const COUNTED: [(char, &str); 19] = [
    ('t', "traps"),
    ('l', "loads"),
    ('p', "preloads"),
    ('P', "probes"),
    ('Z', "xcalls_raced"),
    ('d', "discards"),
    ('v', "saves"),
    ('V', "elided_saves"),
    ('g', "releases"),
    ('w', "wipes"),
    ('i', "inits"),
    ('r', "restores"),
    ('e', "elided_restores"),
    ('T', "reenables_trap"),
    ('L', "reenables_load"),
    ('S', "reenables_switch"),
    ('x', "spurious"),
    ('f', "failed"),
    ('K', "sections"),
];

/// Something that happened on a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Happening {
    /// When, in nanoseconds since the timeline began.
    pub(crate) at: u64,
    /// What.
    pub(crate) what: What,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// The counter with this name grew by one.
    Counted(&'static str),
    /// This LWP runs, as the window begins.
    Runs(Lwp),
    /// The CPU switched to this LWP.
    Switched(Lwp),
    /// The CPU asked CPU `cpu` for a state; its cross-call with that number.
    Asked {
        /// Whom.
        cpu: usize,
        /// Which.
        number: u64,
    },
    /// The CPU served the cross-call `number` of CPU `cpu`.
    Served {
        /// Who asked.
        cpu: usize,
        /// Which.
        number: u64,
    },
    /// From now on this is in the registers.
    Registers(Registers),
}

/// An LWP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lwp {
    /// Its number.
    pub(crate) number: u64,
    /// Whose it is.
    pub(crate) who: Who,
}

/// What is in the unit's registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Registers {
    /// Nobody's state.
    Nobodys,
    /// This LWP's, newer than memory.
    Live(Lwp),
    /// What this LWP has in memory too.
    Clean(Lwp),
    /// A kernel section's.
    Kernels,
}

impl What {
    /// The counter that it is counted by.
    pub(crate) fn counter(self) -> Option<&'static str> {
        match self {
            Self::Counted(name) => Some(name),
            Self::Switched(_) => Some("switches"),
            Self::Asked { .. } => Some("xcalls"),
            Self::Runs(_) | Self::Served { .. } | Self::Registers(_) => None,
        }
    }
}

/// The counters that have events.
pub(crate) fn counters() -> impl Iterator<Item = &'static str> {
    let others = ["xcalls", "switches"];
    COUNTED.into_iter().map(|(_, name)| name).chain(others)
}

/// Decodes what follows the CPU's number.
pub(super) fn decode(text: &str) -> Option<Vec<Happening>> {
    let mut words = text.split_whitespace();
    let mut now = u64::from_str_radix(words.next()?, 16).ok()?;
    words
        .map(|word| {
            let happening = happening(word, now)?;
            now = happening.at;
            Some(happening)
        })
        .collect()
}

fn happening(word: &str, before: u64) -> Option<Happening> {
    let mut fields = word.split(',');
    let since = u64::from_str_radix(fields.next()?, 16).ok()?;
    let mut kind = fields.next()?.chars();
    let (letter, None) = (kind.next()?, kind.next()) else {
        return None;
    };
    let mut number = || fields.next()?.parse::<u64>().ok();
    let what = match letter {
        'n' => What::Registers(Registers::Nobodys),
        'k' => What::Registers(Registers::Kernels),
        'o' => What::Registers(Registers::Live(lwp(number()?, number()?)?)),
        'c' => What::Registers(Registers::Clean(lwp(number()?, number()?)?)),
        'b' => What::Runs(lwp(number()?, number()?)?),
        's' => What::Switched(lwp(number()?, number()?)?),
        'X' => What::Asked {
            cpu: usize::try_from(number()?).ok()?,
            number: number()?,
        },
        'Y' => What::Served {
            cpu: usize::try_from(number()?).ok()?,
            number: number()?,
        },
        _ => {
            let (_, name) = COUNTED.into_iter().find(|(one, _)| *one == letter)?;
            What::Counted(name)
        }
    };
    let at = before.checked_add(since)?;
    fields.next().is_none().then_some(Happening { at, what })
}

/// The LWP `number`; `whose` is its job plus 2, 1 for the kernel, 0 for idle.
fn lwp(number: u64, whose: u64) -> Option<Lwp> {
    let who = match whose {
        0 => Who::Idle,
        1 => Who::Kernel,
        job => Who::Job(usize::try_from(job - 2).ok()?),
    };
    Some(Lwp { number, who })
}

#[cfg(test)]
mod tests {
    use super::{Happening, Lwp, Registers, What, decode};
    use crate::protocol::Who;

    #[test]
    fn events_follow_each_other() {
        let nbody = Lwp {
            number: 7,
            who: Who::Job(3),
        };
        let idle = Lwp {
            number: 1,
            who: Who::Idle,
        };
        let expected = [
            (0x100, What::Runs(idle)),
            (0x110, What::Switched(nbody)),
            (0x112, What::Counted("traps")),
            (0x112, What::Asked { cpu: 2, number: 9 }),
            (0x112, What::Registers(Registers::Live(nbody))),
            (0x122, What::Served { cpu: 1, number: 4 }),
            (0x122, What::Registers(Registers::Nobodys)),
        ]
        .map(|(at, what)| Happening { at, what });
        let line = "100 0,b,1,0 10,s,7,5 2,t 0,X,2,9 0,o,7,5 10,Y,1,4 0,n";
        assert_eq!(decode(line), Some(expected.to_vec()));
        assert_eq!(decode("0"), Some(vec![]));
    }

    #[test]
    fn damaged_events_are_refused() {
        for text in [
            "",
            "x 1,t",
            "0 t",
            "0 1",
            "0 1,?",
            "0 1,tt",
            "0 1,s",
            "0 1,s,1",
            "0 1,s,1,x",
            "0 1,t,1",
            "0 1,o,1,2,3",
            "0 g,t",
            "1 ffffffffffffffff,t",
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
