//! What saves leave out, and what that asks of whoever writes an image.

use pcu9::kernel::NoAnswer;
use pcu9::pcu::{LeakRule, Policy, Validity};
use pcu9::x86_64::fpu::{FPU, FpuFeatures, SaveInstruction};
use pcu9_mock::{Cpu, EAX_XGETBV1, EAX_XSAVEOPT, Fault, Mock, Model, models};

use super::models::with_extensions;
use super::world::World;

/// Bytes that the CPU stored during `f`.
fn stored(f: impl FnOnce()) -> u64 {
    let before = Mock::with(|cpu| cpu.memory.stored);
    f();
    Mock::with(|cpu| cpu.memory.stored) - before
}

fn write_xmm(byte: u8) -> impl Fn(&mut Cpu) -> Result<(), Fault> {
    move |cpu| cpu.write_xmm([byte; 256])
}

fn write_ymm(byte: u8) -> impl Fn(&mut Cpu) -> Result<(), Fault> {
    move |cpu| cpu.write_extended(2, &[byte; 256])
}

/// An LWP that has used XMM alone, saved at each switch.
fn one_user(model: &'static Model) -> Box<World<Mock>> {
    let world = World::<Mock>::new(model, 1, 2, Policy::Eager, LeakRule::DomainAware);
    world.switch(0, Some(0));
    world.compute(0, write_xmm(0x11)).unwrap();
    world
}

const MXCSR_BYTES: u64 = 8;

/// SSE's registers are stored, nothing of x87 and AVX, which are initial: by each instruction that has the optimisation.
#[test]
fn components_in_their_initial_state_are_not_stored() {
    let xsavec = &models::ZEN;
    let xsaveopt = with_extensions(&models::ZEN, EAX_XSAVEOPT | EAX_XGETBV1);
    for model in [xsavec, xsaveopt, &models::SKYLAKE_X, &models::ZEN4] {
        let world = one_user(model);
        let bytes = stored(|| world.switch(0, None));
        assert_eq!(bytes, 256 + MXCSR_BYTES, "{}", model.name);
        assert_eq!(
            world.lwp(0).read::<8>(512),
            2_u64.to_le_bytes(),
            "{}",
            model.name
        );
        world.check_end();
    }
    let plain = with_extensions(&models::ZEN, 0);
    let world = one_user(plain);
    let bytes = stored(|| world.switch(0, None));
    assert_eq!(
        bytes,
        24 + 128 + 256 + 256 + MXCSR_BYTES,
        "XSAVE stores all"
    );
    world.check_end();
}

/// C23. Registers written with zeros count as in use by history, and not by content; either way they are what comes back.
#[test]
fn zeros_are_kept_whether_use_is_told_by_history_or_by_content() {
    for (model, in_use) in [(&models::SKYLAKE_X, 2_u64), (&models::ZEN4, 0)] {
        let world = World::<Mock>::new(model, 1, 2, Policy::Eager, LeakRule::DomainAware);
        world.switch(0, Some(0));
        world.compute(0, write_xmm(0x11)).unwrap();
        world.compute(0, write_xmm(0)).unwrap();
        world.compute(0, |cpu| cpu.ldmxcsr(0x1f80)).unwrap();
        world.switch(0, Some(1));
        assert_eq!(
            world.lwp(0).read::<8>(512),
            in_use.to_le_bytes(),
            "{}",
            model.name
        );
        world.compute(0, write_xmm(0x22)).unwrap();
        world.switch(0, Some(0));
        world.compute(0, |_| Ok(())).unwrap();
        world.check_end();
    }
}

/// XSAVEOPT and XSAVES store what was changed since the restore from the same area, and nothing else.
#[test]
fn components_that_were_not_changed_since_the_restore_are_not_stored() {
    for (model, instruction, unchanged) in [
        (
            &models::SANDY_BRIDGE,
            SaveInstruction::Xsaveopt,
            MXCSR_BYTES,
        ),
        (&models::SKYLAKE_X, SaveInstruction::Xsaves, 0),
    ] {
        let world = one_user(model);
        assert_eq!(FpuFeatures::of::<Mock>().save_instruction(), instruction);
        world.compute(0, write_ymm(0x33)).unwrap();
        world.switch(0, None);
        world.switch(0, Some(0));
        let bytes = stored(|| world.switch(0, None));
        assert_eq!(bytes, unchanged, "{}: nothing was changed", model.name);
        world.switch(0, Some(0));
        world.compute(0, write_ymm(0x44)).unwrap();
        let bytes = stored(|| world.switch(0, None));
        assert_eq!(bytes, 256 + unchanged, "{}: AVX was changed", model.name);
        world.switch(0, Some(0));
        world.compute(0, |_| Ok(())).unwrap();
        let elided = Mock::with(|cpu| cpu.events.elided_unmodified);
        assert!(elided >= 3, "{}: {elided}", model.name);
        world.check_end();
    }
}

/// V13. An image that was edited in memory is restored from there before XSAVEOPT or XSAVES is used on it: the edit is not taken
/// for what the registers hold, and comes back.
#[test]
fn an_edited_image_is_restored_before_it_is_saved_to() {
    for policy in Policy::ALL {
        for model in [&models::SANDY_BRIDGE, &models::SKYLAKE_X] {
            let world = World::<Mock>::new(model, 1, 2, policy, LeakRule::DomainAware);
            world.switch(0, Some(0));
            world.compute(0, write_xmm(0x11)).unwrap();
            // Restored from its area, so that the processor tracks it.
            world.pcu.save(&mut world.current(0), FPU).unwrap();
            world.compute(0, |_| Ok(())).unwrap();
            world.pcu.save(&mut world.current(0), FPU).unwrap();
            edit_xmm(&world, 0x77);
            for next in [Some(1), Some(0), None, Some(0)] {
                world.switch(0, next);
            }
            world.compute(0, |_| Ok(())).unwrap();
            world.switch(0, Some(1));
            world.switch(0, Some(0));
            world.compute(0, |_| Ok(())).unwrap();
            assert_eq!(world.lwp(0).registers.borrow().xmm, [0x77; 256]);
            world.check_end();
        }
    }
}

fn edit_xmm(world: &World<Mock>, byte: u8) {
    let lwp = world.lwp(0);
    let result = world.pcu.replace(&mut world.current(0), FPU, |_| {
        lwp.write(160, &[byte; 256]);
        Ok::<(), NoAnswer>(())
    });
    assert_eq!(result, Ok(()));
    let mut registers = lwp.registers.borrow().clone();
    registers.xmm = [byte; 256];
    world.note(0, registers);
}

/// What the rule is for: written into while the registers are live, an image loses the edit, or half of it.
#[test]
fn an_edit_of_a_live_state_is_lost_as_the_rule_says() {
    let world = one_user(&models::SANDY_BRIDGE);
    world.switch(0, None);
    world.switch(0, Some(0));
    // The registers are live, and equal memory. This is the bug: no `replace`.
    world.lwp(0).write(160, &[0x77; 256]);
    world.compute(0, write_ymm(0x33)).unwrap();
    world.switch(0, None);
    assert_eq!(
        world.lwp(0).read::<1>(160),
        [0x77],
        "XSAVEOPT left the edit where the registers' contents should be"
    );
}

/// The same address, another LWP: what the processor tracks is the area's, and the area has a new owner.
#[test]
fn an_area_that_is_used_again_is_saved_whole() {
    for model in [&models::SANDY_BRIDGE, &models::SKYLAKE_X] {
        let world = one_user(model);
        world.switch(0, None);
        world.switch(0, Some(0));
        world.pcu.exit(world.current(0)).unwrap();
        world.starts_over(0);
        // The same memory for a new LWP, as an allocator would hand it out: prepared anew.
        let area = world.lwp(0).area();
        // SAFETY: nobody has a state in it.
        unsafe { pcu9::x86_64::fpu::Fpu::<Mock>::prepare(area) };
        world.lwp(0).domain.set(world.new_domain());
        world.switch(0, Some(1));
        world.switch(0, Some(0));
        world.compute(0, write_ymm(0x55)).unwrap();
        world.switch(0, Some(1));
        world.compute(0, write_xmm(0x66)).unwrap();
        world.switch(0, Some(0));
        world.compute(0, |_| Ok(())).unwrap();
        world.check_end();
    }
}

/// `discard` with validity kept makes memory the state although nothing was ever saved: the prepared image is the initial state.
#[test]
fn memory_declared_the_state_before_any_save_is_the_initial_state() {
    for model in super::models::all() {
        let world = World::<Mock>::new(model, 1, 2, Policy::Lazy, LeakRule::DomainAware);
        world.switch(0, Some(0));
        world
            .pcu
            .discard(&mut world.current(0), FPU, Validity::Valid)
            .unwrap();
        world.compute(0, |_| Ok(())).unwrap();
        assert_eq!(world.sum().restores, 1, "{}", model.name);
        world.check_end();
    }
}
