//! Frames that a handler has corrupted: `rt_sigreturn` ends the process, and nobody else notices.
//!
//! A child a corruption, each with all registers in use, while the parent holds registers of its own. Here are corruptions that Linux
//! refuses too. With the argument `all` there are all others, those as well that a processor lets pass, or that Linux takes for an old
//! program's.
//! A kernel that is asked for all of them says in its log what it found, in this order.

#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use pcu9_programs::held::Registers;
use pcu9_programs::numbers::Random;
use pcu9_programs::signals::{
    AT_EXTENDED_SIZE, AT_MAGIC1, AT_MXCSR, AT_MXCSR_MASK, AT_XCOMP_BV, AT_XSTATE_BV,
    AT_XSTATE_SIZE, Context, Info, SIGSEGV, SIGUSR1, handle,
};
use pcu9_programs::start::argument;
use pcu9_programs::syscalls::{MMAP, MUNMAP, TGKILL, WAIT4, call, exit, fork, getpid};
use pcu9_programs::{fail, program, say};

program!(main);

/// What a handler does to its frame.
#[derive(Clone, Copy, Debug)]
enum Corruption {
    /// Sets bits of four bytes of the image.
    Set(usize, u32),
    /// Writes four bytes of the image.
    Put(usize, u32),
    /// Writes the last four bytes of the image.
    PutLast(u32),
    /// Lets the image lie elsewhere.
    Move(usize),
    /// Lets the image lie at the end of a page, the next one not mapped, so many bytes of it.
    CutOff(usize),
    /// Lets the program go on elsewhere.
    Rip(u64),
    /// Gives it other segments.
    Segments(u64),
    /// None: the frame does not come about, since the stack pointer is here.
    Stack(usize),
    /// Nor here, so many bytes above the beginning of the memory that there is.
    ShortStack(usize),
}

use Corruption::{CutOff, Move, Put, PutLast, Rip, Segments, Set, ShortStack, Stack};

/// Where nobody has anything, and where the kernels have.
const NOWHERE: usize = 0x1234_5678_9000;
const KERNEL: usize = 0xFFFF_FFFF_8010_0000;

/// What Linux refuses too: on every machine, and in an image with a header.
const FEW: [Corruption; 4] = [
    Set(AT_MXCSR, 1 << 16),
    Move(NOWHERE),
    Rip(KERNEL as u64),
    Stack(NOWHERE),
];
const FEW_IN_HEADERS: [Corruption; 2] = [Set(AT_XSTATE_BV + 4, 1 << 30), Set(528, 1)];

/// More of that kind, for the argument `all`.
const MORE: [Corruption; 6] = [
    Move(KERNEL),
    CutOff(64),
    Rip(1 << 62),
    Segments(0x13),
    Stack(KERNEL),
    ShortStack(1000),
];

/// `FP_XSTATE_MAGIC1`.
const MAGIC1: u32 = 0x4650_5853;
const PAGE_BYTES: usize = 4096;

static N_HANDLED: AtomicU32 = AtomicU32::new(0);
/// Which corruption the next handler makes, and whether its frame has a header.
static NEXT: AtomicUsize = AtomicUsize::new(usize::MAX);
static HAS_XSAVE: AtomicU32 = AtomicU32::new(0);
/// The bits of `MXCSR` that the processor has, by the first frame.
static MXCSR_MASK: AtomicU32 = AtomicU32::new(0);

/// Every single bit that must be clear, and every number that must be true.
fn all(has_xsave: bool) -> impl Iterator<Item = Corruption> {
    // AMD's processors have bit 17, "misaligned".
    let mask = MXCSR_MASK.load(Ordering::Relaxed);
    let mxcsr = (16..32)
        .map(|bit| 1 << bit)
        .filter(move |bit| mask & bit == 0);
    let mxcsr = mxcsr.map(|bit| Set(AT_MXCSR, bit));
    let header = (528..576).map(|at| Set(at & !3, 0x80 << (8 * (at % 4))));
    // Components up to 9 may be this machine's.
    let xstate_bv = (10..64).map(|bit| Set(AT_XSTATE_BV + bit / 32 * 4, 1 << (bit % 32)));
    let xcomp_bv = (0..64).map(|bit| Set(AT_XCOMP_BV + bit / 32 * 4, 1 << (bit % 32)));
    let sizes = [
        // A frame with a header has 580 bytes at the least.
        CutOff(578),
        Put(AT_MAGIC1, 1),
        Put(AT_MAGIC1, !MAGIC1),
        Put(AT_EXTENDED_SIZE, 0),
        Put(AT_EXTENDED_SIZE, 579),
        Put(AT_XSTATE_SIZE, 0),
        Put(AT_XSTATE_SIZE, 575),
        Put(AT_XSTATE_SIZE, u32::MAX),
        PutLast(0),
        PutLast(MAGIC1),
    ];
    let with_header = header.chain(xstate_bv).chain(xcomp_bv).chain(sizes);
    let anywhere = MORE.into_iter().chain(mxcsr);
    anywhere.chain(with_header.filter(move |_| has_xsave))
}

/// The corruption of this number.
fn corruption(number: usize, has_xsave: bool) -> Option<Corruption> {
    let in_headers = FEW_IN_HEADERS.into_iter().filter(move |_| has_xsave);
    let few = FEW.into_iter().chain(in_headers);
    few.chain(all(has_xsave).filter(|_| argument().is_some()))
        .nth(number)
}

extern "C" fn corrupt(_: usize, _: &Info, context: &mut Context) {
    N_HANDLED.fetch_add(1, Ordering::Relaxed);
    HAS_XSAVE.store(context.has_xsave().into(), Ordering::Relaxed);
    let number = NEXT.load(Ordering::Relaxed);
    if number == usize::MAX {
        let mask = context.image().word(AT_MXCSR_MASK);
        MXCSR_MASK.store(mask, Ordering::Relaxed);
        return;
    }
    let Some(corruption) = corruption(number, context.has_xsave()) else {
        return;
    };
    match corruption {
        Set(at, bits) => context.image().change(at, bits, 0),
        Put(at, word) => context.image().put(at, &word.to_le_bytes()),
        PutLast(word) => {
            let mut image = context.image();
            let at = image.bytes().len() - 4;
            image.put(at, &word.to_le_bytes());
        }
        Move(to) => context.fpstate = to,
        CutOff(bytes) => context.fpstate = cut_off(context, bytes),
        Rip(to) => context.rip = to,
        Segments(to) => context.segments = to,
        Stack(_) | ShortStack(_) => fail!("badframes: expected no frame without a stack"),
    }
}

/// A mapped page with an unmapped one behind and in front of it: its beginning and end.
fn lonely_page() -> (usize, usize) {
    const READ_WRITE: usize = 3;
    const PRIVATE_ANONYMOUS: usize = 0x22;
    // SAFETY: without a fixed address mmap(2) takes no memory that is in use.
    let start = unsafe { call(MMAP, [0, 3 * PAGE_BYTES, READ_WRITE, PRIVATE_ANONYMOUS]) };
    let Ok(start) = usize::try_from(start) else {
        fail!("badframes: expected memory, saw error {start}");
    };
    for page in [start, start + 2 * PAGE_BYTES] {
        // SAFETY: the page is this function's alone.
        let result = unsafe { call(MUNMAP, [page, PAGE_BYTES, 0, 0]) };
        if result != 0 {
            fail!("badframes: expected memory to be given back, saw error {result}");
        }
    }
    (start + PAGE_BYTES, start + 2 * PAGE_BYTES)
}

/// The first bytes of the image at the end of a page, the next of which is not mapped.
fn cut_off(context: &mut Context, bytes: usize) -> usize {
    let (_, end) = lonely_page();
    let image = context.image();
    let to = core::ptr::with_exposed_provenance_mut::<u8>(end - bytes);
    // SAFETY: so many bytes are left of the page, and the image has more.
    unsafe { to.copy_from_nonoverlapping(image.bytes().as_ptr(), bytes) };
    end - bytes
}

/// Holds registers over a call; its result. They must be there afterwards.
fn hold(who: &str, registers: &Registers, call: [usize; 5]) -> isize {
    // SAFETY: a signal whose handler changes its frame, and wait4(2), which writes a word that is ours.
    let (result, seen) = unsafe { registers.across(0, &call) };
    if let Err(lost) = registers.check(&seen) {
        fail!("badframes: {who}: {lost}");
    }
    result
}

fn raise(registers: &Registers) {
    let own = getpid();
    hold(
        "a process that signals itself",
        registers,
        [TGKILL, own, own, SIGUSR1, 0],
    );
}

/// Sends itself the signal while the stack pointer is `rsp`.
fn raise_on(rsp: usize) {
    let own = getpid();
    // SAFETY: the stack pointer is put back, if the program goes on at all.
    unsafe {
        asm!(
            "xchg rsp, r12",
            "syscall",
            "xchg rsp, r12",
            inout("r12") rsp => _,
            inlateout("rax") TGKILL => _,
            in("rdi") own,
            in("rsi") own,
            in("rdx") SIGUSR1,
            clobber_abi("sysv64"),
        );
    }
}

/// A child that corrupts its frame so, and the signal that ended it.
fn end_of(number: usize, corruption: Corruption, random: &mut Random) -> u32 {
    let [childs, parents] = [Registers::random(random), Registers::random(random)];
    let child = fork();
    if child == 0 {
        NEXT.store(number, Ordering::Relaxed);
        match corruption {
            Stack(rsp) => raise_on(rsp),
            ShortStack(bytes) => raise_on(lonely_page().0 + bytes),
            _ => raise(&childs),
        }
        exit(0);
    }
    let mut status = 0_u32;
    let at = (&raw mut status).expose_provenance();
    let ended = hold("the parent", &parents, [WAIT4, child, at, 0, 0]);
    if ended != child.cast_signed() || status & 0xFF00 != 0 {
        fail!("badframes: expected the end of a child, saw {ended} and {status:#x}");
    }
    // Bit 7 says whether a core was dumped, which is the machine's choice.
    status & 0x7F
}

fn main() {
    let what = match argument() {
        None => "that Linux refuses too",
        Some(_) => "of every kind",
    };
    say!("badframes: corrupted frames {what}");
    handle(SIGUSR1, corrupt, 0, 0);
    let mut random = Random(13);
    raise(&Registers::random(&mut random));
    if N_HANDLED.load(Ordering::Relaxed) != 1 {
        fail!("badframes: expected a handler to run");
    }
    let has_xsave = HAS_XSAVE.load(Ordering::Relaxed) == 1;
    let mut number = 0;
    while let Some(corruption) = corruption(number, has_xsave) {
        let signal = end_of(number, corruption, &mut random);
        if signal as usize != SIGSEGV {
            fail!(
                "badframes: number {number}, {corruption:x?}: expected signal {SIGSEGV}, saw {signal}"
            );
        }
        number += 1;
    }
    // How many there are depends on the machine, so the demo's program does not say.
    if argument().is_some() {
        say!("{number} corruptions");
    }
    say!("each of them ended its process, and no other");
}
