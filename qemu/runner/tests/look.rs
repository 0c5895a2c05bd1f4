//! `cargo demo` while somebody looks: `--watch`, `--socket` and `--dump-after`, on the real guest.

#![cfg(not(target_os = "none"))]

#[path = "../../kpcpu/tests/live/pty.rs"]
mod pty;

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use pcu9_kpcpu::{Error, Kpcpu, Owner, Place};
use pty::{Terminal, lines};

/// Where the run is not told otherwise: two CPUs, and long enough for a look.
fn demo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pcu9-runner"));
    command.args(["demo", "--cpus", "2", "--copies", "8", "--window", "none"]);
    command
}

/// Looks at a guest until it ends; returns how often somebody owned the FPU.
fn look(socket: &std::path::Path) -> u32 {
    let mut kernel = socket.as_os_str().to_owned();
    kernel.push(".kernel");
    let deadline = Instant::now() + Duration::from_mins(8);
    let guest = loop {
        match Kpcpu::open_live(kernel.as_ref(), socket) {
            Ok(guest) => break guest,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::sleep(Duration::from_millis(50));
    };
    let mut n_owners = 0;
    loop {
        let owners = guest.consistent(|guest| {
            let cpus = guest.present()?.into_iter();
            let units = cpus
                .map(|cpu| guest.units(cpu))
                .collect::<Result<Vec<_>, _>>()?;
            let owners = units.iter().flatten();
            Ok(owners
                .filter(|unit| matches!(unit.owner, Owner::Live(_)))
                .count())
        });
        match owners {
            Ok(n) => n_owners += u32::try_from(n).expect("few"),
            Err(Error::Gone(_)) => return n_owners,
            // CPUs come up while it boots.
            Err(Error::Torn(_)) => {}
            Err(error) => panic!("{error}"),
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn in_a_pipe_tables_follow_each_other_others_look_too_and_a_dump_in_the_midst_has_owners() {
    let dir = tempfile::tempdir().expect("a directory");
    let (socket, dump) = (dir.path().join("socket"), dir.path().join("dump"));
    let mut demo = demo();
    demo.arg("--watch").arg("--socket").arg(&socket);
    demo.arg("--dump").arg(&dump).args(["--dump-after", "0.5"]);
    let (output, n_owners) = thread::scope(|scope| {
        let looks = scope.spawn(|| look(&socket));
        let output = demo.output().expect("it runs");
        (output, looks.join().expect("it looks"))
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(n_owners > 0, "nobody ever owned the FPU");
    assert!(said.contains("CPUs started, ids below 128"), "{said}");
    assert!(said.contains("\nCPU  STATE  "), "{said}");
    assert!(!said.contains('\u{1b}'), "{said}");
    let all = String::from_utf8_lossy(&output.stdout);
    assert!(all.contains("nbody      8      546   identical"), "{all}");
    // The dump was made while programs ran, and they went on.
    let kernel = Kpcpu::open_dump(&dump).unwrap_or_else(|error| panic!("{error}"));
    let lwps = kernel.lwps().expect("the list");
    let is_live = |place: &Place| matches!(place, Place::Live(_) | Place::Memory);
    let in_use = lwps.iter().filter(|lwp| lwp.units.iter().any(is_live));
    assert!(in_use.count() > 1, "{lwps:?}");
    // What was there for others to look is gone.
    let left = fs::read_dir(dir.path()).expect("the directory");
    let mut left: Vec<_> = left
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["dump", "dump.kernel"]);
}

#[test]
fn at_a_terminal_the_table_stands_below_the_step_and_the_terminal_is_given_back() {
    for columns in [80, 200] {
        let mut demo = demo();
        let terminal = Terminal::start(demo.arg("--watch"), (30, columns));
        let shown = terminal.wait_for_minutes(8, "a table", |lines| {
            lines.iter().any(|line| line.contains("counts per second"))
                && lines.iter().any(|line| line.starts_with("1    "))
        });
        let at = |begin: &str| shown.iter().rposition(|line| line.contains(begin));
        let (step, head) = (at("Booting 2 CPUs"), at("CPU  "));
        assert!(step.is_some() && step < head, "{shown:#?}");
        assert!(
            shown
                .iter()
                .all(|line| line.chars().count() <= columns.into())
        );
        let (status, screen) = terminal.end();
        let shown = lines(&screen);
        assert_eq!(status, Some(0), "{shown:#?}");
        assert!(
            !shown.iter().any(|line| line.contains("per second")),
            "{shown:#?}"
        );
        assert!(
            shown.iter().any(|line| line.contains("holds  ")),
            "{shown:#?}"
        );
    }
}

#[test]
fn a_dump_that_comes_too_late_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let dump = dir.path().join("dump");
    let mut demo = demo();
    demo.arg("--dump").arg(&dump).args(["--dump-after", "3000"]);
    let output = demo.output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("ended less than 3000 s after its programs began"),
        "{said}"
    );
}
