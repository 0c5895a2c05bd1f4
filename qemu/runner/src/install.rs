//! Installs what is missing from the system's packages, when it may.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::process::Command;
use std::time::Duration;

use crate::error::{During, Error, Result};
use crate::lock::Lock;
use crate::place;
use crate::process::capture;
use crate::progress::{Step, say};

/// Longer than any package manager at work should need.
const LIMIT: Duration = Duration::from_secs(1000);

/// Who runs the package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runner {
    Root,
    SudoWithoutPassword,
    Sudo,
}

/// Installs `packages` because `what` is missing; says so first. Ends in one line when it may not or cannot.
pub(crate) fn packages(what: &str, packages: &[&str]) -> Result<()> {
    let manual = format!("sudo apt-get install -y {}", packages.join(" "));
    if place::on_path("apt-get").is_none() {
        return Err(Error::unusable(format!(
            "{what} is missing and this system has no apt-get: install what Debian calls {} by hand",
            packages.join(", ")
        )));
    }
    let Some(runner) = may_install(what, &manual)? else {
        return Err(Error::unusable(format!(
            "{what} is missing: run `{manual}`, or set PCU9_INSTALL=1 to let this program do it"
        )));
    };
    let step = Step::start(format!(
        "installing {} ({what} is missing)",
        packages.join(" ")
    ));
    // The package manager waits for others with most of its work, but not where it takes in the lists of packages.
    let _lock = Lock::take(&place::target("install"), "installs packages")?;
    // A list of packages that is partly out of date is no reason to stop; the installation says what it lacks.
    let update = apt(runner, &["update"]).during("apt-get update")?;
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend_from_slice(packages);
    let install = apt(runner, &arguments).during("apt-get install")?;
    if !install.ended.is_success() {
        let said = [update.output, install.output].concat();
        let said = String::from_utf8_lossy(&said);
        for line in last_lines(&said, 15) {
            eprintln!("    {line}");
        }
        return Err(Error::unusable(format!(
            "{what} is missing and `apt-get install {}` failed ({}): run `{manual}` by hand",
            packages.join(" "),
            install.ended
        )));
    }
    step.done();
    Ok(())
}

/// Returns the last `n` lines of `text`.
pub(crate) fn last_lines(text: &str, n: usize) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(n)..].to_vec()
}

/// Decides whether this program may install, and as whom.
fn may_install(what: &str, manual: &str) -> Result<Option<Runner>> {
    let asked = env::var("PCU9_INSTALL").ok();
    let root = rustix::process::geteuid().is_root();
    match asked.as_deref() {
        Some("0") => return Ok(None),
        Some("1") if !root => return Ok(Some(Runner::SudoWithoutPassword)),
        None | Some("" | "1") => {}
        Some(other) => {
            return Err(Error::unusable(format!(
                "PCU9_INSTALL={other}: the value is 1 (install what is missing) or 0 (never install)"
            )));
        }
    }
    if root {
        return Ok(Some(Runner::Root));
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(None);
    }
    eprint!("pcu9: {what} is missing. Install it now with `{manual}`? [y/N] ");
    io::stderr().flush().during("standard error")?;
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .during("standard input")?;
    if !matches!(answer.trim(), "y" | "Y" | "yes" | "Yes") {
        return Ok(None);
    }
    // Asks for the password here, at the terminal, so that what follows can run without one.
    let validated = Command::new("sudo").arg("-v").status().during("sudo")?;
    if !validated.success() {
        say("refused by sudo");
        return Ok(None);
    }
    Ok(Some(Runner::Sudo))
}

/// Runs apt-get without questions.
fn apt(runner: Runner, arguments: &[&str]) -> io::Result<crate::process::Captured> {
    let mut command = match runner {
        Runner::Root => Command::new("env"),
        Runner::SudoWithoutPassword | Runner::Sudo => {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "env"]);
            sudo
        }
    };
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    command
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(arguments);
    capture(&mut command, LIMIT, 16 << 20)
}
