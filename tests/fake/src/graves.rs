//! Who may touch an LWP, and what becomes of one that has exited: nobody touches it any more (I7).
//!
//! An exited LWP is not freed but buried. Whoever asks for it panics, and by the time its memory is reused, or the world ends,
//! nobody may have written to it. A new LWP can be put into the memory of a buried one, as a kernel's allocator does; a clean entry
//! that still names the address names somebody else then.

use std::ptr::NonNull;
use std::thread;

use super::{Lwp, UNITS, World, cpu_id, unit};

/// The memory of an LWP that has exited.
#[derive(Debug)]
pub(super) struct Grave {
    lwp: NonNull<Lwp>,
    /// What it held at the end.
    last: String,
}

impl Grave {
    fn new(lwp: NonNull<Lwp>) -> Self {
        // SAFETY: buried LWPs are freed with the world alone, and changed through cells alone.
        let dead = unsafe { lwp.as_ref() };
        dead.is_dead.set(true);
        // SAFETY: it is valid, and made of atomics. Its end is the copy's: what lies in the grave is never dropped.
        drop(unsafe { (&raw const dead.pcu).read() });
        let last = format!("{dead:?}");
        Self { lwp, last }
    }

    fn assert_untouched(&self) {
        // SAFETY: as in `new`.
        let dead = unsafe { self.lwp.as_ref() };
        assert_eq!(
            format!("{dead:?}"),
            self.last,
            "I7: written to after its exit"
        );
    }
}

/// Where a new LWP's memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// No LWP had it before.
    New,
    /// It is that of the LWP that was buried last.
    Reused,
}

impl World {
    /// Buries an LWP that has exited and puts a new one in its place.
    ///
    /// # Panics
    ///
    /// If its registers are live anywhere, or it runs.
    pub fn replace(&self, lwp: usize, memory: Memory) {
        assert_eq!(self.cpu_of(lwp), None, "lwp {lwp} runs");
        self.graves.borrow_mut().push(Grave::new(self.pointer(lwp)));
        let new = match memory {
            Memory::New => self.new_lwp(lwp),
            Memory::Reused => {
                let grave = self.graves.borrow_mut().pop().expect("the one from above");
                grave.assert_untouched();
                // SAFETY: made by `Box::leak`; nobody finds the old LWP any more, and its end was in `Grave::new`.
                unsafe { grave.lwp.write(self.blank(lwp)) };
                grave.lwp
            }
        };
        self.lwps.borrow_mut()[lwp] = new;
    }

    /// May the CPU that executes touch `lwp`? Yes, if it is current here, if its registers are live here, or if somebody
    /// keeps it from running and asked for it.
    pub(super) fn assert_may_touch(&self, lwp: NonNull<Lwp>) {
        // SAFETY: LWPs, buried ones too, are freed with the world alone, and changed through cells alone.
        let lwp = unsafe { lwp.as_ref() };
        assert!(!lwp.is_dead.get(), "I7: touched after its exit");
        let here = self.here.get();
        let is_live_here = || {
            (0..UNITS).any(|index| {
                let unit = unit(u8::try_from(index).expect("few units"));
                lwp.pcu.live_cpu(unit) == Some(cpu_id(here))
            })
        };
        assert!(
            lwp.is_held.get()
                || lwp.is_slot.get()
                || self.current_on(here) == Some(lwp.number)
                || is_live_here(),
            "I7: cpu {here} touches lwp {}, which is not its to touch: {:?}",
            lwp.number,
            lwp.pcu
        );
    }

    /// Frees the buried LWPs.
    pub(super) fn end_graves(&self) {
        for grave in self.graves.take() {
            if !thread::panicking() {
                grave.assert_untouched();
            }
            // SAFETY: made by `Box::leak`, and in no list any more.
            std::mem::forget(unsafe { Box::from_raw(grave.lwp.as_ptr()) }.pcu);
        }
    }
}
