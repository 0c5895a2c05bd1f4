//! Restores that fault: nothing of the image, and nothing of anybody else, may be left.

use pcu9::kernel::NoAnswer;
use pcu9::pcu::{LeakRule, LoadError, Policy, StateError, UnitStats};
use pcu9::x86_64::fpu::FPU;
use pcu9_mock::component::{AVX, SSE};
use pcu9_mock::{CR0_TS, Mock, Model, Registers, models};

use super::contents::{check_foreign_now, fill};
use super::world::World;
use super::{TRUSTING, models as variants};

/// Two LWPs of two domains with everything in use; the first has run last, on CPU 0, and its state is in memory.
fn two_users(model: &'static Model, rule: LeakRule) -> Box<World<Mock>> {
    let world = World::<Mock>::new(model, 1, 2, Policy::Lazy, rule);
    for lwp in [1, 0] {
        world.switch(0, Some(lwp));
        let byte = 0x10 + u8::try_from(lwp).unwrap();
        world.compute(0, |cpu| fill(cpu, byte)).unwrap();
    }
    world.pcu.save(&mut world.current(0), FPU).unwrap();
    world
}

/// The LWP's next use fails, and leaves initial registers, no owner, a closed gate, and one count of a failure.
fn use_fails(world: &World<Mock>, what: &str) {
    let before = world.sum();
    let result = world.compute(0, |_| Ok(()));
    assert_eq!(
        result,
        Err(LoadError::State(StateError::BadImage)),
        "{what}"
    );
    assert_eq!(world.cpus[0].pcu.owner(FPU), None, "{what}");
    Mock::with(|cpu| assert_ne!(cpu.cr0 & CR0_TS, 0, "{what}: the gate is open"));
    check_foreign_now(&[]);
    let UnitStats { failed, .. } = world.sum();
    assert_eq!(failed, before.failed + 1, "{what}");
}

fn write(world: &World<Mock>, at: usize, bytes: &[u8]) {
    let lwp = world.lwp(0);
    let result = world.pcu.replace(&mut world.current(0), FPU, |_| {
        lwp.write(at, bytes);
        Ok::<(), NoAnswer>(())
    });
    assert_eq!(result, Ok(()));
}

/// L6. Each way of a bad header, on every model and instruction: then the good image again, which is still there.
#[test]
fn a_refused_image_leaves_initial_registers_and_no_owner() {
    for model in variants::all().iter().filter(|model| model.has_xsave()) {
        for rule in [LeakRule::DomainAware, TRUSTING] {
            let world = two_users(model, rule);
            let header: [u8; 64] = world.lwp(0).read(512);
            for (at, what) in [(5, "XSTATE_BV"), (13, "XCOMP_BV"), (16, "a reserved byte")] {
                write(&world, 512 + at, &[header[at] ^ 0x20]);
                use_fails(&world, &format!("{}: {what}", model.name));
                write(&world, 512, &header);
                assert_eq!(world.compute(0, |_| Ok(())), Ok(()), "{}", model.name);
                world.pcu.save(&mut world.current(0), FPU).unwrap();
            }
            world.check_end();
        }
    }
}

/// A reserved bit of MXCSR: FXRSTOR and XRSTOR refuse it, the standard form even if the image says that SSE is initial.
#[test]
fn a_reserved_bit_of_mxcsr_leaves_initial_registers_and_no_owner() {
    for model in variants::all() {
        let world = two_users(model, LeakRule::DomainAware);
        let xstate_bv = |world: &World<Mock>| u64::from_le_bytes(world.lwp(0).read(512));
        let mxcsr: [u8; 4] = world.lwp(0).read(24);
        if model.has_xsave() {
            assert_ne!(xstate_bv(&world) & SSE, 0, "{}", model.name);
        }
        write(&world, 24, &0x8000_0000_u32.to_le_bytes());
        use_fails(&world, model.name);
        write(&world, 24, &mxcsr);
        assert_eq!(world.compute(0, |_| Ok(())), Ok(()), "{}", model.name);
        world.check_end();
    }
}

/// L7. A restore that faults in the middle has loaded some components: the LWP's own by right, and nobody's all the same. The
/// page comes back, and so does the state, whole.
#[test]
fn a_restore_that_faults_half_way_leaves_initial_registers_and_no_owner() {
    let mut partial = 0;
    for model in variants::all() {
        let world = two_users(model, LeakRule::DomainAware);
        let area = world.lwp(0).area().addr().get();
        for hole in [0, 32, 160, 576, 832, 1088, 1152, 1664, 2300] {
            Mock::with(|cpu| cpu.memory.unmap(area + hole..area + hole + 8));
            let restores = Mock::with(|cpu| cpu.events.restores);
            if world.compute(0, |_| Ok(())).is_err() {
                partial += 1;
                check_foreign_now(&[]);
                assert_eq!(world.cpus[0].pcu.owner(FPU), None, "{}", model.name);
                // The wipe that followed may be a restore of the initial image; there was no other.
                assert!(Mock::with(|cpu| cpu.events.restores) <= restores + 1);
                Mock::with(|cpu| assert_ne!(cpu.cr0 & CR0_TS, 0));
            }
            Mock::with(|cpu| cpu.memory.map_all());
            assert_eq!(
                world.compute(0, |_| Ok(())),
                Ok(()),
                "{}, {hole}",
                model.name
            );
            world.pcu.save(&mut world.current(0), FPU).unwrap();
        }
        world.check_end();
    }
    assert!(partial > 100, "{partial} restores have faulted");
}

/// The model itself: such a restore does leave registers half loaded, or the test above would show nothing.
#[test]
fn the_mock_loads_what_lies_before_the_fault() {
    use pcu9::x86_64::machine::Machine;
    let world = two_users(&models::SANDY_BRIDGE, LeakRule::DomainAware);
    let area = world.lwp(0).area();
    world.go_to(0);
    // SAFETY: a mock has nobody's registers.
    unsafe { Mock::clts() };
    let hole = area.addr().get() + 576;
    Mock::with(|cpu| cpu.memory.unmap(hole..hole + 1));
    let before = Registers::initial(&models::SANDY_BRIDGE);
    Mock::with(|cpu| cpu.registers = before.clone());
    // SAFETY: the area of an LWP.
    assert!(unsafe { Mock::xrstor(area, 7) }.is_err());
    let changed = Mock::with(|cpu| cpu.registers.differences(&before));
    assert_ne!(changed & SSE, 0);
    assert_eq!(changed & AVX, 0);
}

/// C27. The kernel gives no area: an error to the LWP, and the registers are initial.
#[test]
fn a_refused_area_leaves_initial_registers_and_no_owner() {
    for model in variants::all() {
        let world = two_users(model, TRUSTING);
        world.switch(0, Some(1));
        world.lwp(1).refuses_area.set(true);
        let result = world.compute(0, |_| Ok(()));
        assert_eq!(
            result,
            Err(LoadError::State(StateError::Refused)),
            "{}",
            model.name
        );
        assert_eq!(world.cpus[0].pcu.owner(FPU), None);
        check_foreign_now(&[]);
        world.lwp(1).refuses_area.set(false);
        assert_eq!(world.compute(0, |_| Ok(())), Ok(()), "{}", model.name);
        world.check_end();
    }
}
