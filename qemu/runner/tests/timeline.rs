//! The demo's timeline of a real run under each policy: every element of the picture and every event of the trace, counted by kind
//! and CPU, against what the kernel counted in the same time.

#![cfg(not(target_os = "none"))]

use std::fs;
use std::process::Command;

use serde_json::Value;
use svg::node::element::tag::Type;
use svg::parser::Event as Tag;

/// The classes of an element, and of the groups around it.
struct Element {
    groups: Vec<String>,
    classes: Vec<String>,
}

fn elements(picture: &str) -> Vec<Element> {
    let mut groups: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for tag in svg::read(picture).expect("SVG") {
        let Tag::Tag(name, kind, attributes) = tag else {
            continue;
        };
        let class = attributes.get("class").map(ToString::to_string);
        let class = class.unwrap_or_default();
        match (name, kind) {
            ("g", Type::Start) => groups.push(class),
            ("g", Type::End) => {
                groups.pop();
            }
            (_, Type::End) => {}
            _ => found.push(Element {
                groups: groups.clone(),
                classes: class.split(' ').map(ToOwned::to_owned).collect(),
            }),
        }
    }
    found
}

/// How many elements of a policy and a CPU have all these classes.
fn drawn(elements: &[Element], policy: &str, cpu: usize, classes: &[&str]) -> u64 {
    let (panel, cpu) = (format!("panel {policy}"), format!("cpu{cpu}"));
    let is_inside = |element: &&Element| {
        let of_cpu = |group: &String| group.split(' ').any(|word| word == cpu);
        element.groups.contains(&panel) && element.groups.iter().any(of_cpu)
    };
    let has = |element: &&Element| {
        let own = &element.classes;
        classes
            .iter()
            .all(|class| own.iter().any(|one| one == class))
    };
    elements.iter().filter(is_inside).filter(has).count() as u64
}

/// How many events of the trace are of this process, on one of the CPU's two threads, and as `wanted`.
fn traced(trace: &Value, pid: usize, cpu: usize, wanted: impl Fn(&Value) -> bool) -> u64 {
    let events = trace["traceEvents"].as_array().expect("a list");
    let threads = [2 * cpu + 1, 2 * cpu + 2];
    let is_there = |event: &&Value| {
        event["pid"] == pid && threads.iter().any(|thread| event["tid"] == *thread)
    };
    events
        .iter()
        .filter(is_there)
        .filter(|event| wanted(event))
        .count() as u64
}

#[test]
fn what_is_drawn_and_traced_is_what_the_kernel_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("result.json");
    let output = Command::new(env!("CARGO_BIN_EXE_pcu9-runner"))
        .args(["demo", "--cpus", "2", "--copies", "1", "--policy", "all"])
        // Registers that stay where they are have to be fetched by cross-calls.
        .args(["--leak", "trusting", "--window", "150..200"])
        .arg("--timeline")
        .arg(dir.path())
        .arg("--json")
        .arg(&json)
        .output()
        .expect("the runner runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).expect(name);
    let elements = elements(&read("timeline.svg"));
    let parse = |name: &str| -> Value { serde_json::from_str(&read(name)).expect(name) };
    let (trace, result) = (parse("trace.json"), parse("result.json"));

    let mut in_all = 0;
    for (run, pid) in result["runs"].as_array().expect("runs").iter().zip(1..) {
        let policy = run["policy"].as_str().expect("a word");
        for (account, cpu) in run["timeline"].as_array().expect("CPUs").iter().zip(0..) {
            let counters = account["counters"].as_object().expect("counters");
            assert_eq!(account["lost"], 0, "{policy}, CPU {cpu}");
            let counted = |name: &str| counters[name].as_u64().expect("a number");
            for name in counters.keys() {
                let (picture, event) = match &**name {
                    "switches" => (
                        drawn(&elements, policy, cpu, &["run", "begun"]),
                        traced(&trace, pid, cpu, |one| one["args"]["switched"] == true),
                    ),
                    "releases" => (
                        drawn(&elements, policy, cpu, &["live", "given-up"]),
                        traced(&trace, pid, cpu, |one| {
                            one["args"]["state"] == "live" && one["args"]["given up"] == true
                        }),
                    ),
                    "xcalls" => (
                        drawn(&elements, policy, cpu, &["xcalls"]),
                        traced(&trace, pid, cpu, |one| one["ph"] == "s"),
                    ),
                    _ => (
                        drawn(&elements, policy, cpu, &[name]),
                        traced(&trace, pid, cpu, |one| {
                            one["ph"] == "i" && one["name"] == **name
                        }),
                    ),
                };
                assert_eq!(
                    picture,
                    counted(name),
                    "{policy}, CPU {cpu}: {name} in the picture"
                );
                assert_eq!(
                    event,
                    counted(name),
                    "{policy}, CPU {cpu}: {name} in the trace"
                );
                in_all += picture;
            }
            // Whose registers these are was asked of the CPU, not counted: each gain is a load or a link that held.
            let gained = drawn(&elements, policy, cpu, &["live", "gained"]);
            let loads = ["inits", "restores", "elided_restores"].map(counted);
            assert_eq!(
                gained,
                loads.iter().sum::<u64>(),
                "{policy}, CPU {cpu}: states gained"
            );
        }
    }
    assert!(in_all > 500, "{in_all} events in 50 ms under six policies");
}
