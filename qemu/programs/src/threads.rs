//! Threads, made by `clone` as a C library makes them, and futexes.
//!
//! A thread begins with a copy of its creator's FPU registers: [`spawn`] loads some, and the new thread stores what it finds by its
//! first instruction.

use core::arch::naked_asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::held::MXCSR_INITIAL;
use crate::image::Image;
use crate::numbers::Random;
use crate::start::fail;
use crate::syscalls::{EXIT, FUTEX, GETTID, TGKILL, call, getpid, zeroed};

/// `CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM | SETTLS | PARENT_SETTID | CHILD_CLEARTID`.
const CLONE_FLAGS: usize = 0x3d_0f00;
const CLONE: usize = 56;
const FUTEX_WAIT: usize = 0;
const FUTEX_WAKE: usize = 1;
const FUTEX_PRIVATE: usize = 128;
/// Of a thread's memory, its control block included.
const BYTES: usize = 64 << 10;

/// What is known of a thread, at the upper end of its memory; its stack is below.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Thread {
    /// What `fs:[0]` reads in the thread; its first word, since the base of `fs` is here.
    own: AtomicU64,
    /// Its number; the kernel puts 0 there and wakes when it has ended.
    tid: AtomicU32,
    loaded: Image,
    first: Image,
    main: fn(&'static Thread),
}

/// Starts a thread that runs `f`. It stays in memory for ever. An error ends the program.
pub fn spawn(own: u64, f: fn(&'static Thread)) -> &'static Thread {
    let memory = zeroed(BYTES / 8).as_mut_ptr_range();
    let at = memory.end.cast::<u8>().wrapping_sub(size_of::<Thread>());
    let at = core::ptr::with_exposed_provenance_mut::<Thread>(at.expose_provenance());
    let mut random = Random(own);
    let thread = Thread {
        own: AtomicU64::new(own),
        tid: AtomicU32::new(0),
        loaded: Image::random(&mut random),
        first: Image::zero(),
        main: f,
    };
    // SAFETY: the memory is new, the program's alone, large enough, and aligned since its end is a page's.
    unsafe { at.write(thread) };
    // SAFETY: it was just written, and stays.
    let thread = unsafe { &*at };
    // SAFETY: the stack is the memory below the control block, and `begin` never returns.
    let tid = unsafe { clone(CLONE_FLAGS, at, &raw const thread.tid) };
    if tid <= 0 {
        fail(format_args!("expected a thread, saw error {tid}"));
    }
    thread
}

/// Makes the thread: loads its creator's registers first, and leaves them in the initial state.
#[unsafe(naked)]
unsafe extern "C" fn clone(flags: usize, thread: *mut Thread, tid: *const AtomicU32) -> isize {
    naked_asm!(
        "fxrstor64 [rsi + {loaded}]",
        "mov r10, rdx",
        "mov r8, rsi",
        "mov r9, rsi",
        "mov eax, {clone}",
        "syscall",
        "test rax, rax",
        "jz 2f",
        "fninit",
        "ldmxcsr [rip + {mxcsr}]",
        "ret",
        // The new thread, on its own stack.
        "2: fxsave64 [r9 + {first}]",
        "fninit",
        "ldmxcsr [rip + {mxcsr}]",
        "xor ebp, ebp",
        "mov rdi, r9",
        "call {begin}",
        "ud2",
        loaded = const core::mem::offset_of!(Thread, loaded),
        first = const core::mem::offset_of!(Thread, first),
        clone = const CLONE,
        mxcsr = sym INITIAL,
        begin = sym begin,
    )
}

static INITIAL: u32 = MXCSR_INITIAL;

extern "C" fn begin(thread: &'static Thread) -> ! {
    if let Some(at) = thread.first.difference(&thread.loaded) {
        fail(format_args!(
            "a thread begins with its creator's registers: byte {at} of FXSAVE's image is another"
        ));
    }
    (thread.main)(thread);
    exit_thread(0)
}

/// Ends the thread that calls it.
pub fn exit_thread(status: usize) -> ! {
    loop {
        // SAFETY: the thread ends, and its memory stays.
        unsafe { call(EXIT, [status, 0, 0, 0]) };
    }
}

impl Thread {
    /// The number that it was started with.
    pub fn own(&self) -> u64 {
        self.own.load(Ordering::Relaxed)
    }

    /// Waits for its end.
    pub fn join(&self) {
        loop {
            match self.tid.load(Ordering::Acquire) {
                0 => return,
                // Not a private one: the kernel does not know who waits.
                tid => wait(&self.tid, FUTEX_WAIT, tid, None),
            };
        }
    }

    /// Sends it a signal: what the kernel answers. Linux: `tgkill(2)`.
    pub fn signal(&self, signal: usize) -> isize {
        let tid = self.tid.load(Ordering::Acquire) as usize;
        // SAFETY: tgkill(2) touches no memory.
        unsafe { call(TGKILL, [getpid(), tid, signal, 0]) }
    }
}

/// The number of the thread that calls it.
pub fn gettid() -> usize {
    // SAFETY: gettid(2) touches no memory.
    unsafe { call(GETTID, [0; 4]) }.cast_unsigned()
}

/// The word at the base of `fs` in a thread that was made here.
pub fn own() -> u64 {
    let own;
    // SAFETY: the base of `fs` is the thread's control block.
    unsafe {
        core::arch::asm!("mov {}, fs:[0]", out(reg) own, options(nostack, readonly, preserves_flags));
    }
    own
}

/// Sleeps while the word has this value: what the kernel answers. `timeout` is in nanoseconds. Linux: `futex(2)`.
pub fn futex_wait(word: &AtomicU32, value: u32, timeout: Option<u64>) -> isize {
    wait(word, FUTEX_WAIT | FUTEX_PRIVATE, value, timeout)
}

fn wait(word: &AtomicU32, operation: usize, value: u32, timeout: Option<u64>) -> isize {
    let time = timeout.map(|timeout| [timeout / 1_000_000_000, timeout % 1_000_000_000]);
    let time_at = time
        .as_ref()
        .map_or(0, |time| time.as_ptr().expose_provenance());
    let word_at = core::ptr::from_ref(word).expose_provenance();
    let arguments = [word_at, operation, value as usize, time_at];
    // SAFETY: futex(2) reads the word and the time.
    unsafe { call(FUTEX, arguments) }
}

/// Wakes at most `n` who sleep for the word: how many. Linux: `futex(2)`.
pub fn futex_wake(word: &AtomicU32, n: usize) -> isize {
    let word_at = core::ptr::from_ref(word).expose_provenance();
    // SAFETY: futex(2) does nothing with the word itself.
    unsafe { call(FUTEX, [word_at, FUTEX_WAKE | FUTEX_PRIVATE, n, 0]) }
}
