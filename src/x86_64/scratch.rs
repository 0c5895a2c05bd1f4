//! A register file behind a page: the model of a unit of one's own, and of a use that traps by a page fault.
//!
//! - [`Scratch`]: the unit, for the kernel's table: `UnitOps::of::<Scratch>()`.
//! - [`ScratchArea`]: what it needs of the kernel: each CPU's [`Window`], and where an LWP's registers are saved.
//!
//! The registers are the 512 words of one page that user mode sees at the same address on every CPU, while each CPU has a frame of
//! its own for it. They stand for whatever a device or a coprocessor gives to each CPU once and maps. The gate is the present bit
//! of this CPU's page-table entry: the kernel's `#PF` handler gives a fault in the page to [`Pcu::trap`](crate::pcu::Pcu::trap), as
//! its `#NM` handler does for the FPU. All of the page is the state: what user mode reaches and the unit does not move would leak.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::VirtAddr;
use x86_64::instructions::tlb;

use super::fpu::Refused;
use crate::pcu::{LoadFlags, PcuFlags, PcuOps, StateError, UnitId};

/// The register file's place in the kernel's table.
pub const SCRATCH: UnitId = UnitId::new(2);

/// The registers, in a CPU's frame and in an LWP's memory. All zero is the initial state.
pub type Registers = [u64; 512];

/// Bit 0 of a page-table entry. Intel SDM, volume 3A, "4-Level Paging and 5-Level Paging".
const PRESENT: u64 = 1;

/// What one CPU has of the unit.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Its registers, where the kernel reaches them whether the gate is open or not.
    pub registers: NonNull<Registers>,
    /// Its page-table entry for the address that user mode uses. A CPU starts with the present bit clear.
    pub entry: NonNull<AtomicU64>,
}

/// A kernel's LWP that has a place for the registers, on CPUs that have a window.
///
/// # Safety
///
/// [`window`](Self::window) gives the executing CPU's own, the same at each call, whose frame and entry are valid for good and nobody
/// else's; at [`ADDRESS`](Self::ADDRESS) that entry, and on this CPU no other, is used for translation, whichever address space is
/// loaded. The area belongs to this LWP alone and stays the same until it has no valid state any more.
pub unsafe trait ScratchArea {
    /// Where user mode sees the registers.
    const ADDRESS: u64;

    /// Gives the executing CPU's window.
    ///
    /// Context: at `IPL_PCU`; does not wait.
    fn window() -> Window;

    /// Gives the place for the registers of `lwp`.
    ///
    /// Context: at `IPL_PCU`; takes no lock that the scheduler holds, does not wait.
    ///
    /// # Errors
    ///
    /// [`Refused`]: the LWP may not use the unit.
    ///
    /// # Safety
    ///
    /// `lwp` is valid, and nobody else asks for its area at the same time.
    unsafe fn scratch_area(lwp: NonNull<Self>) -> Result<NonNull<Registers>, Refused>;
}

/// The unit.
#[derive(Debug)]
pub enum Scratch {}

/// # Safety
///
/// Both are valid, and nobody writes them meanwhile.
unsafe fn copy(from: NonNull<Registers>, to: NonNull<Registers>) {
    // SAFETY: a CPU's frame and LWPs' areas never overlap.
    unsafe { from.copy_to_nonoverlapping(to, 1) };
}

// SAFETY: the whole page is moved, and zeroed by a wipe; a load that fails has written nothing.
unsafe impl<L: ScratchArea> PcuOps<L> for Scratch {
    const ID: UnitId = SCRATCH;

    unsafe fn state_save(lwp: NonNull<L>) {
        // SAFETY: `lwp` is valid, and the core works on its state alone.
        let area = unsafe { L::scratch_area(lwp) };
        assert!(area.is_ok(), "{lwp:?} owns registers and has lost its area");
        let Ok(area) = area else { return };
        // SAFETY: this CPU's registers, which only user mode here writes, and an area that nobody else has.
        unsafe { copy(L::window().registers, area) };
    }

    unsafe fn state_load(lwp: NonNull<L>, flags: LoadFlags) -> Result<(), StateError> {
        if flags.contains(PcuFlags::PCU_REENABLE) {
            return Ok(());
        }
        // SAFETY: `lwp` is valid, and the core works on its state alone.
        let area = unsafe { L::scratch_area(lwp) }.map_err(|Refused| StateError::Refused)?;
        if flags.contains(PcuFlags::PCU_VALID) {
            // SAFETY: as in `state_save`; nobody's live state is in the registers.
            unsafe { copy(area, L::window().registers) };
        } else {
            // SAFETY: nobody's live state is in the registers.
            unsafe { <Self as PcuOps<L>>::state_wipe() };
        }
        Ok(())
    }

    unsafe fn state_release(_: NonNull<L>) {}

    unsafe fn unit_enable() {
        // SAFETY: this CPU's entry. No processor remembers one that is not present, so nothing is flushed.
        unsafe { L::window().entry.as_ref() }.fetch_or(PRESENT, Ordering::SeqCst);
    }

    unsafe fn unit_trap() {
        // SAFETY: this CPU's entry, which no other CPU uses, so none has to flush.
        unsafe { L::window().entry.as_ref() }.fetch_and(!PRESENT, Ordering::SeqCst);
        tlb::flush(VirtAddr::new_truncate(L::ADDRESS));
    }

    unsafe fn state_wipe() {
        // SAFETY: this CPU's registers, nobody's live state.
        unsafe { L::window().registers.write_bytes(0, 1) };
    }

    unsafe fn state_copy(parent: NonNull<L>, child: NonNull<L>) {
        // SAFETY: `parent` is valid, and the core works on its state alone.
        let from = unsafe { L::scratch_area(parent) };
        // SAFETY: the same of `child`.
        let to = unsafe { L::scratch_area(child) };
        debug_assert!(to.is_ok(), "{child:?} has no area to copy to");
        let (Ok(from), Ok(to)) = (from, to) else {
            return;
        };
        // SAFETY: the areas of two LWPs.
        unsafe { copy(from, to) };
    }

    unsafe fn is_initial(lwp: NonNull<L>) -> bool {
        // SAFETY: `lwp` is valid, and the core works on its state alone.
        let area = unsafe { L::scratch_area(lwp) };
        // SAFETY: memory holds the newest state, so nobody writes it.
        area.is_ok_and(|area| unsafe { area.as_ref() }.iter().all(|&word| word == 0))
    }
}

/// All but [`PcuOps::unit_trap`], whose INVLPG is privileged: `tests/boot_scratch.rs` has it.
#[cfg(test)]
mod tests {
    extern crate std;

    use core::cell::UnsafeCell;
    use core::ptr::NonNull;
    use core::sync::atomic::{AtomicU64, Ordering};
    use std::boxed::Box;
    use std::thread_local;

    use super::{PRESENT, Registers, Scratch, ScratchArea, Window};
    use crate::pcu::{LoadFlags, PcuOps, StateError};
    use crate::x86_64::fpu::Refused;

    /// Its area, if it may have one.
    struct Lwp(Option<UnsafeCell<Registers>>);

    thread_local! {
        /// The CPU's window; each test is a CPU.
        static WINDOW: (UnsafeCell<Registers>, AtomicU64) =
            const { (UnsafeCell::new([0; 512]), AtomicU64::new(0x6)) };
    }

    // SAFETY: the thread's own window, and a field of the LWP; nothing is translated.
    unsafe impl ScratchArea for Lwp {
        const ADDRESS: u64 = 0;

        fn window() -> Window {
            WINDOW.with(|(registers, entry)| Window {
                registers: NonNull::new(registers.get()).unwrap(),
                entry: NonNull::from(entry),
            })
        }

        unsafe fn scratch_area(lwp: NonNull<Self>) -> Result<NonNull<Registers>, Refused> {
            // SAFETY: the caller promises an LWP.
            let area = unsafe { &(*lwp.as_ptr()).0 };
            area.as_ref()
                .and_then(|area| NonNull::new(area.get()))
                .ok_or(Refused)
        }
    }

    fn lwp(fill: u64) -> Box<Lwp> {
        Box::new(Lwp(Some(UnsafeCell::new([fill; 512]))))
    }

    fn memory(lwp: &Lwp) -> Registers {
        // SAFETY: nobody writes it now.
        lwp.0
            .as_ref()
            .map_or([0; 512], |area| unsafe { *area.get() })
    }

    fn registers() -> Registers {
        // SAFETY: the thread's own.
        unsafe { Lwp::window().registers.read() }
    }

    fn load(lwp: &Lwp, flags: LoadFlags) -> Result<(), StateError> {
        // SAFETY: the thread's own registers, nobody's state.
        unsafe { Scratch::state_load(NonNull::from(lwp), flags) }
    }

    #[test]
    fn all_of_the_page_is_moved() {
        let (a, b) = (lwp(7), lwp(0));
        assert_eq!(load(&a, LoadFlags::VALID), Ok(()));
        assert_eq!(registers(), [7; 512]);
        // SAFETY: the registers are as good as any's.
        unsafe { Scratch::state_save(NonNull::from(&*b)) };
        assert_eq!(memory(&b), [7; 512]);
        let child = lwp(1);
        // SAFETY: two LWPs with areas.
        unsafe { Scratch::state_copy(NonNull::from(&*b), NonNull::from(&*child)) };
        assert_eq!(memory(&child), [7; 512]);
        assert_eq!(load(&b, LoadFlags::INIT), Ok(()));
        assert_eq!(registers(), [0; 512]);
        assert_eq!(load(&a, LoadFlags::REENABLE), Ok(()));
        assert_eq!(registers(), [0; 512], "nothing is loaded");
    }

    #[test]
    fn who_has_no_area_is_refused_and_loads_nothing() {
        assert_eq!(load(&lwp(9), LoadFlags::VALID), Ok(()));
        let without = Lwp(None);
        for flags in [LoadFlags::INIT, LoadFlags::VALID] {
            assert_eq!(load(&without, flags), Err(StateError::Refused));
        }
        assert_eq!(registers(), [9; 512]);
    }

    #[test]
    fn one_word_makes_a_state_other_than_the_initial_one() {
        let initial = lwp(0);
        // SAFETY: nobody writes its memory now.
        assert!(unsafe { Scratch::is_initial(NonNull::from(&*initial)) });
        for word in [0, 511] {
            let mut registers = [0; 512];
            registers[word] = 1;
            let other = Lwp(Some(UnsafeCell::new(registers)));
            // SAFETY: as above.
            assert!(!unsafe { Scratch::is_initial(NonNull::from(&other)) });
        }
    }

    #[test]
    fn the_gate_is_the_present_bit_alone() {
        // SAFETY: the thread's own entry.
        unsafe { <Scratch as PcuOps<Lwp>>::unit_enable() };
        let entry = WINDOW.with(|(_, entry)| entry.load(Ordering::Relaxed));
        assert_eq!(entry, 0x6 | PRESENT);
    }
}
