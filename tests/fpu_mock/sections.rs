//! Kernel sections: the kernel fills every component of the FPU, over nobody's registers and over whoever owns them, in LWPs and in
//! interrupts, one inside the other. It finds the initial state, leaves the initial state, and nobody loses a bit.

use fastrand::Rng;
use pcu9::pcu::{LeakRule, Policy, SectionError, Validity};
use pcu9::x86_64::fpu::FPU;
use pcu9::x86_64::machine::Machine;
use pcu9_mock::{CR0_TS, Mock, Model, Registers};

use super::contents::{
    check_foreign_now, check_own, check_section, compute_anything, differences, fill, fill_some,
};
use super::everything::{KernelUse, on_every_model};
use super::world::World;
use super::{TRUSTING, models};

/// In every register after a section, if it is not wiped.
const CANARY: u8 = 0x5c;

fn registers() -> Registers {
    Mock::with(|cpu| cpu.registers.clone())
}

fn is_closed() -> bool {
    Mock::with(|cpu| cpu.cr0 & CR0_TS != 0)
}

/// Looks at what a section finds.
fn enter() {
    Mock::with(|cpu| check_section(cpu));
}

/// What is to be behind a section that is in no other one: a closed gate, nobody's registers, no owner.
fn left<M: Machine>(world: &World<M>, cpu: usize) {
    assert!(is_closed(), "a section leaves the gate open");
    check_foreign_now(&[]);
    assert_eq!(world.cpus[cpu].pcu.owner(FPU), None);
}

/// Does anything to the registers: mostly to all of them.
fn use_registers(rng: &mut Rng) {
    Mock::with(|cpu| {
        let enabled = cpu.xcr0;
        let result = match rng.u8(..3) {
            0 => compute_anything(cpu, rng, enabled),
            _ => fill(cpu, rng.u8(1..)),
        };
        assert_eq!(result, Ok(()), "in a section");
    });
}

/// If the world has interrupts: one that uses the FPU, in one case of three, with a slot or without.
pub(crate) fn may_interrupt<M: Machine>(world: &World<M>) {
    // While it is served there are no others.
    let Some(mut rng) = world.interrupts.take() else {
        return;
    };
    if rng.u8(..3) == 0 {
        let has_slot = rng.bool();
        interrupt(world, &mut rng, has_slot);
    }
    world.interrupts.replace(Some(rng));
}

/// An interrupt on the CPU that executes, whatever it came into.
fn interrupt<M: Machine>(world: &World<M>, rng: &mut Rng, has_slot: bool) {
    let cpu = world.here();
    let is_nested = world.cpus[cpu].pcu.in_section();
    let before = registers();
    let mut slot = has_slot.then(|| world.slot());
    let result = world
        .pcu
        .section_in_interrupt(world, FPU, slot.as_mut(), |_| {
            enter();
            use_registers(rng);
        });
    if is_nested {
        let expected = if has_slot {
            Ok(())
        } else {
            Err(SectionError::Nested(FPU))
        };
        assert_eq!(result, expected);
        Mock::with(|cpu| check_own(cpu, &before, "after the section inside"));
        assert!(!is_closed(), "the outer section's gate");
    } else {
        assert_eq!(result, Ok(()));
        left(world, cpu);
    }
}

/// The LWP that runs on `cpu`, if one does, uses the FPU in the kernel.
pub(crate) fn by_lwp<M: Machine>(world: &World<M>, cpu: usize, rng: &mut Rng) {
    if world.current_on(cpu).is_none() {
        return;
    }
    let result = world.pcu.section(&mut world.current(cpu), FPU, |_| {
        enter();
        use_registers(rng);
        let own = registers();
        for _ in 0..3 {
            may_interrupt(world);
            Mock::with(|cpu| check_own(cpu, &own, "after an interrupt"));
        }
    });
    assert_eq!(result, Ok(()));
}

/// Whose the registers are when the section comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Nobody,
    /// The LWP that has the section, or that was interrupted.
    Own,
    /// Another one, whose gate may still be open.
    Other,
    /// Another one, whose state is in memory, and its bits perhaps in the registers.
    Saved,
    /// Another one, which has discarded its state.
    Discarded,
}

const OWNERS: [Owner; 5] = [
    Owner::Nobody,
    Owner::Own,
    Owner::Other,
    Owner::Saved,
    Owner::Discarded,
];

/// Two LWPs on one CPU, the second of which runs; the registers are `owner`'s.
fn prepare(
    model: &'static Model,
    policy: Policy,
    rule: LeakRule,
    owner: Owner,
) -> Box<World<Mock>> {
    let world = World::<Mock>::new(model, 1, 2, policy, rule);
    world.switch(0, Some(0));
    if owner != Owner::Nobody {
        world.compute(0, |cpu| fill(cpu, 0x21)).unwrap();
    }
    match owner {
        Owner::Nobody | Owner::Own | Owner::Other => {}
        Owner::Saved => world.pcu.save(&mut world.current(0), FPU).unwrap(),
        Owner::Discarded => {
            let mut current = world.current(0);
            let result = world.pcu.discard(&mut current, FPU, Validity::Invalid);
            result.unwrap();
            world.starts_over(0);
        }
    }
    world.switch(0, Some(1));
    if owner == Owner::Own {
        world.compute(0, |cpu| fill(cpu, 0x42)).unwrap();
    }
    world
}

/// Both LWPs find what they had: [`World::compute`] compares.
fn finish(world: &World<Mock>) {
    world.look(0);
    world.compute(0, |_| Ok(())).unwrap();
    world.switch(0, Some(0));
    world.compute(0, |_| Ok(())).unwrap();
    world.check_end();
}

/// Every model, policy, rule and owner.
fn everywhere(f: impl Fn(&World<Mock>)) {
    for model in models::all() {
        for policy in Policy::ALL {
            for rule in [LeakRule::DomainAware, TRUSTING] {
                for owner in OWNERS {
                    let world = prepare(model, policy, rule, owner);
                    f(&world);
                    finish(&world);
                }
            }
        }
    }
}

/// Every component.
const ALL: u64 = u64::MAX;

/// Fills the components of `bitmap` that the machine enables; all that there is has the byte then.
fn fill_with(byte: u8, bitmap: u64) -> Registers {
    Mock::with(|cpu| {
        assert_eq!(fill_some(cpu, byte, bitmap), Ok(()));
        let enabled = if cpu.model().has_xsave() { cpu.xcr0 } else { 3 };
        let different = differences(cpu, &Registers::initial(cpu.model())) & enabled;
        assert_eq!(different, enabled & bitmap, "{}", cpu.model().name);
    });
    registers()
}

/// The LWP that runs on CPU 0 fills each component alone in the kernel, and all of them; each time it finds what the time before
/// left.
pub(crate) fn leave_a_canary<M: Machine>(world: &World<M>) {
    for bitmap in [1, 2, 4, 1 << 5, 1 << 6, 1 << 7, ALL, ALL] {
        let result = world.pcu.section(&mut world.current(0), FPU, |_| {
            enter();
            fill_with(CANARY, bitmap);
        });
        assert_eq!(result, Ok(()));
        left(world, 0);
    }
}

/// L8.
#[test]
fn nothing_of_a_canary_in_every_component_is_left() {
    everywhere(leave_a_canary);
}

/// C9.
#[test]
fn nothing_is_left_by_an_interrupt_either() {
    everywhere(|world| {
        let result = world.pcu.section_in_interrupt(world, FPU, None, |_| {
            enter();
            fill_with(CANARY, ALL);
        });
        assert_eq!(result, Ok(()));
        left(world, 0);
    });
}

/// C10.
#[test]
fn a_nested_section_gives_every_component_back() {
    everywhere(|world| {
        let mut current = world.current(0);
        let result = world.pcu.section(&mut current, FPU, |_| {
            enter();
            let own = fill_with(CANARY, ALL);
            for has_slot in [true, false, true] {
                let mut slot = has_slot.then(|| world.slot());
                let result = world
                    .pcu
                    .section_in_interrupt(world, FPU, slot.as_mut(), |_| {
                        enter();
                        fill_with(0xa3, ALL);
                    });
                assert_eq!(result.is_ok(), has_slot);
                Mock::with(|cpu| check_own(cpu, &own, "after the section inside"));
            }
        });
        assert_eq!(result, Ok(()));
        left(world, 0);
    });
}

/// C9, everywhere: interrupts come at every lowering of the level of everything that LWPs and the kernel do.
#[test]
fn lazy_with_sections_everywhere() {
    on_every_model(Policy::Lazy, KernelUse::Sections);
}

#[test]
fn deferred_with_sections_everywhere() {
    on_every_model(Policy::Deferred, KernelUse::Sections);
}

#[test]
fn eager_with_sections_everywhere() {
    on_every_model(Policy::Eager, KernelUse::Sections);
}

#[test]
fn adaptive_with_sections_everywhere() {
    on_every_model(Policy::Adaptive, KernelUse::Sections);
}

#[test]
fn adaptive_write_through_with_sections_everywhere() {
    on_every_model(Policy::AdaptiveWriteThrough, KernelUse::Sections);
}

#[test]
fn probe_with_sections_everywhere() {
    on_every_model(Policy::Probe, KernelUse::Sections);
}
