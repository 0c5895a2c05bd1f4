//! `pcustat`: who owns which unit on which CPU, and what that costs. `vmstat` and ddb's `show all pcpu` in one.

mod answer;
mod cli;
mod data;
mod follow;
mod lwp;
mod screen;

use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use clap::Parser;
use pcu9_kpcpu::stat::usage_error;
use pcu9_kpcpu::{Error, KernelFile, Kpcpu, Live, Torn};

use crate::answer::{Answer, Asked};
use crate::cli::{Args, Question, Repeat};
use crate::screen::Screen;

/// The result of what is told in one line.
type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// How long nobody looks whether the guest still runs.
const LOOK: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if error.exit_code() == 0 => error.exit(),
        Err(error) => {
            say(&usage_error(&error.to_string(), "pcustat --help"));
            return ExitCode::from(2);
        }
    };
    let repeat = match args.repeat() {
        Ok(repeat) => repeat,
        Err(error) => {
            say(&error);
            return ExitCode::from(2);
        }
    };
    match run(&args, repeat) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of a pipe has gone: nobody is left to be told.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            let advice = match error.downcast_ref() {
                Some(Error::Torn(_)) => "; --torn shows it all the same",
                Some(Error::NoNote(_)) => ": --kernel FILE",
                _ => "",
            };
            say(&format_args!("{error}{advice}"));
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong, as cargo does; `anstream` takes the colour out where none is wanted.
fn say(error: &dyn std::fmt::Display) {
    let word = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    anstream::eprintln!("{word}error{word:#}: {error}");
}

fn run(args: &Args, repeat: Repeat) -> Result<()> {
    let mut kernel = open(args)?;
    if args.torn {
        kernel.accept_torn(Torn::Accept);
    }
    let mut screen = Screen::new(args.json);
    let question = args.question.as_ref();
    match (question, repeat) {
        (
            Some(&Question::Lwp {
                number,
                follow: true,
            }),
            Repeat::Every(interval, count),
        ) => follow::follow(&kernel, number, (interval, count), &screen),
        (_, Repeat::Once) => screen.once(&Answer::ask(&mut kernel, question)?),
        (_, Repeat::Every(interval, count)) => {
            let begun = Instant::now();
            let mut before = Asked::now(&mut kernel, question)?;
            for number in 1..=count {
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                wait_until(&kernel, begun + interval.saturating_mul(number))?;
                let now = Asked::now(&mut kernel, question)?;
                screen.again(&now, &before, begun)?;
                before = now;
            }
            Ok(())
        }
    }
}

fn open(args: &Args) -> Result<Kpcpu> {
    let source = &args.source;
    if !args.is_live() {
        return match args.kernel() {
            Some(kernel) => Ok(Kpcpu::open(&kernel, source)?),
            None => Ok(Kpcpu::open_dump(source)?),
        };
    }
    let Some(path) = args.kernel() else {
        let (source, beside) = (source.display(), args.kernel_beside());
        let beside = beside.display();
        return Err(format!(
            "guest {source}: its kernel's file is needed, and there is no {beside}: --kernel FILE"
        )
        .into());
    };
    let file = KernelFile::open(&path).map_err(|source| Error::Kernel { path, source })?;
    let live = Live::connect(source, args.by.map(cli::By::way));
    let live = live.map_err(|cause| Error::Live {
        socket: source.clone(),
        source: cause,
    })?;
    Ok(Kpcpu::with_memory(file, Box::new(live), Vec::new())?)
}

/// Waits, and notices a guest that ends.
fn wait_until(kernel: &Kpcpu, when: Instant) -> Result<()> {
    loop {
        let left = when.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(LOOK));
        kernel.check()?;
    }
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    let of_text = error.downcast_ref::<io::Error>().map(io::Error::kind);
    let of_json = error
        .downcast_ref()
        .and_then(serde_json::Error::io_error_kind);
    of_text.or(of_json) == Some(io::ErrorKind::BrokenPipe)
}
