//! The FPU as a unit: x87, SSE, AVX and AVX-512 registers, gated by `CR0.TS`.
//!
//! - [`Fpu`]: the unit, for the kernel's table: `UnitOps::of::<Fpu>()`.
//! - [`FpuArea`]: where an LWP's registers are saved; the kernel's LWP implements it. [`Area`]: memory that is fit for it.
//! - [`init_cpu`]: per-CPU start.
//! - [`foreign`]: images from outside and for outside: signal frames, debuggers, core dumps, migration.
//!
//! An image is saved by the [`SaveInstruction`] that is the best on this machine, always with the same requested-feature bitmap,
//! in the one [`Format`] that goes with it. `PKRU` and supervisor states are not part of it: they take effect in the kernel too, so
//! the kernel switches them itself.
//!
//! What may stay behind the closed gate: on AMD's and Hygon's processors the address, operand and opcode of another domain's last
//! x87 instruction, where nothing but these is left of its x87 state. Such a state counts as initial, for XINUSE as for an image,
//! so the cheap wipe passes over it, and under a policy that writes through there is no wipe at all. No instruction
//! reads them there: whatever opens the gate for an LWP is a restore, which loads or wipes these first, and AMD's processors are
//! not known to run past `#NM` ([`LazyFp`](crate::x86_64::LazyFp)). A kernel section may find them beside its otherwise initial
//! registers: FXSAVE and XSAVE do not write them before an unmasked error of the section's own has put others in their place.
//! `tests/fpu_mock` lets this pass behind the closed gate and in sections alone.

mod area;
mod components;
mod detect;
mod errata;
pub mod foreign;
mod image;
mod layout;

use core::marker::PhantomData;
use core::ptr::NonNull;

use x86_64::registers::control::{Cr0Flags, Cr4Flags};
use x86_64::registers::model_specific::EferFlags;

pub use self::area::{AREA_ALIGN, Area, AreaError, FpuArea, Refused};
pub use self::detect::{
    Detected, Format, FpuFeatures, InitError, Limits, SaveInstruction, TooLate,
};

pub(super) use self::detect::{TILE_DATA, TILES};
pub(super) use self::image::{COMPACTED, LEGACY_AND_HEADER, XCOMP_BV};
pub(super) use self::layout::Scratch;

use super::machine::{Faulted, Machine, Native};
use crate::pcu::{Gate, LoadFlags, PcuFlags, PcuOps, StateError, UnitId};

/// The FPU's place in the kernel's table.
pub const FPU: UnitId = UnitId::new(0);

/// `IA32_XSS`: the supervisor components that XSAVES saves. Intel SDM, volume 4.
const IA32_XSS: u32 = 0xda0;
const FFXSR: u64 = EferFlags::FAST_FXSAVE_FXRSTOR.bits();
const TASK_SWITCHED: u64 = Cr0Flags::TASK_SWITCHED.bits();

/// What this machine's FPU has, found once: [`FpuFeatures::of`] the [`Native`] machine.
pub fn features() -> &'static FpuFeatures {
    FpuFeatures::of::<Native>()
}

/// The bits of `MXCSR` that the processor has, as FXSAVE reports them; [`init_cpu`] finds them out. Until then, and where the
/// processor reports 0, all but "denormals are zeros". Intel SDM, volume 1, "Guidelines for Writing to the MXCSR Register".
pub fn mxcsr_mask() -> u32 {
    Fpu::<Native>::mxcsr_mask()
}

/// Makes fresh memory an area that holds the initial state.
///
/// Zeros are not that: `MXCSR` would be 0, every SSE exception unmasked, for an LWP whose memory is declared its state
/// ([`Pcu::discard`](crate::pcu::Pcu::discard) with `Valid`) before anything was saved.
///
/// # Safety
///
/// `area` is [`FpuFeatures::area_bytes`] writable bytes at a multiple of [`AREA_ALIGN`] that nobody else uses.
pub unsafe fn prepare(area: NonNull<u8>) {
    // SAFETY: the caller promises the area.
    unsafe { Fpu::<Native>::prepare(area) };
}

/// Starts the FPU of this CPU: [`Fpu::init_cpu`] on the [`Native`] machine.
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
pub unsafe fn init_cpu() -> Result<(), InitError> {
    // SAFETY: the caller promises ring 0 and soft-float code.
    unsafe { Fpu::<Native>::init_cpu() }
}

/// The unit. Its use is detected by `#NM` while `CR0.TS` is set.
#[derive(Debug)]
pub struct Fpu<M = Native> {
    machine: PhantomData<M>,
}

impl<M: Machine> Fpu<M> {
    /// [`prepare`], for an area of this machine's.
    ///
    /// # Safety
    ///
    /// As there.
    pub unsafe fn prepare(area: NonNull<u8>) {
        // SAFETY: the caller promises the area.
        unsafe { image::write_initial(area, FpuFeatures::of::<M>()) };
    }

    /// [`mxcsr_mask`], of this machine.
    pub fn mxcsr_mask() -> u32 {
        let found = M::detected().mxcsr_mask.get().copied();
        found.unwrap_or(image::MXCSR_MASK_DEFAULT)
    }

    /// Starts the FPU of this CPU: `CR0.MP` and `NE`, `CR4.OSFXSR`, `OSXMMEXCPT` and `OSXSAVE`, `XCR0`, `IA32_XSS`,
    /// initial registers, and the gate closed, as a new [`CpuPcu`](crate::pcu::CpuPcu) assumes. A kernel that enables more in `XCR0`
    /// (`PKRU`, or AMX by [`amx`](crate::x86_64::amx)) does so afterwards, and switches it itself.
    ///
    /// Context: once on each CPU, before an LWP runs there. Source: Intel SDM, volume 3A, "Initializing the x87
    /// FPU/SSE/XSAVE".
    ///
    /// # Errors
    ///
    /// [`InitError`] when this CPU differs from the first one, so that no image would fit both.
    ///
    /// # Safety
    ///
    /// In ring 0, with interrupts off, in a kernel that uses no FPU register itself.
    pub unsafe fn init_cpu() -> Result<(), InitError> {
        let features = FpuFeatures::of::<M>();
        features.check_this_cpu::<M>()?;
        let set = (Cr0Flags::MONITOR_COPROCESSOR | Cr0Flags::NUMERIC_ERROR).bits();
        let clear = (Cr0Flags::EMULATE_COPROCESSOR | Cr0Flags::TASK_SWITCHED).bits();
        // SAFETY: ring 0 is promised.
        let cr0 = unsafe { M::read_cr0() };
        // SAFETY: ring 0; these bits change nothing for soft-float code.
        unsafe { M::write_cr0((cr0 | set) & !clear) };
        let mut set = Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE;
        if features.xcr0() != 0 {
            set |= Cr4Flags::OSXSAVE;
        }
        // SAFETY: ring 0 is promised.
        let cr4 = unsafe { M::read_cr4() };
        // SAFETY: ring 0; CPUID shows each bit that is set.
        unsafe { M::write_cr4(cr4 | set.bits()) };
        // SAFETY: ring 0 is promised.
        let efer = unsafe { M::read_efer() };
        if efer & FFXSR != 0 {
            // With this bit FXSAVE in ring 0 leaves XMM out. AMD APM, volume 2, "Fast FXSAVE/FXRSTOR".
            // SAFETY: ring 0; nothing but FXSAVE and FXRSTOR depends on the bit.
            unsafe { M::write_efer(efer & !FFXSR) };
        }
        // SAFETY: the gate is open, and OSFXSR set.
        let mxcsr_mask = unsafe { image::read_mxcsr_mask::<M>() };
        let mut result = Ok(());
        if *M::detected().mxcsr_mask.call_once(|| mxcsr_mask) != mxcsr_mask {
            result = Err(InitError::Differs);
        }
        if features.has_xss() {
            // SAFETY: ring 0; CPUID shows XSAVES, and so the register.
            unsafe { M::wrmsr(IA32_XSS, 0) };
        }
        if features.xcr0() != 0 {
            // SAFETY: OSXSAVE is set, and CPUID shows each of these components. Nothing that a loader left stays.
            unsafe { M::xsetbv0(features.xcr0()) };
            result = result.and(features.check_area_bytes::<M>());
            if features.save_instruction().format() == Format::Compacted && result.is_ok() {
                // SAFETY: `XCR0` is set, the gate open, and nobody's state in the registers yet.
                let is_right = unsafe { layout::is_as_cpuid_says::<M>(features) };
                result = if is_right {
                    Ok(())
                } else {
                    Err(InitError::Layout)
                };
            }
        }
        // SAFETY: the gate is open, and nobody's state is in the registers yet.
        unsafe { load_initial::<M>() };
        // SAFETY: ring 0, interrupts off.
        unsafe { M::stts() };
        result
    }
}

// SAFETY: save and restore move all components of `XCR0` that the kernel's user code can reach, with one bitmap for both; a
// wipe restores the initial image, never FNINIT, which would leave XMM and ST contents in place.
unsafe impl<M: Machine, L: FpuArea> PcuOps<L> for Fpu<M> {
    const ID: UnitId = FPU;

    unsafe fn state_save(lwp: NonNull<L>) {
        // SAFETY: `lwp` is valid, and the core works on its state alone.
        let area = unsafe { L::area(lwp) };
        assert!(area.is_ok(), "{lwp:?} owns the FPU and has lost its area");
        let Ok(area) = area else { return };
        // SAFETY: the promises of `FpuArea`; the gate is open; nobody writes an area while its LWP has live registers.
        unsafe { save::<M>(area) };
    }

    unsafe fn state_load(lwp: NonNull<L>, flags: LoadFlags) -> Result<(), StateError> {
        if flags.contains(PcuFlags::PCU_REENABLE) {
            return Ok(());
        }
        // SAFETY: `lwp` is valid, and the core works on its state alone.
        let area = unsafe { L::area(lwp) }.map_err(|Refused| StateError::Refused)?;
        if !flags.contains(PcuFlags::PCU_VALID) {
            // SAFETY: as for the restore below.
            unsafe { load_initial::<M>() };
            return Ok(());
        }
        // SAFETY: the gate is open, and nobody's live state is in the registers.
        unsafe { restore::<M>(area) }.map_err(|Faulted| StateError::BadImage)
    }

    unsafe fn state_release(_: NonNull<L>) {}

    unsafe fn unit_enable() {
        debug_assert!(
            // SAFETY: the core calls this in ring 0, at IPL_PCU.
            unsafe { M::read_cr0() } & TASK_SWITCHED != 0,
            "CR0.TS is clear already"
        );
        // SAFETY: as above.
        unsafe { M::clts() };
    }

    unsafe fn unit_trap() {
        debug_assert!(
            // SAFETY: the core calls this in ring 0, at IPL_PCU.
            unsafe { M::read_cr0() } & TASK_SWITCHED == 0,
            "CR0.TS is set already"
        );
        // SAFETY: as above.
        unsafe { M::stts() };
    }

    /// Straight on, and without the cheap wipe, which looks at what is in use.
    unsafe fn unit_flush(lwp: NonNull<L>, _: Gate) {
        // SAFETY: the core calls this in ring 0, at IPL_PCU; an open gate stays open.
        unsafe { M::clts() };
        // SAFETY: the registers are this LWP's, or nobody's and its area is free for them; the gate is open.
        unsafe { <Self as PcuOps<L>>::state_save(lwp) };
        // SAFETY: the gate is open, and what was live is saved.
        unsafe { load_initial::<M>() };
        // SAFETY: as for CLTS.
        unsafe { M::stts() };
    }

    unsafe fn state_wipe() {
        // SAFETY: the same promises.
        unsafe { wipe::<M>() };
    }

    unsafe fn state_copy(parent: NonNull<L>, child: NonNull<L>) {
        // SAFETY: `parent` is valid, and the core works on its state alone.
        let from = unsafe { L::area(parent) };
        // SAFETY: the same of `child`.
        let to = unsafe { L::area(child) };
        let (Ok(from), Ok(to)) = (from, to) else {
            debug_assert!(false, "{child:?} has no area to copy the parent's state to");
            return;
        };
        // SAFETY: two areas of that length, of two LWPs.
        unsafe { from.copy_to_nonoverlapping(to, FpuFeatures::of::<M>().area_bytes()) };
    }

    unsafe fn is_initial(lwp: NonNull<L>) -> bool {
        // SAFETY: `lwp` is valid, and the core works on its state alone.
        let area = unsafe { L::area(lwp) };
        // SAFETY: memory holds the newest state, an image of this machine's kind.
        area.is_ok_and(|area| unsafe { image::is_initial(area, FpuFeatures::of::<M>()) })
    }
}

/// Saves all registers of the unit to an area of this machine's kind.
///
/// # Safety
///
/// In ring 0; the gate is open. What the last restore on this CPU from this area loaded is still there, but for what a save changed.
pub(super) unsafe fn save<M: Machine>(area: NonNull<u8>) {
    let features = FpuFeatures::of::<M>();
    match features.save_instruction() {
        // SAFETY: the same promises.
        SaveInstruction::Fxsave => unsafe { M::fxsave(area) },
        // SAFETY: as above.
        SaveInstruction::Xsave => unsafe { M::xsave(area, features.xcr0()) },
        // SAFETY: as above.
        SaveInstruction::Xsaveopt => unsafe { M::xsaveopt(area, features.xcr0()) },
        // SAFETY: as above.
        SaveInstruction::Xsavec => unsafe { M::xsavec(area, features.xcr0()) },
        // SAFETY: as above.
        SaveInstruction::Xsaves => unsafe { M::xsaves(area, features.xcr0()) },
    }
}

/// Leaves the initial state in all registers of the unit: by zeroing the vectors if nothing else is in use, which costs a
/// fraction of a restore, else by restoring the initial image.
///
/// Out of line, so that a kernel that looks for its own uses of the FPU finds this one by its name.
///
/// Zeroing the vectors leaves the opmasks and ZMM16 to 31 alone, so AVX-512 must be out of use as x87 must; `XINUSE` says so by what is in
/// the registers on AMD's processors, by what was done to them on Intel's, and never of a register that is not initial. Where the pointers
/// of the last x87 instruction have to be overwritten, x87 may count as in use afterwards, as on Bochs: then every other wipe is a restore.
///
/// # Safety
///
/// As [`restore`].
#[inline(never)]
unsafe fn wipe<M: Machine>() {
    let features = FpuFeatures::of::<M>();
    if features.can_tell_use() && features.xcr0() & detect::AVX != 0 {
        // SAFETY: CPUID shows the instruction, and `init_cpu` has set OSXSAVE.
        let in_use = unsafe { M::xinuse() } & features.xcr0();
        if in_use & !(detect::SSE | detect::AVX) == 0 {
            // SAFETY: the gate is open and nobody's live state in the registers, as for a restore.
            unsafe { forget_x87_pointers::<M>(features) };
            // SAFETY: as above, and AVX is enabled.
            unsafe { M::zero_vectors(image::MXCSR_INITIAL) };
            return;
        }
    }
    // SAFETY: the same promises.
    unsafe { load_initial::<M>() };
}

/// Writes a state with vectors in use to an area of this machine's kind.
///
/// # Safety
///
/// [`FpuFeatures::area_bytes`] writable bytes at a multiple of [`AREA_ALIGN`] that nobody else uses.
pub(super) unsafe fn fill<M: Machine>(area: NonNull<u8>) {
    // SAFETY: the same promises.
    unsafe { image::write_in_use(area, FpuFeatures::of::<M>()) };
}

/// Loads the initial image into all registers of the unit.
///
/// A first use is loaded by this too, never by the cheap wipe: a restore makes XSAVEOPT and XSAVES forget the area that they
/// took for unchanged, which may be another LWP's by now.
///
/// # Safety
///
/// As [`restore`].
#[inline(never)]
pub(super) unsafe fn load_initial<M: Machine>() {
    let format = FpuFeatures::of::<M>().save_instruction().format();
    // SAFETY: the same promises; the image is as long as a legacy area and a header, and names no component.
    let result = unsafe { restore::<M>(image::initial_image(format)) };
    debug_assert_eq!(result, Ok(()), "the processor refused the initial image");
}

/// Loads an image of this machine's kind into all registers of the unit.
///
/// # Safety
///
/// The gate is open, and nobody's live state is in the registers.
pub(super) unsafe fn restore<M: Machine>(area: NonNull<u8>) -> Result<(), Faulted> {
    let features = FpuFeatures::of::<M>();
    // SAFETY: the same promises.
    unsafe { forget_x87_pointers::<M>(features) };
    match features.save_instruction() {
        // SAFETY: the same promises.
        SaveInstruction::Fxsave => unsafe { M::fxrstor(area) },
        // SAFETY: as above.
        SaveInstruction::Xsave | SaveInstruction::Xsaveopt | SaveInstruction::Xsavec => unsafe {
            M::xrstor(area, features.xcr0())
        },
        // SAFETY: as above, in ring 0.
        SaveInstruction::Xsaves => unsafe { M::xrstors(area, features.xcr0()) },
    }
}

/// Where a restore would leave them as they are, puts the kernel's own address, operand and opcode in the place of the last x87
/// instruction's: always, whatever the image says, which its owner may choose (XSA-172, CVE-2016-3158 and 3159).
///
/// # Safety
///
/// As [`restore`].
unsafe fn forget_x87_pointers<M: Machine>(features: &FpuFeatures) {
    if features.forgets_x87_pointers() {
        // SAFETY: the gate is open, and nobody's live state is in the registers.
        unsafe { M::wipe_x87_pointers() };
    }
}

#[cfg(test)]
mod tests;
