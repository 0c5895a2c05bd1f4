//! The CPUs of a thread, and the instructions that work on the one that executes.

use std::arch::x86_64::CpuidResult;
use std::cell::RefCell;
use std::panic::panic_any;
use std::ptr::NonNull;

use pcu9::x86_64::fpu::Detected;
use pcu9::x86_64::machine::{Faulted, Machine};

use crate::cpu::Cpu;
use crate::fault::Fault;
use crate::model::Model;
use crate::restore::Restore;
use crate::save::Save;

/// The processor in software that this thread has.
///
/// A fault that no handler of a kernel would mend is a panic with [`Fault`] as its payload; what the kernel's fix-up mends is
/// [`Faulted`].
#[derive(Debug)]
pub enum Mock {}

#[derive(Debug)]
struct Cpus {
    list: Vec<Cpu>,
    here: usize,
    detected: &'static Detected,
}

thread_local! {
    static CPUS: RefCell<Option<Cpus>> = const { RefCell::new(None) };
}

/// The CPUs of a thread that were put aside, or none.
#[derive(Debug, Default)]
pub struct Aside(Option<Cpus>);

impl Mock {
    /// Gives this thread the CPUs that were put aside, and puts its own aside: a thread may have several machines, one at a time.
    pub fn exchange(aside: &mut Aside) {
        CPUS.with_borrow_mut(|cpus| std::mem::swap(cpus, &mut aside.0));
    }

    /// Gives this thread new CPUs of a model; the first one executes.
    pub fn power_on(model: &'static Model, n_cpus: usize) {
        let cpus = Cpus {
            list: (0..n_cpus).map(|_| Cpu::after_firmware(model)).collect(),
            here: 0,
            // The unit keeps a reference for ever; a test makes few machines.
            detected: Box::leak(Box::new(Detected::new())),
        };
        CPUS.set(Some(cpus));
    }

    /// Lets another CPU execute.
    ///
    /// # Panics
    ///
    /// If there is no such CPU.
    pub fn run_on(cpu: usize) {
        Self::with_all(|all| {
            assert!(cpu < all.list.len(), "no cpu {cpu}");
            all.here = cpu;
        });
    }

    /// Looks at the CPU that executes, or does something with it.
    ///
    /// # Panics
    ///
    /// If the thread has no CPUs, or one is being looked at.
    pub fn with<R>(f: impl FnOnce(&mut Cpu) -> R) -> R {
        Self::with_all(|all| f(&mut all.list[all.here]))
    }

    /// The same with a CPU by its number.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with); if there is no such CPU.
    pub fn on<R>(cpu: usize, f: impl FnOnce(&mut Cpu) -> R) -> R {
        Self::with_all(|all| f(&mut all.list[cpu]))
    }

    fn with_all<R>(f: impl FnOnce(&mut Cpus) -> R) -> R {
        CPUS.with_borrow_mut(|all| f(all.as_mut().expect("Mock::power_on comes first")))
    }

    /// Executes what has no way to report a fault.
    fn must<R>(f: impl FnOnce(&mut Cpu) -> Result<R, Fault>) -> R {
        Self::with(f).unwrap_or_else(|fault| panic_any(fault))
    }

    /// Executes a restore, whose `#GP` and `#PF` the kernel's handlers mend.
    fn restore(f: impl FnOnce(&mut Cpu) -> Result<(), Fault>) -> Result<(), Faulted> {
        match Self::with(f) {
            Ok(()) => Ok(()),
            Err(Fault::GeneralProtection(_) | Fault::Page(_)) => Err(Faulted),
            Err(fault) => panic_any(fault),
        }
    }
}

// SAFETY: each function does what the manual says of its instruction, on the modelled CPU that executes; a new set of CPUs has
// a new place for what was detected.
unsafe impl Machine for Mock {
    fn detected() -> &'static Detected {
        Self::with_all(|all| all.detected)
    }

    fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
        Self::with(|cpu| cpu.cpuid(leaf, subleaf))
    }

    unsafe fn read_cr0() -> u64 {
        Self::with(|cpu| cpu.cr0)
    }

    unsafe fn write_cr0(value: u64) {
        Self::with(|cpu| cpu.cr0 = value);
    }

    unsafe fn read_cr4() -> u64 {
        Self::with(|cpu| cpu.cr4)
    }

    unsafe fn write_cr4(value: u64) {
        Self::must(|cpu| cpu.write_cr4(value));
    }

    unsafe fn read_efer() -> u64 {
        Self::with(|cpu| cpu.efer)
    }

    unsafe fn write_efer(value: u64) {
        Self::with(|cpu| cpu.efer = value);
    }

    unsafe fn xgetbv0() -> u64 {
        Self::must(|cpu| {
            cpu.check(crate::cpu::Instruction::Xgetbv)
                .map(|()| cpu.xcr0)
        })
    }

    unsafe fn xsetbv0(value: u64) {
        Self::must(|cpu| cpu.xsetbv(value));
    }

    unsafe fn rdmsr(register: u32) -> u64 {
        Self::must(|cpu| cpu.rdmsr(register))
    }

    unsafe fn wrmsr(register: u32, value: u64) {
        Self::must(|cpu| cpu.wrmsr(register, value));
    }

    unsafe fn clts() {
        Self::with(|cpu| cpu.write_ts(cpu.cr0 & !crate::cpu::CR0_TS));
    }

    unsafe fn stts() {
        Self::with(|cpu| cpu.write_ts(cpu.cr0 | crate::cpu::CR0_TS));
    }

    unsafe fn fxsave(area: NonNull<u8>) {
        // SAFETY: the caller promises the area.
        Self::must(|cpu| unsafe { cpu.fxsave(area) });
    }

    unsafe fn xsave(area: NonNull<u8>, mask: u64) {
        // SAFETY: the caller promises the area.
        Self::must(|cpu| unsafe { cpu.xsave(Save::Xsave, area, mask) });
    }

    unsafe fn xsaveopt(area: NonNull<u8>, mask: u64) {
        // SAFETY: the caller promises the area.
        Self::must(|cpu| unsafe { cpu.xsave(Save::Xsaveopt, area, mask) });
    }

    unsafe fn xsavec(area: NonNull<u8>, mask: u64) {
        // SAFETY: the caller promises the area.
        Self::must(|cpu| unsafe { cpu.xsave(Save::Xsavec, area, mask) });
    }

    unsafe fn xsaves(area: NonNull<u8>, mask: u64) {
        // SAFETY: the caller promises the area.
        Self::must(|cpu| unsafe { cpu.xsave(Save::Xsaves, area, mask) });
    }

    unsafe fn fxrstor(area: NonNull<u8>) -> Result<(), Faulted> {
        // SAFETY: the caller promises the area.
        Self::restore(|cpu| unsafe { cpu.fxrstor(area) })
    }

    unsafe fn xrstor(area: NonNull<u8>, mask: u64) -> Result<(), Faulted> {
        // SAFETY: the caller promises the area.
        Self::restore(|cpu| unsafe { cpu.xrstor(Restore::Xrstor, area, mask) })
    }

    unsafe fn xrstors(area: NonNull<u8>, mask: u64) -> Result<(), Faulted> {
        // SAFETY: the caller promises the area.
        Self::restore(|cpu| unsafe { cpu.xrstor(Restore::Xrstors, area, mask) })
    }

    unsafe fn xinuse() -> u64 {
        Self::must(|cpu| cpu.xgetbv1())
    }

    unsafe fn zero_vectors(mxcsr: u32) {
        Self::must(|cpu| cpu.vzeroall().and_then(|()| cpu.ldmxcsr(mxcsr)));
    }

    unsafe fn wipe_x87_pointers() {
        Self::must(Cpu::wipe_x87_pointers);
    }

    unsafe fn tile_release() {
        Self::must(Cpu::tile_release);
    }
}
