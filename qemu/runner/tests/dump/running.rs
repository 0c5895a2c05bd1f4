//! A guest that runs: what is read of it is of one time, and it does not notice.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use pcu9_kpcpu::{Error, Kpcpu, Way};
use pcu9_runner::{Guest, Looking, Run};
use serde_json::json;

/// How long anything may take on a busy host.
const PATIENCE: Duration = Duration::from_mins(1);

fn adding(cpus: u32) -> Looking<'static> {
    let run = Run { cpu: "max", cpus };
    Looking::new("boot_live", "the_sum_is_told_while_it_grows", run)
}

/// The beat and the sum of a line `@live N total=T`.
fn beat(line: &str) -> (u64, u64) {
    let mut words = line.split([' ', '=']).skip(1);
    let n = words.next().and_then(|word| word.parse().ok());
    let total = words.nth(1).and_then(|word| word.parse().ok());
    n.zip(total).unwrap_or_else(|| panic!("{line}"))
}

/// A variable of CPU 0, by name.
fn of_cpu_0(kernel: &mut Kpcpu, name: &str) -> u64 {
    kernel.dpcpu_setcpu(0).expect("present");
    let found = kernel.nlist(name).expect(name);
    let mut bytes = [0; 8];
    kernel.read(found.address, &mut bytes).expect(name);
    u64::from_le_bytes(bytes)
}

/// Reads the counter between two beats; the guest must have said at least `before` and will say at least what is read.
fn read_between_beats(kernel: &mut Kpcpu, guest: &mut Guest<'_>) {
    let (_, at_least) = beat(&guest.wait_for("@live ").expect("a beat"));
    let base = kernel.counter("PACKETS").expect("a counter");
    let read = kernel.counter_u64_fetch(base).expect("a sum");
    // Every beat after this one fetches after the read.
    let now = of_cpu_0(kernel, "BEAT");
    let at_most = loop {
        let (n, total) = beat(&guest.wait_for("@live ").expect("a beat"));
        if n > now {
            break total;
        }
    };
    assert!(
        (at_least..=at_most).contains(&read),
        "{at_least} <= {read} <= {at_most}"
    );
}

#[test]
fn a_sum_lies_between_the_totals_at_the_begin_and_the_end_of_the_read() {
    for (cpus, mib) in [(1, 512), (2, 5 << 10), (4, 512), (8, 1 << 10)] {
        let guest = Looking {
            mib,
            ..adding(cpus)
        };
        let looked = guest.look(|guest| {
            guest.wait_for("@live ").expect("a beat");
            for way in [Way::MemoryFile, Way::Pmemsave] {
                let mut kernel = super::live(guest, way);
                for _ in 0..15 {
                    read_between_beats(&mut kernel, guest);
                }
            }
        });
        looked.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Waits until the ticks of CPU 0 have gone on `n` times.
fn goes_on(kernel: &mut Kpcpu, n: u32) {
    let deadline = Instant::now() + PATIENCE;
    let mut last = of_cpu_0(kernel, "TICKS");
    for _ in 0..n {
        while of_cpu_0(kernel, "TICKS") == last {
            assert!(Instant::now() < deadline, "the ticks stand still at {last}");
            thread::sleep(Duration::from_millis(10));
        }
        last = of_cpu_0(kernel, "TICKS");
    }
}

#[test]
fn through_the_memory_file_the_guest_is_never_stopped() {
    let options = ["-trace", "enable=handle_qmp_command,file={dir}/log"];
    let guest = Looking {
        options: &options,
        ..adding(2)
    };
    let looked = guest.look(|guest| {
        guest.wait_for("@live ").expect("a beat");
        let log = guest.dir().join("log");
        let log = || fs::read_to_string(&log).expect("QEMU's log");
        {
            let mut kernel = super::live(guest, Way::MemoryFile);
            goes_on(&mut kernel, 20);
            for cpu in kernel.present().expect("CPUs") {
                kernel.units(cpu).expect("units");
            }
            kernel.lwps().expect("LWPs");
        }
        let asked = log();
        assert!(asked.contains("info mtree -f"), "the log is none: {asked}");
        for word in ["stop", "pmemsave", "dump"] {
            assert!(!asked.contains(word), "{word}: {asked}");
        }
        // The same with a guest that is stopped for a while: the ticks do show it.
        let mut qmp = guest.connect().expect("QEMU answers");
        let mut kernel = super::live(guest, Way::MemoryFile);
        qmp.execute("stop", &json!({})).expect("stopped");
        let stopped = of_cpu_0(&mut kernel, "TICKS");
        thread::sleep(Duration::from_millis(300));
        assert_eq!(of_cpu_0(&mut kernel, "TICKS"), stopped);
        qmp.execute("cont", &json!({})).expect("continued");
        goes_on(&mut kernel, 1);
        let n_stops = || log().matches("\"stop\"").count();
        assert_eq!(n_stops(), 1);
        drop(kernel);
        // By pmemsave it is asked for, and not stopped either.
        let mut kernel = super::live(guest, Way::Pmemsave);
        goes_on(&mut kernel, 20);
        assert!(log().contains("pmemsave"));
        assert_eq!(n_stops(), 1);
    });
    looked.unwrap_or_else(|error| panic!("{error}"));
}

/// Ends the guest in the midst of a question, and returns what is said then.
fn end_in_the_midst(way: Way, end: impl Fn(&Guest<'_>)) -> Error {
    let mut said = None;
    let looked = adding(1).look(|guest| {
        guest.wait_for("@live ").expect("a beat");
        let kernel = super::live(guest, way);
        let asked = kernel.consistent(|kernel| {
            kernel.getpcpu(0)?;
            end(guest);
            // QEMU tells it in its own time.
            let deadline = Instant::now() + PATIENCE;
            while kernel.check().is_ok() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(10));
            }
            kernel.getpcpu(0)
        });
        said = asked.err();
        // Every other question is answered in the same way.
        assert!(
            matches!(kernel.check(), Err(Error::Gone(_)))
                || matches!(said, Some(Error::Replaced(_)))
        );
    });
    looked.unwrap_or_else(|error| panic!("{error}"));
    said.expect("an error")
}

#[test]
fn a_guest_that_ends_crashes_or_is_reset_in_the_midst_of_a_read_is_told_in_one_line() {
    for way in [Way::MemoryFile, Way::Pmemsave] {
        let ended = end_in_the_midst(way, |guest| {
            guest
                .connect()
                .expect("QEMU answers")
                .quit()
                .expect("it ends");
        });
        assert!(matches!(ended, Error::Gone(_)), "{way:?}: {ended}");
        assert!(
            ended.to_string().starts_with("the guest has ended: QEMU "),
            "{ended}"
        );
        let crashed = end_in_the_midst(way, |guest| {
            let pid = guest.pid().expect("a number").to_string();
            let killed = std::process::Command::new("kill")
                .args(["-KILL", &pid])
                .status();
            assert!(killed.expect("kill runs").success());
        });
        assert_eq!(
            crashed.to_string(),
            "the guest has ended: QEMU closed its control socket"
        );
        let reset = end_in_the_midst(way, |guest| {
            let mut qmp = guest.connect().expect("QEMU answers");
            // The runner's machines end where they should be reset.
            qmp.execute("set-action", &json!({ "reboot": "reset" }))
                .expect("set");
            qmp.execute("system_reset", &json!({})).expect("reset");
        });
        assert_eq!(reset.to_string(), "the guest was reset");
    }
}
