//! Bugs put into the machine on purpose: each test of the unit must be able to fail.

use std::any::Any;
use std::arch::x86_64::CpuidResult;
use std::panic::catch_unwind;
use std::ptr::NonNull;

use pcu9::pcu::{LeakRule, Policy};
use pcu9::x86_64::fpu::{Detected, Format, FpuFeatures};
use pcu9::x86_64::machine::{Faulted, Machine};
use pcu9_mock::{Cpu, Fault, Mock, Model, models};

use super::world::World;
use super::{amx, everything, sections};

/// CLTS is forgotten: the gate stays closed before a restore. QEMU does not notice.
const NO_CLTS: u8 = 0;
/// What should wipe executes FNINIT, and loads MXCSR.
const FNINIT_WIPE: u8 = 1;
/// The x87 pointers are not wiped before a restore.
const NO_POINTER_WIPE: u8 = 2;
/// The wipe takes VZEROALL for enough, whatever is in ZMM16 to 31 and the opmasks.
const BLIND_TO_AVX512: u8 = 3;
/// STTS is forgotten: the gate stays open.
const NO_STTS: u8 = 4;
/// XSAVE for XSAVEOPT's place, with a mask that lacks AVX.
const SAVES_LESS: u8 = 5;

/// TILERELEASE does nothing.
const TILES_STAY: u8 = 6;
/// `IA32_XFD` stays armed.
const XFD_STAYS: u8 = 7;
/// `IA32_XFD` is never armed.
const XFD_NEVER: u8 = 8;

/// The upper halves of YMM are saved where Bochs 2.7 puts them: over the header.
const MISPLACED: u8 = 9;

/// The mock processor, but for one bug.
#[derive(Debug)]
enum Seeded<const BUG: u8> {}

/// FNINIT, and MXCSR as in the initial image.
fn fninit_wipe() {
    Mock::with(Cpu::fninit).unwrap();
    Mock::with(|cpu| cpu.ldmxcsr(pcu9_mock::MXCSR_INITIAL)).unwrap();
}

/// Is it an image without any component?
fn is_initial_image(area: NonNull<u8>) -> bool {
    // SAFETY: the header is part of every XSAVE area.
    let header = unsafe { area.add(512) };
    // SAFETY: as above.
    let xstate_bv = unsafe { header.cast::<[u8; 8]>().read() };
    xstate_bv == [0; 8]
}

/// Moves what lies behind the header to 416, and puts the header back, which a processor writes last.
fn misplace(area: NonNull<u8>) {
    // SAFETY: an image in the compacted format has 256 bytes behind its header.
    let mut image = unsafe { area.cast::<[u8; 832]>().read() };
    let header: [u8; 16] = std::array::from_fn(|at| image[512 + at]);
    image.copy_within(576.., 416);
    image[512..528].copy_from_slice(&header);
    // SAFETY: as above.
    unsafe { area.cast().write(image) };
}

// SAFETY: only as good as the tests want it.
unsafe impl<const BUG: u8> Machine for Seeded<BUG> {
    fn detected() -> &'static Detected {
        Mock::detected()
    }

    fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
        Mock::cpuid(leaf, subleaf)
    }

    unsafe fn read_cr0() -> u64 {
        // The debug assertions on the gate would find a forgotten CLTS or STTS first; here the processor is to find it.
        // SAFETY: the caller's promises.
        let cr0 = unsafe { Mock::read_cr0() };
        match BUG {
            NO_CLTS => cr0 | pcu9_mock::CR0_TS,
            _ => cr0,
        }
    }

    unsafe fn write_cr0(value: u64) {
        // SAFETY: the caller's promises.
        unsafe { Mock::write_cr0(value) };
    }

    unsafe fn read_cr4() -> u64 {
        // SAFETY: the caller's promises.
        unsafe { Mock::read_cr4() }
    }

    unsafe fn write_cr4(value: u64) {
        // SAFETY: the caller's promises.
        unsafe { Mock::write_cr4(value) };
    }

    unsafe fn read_efer() -> u64 {
        // SAFETY: the caller's promises.
        unsafe { Mock::read_efer() }
    }

    unsafe fn write_efer(value: u64) {
        // SAFETY: the caller's promises.
        unsafe { Mock::write_efer(value) };
    }

    unsafe fn xgetbv0() -> u64 {
        // SAFETY: the caller's promises.
        unsafe { Mock::xgetbv0() }
    }

    unsafe fn xsetbv0(value: u64) {
        // SAFETY: the caller's promises.
        unsafe { Mock::xsetbv0(value) };
    }

    unsafe fn rdmsr(register: u32) -> u64 {
        // SAFETY: the caller's promises.
        unsafe { Mock::rdmsr(register) }
    }

    unsafe fn wrmsr(register: u32, value: u64) {
        let is_xfd = register == 0x1c4;
        if is_xfd && (BUG == XFD_STAYS && value == 0 || BUG == XFD_NEVER && value != 0) {
            return;
        }
        // SAFETY: the caller's promises.
        unsafe { Mock::wrmsr(register, value) };
    }

    unsafe fn clts() {
        if BUG != NO_CLTS {
            // SAFETY: the caller's promises.
            unsafe { Mock::clts() };
        }
    }

    unsafe fn stts() {
        if BUG != NO_STTS {
            // SAFETY: the caller's promises.
            unsafe { Mock::stts() };
        }
    }

    unsafe fn fxsave(area: NonNull<u8>) {
        // SAFETY: the caller's promises.
        unsafe { Mock::fxsave(area) };
    }

    unsafe fn xsave(area: NonNull<u8>, mask: u64) {
        // SAFETY: the caller's promises.
        unsafe { Mock::xsave(area, mask) };
    }

    unsafe fn xsaveopt(area: NonNull<u8>, mask: u64) {
        let mask = if BUG == SAVES_LESS { mask & 3 } else { mask };
        // SAFETY: the caller's promises.
        unsafe { Mock::xsaveopt(area, mask) };
    }

    unsafe fn xsavec(area: NonNull<u8>, mask: u64) {
        // SAFETY: the caller's promises.
        unsafe { Mock::xsavec(area, mask) };
        if BUG == MISPLACED {
            misplace(area);
        }
    }

    unsafe fn xsaves(area: NonNull<u8>, mask: u64) {
        // SAFETY: the caller's promises.
        unsafe { Mock::xsaves(area, mask) };
        if BUG == MISPLACED {
            misplace(area);
        }
    }

    unsafe fn fxrstor(area: NonNull<u8>) -> Result<(), Faulted> {
        // SAFETY: the caller's promises.
        unsafe { Mock::fxrstor(area) }
    }

    unsafe fn xrstor(area: NonNull<u8>, mask: u64) -> Result<(), Faulted> {
        if BUG == FNINIT_WIPE && is_initial_image(area) {
            fninit_wipe();
            return Ok(());
        }
        // SAFETY: the caller's promises.
        unsafe { Mock::xrstor(area, mask) }
    }

    unsafe fn xrstors(area: NonNull<u8>, mask: u64) -> Result<(), Faulted> {
        // SAFETY: the caller's promises.
        unsafe { Mock::xrstors(area, mask) }
    }

    unsafe fn xinuse() -> u64 {
        // SAFETY: the caller's promises.
        let in_use = unsafe { Mock::xinuse() };
        if BUG == BLIND_TO_AVX512 {
            in_use & 7
        } else {
            in_use
        }
    }

    unsafe fn zero_vectors(mxcsr: u32) {
        if BUG == FNINIT_WIPE {
            fninit_wipe();
            return;
        }
        // SAFETY: the caller's promises.
        unsafe { Mock::zero_vectors(mxcsr) };
    }

    unsafe fn wipe_x87_pointers() {
        if BUG != NO_POINTER_WIPE {
            // SAFETY: the caller's promises.
            unsafe { Mock::wipe_x87_pointers() };
        }
    }

    unsafe fn tile_release() {
        if BUG == TILES_STAY {
            return;
        }
        // SAFETY: the caller's promises.
        unsafe { Mock::tile_release() };
    }
}

/// What the first seed of the random test that finds the bug says.
fn found<const BUG: u8>(model: &'static Model, policy: Policy) -> Box<dyn Any + Send> {
    (0..40)
        .find_map(|seed| {
            let run = || everything::run::<Seeded<BUG>>(model, policy, LeakRule::DomainAware, seed);
            catch_unwind(run).err()
        })
        .expect("forty seeds have not found the bug")
}

/// The same of AMX's.
fn found_with_amx<const BUG: u8>() -> Box<dyn Any + Send> {
    (0..40)
        .find_map(|seed| {
            let run = || amx::run::<Seeded<BUG>>(LeakRule::DomainAware, seed);
            catch_unwind(run).err()
        })
        .expect("forty seeds have not found the bug")
}

#[test]
fn tiles_that_stay_are_found() {
    says(&*found_with_amx::<TILES_STAY>(), "components 0x60000");
}

#[test]
fn an_xfd_that_does_not_follow_the_lwp_is_found() {
    found_with_amx::<XFD_STAYS>();
    says(&*found_with_amx::<XFD_NEVER>(), "has no permission");
}

fn says(payload: &(dyn Any + Send), words: &str) {
    let text = payload.downcast_ref::<String>().map_or_else(
        || format!("{:?}", payload.downcast_ref::<Fault>()),
        Clone::clone,
    );
    assert!(text.contains(words), "it says: {text}");
}

/// The bug that QEMU lets pass: #NM, an exception that no handler was meant to see, on every XSAVE and FXSAVE processor.
#[test]
fn no_clts_before_a_restore_is_a_fault() {
    for model in models::ALL {
        let run = || {
            let world =
                World::<Seeded<NO_CLTS>>::new(model, 1, 1, Policy::Lazy, LeakRule::DomainAware);
            world.switch(0, Some(0));
            world.compute(0, |_| Ok(()))
        };
        let payload = catch_unwind(run).expect_err(model.name);
        assert_eq!(
            payload.downcast_ref(),
            Some(&Fault::DeviceNotAvailable),
            "{}",
            model.name
        );
    }
}

#[test]
fn a_wipe_that_is_fninit_alone_is_found() {
    let payload = found::<FNINIT_WIPE>(&models::SANDY_BRIDGE, Policy::Lazy);
    says(&*payload, "hold another domain's bits");
}

#[test]
fn pointers_that_are_not_wiped_are_found() {
    for model in [&models::K8, &models::PILEDRIVER, &models::DHYANA] {
        let payload = found::<NO_POINTER_WIPE>(model, Policy::Lazy);
        says(&*payload, "components 0x1");
    }
}

#[test]
fn upper_zmm_that_is_not_wiped_is_found() {
    let payload = found::<BLIND_TO_AVX512>(&models::ZEN4, Policy::Lazy);
    says(&*payload, "hold another domain's bits");
}

/// A kernel section's own registers, left behind by a wipe that is none.
#[test]
fn a_section_that_is_not_wiped_is_found() {
    fn canary<const BUG: u8>(model: &'static Model) -> Box<dyn Any + Send> {
        let run = || {
            let world = World::<Seeded<BUG>>::new(model, 1, 1, Policy::Lazy, LeakRule::DomainAware);
            world.switch(0, Some(0));
            sections::leave_a_canary(&world);
        };
        catch_unwind(run).expect_err("a canary that is not seen")
    }
    for model in [&models::SKYLAKE_X, &models::ZEN4] {
        says(&*canary::<BLIND_TO_AVX512>(model), "components 0x20 ");
    }
}

#[test]
fn a_gate_that_stays_open_is_found() {
    found::<NO_STTS>(&models::SANDY_BRIDGE, Policy::Lazy);
}

#[test]
fn a_save_that_leaves_a_component_out_is_found() {
    let payload = found::<SAVES_LESS>(&models::SANDY_BRIDGE, Policy::Deferred);
    says(&*payload, "components 0x4");
}

/// Found on each CPU's start, before anything is saved.
#[test]
fn a_misplaced_component_is_found() {
    let mut n_found = 0;
    for model in models::ALL {
        let run =
            || World::<Seeded<MISPLACED>>::new(model, 1, 1, Policy::Lazy, LeakRule::DomainAware);
        if let Err(payload) = catch_unwind(run) {
            says(&*payload, "Layout");
            n_found += 1;
        }
    }
    let compacting = models::ALL.iter().filter(|model| compacts(model));
    assert_eq!(n_found, compacting.count());
    assert!(n_found > 0);
}

/// Does the unit save in the compacted format on `model`?
fn compacts(model: &'static Model) -> bool {
    World::<Mock>::new(model, 1, 1, Policy::Lazy, LeakRule::DomainAware);
    FpuFeatures::of::<Mock>().save_instruction().format() == Format::Compacted
}
