//! The kernel's own use of a unit, in an LWP and in interrupts: inside nobody is preempted, and other CPUs go on.

use pcu9::pcu::{SectionError, UnitId};
use pcu9_fake::{INITIAL, World};

use super::case::Slot;
use super::operations::KERNEL;
use super::run::{lowered, run};

/// The LWP that runs on `cpu` uses the unit in kernel mode.
pub(crate) fn by_lwp(world: &World, cpu: usize, unit: UnitId) {
    run(|run| run.sections.push((cpu, unit)));
    let result = world
        .pcu
        .section(&mut world.current(cpu), unit, |_| body(world, unit));
    assert_eq!(result, Ok(()), "an LWP is in no section");
}

/// An interrupt on `cpu` uses the unit, whatever it came into.
pub(crate) fn in_interrupt(world: &World, cpu: usize, unit: UnitId, slot: Slot) {
    let was = world.here.replace(cpu);
    let is_nested = run(|run| run.sections.contains(&(cpu, unit)));
    let is_refused = is_nested && slot == Slot::Lacking;
    if !is_refused {
        run(|run| run.sections.push((cpu, unit)));
    }
    let interrupted = world.current_on(cpu);
    run(|run| run.busy.extend(interrupted));
    let mut given = (slot == Slot::Given).then(|| world.slot());
    let result = world
        .pcu
        .section_in_interrupt(world, unit, given.as_mut(), |_| body(world, unit));
    let expected = if is_refused {
        Err(SectionError::Nested(unit))
    } else {
        Ok(())
    };
    assert_eq!(result, expected, "cpu {cpu} unit {}", unit.index());
    run(|run| assert_eq!(interrupted.and_then(|_| run.busy.pop()), interrupted));
    world.here.set(was);
}

/// Finds the registers as they have to be, fills them, and finds them so again when others had their turn.
fn body(world: &World, unit: UnitId) {
    let cpu = world.here.get();
    let (register, gate) = (
        &world.here().registers[unit.index()],
        &world.here().open[unit.index()],
    );
    assert!(gate.get(), "cpu {cpu}: a section behind a closed gate");
    assert_eq!(
        register.get(),
        INITIAL,
        "cpu {cpu}: a section over somebody's registers"
    );
    let value = run(|run| run.new_value(KERNEL));
    register.set(value);
    lowered(world);
    world.here.set(cpu);
    assert!(
        gate.get(),
        "cpu {cpu}: the gate was closed inside a section"
    );
    assert_eq!(
        register.get(),
        value,
        "cpu {cpu}: a section lost its registers"
    );
    run(|run| assert_eq!(run.sections.pop(), Some((cpu, unit))));
}
