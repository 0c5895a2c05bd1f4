//! An LWP of the test kernel, and its areas.

use std::alloc::{Layout, alloc, dealloc};
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

use pcu9::pcu::LwpPcu;
use pcu9::x86_64::amx::{Amx, AmxArea};
use pcu9::x86_64::fpu::{AREA_ALIGN, Fpu, FpuArea, FpuFeatures, Refused};
use pcu9::x86_64::machine::Machine;
use pcu9_mock::{Model, Registers};

use super::world::UNITS;

/// Behind each area lie as many bytes that nobody may write.
const CANARY: [u8; 64] = [0xc5; 64];

/// An LWP: what the crate wants of one, its area, and what its registers are in its own eyes.
pub(crate) struct Lwp {
    pub(crate) number: usize,
    pub(crate) pcu: LwpPcu<UNITS>,
    /// 0 is a kernel thread.
    pub(crate) domain: Cell<u64>,
    area: NonNull<u8>,
    area_bytes: usize,
    /// Of an LWP that may use AMX: where its tiles are saved.
    tiles: Cell<Option<NonNull<u8>>>,
    pub(crate) refuses_area: Cell<bool>,
    pub(crate) registers: RefCell<Registers>,
}

impl Lwp {
    /// A new one in a box, with initial registers.
    pub(crate) fn new<M: Machine>(number: usize, domain: u64, model: &Model) -> Box<Self> {
        let area_bytes = FpuFeatures::of::<M>().area_bytes();
        // SAFETY: the layout is not empty.
        let area = unsafe { alloc(Self::layout(area_bytes)) };
        let area = NonNull::new(area).expect("memory for a test");
        // SAFETY: fresh memory of that length.
        unsafe { area.write_bytes(CANARY[0], area_bytes + CANARY.len()) };
        // SAFETY: long and aligned enough, and nobody else's.
        unsafe { Fpu::<M>::prepare(area) };
        Box::new(Self {
            number,
            pcu: LwpPcu::new(),
            domain: Cell::new(domain),
            area,
            area_bytes,
            tiles: Cell::new(None),
            refuses_area: Cell::new(false),
            registers: RefCell::new(Registers::initial(model)),
        })
    }

    /// Gives it an area for tiles.
    pub(crate) fn permit_amx<M: Machine>(&self) {
        // SAFETY: the layout is not empty.
        let area = NonNull::new(unsafe { alloc(TILES_LAYOUT) }).expect("memory for a test");
        // SAFETY: long and aligned enough, and nobody else's.
        unsafe { Amx::<M>::prepare(area) };
        self.tiles.set(Some(area));
    }

    fn layout(area_bytes: usize) -> Layout {
        Layout::from_size_align(area_bytes + CANARY.len(), AREA_ALIGN).unwrap()
    }

    /// Where the registers are saved. To be read and written while nobody owns them live.
    pub(crate) fn area(&self) -> NonNull<u8> {
        self.area
    }

    /// Byte `at` and those behind it.
    pub(crate) fn read<const N: usize>(&self, at: usize) -> [u8; N] {
        assert!(at + N <= self.area_bytes);
        // SAFETY: within the area.
        let from = unsafe { self.area.add(at) };
        // SAFETY: as above; nobody writes it during this call.
        unsafe { from.cast::<[u8; N]>().read() }
    }

    /// Writes bytes from `at` on.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.area_bytes);
        // SAFETY: within the area.
        let to = unsafe { self.area.add(at) };
        // SAFETY: as above; the bytes are the test's.
        unsafe { to.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
    }

    /// The whole area.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.area_bytes];
        // SAFETY: the area is so long, and nobody writes it during this call.
        unsafe {
            self.area
                .copy_to_nonoverlapping(NonNull::from(&mut bytes[..]).cast(), self.area_bytes);
        };
        bytes
    }

    /// Has somebody written past the area?
    pub(crate) fn check_canary(&self) {
        // SAFETY: the allocation is that much longer than the area.
        let end = unsafe { self.area.add(self.area_bytes) };
        // SAFETY: as above.
        let canary = unsafe { end.cast::<[u8; 64]>().read() };
        assert_eq!(canary, CANARY, "lwp {}: written past the area", self.number);
    }

    /// Frees the areas, which nobody uses any more.
    pub(crate) fn free_areas(&self) {
        self.check_canary();
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.area.as_ptr(), Self::layout(self.area_bytes)) };
        if let Some(tiles) = self.tiles.get() {
            // SAFETY: as above.
            unsafe { dealloc(tiles.as_ptr(), TILES_LAYOUT) };
        }
    }
}

impl Drop for Lwp {
    fn drop(&mut self) {
        self.free_areas();
    }
}

/// More than any AMX area takes.
const TILES_LAYOUT: Layout = match Layout::from_size_align(16384, AREA_ALIGN) {
    Ok(layout) => layout,
    Err(_) => panic!("a layout"),
};

// SAFETY: the area is long and aligned enough, was prepared, is the LWP's alone, and never changes.
unsafe impl AmxArea for Lwp {
    unsafe fn amx_area(lwp: NonNull<Self>) -> Result<NonNull<u8>, Refused> {
        // SAFETY: the caller promises a valid LWP, which is changed through cells alone.
        unsafe { lwp.as_ref() }.tiles.get().ok_or(Refused)
    }
}

// SAFETY: the area is as long and aligned as the machine wants it, was prepared, is the LWP's alone, and never changes.
unsafe impl FpuArea for Lwp {
    unsafe fn area(lwp: NonNull<Self>) -> Result<NonNull<u8>, Refused> {
        // SAFETY: the caller promises a valid LWP, which is changed through cells alone.
        let lwp = unsafe { lwp.as_ref() };
        if lwp.refuses_area.get() {
            return Err(Refused);
        }
        Ok(lwp.area)
    }
}
