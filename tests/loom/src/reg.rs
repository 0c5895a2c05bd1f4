//! The units: one `u64` of registers each. Callbacks find their CPU by the thread of loom's that calls.

use std::cell::Cell;
use std::ptr::NonNull;

use pcu9::pcu::{LoadFlags, PcuFlags, PcuOps, StateError, UnitId};

use crate::{Handle, Hardware, Lwp};

/// What a wiped or fresh unit holds.
pub const INITIAL: u64 = 0;

loom::thread_local! {
    /// The handle that this thread of loom's plays.
    static HERE: Cell<Option<NonNull<Handle>>> = Cell::new(None);
}

/// Makes `handle` the one that this thread plays, or none.
pub(crate) fn play(handle: Option<&Handle>) {
    HERE.with(|here| here.set(handle.map(NonNull::from)));
}

/// Unit `U`.
#[derive(Debug)]
pub enum Reg<const U: u8> {}

impl<const U: u8> Reg<U> {
    fn hardware<R>(f: impl FnOnce(&mut Hardware) -> R) -> R {
        let handle = HERE.with(Cell::get).expect("a thread that plays a CPU");
        // SAFETY: set by `play` for as long as the handle exists.
        unsafe { handle.as_ref() }.hardware(f)
    }

    fn register<R>(f: impl FnOnce(&mut u64) -> R) -> R {
        Self::hardware(|hardware| {
            assert!(
                hardware.open[usize::from(U)],
                "touched the registers of a closed unit"
            );
            f(&mut hardware.registers[usize::from(U)])
        })
    }

    /// Every callback reads this cell and only `Machine::free` writes it, so that loom finds a callback that comes too late.
    fn alive(lwp: NonNull<Lwp>) {
        // SAFETY: the core calls with a valid LWP.
        unsafe { lwp.as_ref() }.lifetime.with(|_| ());
    }

    fn read(lwp: NonNull<Lwp>) -> u64 {
        Self::alive(lwp);
        // SAFETY: the core calls with a valid LWP.
        let memory = &unsafe { lwp.as_ref() }.memory[usize::from(U)];
        // SAFETY: what the core promises, and loom checks: nobody writes it.
        memory.with(|memory| unsafe { *memory })
    }

    fn write(lwp: NonNull<Lwp>, value: u64) {
        Self::alive(lwp);
        // SAFETY: the core calls with a valid LWP.
        let memory = &unsafe { lwp.as_ref() }.memory[usize::from(U)];
        // SAFETY: what the core promises, and loom checks: nobody else touches it.
        memory.with_mut(|memory| unsafe { *memory = value });
    }
}

// SAFETY: one `u64` is the whole state.
unsafe impl<const U: u8> PcuOps<Lwp> for Reg<U> {
    const ID: UnitId = UnitId::new(U);

    unsafe fn state_save(lwp: NonNull<Lwp>) {
        Self::write(lwp, Self::register(|register| *register));
    }

    unsafe fn state_load(lwp: NonNull<Lwp>, flags: LoadFlags) -> Result<(), StateError> {
        // SAFETY: the core calls with a valid LWP.
        let number = unsafe { lwp.as_ref() }.number;
        let current = Self::hardware(|hardware| hardware.current);
        assert_eq!(current, Some(number), "loaded for another than curlwp");
        if !flags.contains(PcuFlags::PCU_REENABLE) {
            let state = if flags.contains(PcuFlags::PCU_VALID) {
                Self::read(lwp)
            } else {
                INITIAL
            };
            Self::register(|register| *register = state);
        }
        Ok(())
    }

    unsafe fn state_release(lwp: NonNull<Lwp>) {
        Self::alive(lwp);
    }

    unsafe fn unit_enable() {
        Self::hardware(|hardware| {
            let was_open = std::mem::replace(&mut hardware.open[usize::from(U)], true);
            assert!(!was_open, "opened twice");
        });
    }

    unsafe fn unit_trap() {
        Self::hardware(|hardware| {
            let was_open = std::mem::replace(&mut hardware.open[usize::from(U)], false);
            assert!(was_open, "closed twice");
        });
    }

    unsafe fn state_wipe() {
        Self::register(|register| *register = INITIAL);
    }

    unsafe fn state_copy(parent: NonNull<Lwp>, child: NonNull<Lwp>) {
        Self::write(child, Self::read(parent));
    }

    unsafe fn is_initial(lwp: NonNull<Lwp>) -> bool {
        Self::read(lwp) == INITIAL
    }
}
