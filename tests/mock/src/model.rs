//! What differs from processor to processor: the answers of CPUID, and the freedom that the manuals leave.

use std::arch::x86_64::CpuidResult;

use crate::component::{Component, SUPERVISOR};
use crate::cpu::{CR4_OSXSAVE, CR4_PKE};

/// Who made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// `GenuineIntel`.
    Intel,
    /// `AuthenticAMD`.
    Amd,
    /// `HygonGenuine`: AMD's cores.
    Hygon,
}

/// How the processor tells whether a component is in use, for the init optimisation. Intel SDM, volume 1, "Processor Tracking of
/// XSAVE-Managed State", leaves it open for a component that is in its initial state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InUse {
    /// Since something wrote it, whatever was written: the least that the manual promises.
    ByHistory,
    /// By what it holds: registers written with zeros are not in use. AMD's, as measured on Zen 3.
    ByContent,
}

/// Does XSAVEOPT leave out what was not modified since the restore from the same area? The manual leaves it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModifiedOptimisation {
    /// Never.
    Absent,
    /// Whenever the manual allows it.
    Full,
}

/// What becomes of `FOP`, `FIP` and `FDP` in saves and restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorPointers {
    /// They are saved and restored: Intel.
    Moved,
    /// They are restored; saved too while an unmasked x87 exception is pending, else zeros are written. AMD with
    /// CPUID.80000008H:EBX\[2\], as measured on Zen 3.
    ZeroedInMemory,
    /// They are neither saved nor restored, unless an unmasked x87 exception is pending: AMD before that, CVE-2006-1056. AMD APM,
    /// volume 2, "FXSAVE and FXRSTOR Instructions".
    LeftOut,
}

/// Which reserved bytes of a standard header a restore refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderCheck {
    /// Bytes 8 to 23, what Intel SDM, volume 1, "Standard Form of XRSTOR" names; AMD's Zen 3 too, as measured.
    Bytes8To23,
    /// All of bytes 8 to 63: the manual reserves them, and a later processor may look at them.
    Bytes8To63,
}

/// A processor.
#[derive(Debug)]
pub struct Model {
    /// What the tests call it.
    pub name: &'static str,
    /// Who made it.
    pub vendor: Vendor,
    /// CPUID.01H:EAX.
    pub signature: u32,
    /// CPUID.01H:ECX, without OSXSAVE, which follows `CR4`.
    pub leaf_1_ecx: u32,
    /// CPUID.(07H,0): EBX, ECX without OSPKE, EDX.
    pub leaf_7: [u32; 3],
    /// The highest basic leaf.
    pub max_leaf: u32,
    /// CPUID.80000008H:EBX.
    pub leaf_80000008_ebx: u32,
    /// CPUID.(0DH,1):EAX.
    pub extensions: u32,
    /// CPUID.(0DH,n) for n of 2 and more; 0 and 1 are there if any XSAVE is.
    pub components: &'static [Component],
    /// `MXCSR_MASK`.
    pub mxcsr_mask: u32,
    /// The kind of its init optimisation.
    pub in_use: InUse,
    /// Its modified optimisation.
    pub modified_optimisation: ModifiedOptimisation,
    /// Its treatment of the x87 pointers.
    pub error_pointers: ErrorPointers,
    /// What it refuses.
    pub header_check: HeaderCheck,
}

/// CPUID.01H:ECX.XSAVE. Intel SDM, volume 2A, "CPUID".
pub const ECX_XSAVE: u32 = 1 << 26;
pub(crate) const ECX_OSXSAVE: u32 = 1 << 27;
/// CPUID.01H:ECX.AVX.
pub const ECX_AVX: u32 = 1 << 28;
/// CPUID.(07H,0):EBX.AVX512F.
pub const EBX_AVX512F: u32 = 1 << 16;
/// CPUID.(07H,0):EBX.MPX.
pub const EBX_MPX: u32 = 1 << 14;
/// CPUID.(07H,0):ECX.PKU.
pub const ECX_PKU: u32 = 1 << 3;
const ECX_OSPKE: u32 = 1 << 4;
/// `CPUID.(07H,0):ECX.CET_SS`.
pub const ECX_CET_SS: u32 = 1 << 7;
/// CPUID.(07H,0):EDX.AMX-TILE.
pub const EDX_AMX_TILE: u32 = 1 << 24;
/// CPUID.(0DH,1):EAX.
pub const EAX_XSAVEOPT: u32 = 1 << 0;
/// XSAVEC, and the compacted form of XRSTOR.
pub const EAX_XSAVEC: u32 = 1 << 1;
/// XGETBV with ECX = 1.
pub const EAX_XGETBV1: u32 = 1 << 2;
/// XSAVES, XRSTORS and `IA32_XSS`.
pub const EAX_XSAVES: u32 = 1 << 3;
/// `IA32_XFD`.
pub const EAX_XFD: u32 = 1 << 4;
/// CPUID.80000008H:EBX, AMD APM, volume 3: the x87 pointers are always saved and restored.
pub const EBX_RSTR_FP_ERR_PTRS: u32 = 1 << 2;

/// The control registers that CPUID's answers follow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Controls {
    pub(crate) cr4: u64,
    pub(crate) xcr0: u64,
    pub(crate) xss: u64,
}

impl Model {
    /// Has it CPUID.01H:ECX.XSAVE?
    pub fn has_xsave(&self) -> bool {
        self.leaf_1_ecx & ECX_XSAVE != 0
    }

    /// The components that `XCR0` can enable.
    pub fn user_components(&self) -> u64 {
        self.sum(|component| component.flags & SUPERVISOR == 0)
            | if self.has_xsave() { 3 } else { 0 }
    }

    /// The components that `IA32_XSS` can enable.
    pub fn supervisor_components(&self) -> u64 {
        self.sum(|component| component.flags & SUPERVISOR != 0)
    }

    /// The components that CPUID describes of a bitmap.
    pub(crate) fn sum(&self, wanted: impl Fn(&Component) -> bool) -> u64 {
        self.components
            .iter()
            .filter(|component| wanted(component))
            .fold(0, |bits, component| bits | component.bit())
    }

    /// The component with that number.
    ///
    /// # Panics
    ///
    /// If CPUID does not describe it.
    pub fn component(&self, number: u32) -> &Component {
        let found = self
            .components
            .iter()
            .find(|component| component.number == number);
        found.unwrap_or_else(|| panic!("{} has no component {number}", self.name))
    }

    /// The length of an area in the standard format. Intel SDM, volume 1, "Standard Format".
    pub fn standard_bytes(&self, bitmap: u64) -> usize {
        self.selected(bitmap)
            .map(|component| component.offset + component.bytes)
            .fold(576, usize::max)
    }

    /// Where each component of a bitmap lies in the compacted format, and the area's length. Intel SDM, volume 1, "Compacted
    /// Format".
    pub fn compacted(&self, bitmap: u64) -> (Vec<(u32, usize)>, usize) {
        let mut end: usize = 576;
        let mut places = Vec::new();
        for component in self.selected(bitmap) {
            if component.flags & crate::component::ALIGNED != 0 {
                end = end.next_multiple_of(64);
            }
            places.push((component.number, end));
            end += component.bytes;
        }
        (places, end)
    }

    fn selected(&self, bitmap: u64) -> impl Iterator<Item = &Component> {
        self.components
            .iter()
            .filter(move |component| bitmap & component.bit() != 0)
    }

    /// CPUID. Intel SDM, volume 2A, "CPUID"; AMD APM, volume 3, "CPUID Specification".
    pub(crate) fn cpuid(&self, leaf: u32, subleaf: u32, controls: Controls) -> CpuidResult {
        let (eax, ebx, ecx, edx) = match leaf {
            0 => {
                let [ebx, edx, ecx] = self.vendor_words();
                (self.max_leaf, ebx, ecx, edx)
            }
            1 => {
                let enabled = self.has_xsave() && controls.cr4 & CR4_OSXSAVE != 0;
                let os = if enabled { ECX_OSXSAVE } else { 0 };
                // FXSR, SSE and SSE2, which every 64-bit processor has.
                (self.signature, 0, self.leaf_1_ecx | os, 1 | 7 << 24)
            }
            7 if subleaf == 0 && self.max_leaf >= 7 => {
                let [ebx, ecx, edx] = self.leaf_7;
                let is_keyed = ecx & ECX_PKU != 0 && controls.cr4 & CR4_PKE != 0;
                (0, ebx, ecx | if is_keyed { ECX_OSPKE } else { 0 }, edx)
            }
            0xd if self.max_leaf >= 0xd && self.has_xsave() => self.leaf_d(subleaf, controls),
            0x8000_0000 => {
                let [ebx, edx, ecx] = self.vendor_words();
                (0x8000_0008, ebx, ecx, edx)
            }
            0x8000_0008 => (0x3030, self.leaf_80000008_ebx, 0, 0),
            _ => (0, 0, 0, 0),
        };
        CpuidResult { eax, ebx, ecx, edx }
    }

    fn leaf_d(&self, subleaf: u32, controls: Controls) -> (u32, u32, u32, u32) {
        let (user, supervisor) = (self.user_components(), self.supervisor_components());
        match subleaf {
            0 => (
                low(user),
                word(self.standard_bytes(controls.xcr0)),
                word(self.standard_bytes(user)),
                high(user),
            ),
            1 => {
                let enabled = controls.xcr0 | controls.xss;
                let has_compaction = self.extensions & (EAX_XSAVEC | EAX_XSAVES) != 0;
                let bytes = if has_compaction {
                    self.compacted(enabled).1
                } else {
                    0
                };
                (
                    self.extensions,
                    word(bytes),
                    low(supervisor),
                    high(supervisor),
                )
            }
            _ => match self
                .components
                .iter()
                .find(|component| component.number == subleaf)
            {
                Some(c) => (word(c.bytes), word(c.offset), c.flags, 0),
                None => (0, 0, 0, 0),
            },
        }
    }

    fn vendor_words(&self) -> [u32; 3] {
        let name = match self.vendor {
            Vendor::Intel => b"GenuineIntel",
            Vendor::Amd => b"AuthenticAMD",
            Vendor::Hygon => b"HygonGenuine",
        };
        [0, 4, 8].map(|at| u32::from_le_bytes([name[at], name[at + 1], name[at + 2], name[at + 3]]))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is wanted"
)]
pub(crate) fn low(bitmap: u64) -> u32 {
    bitmap as u32
}

pub(crate) fn high(bitmap: u64) -> u32 {
    low(bitmap >> 32)
}

fn word(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("an area is a few KiB long")
}
