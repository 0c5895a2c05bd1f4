//! AMX as a unit of its own, on the only machine that has it here: tiles, `IA32_XFD`, and whose `#NM` it is.

use std::cell::Cell;

use fastrand::Rng;
use pcu9::pcu::{LeakRule, LoadError, StateError};
use pcu9::x86_64::amx::AMX;
use pcu9::x86_64::fpu::FPU;
use pcu9::x86_64::machine::Machine;
use pcu9::x86_64::{DeviceNotAvailable, UsedBy};
use pcu9_mock::component::{TILECFG, TILEDATA};
use pcu9_mock::{Cpu, Fault, Mock, models};

use super::TRUSTING;
use super::contents::{check_foreign_now, compute_anything};
use super::world::World;

fn tiles(n_cpus: usize, n_lwps: usize, rule: LeakRule) -> Box<World<Mock>> {
    World::with_amx(&models::SAPPHIRE_RAPIDS, n_cpus, n_lwps, rule)
}

/// LDTILECFG, then TILELOADD.
fn multiply(cpu: &mut Cpu, byte: u8) -> Result<(), Fault> {
    cpu.write_extended(17, &[byte; 64])?;
    cpu.write_extended(18, &[byte; 8192])
}

/// LWPs with and without tiles, vectors besides, on two CPUs.
pub(crate) fn run<M: Machine>(rule: LeakRule, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let world = World::<M>::with_amx(&models::SAPPHIRE_RAPIDS, 2, 4, rule);
    for lwp in 0..2 {
        world.switch(0, Some(lwp));
        assert_eq!(world.permit_amx(0), Ok(()));
    }
    world.switch(0, None);
    for _ in 0..60 {
        let (cpu, lwp) = (rng.usize(..2), rng.usize(..4));
        if world.cpu_of(lwp).is_none() {
            world.switch(cpu, Some(lwp));
            world.return_to_user(cpu);
        }
        let Some(current) = world.current_on(cpu) else {
            continue;
        };
        if current >= 2 && rng.u8(..4) == 0 {
            let result = world.compute(cpu, |cpu| cpu.write_extended(18, &[1; 8192]));
            let refused = Err(LoadError::State(StateError::Refused));
            assert_eq!(result, refused, "lwp {current} has no permission");
            continue;
        }
        let enabled = Mock::on(cpu, |cpu| cpu.xcr0);
        let result = world.compute(cpu, |registers| {
            if current < 2 && rng.bool() {
                multiply(registers, rng.u8(..))?;
            }
            compute_anything(registers, &mut rng, enabled)
        });
        assert_eq!(result, Ok(()), "seed {seed}");
    }
    assert_eq!(Mock::with(|cpu| cpu.events.redundant_ts_writes), 0);
}

/// Nothing is lost, and nothing is seen by another.
#[test]
fn tiles_follow_their_lwp_and_nobody_else_sees_them() {
    for rule in [LeakRule::DomainAware, TRUSTING] {
        for seed in 0..20 {
            run::<Mock>(rule, seed);
        }
    }
}

/// C16. `IA32_XFD_ERR` is asked first, and cleared; `#NM` by `CR0.TS` leaves it alone.
#[test]
fn xfd_err_comes_first_and_is_cleared() {
    let world = tiles(1, 2, LeakRule::DomainAware);
    world.switch(0, Some(0));
    // Behind TS alone.
    let by_ts = Mock::with(|cpu| cpu.write_xmm([1; 256]));
    assert_eq!(by_ts, Err(Fault::DeviceNotAvailable));
    assert_eq!(Mock::with(|cpu| cpu.xfd_err), 0);
    // SAFETY: a mock is in ring 0.
    let classify = |by| unsafe { DeviceNotAvailable::classify_on::<Mock>(by, 0x1234) };
    assert_eq!(classify(UsedBy::Lwp), DeviceNotAvailable::Unit(FPU));
    // Behind both: TS does not stop AMX.
    let by_xfd = Mock::with(|cpu| cpu.write_extended(18, &[1; 8192]));
    assert_eq!(by_xfd, Err(Fault::DeviceNotAvailable));
    assert_eq!(Mock::with(|cpu| cpu.xfd_err), TILEDATA);
    assert_eq!(classify(UsedBy::Lwp), DeviceNotAvailable::Unit(AMX));
    assert_eq!(
        Mock::with(|cpu| cpu.xfd_err),
        0,
        "the processor never clears it"
    );
    assert_eq!(classify(UsedBy::Lwp), DeviceNotAvailable::Unit(FPU));
}

/// C15. A use by the kernel itself is told by its address, and not served.
#[test]
fn a_use_by_the_kernel_is_a_bug_with_an_address() {
    for model in super::models::all() {
        let world = World::<Mock>::new(model, 1, 1, pcu9::pcu::Policy::Lazy, LeakRule::DomainAware);
        // SAFETY: a mock is in ring 0.
        let cause = unsafe { DeviceNotAvailable::classify_on::<Mock>(UsedBy::Kernel, 0x1234) };
        assert_eq!(
            cause,
            DeviceNotAvailable::KernelBug { rip: 0x1234 },
            "{}",
            model.name
        );
        drop(world);
    }
}

/// C27. Without permission there is no area: the error is the kernel's to turn into a signal, and the FPU goes on.
#[test]
fn an_lwp_without_permission_is_refused() {
    let world = tiles(1, 2, LeakRule::DomainAware);
    world.switch(0, Some(0));
    world.return_to_user(0);
    let result = world.compute(0, |cpu| cpu.write_extended(18, &[1; 8192]));
    assert_eq!(result, Err(LoadError::State(StateError::Refused)));
    assert_eq!(world.cpus[0].pcu.owner(AMX), None);
    assert_eq!(world.compute(0, |cpu| cpu.write_xmm([7; 256])), Ok(()));
}

/// C17. Tiles are restored with `IA32_XFD` open, and saved too: closed, the restore would be `#NM` and the save would call them
/// initial.
#[test]
fn tiles_move_past_an_open_xfd_alone() {
    let world = tiles(1, 2, LeakRule::DomainAware);
    world.switch(0, Some(0));
    assert_eq!(world.permit_amx(0), Ok(()));
    assert_eq!(Mock::with(|cpu| cpu.xfd), 0, "its LWP runs");
    world.compute(0, |cpu| multiply(cpu, 0x5a)).unwrap();
    world.switch(0, Some(1));
    world.return_to_user(0);
    assert_eq!(Mock::with(|cpu| cpu.xfd), TILEDATA, "another runs");
    world.switch(0, Some(0));
    world.return_to_user(0);
    assert_eq!(Mock::with(|cpu| cpu.xfd), 0);
    let found = Cell::new(0);
    world
        .compute(0, |cpu| {
            found.set(cpu.registers.extended(18)[8191]);
            Ok(())
        })
        .unwrap();
    assert_eq!(found.get(), 0x5a);
}

/// C18. What nobody needs is released: no tile is in use after its LWP has left, so that a core may sleep.
#[test]
fn tiles_are_released_when_their_lwp_has_gone() {
    let world = tiles(1, 2, LeakRule::DomainAware);
    world.switch(0, Some(0));
    assert_eq!(world.permit_amx(0), Ok(()));
    world.compute(0, |cpu| multiply(cpu, 0x5a)).unwrap();
    world.switch(0, Some(1));
    world.return_to_user(0);
    Mock::with(|cpu| cpu.xfd = 0);
    // SAFETY: XGETBV needs CR4.OSXSAVE, which the start of the CPU has set.
    assert_eq!(unsafe { Mock::xinuse() } & (TILECFG | TILEDATA), 0);
    Mock::with(|cpu| cpu.xfd = TILEDATA);
    check_foreign_now(&[]);
}

/// L9. A flush executes the same whether there was anything to save or not, and leaves nothing.
#[test]
fn a_flush_does_the_same_whether_there_was_anything_or_not() {
    for model in super::models::all() {
        let work = |used: bool| {
            let world =
                World::<Mock>::new(model, 1, 3, pcu9::pcu::Policy::Lazy, LeakRule::DomainAware);
            world.switch(0, Some(0));
            if used {
                let enabled = Mock::with(|cpu| cpu.xcr0);
                let mut rng = Rng::with_seed(3);
                world
                    .compute(0, |cpu| compute_anything(cpu, &mut rng, enabled))
                    .unwrap();
            }
            let before = Mock::with(|cpu| cpu.events);
            world.flush(0, 2);
            check_foreign_now(&[]);
            let after = Mock::with(|cpu| cpu.events);
            world.switch(0, Some(0));
            assert_eq!(world.compute(0, |_| Ok(())), Ok(()), "{}", model.name);
            (
                after.saves - before.saves,
                after.restores - before.restores,
                after.ts_writes - before.ts_writes,
            )
        };
        assert_eq!(work(false), work(true), "{}", model.name);
    }
}
