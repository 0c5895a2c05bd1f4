//! Is this CPU affected by `LazyFP` (CVE-2018-3665, INTEL-SA-00145, XSA-267): does it run on speculatively past `#NM`, over the
//! registers behind the closed gate?
//!
//! The list is Xen's (`should_use_eager_fpu` in `xen/arch/x86/spec_ctrl.c`, the code of XSA-267): among Intel's family 6 the
//! Atom and Knights models are not affected, the Core models from Nehalem on are, and what is not listed counts as affected.
//! Xen takes every other vendor for not affected; here that goes for AMD, whose statement to that effect Fiasco quotes in its
//! change to eager switching, and for Hygon, which builds AMD's cores. A vendor of whom nothing is known counts as affected.
//! `IA32_ARCH_CAPABILITIES` has no bit for it: `RDCL_NO` (Intel SDM, volume 4) is about Meltdown.

use super::machine::Native;
use super::model::CpuModel;
use crate::pcu::Policy;

/// What is known of this CPU and `LazyFP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LazyFp {
    /// Its vendor, or the list, says that it is not affected: `LeakRule::Trusting` leaks nothing by speculation.
    NotAffected,
    /// It is listed as affected.
    Affected,
    /// Nothing is known, so it is treated as affected.
    Unknown,
}

impl LazyFp {
    /// Asks CPUID. Under a hypervisor the answer is about the CPU that the guest is shown, and the guest may be moved.
    pub fn detect() -> Self {
        Self::of(&CpuModel::of::<Native>())
    }

    /// Must foreign registers be kept out of reach?
    pub const fn is_affected(self) -> bool {
        !matches!(self, Self::NotAffected)
    }

    /// The policy to begin with. Where foreign registers have to be saved and wiped at every switch between domains anyway,
    /// `Deferred` spares the trap as well; where they may stay, `Lazy` moves least while few LWPs use the FPU, and `Adaptive`
    /// finds out. The leak rule stays `DomainAware` on either, unless the kernel opts out.
    pub const fn recommended_policy(self) -> Policy {
        if self.is_affected() {
            Policy::Deferred
        } else {
            Policy::Adaptive
        }
    }

    fn of(cpu: &CpuModel) -> Self {
        match &cpu.vendor {
            b"AuthenticAMD" | b"HygonGenuine" => Self::NotAffected,
            b"GenuineIntel" if cpu.family == 6 => Self::of_intel_family_6(cpu.model),
            _ => Self::Unknown,
        }
    }

    fn of_intel_family_6(model: u32) -> Self {
        match model {
            // Nehalem, Westmere, Sandy Bridge, Ivy Bridge, Haswell, Broadwell, Skylake, Cannon Lake, Kaby Lake.
            0x1a | 0x1e | 0x1f | 0x25 | 0x2a | 0x2c | 0x2d | 0x2e | 0x2f | 0x3a | 0x3c | 0x3d
            | 0x3e | 0x3f | 0x45 | 0x46 | 0x47 | 0x4e | 0x4f | 0x55 | 0x56 | 0x5e | 0x66 | 0x67
            | 0x8e | 0x9e => Self::Affected,
            // Atom from Pineview to Gemini Lake; Knights Landing, Knights Mill.
            0x1c | 0x26 | 0x27 | 0x35 | 0x36 | 0x37 | 0x4a | 0x4c | 0x4d | 0x57 | 0x5a | 0x5c
            | 0x5f | 0x7a | 0x85 => Self::NotAffected,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendor_family_and_model_decide() {
        for (vendor, signature, expected) in [
            (b"AuthenticAMD", 0x00a2_0f12, LazyFp::NotAffected), // Zen 3
            (b"HygonGenuine", 0x0090_0f01, LazyFp::NotAffected), // Dhyana
            (b"GenuineIntel", 0x0004_06e3, LazyFp::Affected),    // Skylake M
            (b"GenuineIntel", 0x0003_06c3, LazyFp::Affected),    // Haswell
            (b"GenuineIntel", 0x0005_06c9, LazyFp::NotAffected), // Goldmont
            (b"GenuineIntel", 0x0005_0671, LazyFp::NotAffected), // Knights Landing
            (b"GenuineIntel", 0x0009_06a3, LazyFp::Unknown),     // Alder Lake: not in the list
            (b"GenuineIntel", 0x0000_0f4a, LazyFp::Unknown),     // family 15
            (b"CentaurHauls", 0x0000_06fe, LazyFp::Unknown),
        ] {
            let cpu = CpuModel::new(*vendor, signature);
            assert_eq!(LazyFp::of(&cpu), expected, "{signature:#x}");
        }
    }

    #[test]
    fn unknown_counts_as_affected_and_the_recommendation_follows() {
        assert!(LazyFp::Unknown.is_affected() && LazyFp::Affected.is_affected());
        assert_eq!(LazyFp::Unknown.recommended_policy(), Policy::Deferred);
        assert_eq!(LazyFp::NotAffected.recommended_policy(), Policy::Adaptive);
        assert_eq!(LazyFp::detect(), LazyFp::detect());
    }
}
