//! A child under ptrace that has computed, and does nothing from then on but stop.

use std::arch::asm;
use std::ptr;

use libc::{
    PTRACE_CONT, PTRACE_GETREGSET, PTRACE_O_EXITKILL, PTRACE_SETOPTIONS, PTRACE_SETREGSET,
    PTRACE_TRACEME, SIGSTOP,
};

const NT_X86_XSTATE: libc::c_int = 0x202;

pub(super) struct Child(libc::pid_t);

impl Child {
    pub(super) fn start() -> Self {
        // SAFETY: the child calls nothing but system calls.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            // SAFETY: as above; it never returns.
            unsafe { compute_and_stop() };
        }
        let child = Self(pid);
        child.wait();
        // The child does not outlive this process, however it ends.
        let nothing = ptr::null_mut::<libc::c_void>();
        // SAFETY: a stopped child of this process.
        let result = unsafe { libc::ptrace(PTRACE_SETOPTIONS, pid, nothing, PTRACE_O_EXITKILL) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        child
    }

    /// Waits until it stops.
    fn wait(&self) {
        let mut status = 0;
        // SAFETY: a child of this process, and a place for its status.
        let pid = unsafe { libc::waitpid(self.0, &raw mut status, 0) };
        assert_eq!(pid, self.0);
        assert!(libc::WIFSTOPPED(status), "the child ended: {status:#x}");
    }

    /// Lets it run up to its next stop: its registers are loaded and saved.
    pub(super) fn run(&self) {
        let nothing = ptr::null_mut::<libc::c_void>();
        // SAFETY: a stopped child of this process.
        let result = unsafe { libc::ptrace(PTRACE_CONT, self.0, nothing, nothing) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        self.wait();
    }

    pub(super) fn regset(&self) -> Vec<u8> {
        let mut bytes = vec![0xa5; 32768];
        let mut buffer = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: a stopped child of this process; the buffer is so long.
        let result =
            unsafe { libc::ptrace(PTRACE_GETREGSET, self.0, NT_X86_XSTATE, &raw mut buffer) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        bytes.truncate(buffer.iov_len);
        bytes
    }

    /// Hands Linux the first bytes of an image; its error number if it refuses.
    pub(super) fn set_regset(&self, image: &[u8], length: usize) -> Result<(), i32> {
        assert!(length <= image.len());
        let mut buffer = libc::iovec {
            iov_base: image.as_ptr().cast_mut().cast(),
            iov_len: length,
        };
        // SAFETY: a stopped child of this process; Linux reads so many bytes and writes none.
        let result =
            unsafe { libc::ptrace(PTRACE_SETREGSET, self.0, NT_X86_XSTATE, &raw mut buffer) };
        match result {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error().raw_os_error().unwrap()),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: a child of this process.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        // SAFETY: as above; its status is of no interest.
        unsafe { libc::waitpid(self.0, ptr::null_mut(), 0) };
    }
}

/// Leaves values in x87, XMM and `MXCSR`, and stops for ever: no other code touches a register.
///
/// # Safety
///
/// In a child that was forked for this.
unsafe fn compute_and_stop() -> ! {
    let nothing = ptr::null_mut::<libc::c_void>();
    // SAFETY: a system call.
    unsafe { libc::ptrace(PTRACE_TRACEME, 0, nothing, nothing) };
    // SAFETY: a system call.
    let pid = unsafe { libc::getpid() };
    let mxcsr = 0x9fc0_u32;
    // SAFETY: it does not return, so no register has to be kept.
    unsafe {
        asm!(
            "fninit",
            "fldpi",
            "fld1",
            "ldmxcsr [{mxcsr}]",
            "movq xmm5, rdi",
            "movq xmm15, rsi",
            "2:",
            "mov eax, 62",
            "syscall",
            "jmp 2b",
            mxcsr = in(reg) &raw const mxcsr,
            in("rdi") pid,
            in("rsi") SIGSTOP,
            options(noreturn),
        );
    }
}
