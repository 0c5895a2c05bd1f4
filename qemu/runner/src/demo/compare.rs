//! Compares what the copies of a program did in the guest with what the program did on the host.

use std::fmt::Write;

use super::session::Job;
use crate::process::Ended;

/// What came of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every copy did what the program did on the host, to the byte.
    Identical,
    /// Some copy did something else, or could not do it at all: in a word or two.
    Wrong(&'static str),
    /// It did not run since a CPU feature is missing: which, and where.
    Skipped(String),
}

/// What one copy did wrong: in a word or two for the table, and in full.
type Wrong = (&'static str, String);

/// Judges the `copies` of a program that did `expected` and ended so on the host; returns every difference in words.
pub(crate) fn judge(
    name: &str,
    expected: (&[u8], Ended),
    copies: u32,
    jobs: &[&Job],
) -> (Verdict, Vec<String>) {
    if let Some(feature) = jobs.first().and_then(|job| job.skipped.clone())
        && jobs.iter().all(|job| job.skipped.is_some())
    {
        return (
            Verdict::Skipped(format!("needs {feature}, the guest's CPU lacks it")),
            vec![],
        );
    }
    // Copies that failed in the same way are reported together.
    let mut wrong: Vec<(Wrong, Vec<String>)> = Vec::new();
    for job in jobs {
        if let Some(found) = copy(expected, job) {
            match wrong.iter_mut().find(|(other, _)| *other == found) {
                Some((_, copies)) => copies.push(job.copy.to_string()),
                None => wrong.push((found, vec![job.copy.to_string()])),
            }
        }
    }
    let mut problems: Vec<String> = wrong
        .iter()
        .map(|((_, text), copies)| {
            let plural = if copies.len() == 1 { "copy" } else { "copies" };
            format!("{name}, {plural} {}: {text}", copies.join(", "))
        })
        .collect();
    if u32::try_from(jobs.len()) != Ok(copies) {
        problems.push(format!(
            "{name}: the guest reported {} of {copies} copies",
            jobs.len()
        ));
    }
    let verdict = match (wrong.first(), problems.is_empty()) {
        (Some(((word, _), _)), _) => Verdict::Wrong(word),
        (None, false) => Verdict::Wrong("missing"),
        (None, true) => Verdict::Identical,
    };
    (verdict, problems)
}

/// Says what is wrong with one copy.
fn copy((output, ended): (&[u8], Ended), job: &Job) -> Option<Wrong> {
    if let Some(error) = &job.error {
        return Some((
            "not started",
            format!("could not be started in the guest: {error}"),
        ));
    }
    if let Some(feature) = &job.skipped {
        return Some((
            "not started",
            format!("skipped for lack of {feature}, and other copies ran"),
        ));
    }
    let on_host = matches!(ended, Ended::Signal(_));
    if !job.faults.is_empty() {
        let on_host = if on_host {
            format!("and on the host too: {ended}")
        } else {
            format!("but not on the host: {ended} there")
        };
        return Some((
            "fault",
            format!("faults in the guest: {}; {on_host}", job.faults.join("; ")),
        ));
    }
    if on_host {
        return Some((
            "fault on the host",
            format!("faults on the host ({ended}), but not in the guest"),
        ));
    }
    let Some(exit) = job.exit else {
        return Some(("unfinished", "did not finish in the guest".into()));
    };
    if job.output != output {
        return Some(("different", first_difference(output, &job.output)));
    }
    if Ended::Exit(exit & 0xff) != ended {
        return Some((
            "different",
            format!("ended with exit status {exit} in the guest, and with {ended} on the host"),
        ));
    }
    None
}

/// Says where `seen` first differs from `expected`.
fn first_difference(expected: &[u8], seen: &[u8]) -> String {
    let pairs = expected.iter().zip(seen);
    let at = pairs.take_while(|(a, b)| a == b).count();
    let before = &expected[..at];
    let begin = before
        .iter()
        .rposition(|&b| b == b'\n')
        .map_or(0, |newline| newline + 1);
    let number = before.split(|&b| b == b'\n').count();
    let mut text = format!(
        "its output differs from the host's at byte {at}: line {number}, column {}",
        at - begin + 1
    );
    for (who, bytes) in [("the host wrote ", expected), ("the guest wrote", seen)] {
        let rest = &bytes[begin..];
        let line = rest
            .split_inclusive(|&b| b == b'\n')
            .next()
            .unwrap_or_default();
        let shown = line[..line.len().min(160)].escape_ascii();
        let more = if line.len() > 160 { ".." } else { "" };
        let _ = if rest.is_empty() {
            write!(
                text,
                "\n    {who} nothing more ({} bytes in all)",
                bytes.len()
            )
        } else {
            write!(text, "\n    {who} \"{shown}\"{more}")
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Verdict, first_difference, judge};
    use crate::demo::session::Job;
    use crate::process::Ended;

    fn job(copy: u32, output: &str) -> Job {
        Job {
            name: "p".into(),
            copy,
            output: output.into(),
            exit: Some(0),
            ..Job::default()
        }
    }

    fn judge_jobs(ended: Ended, jobs: &[Job]) -> (Verdict, Vec<String>) {
        judge(
            "p",
            (b"one\ntwo\n", ended),
            2,
            &jobs.iter().collect::<Vec<_>>(),
        )
    }

    #[test]
    fn equal_copies_are_identical() {
        let jobs = [job(0, "one\ntwo\n"), job(1, "one\ntwo\n")];
        assert_eq!(
            judge_jobs(Ended::Exit(0), &jobs),
            (Verdict::Identical, vec![])
        );
    }

    #[test]
    fn the_first_difference_is_shown_with_its_line() {
        let jobs = [job(0, "one\ntwo\n"), job(1, "one\ntWo\n")];
        let (verdict, problems) = judge_jobs(Ended::Exit(0), &jobs);
        assert_eq!(verdict, Verdict::Wrong("different"));
        assert_eq!(
            problems,
            [
                "p, copy 1: its output differs from the host's at byte 5: line 2, column 2\n    \
              the host wrote  \"two\\n\"\n    the guest wrote \"tWo\\n\""
            ]
        );
        let short = first_difference(b"one\ntwo\n", b"one\n");
        assert!(short.contains("line 2") && short.contains("nothing more (4 bytes in all)"));
        assert!(first_difference(b"one\n", b"one\nmore\n").contains("host wrote  nothing more"));
        assert!(first_difference(b"", b"\xff").contains("\\xff"));
        assert!(first_difference(b"abc", b"ab").contains("the guest wrote \"ab\""));
    }

    #[test]
    fn faults_in_the_guest_and_on_the_host_are_said_apart() {
        let mut faulty = job(0, "");
        faulty.faults.push("#PF at 0x10".into());
        let jobs = [faulty, job(1, "one\ntwo\n")];
        let (verdict, problems) = judge_jobs(Ended::Exit(0), &jobs);
        assert_eq!(verdict, Verdict::Wrong("fault"));
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("#PF at 0x10; but not on the host"));
        let (_, problems) = judge_jobs(Ended::Signal(11), &jobs);
        assert!(problems[0].contains("and on the host too: killed by SIGSEGV"));
        assert!(
            problems[1].contains("faults on the host (killed by SIGSEGV), but not in the guest")
        );
    }

    #[test]
    fn status_missing_copies_and_unfinished_ones_count() {
        let mut exits = job(0, "one\ntwo\n");
        exits.exit = Some(3);
        let mut hangs = job(1, "one\n");
        hangs.exit = None;
        let (_, problems) = judge_jobs(Ended::Exit(0), &[exits, hangs]);
        assert!(problems[0].contains("exit status 3 in the guest"));
        assert!(problems[1].contains("did not finish"));
        let (verdict, problems) = judge_jobs(Ended::Exit(0), &[job(0, "one\ntwo\n")]);
        assert_eq!(verdict, Verdict::Wrong("missing"));
        assert!(problems[0].contains("1 of 2 copies"));
    }

    #[test]
    fn copies_that_fail_alike_are_reported_together() {
        let jobs = [job(0, "x"), job(1, "x")];
        let (_, problems) = judge_jobs(Ended::Exit(0), &jobs);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("p, copies 0, 1:"));
    }

    #[test]
    fn a_missing_feature_skips_and_is_no_problem() {
        let skipped = |copy| Job {
            skipped: Some("avx".into()),
            exit: None,
            ..job(copy, "")
        };
        let (verdict, problems) = judge_jobs(Ended::Exit(0), &[skipped(0), skipped(1)]);
        assert!(matches!(verdict, Verdict::Skipped(why) if why.contains("avx")));
        assert!(problems.is_empty());
    }
}
