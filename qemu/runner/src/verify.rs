//! `cargo verify`: the proofs that take longer than a test.

mod bochs;
mod copy;
mod explorer;
mod fuzz;
mod guide;
mod loom;
mod miri;
mod mutants;
mod package;
mod seeded;
mod stress;

use std::time::Instant;

use crate::cli::{DemoArgs, Leak, Policies, Policy, VerifyArgs};
use crate::demo;
use crate::emulator::Kind;
use crate::error::{Error, Result};
use crate::place;
use crate::progress::{print, say, say_error};
use crate::table;
use crate::timeline::Window;

/// Every model that the demo is proved on, and every number of CPUs.
const MODELS: [&str; 5] = ["qemu64", "Nehalem", "SandyBridge", "Haswell", "max"];
const CPUS: [u32; 4] = [1, 2, 4, 8];
/// What CI runs under the default policy: every save instruction, every number of CPUs.
const SHORT: [(&str, u32); 4] = [("qemu64", 1), ("Nehalem", 2), ("Haswell", 4), ("max", 8)];

/// One thing to verify.
struct Step {
    name: String,
    run: Box<dyn Fn() -> Result<()>>,
}

/// Runs every step, whatever became of those before it, and shows which succeeded.
pub(crate) fn run(args: &VerifyArgs) -> Result<()> {
    let steps = selected(steps(args.short), args.only.as_deref())?;
    if args.list {
        for step in &steps {
            print(&step.name);
        }
        return Ok(());
    }
    all(&steps)
}

/// The steps whose name has `word`, all of them without one.
fn selected(mut steps: Vec<Step>, word: Option<&str>) -> Result<Vec<Step>> {
    steps.retain(|step| word.is_none_or(|word| step.name.contains(word)));
    match word {
        Some(word) if steps.is_empty() => Err(Error::unusable(format!(
            "--only {word}: no step has that in its name; `cargo verify --list` lists them"
        ))),
        _ => Ok(steps),
    }
}

fn steps(short: bool) -> Vec<Step> {
    let machines: Vec<(&str, u32)> = if short {
        SHORT.to_vec()
    } else {
        MODELS
            .iter()
            .flat_map(|&model| CPUS.map(|cpus| (model, cpus)))
            .collect()
    };
    let lazy = Policies::One(Policy::Lazy);
    machines
        .into_iter()
        .map(|(model, cpus)| demo_on(model, cpus, lazy, false))
        .chain([false, true].map(|sections| demo_on("max", 4, Policies::All, sections)))
        .chain([
            step("loom", loom::run),
            step("loom, weakened orderings", loom::run_weakened),
        ])
        .chain([step("miri", miri::run)])
        .chain(stress::steps(short))
        .chain(bochs::steps(short))
        .chain([
            step("seeded bugs", seeded::run),
            step("course", seeded::run_course),
        ])
        .chain([
            step("embedding guide", guide::run),
            step("packed crate", package::run),
        ])
        .chain((!short).then(|| step("explorer, large", explorer::run)))
        .chain((!short).then(|| step("mutants", mutants::run)))
        .chain(fuzz::steps(short))
        .collect()
}

fn step(name: &str, run: fn() -> Result<()>) -> Step {
    Step {
        name: name.to_owned(),
        run: Box::new(run),
    }
}

/// The demo on one of QEMU's machines; with `sections` the kernel uses the FPU itself.
fn demo_on(model: &str, cpus: u32, policy: Policies, sections: bool) -> Step {
    // Under every policy the timeline too has to agree with the counters; it is not the user's.
    let window = match policy {
        Policies::All => Window::Auto,
        Policies::One(_) => Window::None,
    };
    let args = DemoArgs {
        cpus,
        copies: None,
        program: Vec::new(),
        musl: true,
        emulator: Kind::Qemu,
        cpu: model.to_owned(),
        leak: Leak::Domain,
        policy,
        sections,
        trace: None,
        window,
        timeline: Some(place::target("verify")),
        dump: None,
        dump_after: None,
        watch: false,
        socket: None,
        timeout: 300,
        json: None,
    };
    Step {
        name: format!(
            "demo --policy {} --cpu {model} --cpus {cpus}{}",
            policy.word(),
            if sections { " --sections" } else { "" }
        ),
        run: Box::new(move || demo::run(&args)),
    }
}

fn all(steps: &[Step]) -> Result<()> {
    let mut rows = vec![["step", "result", "seconds"].map(String::from).to_vec()];
    let mut failed = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        say(format_args!(
            "verifying {}/{}: {}",
            number + 1,
            steps.len(),
            step.name
        ));
        let begun = Instant::now();
        let result = (step.run)();
        let seconds = format!("{:.1}", begun.elapsed().as_secs_f64());
        match result {
            Ok(()) => rows.push(vec![step.name.clone(), "ok".into(), seconds]),
            Err(error) if error.is_not_run() => {
                rows.push(vec![
                    step.name.clone(),
                    format!("NOT RUN: {error}"),
                    seconds,
                ]);
            }
            // What is missing will be missing in the next step too.
            Err(error) if error.status() == 2 => return Err(error),
            Err(error) => {
                let told = format!("{}: {error}", step.name);
                say_error(&told);
                failed.push(told);
                rows.push(vec![step.name.clone(), "FAILED".into(), seconds]);
            }
        }
    }
    print(format_args!("\n{}", table::render(&rows, false)));
    if failed.is_empty() {
        return Ok(());
    }
    // Once more: hours may lie between a step's own lines and these.
    for told in &failed {
        say_error(told);
    }
    Err(Error::failed(format!(
        "{} of {} steps failed",
        failed.len(),
        steps.len()
    )))
}

#[cfg(test)]
mod tests {
    use super::{Step, all, selected, steps};
    use crate::error::{Error, Result};

    #[test]
    fn the_short_list_is_a_part_of_the_long_one() {
        let names = |short| {
            steps(short)
                .into_iter()
                .map(|step| step.name)
                .collect::<Vec<_>>()
        };
        let (short, long) = (names(true), names(false));
        assert!(short.len() < long.len() / 2);
        assert!(short.iter().all(|name| long.contains(name)));
    }

    #[test]
    fn a_word_selects_steps_by_their_names() {
        let demos = selected(steps(true), Some("demo")).expect("some");
        assert!(demos.iter().all(|step| step.name.starts_with("demo ")));
        let error = selected(steps(true), Some("nothing")).err();
        assert_eq!(error.expect("none").status(), 2);
        assert_eq!(
            selected(steps(true), None).map(|all| all.len()),
            Ok(steps(true).len())
        );
    }

    #[test]
    fn a_failed_step_fails_the_whole_and_the_others_run() {
        let step = |name: &str, ok: bool| Step {
            name: name.into(),
            run: Box::new(move || if ok { Ok(()) } else { Err(Error::failed("no")) }),
        };
        let error =
            all(&[step("a", true), step("b", false), step("c", true)]).expect_err("b failed");
        assert_eq!(error.status(), 1);
        assert!(error.to_string().contains("1 of 3"));
        assert!(all(&[step("a", true)]).is_ok());
    }

    #[test]
    fn a_step_that_cannot_run_here_is_no_failure_and_the_others_run() {
        let step = |name: &str, result: fn() -> Result<()>| super::step(name, result);
        let cannot = step("a", || Err(Error::not_run("no such tool")));
        assert!(all(&[cannot]).is_ok());
        let cannot = step("a", || Err(Error::not_run("no such tool")));
        let error = all(&[cannot, step("b", || Err(Error::failed("no")))]).expect_err("b failed");
        assert!(error.to_string().contains("1 of 2"));
    }
}
