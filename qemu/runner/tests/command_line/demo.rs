//! The demo from the command line to the exit status, with a script in the emulator's place.

use crate::stand_in::{Bench, program};
use serde_json::Value;

/// A program that writes `a\nb\n` and exits with status 0.
const GOOD: &str = "@boot cpus=1\n@job 0 good 0\n@job 1 good 1\n@out 0 610a\n@out 1 610a620a\n@out 0 620a\n\
    hello from the kernel\n@exit 0 0\n@exit 1 0\n@cpu 0 COUNTERS\n@end ok\n";
const COUNTERS: &str = "switches=9 traps=6 inits=2 restores=3 reenables_trap=1 reenables_switch=4 reenables_load=0 saves=5 \
    releases=5 xcalls=0 migrations=0 spurious=0 failed=0 loads=0 preloads=0 elided_restores=0 elided_saves=0 probes=0 \
    discards=0 xcalls_raced=0 wipes=1 eager_saves=8 eager_restores=7";

/// A good run under the policy `lazy`.
pub(crate) fn good() -> String {
    GOOD.replace("COUNTERS", COUNTERS)
}

#[test]
fn a_good_run_has_status_0_tables_and_json() {
    let bench = Bench::new(&good(), 33);
    let run = bench.demo(&["--cpus", "1"]);
    assert_eq!(run.status, 0, "{}", run.text);
    for text in [
        "identical",
        "| hello from the kernel",
        "8 saves and 7 restores",
        "traps = inits",
        "policy lazy",
        "holds  preloads = 0",
        "2 LWPs on 1 CPUs",
        // In cargo's columns.
        "     Running 1 programs on the host\n     Booting 1 CPUs (max) with 2 copies of 1 programs\n",
    ] {
        assert!(run.text.contains(text), "{text}: {}", run.text);
    }
    let json = run.json;
    assert_eq!(json["ok"], true);
    assert_eq!(json["lwps"], 2);
    assert_eq!(
        json["programs"][0],
        serde_json::json!({"name": "good", "copies": 2, "identical": true})
    );
    assert_eq!(json["counters"]["reenables"], 1);
    assert_eq!(json["per_cpu"][0], json["counters"]);
    assert_eq!(
        json["eager"],
        serde_json::json!({"saves": 8, "restores": 7})
    );
    let fields = [
        "counters",
        "cpu_model",
        "cpus",
        "eager",
        "emulator",
        "leak",
        "lwps",
        "ok",
        "per_cpu",
        "policy",
        "programs",
        "seconds",
    ];
    let keys: Vec<&str> = json
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(keys, fields);
}

#[test]
fn one_wrong_byte_is_shown_with_its_line() {
    let bench = Bench::new(&good().replace("@out 0 620a", "@out 0 630a"), 33);
    let run = bench.demo(&["--cpus", "1"]);
    assert_eq!(run.status, 1);
    assert!(
        run.text
            .contains("good, copy 0: its output differs from the host's at byte 2: line 2"),
        "{}",
        run.text
    );
    assert_eq!(run.json["ok"], false);
    assert_eq!(run.json["programs"][0]["identical"], false);
}

#[test]
fn a_broken_identity_fails_the_run() {
    let bench = Bench::new(&good().replace("traps=6", "traps=7"), 33);
    let run = bench.demo(&["--cpus", "1"]);
    assert_eq!(run.status, 1);
    assert!(
        run.text.contains("7 is not 2 + 3 + 1 + 0 + 0"),
        "{}",
        run.text
    );
}

#[test]
fn a_fault_in_the_guest_is_told_from_one_on_the_host() {
    let faulty = good().replace("@exit 0 0", "@fault 0 #UD at rip 0x400000");
    let run = Bench::new(&faulty, 33).demo(&["--cpus", "1"]);
    assert_eq!(run.status, 1);
    assert!(
        run.text
            .contains("#UD at rip 0x400000; but not on the host"),
        "{}",
        run.text
    );
}

#[test]
fn a_triple_fault_and_a_hang_are_failures_with_the_last_lines() {
    let cut = "@boot cpus=1\n@job 0 good 0\nlast words\n";
    let run = Bench::new(cut, 0).demo(&["--cpus", "1"]);
    assert_eq!(run.status, 1);
    assert!(
        run.text.contains("triple fault") && run.text.contains("| last words"),
        "{}",
        run.text
    );
    assert!(
        run.text.contains("did not finish") && run.text.contains("1 of 2 copies"),
        "{}",
        run.text
    );
    assert_eq!(run.json["ok"], false);
    assert_eq!(run.json["per_cpu"], Value::Array(vec![]));

    let run = Bench::new(cut, -1).demo(&["--cpus", "1", "--timeout", "1"]);
    assert_eq!(run.status, 1);
    assert!(run.text.contains("did not end within 1 s"), "{}", run.text);
}

#[test]
fn a_success_status_without_the_closing_line_is_a_failure() {
    let run = Bench::new(&good().replace("@end ok\n", ""), 33).demo(&["--cpus", "1"]);
    assert_eq!(run.status, 1);
    assert!(run.text.contains("`@end` is missing"), "{}", run.text);
}

#[test]
fn a_file_that_is_no_program_is_named_and_the_others_finish() {
    let bench = Bench::new(&good(), 33);
    let notes = bench.file("notes.txt", b"no program");
    let run = bench.demo(&["--cpus", "1", "--program", &notes]);
    assert_eq!(run.status, 1);
    assert!(
        run.text.contains("notes.txt: not a static ELF64"),
        "{}",
        run.text
    );
    assert!(run.text.contains("identical"), "{}", run.text);
    let programs = run.json["programs"].as_array().expect("a list").clone();
    assert_eq!(programs.len(), 2);
    assert_eq!(programs[1]["identical"], false);
}

#[test]
fn a_program_that_faults_on_the_host_too() {
    // ud2
    let bench = Bench::with_program(
        &program(&[0x0f, 0x0b]),
        &good().replace("@exit 0 0", "@fault 0 #UD"),
        33,
    );
    let run = bench.demo(&["--cpus", "1"]);
    assert_eq!(run.status, 1);
    assert!(
        run.text.contains("and on the host too: killed by SIGILL"),
        "{}",
        run.text
    );
}

#[test]
fn what_the_guests_cpu_lacks_is_skipped_and_said() {
    let skips = good()
        .replace("@job 0 good 0", "@skip 0 good 0 avx")
        .replace("@job 1 good 1", "@skip 1 good 1 avx");
    let told = |line: &&str| !line.starts_with("@out") && !line.starts_with("@exit");
    let lines: Vec<&str> = skips.lines().filter(told).collect();
    let skips = lines.join("\n") + "\n";
    let run = Bench::new(&skips, 33).demo(&["--cpus", "1", "--cpu", "Nehalem"]);
    assert_eq!(run.status, 0, "{}", run.text);
    assert!(
        run.text.contains("skipped: needs avx") && run.text.contains("Nehalem"),
        "{}",
        run.text
    );
    assert_eq!(run.json["programs"][0]["identical"], Value::Null);
}

#[test]
fn the_number_of_cpus_must_be_the_machines() {
    let run = Bench::new(&good(), 33).demo(&["--cpus", "2", "--copies", "2"]);
    assert_eq!(run.status, 1);
    assert!(
        run.text
            .contains("counters of the CPUs [0], the machine has 2"),
        "{}",
        run.text
    );
}

#[test]
fn wrong_values_and_missing_tools_have_status_2_and_the_json_is_written() {
    let bench = Bench::new(&good(), 33);
    assert_eq!(bench.demo(&["--cpus", "9"]).status, 2);
    assert_eq!(bench.demo(&["--", "--leak", "none"]).status, 2);
    let run = bench.demo_with(&["--cpus", "1"], &[("PCU9_QEMU", "/nonexistent/qemu")]);
    assert_eq!(run.status, 2);
    assert!(run.text.contains("/nonexistent/qemu"), "{}", run.text);
    assert_eq!(run.json["ok"], false);
    let run = bench.run(&["demo", "--json", "/nonexistent/dir/file.json"], &[]);
    assert_eq!(run.status, 2);
    assert!(
        run.text.contains("--json /nonexistent/dir/file.json"),
        "{}",
        run.text
    );
}

#[test]
fn the_guests_toolchain_is_one_of_three_words() {
    let bench = Bench::new(&good(), 33);
    let variables = [("PCU9_GUEST_TOOLCHAIN", "nightly"), ("PCU9_KERNEL", "")];
    let run = bench.demo_with(&["--cpus", "1"], &variables);
    assert_eq!(run.status, 2);
    assert!(
        run.text.contains("PCU9_GUEST_TOOLCHAIN=nightly"),
        "{}",
        run.text
    );
}

#[test]
fn a_dump_that_cannot_be_written_or_made_is_told() {
    let bench = Bench::new(&good(), 33);
    let run = bench.demo(&["--cpus", "1", "--dump", "/nowhere/file"]);
    assert_eq!(run.status, 2, "{}", run.text);
    assert!(run.text.contains("--dump /nowhere/file: "), "{}", run.text);
    // The stand-in has no control socket: the dump fails, and so does the demo.
    let bench = Bench::new(&good().replace("@end ok", "@end ok\n@hold success"), 0);
    let file = bench.path("dump");
    let run = bench.demo(&["--cpus", "1", "--dump", &file]);
    assert_eq!(run.status, 1, "{}", run.text);
    assert!(run.text.contains("QEMU's control socket"), "{}", run.text);
    assert!(bench.text("arguments").contains("hold=1"));
}

#[test]
fn a_socket_that_cannot_be_made_is_told_at_once() {
    let bench = Bench::new("", 0);
    let (file, long) = (bench.path("serial"), bench.path(&"x".repeat(120)));
    for (path, says) in [
        ("/nowhere/socket", "No such file"),
        (&file, "there is something, and it is no socket"),
        (&long, "107 bytes are the most"),
    ] {
        let run = bench.demo(&["--socket", path]);
        assert_eq!(run.status, 2, "{}", run.text);
        assert!(
            run.text.contains(&format!("--socket {path}: ")),
            "{}",
            run.text
        );
        assert!(run.text.contains(says), "{}", run.text);
    }
    // What was there is still there.
    assert_eq!(bench.text("serial"), "");
}

/// A good run whose kernel has a timeline of its only CPU.
fn drawn(until: &str) -> String {
    let timeline = "@event 0 0 f4240,b,1,0 0,n 3e8,s,7,2 64,t 64,i 0,o,7,2 3e8,g 0,d 0,n 64,s,1,0\n\
        @timeline 0 from=1000000 until=UNTIL events=10 lost=0 traps=1 inits=1 releases=1 discards=1 switches=2\n@cpu";
    good().replace("@cpu", &timeline.replace("UNTIL", until))
}

#[test]
fn a_window_is_asked_of_the_kernel_and_drawn() {
    let bench = Bench::new(&drawn("2000000"), 33);
    let dir = bench.path("pictures");
    let run = bench.demo(&["--cpus", "1", "--window", "1..2", "--timeline", &dir]);
    assert_eq!(run.status, 0, "{}", run.text);
    let arguments = bench.text("arguments");
    assert!(arguments.contains(" timeline=1000-2000 "), "{arguments}");
    for says in [
        "pictures/timeline.svg",
        "10 events are in ",
        "pictures/trace.json, for https://ui.perfetto.dev",
    ] {
        assert!(run.text.contains(says), "{says}: {}", run.text);
    }
    let picture = bench.text("pictures/timeline.svg");
    assert!(picture.contains("good.0") && picture.contains("1.000 to 2.000 ms"));
    let trace: Value = serde_json::from_str(&bench.text("pictures/trace.json")).expect("JSON");
    assert!(
        trace["traceEvents"]
            .as_array()
            .is_some_and(|all| all.len() > 10)
    );
    assert_eq!(run.json["timeline"][0]["counters"]["traps"], 1);
    assert_eq!(run.json["timeline"][0]["until_ms"], 2.0);
}

#[test]
fn a_timeline_that_is_not_what_was_counted_fails_the_run() {
    let bench = Bench::new(
        &drawn("2000000").replace("discards=1 switches", "discards=2 switches"),
        33,
    );
    let dir = bench.path("pictures");
    let run = bench.demo(&["--cpus", "1", "--window", "1..2", "--timeline", &dir]);
    assert_eq!(run.status, 1, "{}", run.text);
    let told = "the timeline of CPU 0 has 1 discards, and the kernel counted 2";
    assert!(run.text.contains(told), "{}", run.text);
}

#[test]
fn a_window_that_nothing_can_be_in_is_told_with_what_to_do() {
    let bench = Bench::new(&good(), 33);
    for (window, says) in [
        ("5", "not FROM..TO in milliseconds, such as 1000..1002.5"),
        ("9..5", "it ends before it has begun"),
        ("-1..5", "-1 is not between 0 and"),
    ] {
        let run = bench.demo(&[&*format!("--window={window}")]);
        assert_eq!(run.status, 2, "{}", run.text);
        assert!(
            run.text.starts_with("error: ") && run.text.contains(says),
            "{}",
            run.text
        );
        assert_eq!(run.text.lines().count(), 1, "{}", run.text);
    }
    let run = bench.demo(&["--window", "1..2", "--timeline", "/proc/nowhere"]);
    assert_eq!(run.status, 2, "{}", run.text);
    assert!(
        run.text.contains("--timeline /proc/nowhere: "),
        "{}",
        run.text
    );

    let late = drawn("2000000").replace("from=1000000", "from=9000000");
    let bench = Bench::new(&late, 33);
    let dir = bench.path("pictures");
    let run = bench.demo(&["--cpus", "1", "--window", "9..10", "--timeline", &dir]);
    assert_eq!(run.status, 1, "{}", run.text);
    let told = "--window 9..10: the run ended 2.0 ms after its first program began: an earlier window, or more --copies";
    assert!(run.text.contains(told), "{}", run.text);

    // A kernel without one.
    let run =
        Bench::new(&good(), 33).demo(&["--cpus", "1", "--window", "auto", "--timeline", &dir]);
    assert_eq!(run.status, 1, "{}", run.text);
    assert!(
        run.text.contains("--window none does without"),
        "{}",
        run.text
    );
}
