//! Futexes: threads sleep for a word of user memory, and others wake them. Linux, `kernel/futex/waitwake.c`; futex(2).
//!
//! No memory is shared between processes, so a word's place is the process's domain and the address. As on Linux a private sleeper is not
//! woken by a call that does not say private, nor the other way round. The word is compared under the lock of the queue that a waker takes after it changed the word: no wake is lost.
//! Architecture invariant: the queue's lock is taken inside the address space's, never around it.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::syscall::{Answer, Errno, read_time};
use super::thread::{is_interrupted, wait_for};
use super::{Process, current};
use crate::cpu::time;
use crate::lock::IrqLock;
use crate::lwp::Lwp;
use crate::sched;

/// Domain and address of a word, and whether private.
type Place = (u64, u64, bool);

static WAITING: IrqLock<Vec<(Place, Arc<Lwp>)>> = IrqLock::new(Vec::new());

const WAIT: u64 = 0;
const WAKE: u64 = 1;
const PRIVATE: u64 = 0x80;

pub(super) fn futex(at: u64, operation: u64, value: u64, timeout_at: u64) -> Answer {
    if !at.is_multiple_of(4) {
        return Err(Errno::Invalid);
    }
    let process = current();
    let place = (process.domain(), at, operation & PRIVATE != 0);
    match operation & !PRIVATE {
        WAIT => wait(&process, place, value as u32, timeout_at),
        WAKE => Ok(wake(place, value as u32)),
        _ => Err(Errno::NoSuchCall),
    }
}

fn wait(process: &Process, place: Place, value: u32, timeout_at: u64) -> Answer {
    let deadline = match timeout_at {
        0 => None,
        at => Some(time::nanoseconds().saturating_add(read_time(at)?)),
    };
    let own = sched::current();
    process.with_space(|space| {
        let mut waiting = WAITING.lock();
        let word = space.word(place.1).ok_or(Errno::Fault)?;
        if word != value {
            return Err(Errno::Again);
        }
        waiting.push((place, Arc::clone(&own)));
        Ok(())
    })?;
    let is_waiting = |(other, lwp): &(Place, Arc<Lwp>)| *other == place && Arc::ptr_eq(lwp, &own);
    let look = || {
        let mut waiting = WAITING.lock();
        let Some(mine) = waiting.iter().position(is_waiting) else {
            return Some(Ok(0));
        };
        let errno = if is_interrupted() {
            Errno::Interrupted
        } else if deadline.is_some_and(|deadline| time::nanoseconds() >= deadline) {
            Errno::TimedOut
        } else {
            return None;
        };
        waiting.swap_remove(mine);
        Some(Err(errno))
    };
    match deadline {
        None => wait_for(look),
        Some(_) => sched::poll_each_tick(look),
    }
}

/// Wakes one thread that sleeps for the word, for the kernel, which does not know what is private.
pub(super) fn wake_one(process: &Process, at: u64) {
    wake((process.domain(), at, false), 1);
}

/// Wakes at most `n` threads that sleep for the word; how many it woke.
fn wake(place: Place, n: u32) -> u64 {
    let mut woken = Vec::new();
    {
        let mut waiting = WAITING.lock();
        let wanted = |(other, _): &mut (Place, _)| *other == place;
        // The oldest first.
        woken.extend(waiting.extract_if(.., wanted).take(n as usize));
    }
    // An LWP may go with its last reference, which takes other locks.
    let n_woken = woken.len() as u64;
    for (_, lwp) in woken {
        lwp.thread.event.signal();
    }
    n_woken
}
