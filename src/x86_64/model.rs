//! Which processor this is: what lists of vendors, families and models go by.

use super::machine::Machine;

/// A processor's vendor, family and model. Intel SDM, volume 2A, "CPUID", "Version Information Returned by CPUID in EAX"; AMD
/// APM, volume 3, "CPUID `Fn0000_0001_EAX` Family, Model, Stepping Identifiers".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CpuModel {
    pub(super) vendor: [u8; 12],
    pub(super) family: u32,
    pub(super) model: u32,
}

impl CpuModel {
    /// Asks CPUID. Under a hypervisor the answer is about the CPU that the guest is shown, and the guest may be moved.
    pub(super) fn of<M: Machine>() -> Self {
        Self::from_cpuid(M::cpuid)
    }

    pub(super) fn from_cpuid(cpuid: impl Fn(u32, u32) -> core::arch::x86_64::CpuidResult) -> Self {
        let leaf = cpuid(0, 0);
        let mut vendor = [0; 12];
        for (bytes, register) in vendor
            .chunks_exact_mut(4)
            .zip([leaf.ebx, leaf.edx, leaf.ecx])
        {
            bytes.copy_from_slice(&register.to_le_bytes());
        }
        let signature = if leaf.eax >= 1 { cpuid(1, 0).eax } else { 0 };
        Self::new(vendor, signature)
    }

    /// Decodes (1).EAX: family 15 is extended by one more byte, and the models of families 6 and 15 by four more bits.
    pub(super) fn new(vendor: [u8; 12], signature: u32) -> Self {
        let (model, family) = (signature >> 4 & 0xf, signature >> 8 & 0xf);
        let is_extended = family == 6 || family == 15;
        Self {
            vendor,
            family: family
                + if family == 15 {
                    signature >> 20 & 0xff
                } else {
                    0
                },
            model: model
                | if is_extended {
                    signature >> 12 & 0xf0
                } else {
                    0
                },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CpuModel;

    #[test]
    fn family_and_model_are_extended_where_the_manuals_say() {
        for (signature, family, model) in [
            (0x00a0_0f11, 0x19, 0x01), // AMD Milan, the machine that this was written on
            (0x0080_0f82, 0x17, 0x08), // AMD Zen+
            (0x0003_06c3, 0x06, 0x3c), // Intel Haswell
            (0x0000_0f4a, 0x0f, 0x04), // Intel Pentium 4
            (0x0010_0543, 0x05, 0x04), // extended bits that family 5 does not have
        ] {
            let cpu = CpuModel::new(*b"GenuineIntel", signature);
            assert_eq!((cpu.family, cpu.model), (family, model), "{signature:#x}");
        }
    }
}
