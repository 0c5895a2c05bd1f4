//! Rows of the checklist that have no file of their own here; the rest is told by the tests' names. The rows' letters are those
//! of the project's list of what goes wrong in FPU switching.

use pcu9::pcu::{LeakRule, Policy, UnitStats};
use pcu9::x86_64::fpu::{AREA_ALIGN, FPU, FpuFeatures, SaveInstruction};
use pcu9_mock::component::{
    AVX, AVX512, CET_S, CET_U, LWP, MPX, PKRU, SSE, TILECFG, TILEDATA, X87,
};
use pcu9_mock::{CR0_TS, EAX_XSAVEC, EAX_XSAVES, ECX_XSAVE, Mock, Model, models};

use super::contents::fill;
use super::models::with_extensions;
use super::world::World;

fn lazy(model: &'static Model) -> Box<World<Mock>> {
    World::new(model, 1, 2, Policy::Lazy, LeakRule::DomainAware)
}

/// V8, C22. Sizes and offsets are this processor's: CPUID's answers for Intel and for AMD are not each other's.
#[test]
fn areas_are_as_long_as_each_model_says() {
    for (model, instruction, bytes) in [
        (&models::MEROM, SaveInstruction::Fxsave, 512),
        (&models::K8, SaveInstruction::Fxsave, 512),
        (&models::PENRYN, SaveInstruction::Xsave, 576),
        (&models::PILEDRIVER, SaveInstruction::Xsave, 832),
        (&models::SANDY_BRIDGE, SaveInstruction::Xsaveopt, 832),
        (&models::ZEN, SaveInstruction::Xsavec, 832),
        (&models::SKYLAKE_X, SaveInstruction::Xsaves, 2432),
        (&models::ZEN4, SaveInstruction::Xsaves, 2432),
        (&models::SAPPHIRE_RAPIDS, SaveInstruction::Xsaves, 2432),
        (
            with_extensions(&models::SKYLAKE_X, 1),
            SaveInstruction::Xsaveopt,
            2688,
        ),
        (
            with_extensions(&models::ZEN4, 1),
            SaveInstruction::Xsaveopt,
            2432,
        ),
    ] {
        let world = lazy(model);
        let features = FpuFeatures::of::<Mock>();
        assert_eq!(features.save_instruction(), instruction, "{}", model.name);
        assert_eq!(features.area_bytes(), bytes, "{}", model.name);
        assert!(world.lwp(0).area().addr().get().is_multiple_of(AREA_ALIGN));
    }
}

/// C19, C20. PKRU takes effect in the kernel, supervisor components only by XSAVES: neither is part of a lazy state. And what
/// leaf 7 denies is not believed of leaf 0DH.
#[test]
fn the_unit_enables_what_is_its_own_alone() {
    let vectors = X87 | SSE | AVX;
    for (model, expected) in [
        (&models::PENRYN, X87 | SSE),
        (&models::PILEDRIVER, vectors),
        (&models::SKYLAKE_X, vectors | AVX512),
        (&models::ZEN4, vectors | AVX512),
        (&models::SAPPHIRE_RAPIDS, vectors | AVX512),
        (&models::QEMU_SKYLAKE_SERVER, vectors),
    ] {
        let _world = lazy(model);
        Mock::with(|cpu| {
            assert_eq!((cpu.xcr0, cpu.xss), (expected, 0), "{}", model.name);
            let never = PKRU | MPX | CET_U | CET_S | TILECFG | TILEDATA | LWP;
            assert_eq!(cpu.xcr0 & never, 0);
        });
    }
}

/// C24. Erratum 1386: XSAVES of Zen and Zen 2 loses XMM.
#[test]
fn xsaves_is_not_used_where_it_is_broken() {
    for model in [&models::ZEN, &models::DHYANA] {
        assert_ne!(model.extensions & EAX_XSAVES, 0);
        let world = lazy(model);
        assert_eq!(
            FpuFeatures::of::<Mock>().save_instruction(),
            SaveInstruction::Xsavec
        );
        drop(world);
    }
}

/// C21. Every save of an image asks for the same components, so that the compacted layout is one.
#[test]
fn all_saves_of_a_compacted_image_have_one_layout() {
    for model in [
        &models::ZEN,
        &models::SKYLAKE_X,
        &models::ZEN4,
        &models::SAPPHIRE_RAPIDS,
    ] {
        let world = lazy(model);
        let xcomp_bv = |world: &World<Mock>| u64::from_le_bytes(world.lwp(0).read(520));
        let expected = Mock::with(|cpu| cpu.xcr0) | 1 << 63;
        assert_eq!(xcomp_bv(&world), expected, "{}: prepared", model.name);
        for change in 0..6 {
            world.switch(0, Some(0));
            let result = world.compute(0, |cpu| match change {
                0 => fill(cpu, 0x21),
                1 => cpu.write_xmm([0; 256]),
                2 => cpu.write_extended(2, &[0; 256]),
                3 => cpu.fninit(),
                4 => cpu.ldmxcsr(0x1f80),
                _ => fill(cpu, 0),
            });
            assert_eq!(result, Ok(()));
            world.switch(0, Some(1));
            fill_and_leave(&world, 0x42);
            assert_eq!(xcomp_bv(&world), expected, "{}, {change}", model.name);
        }
        world.switch(0, Some(0));
        world.compute(0, |_| Ok(())).unwrap();
        world.check_end();
    }
}

fn fill_and_leave(world: &World<Mock>, byte: u8) {
    world.compute(0, |cpu| fill(cpu, byte)).unwrap();
}

/// L4, the other half: a first use finds initial registers in every component, whatever was there.
#[test]
fn a_first_use_finds_every_component_initial() {
    for model in super::models::all() {
        for rule in [LeakRule::DomainAware, super::TRUSTING] {
            for policy in Policy::ALL {
                let world = World::<Mock>::new(model, 1, 2, policy, rule);
                world.switch(0, Some(0));
                fill_and_leave(&world, 0x21);
                world.switch(0, Some(1));
                // `compute` compares with what a new LWP has: the initial state.
                assert_eq!(world.compute(0, |_| Ok(())), Ok(()), "{}", model.name);
                world.check_end();
            }
        }
    }
}

/// What firmware left in the registers is nobody's: the start of a CPU initialises them all.
#[test]
fn the_start_of_a_cpu_leaves_nothing_of_the_firmwares() {
    for model in super::models::all() {
        let _world = lazy(model);
        super::contents::check_foreign_now(&[]);
        Mock::with(|cpu| {
            assert_ne!(cpu.cr0 & CR0_TS, 0, "{}: the gate is closed", model.name);
            let is_enabled = cpu.cr4 & pcu9_mock::CR4_OSXSAVE != 0;
            assert_eq!(is_enabled, model.leaf_1_ecx & ECX_XSAVE != 0);
        });
    }
}

/// C14. The gate closed behind the core's back: the trap opens it, counts, and moves nothing.
#[test]
fn a_spurious_trap_moves_nothing() {
    for model in super::models::all() {
        let world = lazy(model);
        world.switch(0, Some(0));
        fill_and_leave(&world, 0x21);
        let (before, moved) = (
            world.sum(),
            Mock::with(|cpu| (cpu.memory.stored, cpu.memory.loaded)),
        );
        Mock::with(|cpu| cpu.cr0 |= CR0_TS);
        world.compute(0, |_| Ok(())).unwrap();
        let after = world.sum();
        assert_eq!(after.spurious, before.spurious + 1, "{}", model.name);
        assert_eq!(
            after,
            UnitStats {
                traps: before.traps + 1,
                spurious: after.spurious,
                ..before
            }
        );
        assert_eq!(
            Mock::with(|cpu| (cpu.memory.stored, cpu.memory.loaded)),
            moved
        );
        world.check_end();
    }
}

/// L10. An LWP that has exited is freed while its bits are still in the registers: nobody reads them, nobody writes to its area.
#[test]
fn a_freed_lwp_is_nobodys_owner() {
    for policy in Policy::ALL {
        for model in [&models::SANDY_BRIDGE, &models::SKYLAKE_X, &models::K8] {
            let world = World::<Mock>::new(model, 2, 2, policy, super::TRUSTING);
            world.switch(1, Some(0));
            world.compute(1, |cpu| fill(cpu, 0x21)).unwrap();
            world.pcu.exit(world.current(1)).unwrap();
            world.switch(1, None);
            world.replace(0);
            assert_eq!(world.cpus[1].pcu.owner(FPU), None);
            for cpu in [0, 1] {
                world.switch(cpu, Some(0));
                assert_eq!(
                    world.compute(cpu, |_| Ok(())),
                    Ok(()),
                    "a new LWP is initial"
                );
                world.switch(cpu, None);
            }
            world.check_end();
        }
    }
}

/// C1. The child gets what the parent's registers hold at that moment, not what memory held before.
#[test]
fn a_forked_child_has_the_registers_and_not_an_old_image() {
    for model in super::models::all() {
        for policy in Policy::ALL {
            let world = World::<Mock>::new(model, 1, 2, policy, LeakRule::DomainAware);
            world.switch(0, Some(0));
            fill_and_leave(&world, 0x21);
            world.pcu.save(&mut world.current(0), FPU).unwrap();
            fill_and_leave(&world, 0x22);
            let mut child = world.stopped(1);
            world.pcu.fork(&mut world.current(0), &mut child).unwrap();
            let registers = world.lwp(0).registers.borrow().clone();
            world.note(1, registers);
            fill_and_leave(&world, 0x23);
            world.switch(0, Some(1));
            assert_eq!(
                world.compute(0, |_| Ok(())),
                Ok(()),
                "{}, {policy:?}",
                model.name
            );
            world.switch(0, Some(0));
            assert_eq!(
                world.compute(0, |_| Ok(())),
                Ok(()),
                "{}, {policy:?}",
                model.name
            );
            world.check_end();
        }
    }
}

/// C6, C7. A state that is live on another CPU is fetched from there, whole.
#[test]
fn a_migrated_state_comes_along() {
    for model in super::models::all() {
        for policy in Policy::ALL {
            let world = World::<Mock>::new(model, 2, 2, policy, LeakRule::DomainAware);
            for round in 0..6 {
                let (cpu, byte) = (round % 2, 0x20 + u8::try_from(round).unwrap());
                world.switch(cpu, Some(0));
                world
                    .compute(cpu, |registers| fill(registers, byte))
                    .unwrap();
                world.switch(cpu, None);
            }
            world.check_end();
        }
    }
}

/// A compacted processor's restore goes by the format that it saves in.
#[test]
fn compaction_is_used_where_it_is_shown() {
    for model in super::models::all() {
        let _world = lazy(model);
        let features = FpuFeatures::of::<Mock>();
        let is_compacted = matches!(
            features.save_instruction(),
            SaveInstruction::Xsavec | SaveInstruction::Xsaves
        );
        let has_compaction = model.extensions & EAX_XSAVEC != 0;
        assert_eq!(is_compacted, has_compaction, "{}", model.name);
    }
}
