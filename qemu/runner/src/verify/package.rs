//! The packed crate: it builds from what is in the pack alone, and the kernels of `qemu/embed` build and boot against it.

use std::fs;
use std::process::{Command, Stdio};

use super::{copy, guide};
use crate::emulator::{self, Kind};
use crate::error::{During, Error, Result};
use crate::guest::{self, Kernel};
use crate::place;
use crate::process::Ended;
use crate::progress::say;
use crate::toolchain;

/// Packs the crate as for the registry, puts what was packed into the place of the sources, and boots.
pub(super) fn run() -> Result<()> {
    let (checkout, target) = (place::checkout(), place::target("package"));
    let mut command = Command::new("cargo");
    place::forget_cargo(&mut command)
        .args(["package", "--package", "pcu9", "--locked", "--quiet"])
        // Whoever verifies before a commit packs what is there.
        .args(["--allow-dirty", "--target-dir"])
        .arg(&target)
        .current_dir(&checkout)
        .stdin(Stdio::null());
    let ended = Ended::of(command.status().during("cargo package")?);
    if !matches!(ended, Ended::Exit(0)) {
        return Err(Error::failed(format!("cargo package: {ended}")));
    }
    let packed = target.join(concat!("package/pcu9-", env!("CARGO_PKG_VERSION")));
    let copy = target.join("checkout");
    copy::bring_up_to_date(&checkout, &copy)?;
    // As for the guide: cargo would join this one with the checkout's.
    let config = copy.join(".cargo");
    fs::remove_dir_all(&config).during(config.display())?;
    copy::bring_up_to_date(&packed.join("src"), &copy.join("src"))?;
    for file in ["README.md", "CHANGELOG.md"] {
        fs::copy(packed.join(file), copy.join(file)).during(file)?;
    }
    let toolchain = toolchain::provide()?;
    let emulator = emulator::provide(Kind::Qemu)?;
    for kernel in [Kernel::Embed, Kernel::EmbedSmp] {
        let image = guest::build_in(&copy, "package/guest", &toolchain, &kernel)?;
        let passed = guide::boot(&*emulator, &image, &kernel)?;
        say(format_args!(
            "booted {} against the packed crate: {passed}",
            kernel.name()
        ));
    }
    Ok(())
}
