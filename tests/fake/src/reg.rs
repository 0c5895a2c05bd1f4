//! The units of the fake kernel: one `u64` of registers each. A value carries the domain that wrote it in its upper half, so
//! that a leak shows.

use std::cell::Cell;
use std::ptr::{NonNull, null};

use pcu9::pcu::{LoadFlags, PcuFlags, PcuOps, StateError, UnitId};

use super::{Lwp, World};

/// What a wiped or fresh unit holds.
pub const INITIAL: u64 = 0;

/// A value that `domain` writes.
#[must_use]
pub fn value(domain: u64, low: u32) -> u64 {
    domain << 32 | u64::from(low)
}

/// Who wrote the value; 0 for the initial one.
#[must_use]
pub fn domain_of(value: u64) -> u64 {
    value >> 32
}

thread_local! {
    /// The machine that this thread plays: callbacks have no other way to it.
    static WORLD: Cell<*const World> = const { Cell::new(null()) };
}

pub(super) fn enter(world: &World) {
    assert!(
        WORLD.replace(world).is_null(),
        "one world a thread at a time"
    );
}

pub(super) fn leave() {
    WORLD.set(null());
}

fn with_world<R>(f: impl FnOnce(&World) -> R) -> R {
    // SAFETY: set by `enter` for as long as the world, a box, exists.
    let world = unsafe { WORLD.get().as_ref() }.expect("a world");
    assert!(world.is_raised(), "a callback below IPL_PCU");
    f(world)
}

/// Unit `U`; without `TRAPS` a use of it cannot be detected.
#[derive(Debug)]
pub enum Reg<const U: u8, const TRAPS: bool = true> {}

impl<const U: u8, const TRAPS: bool> Reg<U, TRAPS> {
    fn register<R>(f: impl FnOnce(&World, &Cell<u64>) -> R) -> R {
        with_world(|world| {
            assert!(
                world.here().open[usize::from(U)].get(),
                "touched the registers of a closed unit"
            );
            f(world, &world.here().registers[usize::from(U)])
        })
    }

    fn memory(lwp: &Lwp) -> &Cell<u64> {
        &lwp.memory[usize::from(U)]
    }

    fn log(callback: &str, lwp: NonNull<Lwp>, suffix: &str) {
        // SAFETY: the core calls with a valid LWP.
        let number = unsafe { lwp.as_ref() }.number;
        with_world(|world| {
            let cpu = world.here.get();
            let line = format!("{callback} unit={U} lwp={number} cpu={cpu}{suffix}");
            world.log.borrow_mut().push(line);
        });
    }
}

// SAFETY: one `u64` is the whole state.
unsafe impl<const U: u8, const TRAPS: bool> PcuOps<Lwp> for Reg<U, TRAPS> {
    const ID: UnitId = UnitId::new(U);
    const USE_TRAPS: bool = TRAPS;

    unsafe fn state_save(lwp: NonNull<Lwp>) {
        Self::log("save", lwp, "");
        // SAFETY: the core calls with a valid LWP.
        let memory = Self::memory(unsafe { lwp.as_ref() });
        Self::register(|_, register| memory.set(register.get()));
    }

    unsafe fn state_load(lwp: NonNull<Lwp>, flags: LoadFlags) -> Result<(), StateError> {
        let names = match flags {
            LoadFlags::INIT => "none",
            LoadFlags::VALID => "VALID",
            _ => "VALID|REENABLE",
        };
        Self::log("load", lwp, &format!(" flags={names}"));
        // SAFETY: the core calls with a valid LWP.
        let lwp = unsafe { lwp.as_ref() };
        Self::register(|world, register| {
            assert_eq!(
                world.here().current.get(),
                Some(lwp.number),
                "loaded for another than curlwp"
            );
            if flags.contains(PcuFlags::PCU_REENABLE) {
                let refused = lwp.refuses_reenable.get();
                return if refused {
                    Err(StateError::Refused)
                } else {
                    Ok(())
                };
            }
            if lwp.refuses_area.get() {
                return Err(StateError::Refused);
            }
            if flags.contains(PcuFlags::PCU_VALID) {
                if lwp.bad_image.get() {
                    register.set(Self::memory(lwp).get() ^ 0xffff);
                    return Err(StateError::BadImage);
                }
                register.set(Self::memory(lwp).get());
            } else {
                register.set(INITIAL);
            }
            Ok(())
        })
    }

    unsafe fn state_release(lwp: NonNull<Lwp>) {
        Self::log("release", lwp, "");
    }

    unsafe fn unit_enable() {
        with_world(|world| {
            assert!(
                !world.here().open[usize::from(U)].replace(true),
                "opened twice"
            );
        });
    }

    unsafe fn unit_trap() {
        with_world(|world| {
            assert!(
                world.here().open[usize::from(U)].replace(false),
                "closed twice"
            );
        });
    }

    unsafe fn state_wipe() {
        Self::register(|_, register| register.set(INITIAL));
    }

    unsafe fn state_copy(parent: NonNull<Lwp>, child: NonNull<Lwp>) {
        // SAFETY: the core calls with a valid LWP.
        let parent = unsafe { parent.as_ref() };
        // SAFETY: as above.
        let child = unsafe { child.as_ref() };
        Self::memory(child).set(Self::memory(parent).get());
    }

    unsafe fn is_initial(lwp: NonNull<Lwp>) -> bool {
        // SAFETY: the core calls with a valid LWP.
        Self::memory(unsafe { lwp.as_ref() }).get() == INITIAL
    }
}
