//! The operations of a case, each with what must come of it.

use pcu9::kernel::NoAnswer;
use pcu9::pcu::{LeakRule, LoadError, PolicyError, StateError, UnitId};
use pcu9_fake::{INITIAL, World, cpu_id};

use super::case::{Contents, Fault, Hook, Op};
use super::held;
use super::life::{exec, exit, fork, restart};
use super::run::{idle_lwp, nth_unit, run, switch, trace, units};
use super::sections;

/// What kernel threads write is nobody else's.
pub(crate) const KERNEL: u64 = 0;

/// `op` on `cpu`. An LWP that has to be there is brought there; where that cannot be, nothing happens.
pub(crate) fn perform(world: &World, cpu: usize, op: &Op) {
    let is_busy = |lwp| run(|run| run.busy.contains(&lwp));
    if let Op::Interrupt { unit, slot } = *op {
        trace(|| format!("cpu {cpu}: {op:?}"));
        return sections::in_interrupt(world, cpu, table_unit(unit), slot);
    }
    if world.cpus[cpu].pcu.in_section() {
        return; // Nobody else runs here (P7).
    }
    if let Op::Switch { to, switch_out } = *op {
        let to = to.and_then(|to| arriving_lwp(world, to));
        return switch(world, cpu, to, switch_out);
    }
    if world.current_on(cpu).is_none() {
        let Some(lwp) = (0..6).find_map(|lwp| idle_lwp(world, lwp)) else {
            return;
        };
        switch(world, cpu, Some(lwp), Hook::Called);
    }
    match world.current_on(cpu) {
        Some(lwp) if !is_busy(lwp) => {
            trace(|| format!("cpu {cpu}: lwp {lwp}: {op:?}"));
            by_lwp(world, cpu, lwp, op);
        }
        _ => {}
    }
}

/// The LWP with that number, if it is in the middle of nothing; taken from where it runs.
fn arriving_lwp(world: &World, number: u8) -> Option<usize> {
    let lwp = usize::from(number) % world.n_lwps();
    if run(|run| run.busy.contains(&lwp)) {
        return None;
    }
    if let Some(cpu) = world.cpu_of(lwp) {
        switch(world, cpu, None, Hook::Called);
    }
    Some(lwp)
}

fn by_lwp(world: &World, cpu: usize, lwp: usize, op: &Op) {
    match *op {
        Op::Switch { .. } | Op::Interrupt { .. } => unreachable!("it needs no LWP"),
        Op::Section { unit } => sections::by_lwp(world, cpu, table_unit(unit)),
        Op::Use {
            unit,
            writes,
            before_user,
        } => use_unit(world, lwp, table_unit(unit), writes, before_user),
        Op::ReturnToUser => world.return_to_user(lwp),
        Op::Load { unit } => load(world, cpu, lwp, table_unit(unit)),
        Op::Own(ref op) => held::perform(world, lwp, &mut world.current(cpu), op),
        Op::Stopped {
            lwp: number,
            ref op,
        } => {
            let Some(stopped) = idle_lwp(world, number) else {
                return;
            };
            hold(stopped);
            world.here.set(cpu);
            held::perform(world, stopped, &mut world.stopped(stopped), op);
            let_go(stopped);
        }
        Op::SpuriousTrap { unit } => spurious_trap(world, cpu, lwp, table_unit(unit)),
        Op::SaveAllOnCpu => save_all_on_cpu(world, cpu),
        Op::Restart(how) => restart(world, cpu, how),
        Op::Fork {
            child,
            memory,
            domain,
            fate,
        } => {
            let Some(child) = idle_lwp(world, child) else {
                return;
            };
            hold(child);
            fork(world, cpu, lwp, child, memory, domain, fate);
            let_go(child);
        }
        Op::Exec => exec(world, cpu, lwp),
        Op::Exit { memory } => exit(world, cpu, lwp, memory),
        Op::SetPolicy { unit, policy } => {
            let unit = table_unit(unit);
            let all = (0..world.cpus.len()).map(cpu_id);
            let result = world
                .pcu
                .set_policy(&mut world.current(cpu), all, unit, policy);
            let refuses = policy.needs_traps() && !world.traps(unit);
            match result {
                Err(PolicyError::NeedsTraps(which)) => assert!(refuses && which == unit),
                Err(PolicyError::NoAnswer(cpu)) => assert_silent(world, NoAnswer(cpu)),
                result => assert_eq!(result, Ok(()), "refuses: {refuses}"),
            }
        }
        Op::SetLeakRule(rule) => set_leak_rule(world, cpu, rule),
        Op::SetWriteBackAtIdle(wanted) => world.pcu.set_write_back_at_idle(wanted),
        // Between operations, so that who does not answer in one of them, does not in all of it.
        Op::Deafen { cpus } if run(|run| run.busy.is_empty()) => world.deaf.set(u64::from(cpus)),
        Op::Deafen { .. } => {}
        Op::Toggle(fault) => toggle(world, lwp, fault),
    }
}

/// The machine may have fewer units than the case could ask for.
pub(crate) fn table_unit(unit: u8) -> UnitId {
    nth_unit(usize::from(unit) % run(|run| run.n_units))
}

fn hold(lwp: usize) {
    run(|run| {
        run.busy.push(lwp);
        run.held.push(lwp);
    });
}

fn let_go(lwp: usize) {
    run(|run| {
        assert_eq!(run.busy.pop(), Some(lwp));
        assert_eq!(run.held.pop(), Some(lwp));
    });
}

pub(crate) fn assert_silent(world: &World, NoAnswer(cpu): NoAnswer) {
    assert_ne!(
        world.deaf.get() & (1 << cpu.index()),
        0,
        "{cpu:?} would have answered"
    );
}

/// A value that the LWP writes.
pub(crate) fn new_value(world: &World, lwp: usize) -> u64 {
    let domain = world.lwp(lwp).domain.get();
    run(|run| run.new_value(if domain == 0 { KERNEL } else { domain }))
}

fn use_unit(world: &World, lwp: usize, unit: UnitId, writes: Contents, before_user: Hook) {
    let value = match writes {
        Contents::New => new_value(world, lwp),
        Contents::Initial => INITIAL,
    };
    // Over a kernel thread without a state the gate stays as it is: it asks for one before it uses the unit.
    let must_ask = world.lwp(lwp).domain.get() == 0 && !world.lwp(lwp).pcu.valid_p(unit);
    if must_ask && world.pcu.load(&mut world.running(lwp), unit).is_err() {
        return;
    }
    if !world.traps(unit) {
        return use_untrappable(world, lwp, unit, value);
    }
    if before_user == Hook::Called {
        world.return_to_user(lwp);
    }
    let cpu = world.cpu_of(lwp).expect("it goes on somewhere");
    match world.use_unit(cpu, unit, value) {
        Ok(seen) => run(|run| {
            run.oracle.reads(lwp, unit, seen);
            run.oracle.has(lwp, unit, value);
        }),
        Err(error) => assert_excused(world, lwp, error),
    }
}

/// The hook was called on the way to user mode, from an interrupt too: nothing comes between it and the use.
fn use_untrappable(world: &World, lwp: usize, unit: UnitId, value: u64) {
    let mut current = world.running(lwp);
    let ipl = world.pcu.before_user(world.raise(), &mut current);
    let machine = world.here();
    if machine.pcu.owner(unit) == Some(world.pointer(lwp)) {
        let seen = machine.registers[unit.index()].replace(value);
        run(|run| {
            run.oracle.reads(lwp, unit, seen);
            run.oracle.has(lwp, unit, value);
        });
    } else {
        // A kernel would end the LWP here.
        let lwp = world.lwp(lwp);
        let is_excused = lwp.refuses_area.get() || lwp.bad_image.get() || world.deaf.get() != 0;
        assert!(
            is_excused,
            "unit {} of lwp {} is not in place",
            unit.index(),
            lwp.number
        );
    }
    drop(ipl);
}

/// Loads fail for a reason.
fn assert_excused(world: &World, lwp: usize, error: LoadError) {
    let lwp = world.lwp(lwp);
    match error {
        LoadError::NoAnswer(cpu) => assert_silent(world, NoAnswer(cpu)),
        LoadError::State(StateError::BadImage) => assert!(lwp.bad_image.get()),
        LoadError::State(StateError::Refused) => {
            assert!(lwp.refuses_area.get() || lwp.fails_reenable.get());
        }
        _ => panic!("{error}"),
    }
}

fn load(world: &World, cpu: usize, lwp: usize, unit: UnitId) {
    let machine = &world.cpus[cpu];
    let is_owner = || machine.pcu.owner(unit) == Some(world.pointer(lwp));
    let is_open = || machine.open[unit.index()].get();
    let had_it = is_owner() && is_open();
    run(|run| run.keeps = had_it.then_some((cpu, unit)));
    let is_undisturbed = run(|run| run.is_undisturbed());
    let result = world.pcu.load(&mut world.current(cpu), unit);
    assert!(
        !is_undisturbed || result.is_err() || (is_owner() && is_open()),
        "loaded, and not in place"
    );
    if let Err(error) = result {
        assert_excused(world, lwp, error);
    }
}

/// Something closes the hardware's gate behind the core's back: firmware, or an instruction that bounces.
fn spurious_trap(world: &World, cpu: usize, lwp: usize, unit: UnitId) {
    if !world.traps(unit) || world.cpus[cpu].pcu.owner(unit) != Some(world.pointer(lwp)) {
        return;
    }
    world.cpus[cpu].open[unit.index()].set(false);
    let result = world.trap(cpu, unit);
    assert_eq!(
        result.is_err(),
        world.lwp(lwp).fails_reenable.get(),
        "{result:?}"
    );
}

fn save_all_on_cpu(world: &World, cpu: usize) {
    world.here.set(cpu);
    let ipl = world.raise();
    world.pcu.save_all_on_cpu(&ipl);
    for unit in units() {
        let pcu = &world.cpus[cpu].pcu;
        assert_eq!((pcu.owner(unit), pcu.is_enabled(unit)), (None, false));
        // The kernel may use the registers itself now: whoever takes them for its own afterwards, is wrong.
        world.cpus[cpu].registers[unit.index()].set(INITIAL);
    }
    drop(ipl);
}

fn set_leak_rule(world: &World, cpu: usize, rule: LeakRule) {
    if world.pcu.leak_rule() != rule && rule == LeakRule::DomainAware {
        run(|run| run.excused.fill(true));
    }
    let all = (0..world.cpus.len()).map(cpu_id);
    let result = world.pcu.set_leak_rule(&mut world.current(cpu), all, rule);
    match result {
        Ok(()) => run(|run| run.excused.fill(false)),
        Err(error) => assert_silent(world, error),
    }
}

fn toggle(world: &World, lwp: usize, fault: Fault) {
    let has_state = units().any(|unit| world.lwp(lwp).pcu.valid_p(unit));
    let lwp = world.lwp(lwp);
    let flag = match fault {
        Fault::BadImage => &lwp.bad_image,
        Fault::FailingReenable => &lwp.fails_reenable,
        // Who has a state has an area.
        Fault::RefusedArea if has_state => return,
        Fault::RefusedArea => &lwp.refuses_area,
    };
    flag.set(!flag.get());
}
