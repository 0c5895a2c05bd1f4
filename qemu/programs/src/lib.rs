//! What the ring-3 programs share: a start, the system calls, printing, and blocks that hold registers.
//!
//! Every program in `src/bin` is one static ELF64 file that uses Linux's x86-64 system calls, so that the *same file* runs
//! on a Linux host and under the testbed kernel. The two outputs must be identical to the byte: the host is the oracle, and
//! a kernel that loses a register while it switches between programs shows it as a difference. That asks for three things.
//!
//! - Arithmetic is exact: only `+ - * /`, square root, conversions and compares, which IEEE 754 defines to the last bit.
//!   Sines come from the `libm` crate, never from `FSIN`; `RCPPS` and `RSQRTSS` are approximations that differ from one CPU
//!   to the next; nothing asks CPUID which code to run.
//! - Output holds bit patterns beside readable numbers, and no process number, time or address.
//! - Programs check themselves too: exit status 1 after a line that says what was expected and what was seen.
//!
//! Build them by `cargo build --package pcu9-programs --bins --profile program`. Under that profile a panic aborts and
//! neither `std` nor `libc` is linked. Under a profile that unwinds (`cargo clippy`, `cargo doc`, `cargo build --workspace`)
//! `std` stands in for the panic handler, so that everything is type-checked; those files are not meant to be run.
//!
//! What a program expects of its kernel: the stack of the System V ABI (AMD64 supplement, "Process Initialization": 16-byte
//! aligned, `argc` on top; of the auxiliary vector the path is read) of at least 32 KiB, the FPU in its initial state (x87 control
//! word 0x37F, MXCSR 0x1F80), and the system calls in [`syscalls`], which change `rax`, `rcx` and `r11` and nothing else.

#![no_std]

#[cfg(panic = "unwind")]
extern crate std;

pub mod exec;
pub mod held;
pub mod image;
pub mod initial;
#[cfg(panic = "abort")]
mod memory;
pub mod numbers;
pub mod print;
pub mod signals;
pub mod start;
pub mod syscalls;
pub mod threads;
pub mod wide;
