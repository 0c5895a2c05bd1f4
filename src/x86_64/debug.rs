//! The debug registers as a unit, `DR0` to `DR3`, `DR6` and `DR7`: the model of a unit that cannot be lazy.
//!
//! - [`DebugRegisters`]: the unit, for the kernel's table: `UnitOps::of::<DebugRegisters>()`.
//! - [`DebugArea`]: where an LWP's are saved. [`Breakpoints`]: what is saved, checked.
//! - [`take_hits`]: what the kernel's `#DB` handler asks.
//!
//! # Why a use is not waited for
//!
//! User mode cannot execute MOV to a debug register, so the kernel writes them for it; their *use* is that an access of user mode
//! meets an address in them, and no processor tells of an access that would have met an address that is not there. So
//! `USE_TRAPS` is false, `Lazy`, `Probe` and `Adaptive` are refused ([`PolicyError::NeedsTraps`](crate::pcu::PolicyError::NeedsTraps),
//! and in a constant an error of compilation), and the kernel calls [`Pcu::before_user`](crate::pcu::Pcu::before_user) at every return
//! to user mode.
//!
//! # The gate
//!
//! Closed, it clears the enable bits of `DR7` alone: nothing is met, and the addresses stay. So that it can be opened again without
//! memory, a breakpoint that is not enabled has address 0, and the addresses say which bits to set.

use core::fmt;
use core::ptr::NonNull;

use super::fpu::Refused;
use super::instructions;
use crate::pcu::{LoadFlags, PcuFlags, PcuOps, StateError, UnitId};

/// The debug registers' place in the kernel's table.
pub const DEBUG: UnitId = UnitId::new(3);

/// Intel SDM, volume 3B, "Debug Registers": the bits that read as 1, and the local enable bit of each breakpoint.
const STATUS_INITIAL: u64 = 0xffff_0ff0;
const CONTROL_INITIAL: u64 = 0x400;
const ENABLE: [u64; 4] = [1 << 0, 1 << 2, 1 << 4, 1 << 6];
const ENABLE_ALL: u64 = 0xff;
/// `DR7.LE` and `DR7.GE`, which no processor of 64 bits looks at.
const EXACT: u64 = 0x300;
/// The kind and the length of all breakpoints.
const KINDS: u64 = 0xffff_0000;

/// An LWP's debug registers, of which the enabled ones watch user addresses alone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Breakpoints {
    addresses: [u64; 4],
    status: u64,
    control: u64,
}

/// What was asked for is not a set of breakpoints for user mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BreakpointError {
    /// `DR7` has a bit other than enable bits, kinds and lengths: general detect, for instance.
    Control(u64),
    /// The breakpoint of this number watches 0, or an address that is not user mode's.
    Address(usize),
    /// The breakpoint of this number is of a kind, a length or an alignment that does not go together.
    Kind(usize),
}

impl fmt::Display for BreakpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control(bits) => {
                write!(f, "DR7 has the bits {bits:#x}, which are not user mode's")
            }
            Self::Address(number) => write!(f, "DR{number} is enabled and is no user address"),
            Self::Kind(number) => write!(
                f,
                "DR{number} is enabled for I/O, or its length is none, or its address no multiple of it"
            ),
        }
    }
}

impl core::error::Error for BreakpointError {}

impl Breakpoints {
    /// None: the initial state.
    pub const NONE: Self = Self {
        addresses: [0; 4],
        status: STATUS_INITIAL,
        control: CONTROL_INITIAL,
    };

    /// Checks what a debugger asks for: the addresses, and `DR7` as it shall be. User mode's addresses are those below `user_end`.
    ///
    /// A breakpoint that is not enabled is forgotten; one that is enabled globally is enabled locally, which is the same.
    ///
    /// # Errors
    ///
    /// [`BreakpointError`]: the kernel's own accesses would be met, or the next MOV to `DR7` fault.
    pub fn new(addresses: [u64; 4], control: u64, user_end: u64) -> Result<Self, BreakpointError> {
        let odd = control & !(ENABLE_ALL | EXACT | CONTROL_INITIAL | KINDS);
        if odd != 0 {
            return Err(BreakpointError::Control(odd));
        }
        let mut checked = Self {
            control: CONTROL_INITIAL | control & KINDS,
            ..Self::NONE
        };
        for (number, &address) in addresses.iter().enumerate() {
            if control & 3 << (2 * number) == 0 {
                continue;
            }
            // Intel SDM, volume 3B, "Debug Control Register (DR7)": 2 is I/O; 2 is 8 bytes long, an instruction's length is 0.
            let kind = control >> (16 + 4 * number) & 3;
            let bytes = [1, 2, 8, 4][(control >> (18 + 4 * number) & 3) as usize];
            if kind == 2 || kind == 0 && bytes != 1 || address % bytes != 0 {
                return Err(BreakpointError::Kind(number));
            }
            let end = address.checked_add(bytes);
            if address == 0 || end.is_none_or(|end| end > user_end) {
                return Err(BreakpointError::Address(number));
            }
            checked.addresses[number] = address;
            checked.control |= ENABLE[number];
        }
        Ok(checked)
    }

    /// The addresses; 0 where no breakpoint is enabled.
    pub fn addresses(&self) -> [u64; 4] {
        self.addresses
    }

    /// `DR6` and `DR7`.
    pub fn status_and_control(&self) -> [u64; 2] {
        [self.status, self.control]
    }
}

/// An LWP that may have a place for its debug registers.
///
/// # Safety
///
/// The area belongs to this LWP alone and stays the same from the first `Ok` until the LWP has no valid state any more.
pub unsafe trait DebugArea {
    /// Gives the area. It is not allocated here: the registers are brought in at every switch.
    ///
    /// Context: at `IPL_PCU`; takes no lock that the scheduler holds, does not wait.
    ///
    /// # Errors
    ///
    /// [`Refused`]: the LWP has none.
    ///
    /// # Safety
    ///
    /// `lwp` is valid, and nobody else asks for its area at the same time.
    unsafe fn debug_area(lwp: NonNull<Self>) -> Result<NonNull<Breakpoints>, Refused>;
}

/// Says which breakpoints of the LWP that executes this were met, bit N for `DRn`, and forgets it: the processor never does
/// (Intel SDM, volume 3B, "Debug Status Register (DR6)"). Bit 14 is a single step.
///
/// An access is told after it was made. An instruction is told before it executes, so the handler sets RF in the saved flags, or it is
/// met again on the way back (there, "Instruction-Breakpoint Exception Condition").
///
/// Context: the entry of `#DB`, at the level that it came with.
///
/// # Safety
///
/// In ring 0.
pub unsafe fn take_hits() -> u64 {
    // SAFETY: ring 0 is promised.
    let [.., status, _] = unsafe { instructions::read_debug_registers() };
    // SAFETY: as above.
    unsafe { instructions::write_dr6(STATUS_INITIAL) };
    status & !STATUS_INITIAL
}

/// The unit.
#[derive(Debug)]
pub enum DebugRegisters {}

/// # Safety
///
/// In ring 0, at `IPL_PCU`; nobody's live state is in the registers.
unsafe fn write(breakpoints: &Breakpoints) {
    let &Breakpoints {
        addresses,
        status,
        control,
    } = breakpoints;
    // The new addresses must not be met by the old kinds.
    // SAFETY: the caller promises ring 0; nothing is enabled.
    unsafe { instructions::write_dr7(CONTROL_INITIAL) };
    // SAFETY: as above.
    unsafe { instructions::write_debug_addresses(addresses) };
    // SAFETY: as above.
    unsafe { instructions::write_dr6(status) };
    // SAFETY: as above; what is enabled watches user addresses alone, as `Breakpoints` promises.
    unsafe { instructions::write_dr7(control) };
}

// SAFETY: all six registers are moved (`DR4` and `DR5` are other names); a wipe leaves nothing enabled and no address, and so does a
// load that fails, since the core wipes then.
unsafe impl<L: DebugArea> PcuOps<L> for DebugRegisters {
    const ID: UnitId = DEBUG;
    const USE_TRAPS: bool = false;

    unsafe fn state_save(lwp: NonNull<L>) {
        // SAFETY: `lwp` is valid, and the core works on its state alone.
        let area = unsafe { L::debug_area(lwp) };
        assert!(
            area.is_ok(),
            "{lwp:?} owns the debug registers and has lost its area"
        );
        let Ok(area) = area else { return };
        // SAFETY: the core calls this in ring 0, at IPL_PCU.
        let [a0, a1, a2, a3, status, control] = unsafe { instructions::read_debug_registers() };
        let breakpoints = Breakpoints {
            addresses: [a0, a1, a2, a3],
            status,
            control,
        };
        // SAFETY: the promises of `DebugArea`.
        unsafe { area.write(breakpoints) };
    }

    unsafe fn state_load(lwp: NonNull<L>, flags: LoadFlags) -> Result<(), StateError> {
        if flags.contains(PcuFlags::PCU_REENABLE) {
            return Ok(());
        }
        if !flags.contains(PcuFlags::PCU_VALID) {
            // SAFETY: the core calls this in ring 0, at IPL_PCU; nobody's live state is in the registers.
            unsafe { write(&Breakpoints::NONE) };
            return Ok(());
        }
        // SAFETY: `lwp` is valid, and the core works on its state alone.
        let area = unsafe { L::debug_area(lwp) }.map_err(|Refused| StateError::Refused)?;
        // SAFETY: the promises of `DebugArea`.
        let breakpoints = unsafe { area.as_ref() };
        // SAFETY: as above.
        unsafe { write(breakpoints) };
        Ok(())
    }

    unsafe fn state_release(_: NonNull<L>) {}

    unsafe fn unit_enable() {
        // SAFETY: the core calls this in ring 0, at IPL_PCU.
        let [addresses @ .., _, control] = unsafe { instructions::read_debug_registers() };
        let enable = |(address, bit)| if address == 0 { 0 } else { bit };
        let bits: u64 = addresses.into_iter().zip(ENABLE).map(enable).sum();
        // SAFETY: as above; the addresses that are not 0 are those of enabled breakpoints.
        unsafe { instructions::write_dr7(control & !ENABLE_ALL | bits) };
    }

    unsafe fn unit_trap() {
        // SAFETY: the core calls this in ring 0, at IPL_PCU.
        let [.., control] = unsafe { instructions::read_debug_registers() };
        // SAFETY: as above.
        unsafe { instructions::write_dr7(control & !ENABLE_ALL) };
    }

    unsafe fn state_wipe() {
        // SAFETY: the core calls this in ring 0, at IPL_PCU; nobody's live state is in the registers.
        unsafe { write(&Breakpoints::NONE) };
    }

    unsafe fn state_copy(parent: NonNull<L>, child: NonNull<L>) {
        // SAFETY: `parent` is valid, and the core works on its state alone.
        let from = unsafe { L::debug_area(parent) };
        // SAFETY: the same of `child`.
        let to = unsafe { L::debug_area(child) };
        debug_assert!(to.is_ok(), "{child:?} has no area to copy to");
        let (Ok(from), Ok(to)) = (from, to) else {
            return;
        };
        // SAFETY: the areas of two LWPs.
        unsafe { from.copy_to_nonoverlapping(to, 1) };
    }

    unsafe fn is_initial(lwp: NonNull<L>) -> bool {
        // SAFETY: `lwp` is valid, and the core works on its state alone.
        let area = unsafe { L::debug_area(lwp) };
        // SAFETY: memory holds the newest state, so nobody writes it.
        area.is_ok_and(|area| unsafe { area.as_ref() } == &Breakpoints::NONE)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::{BreakpointError, Breakpoints};

    const END: u64 = 0x7fff_ffff_f000;

    /// `DR7` of breakpoint `number`, of a kind and a length as the manual encodes them, enabled by `enable`.
    fn control(number: usize, enable: u64, kind: u64, length: u64) -> u64 {
        enable << (2 * number) | kind << (16 + 4 * number) | length << (18 + 4 * number)
    }

    fn one(number: usize, address: u64, control: u64) -> Result<Breakpoints, BreakpointError> {
        let mut addresses = [0; 4];
        addresses[number] = address;
        Breakpoints::new(addresses, control, END)
    }

    #[test]
    fn what_user_mode_may_watch_is_taken() {
        for number in 0..4 {
            for (kind, length, address) in [
                (0, 0, 0x40_0001),
                (1, 0, 0x7001),
                (1, 1, 0x7002),
                (3, 3, 0x7004),
                (3, 2, END - 8),
            ] {
                for enable in 1..4 {
                    let control = control(number, enable, kind, length);
                    let taken = one(number, address, control).unwrap();
                    assert_eq!(taken.addresses()[number], address);
                    let [status, dr7] = taken.status_and_control();
                    assert_eq!(status, 0xffff_0ff0);
                    assert_eq!(dr7, 0x400 | control & 0xffff_0000 | 1 << (2 * number));
                }
            }
        }
    }

    #[test]
    fn an_address_of_the_kernel_is_refused() {
        for address in [0, END, 1 << 47, u64::MAX - 7, 0xffff_8000_0000_0000] {
            let expected = BreakpointError::Address(2);
            assert_eq!(
                one(2, address, control(2, 1, 1, 2)),
                Err(expected),
                "{address:#x}"
            );
        }
        let reaches_over = Breakpoints::new([0x7000, 0, 0, 0], control(0, 1, 1, 2), 0x7004);
        assert_eq!(reaches_over, Err(BreakpointError::Address(0)));
    }

    #[test]
    fn io_wrong_lengths_and_odd_addresses_are_refused() {
        for (kind, length, address) in
            [(2, 0, 0x60), (0, 1, 0x7000), (1, 1, 0x7001), (3, 2, 0x7004)]
        {
            let expected = BreakpointError::Kind(1);
            assert_eq!(one(1, address, control(1, 2, kind, length)), Err(expected));
        }
    }

    /// General detect (13), restricted transactional memory (11), and what is reserved.
    #[test]
    fn other_bits_of_the_control_register_are_refused() {
        for bit in [11, 12, 13, 14, 15, 32, 63] {
            assert_eq!(
                one(0, 0x7000, 1 | 1 << bit),
                Err(BreakpointError::Control(1 << bit))
            );
        }
        assert!(
            one(0, 0x7000, 1 | 0x700).is_ok(),
            "LE, GE, and the bit that is always 1"
        );
    }

    /// The gate's way back is by the addresses.
    #[test]
    fn a_breakpoint_that_is_not_enabled_is_forgotten() {
        let kernel = 0xffff_8000_0000_0000;
        let taken = Breakpoints::new([0x7000, kernel, 0x7008, 0x7010], 1 << 4, END).unwrap();
        assert_eq!(taken.addresses(), [0, 0, 0x7008, 0]);
        assert_eq!(Breakpoints::new([kernel; 4], 0, END), Ok(Breakpoints::NONE));
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let text = |error: BreakpointError| error.to_string();
        assert_eq!(
            text(BreakpointError::Address(2)),
            "DR2 is enabled and is no user address"
        );
        assert!(text(BreakpointError::Control(0x2000)).contains("0x2000"));
        assert!(text(BreakpointError::Kind(3)).contains("DR3"));
    }
}
