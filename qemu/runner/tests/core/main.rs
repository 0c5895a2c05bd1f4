//! A program with threads that crashes leaves a core file, in which readers that share no code with this project find every thread's
//! registers: `readelf` the notes, gdb the numbers that each thread had in x87, XMM and YMM, wherever they were.

#![cfg(not(target_os = "none"))]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pcu9_runner::{compile_c, provide_tool};

const N_THREADS: u64 = 4;
/// The one that faults is the first in the file.
const FAULTS: u64 = 4;

/// The program, for a machine with or without AVX.
fn program(dir: &Path, avx: bool) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/core/crash.c");
    let program = dir.join(if avx { "crash-avx" } else { "crash" });
    let flag = if avx { "-DAVX=1" } else { "-DAVX=0" };
    let compiled = compile_c(&source, &[flag, "-g"], &program);
    compiled.unwrap_or_else(|error| panic!("{error}"))
}

/// Runs the program in the demo, where it is killed, and returns the core file that the demo names.
fn core_of(program: &Path, machine: &[&str]) -> PathBuf {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pcu9-runner"));
    command
        .args(["demo", "--copies", "1", "--window", "none", "--program"])
        .arg(program);
    let output = command.args(machine).output().expect("the runner");
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}{said}");
    assert!(
        said.contains("killed by signal 11") && said.contains("and on the host too"),
        "{said}"
    );
    let path = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("core file of "));
    let path = path.unwrap_or_else(|| panic!("no core file: {text}{said}"));
    let path = path.split(": ").nth(1).expect("a path");
    PathBuf::from(path)
}

fn tool(program: &str, package: &str) -> PathBuf {
    provide_tool(program, package).unwrap_or_else(|error| panic!("{error}"))
}

/// What a tool says, with nothing in its way.
fn say(command: &mut Command) -> String {
    let output = command.env("LC_ALL", "C").output().expect("the tool runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{complaints}");
    text + &complaints
}

/// The lines that gdb prints for each thread, in the order of the threads' numbers.
fn expected(number: u64, avx: bool) -> String {
    let pattern = [
        number.wrapping_mul(0x1111_1111_1111_1111),
        !number.wrapping_mul(0x1111_1111_1111_1111),
        number.wrapping_mul(0x0101_0101_0101_0101),
        number ^ 0x0123_4567_89ab_cdef,
    ];
    let half = f64::from(u32::try_from(number).expect("small")) + 0.5;
    let [a, b, c, d] = pattern;
    let upper = if avx {
        format!(" ymm9 {a:x} {b:x} {c:x} {d:x}")
    } else {
        String::new()
    };
    format!("r12 {number} st0 {half} xmm3 {a:x} {b:x}{upper}")
}

fn check(core: &Path, program: &Path, avx: bool, xsave: bool) {
    let notes = say(Command::new(tool("readelf", "binutils"))
        .args(["-n", "-W"])
        .arg(core));
    let count = |word: &str| notes.matches(word).count() as u64;
    assert_eq!(count("NT_PRSTATUS"), N_THREADS, "{notes}");
    assert_eq!(count("NT_FPREGSET"), N_THREADS, "{notes}");
    assert_eq!(
        count("NT_X86_XSTATE"),
        if xsave { N_THREADS } else { 0 },
        "{notes}"
    );

    let ymm = [
        (
            " ymm9 %lx %lx %lx %lx",
            ", $ymm9.v4_int64[0], $ymm9.v4_int64[1]",
        ),
        ("", ", $ymm9.v4_int64[2], $ymm9.v4_int64[3]"),
    ];
    let (more, values): (Vec<_>, Vec<_>) = ymm.into_iter().filter(|_| avx).unzip();
    let print = format!(
        "printf \"r12 %lu st0 %g xmm3 %lx %lx{}\\n\", $r12, (double)$st0, $xmm3.v2_int64[0], $xmm3.v2_int64[1]{}",
        more.concat(),
        values.concat()
    );
    let script = core.with_extension("gdb");
    fs::write(&script, format!("thread apply all -ascending -q {print}\n")).expect("a file");
    let said = say(Command::new(tool("gdb", "gdb"))
        .args(["-nx", "-q", "-batch", "-x"])
        .arg(&script)
        .arg(program)
        .arg(core));
    fs::remove_file(&script).expect("it was there");
    assert!(
        said.contains("Program terminated with signal SIGSEGV"),
        "{said}"
    );
    assert!(!said.contains("warning"), "{said}");
    let found: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("r12 "))
        .collect();
    // The one that faulted, and then the others by age.
    let numbers = [FAULTS, 1, 2, 3];
    let wanted = numbers.map(|number| expected(number, avx));
    assert_eq!(found, wanted, "{said}");
}

fn crash(machine: &[&str], avx: bool, xsave: bool) {
    let dir = tempfile::tempdir().expect("a directory");
    let program = program(dir.path(), avx);
    let core = core_of(&program, machine);
    check(&core, &program, avx, xsave);
    fs::remove_file(&core).expect("it was there");
}

#[test]
fn gdb_finds_the_registers_of_every_thread_under_each_policy() {
    let avx = std::arch::is_x86_feature_detected!("avx");
    if !avx {
        println!("NOT RUN with YMM: this host has no AVX, and the program runs here too");
    }
    for policy in ["lazy", "deferred", "eager", "adaptive"] {
        crash(&["--cpus", "4", "--policy", policy], avx, true);
    }
}

#[test]
fn gdb_finds_them_on_one_cpu_and_without_xsave() {
    crash(&["--cpu", "qemu64", "--cpus", "4"], false, false);
    crash(&["--cpu", "max", "--cpus", "1"], false, true);
}
