//! The embedding guide's patches, applied one after the other to a kernel without pcu9: each step must compile and boot, and the last
//! ones are the kernels of `qemu/embed`.

use std::fs;
use std::path::Path;

use super::copy;
use crate::boot::{LIMIT, judge, kernel_options};
use crate::emulator::{self, Emulator, Kind, Machine};
use crate::error::{During, Error, Result};
use crate::guest::{self, Kernel};
use crate::patch;
use crate::place;
use crate::progress::say;
use crate::toolchain;

/// The patches, in the order of their names.
const STEPS: &str = "src/guide/steps";
/// What the first one is applied to.
const EMPTY: &str = "qemu/embed/src/empty.rs";
/// What comes out: first the kernel for one CPU, and at last the other.
const ONE_CPU: &str = "qemu/embed/src/main.rs";
const SMP: &str = "qemu/embed/src/smp.rs";

/// The kernel after one patch, the first one after none.
#[derive(Debug)]
struct Step {
    patch: String,
    text: String,
    kernel: Kernel,
}

/// Compiles and boots the kernel of each step.
pub(super) fn run() -> Result<()> {
    let steps = steps(&place::checkout())?;
    let toolchain = toolchain::provide()?;
    let emulator = emulator::provide(Kind::Qemu)?;
    let copy = place::target("guide").join("checkout");
    for step in &steps {
        copy::bring_up_to_date(&place::checkout(), &copy)?;
        // Cargo finds that of the checkout, in which the copy lies, and would join the two.
        let config = copy.join(".cargo");
        fs::remove_dir_all(&config).during(config.display())?;
        let file = match step.kernel {
            Kernel::EmbedSmp => SMP,
            _ => ONE_CPU,
        };
        fs::write(copy.join(file), &step.text).during(file)?;
        let image = guest::build_in(&copy, "guide/guest", &toolchain, &step.kernel)?;
        let passed = boot(&*emulator, &image, &step.kernel)
            .map_err(|error| Error::failed(format!("after {}: {error}", step.patch)))?;
        say(format_args!("booted what {} makes: {passed}", step.patch));
    }
    Ok(())
}

/// Boots a kernel of `qemu/embed` from its image; says what passed, and shows what the kernel said if something failed.
pub(super) fn boot(emulator: &dyn Emulator, image: &Path, kernel: &Kernel) -> Result<String> {
    let machine = Machine {
        kernel: image,
        initrd: None,
        control: None,
        append: kernel_options(None, false),
        model: "max",
        cpus: kernel.default_cpus(),
        limit: LIMIT,
    };
    let mut said = String::new();
    let line = |line: &str| said.extend([line, "\n"]);
    let judged = judge(emulator, &machine, true, line);
    if judged.is_err() {
        eprint!("{said}");
    }
    judged
}

/// The kernels after each of the patches in `checkout`.
fn steps(checkout: &Path) -> Result<Vec<Step>> {
    let read = |file: &str| fs::read_to_string(checkout.join(file)).during(file);
    let (mut text, one_cpu, smp) = (read(EMPTY)?, read(ONE_CPU)?, read(SMP)?);
    let mut names = Vec::new();
    for entry in fs::read_dir(checkout.join(STEPS)).during(STEPS)? {
        let name = entry.during(STEPS)?.file_name();
        names.push(format!("{STEPS}/{}", name.to_string_lossy()));
    }
    names.sort();
    let mut kernel = Kernel::Embed;
    let mut steps = vec![Step {
        patch: EMPTY.to_owned(),
        text: text.clone(),
        kernel: kernel.clone(),
    }];
    for patch in names {
        text = patch::apply(&read(&patch)?, &text, &patch, "the step before it")?;
        let is_one_cpu = text == one_cpu;
        steps.push(Step {
            patch,
            text: text.clone(),
            kernel: kernel.clone(),
        });
        if is_one_cpu {
            kernel = Kernel::EmbedSmp;
        }
    }
    let wrong = match kernel {
        Kernel::Embed => Some(format!("no step of {STEPS} ends in {ONE_CPU}")),
        _ if text != smp => Some(format!("the last step of {STEPS} does not end in {SMP}")),
        _ => None,
    };
    match wrong {
        None => Ok(steps),
        Some(wrong) => Err(Error::failed(format!(
            "{wrong}: make the patches anew, from the kernel of the step before by `diff -u`, with their first lines in front"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{EMPTY, ONE_CPU, SMP, STEPS, steps};
    use crate::guest::Kernel;
    use crate::place::checkout;

    /// The guide shows them by these names.
    #[test]
    fn the_patches_lead_from_the_empty_kernel_to_both_of_embed() {
        let steps = steps(&checkout()).expect("patches that apply");
        let kernels: Vec<_> = steps.iter().map(|step| step.kernel.clone()).collect();
        assert_eq!(kernels[..5], [const { Kernel::Embed }; 5]);
        assert_eq!(kernels[5..], [Kernel::EmbedSmp, Kernel::EmbedSmp]);
        let shown = ["one_cpu.rs", "more_cpus.rs"]
            .map(|file| fs::read_to_string(checkout().join("src/guide").join(file)));
        let guide = shown.map(|text| text.expect("the guide")).concat();
        for step in &steps[1..] {
            let file = step.patch.strip_prefix("src/guide/");
            let file = file.expect("beside the guide");
            assert!(guide.contains(file), "the guide does not show {file}");
            let n_lines =
                fs::read_to_string(checkout().join(&step.patch)).map(|p| p.lines().count());
            assert!(
                n_lines.is_ok_and(|n| n < 400),
                "{file} is no commit-sized step"
            );
        }
    }

    /// A checkout of three kernels of one line, and two patches.
    fn small(empty: &str, one_cpu: &str, smp: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let patch = |from: &str, to: &str| {
            format!(
                "A step.\n\n--- a/src/main.rs\n+++ b/src/main.rs\n@@ -1 +1 @@\n-{from}\n+{to}\n"
            )
        };
        for (file, text) in [
            (EMPTY.to_owned(), format!("{empty}\n")),
            (ONE_CPU.to_owned(), format!("{one_cpu}\n")),
            (SMP.to_owned(), format!("{smp}\n")),
            (format!("{STEPS}/01-a.patch"), patch("empty", "one")),
            (format!("{STEPS}/02-b.patch"), patch("one", "more")),
        ] {
            let to = folder.path().join(file);
            fs::create_dir_all(to.parent().expect("a parent")).expect("a folder");
            fs::write(to, text).expect("a file");
        }
        folder
    }

    #[test]
    fn a_patch_that_does_not_apply_and_an_end_that_is_missed_are_told() {
        assert_eq!(
            steps(small("empty", "one", "more").path())
                .expect("two patches")
                .len(),
            3
        );
        for (kernels, expected) in [
            (
                ["other", "one", "more"],
                "01-a.patch no longer applies to the step before it",
            ),
            (
                ["empty", "other", "more"],
                "no step of src/guide/steps ends in qemu/embed/src/main.rs",
            ),
            (
                ["empty", "one", "other"],
                "does not end in qemu/embed/src/smp.rs",
            ),
        ] {
            let [empty, one_cpu, smp] = kernels;
            let error = steps(small(empty, one_cpu, smp).path()).expect_err("an error");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
