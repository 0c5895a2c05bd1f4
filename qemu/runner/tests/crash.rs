//! A kernel that panics while other CPUs hold registers says whose are lost, and waits for nobody.

#![cfg(not(target_os = "none"))]

use pcu9_runner::{Run, boot_and_hold};

/// `tests/boot_offline.rs` panics in that case if it is told to: on the last CPU, while each CPU holds somebody's registers.
#[test]
fn a_panic_names_the_states_that_are_lost() {
    let run = Run {
        cpu: "max",
        cpus: 4,
    };
    let options = "a_real_panic crash=1";
    let looked = boot_and_hold("boot_offline", options, run, "@hold failure", |held| {
        let panic = held.said.iter().position(|line| line.starts_with("@panic"));
        let panic = panic.expect("it panics");
        let said = held.said[panic].as_str();
        assert!(said.contains("CPU 3: a crash was asked for"), "{said}");
        let holds: Vec<_> = held.said[panic..]
            .iter()
            .filter_map(|line| line.split_once("(holds): "))
            .map(|(_, what)| what)
            .collect();
        // The list begins with the LWP that was made last.
        let lost = |cpu| format!("live on cpu {cpu}, lost: cpu {cpu} does not answer a cross-call");
        let others = [2, 1, 0].map(lost);
        let expected: Vec<_> = ["live on cpu 3, this one"]
            .into_iter()
            .chain(others.iter().map(String::as_str))
            .collect();
        assert_eq!(holds, expected);
    });
    looked.unwrap_or_else(|error| panic!("{error}"));
}
