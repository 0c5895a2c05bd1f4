//! Where the components lie in an image, by CPUID leaf 0DH of this processor. Intel SDM, volume 1, "Enumeration of CPU Support for
//! XSAVE Instructions and XSAVE-Supported Features".

use core::arch::x86_64::CpuidResult;
use core::ops::Range;

use static_assertions::const_assert_eq;

use super::Format;
use super::detect::{AVX, AVX512};
use super::image::LEGACY_AND_HEADER;

/// CPUID.(0DH,component):ECX: in the compacted format the component begins at a multiple of 64.
const ECX_ALIGNED: u32 = 1 << 1;

/// Where a component behind the header lies in each format, as this processor's CPUID says: other vendors' offsets differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extended {
    pub(super) bit: u64,
    pub(super) bytes: usize,
    standard: usize,
    /// In an image that has all components of `XCR0`, which every area has.
    compacted: usize,
}

/// AVX, and the three of AVX-512: no other is ever in `XCR0`.
pub(super) const N_EXTENDED: usize = 4;
const_assert_eq!((AVX | AVX512).count_ones(), 4);

impl Extended {
    pub(super) const NONE: Self = Self {
        bit: 0,
        bytes: 0,
        standard: 0,
        compacted: 0,
    };

    pub(super) fn find(
        cpuid: impl Fn(u32, u32) -> CpuidResult + Copy,
        mask: u64,
        number: u32,
    ) -> Self {
        let leaf = cpuid(0xd, number);
        let up_to_here = mask & (u64::MAX >> (63 - number));
        Self {
            bit: 1 << number,
            bytes: leaf.eax as usize,
            standard: leaf.ebx as usize,
            compacted: compacted_bytes(cpuid, up_to_here) - leaf.eax as usize,
        }
    }

    /// Its bytes in an image of `format`; FXSAVE's has none of it.
    pub(super) const fn range(&self, format: Format) -> Range<usize> {
        let begin = match format {
            Format::Legacy => return 0..0,
            Format::Standard => self.standard,
            Format::Compacted => self.compacted,
        };
        begin..begin + self.bytes
    }
}

/// The components of `mask` behind the legacy region and the header.
pub(super) fn numbers(mask: u64) -> impl Iterator<Item = u32> {
    (2..63).filter(move |component| mask & 1 << component != 0)
}

/// Where the last component of `mask` ends in the standard format: CPUID.(0DH,component), EBX its offset, EAX its size.
pub(super) fn standard_bytes(cpuid: impl Fn(u32, u32) -> CpuidResult, mask: u64) -> usize {
    numbers(mask)
        .map(|component| cpuid(0xd, component))
        .map(|leaf| leaf.ebx as usize + leaf.eax as usize)
        .fold(LEGACY_AND_HEADER, usize::max)
}

/// The same in the compacted format, where each begins at the end of the one before, or at the next multiple of 64.
pub(super) fn compacted_bytes(cpuid: impl Fn(u32, u32) -> CpuidResult, mask: u64) -> usize {
    numbers(mask)
        .map(|component| cpuid(0xd, component))
        .fold(LEGACY_AND_HEADER, |end, leaf| {
            let is_aligned = leaf.ecx & ECX_ALIGNED != 0;
            let begin = if is_aligned {
                end.next_multiple_of(64)
            } else {
                end
            };
            begin + leaf.eax as usize
        })
}
