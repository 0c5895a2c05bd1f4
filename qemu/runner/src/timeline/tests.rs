//! A timeline by hand: what is drawn of it, counted by class, is what its kernel counted.

use std::collections::BTreeMap;

use serde_json::Value;
use svg::parser::Event as Tag;

use super::style::SIGNS;
use super::{Account, CpuTimeline, Timeline, Window, outside, picture, trace, wrong};
use crate::protocol::{Event, counted, decode};

/// Two CPUs under `Lazy`. On CPU 0 `fft.0` runs from the beginning and owns the FPU; it goes, `nbody.0` traps, the state of `fft.0` is
/// saved and wiped. `fft.0` goes on on CPU 1, traps and finds itself nowhere; then it is back, and asks CPU 1.
const LINES: &str = "\
@event 0 3e8 0,b,7,2 0,o,7,2 64,s,8,3 64,t 0,v 0,g 0,w 0,n 32,i 0,o,8,3
@event 0 4e2 c8,s,7,2 32,t 0,X,1,4 96,r 0,g 0,v 0,n 1,o,7,2
@timeline 0 from=1000 until=2000 events=18 lost=0 COUNTERS0
@event 1 3e8 0,b,1,0 0,n c8,s,7,2 64,t 32,r 0,o,7,2 c8,s,1,0 64,Y,0,4 1,v 0,g 0,n
@timeline 1 from=1000 until=2000 events=11 lost=0 COUNTERS1";

const COUNTERS: [&str; 2] = [
    "switches=2 traps=2 saves=2 releases=2 wipes=1 inits=1 restores=1 xcalls=1",
    "switches=2 traps=1 restores=1 saves=1 releases=1",
];

fn timelines(text: &str) -> BTreeMap<usize, CpuTimeline> {
    let mut all: BTreeMap<usize, CpuTimeline> = BTreeMap::new();
    for line in text.lines() {
        match decode(line) {
            Some(Ok(Event::Events { cpu, events })) => {
                all.entry(cpu).or_default().events.extend(events);
            }
            Some(Ok(Event::Timeline { cpu, pairs })) => {
                all.entry(cpu).or_default().account = Some(Account::new(pairs));
            }
            other => panic!("{line}: {other:?}"),
        }
    }
    all
}

fn example() -> BTreeMap<usize, CpuTimeline> {
    let [first, second] = COUNTERS;
    timelines(
        &LINES
            .replace("COUNTERS0", first)
            .replace("COUNTERS1", second),
    )
}

fn titled(cpus: &BTreeMap<usize, CpuTimeline>) -> Timeline<'_> {
    let program = |job: usize| Some(["fft.0", "nbody.0"][job].to_owned());
    Timeline::new(("lazy", "policy lazy".into()), cpus, program)
}

const ALL: Window = Window::Between {
    from_us: 1,
    to_us: 2,
};

/// The classes of every element in the groups of one CPU.
fn classes(picture: &str, cpu: usize) -> Vec<String> {
    let mut groups: Vec<bool> = Vec::new();
    let mut classes = Vec::new();
    for tag in svg::read(picture).expect("SVG") {
        let Tag::Tag(name, kind, attributes) = tag else {
            continue;
        };
        let class = attributes
            .get("class")
            .map(ToString::to_string)
            .unwrap_or_default();
        let is_inside = groups.last().copied().unwrap_or(false);
        match (name, kind) {
            ("g", svg::node::element::tag::Type::Start) => {
                groups.push(is_inside || class.split(' ').any(|word| word == format!("cpu{cpu}")));
            }
            ("g", svg::node::element::tag::Type::End) => {
                groups.pop();
            }
            (_, svg::node::element::tag::Type::End) => {}
            _ if is_inside => classes.push(class),
            _ => {}
        }
    }
    classes
}

fn with(classes: &[String], words: &[&str]) -> u64 {
    let has = |class: &&String| {
        words
            .iter()
            .all(|word| class.split(' ').any(|one| one == *word))
    };
    classes.iter().filter(has).count() as u64
}

#[test]
fn what_is_drawn_of_a_cpu_is_what_it_counted() {
    let cpus = example();
    assert_eq!(wrong(&cpus, 2), Vec::<String>::new());
    let picture = picture(&[titled(&cpus)], ALL, "cargo demo");
    for (cpu, timeline) in &cpus {
        let account = timeline.account.as_ref().expect("an account");
        let classes = classes(&picture, *cpu);
        for name in counted() {
            let drawn = match name {
                "switches" => with(&classes, &["run", "begun"]),
                "releases" => with(&classes, &["live", "given-up"]),
                name => with(&classes, &[name]),
            };
            assert_eq!(drawn, account.counted(name), "CPU {cpu}, {name}");
        }
        let gained = account.counted("inits") + account.counted("restores");
        assert_eq!(with(&classes, &["live", "gained"]), gained, "CPU {cpu}");
    }
    assert!(picture.contains("fft.0") && picture.contains("prefers-color-scheme:dark"));
}

#[test]
fn the_trace_has_an_event_for_each_count_and_a_flow_with_two_ends() {
    let cpus = example();
    let trace = trace(&[titled(&cpus)]);
    let events = trace["traceEvents"].as_array().expect("a list");
    let count = |wanted: &dyn Fn(&Value) -> bool| events.iter().filter(|one| wanted(one)).count();
    assert_eq!(
        count(&|one| one["name"] == "traps" && one["ph"] == "i" && one["tid"] == 1),
        2
    );
    assert_eq!(
        count(&|one| one["name"] == "restores" && one["tid"] == 3),
        1
    );
    assert_eq!(
        count(&|one| one["cat"] == "run" && one["args"]["switched"] == true),
        4
    );
    let flow: Vec<&Value> = events.iter().filter(|one| one["cat"] == "xcalls").collect();
    let ends: Vec<_> = flow
        .iter()
        .map(|one| (&one["ph"], &one["id"], &one["tid"]))
        .collect();
    let (s, f, id) = ("s".into(), "f".into(), Value::from((1_u64 << 48) + 4));
    assert_eq!(ends, [(&s, &id, &1.into()), (&f, &id, &4.into())]);
    let owner = events
        .iter()
        .find(|one| one["cat"] == "owner")
        .expect("an owner");
    // From 1000 to 1200 ns, as a reader takes it.
    let ns = ["ts", "dur"].map(|key| (owner[key].as_f64().expect("a number") * 1000.0).floor());
    assert!(
        ns.iter()
            .zip([1000.0, 200.0])
            .all(|(read, ns)| (read - ns).abs() < 0.5),
        "{ns:?}"
    );
    assert_eq!(owner["args"]["gained"], false);
}

#[test]
fn a_part_of_it_is_cut_out_with_its_events_alone() {
    let cpus = example();
    let lanes = titled(&cpus).lanes((1150, 1300));
    let counts = ["traps", "saves", "inits", "switches", "xcalls"].map(|name| lanes[0].count(name));
    assert_eq!(counts, [1, 1, 1, 0, 0]);
    // What goes on at the border is shortened, and neither begins nor ends there.
    assert_eq!(
        (lanes[0].runs[0].when, lanes[0].runs[0].is_begun),
        ((1150, 1300), false)
    );
    let stays: Vec<_> = lanes[0]
        .stays
        .iter()
        .map(|stay| (stay.when, stay.is_begun, stay.is_ended))
        .collect();
    assert_eq!(
        stays,
        [((1150, 1200), false, true), ((1250, 1300), true, false)]
    );
}

#[test]
fn a_timeline_that_does_not_agree_with_the_counters_is_told() {
    let text = LINES
        .replace("COUNTERS0", COUNTERS[0])
        .replace("COUNTERS1", COUNTERS[1]);
    let told = |text: &str| wrong(&timelines(text), 2);
    let (one, other) = ("traps=2", "traps=3");
    assert_eq!(
        told(&text.replace(one, other)),
        ["the timeline of CPU 0 has 2 traps, and the kernel counted 3"]
    );
    assert_eq!(
        told(&text.replace("events=11", "events=12")),
        ["the timeline of CPU 1 has 11 events, and the kernel announced 12"]
    );
    let cut: Vec<&str> = text.lines().take(3).collect();
    assert_eq!(
        told(&cut.join("\n")),
        ["the kernel wrote no timeline of CPU 1; --window none does without"]
    );
    let cut: Vec<&str> = text.lines().take(4).collect();
    assert_eq!(
        told(&cut.join("\n")),
        ["the kernel wrote no end of the timeline of CPU 1"]
    );
}

#[test]
fn events_that_there_was_no_room_for_are_told_in_the_picture() {
    let [first, second] = COUNTERS;
    let text = LINES
        .replace("COUNTERS0", first)
        .replace("COUNTERS1", second);
    let full = text.replace(
        "until=2000 events=18 lost=0",
        "until=1900 events=18 lost=41",
    );
    let cpus = timelines(&full);
    assert_eq!(wrong(&cpus, 2), Vec::<String>::new());
    let picture = picture(&[titled(&cpus)], ALL, "cargo demo");
    assert!(
        picture.contains("41 events of the window 0.001..0.002 are missing")
            && picture.contains("unknown")
    );
}

#[test]
fn a_run_that_was_over_before_the_window_is_told() {
    let lines = "@timeline 0 from=5000000 until=2500000 events=0 lost=0";
    let window = "5..6".parse().expect("a window");
    let told = outside(&timelines(lines), window).expect("an error");
    assert!(
        told.starts_with("--window 5..6: the run ended 2.5 ms after"),
        "{told}"
    );
    assert_eq!(outside(&example(), ALL), None);
}

#[test]
fn the_readmes_picture_is_of_the_command_that_it_names_and_counts_what_it_shows() {
    let checkout = crate::place::checkout();
    let read = |name: &str| std::fs::read_to_string(checkout.join(name)).expect(name);
    let (readme, picture) = (read("README.md"), read("qemu/timeline.svg"));
    let (_, command) = picture.split_once("<desc>").expect("a description");
    let (command, _) = command.split_once("</desc>").expect("its end");
    assert!(readme.contains("](qemu/timeline.svg)"));
    assert!(
        readme.contains(&format!("`{}`", command.trim())),
        "{command}"
    );
    let classes: Vec<String> = (0..2).flat_map(|cpu| classes(&picture, cpu)).collect();
    let kinds = SIGNS
        .iter()
        .map(|sign| (sign.words, with(&classes, &[sign.counter])));
    let releases = "its end is a release";
    let calls = "cross-call: a CPU asks for what another one holds";
    let kinds = kinds.chain([
        (calls, with(&classes, &["xcalls"])),
        (releases, with(&classes, &["live", "given-up"])),
    ]);
    for (words, count) in kinds.filter(|(_, count)| *count > 0) {
        assert!(
            picture.contains(&format!("{words} ({count})")),
            "{words}: {count}"
        );
    }
    assert!(with(&classes, &["traps"]) > 3 && with(&classes, &["xcalls"]) > 0);
}
