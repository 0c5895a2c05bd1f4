//! Which part of a run is drawn: what was asked for, or a short part in which much is to be seen.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::{Account, Stretch, Timeline};

/// What of a run is recorded and drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Window {
    /// The beginning is recorded, and a part of it drawn.
    Auto,
    /// All between two moments, in microseconds since the first program began.
    Between {
        /// The first of them.
        from_us: u64,
        /// The end.
        to_us: u64,
    },
    /// Nothing.
    None,
}

/// How long a run may be: a day, in milliseconds.
const MOST_MS: f64 = 86_400_000.0;

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => return Ok(Self::Auto),
            "none" => return Ok(Self::None),
            _ => {}
        }
        let form =
            || "not FROM..TO in milliseconds, such as 1000..1002.5; nor auto, nor none".to_owned();
        let (from, to) = text.split_once("..").ok_or_else(form)?;
        let us = |text: &str| match text.parse::<f64>() {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "checked a line above"
            )]
            Ok(ms) if (0.0..=MOST_MS).contains(&ms) => Ok((ms * 1000.0).round() as u64),
            Ok(_) => Err(format!("{text} is not between 0 and {MOST_MS}")),
            Err(_) => Err(form()),
        };
        let (from_us, to_us) = (us(from)?, us(to)?);
        if from_us >= to_us {
            return Err("it ends before it has begun: FROM is less than TO".into());
        }
        Ok(Self::Between { from_us, to_us })
    }
}

impl Window {
    /// The kernel's option.
    pub(crate) fn option(self) -> String {
        match self {
            Self::Auto => " timeline=0-".into(),
            Self::Between { from_us, to_us } => format!(" timeline={from_us}-{to_us}"),
            Self::None => String::new(),
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::None => f.write_str("none"),
            #[expect(clippy::cast_precision_loss, reason = "microseconds of a day")]
            Self::Between { from_us, to_us } => {
                let [from, to] = [from_us, to_us].map(|&us| us as f64 / 1000.0);
                write!(f, "{from}..{to}")
            }
        }
    }
}

/// How many events of a run are drawn, about, where nobody says from when to when.
const SHOWN: usize = 260;

/// Chooses a part, the same of each run: as long as some 260 events take, where most kinds of them are to be seen, cross-calls
/// first of all.
pub(super) fn choose(timelines: &[Timeline<'_>]) -> Stretch {
    // The time of which there are events of every CPU.
    let accounts = || timelines.iter().flat_map(Timeline::accounts);
    let from = accounts().map(Account::from).max().unwrap_or(0);
    let until = accounts().map(Account::until).min().unwrap_or(0).max(from);
    let cpus = timelines.iter().flat_map(|timeline| timeline.cpus.values());
    let mut all: Vec<(u64, &str)> = cpus
        .flat_map(|cpu| &cpu.events)
        .filter(|event| (from..until).contains(&event.at))
        .filter_map(|event| Some((event.at, event.what.counter()?)))
        .collect();
    all.sort_unstable();
    let shown = SHOWN * timelines.len().max(1);
    let parts = (all.len() / shown).max(1) as u64;
    let length = (until - from) / parts;
    let begin = best(&all, (from, until), (length, shown));
    (begin, begin + length.max(1))
}

/// Where to begin: of several equal parts the first.
fn best(all: &[(u64, &str)], (from, until): Stretch, (length, shown): (u64, usize)) -> u64 {
    let mut found = (from, (0, 0, 0));
    let mut begin = from;
    while begin + length <= until {
        let first = all.partition_point(|&(at, _)| at < begin);
        let end = all.partition_point(|&(at, _)| at < begin + length);
        let inside = &all[first..end];
        let calls = inside.iter().filter(|(_, counter)| *counter == "xcalls");
        let kinds: BTreeSet<&str> = inside.iter().map(|&(_, counter)| counter).collect();
        let score = (calls.count().min(3), kinds.len(), inside.len().min(shown));
        // One in which everything happens at once is hard to read.
        if score > found.1 && inside.len() <= 2 * shown {
            found = (begin, score);
        }
        begin += (length / 4).max(1);
    }
    found.0
}

#[cfg(test)]
mod tests {
    use super::Window;

    #[test]
    fn a_window_is_two_times_in_milliseconds() {
        let window = |text: &str| text.parse::<Window>();
        let (from_us, to_us) = (1_000_000, 1_002_500);
        let between = Window::Between { from_us, to_us };
        assert_eq!(window("1000..1002.5"), Ok(between));
        assert_eq!(between.to_string(), "1000..1002.5");
        assert_eq!(between.option(), " timeline=1000000-1002500");
        for (text, option) in [("auto", " timeline=0-"), ("none", "")] {
            let read = window(text).expect(text);
            assert_eq!(
                (read.to_string(), read.option()),
                (text.into(), option.into())
            );
        }
        for (text, says) in [
            ("", "not FROM..TO"),
            ("5", "not FROM..TO"),
            ("..", "not FROM..TO"),
            ("5..", "not FROM..TO"),
            ("a..b", "not FROM..TO"),
            ("NaN..1", "not between 0"),
            ("-1..1", "not between 0"),
            ("0..1e12", "not between 0"),
            ("5..5", "ends before"),
            ("6..5", "ends before"),
        ] {
            let error = window(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
