//! Reads what `cargo demo --policy probe --trace FILE` wrote: the format is in the documentation of `pcu9_runner::trace`.

use std::collections::HashMap;
use std::fmt;

use super::{Slice, Workload};

/// The line that is wrong, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceError {
    /// Its number, from 1.
    line: usize,
    problem: String,
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

impl std::error::Error for TraceError {}

/// Reads a trace. LWPs of one job are one domain; the kernel's have none; what idle LWPs ran for is the gap of the slice after it.
///
/// # Errors
///
/// [`TraceError`]; a trace that does not know which slices used the unit has no slices to replay.
pub fn parse(text: &str) -> Result<Workload, TraceError> {
    let mut reader = Reader::default();
    let mut lines = text.lines().zip(1..);
    let at = |line, problem: String| TraceError { line, problem };
    match lines.next() {
        Some((head, _)) if head.starts_with("# pcu9-trace 1:") => {}
        _ => {
            return Err(at(
                1,
                "not `# pcu9-trace 1: ..`, the format that this program reads".to_owned(),
            ));
        }
    }
    for (line, number) in lines {
        if !line.starts_with('#') {
            reader.take(line).map_err(|problem| at(number, problem))?;
        }
    }
    Ok(reader.workload)
}

#[derive(Default)]
struct Reader {
    workload: Workload,
    /// The places of the trace's LWPs.
    places: HashMap<u64, u32>,
    /// What each CPU idled since its last slice.
    gaps: Vec<u32>,
}

impl Reader {
    fn take(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split(' ').collect();
        let [cpu, begin, end, lwp, job, _, enters, uses, ..] = words[..] else {
            return Err(format!("{} columns, where 9 were expected", words.len()));
        };
        let cpu: u16 = number("cpu", cpu)?;
        let ticks = number::<u64>("end", end)?.saturating_sub(number("begin", begin)?);
        if usize::from(cpu) >= self.gaps.len() {
            self.gaps.resize(usize::from(cpu) + 1, 0);
            self.workload.n_cpus = self.gaps.len();
        }
        let gap = &mut self.gaps[usize::from(cpu)];
        if job == "idle" {
            // A gap of no ticks is one all the same.
            *gap = gap.saturating_add(u32::try_from(ticks).unwrap_or(u32::MAX).max(1));
            return Ok(());
        }
        let domain = match job {
            "kernel" => 0,
            job => number::<u64>("job", job)? + 1,
        };
        let domains = &mut self.workload.domains;
        let place = *self.places.entry(number("lwp", lwp)?).or_insert_with(|| {
            domains.push(domain);
            u32::try_from(domains.len() - 1).expect("a file has fewer lines")
        });
        self.workload.slices.push(Slice {
            lwp: place,
            gap: std::mem::take(gap),
            cpu,
            uses: flag("use", uses)?,
            enters_user: flag("user", enters)?,
        });
        Ok(())
    }
}

fn number<T: std::str::FromStr>(column: &str, word: &str) -> Result<T, String> {
    word.parse()
        .map_err(|_| format!("`{word}` in the column `{column}` is no number"))
}

fn flag(column: &str, word: &str) -> Result<bool, String> {
    match word {
        "0" => Ok(false),
        "1" => Ok(true),
        "?" => Err(
            "the trace does not know which slices used the unit: record it with `--policy probe`"
                .to_owned(),
        ),
        _ => Err(format!(
            "`{word}` in the column `{column}` is neither 0 nor 1"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::Slice;

    const HEAD: &str =
        "# pcu9-trace 1: cpu begin end lwp job program user use migrated\n# policy=probe\n";

    #[test]
    fn the_documented_example_is_read() {
        let text = format!(
            "{HEAD}0 0 51200 7 0 nbody.0 1 1 0\n1 1024 30720 1 idle - 0 0 0\n1 30720 40960 8 1 nbody.1 1 0 1\n\
             1 40960 41984 3 kernel - 0 0 0\n0 51200 102400 9 2 integers.0 1 0 0\n"
        );
        let workload = parse(&text).expect("a trace");
        assert_eq!(workload.domains, [1, 2, 0, 3]);
        assert_eq!(workload.n_cpus, 2);
        let slice = |cpu, lwp, gap, uses, enters_user| Slice {
            lwp,
            gap,
            cpu,
            uses,
            enters_user,
        };
        let expected = [
            slice(0, 0, 0, true, true),
            slice(1, 1, 29696, false, true),
            slice(1, 2, 0, false, false),
            slice(0, 3, 0, false, true),
        ];
        assert_eq!(workload.slices, expected);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, problem) in [
            (
                "",
                "line 1: not `# pcu9-trace 1: ..`, the format that this program reads",
            ),
            ("0 0 1", "line 3: 3 columns, where 9 were expected"),
            (
                "x 0 1 7 0 a.0 1 1 0",
                "line 3: `x` in the column `cpu` is no number",
            ),
            (
                "0 0 1 7 0 a.0 2 1 0",
                "line 3: `2` in the column `user` is neither 0 nor 1",
            ),
            (
                "0 0 1 7 0 a.0 1 ? 0",
                "line 3: the trace does not know which slices used the unit: record it with `--policy probe`",
            ),
        ] {
            let text = if text.is_empty() {
                String::new()
            } else {
                format!("{HEAD}{text}\n")
            };
            assert_eq!(parse(&text).expect_err("wrong").to_string(), problem);
        }
    }
}
