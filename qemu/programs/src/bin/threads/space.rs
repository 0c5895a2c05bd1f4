//! What a thread takes away from the address space is gone for the others when the call returns, on whatever CPU they run.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use pcu9_programs::signals::{Context, Info, SIGSEGV, handle};
use pcu9_programs::syscalls::{MMAP, MPROTECT, MUNMAP, call, sched_yield};
use pcu9_programs::threads::{Thread, futex_wait, futex_wake, spawn};
use pcu9_programs::{fail, say};

use super::expect;

const ROUNDS: u32 = 20;
const PAGE_BYTES: usize = 4096;
const PROT_READ: usize = 1;
const PROT_READ_WRITE: usize = 3;
const MAP_PRIVATE_ANONYMOUS: usize = 0x22;
const MAP_FIXED: usize = 0x10;
/// Long enough for a write that is still possible to come.
const LOOKS: u32 = 2000;

static PAGE: AtomicUsize = AtomicUsize::new(0);
static N_WRITES: AtomicU32 = AtomicU32::new(0);
static N_FAULTS: AtomicU32 = AtomicU32::new(0);
/// The fault up to which the writer may go on.
static ALLOWED: AtomicU32 = AtomicU32::new(0);
static IS_OVER: AtomicU32 = AtomicU32::new(0);

fn word() -> &'static AtomicU32 {
    let page = core::ptr::with_exposed_provenance::<AtomicU32>(PAGE.load(Ordering::Relaxed));
    // SAFETY: the page is mapped, or a fault waits until it is again; only atomic instructions reach it.
    unsafe { &*page }
}

extern "C" fn on_fault(_: usize, _: &Info, _: &mut Context) {
    let n = N_FAULTS.fetch_add(1, Ordering::AcqRel) + 1;
    futex_wake(&N_FAULTS, 1);
    wait_for(&ALLOWED, n);
}

fn writer(_: &'static Thread) {
    while IS_OVER.load(Ordering::Relaxed) == 0 {
        word().store(
            N_WRITES.fetch_add(1, Ordering::AcqRel) | 1,
            Ordering::SeqCst,
        );
    }
}

fn change(what: &str, number: usize, arguments: [usize; 4]) -> isize {
    // SAFETY: the page is no Rust object's.
    let result = unsafe { call(number, arguments) };
    if result < 0 {
        fail!("threads: {what}: expected success, saw error {result}");
    }
    result
}

/// Maps a new page where none is.
fn map(at: usize) {
    let flags = MAP_PRIVATE_ANONYMOUS | MAP_FIXED;
    let mapped = change("a page", MMAP, [at, PAGE_BYTES, PROT_READ_WRITE, flags]);
    expect("where a page is", at, mapped.cast_unsigned());
}

/// Sleeps until the word has this value.
fn wait_for(word: &AtomicU32, value: u32) {
    loop {
        match word.load(Ordering::Acquire) {
            seen if seen == value => return,
            seen => futex_wait(word, seen, None),
        };
    }
}

pub(crate) fn run() {
    let arguments = [0, 2 * PAGE_BYTES, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS];
    let page = change("two pages", MMAP, arguments).cast_unsigned();
    let other = page + PAGE_BYTES;
    PAGE.store(page, Ordering::Relaxed);
    handle(SIGSEGV, on_fault, 0, 0);
    change("unmapping", MUNMAP, [other, PAGE_BYTES, 0, 0]);
    let thread = spawn(1, writer);
    for round in 1..=ROUNDS {
        let before = N_WRITES.load(Ordering::Acquire);
        while N_WRITES.load(Ordering::Acquire).wrapping_sub(before) < 100 {
            sched_yield();
        }
        if round % 2 == 0 {
            change("protection", MPROTECT, [page, PAGE_BYTES, PROT_READ, 0]);
            let seen = word().load(Ordering::SeqCst);
            for _ in 0..LOOKS {
                expect(
                    "a page that nobody may write",
                    seen,
                    word().load(Ordering::SeqCst),
                );
            }
            wait_for(&N_FAULTS, round);
            change(
                "protection",
                MPROTECT,
                [page, PAGE_BYTES, PROT_READ_WRITE, 0],
            );
        } else {
            change("unmapping", MUNMAP, [page, PAGE_BYTES, 0, 0]);
            // Whoever gets the frame next does not see the writes.
            map(other);
            let kept = core::ptr::with_exposed_provenance::<AtomicU32>(other);
            for _ in 0..LOOKS {
                // SAFETY: a new page of the program's.
                let seen = unsafe { &*kept }.load(Ordering::SeqCst);
                expect("a new page", 0, seen);
            }
            wait_for(&N_FAULTS, round);
            change("unmapping", MUNMAP, [other, PAGE_BYTES, 0, 0]);
            map(page);
            expect("the page's contents", 0, word().load(Ordering::SeqCst));
        }
        ALLOWED.store(round, Ordering::Release);
        futex_wake(&ALLOWED, 1);
    }
    IS_OVER.store(1, Ordering::Relaxed);
    thread.join();
    expect("faults", ROUNDS, N_FAULTS.load(Ordering::Acquire));
    say!("{ROUNDS} times a page was taken away from a thread that wrote to it");
}
