//! Says what is being done, as cargo does: a word for it, and what it is about. At a terminal a spinner turns meanwhile, elsewhere
//! there are plain lines. Always on standard error; results, which [`print`] writes, are for standard output.
//!
//! Words are coloured at a terminal, unless `NO_COLOR` is set, or `CARGO_TERM_COLOR` says `never`; with `always` they are elsewhere
//! too.

use std::cell::Cell;
use std::env;
use std::fmt::{self, Display};
use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::time::{Duration, Instant};

use console::{Term, style};
use indicatif::{ProgressBar, ProgressStyle};
use pcu9_kpcpu::stat::Page;

/// How often a step that takes long says so where there is no terminal.
const PLAIN_PERIOD: Duration = Duration::from_secs(15);

/// Does what `CARGO_TERM_COLOR` says of colours; what else is asked of a program about them, the library does.
pub fn choose_colours() {
    match env::var("CARGO_TERM_COLOR").as_deref() {
        Ok("always") => console::set_colors_enabled_stderr(true),
        Ok("never") => console::set_colors_enabled_stderr(false),
        _ => {}
    }
}

/// Puts the first word of what is done, such as `building the kernel`, into cargo's column for it.
fn status(what: &str) -> String {
    let (word, rest) = what.split_once(' ').unwrap_or((what, ""));
    let mut letters = word.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    let word: String = first.into_iter().chain(letters).collect();
    let word = style(format!("{word:>12}")).for_stderr().green().bold();
    format!("{word} {rest}")
}

/// Says something that takes no time, and begins with what is done: `building the kernel`.
pub(crate) fn say(what: impl Display) {
    write(stderr(), format_args!("{}\n", status(&what.to_string())));
}

/// Says that something is wrong.
pub fn say_error(error: impl Display) {
    let word = style("error").for_stderr().red().bold();
    write(stderr(), format_args!("{word}: {error}\n"));
}

/// Prints a line on standard output.
pub(crate) fn print(line: impl Display) {
    write(stdout(), format_args!("{line}\n"));
}

/// Writes; if the reader of a pipe has gone there is nobody to be told, and the work goes on.
fn write(mut to: impl Write, text: fmt::Arguments<'_>) {
    if let Err(error) = to.write_fmt(text) {
        assert!(error.kind() == ErrorKind::BrokenPipe, "{error}");
    }
}

/// A step.
const ALONE: &str = "{msg} {spinner} [{elapsed}]";
/// A step, and below it a page.
const WITH_BOARD: &str = "{msg} {spinner} [{elapsed}]\n\n{prefix}\n";

/// A step that takes a while.
#[derive(Debug)]
pub struct Step {
    bar: Option<ProgressBar>,
    what: String,
    started: Instant,
    noted: Cell<Instant>,
}

impl Step {
    /// Says that something begins; the first word is what is done: `building the kernel`.
    pub fn start(what: impl Into<String>) -> Self {
        let what = what.into();
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template(ALONE) {
                bar.set_style(style);
            }
            bar.set_message(status(&what));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            say(&what);
        }
        let now = Instant::now();
        Self {
            bar,
            what,
            started: now,
            noted: Cell::new(now),
        }
    }

    /// Shows at a terminal alone that something goes on, and says nothing of its end.
    pub fn quiet(what: impl Into<String>) -> Option<Self> {
        stderr().is_terminal().then(|| Self::start(what))
    }

    /// Makes room below the step for pages that replace each other.
    pub(crate) fn board(&self) -> Board {
        if let (Some(bar), Ok(style)) = (&self.bar, ProgressStyle::with_template(WITH_BOARD)) {
            bar.set_style(style);
        }
        Board {
            bar: self.bar.clone(),
        }
    }

    /// Shows how far the step is. Without a terminal this says something only now and then.
    pub fn note(&self, how_far: impl Display) {
        if let Some(bar) = &self.bar {
            let short: String = how_far.to_string().chars().take(70).collect();
            bar.set_message(status(&format!("{}: {short}", self.what)));
        } else if self.noted.get().elapsed() >= PLAIN_PERIOD {
            self.noted.set(Instant::now());
            let seconds = self.started.elapsed().as_secs();
            say(format_args!("{}: {how_far} ({seconds} s)", self.what));
        }
    }

    /// Prints a line on standard output without damage to the spinner.
    pub(crate) fn print(&self, line: impl Display) {
        match &self.bar {
            Some(bar) => bar.suspend(|| print(line)),
            None => print(line),
        }
    }

    /// Prints a text of several lines on standard error without damage to the spinner.
    pub(crate) fn print_error(&self, text: &str) {
        let print = || write(stderr(), format_args!("{text}"));
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Ends the step; a step that took long says how long.
    pub fn done(self) {
        let seconds = self.started.elapsed().as_secs_f64();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.bar.is_some() || seconds >= 2.0 {
            say(format_args!("finished {} in {seconds:.1}s", self.what));
        }
    }
}

/// Lines below a step's own, each set in the place of the one before; without a terminal they follow each other.
#[derive(Debug)]
pub(crate) struct Board {
    bar: Option<ProgressBar>,
}

impl Board {
    /// How wide a line may be.
    pub(crate) fn width(&self) -> usize {
        match self.bar {
            Some(_) => usize::from(Term::stderr().size().1),
            None => usize::MAX,
        }
    }

    /// How long a page should stay.
    pub(crate) fn period(&self) -> Duration {
        match self.bar {
            Some(_) => Duration::from_millis(500),
            None => Duration::from_secs(5),
        }
    }

    /// Shows a page, as much of it as the terminal has room for.
    pub(crate) fn show(&self, page: &mut Page) {
        let Some(bar) = &self.bar else {
            write(stderr(), format_args!("{}", page.text()));
            return;
        };
        let rows = Term::stderr().size().0;
        // The step's own line, and an empty one on each side.
        page.cut(usize::from(rows).saturating_sub(4).max(1));
        bar.set_prefix(page.styled().trim_end().to_owned());
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
