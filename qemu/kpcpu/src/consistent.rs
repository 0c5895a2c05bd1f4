//! Questions to a kernel that runs: what is read must be of one time, as far as the kernel says what that is.
//!
//! The header's generation is odd while the kernel changes its set of CPUs, and another one after it. A question is asked between two
//! looks at it; where they differ it is asked again. Nothing is locked, so what CPUs do meanwhile shows: counters are read one CPU
//! after the other, and a sum lies between the totals at the begin and the end of the read.

use std::rc::Rc;
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::handle::{Kpcpu, Torn};
use crate::header::Header;

/// How long to wait before a question is asked again, each time. A change of the set takes the kernel some instructions; a virtual CPU
/// may lose its host's in the midst of it, on a busy host for long.
const PAUSES_MS: [u64; 3] = [1, 10, 100];

impl Kpcpu {
    /// Asks a question whose parts have to fit together: of a kernel that runs, all of one generation of its set of CPUs. What changes
    /// meanwhile is asked again, three times. Of a dump it is simply asked. Every question of the handle is asked this way by itself.
    ///
    /// # Errors
    ///
    /// [`Error::Torn`] if the kernel changed its set of CPUs each time (unless [`accept_torn`](Self::accept_torn) said not to mind);
    /// [`Error::Gone`] or [`Error::Replaced`] if the guest ended, or runs another kernel; else the question's own.
    pub fn consistent<T>(&self, question: impl FnMut(&Self) -> Result<T>) -> Result<T> {
        let mut question = question;
        if !self.memory.is_live() || self.is_asking.get() {
            return question(self);
        }
        self.is_asking.set(true);
        let answer = self.ask(question);
        self.is_asking.set(false);
        // Whatever went wrong, that the guest is gone is why.
        if answer.is_err() {
            self.memory.check()?;
        }
        answer
    }

    fn ask<T>(&self, mut question: impl FnMut(&Self) -> Result<T>) -> Result<T> {
        let mut pauses = PAUSES_MS.into_iter().map(Duration::from_millis);
        loop {
            let before = self.look()?;
            let is_odd = before % 2 == 1 && self.torn == Torn::Refuse;
            let answer = if is_odd {
                Err(Error::Torn(before))
            } else {
                question(self)
            };
            let after = self.look()?;
            let answer = match answer {
                Ok(_) if after != before && self.torn == Torn::Refuse => Err(Error::Torn(after)),
                answer => answer,
            };
            let is_final = match &answer {
                Ok(_) => true,
                Err(error) => !may_pass(error) && after == before,
            };
            let Some(pause) = pauses.next().filter(|_| !is_final) else {
                return answer;
            };
            thread::sleep(pause);
        }
    }

    /// Reads the header anew, forgets what may have changed since, and returns the generation.
    fn look(&self) -> Result<u64> {
        self.memory.check()?;
        self.memory.forget();
        let now = self.read_header(self.opened.0);
        let now = now.map_err(|error| match error {
            Error::Header { .. } => Error::Replaced("there is no header any more"),
            other => other,
        })?;
        self.check_identity(&now)?;
        let generation = now.generation;
        let mut cache = self.cache.borrow_mut();
        if cache.header.as_ref().map(|old| old.generation) != Some(generation) {
            cache.cpus = None;
        }
        cache.pages.clear();
        cache.header = Some(Rc::new(now));
        Ok(generation)
    }

    fn check_identity(&self, now: &Header) -> Result<()> {
        let (address, build_id) = &self.opened;
        match () {
            // The kernel stores its build id once, some time after it made its data known.
            () if !build_id.is_empty() && now.build_id != *build_id => {
                Err(Error::Replaced("its build id is another one"))
            }
            () if now.address == 0 => Err(Error::Replaced("it is at its begin again")),
            () if now.address != *address => Err(Error::Replaced("its header moved")),
            () => Ok(()),
        }
    }
}

/// May an error be one of the moment, as an LWP that ended while it was looked at?
fn may_pass(error: &Error) -> bool {
    matches!(
        error,
        Error::Torn(_) | Error::Read { .. } | Error::Loop(_) | Error::TooMany(_)
    )
}
