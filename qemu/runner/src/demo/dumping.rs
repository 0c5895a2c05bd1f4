//! When a demo's guest is dumped: at its end, where it stands still, or some time after its programs began.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::cli::DemoArgs;
use crate::control::Control;
use crate::dump;
use crate::error::Result;
use crate::progress::Step;

/// The dump that a run is to make, if any.
#[derive(Debug)]
pub(super) struct Dumping<'a> {
    /// The guest, its kernel, and the file.
    wanted: Option<(&'a Control, &'a Path, &'a Path)>,
    after: Option<Duration>,
    /// When the first program began.
    begun: Option<Instant>,
    made: Option<Result<()>>,
}

impl<'a> Dumping<'a> {
    pub(super) fn new(args: &'a DemoArgs, control: Option<&'a Control>, kernel: &'a Path) -> Self {
        let file = args.dump.as_deref();
        Self {
            wanted: control
                .zip(file)
                .map(|(control, file)| (control, kernel, file)),
            after: args.dump_after.map(Duration::from_secs_f64),
            begun: None,
            made: None,
        }
    }

    /// The guest stands still: dumps it and ends it.
    pub(super) fn at_the_end(&mut self) {
        if let Some((control, kernel, file)) = self.wanted {
            self.made = Some(dump::write_and_quit(control, kernel, file));
        }
    }

    /// The guest said something, and has started so many jobs: dumps it if it is time.
    pub(super) fn in_the_midst(&mut self, started: usize, step: &Step) {
        let (Some((control, kernel, file)), Some(after)) = (self.wanted, self.after) else {
            return;
        };
        if started == 0 || self.made.is_some() {
            return;
        }
        if self.begun.get_or_insert_with(Instant::now).elapsed() < after {
            return;
        }
        step.note("writing the dump");
        let connected = control.connect();
        self.made = Some(connected.and_then(|mut qmp| dump::write(&mut qmp, kernel, file)));
    }

    /// What went wrong with the dump.
    pub(super) fn end(self) -> Option<String> {
        let (_, _, file) = self.wanted?;
        match (self.made, self.after) {
            (Some(made), _) => made.err().map(|error| error.to_string()),
            (None, Some(after)) => Some(format!(
                "--dump {}: the guest ended less than {} s after its programs began: a smaller --dump-after, or more --copies",
                file.display(),
                after.as_secs_f64()
            )),
            // That the guest did not come to its end is told already.
            (None, None) => None,
        }
    }
}
