//! Exceptions whose handlers repair what they are about, by the frame.

use core::arch::{asm, naked_asm};
use core::sync::atomic::{AtomicUsize, Ordering};

use pcu9_programs::held::MXCSR_INITIAL;
use pcu9_programs::signals::{
    AT_FCW, AT_FSW, AT_MXCSR, AT_ST, AT_XSTATE_BV, Context, Info, SA_ONSTACK, SIGFPE, SIGILL,
    SIGSEGV, SIGUSR1, handle,
};
use pcu9_programs::syscalls::{SCHED_YIELD, SIGALTSTACK, TGKILL, call, exit, getpid, zeroed};
use pcu9_programs::{fail, say};

use super::{begin, checked_handler, expect, n_handled};

const FPE_FLTDIV: i32 = 3;
/// Division by zero: the flag in both status words, the mask in x87's control word, the mask in MXCSR.
const ZERO_DIVIDE: u32 = 1 << 2;
const MXCSR_ZERO_MASK: u32 = 1 << 9;
/// Round up, in MXCSR.
const ROUND_UP: u32 = 2 << 13;
/// 2.5 with 80 bits.
const ANSWER: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 0xA0, 0, 0x40];
const NOWHERE: usize = 0x1234_5678_9000;

/// What a handler of a wrong address puts in its place.
static GOOD: AtomicUsize = AtomicUsize::new(0);

checked_handler!(repairs_x87, on_x87);
extern "C" fn on_x87(_: usize, info: &Info, context: &mut Context) {
    begin("a handler of x87's exception");
    expect("SIGFPE's code", FPE_FLTDIV, info.code);
    expect("SIGFPE's address", context.rip, info.value);
    let has_xsave = context.has_xsave();
    let mut image = context.image();
    expect("x87's exceptions", ZERO_DIVIDE, image.word(AT_FSW) & 0x3F);
    image.change(AT_FSW, 0, 0x80FF);
    image.change(AT_FCW, ZERO_DIVIDE, 0);
    image.change(AT_MXCSR, ROUND_UP, 0);
    image.put(AT_ST, &ANSWER);
    if has_xsave {
        image.change(AT_XSTATE_BV, 3, 0);
    }
}

/// The division traps; the program goes on with the handler's answer and control words.
fn x87() {
    handle(SIGFPE, repairs_x87, 0, 0);
    let before = n_handled();
    let (mut control, mut mxcsr, mut answer) = (0x037B_u16, 0_u32, 0.0_f64);
    // SAFETY: the addresses are of numbers of these lengths; the x87 stack is empty and both control words are initial at the end.
    unsafe {
        asm!(
            "fninit",
            "fldcw [{control}]",
            "fldz",
            "fld1",
            "fdiv st, st(1)",
            "fwait",
            "fstp qword ptr [{answer}]",
            "fnstcw [{control}]",
            "stmxcsr [{mxcsr}]",
            "fninit",
            "ldmxcsr [{initial}]",
            control = in(reg) &raw mut control,
            mxcsr = in(reg) &raw mut mxcsr,
            answer = in(reg) &raw mut answer,
            initial = in(reg) &MXCSR_INITIAL,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            options(nostack),
        );
    }
    expect("handlers of x87's exception", 1, n_handled() - before);
    expect("x87's control word", 0x037F, control.into());
    expect("MXCSR", MXCSR_INITIAL | ROUND_UP, mxcsr);
    say!(
        "1 / 0 by x87, repaired: {answer:?} {:016x}",
        answer.to_bits()
    );
}

checked_handler!(leaves_pending, on_leave_pending);
extern "C" fn on_leave_pending(_: usize, _: &Info, context: &mut Context) {
    begin("a handler that leaves an exception pending");
    let has_xsave = context.has_xsave();
    let mut image = context.image();
    image.change(AT_FCW, 0, ZERO_DIVIDE);
    // The exception's flag, and that one is pending.
    image.change(AT_FSW, ZERO_DIVIDE | 0x8080, 0);
    if has_xsave {
        image.change(AT_XSTATE_BV, 3, 0);
    }
}

/// The image of a handler has an exception pending: it is the program's, at its next instruction that waits, and nobody else's before.
fn pending() {
    handle(SIGUSR1, leaves_pending, 0, 0);
    handle(SIGFPE, repairs_x87, 0, 0);
    let before = n_handled();
    let own = getpid();
    let (mut control, mut answer) = (0_u16, 0.0_f64);
    // SAFETY: TGKILL and sched_yield(2) touch no memory, SYSCALL changes RCX and R11 and its result is in RAX; the addresses are of
    // numbers of these lengths; both control words are initial and the x87 stack is empty at the end.
    unsafe {
        asm!(
            "fninit",
            "fldz",
            "syscall",
            "mov r14d, 20",
            "2: mov eax, {yield_}",
            "syscall",
            "dec r14d",
            "jnz 2b",
            "fwait",
            "fstp qword ptr [r13]",
            "fnstcw [r12]",
            "fninit",
            "ldmxcsr [r15]",
            yield_ = const SCHED_YIELD,
            in("r12") &raw mut control,
            in("r13") &raw mut answer,
            out("r14") _,
            in("r15") &MXCSR_INITIAL,
            inlateout("rax") TGKILL => _,
            in("rdi") own,
            in("rsi") own,
            in("rdx") SIGUSR1,
            clobber_abi("sysv64"),
            options(nostack),
        );
    }
    expect("handlers of a pending exception", 2, n_handled() - before);
    expect("x87's control word", 0x037F, control);
    expect("the handler's answer", 2.5_f64.to_bits(), answer.to_bits());
    say!("an exception that a handler left pending, repaired");
}

checked_handler!(repairs_simd, on_simd);
extern "C" fn on_simd(_: usize, info: &Info, context: &mut Context) {
    begin("a handler of SSE's exception");
    expect("SIGFPE's code", FPE_FLTDIV, info.code);
    let mut image = context.image();
    expect("SSE's exceptions", ZERO_DIVIDE, image.word(AT_MXCSR) & 0x3F);
    image.change(AT_MXCSR, MXCSR_ZERO_MASK | ROUND_UP, 0x3F);
}

/// The division is made again with the exception masked.
pub(crate) fn run_simd() {
    handle(SIGFPE, repairs_simd, 0, 0);
    let unmasked = MXCSR_INITIAL & !MXCSR_ZERO_MASK;
    let (mut mxcsr, mut answer) = (0_u32, 1.0_f64);
    // SAFETY: the addresses are of numbers of these lengths; MXCSR is initial at the end.
    unsafe {
        asm!(
            "ldmxcsr [{unmasked}]",
            "divsd {answer}, {zero}",
            "stmxcsr [{mxcsr}]",
            "ldmxcsr [{initial}]",
            unmasked = in(reg) &raw const unmasked,
            initial = in(reg) &MXCSR_INITIAL,
            mxcsr = in(reg) &raw mut mxcsr,
            answer = inout(xmm_reg) answer,
            zero = in(xmm_reg) 0.0_f64,
            options(nostack),
        );
    }
    if n_handled() == 0 && mxcsr & ZERO_DIVIDE != 0 {
        say!("NOT RUN: this machine raises no exception of SSE");
        exit(2);
    }
    expect("handlers of SSE's exception", 1, n_handled());
    let expected = MXCSR_INITIAL | ROUND_UP | ZERO_DIVIDE;
    expect("MXCSR", expected, mxcsr);
    say!("1 / 0 by SSE, repaired: {answer:?} {mxcsr:#x}");
}

checked_handler!(repairs_address, on_address);
extern "C" fn on_address(_: usize, info: &Info, context: &mut Context) {
    begin("a handler of a wrong address");
    expect("SIGSEGV's address", NOWHERE as u64, info.value);
    let alternate = super::frames::own_stack_pointer();
    let distance = alternate.wrapping_sub(STACK_START.load(Ordering::Relaxed));
    expect("is it on its stack", true, distance < STACK_BYTES);
    context.rdi = GOOD.load(Ordering::Relaxed) as u64;
}

checked_handler!(skips, on_skip);
extern "C" fn on_skip(_: usize, _: &Info, context: &mut Context) {
    begin("a handler of an invalid instruction");
    context.rip += 2;
}

/// The alternate stack.
static STACK_START: AtomicUsize = AtomicUsize::new(0);
const STACK_BYTES: usize = 64 << 10;

/// A wrong address and an invalid instruction while x87 and an XMM register are in use.
fn integers() {
    let stack = zeroed(STACK_BYTES / 8).as_mut_ptr().expose_provenance();
    STACK_START.store(stack, Ordering::Relaxed);
    let words = [stack, 0, STACK_BYTES];
    // SAFETY: sigaltstack(2) reads the three words; the stack is nobody else's.
    let result = unsafe { call(SIGALTSTACK, [words.as_ptr().expose_provenance(), 0, 0, 0]) };
    if result != 0 {
        fail!("signals: expected an alternate stack, saw error {result}");
    }
    handle(SIGSEGV, repairs_address, SA_ONSTACK, 0);
    handle(SIGILL, skips, 0, 0);
    let value = 0x0123_4567_89AB_CDEF_u64;
    GOOD.store((&raw const value).expose_provenance(), Ordering::Relaxed);
    let (before, seen, xmm): (u32, u64, u64);
    let mut pi = 0.0_f64;
    before = n_handled();
    // SAFETY: RDI is a good address when its instruction is executed at last; the x87 stack is empty at the end; handlers keep what
    // they do not change on purpose.
    unsafe {
        asm!(
            "fldpi",
            "movq {kept}, {value}",
            "mov {seen}, [rdi]",
            "ud2",
            "fstp qword ptr [{pi}]",
            "movq {xmm}, {kept}",
            inout("rdi") NOWHERE => _,
            value = in(reg) value,
            pi = in(reg) &raw mut pi,
            kept = out(xmm_reg) _,
            seen = out(reg) seen,
            xmm = out(reg) xmm,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
        );
    }
    expect("handlers of two exceptions", 2, n_handled() - before);
    if seen != value || xmm != value || pi.to_bits() != core::f64::consts::PI.to_bits() {
        fail!("signals: expected {value:x} twice and pi, saw {seen:x}, {xmm:x}, {pi}");
    }
    say!("a wrong address and an invalid instruction, repaired");
}

pub(crate) fn run() {
    x87();
    pending();
    integers();
}
