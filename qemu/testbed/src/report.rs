//! The lines that the runner reads about the machine and its counters.

use core::arch::x86_64::__cpuid;
use core::sync::atomic::Ordering::Relaxed;

use pcu9::x86_64::fpu;

use crate::glue::{self, FPU};
use crate::{cpu, line, sched};

/// Whether user programs may use AVX.
pub fn has_avx() -> bool {
    fpu::features().xcr0() & 1 << 2 != 0
}

/// Whether user programs may use AVX-512.
pub fn has_avx512() -> bool {
    fpu::features().xcr0() & 0b111 << 5 != 0
}

/// Prints `@boot`: what the machine is.
pub(crate) fn boot() {
    let leaf = __cpuid(0);
    let mut vendor = [0; 12];
    for (place, word) in vendor.chunks_mut(4).zip([leaf.ebx, leaf.edx, leaf.ecx]) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    let features = fpu::features();
    line!(
        "@boot cpus={} cpu_vendor={} xsave={} xcr0={:#x} area={}",
        cpu::n_cpus(),
        core::str::from_utf8(&vendor).unwrap_or("?"),
        features.save_instruction(),
        features.xcr0(),
        features.area_bytes(),
    );
}

/// Prints `@cpu` for each CPU.
pub(crate) fn counters() {
    for cpu in 0..cpu::n_cpus() {
        let own = sched::counters(cpu);
        let unit = glue::cpu_pcu(cpu).stats(FPU);
        line!(
            "@cpu {cpu} switches={} traps={} inits={} restores={} reenables_trap={} reenables_switch={} reenables_load={} \
             saves={} releases={} xcalls={} migrations={} spurious={} failed={} loads={} wipes={} discards={} \
             xcalls_raced={} preloads={} elided_restores={} elided_saves={} probes={} eager_saves={} eager_restores={} preemptions={}",
            own.switches.load(Relaxed),
            unit.traps,
            unit.inits,
            unit.restores,
            unit.reenables_trap,
            unit.reenables_switch,
            unit.reenables_load,
            unit.saves,
            unit.releases,
            unit.xcalls,
            own.migrations.load(Relaxed),
            unit.spurious,
            unit.failed,
            unit.loads,
            unit.wipes,
            unit.discards,
            unit.xcalls_raced,
            unit.preloads,
            unit.elided_restores,
            unit.elided_saves,
            unit.probes,
            own.eager_saves.load(Relaxed),
            own.eager_restores.load(Relaxed),
            own.preemptions.load(Relaxed),
        );
    }
}
