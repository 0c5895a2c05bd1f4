//! Says what is being done: a spinner at a terminal, plain lines elsewhere. Always on standard error.

use std::cell::Cell;
use std::fmt::Display;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{ProgressBar, ProgressStyle};
use pcu9_kpcpu::stat::Page;

/// How often a step that takes long says so where there is no terminal.
const PLAIN_PERIOD: Duration = Duration::from_secs(15);

/// Says something that takes no time.
pub(crate) fn say(what: impl Display) {
    eprintln!("pcu9: {what}");
}

/// A step, and below it a page.
const WITH_BOARD: &str = "pcu9: {msg} {spinner} [{elapsed}]\n\n{prefix}\n";

/// A step that takes a while.
#[derive(Debug)]
pub(crate) struct Step {
    bar: Option<ProgressBar>,
    what: String,
    started: Instant,
    noted: Cell<Instant>,
}

impl Step {
    /// Says that `what` begins.
    pub(crate) fn start(what: impl Into<String>) -> Self {
        let what = what.into();
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("pcu9: {msg} {spinner} [{elapsed}]") {
                bar.set_style(style);
            }
            bar.set_message(what.clone());
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
    pub(crate) fn note(&self, how_far: impl Display) {
        if let Some(bar) = &self.bar {
            let short: String = how_far.to_string().chars().take(70).collect();
            bar.set_message(format!("{}: {short}", self.what));
        } else if self.noted.get().elapsed() >= PLAIN_PERIOD {
            self.noted.set(Instant::now());
            say(format_args!(
                "{}: {how_far} ({} s)",
                self.what,
                self.started.elapsed().as_secs()
            ));
        }
    }

    /// Prints a line on standard output without damage to the spinner.
    pub(crate) fn print(&self, line: impl Display) {
        match &self.bar {
            Some(bar) => bar.suspend(|| println!("{line}")),
            None => println!("{line}"),
        }
    }

    /// Prints a text of several lines on standard error without damage to the spinner.
    pub(crate) fn print_error(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprint!("{text}")),
            None => eprint!("{text}"),
        }
    }

    /// Ends the step; a step that took long says how long.
    pub(crate) fn done(self) {
        let seconds = self.started.elapsed().as_secs_f64();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.bar.is_some() || seconds >= 2.0 {
            say(format_args!("{}: done in {seconds:.1} s", self.what));
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
            eprint!("{}", page.text());
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
