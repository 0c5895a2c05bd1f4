//! Everything at random: every model and save instruction, every policy, both leak rules; two CPUs, five LWPs.

use fastrand::Rng;
use pcu9::kernel::NoAnswer;
use pcu9::pcu::{CoreDump, LeakRule, LoadError, Policy, StateError, Validity};
use pcu9::x86_64::fpu::FPU;
use pcu9::x86_64::machine::Machine;
use pcu9_mock::{CR0_TS, Mock, Model};

use super::contents::compute_anything;
use super::world::World;
use super::{TRUSTING, models, sections};

const STEPS: usize = 150;
const ROUNDS: u64 = 8;
const CPUS: usize = 2;
const LWPS: usize = 5;

/// Plays one seed on machine `M`.
pub(crate) fn run<M: Machine>(model: &'static Model, policy: Policy, rule: LeakRule, seed: u64) {
    play::<M>(model, policy, rule, seed, KernelUse::None);
}

/// Does the kernel use the FPU itself?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum KernelUse {
    /// Never.
    None,
    /// In LWPs now and then, and in interrupts wherever the level is lowered.
    Sections,
}

/// Plays one seed on machine `M`, with the kernel's own use of the FPU.
pub(crate) fn play<M: Machine>(
    model: &'static Model,
    policy: Policy,
    rule: LeakRule,
    seed: u64,
    kernel_use: KernelUse,
) {
    let mut rng = Rng::with_seed(seed);
    let world = World::<M>::new(model, CPUS, LWPS, policy, rule);
    if kernel_use == KernelUse::Sections {
        world.interrupts.replace(Some(rng.fork()));
    }
    // Two of them are threads of one process, one is the kernel's.
    world.lwp(1).domain.set(world.lwp(0).domain.get());
    world.lwp(4).domain.set(0);
    for _ in 0..STEPS {
        step(&world, &mut rng);
        if kernel_use == KernelUse::Sections && rng.u8(..4) == 0 {
            sections::by_lwp(&world, rng.usize(..CPUS), &mut rng);
        }
        for cpu in 0..CPUS {
            world.look(cpu);
        }
    }
    world.check_end();
}

fn step<M: Machine>(world: &World<M>, rng: &mut Rng) {
    let cpu = rng.usize(..CPUS);
    let other = rng.usize(..world.n_lwps());
    let current = world.current_on(cpu);
    let is_user = current.is_some_and(|lwp| world.lwp(lwp).domain.get() != 0);
    match rng.u8(..16) {
        0..=3 if world.cpu_of(other).is_none() => world.switch(cpu, Some(other)),
        4 => world.switch(cpu, None),
        5..=9 if is_user => compute(world, cpu, rng),
        10 if is_user => world.return_to_user(cpu),
        11 if is_user && world.cpu_of(other).is_none() => fork(world, cpu, other),
        12 if is_user => exec_or_exit(world, cpu, rng),
        13 if is_user => edit(world, cpu, rng),
        14 if is_user => bad_image(world, cpu, rng),
        15 if is_user => save_or_shut(world, cpu, rng),
        _ => {}
    }
}

fn compute<M: Machine>(world: &World<M>, cpu: usize, rng: &mut Rng) {
    world.go_to(cpu);
    let enabled = Mock::with(|cpu| cpu.xcr0);
    let result = world.compute(cpu, |cpu| compute_anything(cpu, rng, enabled));
    assert_eq!(result, Ok(()));
}

fn fork<M: Machine>(world: &World<M>, cpu: usize, child: usize) {
    let parent = world.current_on(cpu).unwrap();
    if world.lwp(child).domain.get() == 0 {
        return;
    }
    let mut token = world.stopped(child);
    world.pcu.fork(&mut world.current(cpu), &mut token).unwrap();
    let registers = world.lwp(parent).registers.borrow().clone();
    if world.lwp(parent).pcu.valid_p(FPU) {
        world.note(child, registers);
    } else {
        world.starts_over(child);
    }
}

fn exec_or_exit<M: Machine>(world: &World<M>, cpu: usize, rng: &mut Rng) {
    let lwp = world.current_on(cpu).unwrap();
    if rng.bool() {
        let change_domain = || world.lwp(lwp).domain.set(world.new_domain());
        world
            .pcu
            .exec(&mut world.current(cpu), change_domain)
            .unwrap();
        world.starts_over(lwp);
    } else {
        world.pcu.exit(world.current(cpu)).unwrap();
        world.starts_over(lwp);
        world.switch(cpu, None);
        world.replace(lwp);
    }
}

/// A debugger, or a return from a signal handler: the image in memory is edited, and is the state from then on.
fn edit<M: Machine>(world: &World<M>, cpu: usize, rng: &mut Rng) {
    let number = world.current_on(cpu).unwrap();
    world.pcu.save(&mut world.current(cpu), FPU).unwrap();
    if !world.lwp(number).pcu.valid_p(FPU) {
        return;
    }
    let lwp = world.lwp(number);
    let result = world.pcu.replace(&mut world.current(cpu), FPU, |_| {
        let mut xmm = [0; 256];
        rng.fill(&mut xmm);
        let mxcsr = rng.u32(..) & world.model.mxcsr_mask;
        lwp.write(160, &xmm);
        lwp.write(24, &mxcsr.to_le_bytes());
        if world.model.has_xsave() {
            lwp.write(512, &[lwp.read::<1>(512)[0] | 2]);
        }
        let mut registers = lwp.registers.borrow().clone();
        (registers.xmm, registers.mxcsr) = (xmm, mxcsr);
        world.note(number, registers);
        Ok::<(), NoAnswer>(())
    });
    assert_eq!(result, Ok(()));
}

/// An image that the processor refuses: an error to the LWP, and nothing of it or of anybody else in the registers.
fn bad_image<M: Machine>(world: &World<M>, cpu: usize, rng: &mut Rng) {
    let number = world.current_on(cpu).unwrap();
    world.pcu.save(&mut world.current(cpu), FPU).unwrap();
    if !world.lwp(number).pcu.valid_p(FPU) || !world.model.has_xsave() {
        return;
    }
    let lwp = world.lwp(number);
    let header = 512 + rng.usize(..2) * 8 + 5;
    let good: [u8; 1] = lwp.read(header);
    let result = world.pcu.replace(&mut world.current(cpu), FPU, |_| {
        lwp.write(header, &[0x40]);
        Ok::<(), NoAnswer>(())
    });
    assert_eq!(result, Ok(()));
    let result = world.compute(cpu, |_| Ok(()));
    assert_eq!(result, Err(LoadError::State(StateError::BadImage)));
    assert_eq!(
        world.cpus[cpu].pcu.owner(FPU),
        None,
        "nobody owns a part of an image"
    );
    Mock::with(|cpu| assert_ne!(cpu.cr0 & CR0_TS, 0, "the gate is closed"));
    super::contents::check_foreign_now(&[]);
    let result = world.pcu.replace(&mut world.current(cpu), FPU, |_| {
        lwp.write(header, &good);
        Ok::<(), NoAnswer>(())
    });
    assert_eq!(result, Ok(()));
}

/// The odd ones: saves, a discard, a trap although the gate is open.
fn save_or_shut<M: Machine>(world: &World<M>, cpu: usize, rng: &mut Rng) {
    let lwp = world.current_on(cpu).unwrap();
    match rng.u8(..4) {
        0 => world.pcu.save(&mut world.current(cpu), FPU).unwrap(),
        1 => {
            let dump = if rng.bool() {
                CoreDump::Yes
            } else {
                CoreDump::No
            };
            world.pcu.save_all(&mut world.current(cpu), dump).unwrap();
        }
        2 => {
            let mut current = world.current(cpu);
            world
                .pcu
                .discard(&mut current, FPU, Validity::Invalid)
                .unwrap();
            world.starts_over(lwp);
        }
        _ => {
            world.go_to(cpu);
            Mock::with(|cpu| cpu.cr0 |= CR0_TS);
            let result = world.compute(cpu, |_| Ok(()));
            assert_eq!(result, Ok(()));
        }
    }
}

fn every_model(policy: Policy) {
    on_every_model(policy, KernelUse::None);
}

pub(crate) fn on_every_model(policy: Policy, kernel_use: KernelUse) {
    for (index, model) in models::all().iter().enumerate() {
        for rule in [LeakRule::DomainAware, TRUSTING] {
            for round in 0..ROUNDS {
                let seed = index as u64 * ROUNDS + round;
                let play = || play::<Mock>(model, policy, rule, seed, kernel_use);
                let result = std::panic::catch_unwind(play);
                if let Err(payload) = result {
                    eprintln!("{}, {policy:?}, {rule:?}, seed {seed}", model.name);
                    std::panic::resume_unwind(payload);
                }
            }
        }
    }
}

#[test]
fn lazy_on_every_model() {
    every_model(Policy::Lazy);
}

#[test]
fn deferred_on_every_model() {
    every_model(Policy::Deferred);
}

#[test]
fn eager_on_every_model() {
    every_model(Policy::Eager);
}

#[test]
fn adaptive_on_every_model() {
    every_model(Policy::Adaptive);
}

#[test]
fn adaptive_write_through_on_every_model() {
    every_model(Policy::AdaptiveWriteThrough);
}

#[test]
fn probe_on_every_model() {
    every_model(Policy::Probe);
}
