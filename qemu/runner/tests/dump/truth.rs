//! Every value that the guest prints, read again from its dump, and from the guest while it runs.

use std::collections::BTreeMap;

use pcu9_kpcpu::{CpuState, Kpcpu, Owner, Place, Way};
use pcu9_runner::{Looking, Run};
use serde_json::json;

/// A line `@truth WHAT NAME key=value ..`, as far as it has keys.
struct Line<'a> {
    text: &'a str,
    words: Vec<&'a str>,
    keys: BTreeMap<&'a str, &'a str>,
}

impl<'a> Line<'a> {
    fn new(text: &'a str) -> Self {
        let words: Vec<_> = text.split_whitespace().collect();
        let keys = words.iter().filter_map(|word| word.split_once('='));
        Self {
            text,
            keys: keys.collect(),
            words,
        }
    }

    fn number(&self, key: &str) -> u64 {
        let value = self.keys.get(key);
        number(value.unwrap_or_else(|| panic!("no {key}: {}", self.text)))
    }

    fn cpu(&self) -> u32 {
        self.words[0].parse().expect("a CPU's id")
    }
}

fn number(text: &str) -> u64 {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("not a number: {text}"))
}

#[test]
fn every_value_of_one_to_eight_cpus_is_read_as_the_guest_prints_it() {
    for cpus in 1..=8 {
        super::boot(cpus, |held| {
            let mut kernel = super::open(held);
            check_all(&mut kernel, cpus, held.said);
        });
    }
}

#[test]
fn every_value_is_read_the_same_from_a_guest_that_runs_with_1_gib_and_with_5() {
    for cpus in 1..=8 {
        for mib in [1 << 10, 5 << 10] {
            let run = Run { cpu: "max", cpus };
            let guest = Looking {
                mib,
                ..Looking::new("boot_percpu", "the_truth", run)
            };
            let looked = guest.look(|guest| {
                guest.wait_for("@truth end").expect("it comes so far");
                for way in [Way::MemoryFile, Way::Pmemsave] {
                    let mut kernel = super::live(guest, way);
                    check_all(&mut kernel, cpus, guest.said());
                    kernel.check().expect("the guest is still there");
                }
                let area = guest.said().iter().find(|line| line.starts_with(AREA));
                let area = number(area.expect("it is told").trim_start_matches(AREA));
                // With 5 GiB that CPU's data are above the hole for devices, and elsewhere in the file than in the guest.
                assert_eq!(area >= 4 << 30, mib > 4 << 10, "{area:#x}");
                let mut qmp = guest.connect().expect("QEMU answers");
                let status = qmp.execute("query-status", &json!({})).expect("a status");
                assert_eq!(status["status"], "running");
            });
            looked.unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

const AREA: &str = "@truth area 101 physical=";

/// Checks every line, and that there are all.
fn check_all(kernel: &mut Kpcpu, cpus: u32, said: &[String]) {
    let mut checked = 0;
    let lines = said.iter().filter_map(|l| l.strip_prefix("@truth "));
    for text in lines.filter(|&text| text != "end") {
        let (what, rest) = text.split_once(' ').expect("words");
        check(kernel, cpus, what, &Line::new(rest));
        checked += 1;
    }
    // For each CPU, and the two that do not run: 11 lines; then the kernel, 5 sums, the LWPs, the registers, and an address that
    // stands for itself.
    assert_eq!(checked, (cpus + 2) * 11 + 1 + 5 + cpus + 1 + 1);
}

fn check(kernel: &mut Kpcpu, cpus: u32, what: &str, line: &Line<'_>) {
    let text = line.text;
    match what {
        "kernel" => check_kernel(kernel, cpus, line),
        "cpu" => {
            let cpu = kernel.getpcpu(line.cpu()).expect("readable").expect(text);
            let state = match line.keys["state"] {
                "started" => CpuState::Started,
                "offline" => CpuState::Offline,
                "present" => CpuState::Present,
                other => panic!("{other}"),
            };
            assert_eq!(cpu.cpu, line.cpu());
            assert_eq!(cpu.state, state, "{text}");
            assert_eq!(cpu.dynamic, line.number("offset"));
            assert_eq!(cpu.address, line.number("block"));
            assert_eq!(cpu.current_lwp, line.number("current"));
            assert_eq!(cpu.idle_lwp, line.number("idle"));
        }
        "unit" => {
            let unit = &kernel.units(line.cpu()).expect("units")[0];
            assert_eq!(unit.name, line.words[1]);
            let owner = match unit.owner {
                Owner::Live(lwp) => lwp,
                _ => 0,
            };
            assert_eq!(owner, line.number("owner"), "{text}");
            assert_eq!(u64::from(unit.is_enabled), line.number("enabled"), "{text}");
        }
        "stats" => {
            let names = kernel.counter_names().expect("names");
            let unit = &kernel.units(line.cpu()).expect("units")[0];
            assert_eq!(names.len(), line.keys.len(), "{names:?}");
            for (name, value) in names.iter().zip(&unit.counters) {
                assert_eq!(*value, line.number(name), "{name}: {text}");
            }
        }
        "dpcpu" => {
            kernel.dpcpu_setcpu(line.cpu()).expect("present");
            let (&name, &value) = line.keys.first_key_value().expect("one key");
            let found = kernel.nlist(name).expect(name);
            assert_eq!(found.cpu, Some(line.cpu()));
            let mut bytes = [0; 8];
            let n = usize::try_from(found.bytes).expect("a small size");
            kernel.read(found.address, &mut bytes[..n]).expect(name);
            assert_eq!(u64::from_le_bytes(bytes), number(value), "{text}");
        }
        "zpcpu" => {
            let mut bytes = [0; 24];
            let n = kernel.read_zpcpu(line.number("base"), &mut bytes, line.cpu());
            assert_eq!(n.expect("readable"), 24);
            let words = bytes
                .chunks(8)
                .map(|w| u64::from_le_bytes(w.try_into().expect("8")));
            let words = format!("words={:x?}", words.collect::<Vec<_>>());
            assert!(text.ends_with(&words), "{text}: {words}");
        }
        "handle" if line.words[0] == "sum" => {
            let sum = kernel.counter_u64_fetch(line.number("base"));
            assert_eq!(sum.expect("a counter"), line.number("sum"));
        }
        "handle" => {
            let parts = kernel
                .counter_u64_percpu(line.number("base"))
                .expect("a counter");
            assert!(
                parts.contains(&(line.cpu(), line.number("value"))),
                "{text}: {parts:?}"
            );
        }
        "counter" => {
            let base = kernel.counter(line.words[0]).expect(text);
            assert_eq!(
                kernel.counter_u64_fetch(base).expect(text),
                line.number("sum"),
                "{text}"
            );
        }
        "lwp" => check_lwp(kernel, line),
        "saved" => check_saved(kernel, line),
        "area" => {}
        other => panic!("a line `@truth {other}` that nobody checks"),
    }
}

fn check_kernel(kernel: &Kpcpu, cpus: u32, line: &Line<'_>) {
    let header = kernel.nlist("pcu9_header").expect("the symbol");
    assert_eq!(header.address, line.number("header"));
    assert_eq!(
        u64::from(kernel.getmaxcpu().expect("max")),
        line.number("max_cpus")
    );
    assert_eq!(
        u64::from(kernel.getncpus().expect("n")),
        line.number("n_started")
    );
    let mut present: Vec<u32> = (0..cpus).collect();
    present.extend([70, 101]);
    assert_eq!(present.len() as u64, line.number("n_present"));
    assert_eq!(kernel.present().expect("present"), present);
    for absent in [cpus, 69, 71, 127] {
        assert_eq!(
            kernel.getpcpu(absent).expect("a legal id"),
            None,
            "{absent}"
        );
    }
}

fn check_lwp(kernel: &Kpcpu, line: &Line<'_>) {
    let text = line.text;
    let lwp = kernel.lwp(number(line.words[0])).expect(text);
    assert_eq!(lwp.number, Some(line.number("number")));
    assert_eq!(
        lwp.name.as_deref(),
        line.keys.get("name").copied(),
        "{text}"
    );
    let (_, state) = text.split_once("state=").expect("a state");
    let words: Vec<_> = state.trim_matches(['[', ']']).split(' ').collect();
    let place = match words[..] {
        ["in", "memory"] => Place::Memory,
        ["none"] => Place::None,
        ["live", "on", "cpu", cpu, ..] => Place::Live(cpu.parse().expect("a number")),
        ["clean", "on", "cpu", cpu, ..] => Place::Linked(cpu.parse().expect("a number")),
        _ => panic!("{text}"),
    };
    assert_eq!(lwp.units, [place], "{text}");
    let all = kernel.lwps().expect("the list");
    assert!(all.contains(&lwp), "{lwp:?} is on the list");
}

/// The registers that an LWP had when they were saved.
fn check_saved(kernel: &Kpcpu, line: &Line<'_>) {
    let lwps = kernel.lwps().expect("the list");
    let is_saved = |lwp: &&pcu9_kpcpu::Lwp| lwp.name.as_deref() == Some("saved");
    let lwp = lwps.iter().find(is_saved).expect("it is there");
    let registers = kernel.fpu(lwp).expect("readable").expect("saved");
    let value = |name: &str| {
        let at = line.words.iter().position(|&word| word == name);
        let digits = line.words[at.unwrap_or_else(|| panic!("no {name}")) + 1];
        let digits = digits.trim_start_matches("0x");
        u128::from_str_radix(digits, 16).expect("a number")
    };
    assert_eq!(u128::from(registers.mxcsr), value("mxcsr"));
    assert_eq!(u128::from(registers.fcw), value("fcw"));
    assert_eq!(registers.st[0], value("st0"));
    assert_eq!(registers.st[7], value("st7"));
    assert_eq!(registers.xmm[0], value("xmm0"));
    assert_eq!(registers.xmm[15], value("xmm15"));
    assert_eq!(u128::from(registers.ftw.count_ones()), value("n_st"));
}
