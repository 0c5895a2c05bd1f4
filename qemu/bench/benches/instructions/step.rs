//! Counts instructions exactly: a child process executes them one by one under ptrace(2), which needs no counter of the processor's.

use std::io;
use std::mem::MaybeUninit;
use std::ptr::null_mut;

/// Between two calls of this the instructions are counted.
#[inline(never)]
extern "C" fn mark() {
    std::hint::black_box(());
}

/// How many instructions `work` takes, a fixed number for its call included.
pub(crate) fn count(work: impl FnOnce()) -> Result<u64, String> {
    // SAFETY: this program has one thread, so the child may do anything.
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(last("fork")),
        0 => {
            // SAFETY: asks the parent to trace this process; the arguments are not looked at.
            unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, null_mut::<u8>(), null_mut::<u8>()) };
            // SAFETY: stops until the parent goes on.
            unsafe { libc::raise(libc::SIGSTOP) };
            mark();
            work();
            mark();
            // SAFETY: ends the child without what the parent's end does.
            unsafe { libc::_exit(0) }
        }
        child => {
            let counted = follow(child);
            // SAFETY: the child is this process's own, and not waited for to its end yet.
            unsafe { libc::kill(child, libc::SIGKILL) };
            wait(child)?;
            counted
        }
    }
}

/// Steps the child from one mark to the next.
fn follow(child: libc::pid_t) -> Result<u64, String> {
    let mark = mark as extern "C" fn() as usize;
    wait(child)?;
    let mut since_mark = None;
    loop {
        // SAFETY: the child is stopped, and this process's tracee.
        let stepped = unsafe {
            libc::ptrace(
                libc::PTRACE_SINGLESTEP,
                child,
                null_mut::<u8>(),
                null_mut::<u8>(),
            )
        };
        if stepped == -1 {
            return Err(last("ptrace(PTRACE_SINGLESTEP)"));
        }
        let status = wait(child)?;
        if !libc::WIFSTOPPED(status) || libc::WSTOPSIG(status) != libc::SIGTRAP {
            return Err(format!(
                "the child ended before it was counted, status {status:#x}"
            ));
        }
        let is_mark = instruction_pointer(child)? == mark;
        match &mut since_mark {
            Some(n) if is_mark => return Ok(*n),
            Some(n) => *n += 1,
            None if is_mark => since_mark = Some(0),
            None => {}
        }
    }
}

fn instruction_pointer(child: libc::pid_t) -> Result<usize, String> {
    let mut registers = MaybeUninit::<libc::user_regs_struct>::uninit();
    let place = registers.as_mut_ptr();
    // SAFETY: the child is stopped, and this process's tracee; the registers are written to the variable.
    let got = unsafe { libc::ptrace(libc::PTRACE_GETREGS, child, null_mut::<u8>(), place) };
    if got == -1 {
        return Err(last("ptrace(PTRACE_GETREGS)"));
    }
    // SAFETY: written a line above.
    let registers = unsafe { registers.assume_init() };
    usize::try_from(registers.rip).map_err(|error| error.to_string())
}

fn wait(child: libc::pid_t) -> Result<i32, String> {
    let mut status = 0;
    // SAFETY: the status is written to the variable.
    match unsafe { libc::waitpid(child, &raw mut status, 0) } {
        -1 => Err(last("waitpid")),
        _ => Ok(status),
    }
}

fn last(call: &str) -> String {
    format!(
        "{call}: {}; the instructions are counted by ptrace, which must be allowed here",
        io::Error::last_os_error()
    )
}
