//! The system calls, by Linux's numbers for x86-64.
//!
//! Number in `rax`, arguments in `rdi rsi rdx r10 r8 r9`, result in `rax` (negative: an error number). The instruction
//! itself destroys `rcx` and `r11` (Intel SDM, volume 2, "SYSCALL"); the kernel preserves everything else, and above all
//! every register of the FPU.

use core::arch::asm;

use crate::start::fail;

/// Writes bytes to a file descriptor.
pub const WRITE: usize = 1;
/// Reads bytes from a file descriptor.
pub const READ: usize = 0;
/// Maps memory.
pub const MMAP: usize = 9;
/// Changes what may be done with memory.
pub const MPROTECT: usize = 10;
/// Takes mapped memory away.
pub const MUNMAP: usize = 11;
/// Says what is to be done about a signal.
pub const RT_SIGACTION: usize = 13;
/// Ends a signal's handler.
pub const RT_SIGRETURN: usize = 15;
/// Makes a pipe.
pub const PIPE: usize = 22;
/// Lets others run.
pub const SCHED_YIELD: usize = 24;
/// Says which signals wait.
pub const RT_SIGPROCMASK: usize = 14;
/// Says what time it is.
pub const CLOCK_GETTIME: usize = 228;
/// Gives the process's number.
pub const GETPID: usize = 39;
/// Makes a child that is a copy of the caller.
pub const FORK: usize = 57;
/// Begins another program in place of the one that asks.
pub const EXECVE: usize = 59;
/// Ends the thread.
pub const EXIT: usize = 60;
/// Waits for a child to end.
pub const WAIT4: usize = 61;
/// Sends a signal to a process.
pub const KILL: usize = 62;
/// Watches another process.
pub const PTRACE: usize = 101;
/// Names the stack for the handlers that want another one.
pub const SIGALTSTACK: usize = 131;
/// Gives the thread's number.
pub const GETTID: usize = 186;
/// Sleeps for a word of memory, or wakes who does.
pub const FUTEX: usize = 202;
/// Ends the whole process.
pub const EXIT_GROUP: usize = 231;
/// Sends a signal to a thread.
pub const TGKILL: usize = 234;

/// Makes a system call of up to four arguments.
///
/// # Safety
///
/// The call must not write to memory that Rust believes to be constant or its own, and must not give away any.
pub unsafe fn call(number: usize, arguments: [usize; 4]) -> isize {
    let result;
    // SAFETY: the registers are those of the system call convention; what the call does is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            // mmap's fifth and sixth: no file, offset 0.
            in("r8") usize::MAX,
            in("r9") 0_usize,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Writes all the bytes to a file descriptor, in as many calls as it takes; an error ends the process with status 2.
pub fn write_all(descriptor: usize, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let arguments = [
            descriptor,
            bytes.as_ptr().expose_provenance(),
            bytes.len(),
            0,
        ];
        // SAFETY: write(2) only reads the bytes.
        let written = unsafe { call(WRITE, arguments) };
        match usize::try_from(written).ok().and_then(|n| bytes.get(n..)) {
            Some(rest) if written > 0 => bytes = rest,
            _ => exit(2),
        }
    }
}

/// Lets other programs run. Linux: `sched_yield(2)`.
pub fn sched_yield() {
    // SAFETY: sched_yield(2) touches no memory.
    unsafe { call(SCHED_YIELD, [0; 4]) };
}

/// The number of this process. Linux: `getpid(2)`.
pub fn getpid() -> usize {
    // SAFETY: getpid(2) touches no memory.
    unsafe { call(GETPID, [0; 4]) }.cast_unsigned()
}

/// Makes a child; 0 in the child. Linux: `fork(2)`. An error ends the program.
pub fn fork() -> usize {
    // SAFETY: fork(2) gives the child memory of its own.
    let child = unsafe { call(FORK, [0; 4]) };
    usize::try_from(child)
        .unwrap_or_else(|_| fail(format_args!("expected a child, saw error {child}")))
}

/// Waits for `child`: its status. `options`: `WNOHANG` (1), with which one that runs has none. Linux: `wait4(2)`.
///
/// # Errors
///
/// The kernel's number, which is negative.
pub fn wait(child: usize, options: usize) -> Result<Option<u32>, isize> {
    let mut status = 0_u32;
    let arguments = [child, (&raw mut status).expose_provenance(), options, 0];
    // SAFETY: wait4(2) writes the status, which is ours.
    match unsafe { call(WAIT4, arguments) } {
        0 => Ok(None),
        error @ ..0 => Err(error),
        _ => Ok(Some(status)),
    }
}

/// Ends the process. Linux: `exit_group(2)`.
pub fn exit(status: u8) -> ! {
    loop {
        // SAFETY: exit_group(2) ends the process, so nothing can be left in a wrong state.
        unsafe { call(EXIT_GROUP, [usize::from(status), 0, 0, 0]) };
    }
}

/// Gives `count` numbers, all 0.0, in memory of their own that stays until the program ends.
///
/// The kernel picks the address, and no program prints it.
pub fn zeroed(count: usize) -> &'static mut [f64] {
    const PROT_READ_WRITE: usize = 1 | 2;
    const MAP_PRIVATE_ANONYMOUS: usize = 0x02 | 0x20;
    let bytes = count * size_of::<f64>();
    // SAFETY: without a fixed address mmap(2) takes no memory that is in use.
    let address = unsafe { call(MMAP, [0, bytes, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS]) };
    if address <= 0 {
        fail(format_args!(
            "expected {bytes} bytes of memory, saw error {address}"
        ));
    }
    let start = core::ptr::with_exposed_provenance_mut(address.cast_unsigned());
    // SAFETY: the mapping is new, ours alone, page-aligned, `count` numbers long, and zero bytes are 0.0.
    unsafe { core::slice::from_raw_parts_mut(start, count) }
}
