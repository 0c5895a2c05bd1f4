//! Per-CPU objects made at run time: [`Zpcpu`]. FreeBSD: `UMA_ZONE_PCPU`, `zpcpu_get`.
//!
//! An allocation is the same bytes in every CPU's area, behind the variables; so it has a name as they have, and is reached in the
//! same way. CPUs that come later find zeros there, as all begin with.

use core::marker::PhantomData;

use super::Percpu;
use super::access::{Number, Pinned, ThisCpu, Word, Zeroable};
use super::error::NoRoom;
use super::registry::AREA_ALIGN;
use crate::kernel::CpuId;

/// The unit of allocation.
pub(super) const SLOT_BYTES: usize = 8;

/// A `T` for each CPU, zero at first. Not dropped: [`free`](Self::free) gives it back. FreeBSD: what `uma_zalloc_pcpu` gives.
///
/// ```compile_fail,E0382
/// # use core::sync::atomic::AtomicU64;
/// # use pcu9::percpu::{Percpu, Zpcpu};
/// fn twice(percpu: &Percpu, packets: Zpcpu<AtomicU64>) {
///     packets.free(percpu);
///     packets.sum(percpu); // given back
/// }
/// ```
#[doc(alias = "UMA_ZONE_PCPU")]
#[doc(alias = "uma_zalloc_pcpu")]
#[derive(Debug)]
#[repr(transparent)]
pub struct Zpcpu<T> {
    name: usize,
    object: PhantomData<fn() -> T>,
}

impl<T: Zeroable> Zpcpu<T> {
    /// Allocates.
    ///
    /// Context: below `IPL_PCU`; takes a spin lock.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] in the areas.
    pub fn alloc(percpu: &Percpu) -> Result<Self, NoRoom> {
        const { assert!(align_of::<T>() <= AREA_ALIGN, "an area is aligned to 64") };
        let bytes = size_of::<T>();
        let mut zone = percpu.zone().lock();
        let name = zone.take(bytes, align_of::<T>()).ok_or(NoRoom { bytes })?;
        // The lock is held, so no CPU comes or goes meanwhile.
        for offset in percpu.present().filter_map(|cpu| percpu.offset(cpu)) {
            let at = core::ptr::with_exposed_provenance_mut::<u8>(name.wrapping_add(offset));
            // SAFETY: the slots were free, in every area, so nobody has a reference to them.
            unsafe { at.write_bytes(0, bytes) };
        }
        Ok(Self {
            name,
            object: PhantomData,
        })
    }

    /// Gives it back; the bytes are used again. FreeBSD: `uma_zfree_pcpu`.
    ///
    /// Context: as [`alloc`](Self::alloc).
    #[doc(alias = "uma_zfree_pcpu")]
    pub fn free(self, percpu: &Percpu) {
        percpu.zone().lock().give_back(self.name, size_of::<T>());
    }

    /// What a CPU's offset is added to; a reader outside calls it `base`.
    pub fn name(&self) -> usize {
        self.name
    }

    /// This CPU's object. FreeBSD: `zpcpu_get`.
    #[doc(alias = "zpcpu_get")]
    pub fn here<'a>(&'a self, pinned: &'a Pinned<'_>) -> &'a T {
        self.at(pinned.offset())
    }

    /// CPU `cpu`'s object, `None` for an absent CPU. FreeBSD: `zpcpu_get_cpu`.
    #[doc(alias = "zpcpu_get_cpu")]
    pub fn on<'a>(&'a self, percpu: &'a Percpu, cpu: CpuId) -> Option<&'a T> {
        Some(self.at(percpu.offset(cpu)?))
    }

    fn at(&self, offset: usize) -> &T {
        let at = core::ptr::with_exposed_provenance::<T>(self.name.wrapping_add(offset));
        // SAFETY: every present CPU has a `T` there, zero or what was made of it, and `Zeroable` implies `Sync`.
        unsafe { &*at }
    }
}

impl<W: Word + Zeroable> Zpcpu<W> {
    /// Reads this CPU's word, in one step.
    pub fn get(&self, this: impl ThisCpu) -> W::Value {
        // SAFETY: every present CPU has a `W` there.
        unsafe { this.load_at::<W>(self.name) }
    }

    /// Writes this CPU's word, in one step.
    pub fn set(&self, this: impl ThisCpu, value: W::Value) {
        // SAFETY: as above.
        unsafe { this.store_at::<W>(self.name, value) };
    }
}

impl<W: Number + Zeroable> Zpcpu<W> {
    /// Adds to this CPU's word, in one step; it wraps. FreeBSD: `zpcpu_add`.
    #[doc(alias = "zpcpu_add")]
    pub fn add(&self, this: impl ThisCpu, n: W::Value) {
        // SAFETY: every present CPU has a `W` there.
        unsafe { this.add_at::<W>(self.name, n) };
    }

    /// The wrapping sum over all present CPUs.
    pub fn sum(&self, percpu: &Percpu) -> W::Value {
        percpu
            .present()
            .filter_map(|cpu| self.on(percpu, cpu))
            .fold(W::from_bits(0), |sum, word| {
                W::wrapping_sum(sum, word.load())
            })
    }
}

/// Which slots are taken; the same in every area.
#[derive(Debug)]
pub(super) struct Zone {
    start: usize,
    n_slots: usize,
    /// Bit S of the row: slot S is taken.
    taken: &'static mut [u64],
}

impl Zone {
    /// Nothing to allocate from.
    pub(super) const fn none() -> Self {
        Self {
            start: 0,
            n_slots: 0,
            taken: &mut [],
        }
    }

    pub(super) fn new(start: usize, end: usize, taken: &'static mut [u64]) -> Self {
        taken.fill(0);
        Self {
            start,
            n_slots: (end - start) / SLOT_BYTES,
            taken,
        }
    }

    fn is_taken(&self, slot: usize) -> bool {
        self.taken[slot / 64] >> (slot % 64) & 1 != 0
    }

    /// Takes the first slots in a row that do; their name.
    fn take(&mut self, bytes: usize, align: usize) -> Option<usize> {
        let n = bytes.div_ceil(SLOT_BYTES).max(1);
        let step = align.div_ceil(SLOT_BYTES);
        let last = self.n_slots.checked_sub(n)?;
        let first = (0..=last)
            .step_by(step)
            .find(|&first| (first..first + n).all(|slot| !self.is_taken(slot)))?;
        for slot in first..first + n {
            self.taken[slot / 64] |= 1 << (slot % 64);
        }
        Some(self.start + first * SLOT_BYTES)
    }

    fn give_back(&mut self, name: usize, bytes: usize) {
        let first = (name - self.start) / SLOT_BYTES;
        for slot in first..first + bytes.div_ceil(SLOT_BYTES).max(1) {
            debug_assert!(self.is_taken(slot), "slot {slot} is given back twice");
            self.taken[slot / 64] &= !(1 << (slot % 64));
        }
    }
}
