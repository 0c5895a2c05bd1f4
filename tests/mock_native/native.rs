//! The machine that the test runs on: its instructions.

use std::arch::asm;
use std::arch::x86_64::_xgetbv;
use std::ptr::NonNull;

use pcu9_mock::EAX_XGETBV1;
use pcu9_mock::component::{AVX, AVX512, SSE, X87};
pub(crate) use pcu9_mock::models::this_machine as model;

/// Long enough for the components that are compared.
pub(crate) const AREA_BYTES: usize = 4096;

/// An area of either format.
#[derive(Clone)]
#[repr(C, align(64))]
pub(crate) struct Area(pub(crate) [u8; AREA_BYTES]);

impl Area {
    /// One whose header says that every component is initial.
    pub(crate) fn initial() -> Box<Self> {
        let mut area = Box::new(Self([0; AREA_BYTES]));
        area.0[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        area
    }

    pub(crate) fn pointer(&mut self) -> NonNull<u8> {
        NonNull::from(&mut self.0).cast()
    }

    pub(crate) fn set_long(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn long(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap())
    }
}

/// The saves that user mode can execute, by the number that [`execute`] knows them by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Save {
    Xsave = 0,
    Xsaveopt = 1,
    Xsavec = 2,
    Fxsave = 3,
}

/// What is done to the registers between restore and save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Change {
    Nothing = 0,
    Fninit = 1,
    Vzeroall = 2,
    /// FXRSTOR from the second image.
    Fxrstor = 3,
    /// LDMXCSR with 0x9fc0.
    Ldmxcsr = 4,
}

/// One run: restore all components to their initial state, then two images, change something, save.
pub(crate) struct Run<'a> {
    pub(crate) first: (&'a mut Area, u64),
    pub(crate) second: (&'a mut Area, u64),
    pub(crate) change: Change,
    pub(crate) save: Save,
    /// `None`: back to the second image's area.
    pub(crate) into: Option<&'a mut Area>,
    pub(crate) rfbm: u64,
}

/// The components that a test may fill with anything: not PKRU, which would lock the test out of its own memory, and not what
/// only the kernel moves.
pub(crate) fn universe() -> u64 {
    // SAFETY: `model` has found CR4.OSXSAVE set.
    let xcr0 = unsafe { _xgetbv(0) };
    xcr0 & (X87 | SSE | AVX | AVX512)
}

/// Executes a run and gives XGETBV's answer with ECX = 1 before the save, if there is one.
pub(crate) fn execute(run: &mut Run<'_>) -> Option<u64> {
    let mut initial = Area::initial();
    let low = |mask: u64| u32::try_from(mask).unwrap();
    let second = run.second.0.pointer();
    let into = run.into.as_mut().map_or(second, |area| area.pointer());
    let has_xgetbv1 = model().extensions & EAX_XGETBV1 != 0;
    let mxcsr = [0x1f80_u32, 0x9fc0];
    let block = [
        initial.pointer().as_ptr() as u64,
        run.first.0.pointer().as_ptr() as u64,
        second.as_ptr() as u64,
        into.as_ptr() as u64,
        mxcsr.as_ptr() as u64,
        universe(),
        u64::from(low(run.first.1)),
        u64::from(low(run.second.1)),
        u64::from(low(run.rfbm)),
        u64::from(has_xgetbv1),
    ];
    let mut in_use: u64 = 0;
    // SAFETY: the areas are as long as any image; the clobbers name all registers that the images hold, x87's control word and
    // MXCSR are put back at the end.
    unsafe {
        asm!(
            "xor edx, edx",
            "mov rsi, [r12]",
            "mov eax, [r12 + 40]",
            "xrstor64 [rsi]",
            "mov rsi, [r12 + 8]",
            "mov eax, [r12 + 48]",
            "xrstor64 [rsi]",
            "mov rsi, [r12 + 16]",
            "mov eax, [r12 + 56]",
            "xrstor64 [rsi]",
            "cmp r13d, 1",
            "jne 2f",
            "fninit",
            "2: cmp r13d, 2",
            "jne 2f",
            "vzeroall",
            "2: cmp r13d, 3",
            "jne 2f",
            "fxrstor64 [rsi]",
            "2: cmp r13d, 4",
            "jne 2f",
            "mov rcx, [r12 + 32]",
            "ldmxcsr [rcx + 4]",
            "2: cmp dword ptr [r12 + 72], 0",
            "je 2f",
            "mov ecx, 1",
            "xgetbv",
            "mov r15d, eax",
            "2: xor edx, edx",
            "mov rdi, [r12 + 24]",
            "mov eax, [r12 + 64]",
            "cmp r14d, 0",
            "jne 2f",
            "xsave64 [rdi]",
            "2: cmp r14d, 1",
            "jne 2f",
            "xsaveopt64 [rdi]",
            "2: cmp r14d, 2",
            "jne 2f",
            "xsavec64 [rdi]",
            "2: cmp r14d, 3",
            "jne 2f",
            "fxsave64 [rdi]",
            "2: fninit",
            "mov rcx, [r12 + 32]",
            "ldmxcsr [rcx]",
            in("r12") &raw const block,
            in("r13") run.change as u64,
            in("r14") run.save as u64,
            inout("r15") in_use,
            clobber_abi("C"),
        );
    }
    if !has_xgetbv1 {
        in_use = 0;
    }
    has_xgetbv1.then_some(in_use)
}
