//! The stress, for ten minutes or one, and with lines of the protocol broken.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use super::seeded::{self, Patched};
use super::{Step, copy};
use crate::boot;
use crate::emulator::{self, Emulator, End, Kind, Machine, Outcome};
use crate::error::{During, Error, Result};
use crate::guest::{self, Kernel};
use crate::place;
use crate::programs::Archive;
use crate::progress::{Step as Progress, say};
use crate::table;
use crate::toolchain;

/// The boot test.
pub(super) const TEST: &str = "boot_stress";
/// How long it runs in the short part and in the whole; the floors are the kernel's, and grow with the time.
const SHORT: Duration = Duration::from_mins(1);
const LONG: Duration = Duration::from_mins(10);
/// What the boot and the end may take beside that: the guest waits for its LWPs for a minute each.
const BESIDE: Duration = Duration::from_mins(4);
/// How soon a broken line must show.
const SOON: Duration = Duration::from_mins(1);
const MODEL: &str = "max";

/// Where it does the same each time, and for how long, by the guest's clock.
const ON_BOCHS: &str = "tigerlake";
/// One of the guest's seconds takes one to six of the host's.
pub(super) const TIME_ON_BOCHS: Duration = Duration::from_secs(20);
/// More CPUs would only have less time each.
pub(super) const MOST_ON_BOCHS: u32 = 4;
const LIMIT_ON_BOCHS: Duration = Duration::from_mins(30);

/// The lines to break.
const TABLE: &str = "tests/tables/stress.toml";

/// What the table says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lines {
    line: Vec<Line>,
}

/// A line of the protocol, and the patch that breaks it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// As in [`seeded`].
    patch: String,
    /// What it says.
    line: String,
}

/// The steps of the stress.
pub(super) fn steps(short: bool) -> Vec<Step> {
    let time = if short { SHORT } else { LONG };
    let mut steps = vec![Step {
        name: "stress".to_owned(),
        run: Box::new(move || run(time)),
    }];
    if !short {
        steps.push(super::step("stress, five broken lines", run_broken));
        steps.push(super::step("stress on Bochs, twice the same", run_twice));
    }
    steps
}

/// The kernel's options for a stress of `time` with the choices of `seed`.
pub(super) fn options(time: Duration, seed: u64) -> String {
    format!("stress={} seed={seed}", time.as_secs())
}

/// How long the emulator may run: a guest that measured its clock on a loaded host has longer seconds.
fn limit(time: Duration) -> Duration {
    time * 3 / 2 + BESIDE
}

/// The seed that `PCU9_SEED` names, or one that nobody has had.
fn seed(given: Option<&str>) -> Result<u64> {
    match given {
        None => Ok(SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |since| since.as_secs())),
        Some(text) => text
            .parse()
            .map_err(|_| Error::unusable(format!("PCU9_SEED={text}: the value is a number"))),
    }
}

fn machine<'a>(
    kernel: &'a Path,
    archive: &'a Archive,
    append: String,
    limit: Duration,
) -> Machine<'a> {
    Machine {
        kernel,
        initrd: Some(archive.path()),
        control: None,
        append,
        model: MODEL,
        cpus: Kernel::named(TEST).default_cpus(),
        limit,
    }
}

/// Is it what the stress says of itself?
fn is_report(line: &str) -> bool {
    line.starts_with("everything_at_once: ")
}

fn archive() -> Result<Archive> {
    Archive::for_kernel(TEST)?
        .ok_or_else(|| Error::failed(format!("{TEST} gets no archive of programs")))
}

/// Runs the stress on QEMU.
fn run(time: Duration) -> Result<()> {
    let seed = seed(env::var("PCU9_SEED").ok().as_deref())?;
    let emulator = emulator::provide(Kind::Qemu)?;
    let image = match guest::given() {
        Some(image) => image,
        None => guest::build(&toolchain::provide()?, &Kernel::named(TEST))?,
    };
    let archive = archive()?;
    let machine = machine(&image, &archive, options(time, seed), limit(time));
    say(format_args!(
        "PCU9_SEED={seed} repeats the choices of this run"
    ));
    let passed = boot::judge(&*emulator, &machine, true, |line| {
        if is_report(line) {
            println!("{line}");
        }
    })
    .map_err(|error| Error::failed(format!("{error}; PCU9_SEED={seed} repeats its choices")))?;
    println!("{passed}");
    Ok(())
}

/// Runs the stress twice on Bochs, where nothing depends on the host: what a seed chooses, and all that comes of it, is the same.
fn run_twice() -> Result<()> {
    let emulator = emulator::provide(Kind::Bochs)?;
    let image = guest::build(&toolchain::provide()?, &Kernel::named(TEST))?;
    let archive = archive()?;
    let machine = Machine {
        model: ON_BOCHS,
        cpus: MOST_ON_BOCHS,
        ..machine(&image, &archive, options(TIME_ON_BOCHS, 1), LIMIT_ON_BOCHS)
    };
    let run = || {
        let mut said = Vec::new();
        let progress = Progress::start(format!("the stress on Bochs {ON_BOCHS}"));
        boot::judge(&*emulator, &machine, true, |line| {
            said.extend(is_report(line).then(|| line.to_owned()));
        })?;
        progress.done();
        Ok(said)
    };
    let (first, second) = (run()?, run()?);
    for line in &first {
        println!("{line}");
    }
    let differs = first.iter().zip(&second).find(|(one, other)| one != other);
    match differs {
        None if first.len() == second.len() => Ok(()),
        None => Err(Error::failed("the second run said more, or less")),
        Some((one, other)) => Err(Error::failed(format!(
            "the second run was another one: `{one}`, then `{other}`"
        ))),
    }
}

/// Breaks one line after the other, and wants the stress to fail soon.
fn run_broken() -> Result<()> {
    let lines = read(&place::checkout())?;
    let emulator = emulator::provide(Kind::Qemu)?;
    let archive = archive()?;
    let copy = place::target("stress").join("checkout");
    copy::bring_up_to_date(&place::checkout(), &copy)?;
    if copy.starts_with(place::checkout()) {
        // Cargo goes by the configuration above the copy as well, and flags for the linker are not to come twice.
        let own = copy.join(".cargo/config.toml");
        fs::remove_file(&own).during(own.display())?;
    }
    let mut rows = vec![
        ["broken line", "seconds", "what the stress said"]
            .map(String::from)
            .to_vec(),
    ];
    let mut failed = 0;
    for line in &lines {
        let (seconds, said) = match broken(line, &copy, &*emulator, &archive) {
            Ok((seconds, said)) => (format!("{seconds:.1}"), said),
            Err(error) => {
                eprintln!("error: {} ({}): {error}", line.patch, line.line);
                failed += 1;
                (String::new(), "NOT NOTICED".to_owned())
            }
        };
        rows.push(vec![line.line.clone(), seconds, said]);
    }
    println!("{}", table::render(&rows, false));
    if failed == 0 {
        return Ok(());
    }
    Err(Error::failed(format!(
        "the stress does not notice {failed} of {} broken lines",
        lines.len()
    )))
}

/// Reads the table, in which five lines stand, each once.
fn read(checkout: &Path) -> Result<Vec<Line>> {
    let text = fs::read_to_string(checkout.join(TABLE)).during(TABLE)?;
    let Lines { line: lines } = toml::from_str(&text).during(TABLE)?;
    let different: BTreeSet<&str> = lines.iter().map(|line| line.patch.as_str()).collect();
    if different.len() != 5 || lines.len() != 5 {
        return Err(Error::failed(format!(
            "{TABLE} has {} lines, {} of them different: five are wanted",
            lines.len(),
            different.len()
        )));
    }
    Ok(lines)
}

/// Runs the stress with a line broken: after how many seconds it failed, and what it said.
fn broken(
    line: &Line,
    copy: &Path,
    emulator: &dyn Emulator,
    archive: &Archive,
) -> Result<(f64, String)> {
    let Patched { file, text } = seeded::patched(&line.patch, copy)?;
    let path = copy.join(&file);
    let original = fs::read(&path).during(path.display())?;
    fs::write(&path, text).during(path.display())?;
    let built = toolchain::provide().and_then(|toolchain| {
        guest::build_in(copy, "stress/guest", &toolchain, &Kernel::named(TEST))
    });
    fs::write(&path, original).during(path.display())?;
    let built = built?;
    // It would pass long after it should have failed.
    let machine = machine(&built, archive, options(3 * SOON, 1), SOON);
    let progress = Progress::start(format!("the stress with {}", line.patch));
    let mut said = None;
    let outcome = emulator.run(&machine, &mut |line| {
        // A process says itself what it has found, before the kernel says that it ended.
        let found = line.strip_prefix("@panic ").or(line
            .strip_prefix("  ")
            .filter(|text| text.starts_with("seed ")));
        if said.is_none() {
            said = found.map(str::to_owned);
        }
    })?;
    progress.done();
    noticed(&outcome, said)
}

/// The stress noticed a broken line if it ended by a panic of its own, or by a triple fault, in time.
fn noticed(outcome: &Outcome, said: Option<String>) -> Result<(f64, String)> {
    match (&outcome.end, said) {
        (End::Failure, Some(said)) => Ok((outcome.seconds, said)),
        (End::TripleFault, _) => Ok((outcome.seconds, outcome.end.to_string())),
        _ => Err(Error::failed(outcome.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::{SOON, is_report, noticed, options, read, seed, steps};
    use crate::emulator::{End, Outcome};
    use crate::place;
    use crate::verify::seeded;
    use std::time::Duration;

    #[test]
    fn the_broken_lines_are_five_and_their_patches_apply() {
        let checkout = place::checkout();
        let lines = read(&checkout).expect("a table");
        for line in lines {
            assert!(seeded::patched(&line.patch, &checkout).is_ok(), "{line:?}");
        }
    }

    #[test]
    fn ci_runs_the_stress_for_a_minute_and_breaks_nothing() {
        let names = |short| -> Vec<_> { steps(short).into_iter().map(|step| step.name).collect() };
        assert_eq!(names(true), ["stress"]);
        assert_eq!(
            names(false),
            [
                "stress",
                "stress, five broken lines",
                "stress on Bochs, twice the same"
            ]
        );
        assert_eq!(options(Duration::from_mins(10), 7), "stress=600 seed=7");
    }

    #[test]
    fn a_seed_is_a_number() {
        assert_eq!(seed(Some("42")), Ok(42));
        let error = seed(Some("x")).expect_err("no number");
        assert_eq!(error.to_string(), "PCU9_SEED=x: the value is a number");
        assert!(seed(None).is_ok_and(|seed| seed > 1_000_000_000));
    }

    #[test]
    fn only_a_failure_of_its_own_notices_a_broken_line() {
        let words = || Some("CPU 1: seed 1: LWP 5".to_owned());
        let ended = |end| Outcome::recorded(end, "");
        assert!(noticed(&ended(End::Failure), words()).is_ok());
        assert!(noticed(&ended(End::TripleFault), None).is_ok());
        // Too few of something, no end, an end by itself, success.
        let others = [
            (End::Failure, None),
            (End::TimedOut(SOON), words()),
            (End::Broken("killed".into()), words()),
            (End::Success, None),
        ];
        for (end, said) in others {
            assert!(noticed(&ended(end), said).is_err());
        }
    }

    #[test]
    fn what_the_stress_says_of_itself_is_shown() {
        assert!(is_report("everything_at_once: 10 s: 5 switches"));
        assert!(!is_report("@exit 3 0"));
    }
}
