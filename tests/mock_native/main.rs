//! The mock processor against the machine that the test runs on: the same instructions on the same areas, byte for byte.
//!
//! The manuals leave a processor some freedom. What is used of it here is found by CPUID (the x87 pointers), by the vendor (how a
//! component in use is told: where it is not by content, components that are initial may be written or not), or both of two
//! outcomes are right (what the modified optimisation leaves out). What is not compared: PKRU, which would lock the test out of its
//! memory, and what only ring 0 can move (XSAVES, `IA32_XFD`, TS).

#![cfg(target_arch = "x86_64")]

mod faults;
mod images;
mod native;

use std::ptr::NonNull;
use std::sync::OnceLock;

use fastrand::Rng;
use pcu9::x86_64::machine::Machine;
use pcu9_mock::component::{AVX, SSE, X87};
use pcu9_mock::{
    CR4_OSFXSR, CR4_OSXSAVE, Cpu, EAX_XSAVEC, EAX_XSAVEOPT, ECX_AVX, InUse, Mock, Model,
    ModifiedOptimisation, Registers,
};

use images::{mask, random_image};
use native::{Area, Change, Run, Save, execute, model, universe};

/// How many runs each instruction is compared in.
const RUNS: u64 = 2000;

/// A mock in user mode, with what the machine's kernel enables.
fn power_on(model: &'static Model) {
    Mock::power_on(model, 1);
    Mock::with(|cpu| {
        cpu.cr4 |= CR4_OSFXSR | CR4_OSXSAVE;
        cpu.xcr0 = universe();
        cpu.cpl = 3;
        cpu.registers = Registers::initial(model);
    });
}

/// The same run on the mock.
fn execute_on_mock(model: &'static Model, run: &mut Run<'_>) -> Option<u64> {
    power_on(model);
    let mut initial = Area::initial();
    let second = run.second.0.pointer();
    let into = run.into.as_mut().map_or(second, |area| area.pointer());
    restore(initial.pointer(), universe());
    restore(run.first.0.pointer(), run.first.1);
    restore(second, run.second.1);
    match run.change {
        Change::Nothing => {}
        Change::Fninit => Mock::with(Cpu::fninit).unwrap(),
        // SAFETY: a mock has nobody's registers.
        Change::Vzeroall => unsafe { Mock::zero_vectors(Mock::with(|cpu| cpu.registers.mxcsr)) },
        // SAFETY: an area is long enough.
        Change::Fxrstor => unsafe { Mock::fxrstor(second) }.unwrap(),
        Change::Ldmxcsr => Mock::with(|cpu| cpu.ldmxcsr(0x9fc0)).unwrap(),
    }
    let has_xgetbv1 = model.extensions & pcu9_mock::EAX_XGETBV1 != 0;
    // SAFETY: CPUID shows it.
    let in_use = has_xgetbv1.then(|| unsafe { Mock::xinuse() });
    match run.save {
        // SAFETY: an area is long enough.
        Save::Xsave => unsafe { Mock::xsave(into, run.rfbm) },
        // SAFETY: as above.
        Save::Xsaveopt => unsafe { Mock::xsaveopt(into, run.rfbm) },
        // SAFETY: as above.
        Save::Xsavec => unsafe { Mock::xsavec(into, run.rfbm) },
        // SAFETY: as above.
        Save::Fxsave => unsafe { Mock::fxsave(into) },
    }
    in_use
}

fn restore(area: NonNull<u8>, rfbm: u64) {
    // SAFETY: an area is long enough.
    unsafe { Mock::xrstor(area, rfbm) }.expect("an image that the test made is good");
}

/// Can the machine do it?
fn is_there(save: Save, change: Change) -> bool {
    let extension = match save {
        Save::Xsave | Save::Fxsave => 0,
        Save::Xsaveopt => EAX_XSAVEOPT,
        Save::Xsavec => EAX_XSAVEC,
    };
    let has_avx = model().leaf_1_ecx & ECX_AVX != 0 && universe() & AVX != 0;
    model().extensions & extension == extension && (change != Change::Vzeroall || has_avx)
}

/// What may differ where the processor tells a component in use by history: the bit of one that is initial. Returns the bits of
/// `XSTATE_BV` that must agree.
fn firm_bits(model: &Model) -> u64 {
    match model.in_use {
        InUse::ByContent => u64::MAX,
        InUse::ByHistory => Mock::with(|cpu| cpu.registers.not_initial()),
    }
}

fn compare(save: Save) {
    if !is_there(save, Change::Nothing) {
        not_run(&format!("{save:?}: this machine does not have it"));
        return;
    }
    let mut seen = [0_u32; 5];
    for seed in 0..RUNS {
        let mut rng = Rng::with_seed(seed);
        let changes = [
            Change::Nothing,
            Change::Fninit,
            Change::Vzeroall,
            Change::Fxrstor,
            Change::Ldmxcsr,
        ];
        let change = changes[rng.usize(..changes.len())];
        if is_there(save, change) {
            seen[change as usize] += 1;
            undisturbed(|| compare_once(save, change, &mut rng.clone()), seed);
        }
    }
    assert!(
        seen.iter().filter(|count| **count > 100).count() >= 4,
        "{seen:?}"
    );
}

/// An interrupt between restore and save lets the machine's kernel save and restore the registers in its own way, after which
/// other components count as in use. It hits one run in thousands, so a difference is one that comes again.
fn undisturbed(run: impl Fn() -> Result<(), String>, seed: u64) {
    let mut results = (0..5).map(|_| run());
    let first = results.next().expect("five runs");
    if let Err(difference) = first
        && results.all(|result| result.is_err())
    {
        panic!("seed {seed}: {difference}");
    }
}

fn compare_once(save: Save, change: Change, rng: &mut Rng) -> Result<(), String> {
    let mut first = random_image(rng);
    let mut second = random_image(rng);
    let (r1, r2, rfbm) = (mask(rng), mask(rng), mask(rng));
    let mut poisoned = random_image(rng);
    rng.fill(&mut poisoned.0[..512]);
    rng.fill(&mut poisoned.0[576..]);
    let mut modelled = poisoned.clone();
    let natively = execute(&mut Run {
        first: (&mut first, r1),
        second: (&mut second, r2),
        change,
        save,
        into: Some(&mut poisoned),
        rfbm,
    });
    let on_mock = execute_on_mock(
        model(),
        &mut Run {
            first: (&mut first, r1),
            second: (&mut second, r2),
            change,
            save,
            into: Some(&mut modelled),
            rfbm,
        },
    );
    let firm = firm_bits(model());
    let what = format!("{save:?} of {rfbm:#x} after {r1:#x}, {r2:#x}, {change:?}");
    if natively.map(|bits| bits & universe() & firm) != on_mock.map(|bits| bits & firm) {
        return Err(format!(
            "XGETBV(1) {natively:x?}, the mock {on_mock:x?}; {what}"
        ));
    }
    images::same(&poisoned, &modelled, save, rfbm, firm)
        .map_err(|difference| format!("{difference}; {what}"))
}

#[test]
fn xsave_writes_the_same_bytes() {
    compare(Save::Xsave);
}

#[test]
fn xsaveopt_writes_the_same_bytes() {
    compare(Save::Xsaveopt);
}

#[test]
fn xsavec_writes_the_same_bytes() {
    compare(Save::Xsavec);
}

#[test]
fn fxsave_writes_the_same_bytes() {
    compare(Save::Fxsave);
}

/// XSAVEOPT into the area that the registers came from: each component is written, or left as the restore found it, and which of
/// the two is the processor's choice; so is whether one that is initial is written, where use is told by history.
#[test]
fn xsaveopt_into_its_own_area_leaves_out_only_what_the_model_may_leave_out() {
    static FULL: OnceLock<Model> = OnceLock::new();
    if !is_there(Save::Xsaveopt, Change::Nothing) {
        not_run("XSAVEOPT into its own area: this machine does not have it");
        return;
    }
    let full = FULL.get_or_init(|| Model {
        name: "this machine, with the modified optimisation",
        modified_optimisation: ModifiedOptimisation::Full,
        ..*model()
    });
    for seed in 0..RUNS {
        let rng = Rng::with_seed(seed);
        undisturbed(|| optimise_once(full, &mut rng.clone()), seed);
    }
}

fn optimise_once(full: &'static Model, rng: &mut Rng) -> Result<(), String> {
    let mut first = random_image(rng);
    let second = random_image(rng);
    let (r1, r2, rfbm) = (mask(rng), mask(rng), mask(rng));
    let change = [Change::Nothing, Change::Fninit, Change::Ldmxcsr][rng.usize(..3)];
    let mut outcome = [(); 4].map(|()| second.clone());
    for (at, second) in outcome.iter_mut().enumerate() {
        let mut run = Run {
            first: (&mut first, r1),
            second: (second, r2),
            change,
            save: Save::Xsaveopt,
            into: None,
            rfbm,
        };
        match at {
            0 => execute(&mut run),
            1 => execute_on_mock(model(), &mut run),
            2 => execute_on_mock(full, &mut run),
            _ => {
                run.save = Save::Xsave;
                execute_on_mock(model(), &mut run)
            }
        };
    }
    let [native, whole, optimised, written] = &outcome;
    images::one_of(native, [whole, optimised], written, firm_bits(model()))
        .map_err(|difference| format!("{difference}; {rfbm:#x} after {r1:#x}, {r2:#x}, {change:?}"))
}

/// The model's arithmetic of sizes is CPUID's.
#[test]
fn sizes_are_as_cpuid_says() {
    power_on(model());
    // SAFETY: `model` has found CR4.OSXSAVE set.
    let xcr0 = unsafe { std::arch::x86_64::_xgetbv(0) };
    Mock::with(|cpu| cpu.xcr0 = xcr0);
    for subleaf in [0, 2, 5, 6, 7, 9, 17, 18] {
        let (native, modelled) = (
            std::arch::x86_64::__cpuid_count(0xd, subleaf),
            Mock::cpuid(0xd, subleaf),
        );
        assert_eq!(
            (native.eax, native.ebx, native.ecx),
            (modelled.eax, modelled.ebx, modelled.ecx),
            "leaf 0DH, {subleaf}"
        );
    }
    // CPUID.(0DH,1):EBX follows IA32_XSS too, which user mode cannot read: one of its values fits.
    let native = std::arch::x86_64::__cpuid_count(0xd, 1);
    let supervisor = u64::from(native.ecx) | u64::from(native.edx) << 32;
    let mut subset = 0_u64;
    let fits = loop {
        Mock::with(|cpu| cpu.xss = subset);
        if Mock::cpuid(0xd, 1).ebx == native.ebx {
            break true;
        }
        subset = subset.wrapping_sub(supervisor) & supervisor;
        if subset == 0 {
            break false;
        }
    };
    assert!(fits, "{:#x} bytes compacted", native.ebx);
    assert_eq!(xcr0 & (X87 | SSE), X87 | SSE);
}

/// Says so past libtest, which shows what a passed test prints to nobody.
fn not_run(what: &str) {
    use std::io::Write;
    let line = format!("NOT RUN: mock_native: {what}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}
