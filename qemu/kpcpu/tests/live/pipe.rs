//! In a pipe: plain text, one table after the other; JSON, one object a line.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::{Duration, Instant};

use pcu9_runner::Guest;
use serde_json::Value;

use super::{boot, pcustat, run};

#[test]
fn once_again_and_again_and_as_json() {
    boot(2, |guest| {
        let mut once = pcustat(guest);
        let (status, said, complaints) = run(&mut once);
        assert_eq!((status, complaints.as_str()), (0, ""));
        assert!(
            said.contains(" of 3 CPUs started, ids below 128\n\nCPU  STATE"),
            "{said}"
        );
        assert!(
            !said.contains('\u{1b}') && !said.contains("per second"),
            "{said}"
        );

        let mut thrice = pcustat(guest);
        let (status, said, _) = run(thrice.args(["--interval", "0.2", "--count", "3"]));
        assert_eq!(status, 0);
        let tables: Vec<_> = said.split("\n\nCPU").collect();
        assert_eq!(tables.len(), 4, "{said}");
        // However late each look is, none is before its time.
        let times = said.split("; counts per second, over the last ").skip(1);
        let times: Vec<f64> = times
            .map(|rest| rest.split_once(" s\n").expect(rest).0)
            .map(|figure| figure.parse().expect(figure))
            .collect();
        assert_eq!(times.len(), 3, "{said}");
        assert!(times.iter().sum::<f64>() > 0.45, "{said}");
        assert!(!said.contains('\u{1b}'), "{said}");

        let mut json = pcustat(guest);
        let (status, said, _) = run(json.args(["--interval", "0.2", "--count", "2", "--json"]));
        assert_eq!(status, 0);
        let lines: Vec<Value> = said
            .lines()
            .map(|l| serde_json::from_str(l).expect(l))
            .collect();
        assert_eq!(lines.len(), 2);
        for line in &lines {
            assert_eq!(line["answer"]["cpus"][2]["cpu"], 70);
            let traps = line["rates"]["0"]["fpu"]["traps"].as_f64();
            assert!(traps.expect("a number") >= 0.0, "{line}");
        }
        let seconds = |n: usize, key: &str| lines[n][key].as_f64().expect("a number");
        let between = seconds(1, "seconds") - seconds(0, "seconds");
        assert!(
            seconds(1, "seconds") >= 0.4 && (seconds(1, "elapsed") - between).abs() < 1e-6,
            "{said}"
        );

        for (by, question) in [
            ("file", "counters"),
            ("pmemsave", "counters"),
            ("file", "dpcpu"),
        ] {
            let mut command = pcustat(guest);
            command.args(["--by", by, "--interval", "0.2", "--count", "1", question]);
            if question == "dpcpu" {
                command.args(["boot_live::kernel::BEAT", "0"]);
            }
            let (status, said, complaints) = run(&mut command);
            assert_eq!((status, complaints.as_str()), (0, ""), "{by} {question}");
            let word = if question == "dpcpu" {
                "BEAT: AtomicU64"
            } else {
                "PER SECOND"
            };
            assert!(said.contains(word), "{said}");
        }
    });
}

/// The counter's whole name and its value, in what `counters --json` says.
fn packets_of(answer: &Value) -> (String, f64) {
    let counters = answer.as_array().expect("counters");
    let is_it = |c: &&Value| c["name"].as_str().is_some_and(|n| n.ends_with("PACKETS"));
    let packets = counters.iter().find(is_it).expect("it is there");
    let name = packets["name"].as_str().expect("text");
    (
        name.to_owned(),
        packets["value"].as_f64().expect("a number"),
    )
}

fn packets(guest: &Guest<'_>) -> f64 {
    let (status, said, _) = run(pcustat(guest).args(["counters", "--json"]));
    assert_eq!(status, 0);
    packets_of(&serde_json::from_str(&said).expect("JSON")).1
}

#[test]
fn counters_per_second_are_what_was_added_between_two_looks() {
    boot(1, |guest| {
        let mut command = pcustat(guest);
        command.args(["counters", "--interval", "0.3", "--count", "4", "--json"]);
        let (status, said, _) = run(&mut command);
        assert_eq!(status, 0);
        let mut before: Option<(f64, f64)> = None;
        for line in said.lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let (name, value) = packets_of(&line["answer"]);
            let elapsed = line["elapsed"].as_f64().expect("a number");
            let rate = line["rates"][&name].as_f64().expect("a number");
            if let Some((old, _)) = before {
                let difference = value - old;
                assert!(
                    (rate * elapsed - difference).abs() < 1.0,
                    "{difference}: {line}"
                );
                assert!(difference >= 0.0, "{line}");
            }
            before = Some((value, elapsed));
        }
        let (last, _) = before.expect("four lines");
        // It goes on, when the host lets it.
        let deadline = Instant::now() + Duration::from_mins(1);
        while packets(guest) <= last {
            assert!(Instant::now() < deadline, "no more than {last}");
        }
    });
}

#[test]
fn an_lwp_is_followed_until_the_guest_ends() {
    boot(1, |guest| {
        let (_, said, _) = run(pcustat(guest).arg("--json"));
        let answer: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(answer["cpus"][0]["cpu"], 0);
        // An LWP that adds: it sleeps and runs, and its state comes and goes.
        let mut number = None;
        for n in 1..40 {
            let (status, said, _) = run(pcustat(guest).args(["lwp", &n.to_string()]));
            if status == 0 && said.starts_with(&format!("LWP {n} adds")) {
                number = Some(n);
                break;
            }
        }
        let number = number.expect("an LWP that adds").to_string();
        let mut follow = pcustat(guest);
        follow.args([
            "lwp",
            &number,
            "--follow",
            "--interval",
            "0.01",
            "--count",
            "5",
        ]);
        let (status, said, complaints) = run(&mut follow);
        assert_eq!((status, complaints.as_str()), (0, ""));
        assert_eq!(said.lines().count(), 5, "{said}");
        for line in said.lines() {
            let begin = format!(" s  {number} adds  ");
            assert!(line.contains(&begin) && line.contains("fpu: "), "{line}");
        }
        let (status, _, complaints) = run(pcustat(guest).args(["lwp", "9999", "--follow"]));
        assert_eq!(status, 1);
        assert_eq!(complaints, "error: no LWP has the number 9999\n");

        let mut follow = pcustat(guest);
        follow.args(["lwp", &number, "--follow", "--json"]);
        let follow = follow.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut follow = follow.expect("it runs");
        let mut lines = BufReader::new(follow.stdout.take().expect("a pipe"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("a line");
        let first: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(first["name"], "adds", "{line}");
        guest
            .connect()
            .expect("QEMU answers")
            .quit()
            .expect("it ends");
        let status = follow.wait().expect("it ends");
        let mut complaints = String::new();
        let mut pipe = follow.stderr.take().expect("a pipe");
        pipe.read_to_string(&mut complaints).expect("text");
        assert_eq!(status.code(), Some(1));
        assert!(
            complaints.starts_with("error: the guest has ended: QEMU "),
            "{complaints}"
        );
        assert_eq!(complaints.lines().count(), 1);
    });
}

#[test]
fn a_reader_that_goes_away_ends_it_without_a_word() {
    boot(1, |guest| {
        let mut command = pcustat(guest);
        command.args(["--interval", "0.05"]);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.expect("it runs");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        lines.read_line(&mut String::new()).expect("a line");
        drop(lines);
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(output.stderr, b"");
    });
}
