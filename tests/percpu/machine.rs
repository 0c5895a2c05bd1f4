//! A machine for host tests of per-CPU data: its CPUs take turns in one thread, and each has an area.

use std::alloc::{Layout as Alloc, alloc};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use pcu9::kernel::{CpuId, CrossCall, Domain, IplPcu, Kernel, NoAnswer};
use pcu9::pcu::{CpuPcu, LwpPcu};
use pcu9::percpu::header::{AreaPlace, FpuLayout, Header, LwpLayout, Parts};
use pcu9::percpu::{
    AREA_ALIGN, CounterU64, CpuError, CpuGroup, CpuState, InitError, Late, Pcpu, Percpu, Tables,
    ThisCpu,
};
use pcu9::{dpcpu, percpu_describe, percpu_header, percpu_parts};

/// Bytes of each area.
pub(crate) const STRIDE: usize = 8192;
/// The largest CPU id that the machines have room for, plus one.
pub(crate) const MAX_CPUS: u16 = 200;

/// The machines' LWP; none runs.
#[derive(Debug)]
pub(crate) struct Lwp {
    pub(crate) priority: u32,
}

/// The kernel's own part of the block.
#[derive(Debug)]
pub(crate) struct Extension {
    pub(crate) interrupts: AtomicU64,
}

dpcpu! {
    /// The block.
    pub(crate) static PCPU: Pcpu<Lwp, Extension> = Pcpu::new(Extension { interrupts: AtomicU64::new(77) });
    /// What `pcu9` keeps of a CPU.
    pub(crate) static CPU_PCU: CpuPcu<Lwp, 1> = CpuPcu::new();
    /// A word that does not begin at 0.
    pub(crate) static TICKS: AtomicU64 = AtomicU64::new(1000);
    /// A counter that is known at compile time.
    pub(crate) counter PACKETS;
    /// Reached at `IPL_PCU` alone.
    pub(crate) static DEPTH: Cell<u32> = Cell::new(5);
}

/// A counter that is allocated later.
pub(crate) static LATER: Late<CounterU64> = Late::new();

percpu_describe! {
    pcpu Pcpu<Lwp, Extension>: extension.interrupts: AtomicU64;
    lwp Lwp: priority: u32;
    counter LATER;
}

percpu_header! {
    /// What this program's file exports; the tests make machines of their own.
    pub(crate) static EXPORTED;
    block: PCPU: Pcpu<Lwp, Extension>;
    pcu: CPU_PCU: (Lwp, 1), units: "reg\n";
    lwp: LwpLayout::NONE;
    fpu: FpuLayout::new(0, AreaPlace::Inside, 16);
}

/// What [`percpu_header!`] collects; tests spoil it.
pub(crate) fn parts() -> Parts {
    percpu_parts! {
        block: PCPU: Pcpu<Lwp, Extension>;
        pcu: CPU_PCU: (Lwp, 1), units: "reg\n";
        lwp: LwpLayout::NONE;
        fpu: FpuLayout::none();
    }
}

/// One machine; its memory is never given back.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) percpu: &'static Percpu,
    pub(crate) groups: &'static [CpuGroup],
    /// The CPU that executes.
    here: AtomicUsize,
    raised: AtomicUsize,
    /// A CPU that does not answer.
    pub(crate) deaf: AtomicUsize,
}

/// The CPU of a machine that executes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Here(&'static Machine);

pub(crate) fn cpu(number: u16) -> CpuId {
    CpuId::new(number).expect("a small number")
}

/// Tables for so many groups and words of zpcpu.
pub(crate) fn tables(n_groups: usize, words: usize) -> Tables {
    Tables {
        groups: Vec::leak((0..n_groups).map(|_| CpuGroup::new()).collect()),
        zpcpu: Vec::leak(vec![!0; words]),
    }
}

/// Per-CPU data around that header.
pub(crate) fn percpu(parts: Parts) -> &'static Percpu {
    let pcu = (&raw const CPU_PCU).cast();
    let header = Box::leak(Box::new(Header::new(parts)));
    // SAFETY: each test has tokens and allocations of one machine alone.
    Box::leak(Box::new(unsafe { Percpu::new(header, pcu) }))
}

/// Memory for an area, full of rubbish.
pub(crate) fn area() -> NonNull<u8> {
    let layout = Alloc::from_size_align(STRIDE, AREA_ALIGN).expect("a small area");
    // SAFETY: the size is not 0.
    let area = NonNull::new(unsafe { alloc(layout) }).expect("memory");
    // SAFETY: new memory of that size.
    unsafe { area.write_bytes(0xa5, STRIDE) };
    area
}

impl Machine {
    /// One with these CPUs, all started, of which the first executes.
    pub(crate) fn new(cpus: &[u16]) -> &'static Self {
        let percpu = percpu(parts());
        let tables = tables(
            usize::from(MAX_CPUS).div_ceil(64),
            percpu.zpcpu_words(STRIDE),
        );
        let groups = tables.groups;
        percpu
            .init(MAX_CPUS, STRIDE, tables)
            .expect("a good section");
        let machine = Box::leak(Box::new(Self {
            percpu,
            groups,
            here: AtomicUsize::new(usize::from(cpus[0])),
            raised: AtomicUsize::new(0),
            deaf: AtomicUsize::new(usize::MAX),
        }));
        for &number in cpus {
            machine.add(number).expect("a new CPU");
            percpu.set_started(cpu(number)).expect("a present CPU");
        }
        machine
    }

    /// Adds a CPU, which does not run yet.
    pub(crate) fn add(&self, number: u16) -> Result<usize, CpuError> {
        // SAFETY: new memory, which nobody frees.
        unsafe { self.percpu.add_cpu(cpu(number), area()) }
    }

    /// Lets another CPU execute.
    pub(crate) fn go_to(&'static self, number: u16) -> Here {
        self.here.store(usize::from(number), Ordering::Relaxed);
        Here(self)
    }

    /// At `IPL_PCU`.
    pub(crate) fn raised<R>(&'static self, f: impl FnOnce(&IplPcu<'static, Self, 1>) -> R) -> R {
        IplPcu::with(self, f)
    }
}

// SAFETY: C1: the machine's CPU that executes, which is present. C2: the defaults, and one thread.
unsafe impl ThisCpu for Here {
    fn offset(self) -> usize {
        let here = u16::try_from(self.0.here.load(Ordering::Relaxed)).expect("a small number");
        self.0.percpu.offset(cpu(here)).expect("it is present")
    }
}

// SAFETY: P1, P2: one thread, and `here` changes only between the tests' steps and for a cross-call. P3: a variable of each CPU.
// P4, P5: there are no LWPs. P6: the function runs at once on behalf of the other CPU.
unsafe impl Kernel<1> for Machine {
    type Lwp = Lwp;
    type Saved = ();

    fn splraise(&self) {
        self.raised.fetch_add(1, Ordering::Relaxed);
    }

    unsafe fn splx(&self, (): ()) {
        self.raised.fetch_sub(1, Ordering::Relaxed);
    }

    fn cpu_id(&self, _: &IplPcu<'_, Self, 1>) -> CpuId {
        cpu(u16::try_from(self.here.load(Ordering::Relaxed)).expect("a small number"))
    }

    fn cpu_pcu(&self, cpu: CpuId) -> &CpuPcu<Lwp, 1> {
        CPU_PCU.on(self.percpu, cpu).expect("a present CPU")
    }

    unsafe fn lwp_pcu(&self, _: NonNull<Lwp>) -> NonNull<LwpPcu<1>> {
        unreachable!("there are no LWPs")
    }

    unsafe fn domain(&self, _: NonNull<Lwp>) -> Option<Domain> {
        unreachable!("there are no LWPs")
    }

    fn cross_call(
        &self,
        ipl: IplPcu<'_, Self, 1>,
        to: CpuId,
        f: CrossCall<'_, Self, 1>,
    ) -> Result<(), NoAnswer> {
        drop(ipl);
        let runs = self.percpu.state(to) == CpuState::Started;
        if !runs || self.deaf.load(Ordering::Relaxed) == to.index() {
            return Err(NoAnswer(to));
        }
        let from = self.here.swap(to.index(), Ordering::Relaxed);
        IplPcu::with(self, f);
        self.here.store(from, Ordering::Relaxed);
        Ok(())
    }
}

/// What `init` says of spoilt parts.
pub(crate) fn refusal(spoil: impl FnOnce(&mut Parts)) -> Option<InitError> {
    let mut parts = parts();
    spoil(&mut parts);
    let percpu = percpu(parts);
    percpu.init(64, STRIDE, tables(1, STRIDE / 512)).err()
}
