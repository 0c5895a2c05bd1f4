//! Is a byte of a frame the kernel's? What says nothing must be zero, and the same state must give the same frame, whatever lay on the
//! stack and in the kernel's memory before.

use core::arch::{asm, naked_asm};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use pcu9_programs::held::{CONTROL_INITIAL, MXCSR_INITIAL, Registers};
use pcu9_programs::numbers::{Digest, Random};
use pcu9_programs::signals::{
    AT_EXTENDED_SIZE, AT_MAGIC1, AT_MXCSR, AT_XSTATE_BV, AT_XSTATE_SIZE, Context, Info, SIGUSR1,
    handle,
};
use pcu9_programs::{fail, say};

use super::{begin, checked_handler, hold_for, raise};

/// More than any image has on the machines that this runs on.
const MOST_BYTES: usize = 4096;
/// How much of the stack is made dirty.
const DIRTY_BYTES: usize = 16384;

/// The image that the last handler found.
static SEEN: [AtomicU8; MOST_BYTES] = [const { AtomicU8::new(0) }; MOST_BYTES];
static N_SEEN: AtomicUsize = AtomicUsize::new(0);
/// The program had not used its registers, so the image is known.
static IS_INITIAL: AtomicBool = AtomicBool::new(false);

checked_handler!(copies, on_copy);
extern "C" fn on_copy(_: usize, info: &Info, context: &mut Context) {
    begin("a handler that looks at its frame");
    if context.unused().chain(info.unused()).any(|word| word != 0) {
        fail!("signals: expected zeros where a frame says nothing, saw {context:x?}, {info:x?}");
    }
    let has_xsave = context.has_xsave();
    let image = context.image();
    let bytes = image.bytes();
    if bytes.len() > MOST_BYTES {
        fail!(
            "signals: expected an image of {MOST_BYTES} bytes at the most, saw {}",
            bytes.len()
        );
    }
    for (to, from) in SEEN.iter().zip(bytes) {
        to.store(*from, Ordering::Relaxed);
    }
    N_SEEN.store(bytes.len(), Ordering::Relaxed);
    if IS_INITIAL.load(Ordering::Relaxed) {
        check_initial(bytes, has_xsave);
    }
}

/// The initial state: but for control words, and what the kernel says of the image, all is zero.
fn check_initial(bytes: &[u8], has_xsave: bool) {
    let mut known = [0; MOST_BYTES];
    let mut put = |at: usize, word: u32| {
        known[at..at + 4].copy_from_slice(&word.to_le_bytes());
    };
    put(0, CONTROL_INITIAL);
    put(AT_MXCSR, MXCSR_INITIAL);
    // The mask of MXCSR is the processor's; it and the components are looked at by their own digest.
    let own = |at: usize| {
        AT_MXCSR + 4 == at
            || has_xsave && [AT_MAGIC1 + 8, AT_MAGIC1 + 12, AT_XSTATE_BV].contains(&at)
    };
    if has_xsave {
        let bytes = u32::try_from(bytes.len()).unwrap_or(0);
        put(AT_MAGIC1, 0x4650_5853);
        put(AT_EXTENDED_SIZE, bytes);
        put(AT_XSTATE_SIZE, bytes - 4);
        put(bytes as usize - 4, 0x4650_5845);
    }
    for (at, (seen, known)) in bytes.chunks(4).zip(known.chunks(4)).enumerate() {
        if seen != known && !own(4 * at) {
            fail!(
                "signals: byte {} of an initial image: expected {known:x?}, saw {seen:x?}",
                4 * at
            );
        }
    }
}

/// The stack pointer of the function that this is in.
#[inline(always)]
#[expect(clippy::inline_always, reason = "its own frame is not asked for")]
pub(crate) fn own_stack_pointer() -> usize {
    let rsp;
    // SAFETY: it reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    rsp
}

/// Leaves `byte` all over the stack below.
#[inline(never)]
fn dirty(byte: u8) {
    let mut bytes = [byte; DIRTY_BYTES];
    core::hint::black_box(&mut bytes);
}

/// Two frames of the same state, over different bytes.
fn same_twice(what: &str, registers: &Registers) {
    let mut digests = [0; 2];
    for (digest, byte) in digests.iter_mut().zip([0x5A, 0xC3]) {
        dirty(byte);
        hold_for(what, registers, 0, &raise(SIGUSR1), registers);
        let mut sum = Digest::default();
        let n = N_SEEN.load(Ordering::Relaxed);
        for byte in &SEEN[..n] {
            sum.add(byte.load(Ordering::Relaxed).into());
        }
        *digest = sum.0;
    }
    let [first, second] = digests;
    if first != second {
        fail!("signals: {what}: expected the same frame twice, saw {first:016x} and {second:016x}");
    }
    say!("frames of {what}: {first:016x}");
}

pub(crate) fn run() {
    handle(SIGUSR1, copies, 0, 0);
    let mut empty = Registers::zero();
    empty.depth = 0;
    IS_INITIAL.store(true, Ordering::Relaxed);
    same_twice("initial registers", &empty);
    IS_INITIAL.store(false, Ordering::Relaxed);
    same_twice("zeros", &Registers::zero());
    let mut random = Random(6);
    for _ in 0..4 {
        same_twice("registers in use", &Registers::random(&mut random));
    }
}
