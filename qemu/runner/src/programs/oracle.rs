//! The host as oracle: what a program writes on Linux is what it must write in the guest.

use std::arch::is_x86_feature_detected;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use super::Program;
use crate::error::{During, Error, Result};
use crate::process::{Ended, capture, end_with_parent};

/// What a program did on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Oracle {
    /// It ran.
    Ran {
        /// What it wrote to standard output and standard error, in order.
        output: Vec<u8>,
        /// How it ended.
        ended: Ended,
    },
    /// The host lacks this CPU feature.
    Lacks(String),
}

/// No program may write more than this.
const MOST_OUTPUT: usize = 64 << 20;

/// Runs `program` once on the host: no input, no environment, and its name as only argument, as in the guest.
pub(crate) fn run(program: &Program, limit: Duration) -> Result<Oracle> {
    for feature in &program.needs {
        let present = match feature.as_str() {
            "avx" => is_x86_feature_detected!("avx"),
            other => {
                return Err(Error::failed(format!(
                    "{}: its note asks for the unknown CPU feature `{other}`",
                    program.path.display()
                )));
            }
        };
        if !present {
            return Ok(Oracle::Lacks(feature.clone()));
        }
    }
    let path = std::path::absolute(&program.path).during(program.path.display())?;
    let mut command = Command::new(&path);
    command.arg0(&program.name).env_clear();
    end_with_parent(&mut command);
    let captured = capture(&mut command, limit, MOST_OUTPUT).during(format_args!(
        "{} cannot be run on the host",
        program.path.display()
    ))?;
    Ok(Oracle::Ran {
        output: captured.output,
        ended: captured.ended,
    })
}

#[cfg(test)]
mod tests {
    use super::{Oracle, run};
    use crate::process::Ended;
    use crate::process::tests::executable;
    use crate::programs::elf::tests::{note, program, program_with_note};
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(20);

    fn run_image(image: &[u8], limit: Duration) -> crate::error::Result<Oracle> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("program");
        executable(&path, image);
        let (programs, rejected) = super::super::read(&[path]);
        assert_eq!(rejected, []);
        run(&programs[0], limit)
    }

    #[test]
    fn exit_status_and_fault_are_told_apart() {
        // mov edi, 7; mov eax, 231 (exit_group); syscall
        let exits = [0xbf, 7, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05];
        let ran = |ended| {
            Ok(Oracle::Ran {
                output: vec![],
                ended,
            })
        };
        assert_eq!(run_image(&program(&exits), LONG), ran(Ended::Exit(7)));
        // ud2
        assert_eq!(
            run_image(&program(&[0x0f, 0x0b]), LONG),
            ran(Ended::Signal(4))
        );
        // jmp to itself
        let hangs = run_image(&program(&[0xeb, 0xfe]), Duration::from_secs(1));
        assert_eq!(hangs, ran(Ended::TimedOut(Duration::from_secs(1))));
    }

    #[test]
    fn an_unknown_feature_is_an_error() {
        let image = program_with_note(&[0xc3], &note("amx"));
        let error = run_image(&image, LONG).expect_err("no such feature");
        assert!(error.to_string().contains("amx"));
    }
}
