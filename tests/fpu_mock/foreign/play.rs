//! What is done with an image, and what must hold then, wherever it comes from: the tests of this folder, or the fuzzer
//! (`qemu/fuzz`).

use std::ptr::NonNull;

use fastrand::Rng;
use pcu9::kernel::Held;
use pcu9::pcu::Validity;
use pcu9::x86_64::fpu::foreign::{Form, Snapshot, StoreError, UserImage};
use pcu9::x86_64::fpu::{FPU, FpuFeatures};
use pcu9::x86_64::machine::Machine;
use pcu9_mock::component::{Component, SSE, X87};
use pcu9_mock::{CR0_TS, Cpu, Fault, Mock, Model, Registers};

use crate::contents::{fill, random_x87};
use crate::world::{UNITS, World};

pub(crate) const FORMS: [Form; 2] = [Form::Regset, Form::SignalFrame];

/// The components that the unit moves on this model.
pub(crate) fn components() -> u64 {
    match FpuFeatures::of::<Mock>().xcr0() {
        0 => X87 | SSE,
        xcr0 => xcr0,
    }
}

/// A program leaves random contents in the components of a bitmap and touches no other; `MXCSR` goes with SSE here.
pub(crate) fn compute_in(cpu: &mut Cpu, components: u64, rng: &mut Rng) -> Result<(), Fault> {
    if components & X87 != 0 {
        cpu.write_x87(random_x87(rng))?;
    }
    if components & SSE != 0 {
        let mut xmm = [0; 256];
        rng.fill(&mut xmm);
        cpu.write_xmm(xmm)?;
        cpu.ldmxcsr(rng.u32(..) & cpu.model().mxcsr_mask)?;
    }
    for component in cpu.model().components {
        if components & component.bit() != 0 {
            let mut bytes = vec![0; component.bytes];
            rng.fill(&mut bytes);
            cpu.write_extended(component.number, &bytes)?;
        }
    }
    Ok(())
}

/// Eight bytes of an image, 0 behind its end.
pub(crate) fn long(image: &[u8], at: usize) -> u64 {
    let chunk = image.get(at..).and_then(<[u8]>::first_chunk);
    chunk.map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// Four bytes of an image, 0 behind its end.
pub(crate) fn word(image: &[u8], at: usize) -> u32 {
    let chunk = image.get(at..).and_then(<[u8]>::first_chunk);
    chunk.map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

/// `MXCSR` of an image.
pub(crate) fn mxcsr(image: &[u8]) -> u32 {
    word(image, 24)
}

/// The same bytes, or `what` is wrong at one of them.
fn same(left: &[u8], right: &[u8], what: &str) {
    // Compared at once: where coverage is traced, each comparison is.
    if left != right {
        let at = left.iter().zip(right).position(|(a, b)| a != b);
        let at = at.unwrap_or(left.len().min(right.len()));
        panic!("byte {at}: {what}");
    }
}

/// What a signal handler is shown, of the LWP that is current on CPU 0.
pub(crate) fn export(world: &World<Mock>, form: Form) -> Vec<u8> {
    let lwp = world.current_on(0).expect("somebody runs there");
    export_of(world, lwp, &mut world.current(0), form)
}

/// What a debugger is shown of an LWP that it holds.
pub(crate) fn export_of(
    world: &World<Mock>,
    lwp: usize,
    held: &mut impl Held<World<Mock>, UNITS>,
    form: Form,
) -> Vec<u8> {
    let snapshot = match world.pcu.inspect(held, FPU).unwrap() {
        Validity::Invalid => Snapshot::<Mock>::initial(),
        // SAFETY: the area of an LWP that does not run before the export is done.
        Validity::Valid => unsafe { Snapshot::of_area(world.lwp(lwp).area()) },
    };
    let bytes = form.bytes_on::<Mock>();
    // Whatever lay in the buffer, nothing of it is left, and nothing behind the image is touched.
    let [image, other] = [0x5a, 0xa5].map(|poison| {
        let mut buffer = vec![poison; bytes + 64];
        assert_eq!(snapshot.export(form, &mut buffer), Ok(bytes));
        assert_eq!(buffer.split_off(bytes), [poison; 64]);
        buffer
    });
    same(&image, &other, "nobody wrote it to the image");
    image
}

/// What sigreturn does with a good image: the LWP that is current on CPU 0 gets it.
pub(crate) fn import(world: &World<Mock>, image: &UserImage<'_, Mock>) -> Result<(), StoreError> {
    let lwp = world.current_on(0).expect("somebody runs there");
    import_into(world, lwp, &mut world.current(0), image)
}

/// What a debugger does with a good image for an LWP that it holds. Whatever lay in the area, nothing of it is left.
pub(crate) fn import_into(
    world: &World<Mock>,
    lwp: usize,
    held: &mut impl Held<World<Mock>, UNITS>,
    image: &UserImage<'_, Mock>,
) -> Result<(), StoreError> {
    let lwp = world.lwp(lwp);
    let length = lwp.bytes().len();
    let mut store = |poison: u8| {
        world.pcu.replace(held, FPU, |replacing| {
            lwp.write(0, &vec![poison; length]);
            image.store(replacing)
        })?;
        Ok::<_, StoreError>(lwp.bytes())
    };
    let (area, other) = (store(0x5a)?, store(0xa5)?);
    same(&area, &other, "nobody wrote it to the area");
    Ok(())
}

/// May a kernel take this image? Once more what Intel's manual and Linux say, over the model's own numbers.
fn is_good(model: &Model, form: Form, image: &[u8], permitted: u64) -> bool {
    if mxcsr(image) & !model.mxcsr_mask != 0 {
        return false;
    }
    let size = if model.has_xsave() {
        model.standard_bytes(components())
    } else {
        512
    };
    let (named, magic) = (long(image, 512), |at| word(image, at));
    match form {
        Form::Regset if image.len() != size => return false,
        Form::SignalFrame if image.len() < 512 => return false,
        _ if !model.has_xsave() => return true,
        Form::Regset => {}
        Form::SignalFrame if magic(464) == 0 => return true,
        Form::SignalFrame => {
            let (claimed, extended) = (magic(480) as usize, magic(468) as usize);
            let is_cut = |component: &Component| {
                named & components() & component.bit() != 0
                    && component.offset + component.bytes > claimed
            };
            let are_sizes_good = (576..=size).contains(&claimed) && extended >= claimed + 4;
            if magic(464) != 0x4650_5853 || !are_sizes_good || magic(claimed) != 0x4650_5845 {
                return false;
            }
            if model.components.iter().any(is_cut) {
                return false;
            }
        }
    }
    named & !((permitted | X87 | SSE) & components()) == 0
        && image[520..576].iter().all(|byte| *byte == 0)
}

/// As long as any image, at a multiple of 64.
#[repr(align(64))]
struct Aligned([u8; 4096]);

/// What CPU 1's registers are when they are restored from the image itself, as Linux does it with a signal frame.
fn judge(world: &World<Mock>, form: Form, image: &[u8]) -> Registers {
    let mut aligned = Aligned([0; 4096]);
    let claimed = match form {
        _ if !world.model.has_xsave() => 512,
        Form::SignalFrame if word(image, 464) == 0 => 512,
        Form::SignalFrame => word(image, 480) as usize,
        Form::Regset => image.len(),
    };
    let n = claimed.min(image.len());
    aligned.0[..n].copy_from_slice(&image[..n]);
    let area = NonNull::from(&mut aligned).cast();
    let is_legacy = !world.model.has_xsave() || n == 512;
    let rfbm = match form {
        Form::SignalFrame => long(image, 472),
        Form::Regset => u64::MAX,
    };
    world.go_to(1);
    Mock::with(|cpu| {
        cpu.cr0 &= !CR0_TS;
        cpu.registers = Registers::initial(cpu.model());
    });
    let result = if is_legacy {
        // SAFETY: so many bytes, aligned.
        unsafe { Mock::fxrstor(area) }
    } else {
        // SAFETY: as above.
        unsafe { Mock::xrstor(area, rfbm & FpuFeatures::of::<Mock>().xcr0()) }
    };
    let registers = Mock::with(|cpu| {
        cpu.cr0 |= CR0_TS;
        cpu.registers.clone()
    });
    world.go_to(0);
    assert_eq!(
        result,
        Ok(()),
        "the processor refuses what {form:?} accepted"
    );
    registers
}

/// The two forms of a state are the same image, but for what is software's, and `XSTATE_BV` where Linux names two more.
fn one_state([regset, frame]: &[Vec<u8>; 2]) {
    let n = regset.len();
    let legacy = n.min(464);
    same(&regset[..legacy], &frame[..legacy], "the forms differ");
    if n > 512 {
        same(&regset[520..], &frame[520..n], "the forms differ");
        assert_eq!(long(regset, 512) | X87 | SSE, long(frame, 512), "XSTATE_BV");
    }
}

/// The LWP starts over, and computes nothing: of what its area holds from before, which an optimising save does not write over,
/// nothing is shown.
fn start_over(world: &World<Mock>) {
    world.forget(0);
    assert_eq!(world.compute(0, Cpu::fninit), Ok(()), "a good program");
    world.switch(0, Some(1));
    world.switch(0, Some(0));
    for form in FORMS {
        let mut image = export(world, form);
        let mut initial = vec![0; image.len()];
        let snapshot = Snapshot::<Mock>::initial();
        assert_eq!(snapshot.export(form, &mut initial), Ok(image.len()));
        if image.len() > 512 {
            image[512..520].copy_from_slice(&initial[512..520]);
        }
        same(&image, &initial, "an older state is shown");
    }
}

/// Does with the bytes what a kernel does with a signal frame, or a debugger's register set, whose LWP may use `permitted`; LWP 0
/// is current on CPU 0. `None` if they are refused, which must be just and change nothing. What is accepted does not fault, is what
/// the processor itself takes the bytes for, and is the same after every way to memory and back. Gives it as it is exported, in
/// each of [`FORMS`].
pub(crate) fn play(
    world: &World<Mock>,
    form: Form,
    image: &[u8],
    permitted: u64,
) -> Option<[Vec<u8>; 2]> {
    world.forget(0);
    let begun = world.compute(0, |cpu| fill(cpu, 0x3c));
    assert_eq!(begun, Ok(()), "a good program");
    let checked = UserImage::<Mock>::check(form, image, permitted);
    let is_good = is_good(world.model, form, image, permitted);
    assert_eq!(
        checked.is_ok(),
        is_good,
        "{}, {form:?}, {permitted:#x} permitted: {checked:?}",
        world.model.name
    );
    let works = |what: &str| assert_eq!(world.compute(0, |_| Ok(())), Ok(()), "{what}");
    let Ok(checked) = checked else {
        works("a refused image");
        return None;
    };
    let registers = judge(world, form, image);
    assert_eq!(import(world, &checked), Ok(()));
    world.note(0, registers.clone());
    let exported = FORMS.map(|form| export(world, form));
    let beyond = long(&exported[0], 512) & !(permitted | X87 | SSE);
    assert_eq!(beyond, 0, "components that are not permitted");
    one_state(&exported);
    works("an accepted image");
    world.switch(0, Some(1));
    world.switch(0, Some(0));
    works("its registers, saved and restored");
    for (form, image) in FORMS.iter().zip(&exported) {
        let again = UserImage::<Mock>::check(*form, image, permitted);
        let again = again.expect("what was exported is good");
        assert_eq!(import(world, &again), Ok(()));
        world.note(0, registers.clone());
        same(&export(world, *form), image, "stored, and exported again");
        works("what was exported");
    }
    start_over(world);
    world.check_end();
    Some(exported)
}
