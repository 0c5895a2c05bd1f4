//! The units: one `u64` of registers each. A value carries the domain that wrote it in its upper half.

use std::cell::Cell;
use std::ptr::NonNull;

use pcu9::pcu::{LoadFlags, PcuFlags, PcuOps, StateError, UnitId};

use super::config::Fault;
use super::flight::{Callback, Note, Who};
use super::world::{Lwp, World, small};

/// What a wiped or fresh unit holds.
pub(crate) const INITIAL: u64 = 0;

pub(crate) fn value(domain: u64, number: u64) -> u64 {
    assert!(number >> 32 == 0, "the numbers ran out");
    domain << 32 | number
}

/// Whose colours a value has; 0 for the initial one.
pub(crate) fn domain_of(value: u64) -> u64 {
    value >> 32
}

thread_local! {
    /// The machine that this thread plays: callbacks have no other way to it.
    static WORLD: Cell<Option<&'static World>> = const { Cell::new(None) };
}

pub(super) fn enter(world: &'static World) {
    WORLD.set(Some(world));
}

fn world() -> &'static World {
    let world = WORLD.get().expect("a machine");
    assert!(world.is_raised(), "a callback below IPL_PCU");
    world
}

/// Unit `U`.
pub(crate) enum Reg<const U: usize> {}

impl<const U: usize> Reg<U> {
    fn register() -> &'static Cell<u64> {
        let cpu = &world().here().own;
        assert!(cpu.open[U].get(), "touched the registers of a closed unit");
        &cpu.registers[U]
    }

    /// The LWP of a callback.
    fn enter(callback: Callback, lwp: NonNull<Lwp>) -> &'static Lwp {
        let world = world();
        // SAFETY: the core calls with a valid LWP.
        let lwp = unsafe { lwp.as_ref() };
        world.note(Note::Called(callback, small(U), small(lwp.number)));
        &world.lwps[lwp.number]
    }
}

// SAFETY: one `u64` is the whole state.
unsafe impl<const U: usize> PcuOps<Lwp> for Reg<U> {
    const ID: UnitId = if U == 0 {
        UnitId::new(0)
    } else {
        UnitId::new(1)
    };

    unsafe fn state_save(lwp: NonNull<Lwp>) {
        let lwp = Self::enter(Callback::Save, lwp);
        let live = world().live_on(lwp.number, U);
        assert_eq!(
            live,
            Some(world().here.get()),
            "saves what its word says is not here"
        );
        if world().config.fault != Fault::SaveForgets {
            lwp.own.memory[U].set(Self::register().get());
        }
    }

    unsafe fn state_load(lwp: NonNull<Lwp>, flags: LoadFlags) -> Result<(), StateError> {
        let is_reenable = flags.contains(PcuFlags::PCU_REENABLE);
        let callback = if is_reenable {
            Callback::Reenable
        } else {
            Callback::Load
        };
        let lwp = Self::enter(callback, lwp);
        let world = world();
        let live = world.live_on(lwp.number, U);
        let current = world.here().own.current.get();
        assert_eq!(
            current,
            Some(lwp.number),
            "loaded for another than the current LWP"
        );
        if is_reenable {
            assert!(
                live.is_none_or(|cpu| cpu == world.here.get()),
                "re-enabled what is live elsewhere"
            );
            return Ok(());
        }
        assert_eq!(live, None, "loaded what is live on a CPU");
        let is_valid = flags.contains(PcuFlags::PCU_VALID);
        Self::register().set(if is_valid {
            lwp.own.memory[U].get()
        } else {
            INITIAL
        });
        Ok(())
    }

    unsafe fn state_release(lwp: NonNull<Lwp>) {
        Self::enter(Callback::Release, lwp);
    }

    unsafe fn unit_enable() {
        assert!(!world().here().own.open[U].replace(true), "opened twice");
    }

    unsafe fn unit_trap() {
        assert!(world().here().own.open[U].replace(false), "closed twice");
    }

    unsafe fn state_wipe() {
        Self::register().set(INITIAL);
    }

    unsafe fn state_copy(parent: NonNull<Lwp>, child: NonNull<Lwp>) {
        let parent = Self::enter(Callback::Copy, parent);
        let live = world().live_on(parent.number, U);
        assert!(
            live.is_none_or(|cpu| cpu == world().here.get()),
            "copies memory that is not the newest"
        );
        // SAFETY: the core calls with a valid LWP.
        let child = unsafe { child.as_ref() };
        child.own.memory[U].set(parent.own.memory[U].get());
    }

    unsafe fn is_initial(lwp: NonNull<Lwp>) -> bool {
        // SAFETY: the core calls with a valid LWP.
        unsafe { lwp.as_ref() }.own.memory[U].get() == INITIAL
    }
}

/// Did a callback of this flight touch registers or memory on the holder?
pub(crate) fn was_called(world: &World, who: Who) -> bool {
    world.notes[who.slot()]
        .borrow()
        .iter()
        .any(|note| matches!(note, Note::Called(..)))
}
