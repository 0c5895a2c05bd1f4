//! Locks of a kernel with interrupts: taken with interrupts off, held for a short time, waited for without the PAUSE hint.
//!
//! PAUSE makes a spinning CPU give up its turn under QEMU's emulation and costs milliseconds, so the locks spin with
//! `spin`'s `Loop` strategy.
//! Architecture invariant: nothing sends a cross-call, or sleeps, while it holds one of these (both assert that interrupts are on).

use core::ops::{Deref, DerefMut};

use spin::mutex::{SpinMutex, SpinMutexGuard};
use spin::relax::Loop;
use x86_64::instructions::interrupts;

/// Interrupts are off on this CPU while the value lives; it restores what was before.
#[derive(Debug)]
pub struct InterruptsOff {
    were_on: bool,
    /// Not for another CPU: the flag is this one's.
    _not_send: core::marker::PhantomData<*mut ()>,
}

impl InterruptsOff {
    /// Turns interrupts off.
    pub fn new() -> Self {
        let were_on = interrupts::are_enabled();
        interrupts::disable();
        Self {
            were_on,
            _not_send: core::marker::PhantomData,
        }
    }
}

impl Default for InterruptsOff {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for InterruptsOff {
    fn drop(&mut self) {
        if self.were_on {
            interrupts::enable();
        }
    }
}

/// A value that is used with interrupts off and by one CPU at a time.
#[derive(Debug, Default)]
pub struct IrqLock<T> {
    inner: SpinMutex<T, Loop>,
}

/// Access to the value of an [`IrqLock`].
#[derive(Debug)]
pub struct IrqGuard<'a, T> {
    // In this order: the lock is released before interrupts come back.
    inner: SpinMutexGuard<'a, T>,
    _off: InterruptsOff,
}

impl<T> IrqLock<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self {
            inner: SpinMutex::new(value),
        }
    }

    /// Turns interrupts off and waits for the lock.
    pub fn lock(&self) -> IrqGuard<'_, T> {
        let off = InterruptsOff::new();
        IrqGuard {
            inner: self.inner.lock(),
            _off: off,
        }
    }

    /// Takes the lock only if nobody holds it.
    pub fn try_lock(&self) -> Option<IrqGuard<'_, T>> {
        let off = InterruptsOff::new();
        self.inner
            .try_lock()
            .map(|inner| IrqGuard { inner, _off: off })
    }
}

impl<T> Deref for IrqGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for IrqGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}
