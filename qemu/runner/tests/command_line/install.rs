//! What the runner does when QEMU is missing, with scripts in the package manager's place.

use crate::stand_in::{Bench, Ran};

/// Runs the demo where PATH has only the bench's own programs: an apt-get that does `apt_get`, and no QEMU.
fn demo_without_qemu(apt_get: &str, install: &str) -> Ran {
    let bench = Bench::new("@end ok\n", 33);
    for tool in ["env", "sh", "cat", "cp", "sleep"] {
        let forward = format!("#!/bin/sh\nexec /usr/bin/{tool} \"$@\"\n");
        bench.file(&format!("bin/{tool}"), forward.as_bytes());
    }
    let sudo = bench.file(
        "bin/sudo",
        b"#!/bin/sh\n[ \"$1\" = -n ] || exit 9\nshift\nexec \"$@\"\n",
    );
    let bin = sudo.trim_end_matches("/sudo");
    if !apt_get.is_empty() {
        let script = format!("#!/bin/sh\nbin={bin}\n{apt_get}\n");
        bench.file("bin/apt-get", script.as_bytes());
    }
    bench.demo_with(
        &["--cpus", "1"],
        &[("PATH", bin), ("PCU9_QEMU", ""), ("PCU9_INSTALL", install)],
    )
}

#[test]
fn a_missing_tool_that_may_not_be_installed_ends_with_the_command() {
    let run = demo_without_qemu("exit 1", "0");
    assert_eq!(run.status, 2);
    let last = run.text.lines().last().expect("a line");
    assert!(
        last.starts_with(
            "error: qemu-system-x86_64 is missing: run `sudo apt-get install -y qemu-system-x86`"
        ),
        "{}",
        run.text
    );
    assert_eq!(run.json["ok"], false);
}

#[test]
fn a_missing_tool_is_installed_when_that_is_allowed() {
    // The last argument of the second call is the package.
    let apt_get = "for last; do :; done\n[ \"$last\" = qemu-system-x86 ] && cp $bin/../qemu $bin/qemu-system-x86_64\nexit 0";
    let run = demo_without_qemu(apt_get, "1");
    assert!(
        run.text
            .contains("Installing qemu-system-x86 (qemu-system-x86_64 is missing)"),
        "{}",
        run.text
    );
    assert!(run.text.contains("Booting 1 CPUs"), "{}", run.text);
}

#[test]
fn a_failed_installation_shows_what_apt_said() {
    let run = demo_without_qemu("echo 'E: Unable to locate package'\nexit 100", "1");
    assert_eq!(run.status, 2);
    assert!(
        run.text.contains("Unable to locate package"),
        "{}",
        run.text
    );
    assert!(run.text.contains("exit status 100"), "{}", run.text);
}

#[test]
fn a_system_without_apt_get_and_a_wrong_value_are_said() {
    let run = demo_without_qemu("", "1");
    assert_eq!(run.status, 2);
    assert!(run.text.contains("no apt-get"), "{}", run.text);
    let run = demo_without_qemu("exit 0", "yes");
    assert_eq!(run.status, 2);
    assert!(run.text.contains("PCU9_INSTALL=yes"), "{}", run.text);
}

#[test]
fn bochs_is_provided_as_qemu_is() {
    let bench = Bench::new("@end ok\n", 33);
    bench.file("bin/apt-get", b"#!/bin/sh\nexit 1\n");
    let bin = bench.path("bin");
    let arguments = ["--emulator", "bochs", "--cpus", "1"];
    let run = bench.demo_with(&arguments, &[("PATH", &bin), ("PCU9_INSTALL", "0")]);
    assert_eq!(run.status, 2);
    let last = run.text.lines().last().expect("a line");
    // The firmware's files may be there already.
    assert!(last.starts_with("error: bochs, "), "{last}");
    assert!(
        last.contains("grub-mkrescue, xorriso")
            && last.contains("is missing: run `sudo apt-get install -y bochs bochs-term "),
        "{last}"
    );
    assert!(last.contains("PCU9_INSTALL=1"), "{last}");

    let run = bench.demo_with(&arguments, &[("PCU9_BOCHS", "/no/such/file")]);
    assert_eq!(run.status, 2);
    assert!(
        run.text
            .contains("error: PCU9_BOCHS=/no/such/file: no such program"),
        "{}",
        run.text
    );
}
