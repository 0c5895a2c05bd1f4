//! The smallest kernel around pcu9 whose instructions are its own: no level, the current CPU and LWP in memory.

use std::hint::black_box;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

use pcu9::kernel::{CpuId, CrossCall, Current, Domain, IplPcu, Kernel, NoAnswer};
use pcu9::pcu::{
    AcceptLazyFp, CpuPcu, LeakRule, LoadFlags, LwpPcu, Pcu, PcuOps, StateError, UnitId, UnitOps,
};

const N: usize = 3;
const UNIT: UnitId = UnitId::new(0);

struct Lwp {
    pcu: LwpPcu<N>,
}

/// What a kernel keeps of a CPU.
struct Cpu {
    id: CpuId,
    pcu: CpuPcu<Lwp, N>,
}

struct Bare;

static KERNEL: Bare = Bare;
static CPUS: [Cpu; 2] = [Cpu::new(0), Cpu::new(1)];
static CURRENT_CPU: AtomicPtr<Cpu> = AtomicPtr::new((&raw const CPUS[0]).cast_mut());
static CURRENT_LWP: AtomicPtr<Lwp> = AtomicPtr::new(null_mut());
static LWPS: [Lwp; 2] = [const { Lwp { pcu: LwpPcu::new() } }; 2];
static WORD: AtomicU64 = AtomicU64::new(0);

const UNITS: [Option<UnitOps<Lwp>>; N] = [
    Some(UnitOps::of::<Unit<0>>()),
    Some(UnitOps::of::<Unit<1>>()),
    Some(UnitOps::of::<Unit<2>>()),
];
const TRUSTING: LeakRule = LeakRule::Trusting(AcceptLazyFp);
static PCU: Pcu<Bare, N> =
    // SAFETY: the kernel's only one.
    unsafe { Pcu::new(UNITS) }.with_leak_rule(TRUSTING);

struct Unit<const U: u8>;

// SAFETY: there is no state.
unsafe impl<const U: u8> PcuOps<Lwp> for Unit<U> {
    const ID: UnitId = UnitId::new(U);

    #[inline(never)]
    unsafe fn state_save(_: NonNull<Lwp>) {
        WORD.store(1, Relaxed);
    }

    #[inline(never)]
    unsafe fn state_load(_: NonNull<Lwp>, _: LoadFlags) -> Result<(), StateError> {
        WORD.store(2, Relaxed);
        Ok(())
    }

    #[inline(never)]
    unsafe fn state_release(_: NonNull<Lwp>) {
        WORD.store(3, Relaxed);
    }

    #[inline(never)]
    unsafe fn unit_enable() {
        WORD.store(4, Relaxed);
    }

    #[inline(never)]
    unsafe fn unit_trap() {
        WORD.store(5, Relaxed);
    }

    #[inline(never)]
    unsafe fn state_wipe() {
        WORD.store(6, Relaxed);
    }

    #[inline(never)]
    unsafe fn state_copy(_: NonNull<Lwp>, _: NonNull<Lwp>) {
        WORD.store(7, Relaxed);
    }

    #[inline(never)]
    unsafe fn is_initial(_: NonNull<Lwp>) -> bool {
        false
    }
}

// SAFETY: P1: nothing interrupts the one thread. P2, P3: a variable, an array. P4: statics. P5: all LWPs are of one domain. P6: the call
// is made at once.
unsafe impl Kernel<N> for Bare {
    type Lwp = Lwp;
    type Saved = ();

    fn splraise(&self) {}

    unsafe fn splx(&self, (): ()) {}

    fn cpu_id(&self, _: &IplPcu<'_, Self, N>) -> CpuId {
        this_cpu().id
    }

    fn cpu_pcu(&self, cpu: CpuId) -> &CpuPcu<Lwp, N> {
        &CPUS[cpu.index() & 1].pcu
    }

    fn this_cpu_pcu(&self, _: &IplPcu<'_, Self, N>) -> &CpuPcu<Lwp, N> {
        &this_cpu().pcu
    }

    unsafe fn lwp_pcu(&self, lwp: NonNull<Lwp>) -> NonNull<LwpPcu<N>> {
        // SAFETY: the caller promises a valid LWP.
        NonNull::from(&unsafe { lwp.as_ref() }.pcu)
    }

    unsafe fn domain(&self, _: NonNull<Lwp>) -> Option<Domain> {
        Domain::new(1)
    }

    fn cross_call(
        &self,
        ipl: IplPcu<'_, Self, N>,
        cpu: CpuId,
        f: CrossCall<'_, Self, N>,
    ) -> Result<(), NoAnswer> {
        let caller = CURRENT_CPU.load(Relaxed);
        CURRENT_CPU.store((&raw const CPUS[cpu.index() & 1]).cast_mut(), Relaxed);
        f(&ipl);
        CURRENT_CPU.store(caller, Relaxed);
        Ok(())
    }
}

/// Something whose instructions are counted.
pub(crate) struct Operation {
    /// What it is.
    pub(crate) name: &'static str,
    /// What NetBSD's C takes.
    pub(crate) netbsd: Option<u64>,
    /// What the design would like.
    pub(crate) goal: Option<u64>,
    /// What it may take: NetBSD's figure, or where that is missed, what it takes today.
    pub(crate) ceiling: u64,
    /// Does it so many times, after what has to be so before.
    pub(crate) run: fn(u64),
}

pub(crate) const OPERATIONS: [Operation; 9] = [
    operation("switch-in, never used a unit", 17, Some(8), 17, |turns| {
        be(0, 0);
        repeat(turns, switch_in);
    }),
    operation("switch-in, owns a unit here", 40, Some(20), 40, |turns| {
        be(0, 0);
        load();
        repeat(turns, switch_in);
    }),
    operation("load that re-enables", 37, Some(18), 37, |turns| {
        be(0, 0);
        load();
        repeat(turns, load);
    }),
    operation("switch and load that steals", 123, Some(61), 260, |turns| {
        be(0, 0);
        load();
        let mut next = 1;
        repeat(turns, || {
            CURRENT_LWP.store(lwp(next), Relaxed);
            next ^= 1;
            switch_in();
            load();
        });
    }),
    operation("switch and load that fetches", 176, None, 420, |turns| {
        be(0, 0);
        load();
        let mut next = 1;
        repeat(turns, || {
            CURRENT_CPU.store((&raw const CPUS[next & 1]).cast_mut(), Relaxed);
            next ^= 1;
            switch_in();
            load();
        });
    }),
    operation("load and save", 110, None, 240, |turns| {
        be(0, 0);
        repeat(turns, || {
            load();
            let _ = black_box(PCU.save(&mut current(), UNIT));
        });
    }),
    operation("load and discard_all", 145, None, 380, |turns| {
        be(0, 0);
        repeat(turns, || {
            load();
            let _ = black_box(PCU.discard_all(&mut current()));
        });
    }),
    operation("valid_p", 14, None, 14, |turns| {
        be(0, 0);
        load();
        repeat(turns, || {
            // SAFETY: a static, whose parts are atomic.
            let lwp = unsafe { &*CURRENT_LWP.load(Relaxed) };
            black_box(lwp.pcu.valid_p(black_box(UNIT)));
        });
    }),
    Operation {
        name: "switch-out and switch-in, never used",
        netbsd: None,
        goal: None,
        ceiling: 16,
        run: |turns| {
            be(0, 0);
            repeat(turns, || {
                // SAFETY: nothing interrupts the one thread.
                let ipl = unsafe { IplPcu::assume(&KERNEL) };
                PCU.switch_out(&ipl, &mut current());
                switch_in();
            });
        },
    },
];

const fn operation(
    name: &'static str,
    netbsd: u64,
    goal: Option<u64>,
    ceiling: u64,
    run: fn(u64),
) -> Operation {
    Operation {
        name,
        netbsd: Some(netbsd),
        goal,
        ceiling,
        run,
    }
}

impl Cpu {
    const fn new(number: u16) -> Self {
        Self {
            id: CpuId::new(number).expect("a small number"),
            pcu: CpuPcu::new(),
        }
    }
}

fn this_cpu() -> &'static Cpu {
    // SAFETY: it names one of `CPUS`, always.
    unsafe { &*CURRENT_CPU.load(Relaxed) }
}

fn lwp(nth: usize) -> *mut Lwp {
    (&raw const LWPS[nth & 1]).cast_mut()
}

/// Makes an LWP current on a CPU.
fn be(cpu: usize, nth: usize) {
    CURRENT_CPU.store((&raw const CPUS[cpu & 1]).cast_mut(), Relaxed);
    CURRENT_LWP.store(lwp(nth), Relaxed);
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "the loop itself is what is counted")]
fn repeat(turns: u64, mut f: impl FnMut()) {
    for _ in 0..black_box(turns) {
        f();
    }
}

fn current() -> Current<'static, Bare, N> {
    // SAFETY: never null once `be` was called.
    let lwp = unsafe { NonNull::new_unchecked(CURRENT_LWP.load(Relaxed)) };
    // SAFETY: it is current on the CPU that `CURRENT_CPU` names; one token at a time.
    unsafe { Current::new(&KERNEL, lwp) }
}

fn switch_in() {
    // SAFETY: nothing interrupts the one thread.
    let ipl = unsafe { IplPcu::assume(&KERNEL) };
    PCU.switchpoint(&ipl, Some(&mut current()));
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "the loop itself is what is counted")]
fn load() {
    let _ = black_box(PCU.load(&mut current(), UNIT));
}
