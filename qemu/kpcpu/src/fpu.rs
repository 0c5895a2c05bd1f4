//! Saved FPU registers, decoded. Intel SDM, volume 1, "XSAVE Area" and "Operation of XSAVE"; volume 2A, "FXSAVE".

use serde::Serialize;

use crate::error::{Error, Result};
use crate::handle::Kpcpu;
use crate::header::{AreaFormat, AreaPlace, Fields};
use crate::units::{Lwp, Place};

/// The registers that user programs know, out of a saved state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FpuRegisters {
    /// The x87 control word.
    pub fcw: u16,
    /// The x87 status word.
    pub fsw: u16,
    /// Bit I: the physical register RI is in use.
    pub ftw: u8,
    /// The SSE control and status register.
    pub mxcsr: u32,
    /// ST0 to ST7, 80 bits each.
    #[serde(serialize_with = "crate::hex::numbers")]
    pub st: [u128; 8],
    /// The lower halves of the vector registers 0 to 15.
    #[serde(serialize_with = "crate::hex::numbers")]
    pub xmm: [u128; 16],
    /// Their upper halves, if the state has them.
    #[serde(serialize_with = "crate::hex::optional_numbers")]
    pub ymm_hi: Option<[u128; 16]>,
}

/// The initial state: control words, all else 0. Intel SDM, volume 1, "Processor Tracking of XSAVE-Managed State".
const INITIAL: FpuRegisters = FpuRegisters {
    fcw: 0x037f,
    fsw: 0,
    ftw: 0,
    mxcsr: 0x1f80,
    st: [0; 8],
    xmm: [0; 16],
    ymm_hi: None,
};

const X87: u64 = 1 << 0;
const SSE: u64 = 1 << 1;
const AVX: u64 = 1 << 2;
/// Where the extended region begins: in the compacted format the lowest component that is there, in the standard one AVX's
/// (CPUID.(0DH,2):EBX is 576 on every processor).
const EXTENDED: usize = 576;

impl FpuRegisters {
    /// Decodes an area; components that `XSTATE_BV` leaves out are in their initial state, whatever the bytes are.
    pub fn decode(area: &[u8], format: AreaFormat, xcr0: u64) -> Self {
        let fields = Fields(area);
        let vector = |at: usize| u128::from(fields.u64(at)) | u128::from(fields.u64(at + 8)) << 64;
        let in_use = match format {
            AreaFormat::Fxsave => X87 | SSE,
            AreaFormat::Standard | AreaFormat::Compacted => fields.u64(512),
        };
        let mut registers = INITIAL;
        if in_use & X87 != 0 {
            let words = fields.u64(0).to_le_bytes();
            registers.fcw = u16::from_le_bytes([words[0], words[1]]);
            registers.fsw = u16::from_le_bytes([words[2], words[3]]);
            registers.ftw = words[4];
            registers.st = std::array::from_fn(|i| vector(32 + 16 * i) & ((1 << 80) - 1));
        }
        if in_use & SSE != 0 {
            registers.xmm = std::array::from_fn(|i| vector(160 + 16 * i));
        }
        // MXCSR has no bit of its own: it is saved whenever SSE or AVX is asked for, in the compacted format with SSE alone.
        if in_use & SSE != 0 || format == AreaFormat::Standard {
            registers.mxcsr = fields.u32(24);
        }
        if xcr0 & AVX != 0 && format != AreaFormat::Fxsave {
            let is_there = in_use & AVX != 0;
            registers.ymm_hi = Some(std::array::from_fn(|i| {
                if is_there {
                    vector(EXTENDED + 16 * i)
                } else {
                    0
                }
            }));
        }
        registers
    }
}

impl Kpcpu {
    /// The FPU state in an LWP's memory, `None` if it has none there. If `lwp` is live on a CPU this is an older copy, or none.
    ///
    /// # Errors
    ///
    /// If the kernel does not say where areas are, or the area cannot be read.
    pub fn fpu(&self, lwp: &Lwp) -> Result<Option<FpuRegisters>> {
        self.consistent(|this| this.read_fpu(lwp))
    }

    fn read_fpu(&self, lwp: &Lwp) -> Result<Option<FpuRegisters>> {
        let layout = self.header()?.fpu;
        let format = layout
            .format
            .ok_or(Error::NotSaid("what an FPU area looks like"))?;
        let area = match layout.place {
            AreaPlace::Unknown => return Err(Error::NotSaid("where an LWP's FPU area is")),
            AreaPlace::Inside(offset) => lwp.address.wrapping_add(offset.into()),
            AreaPlace::Pointer(offset) => {
                let what = format!("the area pointer of the LWP at {:#x}", lwp.address);
                self.read_u64(&what, lwp.address.wrapping_add(offset.into()))?
            }
        };
        let place = lwp.units.get(layout.unit as usize);
        if area == 0 || matches!(place, None | Some(Place::None)) {
            return Ok(None);
        }
        let what = format!("the FPU area of the LWP at {:#x}", lwp.address);
        let bytes = self.read_vec(&what, area, layout.area_bytes.into())?;
        Ok(Some(FpuRegisters::decode(&bytes, format, layout.xcr0)))
    }

    /// The number of the FPU among the units.
    ///
    /// # Errors
    ///
    /// If the header cannot be read.
    pub fn fpu_unit(&self) -> Result<usize> {
        Ok(self.header()?.fpu.unit as usize)
    }
}
