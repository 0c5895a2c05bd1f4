//! Boots kernels that test themselves: `cargo boot`, the cargo runner, and the host's side of `cargo test`.

mod cases;
mod launcher;
mod selection;

use std::env;
use std::path::Path;
use std::time::Duration;

use crate::cli::{BootArgs, RunArgs};
use crate::emulator::{self, Emulator, End, Kind, Machine, Outcome};
use crate::error::{Error, Result};
use crate::guest::{self, Kernel};
use crate::programs::Archive;
use crate::progress::print;
use crate::toolchain;

use cases::{Cases, Said};
use selection::Selection;

pub use launcher::{Run, boot_test};

/// How long a boot test may run, on a busy host too; the guest's own waits end after a minute each.
pub(crate) const LIMIT: Duration = Duration::from_mins(5);

/// `cargo boot NAME`: builds and boots one kernel and shows everything it says.
pub(crate) fn boot(args: &BootArgs) -> Result<()> {
    let tests = guest::test_names()?;
    let embedding = [Kernel::Embed, Kernel::EmbedSmp];
    let others = embedding.each_ref().map(|kernel| kernel.name().to_owned());
    if args.list {
        for name in tests.iter().chain(&others) {
            print(name);
        }
        return Ok(());
    }
    let asked = args.name.as_deref().unwrap_or_default();
    let names = [asked.to_owned(), format!("boot_{asked}")];
    let kernel = if let Some(test) = tests.iter().find(|test| names.contains(test)) {
        Kernel::Test(test.clone())
    } else if let Some(kernel) = embedding.into_iter().find(|kernel| asked == kernel.name()) {
        kernel
    } else {
        return Err(Error::unusable(format!(
            "there is no boot test `{asked}`; there are {}",
            tests
                .iter()
                .chain(&others)
                .cloned()
                .collect::<Vec<_>>()
                .join(", ")
        )));
    };
    let emulator = emulator::provide(args.emulator)?;
    emulator.check_model(&args.cpu)?;
    let image = match guest::given() {
        Some(image) => image,
        None => guest::build(&toolchain::provide()?, &kernel)?,
    };
    let archive = Archive::for_kernel(kernel.name())?;
    let machine = Machine {
        kernel: &image,
        initrd: archive.as_ref().map(Archive::path),
        control: None,
        append: kernel_options(None, true),
        model: &args.cpu,
        cpus: args.cpus.unwrap_or_else(|| kernel.default_cpus()),
        limit: Duration::from_secs(args.timeout),
    };
    show(&*emulator, &machine, true)
}

/// `pcu9-runner run IMAGE`: boots an image that cargo built, with the arguments of a test program.
pub(crate) fn run(args: &RunArgs) -> Result<()> {
    if !args.image.is_file() {
        let image = args.image.display();
        return Err(Error::unusable(format!(
            "{image}: there is no such kernel image"
        )));
    }
    let cpus = cpus(env::var("PCU9_CPUS").ok().as_deref())?;
    let selection = Selection::parse(args.arguments.iter().cloned());
    let name = args.image.file_stem().unwrap_or_default().to_string_lossy();
    let is_test = name.starts_with("boot_");
    if selection.list {
        // Which cases a kernel has, it tells when it runs.
        print(format_args!("{name}: test"));
        return Ok(());
    }
    let emulator = emulator::provide(Kind::Qemu)?;
    let archive = Archive::for_kernel(&name)?;
    let machine = Machine {
        kernel: &args.image,
        initrd: archive.as_ref().map(Archive::path),
        control: None,
        append: kernel_options(selection.for_guest(), true),
        model: "max",
        cpus,
        limit: LIMIT,
    };
    show(&*emulator, &machine, is_test && selection.is_everything())
}

fn cpus(value: Option<&str>) -> Result<u32> {
    let Some(value) = value else {
        return Ok(4);
    };
    match value.parse() {
        Ok(cpus @ 1..=8) => Ok(cpus),
        _ => Err(Error::unusable(format!(
            "PCU9_CPUS={value}: the value is a number from 1 to 8"
        ))),
    }
}

/// Returns the part of the kernel's command line that selects cases: those whose names contain `filter`, and under every policy
/// the ones that run under every policy.
pub(crate) fn kernel_options(filter: Option<&str>, every_policy: bool) -> String {
    let mut options = Vec::new();
    options.extend(every_policy.then(|| "policies=all".to_owned()));
    options.extend(filter.map(|filter| format!("case={filter}")));
    options.join(" ")
}

/// Boots the machine, prints every line of it, and judges it; `must_test` when it has to run cases.
fn show(emulator: &dyn Emulator, machine: &Machine<'_>, must_test: bool) -> Result<()> {
    let passed = judge(emulator, machine, must_test, |line| print(line))?;
    print(passed);
    Ok(())
}

/// Boots the machine, gives every line of it to `line`, and judges it; `must_test` when it has to run cases. What is returned is
/// for people: that all is well, or what is not.
pub(crate) fn judge(
    emulator: &dyn Emulator,
    machine: &Machine<'_>,
    must_test: bool,
    mut line: impl FnMut(&str),
) -> Result<String> {
    let mut cases = Cases::default();
    let outcome = emulator.run(machine, &mut |text| {
        line(text);
        cases.take(text);
    })?;
    let mut wrong = verdict(&outcome, &cases, must_test);
    if cases.failed > 0 {
        let n_cases = cases.failed + cases.passed;
        let failures = cases.failures.join(", ");
        wrong.insert(
            0,
            format!("{} of {n_cases} cases failed: {failures}", cases.failed),
        );
    }
    let what = file_name(machine.kernel);
    let machine = format!("{}/{}", machine.model, machine.cpus);
    if wrong.is_empty() {
        return Ok(format!(
            "{what} [{machine}]: ok, {} cases passed, {:.1} s",
            cases.passed, outcome.seconds
        ));
    }
    Err(Error::failed(format!(
        "{what} [{machine}]: {}",
        wrong.join("; ")
    )))
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Returns what is wrong with a run as a whole, beside the cases that failed.
fn verdict(outcome: &Outcome, cases: &Cases, must_test: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    // A kernel with failed cases reports failure; anything else that is no success is told with the last lines.
    let told = cases.failed > 0 && outcome.end == End::Failure;
    if !outcome.is_success() && !told {
        wrong.push(outcome.to_string());
    }
    match cases.closing {
        Some((passed, failed)) if (passed, failed) != (cases.passed, cases.failed) => {
            wrong.push(format!(
                "the kernel counted {passed} passed, {failed} failed; its lines say {} and {}",
                cases.passed, cases.failed
            ));
        }
        None if must_test || cases.passed + cases.failed > 0 => {
            wrong.push("the kernel's closing line `N passed, N failed` is missing".into());
        }
        _ => {}
    }
    if cases.closings > 1 {
        wrong.push(format!(
            "the kernel wrote its closing line {} times",
            cases.closings
        ));
    }
    if must_test && cases.passed + cases.failed == 0 {
        wrong.push("no case ran".into());
    }
    if outcome.is_success() && cases.failed > 0 {
        wrong.push("the kernel reported success all the same".into());
    }
    if let Some(panic) = &cases.panic {
        wrong.push(format!("the kernel panicked: {panic}"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::cases::Cases;
    use super::{LIMIT, cpus, judge, verdict};
    use crate::emulator::{Emulator, Machine, Outcome};
    use crate::error::Result;
    use crate::process::Ended;
    use crate::qemu;
    use std::path::Path;

    /// An emulator whose kernel writes this, and ends it with this status.
    #[derive(Debug)]
    struct Writes(&'static str, i32);

    impl Emulator for Writes {
        fn check_model(&self, _: &str) -> Result<()> {
            Ok(())
        }

        fn run(&self, _: &Machine<'_>, line: &mut dyn FnMut(&str)) -> Result<Outcome> {
            self.0.lines().for_each(line);
            Ok(Outcome::recorded(qemu::end(Ended::Exit(self.1)), self.0))
        }
    }

    /// What is told of a run of `emulator`.
    fn told(emulator: &Writes) -> Result<String> {
        let machine = Machine {
            kernel: Path::new("target/boot_x"),
            initrd: None,
            control: None,
            append: String::new(),
            model: "max",
            cpus: 2,
            limit: LIMIT,
        };
        judge(emulator, &machine, true, |_| ())
    }

    #[test]
    fn failed_cases_fail_the_run_and_are_named_with_their_reason() {
        let passed = told(&Writes("test a ... ok\n1 passed, 0 failed", 33));
        assert!(passed.is_ok_and(|text| text.contains("1 cases passed")));
        let text = "test a ... ok\n2 is not 3\ntest b ... FAILED\n1 passed, 1 failed";
        let error = told(&Writes(text, 35)).expect_err("a case failed");
        assert_eq!(
            error.to_string(),
            "boot_x [max/2]: 1 of 2 cases failed: b (2 is not 3)"
        );
    }

    fn wrong(status: i32, text: &str) -> Vec<String> {
        let mut cases = Cases::default();
        for line in text.lines() {
            cases.take(line);
        }
        let outcome = Outcome::recorded(qemu::end(Ended::Exit(status)), text);
        verdict(&outcome, &cases, true)
    }

    #[test]
    fn a_run_is_good_when_everything_agrees() {
        assert!(wrong(33, "test a ... ok\ntest b ... ok\n2 passed, 0 failed").is_empty());
    }

    #[test]
    fn a_run_without_cases_or_without_a_true_closing_line_fails() {
        assert!(wrong(33, "0 passed, 0 failed")[0].contains("no case ran"));
        assert!(wrong(33, "test a ... ok")[0].contains("closing line"));
        assert!(wrong(33, "test a ... ok\n2 passed, 0 failed")[0].contains("its lines say 1"));
        let twice = "test a ... ok\n1 passed, 0 failed\n1 passed, 0 failed";
        assert!(wrong(33, twice)[0].contains("2 times"));
    }

    #[test]
    fn a_triple_fault_a_panic_and_a_failed_case_are_told() {
        assert!(wrong(0, "test a ... ok\n1 passed, 0 failed")[0].contains("triple fault"));
        let failed = "test a ... FAILED\n0 passed, 1 failed";
        assert!(wrong(35, failed).is_empty());
        assert!(wrong(33, failed)[0].contains("all the same"));
        let panicked = wrong(35, "@panic no stack");
        assert!(panicked.iter().any(|text| text.contains("no stack")));
    }

    #[test]
    fn the_number_of_cpus_is_checked() {
        assert_eq!(cpus(None), Ok(4));
        assert_eq!(cpus(Some("8")), Ok(8));
        for wrong in ["0", "9", "two", ""] {
            assert!(cpus(Some(wrong)).is_err_and(|e| e.status() == 2));
        }
    }
}
