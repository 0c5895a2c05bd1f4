//! AMX's tiles as a unit of their own, apart from the FPU: eight kilobytes that few LWPs have.
//!
//! - [`Amx`]: the unit, for the kernel's table: `UnitOps::of::<Amx>()`.
//! - [`AmxArea`]: where a permitted LWP's tiles are saved; every other LWP is refused one.
//! - [`init_cpu`]: per-CPU start, after the FPU's.
//!
//! Seen on a mock processor only: no emulator has AMX yet.
//!
//! # Why a use is not waited for
//!
//! `IA32_XFD` is the gate: with its bit set TILELOADD, TILESTORED, TILEZERO and the products raise `#NM`. But LDTILECFG,
//! STTILECFG and TILERELEASE do not, and the first and the last zero the tiles (Intel SDM, volume 2A, "Intel AMX Instruction
//! Exception Classes", E1, E2 and E6; Linux' `amx_test.c` for KVM configures tiles behind a closed gate). So an LWP behind it could
//! destroy what another left live, and loses its own configuration if the first product is taken for the first use.
//! Therefore `USE_TRAPS` is false: a permitted LWP's tiles are brought in at every switch and saved when it leaves, and the gate
//! keeps the others out. Permission comes before the first AMX instruction, as on Linux (`ARCH_REQ_XCOMP_PERM`): the kernel makes
//! the area and calls [`Pcu::load`](crate::pcu::Pcu::load). An LWP without it gets `#NM`, which
//! [`DeviceNotAvailable`](super::DeviceNotAvailable) tells from the FPU's, and [`Refused`].
//!
//! It costs a kernel that has this unit in its table two writes of `IA32_XFD` at each switch of LWPs.

use core::marker::PhantomData;
use core::ptr::NonNull;

use x86_64::registers::control::Cr0Flags;

use super::fpu::{
    AREA_ALIGN, COMPACTED, FpuFeatures, InitError, LEGACY_AND_HEADER, Refused, TILE_DATA, TILES,
    XCOMP_BV,
};
use super::machine::{Faulted, Machine, Native};
use crate::pcu::{LoadFlags, PcuFlags, PcuOps, StateError, UnitId};

/// AMX's place in the kernel's table.
pub const AMX: UnitId = UnitId::new(1);

/// Intel SDM, volume 4: the components whose use raises `#NM`, and those that did.
const IA32_XFD: u32 = 0x1c4;
pub(super) const IA32_XFD_ERR: u32 = 0x1c5;

const TASK_SWITCHED: u64 = Cr0Flags::TASK_SWITCHED.bits();

/// An LWP that may have a place to save its tiles in.
///
/// # Safety
///
/// The area is [`FpuFeatures::tiles_bytes`] long, at a multiple of [`AREA_ALIGN`], was made ready by [`Amx::prepare`], belongs to
/// this LWP alone, and stays the same from the first `Ok` until the LWP has no valid state any more.
pub unsafe trait AmxArea {
    /// Gives the area of an LWP that has permission. It is not allocated here: the LWP's tiles are brought in at every switch.
    ///
    /// Context: at `IPL_PCU`; takes no lock that the scheduler holds, does not wait.
    ///
    /// # Errors
    ///
    /// [`Refused`] for every other LWP.
    ///
    /// # Safety
    ///
    /// `lwp` is valid, and nobody else asks for its area at the same time.
    unsafe fn amx_area(lwp: NonNull<Self>) -> Result<NonNull<u8>, Refused>;
}

/// Starts AMX on this CPU: [`Amx::init_cpu`] on the [`Native`] machine.
///
/// # Errors
///
/// As there.
///
/// # Safety
///
/// As there.
pub unsafe fn init_cpu() -> Result<(), InitError> {
    // SAFETY: the caller promises the same.
    unsafe { Amx::<Native>::init_cpu() }
}

/// The unit.
#[derive(Debug)]
pub struct Amx<M = Native> {
    machine: PhantomData<M>,
}

impl<M: Machine> Amx<M> {
    /// Makes fresh memory an area that holds the initial state: nothing but a header, compacted.
    ///
    /// # Safety
    ///
    /// `area` is [`FpuFeatures::tiles_bytes`] writable bytes at a multiple of [`AREA_ALIGN`] that nobody else uses.
    pub unsafe fn prepare(area: NonNull<u8>) {
        debug_assert!(area.addr().get().is_multiple_of(AREA_ALIGN), "{area:?}");
        // SAFETY: the caller promises an area that begins with so many bytes.
        unsafe { area.write_bytes(0, LEGACY_AND_HEADER) };
        // SAFETY: the header's place in it.
        let xcomp_bv = unsafe { area.add(XCOMP_BV) };
        // SAFETY: as above, and aligned.
        unsafe { xcomp_bv.cast().write(COMPACTED | TILES) };
    }

    /// Starts AMX on this CPU: `XCR0`, initial tiles, and the gate closed.
    ///
    /// Context: once on each CPU, after [`fpu::init_cpu`](super::fpu::init_cpu), before an LWP runs there.
    ///
    /// # Errors
    ///
    /// [`InitError::Missing`] where CPUID does not show AMX with XSAVEC and XFD.
    ///
    /// # Safety
    ///
    /// In ring 0, with interrupts off.
    pub unsafe fn init_cpu() -> Result<(), InitError> {
        if FpuFeatures::of::<M>().tiles_bytes().is_none() {
            return Err(InitError::Missing);
        }
        // SAFETY: `fpu::init_cpu` has set OSXSAVE.
        let xcr0 = unsafe { M::xgetbv0() };
        // SAFETY: ring 0; CPUID shows both components.
        unsafe { M::xsetbv0(xcr0 | TILES) };
        // SAFETY: ring 0; CPUID shows XFD, and nobody has tiles yet.
        unsafe { M::wrmsr(IA32_XFD, 0) };
        // SAFETY: the gate is open, and nobody has tiles yet.
        unsafe { M::tile_release() };
        // SAFETY: as above.
        unsafe { M::wrmsr(IA32_XFD, TILE_DATA) };
        // SAFETY: as above. What a loader left is no use of ours.
        unsafe { M::wrmsr(IA32_XFD_ERR, 0) };
        Ok(())
    }

    /// Runs `f` with `CR0.TS` clear: TS does not gate the tiles, but every XSAVE and XRSTOR. Intel SDM, volume 2C, "XSAVEC",
    /// "XRSTOR".
    ///
    /// # Safety
    ///
    /// In ring 0, at `IPL_PCU`; `f` moves tiles alone.
    unsafe fn past_the_fpu_gate<R>(f: impl FnOnce() -> R) -> R {
        // SAFETY: ring 0 is promised.
        let was_closed = unsafe { M::read_cr0() } & TASK_SWITCHED != 0;
        if was_closed {
            // SAFETY: as above; the FPU's gate is closed again below, so its shadow stays true.
            unsafe { M::clts() };
        }
        let result = f();
        if was_closed {
            // SAFETY: as above.
            unsafe { M::stts() };
        }
        result
    }
}

// SAFETY: save and restore move both components of AMX, with one bitmap; TILERELEASE initialises both.
unsafe impl<M: Machine, L: AmxArea> PcuOps<L> for Amx<M> {
    const ID: UnitId = AMX;
    const USE_TRAPS: bool = false;

    unsafe fn state_save(lwp: NonNull<L>) {
        // SAFETY: `lwp` is valid, and the core works on its state alone.
        let area = unsafe { L::amx_area(lwp) };
        assert!(area.is_ok(), "{lwp:?} owns the tiles and has lost its area");
        let Ok(area) = area else { return };
        // SAFETY: the promises of `AmxArea`; CR0.TS is clear in there.
        let save = || unsafe { M::xsavec(area, TILES) };
        // SAFETY: the core calls this in ring 0, at IPL_PCU.
        unsafe { Self::past_the_fpu_gate(save) };
    }

    unsafe fn state_load(lwp: NonNull<L>, flags: LoadFlags) -> Result<(), StateError> {
        if flags.contains(PcuFlags::PCU_REENABLE) {
            return Ok(());
        }
        // SAFETY: `lwp` is valid, and the core works on its state alone.
        let area = unsafe { L::amx_area(lwp) }.map_err(|Refused| StateError::Refused)?;
        if !flags.contains(PcuFlags::PCU_VALID) {
            // SAFETY: the gate is open, and nobody's live state is in the tiles.
            unsafe { M::tile_release() };
            return Ok(());
        }
        // SAFETY: as above; CR0.TS is clear in there.
        let load = || unsafe { M::xrstor(area, TILES) };
        // SAFETY: the core calls this in ring 0, at IPL_PCU.
        unsafe { Self::past_the_fpu_gate(load) }.map_err(|Faulted| StateError::BadImage)
    }

    unsafe fn state_release(_: NonNull<L>) {}

    unsafe fn unit_enable() {
        // SAFETY: the core calls this in ring 0; CPUID shows XFD.
        unsafe { M::wrmsr(IA32_XFD, 0) };
    }

    unsafe fn unit_trap() {
        // SAFETY: the core calls this in ring 0; CPUID shows XFD, and TILE_DATA in it.
        unsafe { M::wrmsr(IA32_XFD, TILE_DATA) };
    }

    unsafe fn state_wipe() {
        // SAFETY: the gate is open, and nobody's live state is in the tiles.
        unsafe { M::tile_release() };
    }

    unsafe fn state_copy(parent: NonNull<L>, child: NonNull<L>) {
        // SAFETY: `parent` is valid, and the core works on its state alone.
        let from = unsafe { L::amx_area(parent) };
        // SAFETY: the same of `child`.
        let to = unsafe { L::amx_area(child) };
        let bytes = FpuFeatures::of::<M>().tiles_bytes();
        let (Ok(from), Ok(to), Some(bytes)) = (from, to, bytes) else {
            debug_assert!(false, "{child:?} has no area to copy the parent's tiles to");
            return;
        };
        // SAFETY: two areas of that length, of two LWPs.
        unsafe { from.copy_to_nonoverlapping(to, bytes) };
    }

    /// Never known: an initial state would not be brought in, and LDTILECFG cannot be waited for.
    unsafe fn is_initial(_: NonNull<L>) -> bool {
        false
    }
}
