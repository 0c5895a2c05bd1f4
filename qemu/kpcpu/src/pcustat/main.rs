//! `pcustat`: who owns which unit on which CPU, and what that cost. `vmstat` and ddb's `show all pcpu` in one.

mod cli;
mod cpus;
mod data;
mod lwp;
mod show;

use std::io;
use std::process::ExitCode;

use clap::Parser;
use pcu9_kpcpu::{Error, Kpcpu, Torn};

use crate::cli::{Args, Question};
use crate::show::Output;

fn main() -> ExitCode {
    let args = Args::parse();
    match answer(&args) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of a pipe has gone: nobody is left to be told.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            let advice = match error.downcast_ref() {
                Some(Error::Torn(_)) => "; --torn shows it all the same",
                _ => "",
            };
            anstream::eprintln!("pcustat: {error}{advice}");
            ExitCode::FAILURE
        }
    }
}

fn answer(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let mut kernel = Kpcpu::open(&args.kernel(), &args.dump)?;
    let output = Output::new(args.json);
    if args.torn {
        kernel.accept_torn(Torn::Accept);
    }
    match &args.question {
        None => cpus::show(&kernel, &output)?,
        Some(Question::Lwp { number }) => lwp::show(&kernel, *number, &output)?,
        Some(Question::Counters) => data::counters(&kernel, &output)?,
        Some(Question::Dpcpu { name, cpu }) => data::dpcpu(&mut kernel, name, *cpu, &output)?,
    }
    Ok(())
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    let of_text = error.downcast_ref::<io::Error>().map(io::Error::kind);
    let of_json = error
        .downcast_ref()
        .and_then(serde_json::Error::io_error_kind);
    of_text.or(of_json) == Some(io::ErrorKind::BrokenPipe)
}
