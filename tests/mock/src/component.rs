//! The state components that the XSAVE feature set manages. Intel SDM, volume 1, "XSAVE-Supported Features and
//! State-Component Bitmaps"; component 62 AMD APM, volume 2, "Extended Control Registers".

/// x87, and MMX, which shares its registers.
pub const X87: u64 = 1 << 0;
/// XMM0 to XMM15, and `MXCSR`.
pub const SSE: u64 = 1 << 1;
/// The upper halves of YMM0 to YMM15.
pub const AVX: u64 = 1 << 2;
/// MPX: bounds registers, and their configuration.
pub const MPX: u64 = 3 << 3;
/// K0 to K7.
pub const OPMASK: u64 = 1 << 5;
/// The upper halves of ZMM0 to ZMM15.
pub const ZMM_HI256: u64 = 1 << 6;
/// ZMM16 to ZMM31.
pub const HI16_ZMM: u64 = 1 << 7;
/// The three of AVX-512, which are enabled together.
pub const AVX512: u64 = OPMASK | ZMM_HI256 | HI16_ZMM;
/// The protection keys' rights of user pages. Takes effect in the kernel too.
pub const PKRU: u64 = 1 << 9;
/// Shadow stacks and branch tracking of user mode; a supervisor component.
pub const CET_U: u64 = 1 << 11;
/// The same of the kernel.
pub const CET_S: u64 = 1 << 12;
/// The configuration of AMX's tiles.
pub const TILECFG: u64 = 1 << 17;
/// AMX's tiles.
pub const TILEDATA: u64 = 1 << 18;
/// AMD's lightweight profiling.
pub const LWP: u64 = 1 << 62;

/// Where a component is and how long, as CPUID.(0DH,n) says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Component {
    /// Its number, the bit in the bitmaps.
    pub number: u32,
    /// EAX.
    pub bytes: usize,
    /// EBX: its place in the standard format; 0 for a supervisor component, which has none.
    pub offset: usize,
    /// ECX.
    pub flags: u32,
}

/// CPUID.(0DH,n):ECX. Intel SDM, volume 1, "Enumeration of CPU Support for XSAVE Instructions and XSAVE-Supported Features".
pub const SUPERVISOR: u32 = 1 << 0;
/// In the compacted format at the next multiple of 64.
pub const ALIGNED: u32 = 1 << 1;
/// `IA32_XFD` has a bit for it.
pub const CAN_BE_DISABLED: u32 = 1 << 2;

impl Component {
    pub(crate) const fn new(number: u32, bytes: usize, offset: usize, flags: u32) -> Self {
        Self {
            number,
            bytes,
            offset,
            flags,
        }
    }

    /// Its bit in a bitmap.
    pub const fn bit(&self) -> u64 {
        1 << self.number
    }
}

/// The numbers of the bits of a bitmap, ascending.
pub(crate) fn numbers(bitmap: u64) -> impl Iterator<Item = u32> {
    let mut left = bitmap & (u64::MAX >> 1);
    std::iter::from_fn(move || {
        let number = left.trailing_zeros();
        left &= left.checked_sub(1)?;
        Some(number)
    })
}
