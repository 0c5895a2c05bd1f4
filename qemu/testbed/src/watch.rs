//! The attacker's look: what lies in the FPU's registers, behind an open or a closed gate, when an LWP is about to run.
//!
//! A test turns it on ([`start`]). From then on the whole register file is read at every switch-in, after every `#NM`, and at
//! every return to user mode with the gate closed, and compared with what this LWP may see: the initial state, what it had
//! itself when it left a CPU last, or what an LWP of its domain had when it left this CPU last. Anything else is a leak.
//!
//! The copies are taken here, at every switch-out, and not asked of `pcu9`: a wrong claim of the crate shows.

use core::arch::naked_asm;
use core::arch::x86_64::__cpuid_count;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pcu9::pcu::{Gate, LoadFlags, PcuOps, StateError, UnitId};
use pcu9::x86_64::fpu::{self, Fpu};
use spin::Once;

use crate::cpu::{self, MAX_CPUS};
use crate::line;
use crate::lock::{InterruptsOff, IrqLock};
use crate::lwp::Lwp;
use crate::step;
use crate::testing::missing_clts;

static IS_ON: AtomicBool = AtomicBool::new(false);
static LOOKS_AWAY: AtomicBool = AtomicBool::new(false);
static IS_WIPE_TAKEN_OUT: AtomicBool = AtomicBool::new(false);
static N_LOOKS: AtomicU64 = AtomicU64::new(0);
static N_LEAKS: AtomicU64 = AtomicU64::new(0);

/// What was in a CPU's registers when an LWP of the domain left it last.
static LEFT: [IrqLock<(u64, Registers)>; MAX_CPUS] =
    [const { IrqLock::new((0, Registers::INITIAL)) }; MAX_CPUS];

/// Turns the watch on, with its counters at 0. No LWP has used the FPU yet, or all that have are gone.
pub fn start() {
    N_LOOKS.store(0, Ordering::Relaxed);
    N_LEAKS.store(0, Ordering::Relaxed);
    IS_ON.store(true, Ordering::Relaxed);
}

/// How often it has looked up to now.
pub fn n_looks() -> u64 {
    N_LOOKS.load(Ordering::Relaxed)
}

/// How many leaks were seen up to now.
pub fn n_leaks() -> u64 {
    N_LEAKS.load(Ordering::Relaxed)
}

/// Turns the watch off; gives the number of looks, and of leaks seen.
pub fn stop() -> (u64, u64) {
    IS_ON.store(false, Ordering::Relaxed);
    let looks = N_LOOKS.load(Ordering::Relaxed);
    (looks, N_LEAKS.load(Ordering::Relaxed))
}

/// Has the watch pass over what it would see, or no longer, for a while in which the leak rule is `Trusting`: to be called before that
/// begins, and when no CPU holds anything any more that was left under it.
pub fn look_away(away: bool) {
    LOOKS_AWAY.store(away, Ordering::SeqCst);
}

/// Takes the wipe out of the unit, or puts it back: a watch that then sees nothing is blind.
///
/// # Panics
///
/// In a kernel without debug assertions, whose instructions are counted: its wipe stays in.
pub fn take_wipe_out(out: bool) {
    assert!(
        step::is_instrumented(),
        "the wipe stays in this kernel's unit"
    );
    IS_WIPE_TAKEN_OUT.store(out, Ordering::Relaxed);
}

/// `lwp`, which may use the FPU, leaves this CPU. Interrupts are off.
pub(crate) fn leaves(lwp: &Lwp) {
    if !IS_ON.load(Ordering::Relaxed) {
        return;
    }
    let now = Registers::read();
    if crate::glue::is_gate_open() {
        *lwp.fpu.seen.lock() = now.clone();
    }
    // Who has no domain cannot have changed them.
    if lwp.fpu.domain() != 0 {
        *LEFT[cpu::index()].lock() = (lwp.fpu.domain(), now);
    }
}

/// `lwp` goes on, at the place that `when` names, perhaps to user mode. Interrupts are off.
pub(crate) fn look(lwp: &Lwp, when: &str) {
    let domain = lwp.fpu.domain();
    if !IS_ON.load(Ordering::Relaxed) || domain == 0 || LOOKS_AWAY.load(Ordering::SeqCst) {
        return;
    }
    N_LOOKS.fetch_add(1, Ordering::Relaxed);
    let now = Registers::read();
    if now == Registers::INITIAL || now == *lwp.fpu.seen.lock() {
        return;
    }
    let left = LEFT[cpu::index()].lock();
    if left.0 == domain && left.1 == now {
        return;
    }
    if N_LEAKS.fetch_add(1, Ordering::Relaxed) < 5 && !IS_WIPE_TAKEN_OUT.load(Ordering::Relaxed) {
        let own = lwp.fpu.seen.lock();
        let at = (0..BYTES).find(|&at| now.0[at] != own.0[at]).unwrap_or(0);
        line!(
            "leak: {when}, {} of domain {domain:#x} runs over registers of domain {:#x}: byte {at} is {:#x}, its own was {:#x}",
            lwp.name,
            left.0,
            now.0[at],
            own.0[at]
        );
    }
}

/// The current LWP's registers may go to memory now, for a kernel section.
pub(crate) fn enters_section() {
    note_own();
}

/// The same, since another CPU asks this one to give up what it holds, or it asks itself. Interrupts are off.
pub(crate) fn is_asked() {
    note_own();
}

fn note_own() {
    if IS_ON.load(Ordering::Relaxed) {
        let _off = InterruptsOff::new();
        if crate::glue::is_gate_open() && !crate::glue::in_section() {
            let now = Registers::read();
            crate::sched::with_current(|lwp| *lwp.fpu.seen.lock() = now);
        }
    }
}

/// Does this CPU hold nobody's registers, behind an open or a closed gate? Interrupts are off.
pub(crate) fn sees_nothing() -> bool {
    Registers::read() == Registers::INITIAL
}

/// The current LWP, `lwp`, is about to have its registers in memory alone, or to give them up. What it has instead is told by
/// [`takes`] or [`starts_over`] once it is so, and before it can be switched: a kernel section in an interrupt may come in between, and
/// looks at the registers that are still there.
pub(crate) fn saves(lwp: &Lwp) {
    if IS_ON.load(Ordering::Relaxed) {
        let _off = InterruptsOff::new();
        leaves(lwp);
    }
}

/// The current LWP, `lwp`, has the registers in a signal's frame from now on, as they stand there.
pub(crate) fn takes(lwp: &Lwp, frame: &[u8]) {
    if IS_ON.load(Ordering::Relaxed) {
        *lwp.fpu.seen.lock() = Registers::of_frame(frame);
    }
}

/// The registers of `lwp`, which stands still, are those of a register set now.
pub(crate) fn replaced(lwp: &Lwp, regset: &[u8]) {
    if IS_ON.load(Ordering::Relaxed) {
        *lwp.fpu.seen.lock() = Registers::of_regset(regset);
    }
}

/// `child` is a copy of the current LWP, `parent`.
pub(crate) fn forks(parent: &Lwp, child: &Lwp) {
    if IS_ON.load(Ordering::Relaxed) {
        let _off = InterruptsOff::new();
        let own = if crate::glue::is_gate_open() {
            Registers::read()
        } else {
            parent.fpu.seen.lock().clone()
        };
        *child.fpu.seen.lock() = own;
    }
}

/// `lwp` starts over: nothing that it had may be seen any more.
pub(crate) fn starts_over(lwp: &Lwp) {
    *lwp.fpu.seen.lock() = Registers::INITIAL;
}

/// The register file, as XSAVE has it in the standard format: FXSAVE's image, and behind a header the upper halves of YMM, the
/// opmasks, the upper halves of ZMM and ZMM16 to 31 where this machine has its place for them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct Registers([u8; BYTES]);

/// As far as AVX-512 reaches on Intel's processors, which leave a hole; AMD's leave none.
const BYTES: usize = 2688;
/// The components behind the header, if `XCR0` has them: AVX, and the three of AVX-512.
const EXTENDED: [u8; 4] = [2, 5, 6, 7];

/// Where the components of [`EXTENDED`] that this machine enables lie, by their numbers. Intel SDM, volume 2A, "CPUID", leaf 0DH.
fn extended() -> impl Iterator<Item = (u8, Range<usize>)> {
    static PLACES: Once<[Range<usize>; EXTENDED.len()]> = Once::new();
    let places = PLACES.call_once(|| {
        EXTENDED.map(|component| {
            if fpu::features().xcr0() & 1 << component == 0 {
                return 0..0;
            }
            let leaf = __cpuid_count(0xd, component.into());
            let place = leaf.ebx as usize..leaf.ebx as usize + leaf.eax as usize;
            assert!(
                place.start >= 576 && place.end <= BYTES && !place.is_empty(),
                "component {component} at {place:?}"
            );
            place
        })
    });
    EXTENDED.into_iter().zip(places.iter().cloned())
}

impl Registers {
    /// Intel SDM, volume 1, "Legacy Region of an XSAVE Area": control word 0x037f, MXCSR 0x1f80, all else 0.
    pub(crate) const INITIAL: Self = {
        let mut bytes = [0; BYTES];
        (bytes[0], bytes[1]) = (0x7f, 0x03);
        (bytes[24], bytes[25]) = (0x80, 0x1f);
        Self(bytes)
    };

    /// Reads this CPU's registers through the gate, which stays as it is. Interrupts are off.
    fn read() -> Self {
        let mut image = Self([0; BYTES]);
        // SAFETY: the image is large and aligned enough for these components; interrupts are off.
        unsafe { read_registers(&mut image, fpu::features().xcr0()) };
        image.normal()
    }

    /// Those in a signal's frame, of which `frame` may be the beginning. A legacy frame has no header: x87 and SSE count.
    fn of_frame(frame: &[u8]) -> Self {
        let mut image = Self::places_of(frame);
        if image.0[464..468] == [0; 4] {
            image.0[512..].fill(0);
            image.0[512] = 3;
        }
        image.normal()
    }

    /// Those in a debugger's register set, which has a header wherever the processor has XSAVE.
    fn of_regset(regset: &[u8]) -> Self {
        Self::places_of(regset).normal()
    }

    /// What this machine has of an image, which may be short.
    fn places_of(bytes: &[u8]) -> Self {
        let mut image = Self([0; BYTES]);
        let low = (0, 0..576);
        for (_, place) in extended().chain([low]) {
            let end = place.end.min(bytes.len());
            if place.start < end {
                image.0[place.start..end].copy_from_slice(&bytes[place.start..end]);
            }
        }
        image
    }

    /// The contents alone: components that the processor calls initial are made so, what is not state is cleared.
    fn normal(mut self) -> Self {
        if fpu::features().xcr0() != 0 {
            let in_use = self.0[512];
            let is_absent = |component: u8| in_use & 1 << component == 0;
            if is_absent(0) {
                self.0[..24].copy_from_slice(&Self::INITIAL.0[..24]);
                self.0[32..160].fill(0);
            }
            if is_absent(1) {
                self.0[160..416].fill(0);
            }
            for (component, place) in extended() {
                if is_absent(component) {
                    self.0[place].fill(0);
                }
            }
        }
        // Last instruction and operand (kept by AMD's processors only after an error), MXCSR_MASK, unused, header.
        self.0[6..24].fill(0);
        self.0[28..32].fill(0);
        self.0[416..576].fill(0);
        self
    }
}

/// Saves the registers to `image`, the components of `mask`, or by FXSAVE if it is 0; `CR0.TS` is as before afterwards.
#[unsafe(naked)]
#[unsafe(link_section = ".text.fpu")]
unsafe extern "C" fn read_registers(image: &mut Registers, mask: u64) {
    naked_asm!(
        "mov r8, cr0",
        "test r8b, 8",
        "jz 2f",
        "clts",
        "2: test rsi, rsi",
        "jz 3f",
        "mov eax, esi",
        "xor edx, edx",
        "xsave64 [rdi]",
        "jmp 4f",
        "3: fxsave64 [rdi]",
        "4: test r8b, 8",
        "jz 5f",
        "mov cr0, r8",
        "5: ret",
    );
}

/// The FPU as this kernel's table has it: pcu9's own unit, whose wipe a test can take out, whose CLTS it can put in the wrong
/// place, and between whose steps it can have NMIs. Where instructions are counted, without debug assertions, it is pcu9's own alone.
pub(crate) enum WatchedFpu {}

// SAFETY: pcu9's unit does all of it; only a test that looks for leaks takes the wipe out, and only one that looks for `#NM`
// opens the gate late.
unsafe impl PcuOps<Lwp> for WatchedFpu {
    const ID: UnitId = fpu::FPU;

    unsafe fn state_save(lwp: NonNull<Lwp>) {
        step::here();
        // SAFETY: the same promises.
        unsafe { <Fpu>::state_save(lwp) };
        step::here();
    }

    unsafe fn state_load(lwp: NonNull<Lwp>, flags: LoadFlags) -> Result<(), StateError> {
        step::here();
        // SAFETY: the same promises.
        let result = unsafe { <Fpu>::state_load(lwp, flags) };
        step::here();
        missing_clts::open_late();
        result
    }

    unsafe fn state_release(lwp: NonNull<Lwp>) {
        step::here();
        // SAFETY: the same promises.
        unsafe { <Fpu>::state_release(lwp) };
        step::here();
    }

    unsafe fn unit_enable() {
        if missing_clts::leaves_the_gate_closed() {
            return;
        }
        step::here();
        // SAFETY: the same promises.
        unsafe { <Fpu as PcuOps<Lwp>>::unit_enable() };
        step::here();
    }

    unsafe fn unit_trap() {
        step::here();
        // SAFETY: the same promises.
        unsafe { <Fpu as PcuOps<Lwp>>::unit_trap() };
        step::here();
    }

    unsafe fn state_wipe() {
        if !(step::is_instrumented() && IS_WIPE_TAKEN_OUT.load(Ordering::Relaxed)) {
            step::here();
            // SAFETY: the same promises.
            unsafe { <Fpu as PcuOps<Lwp>>::state_wipe() };
            step::here();
        }
    }

    unsafe fn unit_flush(lwp: NonNull<Lwp>, gate: Gate) {
        step::here();
        // SAFETY: the same promises.
        unsafe { <Fpu>::unit_flush(lwp, gate) };
        step::here();
    }

    unsafe fn state_copy(parent: NonNull<Lwp>, child: NonNull<Lwp>) {
        step::here();
        // SAFETY: the same promises.
        unsafe { <Fpu>::state_copy(parent, child) };
        step::here();
    }

    unsafe fn is_initial(lwp: NonNull<Lwp>) -> bool {
        // SAFETY: the same promises.
        unsafe { <Fpu>::is_initial(lwp) }
    }
}
