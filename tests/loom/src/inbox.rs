//! Where one execution context leaves its request for a CPU: the part of a kernel that P6 is about.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, Ordering};
use pcu9::kernel::{CrossCall, IplPcu};

use crate::{Handle, UNITS};

const EMPTY: u32 = 0;
const PUBLISHED: u32 = 1;
const RUNNING: u32 = 2;
const DONE: u32 = 3;
const CLOSED: u32 = 4;

/// What a look into an inbox found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A request, which was served.
    Request,
    /// Nothing, so far.
    Nothing,
    /// The sender has come to its end.
    End,
}

/// A request without the lifetime of the frame that it lives in.
type Call = *const (dyn Fn(&IplPcu<'_, Handle, UNITS>) + Sync + 'static);

/// One request: published, run and answered, or withdrawn. Each word of it is ordered by the state alone.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: AtomicU32,
    call: UnsafeCell<Option<Call>>,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU32::new(EMPTY),
            call: UnsafeCell::new(None),
        }
    }

    /// Leaves a request.
    ///
    /// # Safety
    ///
    /// The caller does not leave the frame of `call` before [`take_answer`](Self::take_answer) or
    /// [`withdraw`](Self::withdraw) has succeeded; nobody else publishes here.
    pub(crate) unsafe fn publish(&self, call: CrossCall<'_, Handle, UNITS>) {
        // SAFETY: only the lifetime changes; the caller keeps the frame.
        let call: CrossCall<'static, Handle, UNITS> = unsafe { std::mem::transmute(call) };
        // SAFETY: the state is EMPTY, so the cell is the publisher's.
        self.call.with_mut(|cell| unsafe { *cell = Some(call) });
        self.state.store(PUBLISHED, Ordering::Release);
    }

    /// Has the request been served? Then the inbox is empty again.
    pub(crate) fn take_answer(&self) -> bool {
        // A compare-exchange sees the latest state, which saves loom the late answers.
        self.state
            .compare_exchange(DONE, EMPTY, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Takes the request back, unless it has begun.
    pub(crate) fn withdraw(&self) -> bool {
        self.state
            .compare_exchange(PUBLISHED, EMPTY, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Says that no request will come any more.
    pub(crate) fn close(&self) {
        self.state.store(CLOSED, Ordering::Release);
    }

    /// Serves the request, with a token of the CPU that runs this.
    pub(crate) fn serve(&self, ipl: &IplPcu<'_, Handle, UNITS>) -> Found {
        let begun =
            self.state
                .compare_exchange(PUBLISHED, RUNNING, Ordering::Acquire, Ordering::Relaxed);
        match begun {
            Ok(_) => {}
            Err(CLOSED) => return Found::End,
            Err(_) => return Found::Nothing,
        }
        // SAFETY: from RUNNING to DONE the cell is the server's.
        let call = self.call.with_mut(|cell| unsafe { (*cell).take() });
        if let Some(call) = call {
            // SAFETY: the publisher keeps the frame until it sees DONE.
            let call = unsafe { &*call };
            call(ipl);
        }
        self.state.store(DONE, Ordering::Release);
        Found::Request
    }
}
