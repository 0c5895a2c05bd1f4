//! The demo under each policy and under all of them, and its trace file, with recorded protocols.

use crate::demo::good;
use crate::stand_in::Bench;

const ALL: [&str; 6] = [
    "lazy",
    "deferred",
    "eager",
    "adaptive",
    "adaptive-write-through",
    "probe",
];

/// A good run of a policy that preloads: the LWPs trap once each.
fn preloading() -> String {
    good()
        .replace("traps=6", "traps=2")
        .replace("restores=3 ", "restores=13 ")
        .replace("reenables_trap=1", "reenables_trap=0")
        .replace("preloads=0", "preloads=13")
        .replace("elided_restores=0", "elided_restores=2")
        .replace("saves=5", "saves=17")
        .replace("releases=5", "releases=17")
}

/// A bench on which the policies that preload do.
fn bench() -> Bench {
    let bench = Bench::new(&good(), 33);
    for policy in ["deferred", "eager", "adaptive", "adaptive-write-through"] {
        bench.file(&format!("serial.{policy}"), preloading().as_bytes());
    }
    bench
}

#[test]
fn each_policy_is_asked_of_the_kernel() {
    for policy in ALL {
        let bench = bench();
        let run = bench.demo(&["--cpus", "1", "--policy", policy]);
        assert_eq!(run.status, 0, "{policy}: {}", run.text);
        let arguments = bench.text("arguments");
        let asked = format!("leak=domain policy={policy}\n");
        assert!(arguments.ends_with(&asked), "{arguments}");
        assert_eq!(run.json["policy"], policy);
        let preloads = if policy == "lazy" || policy == "probe" {
            0
        } else {
            13
        };
        assert_eq!(run.json["counters"]["preloads"], preloads, "{policy}");
    }
}

#[test]
fn a_policy_that_preloads_must_not_trap_twice_nor_call() {
    for policy in ["deferred", "eager"] {
        // Lazy's counters: a trap for each restore.
        let run = Bench::new(&good(), 33).demo(&["--cpus", "1", "--policy", policy]);
        assert_eq!(run.status, 1);
        let told = "traps <= inits + spurious + failed: 6 is more than 2 + 0 + 0";
        assert!(run.text.contains(told), "{}", run.text);
    }
    let calls = preloading().replace("xcalls=0", "xcalls=1");
    for policy in ["deferred", "eager", "adaptive-write-through"] {
        let run = Bench::new(&calls, 33).demo(&["--cpus", "1", "--policy", policy]);
        assert_eq!(run.status, 1);
        assert!(run.text.contains("xcalls = 0: it is 1"), "{}", run.text);
    }
    let run = Bench::new(&calls, 33).demo(&["--cpus", "1", "--policy", "adaptive"]);
    assert_eq!(run.status, 0, "{}", run.text);
    let run = Bench::new(&preloading(), 33).demo(&["--cpus", "1", "--policy", "probe"]);
    assert_eq!(run.status, 1);
    assert!(run.text.contains("preloads = 0: it is 13"), "{}", run.text);
}

#[test]
fn all_policies_stand_side_by_side() {
    let bench = bench();
    let run = bench.demo(&["--cpus", "1", "--policy", "all"]);
    assert_eq!(run.status, 0, "{}", run.text);
    let row = |words: &str| {
        let line = run.text.lines().find(|line| line.starts_with(words));
        let cells = line.unwrap_or_default()[words.len()..].split_whitespace();
        cells.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("  policy  "), ALL, "{}", run.text);
    assert_eq!(row("  #NM traps"), ["6", "2", "2", "2", "2", "6"]);
    assert_eq!(row("  in all"), ["ok"; 6]);
    assert!(run.text.contains("1 of 1"), "{}", run.text);

    let json = run.json;
    assert_eq!(
        (&json["ok"], &json["policy"]),
        (&true.into(), &"all".into())
    );
    assert_eq!(json["counters"]["traps"], 20);
    assert_eq!(json["per_cpu"][0]["traps"], 20);
    assert_eq!(json["programs"][0]["identical"], true);
    let runs = json["runs"].as_array().expect("a list");
    let policies: Vec<_> = runs.iter().map(|run| &run["policy"]).collect();
    assert_eq!(policies, ALL);
    assert!(runs.iter().all(|run| run["ok"] == true && run["lwps"] == 2));
}

#[test]
fn what_is_skipped_under_every_policy_is_said_once() {
    let good = good();
    let counters = good.lines().find(|line| line.starts_with("@cpu"));
    let zero = |word: &str| match word.split_once('=') {
        Some((name, _)) => format!("{name}=0"),
        None => word.to_owned(),
    };
    let words = counters.unwrap_or_default().split_whitespace().map(zero);
    let serial = format!(
        "@boot cpus=1\n@skip 0 good 0 avx\n@skip 1 good 1 avx\n{}\n@end ok\n",
        words.collect::<Vec<_>>().join(" ")
    );
    let run = Bench::new(&serial, 33).demo(&["--cpus", "1", "--policy", "all"]);
    assert_eq!(run.status, 0, "{}", run.text);
    assert!(run.text.contains("0 of 0"), "{}", run.text);
    let lines = run.text.lines().filter(|line| line.contains("skipped"));
    assert_eq!(lines.count(), 1, "{}", run.text);
    assert_eq!(
        run.json["programs"][0]["identical"],
        serde_json::Value::Null
    );
}

#[test]
fn one_wrong_policy_fails_the_whole_and_is_named() {
    let bench = bench();
    let wrong = preloading().replace("@out 0 620a", "@out 0 630a");
    bench.file("serial.eager", wrong.as_bytes());
    let run = bench.demo(&["--cpus", "1", "--policy", "all"]);
    assert_eq!(run.status, 1);
    let told = "error: eager: good, copy 0: its output differs";
    assert!(run.text.contains(told), "{}", run.text);
    assert!(run.text.contains("0 of 1") && run.text.contains("FAILED"));
    assert_eq!(run.json["ok"], false);
    assert_eq!(run.json["programs"][0]["identical"], false);
    let ok: Vec<_> = (0..6).map(|place| &run.json["runs"][place]["ok"]).collect();
    assert_eq!(ok, [true, true, false, true, true, true]);
}

/// A good run with a trace of `lost` slices too few.
fn traced(lost: u32) -> String {
    let slices = "@slice 0 1000 10,1,i 20,7,j0,uf\n@slice 0 1030 5,8,j1,um\n@trace 0 slices=3 lost=LOST tsc_khz=1000\n@cpu";
    good().replace("@cpu", &slices.replace("LOST", &lost.to_string()))
}

#[test]
fn the_trace_is_written_one_slice_a_line() {
    let bench = Bench::new(&traced(0), 33);
    let file = bench.path("trace");
    let arguments = ["--cpus", "1", "--policy", "probe", "--trace", &file];
    let run = bench.demo(&arguments);
    assert_eq!(run.status, 0, "{}", run.text);
    assert!(run.text.contains("3 slices are in "), "{}", run.text);
    assert!(bench.text("arguments").ends_with("policy=probe trace=1\n"));
    let expected = "# pcu9-trace 1: cpu begin end lwp job program user use migrated\n\
        # policy=probe leak=domain cpu_model=max cpus=1 tsc_khz=1000 slices=3 lost=0\n\
        0 0 16 1 idle - 0 0 0\n0 16 48 7 0 good.0 1 1 0\n0 48 53 8 1 good.1 1 0 1\n";
    assert_eq!(bench.text("trace"), expected);

    let run = bench.demo(&["--cpus", "1", "--trace", &file]);
    assert_eq!(run.status, 0, "{}", run.text);
    assert!(bench.text("trace").contains("0 48 53 8 1 good.1 1 ? 1\n"));
}

#[test]
fn what_a_trace_lacks_is_told() {
    let bench = Bench::new(&traced(9), 33);
    let file = bench.path("trace");
    let run = bench.demo(&["--cpus", "1", "--trace", &file]);
    assert_eq!(run.status, 0, "{}", run.text);
    assert!(run.text.contains("9 later ones are not"), "{}", run.text);
    assert!(bench.text("trace").contains("slices=3 lost=9\n"));

    let bench = Bench::new(&good(), 33);
    let file = bench.path("trace");
    let run = bench.demo(&["--cpus", "1", "--trace", &file]);
    assert_eq!(run.status, 1);
    assert!(run.text.contains("no trace of CPU 0"), "{}", run.text);

    let bench = Bench::new(&traced(0).replace("slices=3", "slices=4"), 33);
    let run = bench.demo(&["--cpus", "1", "--trace", &file]);
    assert_eq!(run.status, 1, "{}", run.text);
    assert!(
        run.text
            .contains("has 3 slices, and the kernel announced 4")
    );
}

#[test]
fn wrong_values_have_status_2_and_one_line() {
    let bench = bench();
    for arguments in [
        &["demo", "--policy", "linux"][..],
        &["demo", "--policy", "all", "--trace", "file"],
        &["demo", "--policy", ""],
        &["demo", "--trace", "/nonexistent/dir/file"],
        &["demo", "--cpus", "9"],
        &["verify", "--long"],
    ] {
        let run = bench.run(arguments, &[]);
        assert_eq!(run.status, 2, "{arguments:?}");
        assert_eq!(run.text.lines().count(), 1, "{}", run.text);
        assert!(run.text.starts_with("error: "), "{}", run.text);
    }
}
