//! The machine that the tests run on, as a model.

use std::arch::x86_64::{__cpuid, __cpuid_count, _fxsave64};
use std::sync::OnceLock;

use crate::component::Component;
use crate::model::{
    EBX_RSTR_FP_ERR_PTRS, ECX_XSAVE, ErrorPointers, HeaderCheck, InUse, Model,
    ModifiedOptimisation, Vendor,
};

/// A model of this machine: CPUID as it is, the manuals' choices as they were found by trying.
///
/// # Panics
///
/// If it has no XSAVE.
pub fn this_machine() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| {
        let basic = __cpuid(1);
        assert!(
            basic.ecx & ECX_XSAVE != 0 && basic.ecx & 1 << 27 != 0,
            "this machine has no XSAVE, or its kernel has not enabled it: nothing to compare the model with"
        );
        let name = __cpuid(0);
        let vendor = match &name.ebx.to_le_bytes() {
            b"Genu" => Vendor::Intel,
            b"Hygo" => Vendor::Hygon,
            _ => Vendor::Amd,
        };
        let extended = __cpuid(0x8000_0008).ebx;
        let error_pointers = match vendor {
            Vendor::Intel => ErrorPointers::Moved,
            _ if extended & EBX_RSTR_FP_ERR_PTRS != 0 => ErrorPointers::ZeroedInMemory,
            _ => ErrorPointers::LeftOut,
        };
        let seven = __cpuid_count(7, 0);
        Model {
            name: "this machine",
            vendor,
            signature: basic.eax,
            leaf_1_ecx: basic.ecx & !(1 << 27),
            leaf_7: [seven.ebx, seven.ecx, seven.edx],
            max_leaf: name.eax,
            leaf_80000008_ebx: extended,
            extensions: __cpuid_count(0xd, 1).eax,
            components: components(),
            mxcsr_mask: mxcsr_mask(),
            in_use: if vendor == Vendor::Intel {
                InUse::ByHistory
            } else {
                InUse::ByContent
            },
            modified_optimisation: ModifiedOptimisation::Absent,
            error_pointers,
            header_check: HeaderCheck::Bytes8To23,
        }
    })
}

fn components() -> &'static [Component] {
    let rows = (2..63).filter_map(|number| {
        let row = __cpuid_count(0xd, number);
        (row.eax != 0).then_some(Component {
            number,
            bytes: row.eax as usize,
            offset: row.ebx as usize,
            flags: row.ecx,
        })
    });
    Box::leak(rows.collect())
}

fn mxcsr_mask() -> u32 {
    let mut area = [0_u128; 32];
    // SAFETY: 512 bytes at a multiple of 16; FXSAVE changes no register.
    unsafe { _fxsave64(area.as_mut_ptr().cast()) };
    let bytes = area[1].to_le_bytes();
    u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]])
}
