//! From the first instruction to `main`, and out again.

use core::ffi::{CStr, c_char};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::syscalls;

/// Makes the given function the program: defines `_start`, which calls it and exits with status 0 when it returns.
///
/// A second argument names instructions that run before everything else, while the registers still hold what the kernel put
/// there: `program!(main, "fxsave64 [rip + {first}]", first = sym FIRST)`. They may use the flags and `rax`.
#[macro_export]
macro_rules! program {
    ($main:path $(, $first:literal)* $(, $name:ident = sym $symbol:path)* $(,)?) => {
        /// The entry point that the ELF header names: `argc` is on top of the stack, no return address.
        ///
        /// # Safety
        ///
        /// Only the kernel jumps here, once, on a fresh stack.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        unsafe extern "C" fn _start() -> ! {
            ::core::arch::naked_asm!(
                $($first,)*
                // The System V ABI marks the outermost frame by a zero, and wants the stack aligned at each call.
                "xor ebp, ebp",
                "mov rdi, rsp",
                "and rsp, -16",
                "call {run}",
                "ud2",
                $($name = sym $symbol,)*
                run = sym run,
            )
        }

        extern "C" fn run(stack: *mut usize) -> ! {
            $crate::start::set_stack(stack);
            $main();
            $crate::syscalls::exit(0)
        }
    };
}

/// What the kernel put on the stack: `argc`, then the arguments' addresses.
static STACK: AtomicPtr<usize> = AtomicPtr::new(null_mut());

/// Keeps the stack pointer that the program began with; `program!` calls it.
#[doc(hidden)]
pub fn set_stack(stack: *mut usize) {
    STACK.store(stack, Ordering::Relaxed);
}

/// The arguments, of which the first is the program's name.
pub fn arguments() -> impl Iterator<Item = &'static CStr> {
    let stack = STACK.load(Ordering::Relaxed);
    // SAFETY: `_start` left it there, and `argc` lies on top of the stack.
    let argc = unsafe { stack.read() };
    (1..=argc).map(move |place| string(word(stack, place)))
}

/// The environment's strings.
pub fn environment() -> impl Iterator<Item = &'static CStr> {
    let stack = STACK.load(Ordering::Relaxed);
    let words = (1 + arguments().count() + 1..).map(move |place| word(stack, place));
    words.take_while(|&address| address != 0).map(string)
}

/// The path by which the program was started, as the auxiliary vector has it.
pub fn path() -> Option<&'static CStr> {
    const AT_NULL: usize = 0;
    const AT_EXECFN: usize = 31;
    let stack = STACK.load(Ordering::Relaxed);
    let first = 1 + arguments().count() + 1 + environment().count() + 1;
    let mut entries = (first..).step_by(2);
    let entry = entries.find(|&place| [AT_NULL, AT_EXECFN].contains(&word(stack, place)))?;
    (word(stack, entry) == AT_EXECFN).then(|| string(word(stack, entry + 1)))
}

/// A word of what the kernel put on the stack: arguments, a zero, the environment, a zero, and pairs up to one of zeros.
fn word(stack: *const usize, place: usize) -> usize {
    // SAFETY: the callers go no further than to the end, which the words before tell.
    let at = unsafe { stack.add(place) };
    // SAFETY: as above.
    unsafe { at.read() }
}

/// A string at an address that the kernel gave.
fn string(address: usize) -> &'static CStr {
    let text = core::ptr::with_exposed_provenance::<c_char>(address);
    // SAFETY: the kernel put a string there, which ends with a zero and stays.
    unsafe { CStr::from_ptr(text) }
}

/// The program's only argument behind its name, if it has one.
pub fn argument() -> Option<&'static CStr> {
    let stack = STACK.load(Ordering::Relaxed);
    // SAFETY: `_start` left it there, and `argc` lies on top of the stack.
    let argc = unsafe { stack.read() };
    // SAFETY: the addresses of the arguments follow `argc`, and a zero ends them.
    let second = unsafe { stack.add(2) };
    (argc == 2).then(|| {
        // SAFETY: the second argument's address.
        let address = unsafe { second.read() };
        let text = core::ptr::with_exposed_provenance::<c_char>(address);
        // SAFETY: the kernel put a string there, which ends with a zero and stays.
        unsafe { CStr::from_ptr(text) }
    })
}

/// Prints where and why, then exits with Rust's own status for a panic.
#[cfg(panic = "abort")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    crate::print::line(format_args!("{info}"));
    syscalls::exit(101)
}

/// What the unwinder would call for each frame: the compiled `core` names it, and nothing ever calls it, as panics abort.
#[cfg(panic = "abort")]
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// Ends a program that found its own check broken: prints the line, then exits with status 1.
pub fn fail(line: core::fmt::Arguments<'_>) -> ! {
    crate::print::line(line);
    syscalls::exit(1)
}
