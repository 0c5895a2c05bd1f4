//! What moving the FPU's state costs on this machine: measured once, at the kernel's start, by the time stamp counter.
//!
//! Each figure is a median, so that an interrupt of the hypervisor's, or a cache that is cold at first, does not show. The counter's
//! ticks need not be the core's cycles: only the ratios of the figures count. What the measurement itself takes is taken off.
//!
//! The trap is measured in the kernel, where it changes neither the stack nor the privilege, and up to the gate's opening: a user's
//! takes longer. That is meant to be so (see [`Costs`]).

use core::ptr::NonNull;

use super::fpu::{self, Scratch};
use super::instructions;
use super::machine::{Machine, Native};
use crate::kernel::{CpuId, IplPcu, Kernel, NoAnswer};
use crate::pcu::Costs;

/// Samples of each figure: an odd number, so that the median is one of them.
const SAMPLES: usize = 31;

/// Measures T, R, S and X on this CPU; I stays what it is in `known`. Takes some 100 microseconds at most.
///
/// The kernel's `#NM` handler returns at once where [`DeviceNotAvailable`](super::DeviceNotAvailable) says `Calibration`. What is
/// restored and saved has SSE and AVX in use, as a program that computes has. Needs some 6 KiB of stack.
///
/// Context: a CPU's start, after [`fpu::init_cpu`], at `IPL_PCU`, before an LWP with FPU state ran there; the gate is closed and
/// the registers are initial before and after.
///
/// # Safety
///
/// In ring 0, in that context.
pub unsafe fn calibrate(known: Costs) -> Costs {
    let mut scratch = [const { Scratch::ZERO }; 2];
    let [from, to] = scratch
        .each_mut()
        .map(|scratch| NonNull::from(scratch).cast());
    // SAFETY: longer than any area of the unit's.
    unsafe { fpu::fill::<Native>(from) };
    let mut samples = [[0; SAMPLES]; 5];
    for nth in 0..SAMPLES {
        // SAFETY: the caller promises ring 0 and `IPL_PCU`.
        let ticks = unsafe { sample(from, to) };
        for (samples, ticks) in samples.iter_mut().zip(ticks) {
            samples[nth] = ticks;
        }
    }
    // SAFETY: the gate is open, and nobody's state is in the registers.
    unsafe { fpu::load_initial::<Native>() };
    // SAFETY: ring 0, at `IPL_PCU`.
    unsafe { Native::stts() };
    let [nothing, toggles, trap, restore, save] = samples.map(median);
    let cost = |ticks: u64| {
        u32::try_from(ticks.saturating_sub(nothing))
            .unwrap_or(u32::MAX)
            .max(1)
    };
    Costs {
        trap: cost(trap),
        restore: cost(restore),
        save: cost(save),
        toggle: (cost(toggles) / 2).max(1),
        ..known
    }
}

/// Measures I: a cross-call to `cpu`, another one than the caller's, that does nothing there; the rest stays what it is in `known`.
///
/// Context: below `IPL_PCU`, from where the kernel's [`cross_call`](Kernel::cross_call) may wait; the caller stays on its CPU.
///
/// # Errors
///
/// [`NoAnswer`] of the CPU.
pub fn calibrate_cross_call<K: Kernel<N>, const N: usize>(
    kernel: &K,
    cpu: CpuId,
    known: Costs,
) -> Result<Costs, NoAnswer> {
    let mut samples = [0; SAMPLES];
    for sample in &mut samples {
        let begin = instructions::fenced_tsc();
        kernel.cross_call(IplPcu::up(kernel), cpu, &|_| ())?;
        *sample = instructions::fenced_tsc() - begin;
    }
    Ok(Costs {
        cross_call: u32::try_from(median(samples)).unwrap_or(u32::MAX).max(1),
        ..known
    })
}

/// Ticks of nothing; of the gate closed and opened; of a trap; of a restore; of a save. The gate ends open.
///
/// # Safety
///
/// As [`calibrate`]; `from` holds an image of this machine's kind, and `to` is as long.
unsafe fn sample(from: NonNull<u8>, to: NonNull<u8>) -> [u64; 5] {
    let nothing = ticks(|| ());
    let toggles = ticks(|| {
        // SAFETY: ring 0, at `IPL_PCU`.
        unsafe { Native::stts() };
        // SAFETY: as above.
        unsafe { Native::clts() };
    });
    // SAFETY: as above.
    unsafe { Native::stts() };
    let trap = ticks(|| instructions::use_x87());
    let restore = ticks(|| {
        // SAFETY: the trap's handler has opened the gate, and nobody's state is in the registers.
        let result = unsafe { fpu::restore::<Native>(from) };
        debug_assert_eq!(
            result,
            Ok(()),
            "the processor refused an image of its own kind"
        );
    });
    // Elsewhere than it came from: a save to the same place may leave out what was not changed since.
    // SAFETY: the gate is open; the area is for this.
    let save = ticks(|| unsafe { fpu::save::<Native>(to) });
    [nothing, toggles, trap, restore, save]
}

fn ticks(work: impl FnOnce()) -> u64 {
    let begin = instructions::fenced_tsc();
    work();
    instructions::fenced_tsc() - begin
}

fn median(mut samples: [u64; SAMPLES]) -> u64 {
    samples.sort_unstable();
    samples[SAMPLES / 2]
}

/// Is this the address of the use that [`calibrate`] measures?
pub(super) fn is_use(rip: u64) -> bool {
    rip == instructions::use_x87 as *const () as usize as u64
}
