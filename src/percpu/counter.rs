//! Counters that cost their CPU one addition: [`CounterU64`]. FreeBSD: counter(9).
//!
//! Each CPU adds to a number of its own, so an addition needs neither a lock nor a locked instruction: it is one step, which an
//! interrupt comes before or after, and a migration before it only means that another CPU counts. Reading adds them up.

use core::sync::atomic::{AtomicU64, Ordering};

use super::Percpu;
use super::access::{Symbol, ThisCpu};
use super::dpcpu::Dpcpu;
use super::error::NoRoom;
use super::pcpu::CpuState;
use super::zpcpu::Zpcpu;
use crate::kernel::{CpuId, IplPcu, Kernel, NoAnswer};

/// A counter, allocated at run time. FreeBSD: `counter_u64_t`.
///
/// A counter that is known at compile time is simpler: `counter NAME;` in [`dpcpu!`](crate::dpcpu), which has the same methods.
#[doc(alias = "counter_u64_t")]
#[derive(Debug)]
#[repr(transparent)]
pub struct CounterU64(Zpcpu<AtomicU64>);

impl CounterU64 {
    /// Allocates a counter, at 0. FreeBSD: `counter_u64_alloc`.
    ///
    /// Context: below `IPL_PCU`; takes a spin lock.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] in the areas.
    #[doc(alias = "counter_u64_alloc")]
    pub fn alloc(percpu: &Percpu) -> Result<Self, NoRoom> {
        Zpcpu::alloc(percpu).map(Self)
    }

    /// Gives the counter back. FreeBSD: `counter_u64_free`.
    #[doc(alias = "counter_u64_free")]
    pub fn free(self, percpu: &Percpu) {
        self.0.free(percpu);
    }

    /// What a reader outside calls `base`.
    pub fn name(&self) -> usize {
        self.0.name()
    }

    /// Adds `n`. FreeBSD: `counter_u64_add`.
    ///
    /// Context: any, interrupts too; from no NMI on machines where an addition is more than one instruction.
    #[doc(alias = "counter_u64_add")]
    pub fn add(&self, this: impl ThisCpu, n: u64) {
        self.0.add(this, n);
    }

    /// The sum over all present CPUs; what is added meanwhile may be in it or not. FreeBSD: `counter_u64_fetch`.
    #[doc(alias = "counter_u64_fetch")]
    pub fn fetch(&self, percpu: &Percpu) -> u64 {
        self.0.sum(percpu)
    }

    /// What one CPU has counted, `None` for an absent one.
    pub fn fetch_on(&self, percpu: &Percpu, cpu: CpuId) -> Option<u64> {
        self.0
            .on(percpu, cpu)
            .map(|count| count.load(Ordering::Relaxed))
    }

    /// Sets it to 0. FreeBSD: `counter_u64_zero`.
    ///
    /// Every CPU that runs does so itself, by a cross-call: a 0 from outside could be lost in the middle of an addition. A
    /// fetch meanwhile sees a mixture.
    ///
    /// Context: may wait, so not from an interrupt.
    ///
    /// # Errors
    ///
    /// The first CPU that did not answer; the others have been asked all the same.
    #[doc(alias = "counter_u64_zero")]
    pub fn zero<K: Kernel<N>, const N: usize>(
        &self,
        percpu: &Percpu,
        kernel: &K,
        this: impl ThisCpu + Sync,
    ) -> Result<(), NoAnswer> {
        let clear = || self.0.set(this, 0);
        zero_each(percpu, kernel, &clear, |cpu| self.0.on(percpu, cpu))
    }
}

impl<S: Symbol> Dpcpu<AtomicU64, S> {
    /// The sum over all present CPUs, as [`CounterU64::fetch`].
    pub fn fetch(&'static self, percpu: &Percpu) -> u64 {
        self.sum(percpu)
    }

    /// Sets it to 0, each CPU by itself, as [`CounterU64::zero`].
    ///
    /// # Errors
    ///
    /// The first CPU that did not answer; the others have been asked all the same.
    pub fn zero<K: Kernel<N>, const N: usize>(
        &'static self,
        percpu: &Percpu,
        kernel: &K,
        this: impl ThisCpu + Sync,
    ) -> Result<(), NoAnswer> {
        let clear = || self.set(this, 0);
        zero_each(percpu, kernel, &clear, |cpu| self.on(percpu, cpu))
    }
}

fn zero_each<'a, K: Kernel<N>, const N: usize>(
    percpu: &'a Percpu,
    kernel: &K,
    clear: &(dyn Fn() + Sync),
    count: impl Fn(CpuId) -> Option<&'a AtomicU64>,
) -> Result<(), NoAnswer> {
    let mut result = Ok(());
    for cpu in percpu.present() {
        let answer = if percpu.state(cpu) == CpuState::Started {
            kernel.cross_call(IplPcu::up(kernel), cpu, &|_| clear())
        } else {
            // It does not run, so it adds nothing.
            if let Some(count) = count(cpu) {
                count.store(0, Ordering::Relaxed);
            }
            Ok(())
        };
        result = result.and(answer);
    }
    result
}
