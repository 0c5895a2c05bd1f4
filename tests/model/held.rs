//! Operations of an LWP's holder: of the LWP itself, or of who stopped it.

use std::cell::Cell;

use pcu9::kernel::{Held, NoAnswer};
use pcu9::pcu::{CoreDump, UnitId, Validity};
use pcu9_fake::{INITIAL, UNITS, World};

use super::case::{HeldOp, Write};
use super::invariants::newest;
use super::operations::{assert_silent, new_value, table_unit};
use super::run::{run, units};

/// An operation of the holder of `lwp`.
pub(crate) fn perform(world: &World, lwp: usize, token: &mut impl Held<World, UNITS>, op: &HeldOp) {
    match *op {
        HeldOp::Save { unit } => {
            let unit = table_unit(unit);
            let had_state = world.lwp(lwp).pcu.valid_p(unit);
            match world.pcu.save(token, unit) {
                Ok(()) => is_in_memory(world, lwp, unit, had_state),
                Err(error) => assert_silent(world, error),
            }
        }
        HeldOp::SaveAll(dump) => save_all(world, lwp, token, dump),
        HeldOp::Inspect { unit } => inspect(world, lwp, token, table_unit(unit)),
        HeldOp::Discard { unit, validity } => {
            discard(world, lwp, token, table_unit(unit), validity);
        }
        HeldOp::DiscardAll => discard_all(world, lwp, |world| world.pcu.discard_all(token)),
        HeldOp::Replace { unit, write } => {
            let unit = table_unit(unit);
            rewrite(world, lwp, unit, write, |change| {
                world.pcu.replace(token, unit, |_| change(None))
            });
        }
        HeldOp::Edit { unit, write } => {
            let unit = table_unit(unit);
            rewrite(world, lwp, unit, write, |change| {
                world.pcu.edit(token, unit, |_, had| change(Some(had)))
            });
        }
        HeldOp::SaveAndWrite { unit } => save_and_write(world, lwp, token, table_unit(unit)),
        HeldOp::SetPolicy(policy) => {
            if let Err(error) = world.pcu.set_lwp_policy(token, policy) {
                assert_silent(world, error);
            }
        }
    }
}

/// After a save memory holds the state, if there was one.
fn is_in_memory(world: &World, lwp: usize, unit: UnitId, had_state: bool) {
    if had_state {
        let memory = world.lwp(lwp).memory[unit.index()].get();
        run(|run| run.oracle.reads(lwp, unit, memory));
    }
    if world.cpu_of(lwp).is_none() {
        assert_eq!(world.lwp(lwp).pcu.valid_p(unit), had_state);
    }
}

fn save_all(world: &World, lwp: usize, token: &mut impl Held<World, UNITS>, dump: CoreDump) {
    let had_state: Vec<_> = units()
        .map(|unit| world.lwp(lwp).pcu.valid_p(unit))
        .collect();
    if let Err(error) = world.pcu.save_all(token, dump) {
        return assert_silent(world, error);
    }
    for (unit, had_state) in units().zip(had_state) {
        is_in_memory(world, lwp, unit, had_state);
        let is_stopped = world.cpu_of(lwp).is_none();
        if dump == CoreDump::Yes && is_stopped {
            assert_eq!(world.lwp(lwp).pcu.live_cpu(unit), None);
        }
    }
}

fn inspect(world: &World, lwp: usize, token: &mut impl Held<World, UNITS>, unit: UnitId) {
    let pcu = &world.lwp(lwp).pcu;
    let had_state = pcu.valid_p(unit);
    let look = || {
        // Over a kernel thread without a state the gate was somebody else's.
        let cpu = world.cpu_of(lwp).filter(|_| had_state);
        let is_open = cpu.map(|cpu| world.cpus[cpu].open[unit.index()].get());
        format!("{pcu:?}, open: {is_open:?}")
    };
    let before = look();
    let is_undisturbed = run(|run| run.is_undisturbed());
    match world.pcu.inspect(token, unit) {
        Ok(validity) => {
            assert_eq!(validity == Validity::Valid, had_state);
            is_in_memory(world, lwp, unit, had_state);
            if !had_state {
                run(|run| run.oracle.reads(lwp, unit, INITIAL));
            }
        }
        Err(error) => assert_silent(world, error),
    }
    let after = look();
    assert!(
        !is_undisturbed || before == after,
        "looking changed {before} to {after}"
    );
}

fn discard(
    world: &World,
    lwp: usize,
    token: &mut impl Held<World, UNITS>,
    unit: UnitId,
    validity: Validity,
) {
    let before = run(|run| run.oracle.state(lwp, unit));
    let after = match validity {
        Validity::Invalid => INITIAL,
        Validity::Valid => world.lwp(lwp).memory[unit.index()].get(),
    };
    run(|run| run.oracle.may_have(lwp, unit, after));
    match (world.pcu.discard(token, unit, validity), validity) {
        (Ok(()), Validity::Invalid) => run(|run| run.oracle.has(lwp, unit, INITIAL)),
        // A thief may have brought memory up to date before the registers were thrown away.
        (Ok(()), Validity::Valid) => {
            assert!(world.lwp(lwp).pcu.valid_p(unit));
            let newest = newest(world, lwp, unit);
            run(|run| run.oracle.reads(lwp, unit, newest));
        }
        (Err(error), _) => {
            assert_silent(world, error);
            run(|run| run.oracle.has(lwp, unit, before));
        }
    }
}

/// What throws the state of all units away.
pub(crate) fn discard_all(
    world: &World,
    lwp: usize,
    operation: impl FnOnce(&World) -> Result<(), NoAnswer>,
) {
    units().for_each(|unit| run(|run| run.oracle.may_have(lwp, unit, INITIAL)));
    let result = operation(world);
    for unit in units() {
        let newest = newest(world, lwp, unit);
        if result.is_ok() {
            run(|run| run.oracle.has(lwp, unit, INITIAL));
            // A unit whose use does not trap may have its initial state again already.
            let pcu = &world.lwp(lwp).pcu;
            assert!(
                !pcu.valid_p(unit) || !world.traps(unit),
                "valid after discard_all"
            );
        }
        run(|run| run.oracle.reads(lwp, unit, newest));
    }
    if let Err(error) = result {
        assert_silent(world, error);
    }
}

/// Why an image was not written.
enum Failed {
    Unreadable,
    NoAnswer(NoAnswer),
}

impl From<NoAnswer> for Failed {
    fn from(error: NoAnswer) -> Self {
        Self::NoAnswer(error)
    }
}

/// In the manner of sigreturn and of debuggers. Where memory is written the LWP may sleep; who edits is told what is there.
fn rewrite(
    world: &World,
    lwp: usize,
    unit: UnitId,
    write: Write,
    operation: impl FnOnce(&dyn Fn(Option<Validity>) -> Result<(), Failed>) -> Result<(), Failed>,
) {
    let before = run(|run| run.oracle.state(lwp, unit));
    run(|run| run.oracle.may_have(lwp, unit, INITIAL));
    let image = new_value(world, lwp);
    let has_begun = Cell::new(false);
    let memory = &world.lwp(lwp).memory[unit.index()];
    let result = operation(&|had| {
        has_begun.set(true);
        match had {
            None => {}
            Some(Validity::Valid) => assert_eq!(memory.get(), before),
            Some(Validity::Invalid) => assert_eq!(before, INITIAL),
        }
        // What was there is gone, what comes is not there yet.
        run(|run| run.oracle.has(lwp, unit, INITIAL));
        drop(world.raise());
        memory.set(image);
        drop(world.raise());
        if write == Write::Fails {
            return Err(Failed::Unreadable);
        }
        run(|run| run.oracle.may_have(lwp, unit, image));
        Ok(())
    });
    let state = match result {
        Ok(()) => image,
        Err(Failed::Unreadable) => INITIAL,
        Err(Failed::NoAnswer(error)) => {
            assert_silent(world, error);
            if has_begun.get() { INITIAL } else { before }
        }
    };
    run(|run| run.oracle.has(lwp, unit, state));
}

/// Who saved writes memory next. For a current LWP nothing may come between, since a switch could bring the old contents in:
/// both are done in one stretch at `IPL_PCU`.
fn save_and_write(world: &World, lwp: usize, token: &mut impl Held<World, UNITS>, unit: UnitId) {
    let pcu = &world.lwp(lwp).pcu;
    let cpu = world.cpu_of(lwp);
    let is_elsewhere = pcu
        .live_cpu(unit)
        .is_some_and(|live| Some(live.index()) != cpu);
    let ipl = match cpu {
        Some(_) if is_elsewhere => return,
        current => current.map(|_| world.raise()),
    };
    match world.pcu.save(token, unit) {
        Ok(()) if pcu.valid_p(unit) => {
            let image = new_value(world, lwp);
            world.lwp(lwp).memory[unit.index()].set(image);
            run(|run| run.oracle.has(lwp, unit, image));
        }
        Ok(()) => {}
        Err(error) => assert_silent(world, error),
    }
    drop(ipl);
}
