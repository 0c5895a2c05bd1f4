//! Signals: handlers, and the frame that a handler finds and may change.
//!
//! Layouts: Linux, `arch/x86/include/uapi/asm/sigcontext.h` and `include/uapi/asm-generic/ucontext.h`; the FPU's image: Intel SDM,
//! volume 1, "Legacy Region of an XSAVE Area", "XSAVE Header".

use core::arch::naked_asm;
use core::mem::offset_of;

use crate::start::fail;
use crate::syscalls::{KILL, RT_SIGACTION, RT_SIGRETURN, call};

/// An invalid instruction.
pub const SIGILL: usize = 4;
/// An error in arithmetic.
pub const SIGFPE: usize = 8;
/// For the program's own use.
pub const SIGUSR1: usize = 10;
/// A wrong address.
pub const SIGSEGV: usize = 11;
/// For the program's own use.
pub const SIGUSR2: usize = 12;
/// End.
pub const SIGTERM: usize = 15;
/// Stops a process.
pub const SIGSTOP: usize = 19;

/// The handler is called on the alternate stack.
pub const SA_ONSTACK: usize = 0x0800_0000;
/// A system call that the signal cut short is made again.
pub const SA_RESTART: usize = 0x1000_0000;
/// The signal is not blocked while its handler runs.
pub const SA_NODEFER: usize = 0x4000_0000;
/// The handler is called once.
pub const SA_RESETHAND: usize = 0x8000_0000;
const SA_SIGINFO: usize = 4;
const SA_RESTORER: usize = 0x0400_0000;

/// Where parts of the FPU's image lie.
pub const AT_FCW: usize = 0;
/// x87's status word.
pub const AT_FSW: usize = 2;
/// x87's tags, one bit a register.
pub const AT_FTW: usize = 4;
/// SSE's control and status register.
pub const AT_MXCSR: usize = 24;
/// `MXCSR_MASK`.
pub const AT_MXCSR_MASK: usize = 28;
/// ST(0) to ST(7), 16 bytes each.
pub const AT_ST: usize = 32;
/// XMM0 to XMM15.
pub const AT_XMM: usize = 160;
/// `FP_XSTATE_MAGIC1`, or zero in a legacy frame.
pub const AT_MAGIC1: usize = 464;
/// The length with `FP_XSTATE_MAGIC2`, which comes last.
pub const AT_EXTENDED_SIZE: usize = 468;
/// The length without.
pub const AT_XSTATE_SIZE: usize = 480;
/// Which components the image has.
pub const AT_XSTATE_BV: usize = 512;
/// Not zero: the image is compacted.
pub const AT_XCOMP_BV: usize = 520;

/// `FXSAVE`'s image.
const LEGACY_BYTES: usize = 512;
/// There is more behind it.
const UC_FP_XSTATE: u64 = 1;

/// What a handler is told of its signal: `siginfo_t`.
#[derive(Debug)]
#[repr(C)]
pub struct Info {
    signal: i32,
    error: i32,
    /// Why it came.
    pub code: i32,
    /// The sender's process number, or an exception's address.
    pub value: u64,
    rest: [u64; 13],
}

/// What a handler finds of the program: `ucontext_t`.
#[derive(Debug)]
#[repr(C)]
pub struct Context {
    flags: u64,
    link: u64,
    stack: [u64; 3],
    r8_to_r15: [u64; 8],
    /// The register of this name.
    pub rdi: u64,
    rsi_to_rcx: [u64; 6],
    rsp: u64,
    /// Where the program goes on.
    pub rip: u64,
    rflags: u64,
    /// CS, GS, FS, SS, 16 bits each.
    pub segments: u64,
    error_vector_mask_cr2: [u64; 4],
    /// The address of the FPU's image, 0 for the initial state.
    pub fpstate: usize,
    reserved: [u64; 8],
    mask: u64,
}

const _: () = assert!(size_of::<Info>() == 128 && offset_of!(Info, value) == 16);
const _: () = assert!(offset_of!(Context, fpstate) == 224 && size_of::<Context>() == 304);

/// The FPU's image in a frame.
#[derive(Debug)]
pub struct Image<'a>(&'a mut [u8]);

impl Context {
    /// Has the image a header, and components behind it?
    pub fn has_xsave(&self) -> bool {
        self.flags & UC_FP_XSTATE != 0
    }

    /// The words that no program's state is in: they say nothing, so they are zero.
    pub fn unused(&self) -> impl Iterator<Item = u64> {
        [self.link].into_iter().chain(self.reserved)
    }

    /// The FPU's image.
    pub fn image(&mut self) -> Image<'_> {
        let start = core::ptr::with_exposed_provenance_mut::<u8>(self.fpstate);
        // SAFETY: the kernel put an image there, of FXSAVE's length at least, that is the handler's alone until it returns.
        let legacy = unsafe { core::slice::from_raw_parts_mut(start, LEGACY_BYTES) };
        if !self.has_xsave() {
            return Image(legacy);
        }
        let bytes = Image(legacy).word(AT_EXTENDED_SIZE) as usize;
        // SAFETY: as above; the kernel says how long it is.
        Image(unsafe { core::slice::from_raw_parts_mut(start, bytes) })
    }
}

impl Info {
    /// The words behind what a signal of a process says.
    pub fn unused(&self) -> impl Iterator<Item = u64> {
        self.rest
            .into_iter()
            .chain([u64::from(self.error.cast_unsigned())])
    }
}

impl Image<'_> {
    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        self.0
    }

    /// Changes bytes.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Four bytes.
    pub fn word(&self, at: usize) -> u32 {
        let bytes = self.0[at..].first_chunk();
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    /// Sets and clears bits in four bytes.
    pub fn change(&mut self, at: usize, set: u32, clear: u32) {
        let word = self.word(at) & !clear | set;
        self.put(at, &word.to_le_bytes());
    }
}

/// A handler. It begins with the initial state of the FPU.
pub type Handler = extern "C" fn(usize, &Info, &mut Context);

/// Where a handler returns to.
#[unsafe(naked)]
unsafe extern "C" fn return_from_handler() -> ! {
    naked_asm!("mov eax, {number}", "syscall", "ud2", number = const RT_SIGRETURN)
}

/// The same after it destroyed every register of x87 and SSE, the control words too. The exceptions stay masked.
#[unsafe(naked)]
unsafe extern "C" fn destroy_and_return() -> ! {
    naked_asm!(
        "fninit",
        "mov ecx, 8",
        "2: fldpi",
        "loop 2b",
        "push 0x0c7f",
        "fldcw [rsp]",
        "mov qword ptr [rsp], 0xffbf",
        "ldmxcsr [rsp]",
        "pop rcx",
        "pcmpeqd xmm0, xmm0",
        "movaps xmm1, xmm0",
        "movaps xmm2, xmm0",
        "movaps xmm3, xmm0",
        "movaps xmm4, xmm0",
        "movaps xmm5, xmm0",
        "movaps xmm6, xmm0",
        "movaps xmm7, xmm0",
        "movaps xmm8, xmm0",
        "movaps xmm9, xmm0",
        "movaps xmm10, xmm0",
        "movaps xmm11, xmm0",
        "movaps xmm12, xmm0",
        "movaps xmm13, xmm0",
        "movaps xmm14, xmm0",
        "movaps xmm15, xmm0",
        "jmp {leave}",
        leave = sym return_from_handler,
    )
}

/// Says what is to be done about a signal: `handler` runs, which begins with the initial state of the FPU, and every register
/// that it may change is destroyed when it returns. `mask` are the signals that wait meanwhile, bit N - 1 for signal N. An error
/// ends the program.
pub fn handle(signal: usize, handler: Handler, flags: usize, mask: usize) {
    let restorer = destroy_and_return as *const () as usize;
    let action = [
        handler as *const () as usize,
        flags | SA_SIGINFO | SA_RESTORER,
        restorer,
        mask,
    ];
    set(signal, &action);
}

/// As [`handle`], with a restorer of the program's own, which ends by `rt_sigreturn`.
///
/// # Safety
///
/// It changes no register but those that a handler may, or puts nothing there that a later instruction minds.
pub unsafe fn handle_with(signal: usize, handler: Handler, restorer: unsafe extern "C" fn() -> !) {
    let action = [
        handler as *const () as usize,
        SA_SIGINFO | SA_RESTORER,
        restorer as *const () as usize,
        0,
    ];
    set(signal, &action);
}

fn set(signal: usize, action: &[usize; 4]) {
    let arguments = [signal, action.as_ptr().expose_provenance(), 0, 8];
    // SAFETY: rt_sigaction(2) reads the action; handlers are functions of this program.
    let result = unsafe { call(RT_SIGACTION, arguments) };
    if result != 0 {
        fail(format_args!(
            "expected signal {signal} to be handled, saw error {result}"
        ));
    }
}

/// Sends a signal to a process; what the kernel answers. Linux: `kill(2)`.
pub fn kill(process: usize, signal: usize) -> isize {
    // SAFETY: kill(2) touches no memory; a handler of this program is as it was told to be.
    unsafe { call(KILL, [process, signal, 0, 0]) }
}
