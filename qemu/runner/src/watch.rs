//! `cargo demo --watch`: the owner table of the guest that runs, as `cargo pcustat` shows it, again and again.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pcu9_kpcpu::Kpcpu;
use pcu9_kpcpu::stat::{Before, Page, Sample};

use crate::error::{During, Result};
use crate::progress::Board;

/// How long QEMU and the kernel may take until there is something to see.
const START: Duration = Duration::from_mins(1);
/// How long it takes until the end of the run is noticed.
const LOOK: Duration = Duration::from_millis(50);

/// Shows the guest at `socket` on `board` until it ends, or `is_over`; returns how many tables were shown.
pub(crate) fn watch(
    kernel: &Path,
    socket: &Path,
    board: &Board,
    is_over: &AtomicBool,
) -> Result<u32> {
    let over = || is_over.load(Ordering::Acquire);
    let begun = Instant::now();
    let guest = loop {
        match Kpcpu::open_live(kernel, socket) {
            Ok(guest) => break guest,
            Err(_) if over() => return Ok(0),
            // QEMU does not listen yet, or the kernel is not yet where it has per-CPU data.
            Err(_) if begun.elapsed() < START => thread::sleep(LOOK),
            Err(error) => return Err(error).during("--watch"),
        }
    };
    let mut n_shown = 0;
    let mut before: Option<(Sample, Instant)> = None;
    loop {
        let sample = match Sample::take(&guest) {
            Ok(sample) => sample,
            Err(pcu9_kpcpu::Error::Gone(_)) => return Ok(n_shown),
            // CPUs come up, LWPs go: the next look will see a kernel that stands.
            Err(pcu9_kpcpu::Error::Torn(_) | pcu9_kpcpu::Error::Read { .. }) => {
                thread::sleep(LOOK);
                continue;
            }
            Err(_) if over() => return Ok(n_shown),
            Err(error) => return Err(error).during("--watch"),
        };
        let now = Instant::now();
        let mut page = Page::new(board.width());
        let rates = before.as_ref().map(|(sample, then)| Before {
            sample,
            elapsed: now - *then,
        });
        sample.add_to(&mut page, rates);
        board.show(&mut page);
        n_shown += 1;
        before = Some((sample, now));
        while now.elapsed() < board.period() {
            if over() {
                return Ok(n_shown);
            }
            thread::sleep(LOOK);
        }
    }
}
