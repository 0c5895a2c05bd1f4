//! Bochs: the kernel is loaded by GRUB from a CD, speaks through port 0xE9, and ends the machine through port 0x8900.
//!
//! Bochs writes what comes through port 0xE9 to its standard output, between words of its own, and ends with status 1 however a
//! run went. So the kernel says where its lines begin and how the run ended, in lines that begin with `@e9`; and what is in
//! none of them, the last words on standard error tell.

mod disk;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::emulator::{Emulator, End, Kind, Machine, Outcome, Tail, watch};
use crate::error::{During, Error, Result};
use crate::install;
use crate::place;
use crate::process::{Ended, capture};

use disk::GrubTools;

const PROGRAM: &str = "bochs";
/// Where the packages put the firmware; the first that is there is used.
const BIOS: [&str; 2] = [
    "/usr/share/bochs/BIOS-bochs-latest",
    "/usr/local/share/bochs/BIOS-bochs-latest",
];
const VGA_BIOS: [&str; 3] = [
    "/usr/share/bochs/VGABIOS-lgpl-latest",
    "/usr/share/vgabios/vgabios.bin",
    "/usr/local/share/bochs/VGABIOS-lgpl-latest",
];
/// Models of Bochs without a 64-bit mode.
const WITHOUT_LONG_MODE: [&str; 8] = [
    "pentium",
    "pentium_mmx",
    "amd_k6_2_chomper",
    "p2_klamath",
    "p3_katmai",
    "p4_willamette",
    "core_duo_t2400_yonah",
    "atom_n270",
];
/// Instructions of a CPU in a second of the machine: few, since the firmware waits for some seconds of it.
const IPS: u32 = 10_000_000;

/// The programs and files that a run needs.
#[derive(Debug)]
pub(crate) struct Bochs {
    program: PathBuf,
    bios: PathBuf,
    vga_bios: PathBuf,
    grub: GrubTools,
}

impl Bochs {
    /// Finds Bochs with its firmware, and GRUB, or installs them.
    pub(crate) fn provide() -> Result<Self> {
        let given = place::given_program("PCU9_BOCHS")?;
        if let Ok(found) = Self::find(given.as_deref()) {
            return Ok(found);
        }
        let mut what = Vec::new();
        let mut packages = Vec::new();
        for (missing, package) in missing(given.is_none()) {
            what.push(missing);
            packages.extend(package);
        }
        install::packages(&what.join(", "), &packages)?;
        Self::find(given.as_deref()).map_err(|missing| {
            Error::unusable(format!(
                "the packages {} are installed and there is no {missing}",
                packages.join(", ")
            ))
        })
    }

    /// Looks for everything; an error is the name of the first thing that is missing.
    fn find(given: Option<&Path>) -> Result<Self, &'static str> {
        Ok(Self {
            program: given
                .map(Path::to_owned)
                .or_else(|| place::on_path(PROGRAM))
                .ok_or(PROGRAM)?,
            bios: first_file(&BIOS).ok_or(BIOS[0])?,
            vga_bios: first_file(&VGA_BIOS).ok_or(VGA_BIOS[0])?,
            grub: GrubTools::find()?,
        })
    }

    /// Writes the configuration file.
    fn configure(&self, machine: &Machine<'_>) -> String {
        // The plugin of the loudspeaker opens the host's sound device, and dies where there is none.
        format!(
            "display_library: rfb, options=\"timeout=0\"\n\
             megs: 512\n\
             romimage: file=\"{}\"\n\
             vgaromimage: file=\"{}\"\n\
             ata0-master: type=cdrom, path=\"{}\", status=inserted\n\
             boot: cdrom\n\
             cpu: model={}, count={}, ips={IPS}, reset_on_triple_fault=0, ignore_bad_msrs=1\n\
             clock: sync=none\n\
             port_e9_hack: enabled=1\n\
             plugin_ctrl: speaker=0, usb_uhci=0\n\
             log: \"{LOG}\"\n",
            self.bios.display(),
            self.vga_bios.display(),
            disk::ISO,
            machine.model,
            machine.cpus,
        )
    }
}

const CONFIGURATION: &str = "bochsrc";
const LOG: &str = "bochs.log";
/// What the debugger, which the packaged program has, is to do: continue.
const COMMANDS: &str = "commands";
/// What Bochs 2.7 says where its display gets no port, and ends. Two that start in the same moment both bind the same one; the
/// second cannot listen on it (EADDRINUSE), and goes on with a socket that can be bound to no other (EINVAL).
const NO_PORT: &str = "RFB could not bind any port";
/// How often it is started before no port counts as none free.
const MOST_STARTS: u32 = 5;

impl Emulator for Bochs {
    fn check_model(&self, model: &str) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.args(["-help", "cpu"]);
        let Ok(said) = capture(&mut command, Duration::from_secs(30), 1 << 20) else {
            return Ok(());
        };
        let said = String::from_utf8_lossy(&said.output);
        let known = models(&said);
        // A Bochs that lists its models in a form not known here will complain by itself.
        if known.is_empty() || known.contains(&model) {
            return Ok(());
        }
        Err(Error::unusable(format!(
            "--cpu {model}: Bochs has no such CPU model with a 64-bit mode; it has {}",
            known.join(", ")
        )))
    }

    fn run(&self, machine: &Machine<'_>, line: &mut dyn FnMut(&str)) -> Result<Outcome> {
        let dir = Scratch::new()?;
        let dir = &dir.0;
        let command_line = Kind::Bochs.command_line(machine);
        self.grub
            .write_iso(dir, machine.kernel, machine.initrd, &command_line)?;
        for (name, text) in [
            (CONFIGURATION, self.configure(machine)),
            (COMMANDS, "c\n".to_owned()),
        ] {
            fs::write(dir.join(name), text).during(dir.join(name).display())?;
        }
        let program = std::path::absolute(&self.program).during(self.program.display())?;
        let mut command = Command::new(program);
        command.args(["-q", "-f", CONFIGURATION, "-rc", COMMANDS]);
        command.current_dir(dir);
        start(&mut command, machine.limit, line)
    }
}

/// Runs `command`, and once more where it ended because another took its display's port in the same moment.
fn start(command: &mut Command, limit: Duration, line: &mut dyn FnMut(&str)) -> Result<Outcome> {
    let mut n_starts = 0;
    loop {
        n_starts += 1;
        let mut speech = Speech::default();
        let watched = watch(command, limit, |text| {
            if let Some(text) = speech.take(text) {
                line(text);
            }
        })?;
        let complaints = last_words(&watched.stderr);
        if complaints.contains(NO_PORT) && !speech.has_begun && n_starts < MOST_STARTS {
            continue;
        }
        return Ok(Outcome {
            end: speech.end(watched.ended, &complaints),
            seconds: watched.seconds,
            tail: speech.tail,
            complaints,
        });
    }
}

/// What is missing, each with the packages that have it.
fn missing(needs_program: bool) -> Vec<(String, Vec<&'static str>)> {
    let mut missing = Vec::new();
    if needs_program && place::on_path(PROGRAM).is_none() {
        // It wants a display of any kind; the smallest one is named, or apt takes the largest.
        missing.push((PROGRAM.to_owned(), vec!["bochs", "bochs-term"]));
    }
    if first_file(&BIOS).is_none() {
        missing.push((BIOS[0].to_owned(), vec!["bochsbios"]));
    }
    if first_file(&VGA_BIOS).is_none() {
        missing.push((VGA_BIOS[0].to_owned(), vec!["vgabios"]));
    }
    missing.extend(disk::missing());
    missing
}

fn first_file(paths: &[&str]) -> Option<PathBuf> {
    let mut paths = paths.iter().map(PathBuf::from);
    paths.find(|path| path.is_file())
}

/// Reads the list of `bochs -help cpu`, without the models that cannot run a 64-bit kernel.
fn models(said: &str) -> Vec<&str> {
    said.lines()
        .skip_while(|line| !line.starts_with("Supported CPU models"))
        .skip(1)
        .skip_while(|line| line.is_empty())
        .take_while(|line| !line.is_empty())
        .filter(|model| !WITHOUT_LONG_MODE.contains(model))
        .collect()
}

/// Takes from standard error what Bochs says at its end, but for the kernel's own wish.
fn last_words(stderr: &str) -> String {
    let is_log = |line: &&str| line.starts_with(|c: char| c.is_ascii_digit());
    let is_frame = |line: &&str| {
        line.starts_with("=====")
            || line.starts_with("Bochs is exiting")
            || line.contains("shutdown requested")
    };
    let lines = stderr.lines().filter(|line| !is_log(line));
    let told = lines.filter(|line| !line.is_empty() && !is_frame(line));
    told.fold(String::new(), |all, line| all + line + "\n")
}

/// The kernel's lines among Bochs' own.
#[derive(Debug, Default)]
struct Speech {
    has_begun: bool,
    reported: Option<End>,
    tail: Tail,
}

impl Speech {
    /// Takes a line of standard output, and gives it back if it is the kernel's.
    fn take<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        match text {
            _ if self.reported.is_some() => return None,
            "@e9 begins" if self.has_begun => self.reported = Some(End::TripleFault),
            "@e9 begins" => self.has_begun = true,
            "@e9 success" => self.reported = Some(End::Success),
            "@e9 failure" => self.reported = Some(End::Failure),
            // Empty lines only set the marks above apart.
            "" => {}
            text if self.has_begun => {
                self.tail.push(text);
                return Some(text);
            }
            _ => {}
        }
        None
    }

    /// Judges the run.
    fn end(&self, ended: Ended, complaints: &str) -> End {
        match (&self.reported, ended) {
            (Some(end), _) => end.clone(),
            (None, Ended::TimedOut(limit)) => End::TimedOut(limit),
            (None, _) if complaints.contains("exception with no resolution") => End::TripleFault,
            (None, other) => End::Broken(format!(
                "Bochs ended without a report of the kernel ({other})"
            )),
        }
    }
}

/// A directory for one run; it goes when this does.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = place::target("bochs").join(format!("{}-{number}", std::process::id()));
        fs::create_dir_all(&path).during(path.display())?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed lies in the target directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::{End, Speech, last_words, models, start};
    use crate::emulator::Outcome;
    use crate::process::Ended;
    use std::fs;
    use std::process::Command;
    use std::time::Duration;

    /// What Bochs 2.7 writes to standard output and standard error in a run whose kernel writes `kernel`.
    fn judge(kernel: &str, last: &str, ended: Ended) -> (Vec<String>, End) {
        let stdout =
            format!("=====\nNext at t=0\n(0) [0x0000fffffff0] jmpf\n{kernel}\n(0).[67984184] ud2");
        let stderr = format!(
            "00000000000i[      ] using log file bochs.log\n=====\nBochs is exiting with the following message:\n{last}\n====="
        );
        let mut speech = Speech::default();
        let lines = stdout.lines().filter_map(|line| speech.take(line));
        let lines = lines.map(str::to_owned).collect();
        (lines, speech.end(ended, &last_words(&stderr)))
    }

    const SHUTDOWN: &str = "[UNMAP ] Shutdown port: shutdown requested";
    const NO_RESOLUTION: &str = "[CPU0  ] exception(): 3rd (13) exception with no resolution";

    #[test]
    fn the_kernels_lines_are_found_between_bochs_own() {
        let said = "\n@e9 begins\ntest a ... ok\n1 passed, 0 failed\n\n@e9 success";
        let (lines, end) = judge(said, SHUTDOWN, Ended::Exit(1));
        assert_eq!(lines, ["test a ... ok", "1 passed, 0 failed"]);
        assert_eq!(end, End::Success);
        let failed = judge("@e9 begins\n@e9 failure", SHUTDOWN, Ended::Exit(1));
        assert_eq!(failed, (Vec::new(), End::Failure));
    }

    #[test]
    fn a_run_without_a_report_is_no_success_whatever_its_status() {
        let begun = "@e9 begins\n1 passed, 0 failed";
        for (last, ended, end) in [
            (NO_RESOLUTION, Ended::Exit(1), End::TripleFault),
            (
                SHUTDOWN,
                Ended::TimedOut(Duration::from_secs(2)),
                End::TimedOut(Duration::from_secs(2)),
            ),
        ] {
            assert_eq!(judge(begun, last, ended).1, end);
        }
        let (_, end) = judge(
            begun,
            "[      ] bochsrc:7: cpu directive malformed.",
            Ended::Exit(0),
        );
        assert!(matches!(end, End::Broken(_)), "{end:?}");
        let (_, end) = judge("@e9 success is near", SHUTDOWN, Ended::Exit(1));
        assert!(matches!(end, End::Broken(_)), "{end:?}");
        // It was reset and began again.
        let twice = "@e9 begins\n@e9 begins\n@e9 success";
        assert_eq!(judge(twice, SHUTDOWN, Ended::Exit(1)).1, End::TripleFault);
    }

    /// Runs a shell script in Bochs' place that counts its starts in `n`; also returns what was heard, and how often it was started.
    fn run(script: &str) -> (Outcome, Vec<String>, usize) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!(
            "echo >> n; taken() {{ echo '[RFB   ] RFB could not bind any port between 5900 and 5949' >&2; kill -SEGV $$; }}\n{script}"
        ));
        command.current_dir(&dir);
        let mut lines = Vec::new();
        let outcome = start(&mut command, Duration::from_secs(20), &mut |line| {
            lines.push(line.to_owned());
        });
        let n_starts = fs::read(dir.path().join("n")).expect("it ran").len();
        (outcome.expect("it runs"), lines, n_starts)
    }

    #[test]
    fn without_a_port_for_its_display_it_is_started_again() {
        let works = "echo '@e9 begins'; echo works; echo '@e9 success'";
        let (outcome, lines, n_starts) = run(&format!("[ $(wc -l < n) = 3 ] || taken; {works}"));
        assert!(outcome.is_success(), "{outcome}");
        assert_eq!((lines, n_starts), (vec!["works".to_owned()], 3));

        let (outcome, _, n_starts) = run("taken");
        assert!(outcome.to_string().contains("5900"), "{outcome}");
        assert_eq!(n_starts, 5);
    }

    #[test]
    fn a_kernel_that_has_begun_is_never_started_again() {
        let (outcome, lines, n_starts) = run("echo '@e9 begins'; echo works; taken");
        assert!(!outcome.is_success());
        assert_eq!((lines, n_starts), (vec!["works".to_owned()], 1));
        assert_eq!(run("echo bad >&2; exit 1").2, 1);
    }

    #[test]
    fn the_last_words_are_shown_and_the_log_is_not() {
        let stderr = "00000000000i[PLUGIN] loaded\n=====\nBochs is exiting with the following message:\n[CPU0  ] bad\n=====\n";
        assert_eq!(last_words(stderr), "[CPU0  ] bad\n");
        assert_eq!(
            last_words("*** buffer overflow detected ***\n"),
            "*** buffer overflow detected ***\n"
        );
    }

    #[test]
    fn the_models_are_read_from_the_help() {
        let said = "00000000000i[      ] x\nSupported CPU models:\n\nbx_generic\npentium\ntigerlake\n\n0i[SIM   ] quit_sim\n";
        assert_eq!(models(said), ["bx_generic", "tigerlake"]);
        assert!(models("unknown option").is_empty());
    }
}
