//! The seam between the units and the processor: one function for each instruction or register that they use.
//!
//! [`Native`] is the processor that the code runs on. Another implementation is a model of one, so that the units' own code
//! is tested against what the manuals say, and not only against what one machine or emulator does.

use core::arch::x86_64::{__cpuid_count, CpuidResult};
use core::ptr::NonNull;

use x86_64::registers::control::{Cr0, Cr4};
use x86_64::registers::model_specific::{Efer, Msr};
use x86_64::registers::xcontrol::XCr0;

use super::fpu::Detected;
use super::instructions;

/// The processor refused an image: the registers may hold any part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faulted;

/// A processor, as the units see it: the one that executes the call.
///
/// Every function is the instruction or the register that it is named after; where the manual says that it faults, the
/// caller has no right to call it. Masks are requested-feature bitmaps (RFBM) of state components.
///
/// # Safety
///
/// Each function does what the manual says of its instruction, and touches nothing else; [`detected`](Self::detected) gives
/// the same object for as long as [`cpuid`](Self::cpuid) gives the same answers.
pub unsafe trait Machine: 'static {
    /// Where the features of this machine are kept once they are found.
    fn detected() -> &'static Detected;

    /// CPUID. Intel SDM, volume 2A, "CPUID".
    fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult;

    /// `CR0`. Intel SDM, volume 3A, "Control Registers".
    ///
    /// # Safety
    ///
    /// In ring 0.
    unsafe fn read_cr0() -> u64;

    /// Writes `CR0`.
    ///
    /// # Safety
    ///
    /// In ring 0; the caller answers for what the bits change.
    unsafe fn write_cr0(value: u64);

    /// `CR4`. Intel SDM, volume 3A, "Control Registers".
    ///
    /// # Safety
    ///
    /// In ring 0.
    unsafe fn read_cr4() -> u64;

    /// Writes `CR4`.
    ///
    /// # Safety
    ///
    /// In ring 0; CPUID shows each bit that is set, and the caller answers for what the bits change.
    unsafe fn write_cr4(value: u64);

    /// `IA32_EFER`. Intel SDM, volume 4; AMD APM, volume 2, "Extended Feature Enable Register (EFER)".
    ///
    /// # Safety
    ///
    /// In ring 0.
    unsafe fn read_efer() -> u64;

    /// Writes `IA32_EFER`.
    ///
    /// # Safety
    ///
    /// In ring 0; the caller answers for what the bits change.
    unsafe fn write_efer(value: u64);

    /// `XCR0`, by XGETBV with ECX = 0. Intel SDM, volume 2C, "XGETBV".
    ///
    /// # Safety
    ///
    /// `CR4.OSXSAVE` is set.
    unsafe fn xgetbv0() -> u64;

    /// Writes `XCR0`, by XSETBV with ECX = 0. Intel SDM, volume 2C, "XSETBV".
    ///
    /// # Safety
    ///
    /// In ring 0, `CR4.OSXSAVE` is set, and CPUID shows each component, with those that it needs.
    unsafe fn xsetbv0(value: u64);

    /// Reads a model-specific register: `IA32_XSS`, `IA32_XFD`, `IA32_XFD_ERR` alone.
    ///
    /// # Safety
    ///
    /// In ring 0; CPUID shows the register.
    unsafe fn rdmsr(register: u32) -> u64;

    /// Writes one of these.
    ///
    /// # Safety
    ///
    /// In ring 0; CPUID shows the register and each bit that is set.
    unsafe fn wrmsr(register: u32, value: u64);

    /// Clears `CR0.TS`: the FPU may be used. Intel SDM, volume 2A, "CLTS".
    ///
    /// # Safety
    ///
    /// In ring 0, at `IPL_PCU`.
    unsafe fn clts();

    /// Sets `CR0.TS`: the next use of the FPU raises `#NM`. Intel SDM, volume 3A, "Control Registers".
    ///
    /// # Safety
    ///
    /// In ring 0, at `IPL_PCU`.
    unsafe fn stts();

    /// Saves x87, MMX and SSE state. Intel SDM, volume 2A, "FXSAVE".
    ///
    /// # Safety
    ///
    /// `area` is 512 writable bytes at a multiple of 16; `CR0.TS` is clear.
    unsafe fn fxsave(area: NonNull<u8>);

    /// Saves the components in `mask`. Intel SDM, volume 1, "Operation of XSAVE".
    ///
    /// # Safety
    ///
    /// `area` is writable, at a multiple of 64, and large enough for `mask` in the instruction's format; `CR0.TS` is clear
    /// and `CR4.OSXSAVE` set; CPUID shows the instruction.
    unsafe fn xsave(area: NonNull<u8>, mask: u64);

    /// Saves the components in `mask` that are in use and were changed since they were loaded from the same area. Intel SDM,
    /// volume 1, "Operation of XSAVEOPT".
    ///
    /// # Safety
    ///
    /// As [`xsave`](Self::xsave); whatever the last restore on this CPU from this area loaded is still in the area, unless
    /// changed by this instruction.
    unsafe fn xsaveopt(area: NonNull<u8>, mask: u64);

    /// Saves the components in `mask` that are in use, in the compacted format. Intel SDM, volume 1, "Operation of XSAVEC".
    ///
    /// # Safety
    ///
    /// As [`xsave`](Self::xsave).
    unsafe fn xsavec(area: NonNull<u8>, mask: u64);

    /// Saves as [`xsavec`](Self::xsavec) and [`xsaveopt`](Self::xsaveopt) at once, supervisor components too. Intel SDM,
    /// volume 1, "Operation of XSAVES".
    ///
    /// # Safety
    ///
    /// As [`xsaveopt`](Self::xsaveopt); in ring 0.
    unsafe fn xsaves(area: NonNull<u8>, mask: u64);

    /// Loads x87, MMX and SSE state. Intel SDM, volume 2A, "FXRSTOR".
    ///
    /// # Errors
    ///
    /// [`Faulted`] when the kernel's handler found the instruction's address in [`fixup`](super::fixup).
    ///
    /// # Safety
    ///
    /// `CR0.TS` is clear, and nobody's live state is in the registers. The area may be bad or not mapped if the kernel's
    /// handlers of `#GP` and `#PF` ask [`fixup`](super::fixup).
    unsafe fn fxrstor(area: NonNull<u8>) -> Result<(), Faulted>;

    /// Loads the components in `mask`, from either format. Intel SDM, volume 1, "Operation of XRSTOR".
    ///
    /// # Errors
    ///
    /// As [`fxrstor`](Self::fxrstor).
    ///
    /// # Safety
    ///
    /// As [`fxrstor`](Self::fxrstor), for the registers in `mask`; `CR4.OSXSAVE` is set.
    unsafe fn xrstor(area: NonNull<u8>, mask: u64) -> Result<(), Faulted>;

    /// Loads the components in `mask`, from the compacted format alone. Intel SDM, volume 1, "Operation of XRSTORS".
    ///
    /// # Errors
    ///
    /// As [`fxrstor`](Self::fxrstor).
    ///
    /// # Safety
    ///
    /// As [`xrstor`](Self::xrstor); in ring 0, and CPUID shows the instruction.
    unsafe fn xrstors(area: NonNull<u8>, mask: u64) -> Result<(), Faulted>;

    /// The components of `XCR0` that are not in their initial state, by XGETBV with ECX = 1. Intel SDM, volume 1,
    /// "Processor Tracking of XSAVE-Managed State", volume 2C, "XGETBV".
    ///
    /// # Safety
    ///
    /// `CR4.OSXSAVE` is set, and CPUID.(0DH,1):EAX\[2\].
    unsafe fn xinuse() -> u64;

    /// Zeroes the vector registers 0 to 15 at their full length, and loads `MXCSR`. Intel SDM, volume 2C,
    /// "VZEROUPPER", volume 2B, "PXOR", "STMXCSR", volume 2A, "LDMXCSR".
    ///
    /// # Safety
    ///
    /// AVX is enabled in `XCR0`; `CR0.TS` is clear; nobody's live state is in the registers.
    unsafe fn zero_vectors(mxcsr: u32);

    /// Executes an x87 instruction of the kernel's own, so that the last instruction's address, operand and opcode say
    /// nothing of anybody else: FNCLEX, FFREE, FILD of a zero and FSTP. An x87 state that was
    /// initial stays so, but for these three.
    ///
    /// # Safety
    ///
    /// `CR0.TS` is clear; nobody's live x87 state is in the registers.
    unsafe fn wipe_x87_pointers();

    /// Loads the initial state of AMX: no tiles configured, all tile data 0. Intel SDM, volume 2B, "TILERELEASE".
    ///
    /// # Safety
    ///
    /// `XCR0` enables both components of AMX, `IA32_XFD` lets them be used; nobody's live state is in them.
    unsafe fn tile_release();
}

/// The processor that the code runs on.
#[derive(Debug)]
pub enum Native {}

// SAFETY: each function is the instruction; the machine is one, so its features are kept in one place.
unsafe impl Machine for Native {
    fn detected() -> &'static Detected {
        static DETECTED: Detected = Detected::new();
        &DETECTED
    }

    fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
        __cpuid_count(leaf, subleaf)
    }

    unsafe fn read_cr0() -> u64 {
        Cr0::read_raw()
    }

    unsafe fn write_cr0(value: u64) {
        // SAFETY: the caller promises what the instruction needs.
        unsafe { Cr0::write_raw(value) };
    }

    unsafe fn read_cr4() -> u64 {
        Cr4::read_raw()
    }

    unsafe fn write_cr4(value: u64) {
        // SAFETY: the caller promises what the instruction needs.
        unsafe { Cr4::write_raw(value) };
    }

    unsafe fn read_efer() -> u64 {
        Efer::read_raw()
    }

    unsafe fn write_efer(value: u64) {
        // SAFETY: the caller promises what the instruction needs.
        unsafe { Efer::write_raw(value) };
    }

    unsafe fn xgetbv0() -> u64 {
        XCr0::read_raw()
    }

    unsafe fn xsetbv0(value: u64) {
        // SAFETY: the caller promises what the instruction needs.
        unsafe { XCr0::write_raw(value) };
    }

    unsafe fn rdmsr(register: u32) -> u64 {
        // SAFETY: the caller promises what the instruction needs.
        unsafe { Msr::new(register).read() }
    }

    unsafe fn wrmsr(register: u32, value: u64) {
        // SAFETY: the caller promises what the instruction needs.
        unsafe { Msr::new(register).write(value) };
    }

    unsafe fn clts() {
        // SAFETY: the caller promises what the instruction needs.
        unsafe { instructions::clts() };
    }

    unsafe fn stts() {
        // SAFETY: the caller promises what the instruction needs.
        unsafe { instructions::stts() };
    }

    unsafe fn fxsave(area: NonNull<u8>) {
        // SAFETY: the caller promises what the instruction needs.
        unsafe { instructions::fxsave(area) };
    }

    unsafe fn xsave(area: NonNull<u8>, mask: u64) {
        // SAFETY: the caller promises what the instruction needs.
        unsafe { instructions::xsave(area, mask) };
    }

    unsafe fn xsaveopt(area: NonNull<u8>, mask: u64) {
        // SAFETY: the caller promises what the instruction needs.
        unsafe { instructions::xsaveopt(area, mask) };
    }

    unsafe fn xsavec(area: NonNull<u8>, mask: u64) {
        // SAFETY: the caller promises what the instruction needs.
        unsafe { instructions::xsavec(area, mask) };
    }

    unsafe fn xsaves(area: NonNull<u8>, mask: u64) {
        // SAFETY: the caller promises what the instruction needs.
        unsafe { instructions::xsaves(area, mask) };
    }

    unsafe fn fxrstor(area: NonNull<u8>) -> Result<(), Faulted> {
        // SAFETY: the caller promises what the instruction needs.
        unsafe { instructions::fxrstor(area) }
    }

    unsafe fn xrstor(area: NonNull<u8>, mask: u64) -> Result<(), Faulted> {
        // SAFETY: the caller promises what the instruction needs.
        unsafe { instructions::xrstor(area, mask) }
    }

    unsafe fn xrstors(area: NonNull<u8>, mask: u64) -> Result<(), Faulted> {
        // SAFETY: the caller promises what the instruction needs.
        unsafe { instructions::xrstors(area, mask) }
    }

    unsafe fn xinuse() -> u64 {
        // SAFETY: the caller promises what the instruction needs.
        unsafe { instructions::xinuse() }
    }

    unsafe fn zero_vectors(mxcsr: u32) {
        // SAFETY: the caller promises what the instruction needs.
        unsafe { instructions::zero_vectors(mxcsr) };
    }

    unsafe fn wipe_x87_pointers() {
        // SAFETY: the caller promises what the instruction needs.
        unsafe { instructions::wipe_x87_pointers() };
    }

    unsafe fn tile_release() {
        // SAFETY: the caller promises what the instruction needs.
        unsafe { instructions::tile_release() };
    }
}
