//! Per-CPU data by the segment register `gs`.

use core::fmt;
use core::marker::PhantomData;

use super::instructions;
use crate::percpu::{Number, OFFSET, Symbol, ThisCpu, Word};

/// The executing CPU, found by `gs`: `GS.base` is its dynamic offset, so `gs:` with the address of a variable is its copy. `S` is the
/// variable that is the block, where the CPU also finds the offset itself.
///
/// Intel SDM, volume 3A, "Segment Registers" in 64-bit mode: only the bases of FS and GS are used, and added. The offset is the
/// difference of two kernel addresses, so it is canonical whatever the two are.
pub struct Gs<S>(PhantomData<fn(S)>);

impl<S: Symbol> Gs<S> {
    /// Takes note that `gs` is set.
    ///
    /// # Safety
    ///
    /// `S` is the block that the kernel's header names. Wherever the value is used, `GS.base` of the executing CPU is what
    /// [`Percpu::add_cpu`](crate::percpu::Percpu::add_cpu) gave for it, and the CPU stays present.
    pub const unsafe fn assume() -> Self {
        Self(PhantomData)
    }
}

impl<S> Clone for Gs<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Gs<S> {}

impl<S> fmt::Debug for Gs<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gs")
    }
}

// SAFETY:
// C1: `add_cpu` put the offset into the CPU's block, which GS.base leads to.
// C2: each is one instruction.
unsafe impl<S: Symbol> ThisCpu for Gs<S> {
    #[inline]
    fn offset(self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "x86-64 only: a u64 fits in usize"
        )]
        // SAFETY: GS.base was promised, `S` is the block, and the field is there.
        let offset = unsafe { S::gs_load::<OFFSET>(8) } as usize;
        offset
    }

    #[inline]
    unsafe fn load<T: Symbol, W: Word, const AT: usize>(self) -> W::Value {
        // SAFETY: GS.base was promised, and by the caller that a `W` lies there.
        W::from_bits(unsafe { T::gs_load::<AT>(size_of::<W>()) })
    }

    #[inline]
    unsafe fn store<T: Symbol, W: Word, const AT: usize>(self, value: W::Value) {
        // SAFETY: as for `load`.
        unsafe { T::gs_store::<AT>(size_of::<W>(), W::to_bits(value)) };
    }

    #[inline]
    unsafe fn add<T: Symbol, W: Number, const AT: usize>(self, n: W::Value) {
        // SAFETY: as for `load`.
        unsafe { T::gs_add::<AT>(size_of::<W>(), W::to_bits(n)) };
    }

    #[inline]
    unsafe fn increment<T: Symbol, W: Number, const AT: usize>(self) {
        // SAFETY: as for `load`.
        unsafe { T::gs_inc::<AT>(size_of::<W>()) };
    }

    #[inline]
    unsafe fn load_at<W: Word>(self, name: usize) -> W::Value {
        // SAFETY: as for `load`.
        W::from_bits(unsafe { instructions::gs_load(name, size_of::<W>()) })
    }

    #[inline]
    unsafe fn store_at<W: Word>(self, name: usize, value: W::Value) {
        // SAFETY: as for `load`.
        unsafe { instructions::gs_store(name, size_of::<W>(), W::to_bits(value)) };
    }

    #[inline]
    unsafe fn add_at<W: Number>(self, name: usize, n: W::Value) {
        // SAFETY: as for `load`.
        unsafe { instructions::gs_add(name, size_of::<W>(), W::to_bits(n)) };
    }
}
