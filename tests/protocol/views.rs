//! What debuggers and traces are told: each state in its word.

use pcu9::kernel::{CpuId, Domain};
use pcu9::pcu::{Layout, LeakRule, Location, Policy, Registers, Residue, Validity};
use pcu9_fake::{TRUSTING, World, cpu_id, unit};

use super::{DSP, FPU, write};

#[test]
fn an_lwps_state_is_nowhere_live_or_clean() {
    let world = World::with_policy(2, 1, 2, TRUSTING, Policy::Deferred);
    let view = || world.lwp(0).pcu.view(FPU).unwrap();
    let none = view();
    assert_eq!(
        (none.location, none.validity, none.is_used),
        (Location::Nowhere, Validity::Invalid, false)
    );
    world.switch(1, Some(0));
    write(&world, 1, 7);
    let live = view();
    assert_eq!(
        (live.location, live.validity, live.is_used),
        (Location::Live(cpu_id(1), 1), Validity::Valid, true)
    );
    world.switch(1, None);
    assert_eq!(view().location, Location::Clean(cpu_id(1), 1));
    assert!(!view().is_known_initial);
    assert!(!world.lwp(0).pcu.view(DSP).unwrap().is_used);
    world.switch(1, Some(0));
    write(&world, 1, 0);
    world.switch(1, None);
    let initial = view();
    assert!(initial.is_known_initial);
    assert_eq!(initial.location, Location::Nowhere);
    assert!(!world.lwp(0).pcu.view(DSP).unwrap().is_known_initial);
    assert_eq!(world.lwp(0).pcu.view(unit(3)), None, "no such unit");
}

#[test]
fn a_cpus_registers_are_nobodys_live_clean_or_a_sections() {
    let world = World::with_policy(1, 2, 2, TRUSTING, Policy::Deferred);
    let view = || world.cpus[0].pcu.view(FPU).unwrap();
    let initial = view();
    assert_eq!(
        (initial.registers, initial.residue, initial.is_enabled),
        (Registers::Nobodys, Residue::None, false)
    );
    world.switch(0, Some(0));
    write(&world, 0, 7);
    let domain = Domain::new(world.lwp(0).domain.get()).unwrap();
    let live = view();
    assert_eq!(
        (live.registers, live.residue, live.is_enabled),
        (
            Registers::Live(world.pointer(0), 1),
            Residue::Of(domain),
            true
        )
    );
    world.switch(0, None);
    assert_eq!(view().registers, Registers::Clean(1));
    assert_ne!(view().registers, Registers::Clean(2));
    assert_ne!(view().registers, Registers::Live(world.pointer(0), 1));
    assert_ne!(
        Registers::Live(world.pointer(1), 1),
        Registers::Live(world.pointer(0), 1)
    );
    world.switch(0, Some(1));
    world
        .pcu
        .section(&mut world.current(0), FPU, |_| {
            assert_eq!(
                (view().registers, view().residue),
                (Registers::Section, Residue::Mixed)
            );
        })
        .unwrap();
    assert_eq!(
        (view().registers, view().residue),
        (Registers::Nobodys, Residue::None)
    );
    assert!(world.cpus[0].pcu.view(unit(3)).is_none(), "no such unit");
    assert!(!world.cpus[0].pcu.in_section());
    assert_eq!(world.pcu.leak_rule(), TRUSTING);
    assert_ne!(TRUSTING, LeakRule::DomainAware);
}

#[test]
fn readers_are_told_a_name_for_each_counter_and_cpus_by_their_numbers() {
    let names: Vec<&str> = Layout::counter_names().lines().collect();
    assert_eq!(names.len(), Layout::of::<(), 1>().n_counters as usize);
    assert_eq!((names[0], names[1]), ("traps", "loads"));
    assert_eq!([cpu_id(0), cpu_id(2)].map(CpuId::number), [0, 2]);
}
