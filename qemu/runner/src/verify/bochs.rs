//! Proofs on Bochs: every boot test on each model, and the demo. QEMU lets XSAVE and XRSTOR pass through a closed gate, and has no
//! init optimisation; Bochs is faithful in both.

use std::num::NonZero;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use super::{Step, stress};
use crate::boot;
use crate::cargo::Executable;
use crate::cli::{DemoArgs, Leak, Policies, Policy};
use crate::demo;
use crate::emulator::{self, Emulator, Kind, Machine};
use crate::error::{Error, Result};
use crate::guest::{self, Kernel};
use crate::programs::Archive;
use crate::progress::{Step as Progress, print};
use crate::timeline::Window;
use crate::toolchain;

/// The models, by what is best in them: AVX-512 with PKU and XSAVES; no XSAVEOPT and no AVX; then AVX-512, AMD, no XSAVEC with
/// AVX2, no XSAVEC with AVX. CI runs the first two.
const MODELS: [&str; 6] = [
    "tigerlake",
    "core2_penryn_t9600",
    "corei7_skylake_x",
    "ryzen",
    "broadwell_ult",
    "corei7_sandy_bridge_2600k",
];
const SHORT: usize = 2;
/// How `boot_variants` runs once more: with each other instruction that the model has, and those of the compacted format with the
/// components that Bochs 2.7 puts where they belong.
const LIMITS: [&str; 3] = ["xsave=xsaves xcr0=3", "xsave=xsavec xcr0=3", "xsave=xsave"];
/// How long one boot test may run: the longest take a minute, and on a busy host five were seen.
const LIMIT: Duration = Duration::from_mins(30);
/// How many of a failed test's lines are shown.
const SHOWN: usize = 40;

/// The steps on Bochs.
pub(super) fn steps(short: bool) -> Vec<Step> {
    let models = if short { &MODELS[..SHORT] } else { &MODELS };
    let tests = models.iter().map(|&model| Step {
        name: format!("boot tests on Bochs {model}"),
        run: Box::new(move || boot_tests(model)),
    });
    // All programs on a model that has AVX, all that can on one that has not.
    let demos = if short { &[][..] } else { &MODELS[..2] };
    let demos = demos.iter().map(|&model| Step {
        name: format!("demo --emulator bochs --cpu {model} --cpus 2 --copies 1 --sections"),
        run: Box::new(move || demo::run(&demo_on(model))),
    });
    tests.chain(demos).collect()
}

fn demo_on(model: &str) -> DemoArgs {
    DemoArgs {
        cpus: 2,
        copies: Some(1),
        program: Vec::new(),
        musl: true,
        emulator: Kind::Bochs,
        cpu: model.to_owned(),
        leak: Leak::Domain,
        policy: Policies::One(Policy::Lazy),
        sections: true,
        trace: None,
        window: Window::None,
        timeline: None,
        dump: None,
        dump_after: None,
        watch: false,
        socket: None,
        timeout: 1800,
        json: None,
    }
}

/// Runs every boot test on `model`, under every policy, as many at a time as the host has CPUs.
fn boot_tests(model: &str) -> Result<()> {
    let emulator = emulator::provide(Kind::Bochs)?;
    emulator.check_model(model)?;
    let tests = build(&guest::test_names()?)?;
    let archives = tests
        .iter()
        .map(|test| Archive::for_kernel(&test.name))
        .collect::<Result<Vec<_>>>()?;
    let progress = Progress::start(format!(
        "running {} boot tests on Bochs {model}",
        tests.len()
    ));
    let n_workers = thread::available_parallelism().map_or(1, NonZero::get);
    let waiting = Mutex::new(tests.iter().zip(&archives));
    let failed: Vec<Error> = thread::scope(|scope| {
        let workers: Vec<_> = (0..n_workers.min(tests.len()))
            .map(|_| scope.spawn(|| work(&*emulator, model, &waiting)))
            .collect();
        let results = workers.into_iter().map(thread::ScopedJoinHandle::join);
        results
            .flat_map(|result| {
                result.unwrap_or_else(|_| vec![Error::failed("the runner itself panicked")])
            })
            .collect()
    });
    progress.done();
    match failed.first() {
        None => Ok(()),
        Some(unusable) if unusable.status() == 2 => Err(unusable.clone()),
        Some(_) => {
            let told: Vec<_> = failed.iter().map(Error::to_string).collect();
            Err(Error::failed(format!(
                "{} of {} boot tests failed: {}",
                failed.len(),
                tests.len(),
                told.join("; ")
            )))
        }
    }
}

/// Builds the boot tests, those that count instructions as they are to be built.
fn build(names: &[String]) -> Result<Vec<Executable>> {
    let toolchain = toolchain::provide()?;
    let is_counting = |name: &String| guest::counts_instructions(name);
    let (counting, others): (Vec<_>, Vec<_>) = names.iter().cloned().partition(is_counting);
    let mut tests = guest::build_tests(&toolchain, &others)?;
    for name in counting {
        let path = guest::build(&toolchain, &Kernel::Test(name.clone()))?;
        tests.push(Executable { name, path });
    }
    if tests.len() == names.len() {
        return Ok(tests);
    }
    Err(Error::failed(format!(
        "cargo built {} of {} boot tests",
        tests.len(),
        names.len()
    )))
}

/// Takes one test after the other, until there is none; returns what failed.
fn work<'a>(
    emulator: &dyn Emulator,
    model: &str,
    waiting: &Mutex<impl Iterator<Item = (&'a Executable, &'a Option<Archive>)>>,
) -> Vec<Error> {
    let next = || waiting.lock().map_or(None, |mut waiting| waiting.next());
    let mut failed = Vec::new();
    while let Some((test, archive)) = next() {
        failed.extend(run(emulator, model, (test, archive), "").err());
        if test.name == "boot_variants" {
            for limits in LIMITS {
                failed.extend(run(emulator, model, (test, archive), limits).err());
            }
        }
    }
    failed
}

/// Runs a test, with further words for the kernel's command line.
fn run(
    emulator: &dyn Emulator,
    model: &str,
    (test, archive): (&Executable, &Option<Archive>),
    more: &str,
) -> Result<()> {
    let name = &test.name;
    let mut options = boot::kernel_options(None, true);
    if name == stress::TEST {
        options = format!("{options} {}", stress::options(stress::TIME_ON_BOCHS, 1));
    }
    let machine = Machine {
        kernel: &test.path,
        initrd: archive.as_ref().map(Archive::path),
        control: None,
        append: format!("{options} {more}"),
        model,
        cpus: Kernel::named(name)
            .default_cpus()
            .min(stress::MOST_ON_BOCHS),
        limit: LIMIT,
    };
    let mut said = Vec::new();
    match boot::judge(emulator, &machine, true, |line| said.push(line.to_owned())) {
        Ok(passed) => {
            print(format_args!("{passed} {more}"));
            Ok(())
        }
        Err(error) => {
            said.retain(|line| !line.ends_with(" ... ok"));
            for line in &said[said.len().saturating_sub(SHOWN)..] {
                eprintln!("{name} [{model}] | {line}");
            }
            Err(error)
        }
    }
}
