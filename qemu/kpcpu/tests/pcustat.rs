//! The program: its tables, its JSON, and one line for each error.

#![cfg(not(target_os = "none"))]

mod image;

use std::process::Command;

use image::{HEADER, Image, LWP_BYTES, LWP_WORD, LWPS, Options};

/// Runs it on an image; gives the exit status, what it printed, and what it complained of.
fn pcustat(image: &Image, arguments: &[&str]) -> (i32, String, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let dump = dir.path().join("dump");
    image.write(&dump);
    std::fs::write(dir.path().join("dump.kernel"), &image.kernel).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_pcustat"))
        .arg(&dump)
        .args(arguments)
        .output()
        .expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let status = output.status.code().expect("a status");
    (status, text(output.stdout), text(output.stderr))
}

fn image() -> Image {
    Image::new(Options::default())
}

#[test]
fn the_table_of_cpus() {
    let (status, said, complaints) = pcustat(&image(), &[]);
    assert_eq!((status, complaints.as_str()), (0, ""));
    let expected = "\
3 of 3 CPUs started, ids below 64

CPU  STATE    LWP      UNIT  OWNER    GATE  TRAPS  SAVES
0    started  1 lwp 0  fpu   1 lwp 0  open     30     20
2    started  1 lwp 0  fpu   1 lwp 0  open     30     20
3    started  1 lwp 0  fpu   1 lwp 0  open     30     20
";
    assert_eq!(said, expected);
}

#[test]
fn a_clean_owner_is_shown_as_clean() {
    let mut image = image();
    for (place, link) in [(0, 5u64), (1, 6)] {
        let pcu = image::CPU_PCU.wrapping_add(image.offset(place));
        image.put_u64s(pcu + 32, &[LWPS + LWP_BYTES, link << 16]);
    }
    // The second LWP says that CPU 0's registers equal its memory; CPU 2's serial is another's.
    image.put_u64s(LWPS + LWP_BYTES + LWP_WORD, &[2 | 1 << 2 | 5 << 16]);
    let (_, said, _) = pcustat(&image, &[]);
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[3].contains("(2 lwp 1)"), "{said}");
    assert!(
        lines[4].contains(&format!("({:#x})", LWPS + LWP_BYTES)),
        "{said}"
    );
    let (_, said, _) = pcustat(&image, &["lwp", "2"]);
    assert!(
        said.contains("in memory, and the registers of CPU 0 equal it"),
        "{said}"
    );
}

#[test]
fn an_lwp_and_its_registers() {
    let (status, said, _) = pcustat(&image(), &["lwp", "2"]);
    assert_eq!(status, 0);
    for text in [
        "LWP 2 lwp 1",
        "in memory",
        "027f 0000 00",
        "mxcsr",
        "00001fa0",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    let (low, high) = ("22".repeat(16), "33".repeat(16));
    assert!(said.contains(&format!("{high}{low}")), "{said}");
    let (status, said, complaints) = pcustat(&image(), &["lwp", "99"]);
    assert_eq!((status, said.as_str()), (1, ""));
    assert_eq!(complaints, "error: no LWP has the number 99\n");
}

#[test]
fn counters_and_variables() {
    let (_, said, _) = pcustat(&image(), &["counters"]);
    let expected = "\
COUNTER          VALUE  CPU 0  CPU 2  CPU 3
kernel::PACKETS   3005   1000   1002   1003
kernel::LATE         8      1      3      4
";
    assert_eq!(said, expected);
    let (_, said, _) = pcustat(&image(), &["dpcpu", "kernel::COLOUR", "2"]);
    assert!(
        said.lines().nth(1).is_some_and(|l| l.ends_with("12582914")),
        "{said}"
    );
    let (status, _, complaints) = pcustat(&image(), &["dpcpu", "plain"]);
    assert_eq!(status, 1);
    assert_eq!(complaints, "error: `plain` is not a per-CPU variable\n");
}

#[test]
fn a_dump_without_a_note_needs_the_kernels_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let dump = dir.path().join("dump");
    image().write(&dump);
    let mut command = Command::new(env!("CARGO_BIN_EXE_pcustat"));
    let output = command.arg(&dump).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no note of the kernel's header"), "{said}");
    assert!(
        said.ends_with("the kernel's file is needed: --kernel FILE\n"),
        "{said}"
    );
}

#[test]
fn json_has_every_counter_and_addresses_as_text() {
    let (status, said, _) = pcustat(&image(), &["--json"]);
    assert_eq!(status, 0);
    let json: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(json["started"], 3);
    assert_eq!(json["cpus"][1]["cpu"], 2);
    let unit = &json["cpus"][1]["units"][0];
    assert_eq!(
        unit["counters"],
        serde_json::json!({ "traps": 30, "saves": 20 })
    );
    assert_eq!(unit["owner"]["live"], format!("{LWPS:#x}"));
}

#[test]
fn a_torn_set_of_cpus_is_refused_until_it_is_accepted() {
    let mut image = image();
    image.put_u64s(HEADER + 40, &[7]);
    let (status, _, complaints) = pcustat(&image, &[]);
    assert_eq!(status, 1);
    assert!(
        complaints.ends_with("; --torn shows it all the same\n"),
        "{complaints}"
    );
    assert_eq!(complaints.lines().count(), 1);
    assert_eq!(pcustat(&image, &["--torn"]).0, 0);
}

#[test]
fn wrong_arguments_have_status_2_and_a_missing_dump_1() {
    let (status, _, complaints) = pcustat(&image(), &["--intervall", "1"]);
    let told = "error: unexpected argument '--intervall' found; a similar argument exists: '--interval'; see `pcustat --help`\n";
    assert_eq!((status, &*complaints), (2, told));
    let (status, help, _) = pcustat(&image(), &["--help"]);
    assert!(
        status == 0 && help.contains("cargo pcustat SOCKET lwp 7 --follow"),
        "{help}"
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_pcustat"));
    let output = command.arg("/nowhere/dump").output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.starts_with("error: dump /nowhere/dump: No such file"),
        "{said}"
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_pcustat"));
    let output = command.args(["/nowhere/dump", "--kernel", "/nowhere/kernel"]);
    let output = output.output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.starts_with("error: kernel /nowhere/kernel: No such file"),
        "{said}"
    );
    // A dump stays as it is.
    for argument in [
        &["--interval", "1"][..],
        &["--count", "2"],
        &["lwp", "2", "--follow"],
        &["--interval", "0"],
        &["--interval", "x"],
        &["--count", "0"],
        &["--by", "gdb"],
    ] {
        let (status, said, complaints) = pcustat(&image(), argument);
        assert_eq!(
            (status, said.as_str()),
            (2, ""),
            "{argument:?}: {complaints}"
        );
    }
}
