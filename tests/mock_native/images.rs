//! Images at random, and areas compared.

use std::ops::Range;

use fastrand::Rng;
use pcu9_mock::component::{SSE, X87};

use super::native::{AREA_BYTES, Area, Save, model, universe};

/// A mask of components, all of them at every second time.
pub(crate) fn mask(rng: &mut Rng) -> u64 {
    if rng.bool() {
        universe()
    } else {
        rng.u64(..) & universe()
    }
}

/// A good image in the standard format: any contents, some all zero, some absent.
pub(crate) fn random_image(rng: &mut Rng) -> Box<Area> {
    let mut area = Box::new(Area([0; AREA_BYTES]));
    rng.fill(&mut area.0);
    area.0[512..576].fill(0);
    // Addresses are canonical ones of user mode: what a processor makes of others is its own affair.
    for pointer in [8, 16] {
        let address = rng.u64(..) >> 17;
        area.set_long(pointer, address);
    }
    let mxcsr = rng.u32(..) & model().mxcsr_mask;
    area.0[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    if rng.u8(..4) == 0 {
        area.0[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
    }
    match rng.u8(..4) {
        // x87 as FNINIT leaves it, over registers with contents; and as it is initially.
        0 | 1 => {
            let kept = if rng.bool() { 6 } else { 24 };
            area.0[..kept].fill(0);
            area.0[..2].copy_from_slice(&0x037f_u16.to_le_bytes());
            if rng.bool() {
                area.0[32..160].fill(0);
            }
        }
        // Nothing is pending.
        2 => area.0[2] = 0,
        _ => {}
    }
    if rng.u8(..3) == 0 {
        area.0[160..416].fill(0);
    }
    let end = model().standard_bytes(universe());
    if rng.u8(..3) == 0 {
        area.0[576..end].fill(0);
    }
    area.set_long(512, rng.u64(..) & universe());
    if rng.bool() {
        area.set_long(512, universe());
    }
    area
}

/// The bytes of components that an optimising save may write or leave: those that are initial, on a processor that may not know it.
fn free_bytes(save: Save, rfbm: u64, firm: u64) -> Vec<Range<usize>> {
    if matches!(save, Save::Xsave | Save::Fxsave) {
        return Vec::new();
    }
    let compacted = save == Save::Xsavec;
    let mut free = Vec::new();
    if !firm & 1 != 0 {
        free.extend([0..24, 32..160]);
    }
    if !firm & 2 != 0 {
        // Compacted, MXCSR goes with SSE.
        free.extend([160..416, if compacted { 24..32 } else { 0..0 }]);
    }
    let places = model().compacted(rfbm).0;
    for component in model()
        .components
        .iter()
        .filter(|row| !firm & row.bit() != 0)
    {
        let place = places
            .iter()
            .find(|(number, _)| *number == component.number);
        let offset = match place {
            Some((_, place)) if compacted => *place,
            _ => component.offset,
        };
        free.push(offset..offset + component.bytes);
    }
    free
}

/// Are the areas the same? Of `XSTATE_BV` the bits in `firm` count, and an optimising save may leave out what the others stand for.
pub(crate) fn same(
    native: &Area,
    mock: &Area,
    save: Save,
    rfbm: u64,
    firm: u64,
) -> Result<(), String> {
    let has_header = save != Save::Fxsave;
    let free = free_bytes(save, rfbm, firm);
    let is_free = |at: usize| free.iter().any(|range| range.contains(&at));
    let differs = |at: &usize| native.0[*at] != mock.0[*at] && !is_free(*at);
    let bytes = (0..AREA_BYTES).filter(|at| !has_header || !(512..520).contains(at));
    if let Some(at) = bytes.into_iter().find(differs) {
        return Err(format!(
            "byte {at} is {:#x}, the mock's {:#x}",
            native.0[at], mock.0[at]
        ));
    }
    let (native, mock) = (native.long(512), mock.long(512));
    if has_header && (native ^ mock) & (firm | !rfbm) != 0 {
        return Err(format!("XSTATE_BV is {native:#x}, the mock's {mock:#x}"));
    }
    Ok(())
}

/// Is each component of the area as in one of the two, or, where the processor may not know that it is initial, as in `written`?
pub(crate) fn one_of(
    native: &Area,
    allowed: [&Area; 2],
    written: &Area,
    firm: u64,
) -> Result<(), String> {
    let components = model().components.iter();
    let extended = components
        .filter(|component| universe() & component.bit() != 0)
        .map(|component| {
            let range = component.offset..component.offset + component.bytes;
            (range, component.bit())
        });
    // MXCSR, software's bytes and the header are in no component that can be left out.
    let legacy = [
        (0..24, X87),
        (24..32, 0),
        (32..160, X87),
        (160..416, SSE),
        (416..512, 0),
        (520..576, 0),
    ];
    for (range, bit) in legacy.into_iter().chain(extended) {
        let is = |area: &Area| native.0[range.clone()] == area.0[range.clone()];
        let may_be_written = !firm & bit != 0;
        let is_right = allowed.into_iter().any(is) || may_be_written && is(written);
        if !is_right {
            return Err(format!("bytes {range:?} are as in no outcome"));
        }
    }
    let bits = native.long(512) & firm;
    if !allowed.iter().any(|area| area.long(512) & firm == bits) {
        return Err(format!("XSTATE_BV is {bits:#x}, as in neither outcome"));
    }
    Ok(())
}
