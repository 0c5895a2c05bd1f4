//! A kernel for host tests: CPUs, LWPs and units that are a `u64` each, in one thread.
//!
//! "Running on CPU c" is a field of [`World`]. A cross-call is a function call on behalf of another CPU. Wherever the level is
//! lowered, the test may preempt the running LWP, let others run, and bring it back on another CPU ([`World::on_lowering`]).

mod reg;

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

use pcu9::kernel::{CpuId, CrossCall, Current, Domain, IplPcu, Kernel, NoAnswer, Stopped};
use pcu9::pcu::{AcceptLazyFp, CpuPcu, LeakRule, LoadError, LwpPcu, Pcu, Policy, UnitId, UnitOps};
use static_assertions::assert_not_impl_any;

pub use reg::{INITIAL, Reg, domain_of, value};

/// Units in the table; a test may leave slots empty.
pub const UNITS: usize = 3;

assert_not_impl_any!(IplPcu<'static, World, UNITS>: Send, Sync, Clone);
assert_not_impl_any!(Current<'static, World, UNITS>: Send, Sync, Clone);
assert_not_impl_any!(Stopped<'static, World, UNITS>: Send, Sync, Clone);

/// An LWP: what the crate wants of one, and a memory for each unit.
#[derive(Debug)]
pub struct Lwp {
    /// Its place in the world.
    pub number: usize,
    /// What the crate keeps for it.
    pub pcu: LwpPcu<UNITS>,
    /// 0 is a kernel thread.
    pub domain: Cell<u64>,
    /// Where the state of each unit is saved; `None` is an area that the kernel refuses.
    pub memory: [Cell<u64>; UNITS],
    /// The kernel has no area for it.
    pub refuses_area: Cell<bool>,
    /// The processor refuses what its memory holds.
    pub bad_image: Cell<bool>,
    /// The unit refuses to be enabled for it again.
    pub refuses_reenable: Cell<bool>,
}

/// A CPU: its registers, and what the crate keeps for it.
#[derive(Debug)]
pub struct Cpu {
    /// What the crate keeps for it.
    pub pcu: CpuPcu<Lwp, UNITS>,
    /// One register a unit.
    pub registers: [Cell<u64>; UNITS],
    /// The hardware's gate, which the core shadows.
    pub open: [Cell<bool>; UNITS],
    /// The LWP that runs on it.
    pub current: Cell<Option<usize>>,
}

/// The machine.
#[derive(Debug)]
pub struct World {
    /// The crate.
    pub pcu: Pcu<World, UNITS>,
    /// All CPUs.
    pub cpus: Vec<Cpu>,
    lwps: RefCell<Vec<NonNull<Lwp>>>,
    /// The CPU that executes.
    pub here: Cell<usize>,
    raised: Cell<bool>,
    next_domain: Cell<u64>,
    has_untrappable_unit: bool,
    /// Callbacks and cross-calls in the format of the conformance vectors.
    pub log: RefCell<Vec<String>>,
    on_lowering: Cell<Option<fn(&World)>>,
    /// CPUs that do not answer.
    pub deaf: Cell<u64>,
}

/// The id of a unit.
///
/// # Panics
///
/// If there is no such unit.
pub const fn unit(index: u8) -> UnitId {
    UnitId::new(index)
}

/// The id of a CPU.
///
/// # Panics
///
/// If the number is too large.
pub fn cpu_id(index: usize) -> CpuId {
    CpuId::new(u16::try_from(index).unwrap()).unwrap()
}

/// Plain pcu(9).
pub const TRUSTING: LeakRule = LeakRule::Trusting(AcceptLazyFp);

impl World {
    /// Makes a machine whose LWPs are processes of their own, all of them stopped, and whose table has `n_units` units.
    ///
    /// # Panics
    ///
    /// If there are more units than [`UNITS`], or this thread has a world already.
    pub fn new(n_cpus: usize, n_lwps: usize, n_units: usize, rule: LeakRule) -> Box<Self> {
        Self::with_policy(n_cpus, n_lwps, n_units, rule, Policy::Lazy)
    }

    /// The same with another policy than NetBSD's.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub fn with_policy(
        n_cpus: usize,
        n_lwps: usize,
        n_units: usize,
        rule: LeakRule,
        policy: Policy,
    ) -> Box<Self> {
        assert!(n_units <= UNITS);
        let mut table = [
            Some(UnitOps::of::<Reg<0>>()),
            Some(UnitOps::of::<Reg<1>>()),
            Some(UnitOps::of::<Reg<2>>()),
        ];
        table[n_units..].fill_with(|| None);
        Self::around(
            n_cpus,
            n_lwps,
            // SAFETY: the world has this one alone.
            unsafe { Pcu::new(table) }
                .with_policy(policy)
                .with_leak_rule(rule),
        )
    }

    /// The same with three units, of which a use of the last cannot be detected.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub fn with_untrappable_unit(n_cpus: usize, n_lwps: usize, rule: LeakRule) -> Box<Self> {
        let table = [
            Some(UnitOps::of::<Reg<0>>()),
            Some(UnitOps::of::<Reg<1>>()),
            Some(UnitOps::of::<Reg<2, false>>()),
        ];
        // SAFETY: the world has this one alone.
        let pcu = unsafe { Pcu::new(table) };
        let mut world = Self::around(n_cpus, n_lwps, pcu.with_leak_rule(rule));
        world.has_untrappable_unit = true;
        world
    }

    fn around(n_cpus: usize, n_lwps: usize, pcu: Pcu<Self, UNITS>) -> Box<Self> {
        let world = Box::new(Self {
            pcu,
            cpus: (0..n_cpus)
                .map(|_| Cpu {
                    pcu: CpuPcu::new(),
                    registers: [const { Cell::new(INITIAL) }; UNITS],
                    open: [const { Cell::new(false) }; UNITS],
                    current: Cell::new(None),
                })
                .collect(),
            lwps: RefCell::default(),
            here: Cell::new(0),
            raised: Cell::new(false),
            next_domain: Cell::new(1),
            has_untrappable_unit: false,
            log: RefCell::default(),
            on_lowering: Cell::new(None),
            deaf: Cell::new(0),
        });
        reg::enter(&world);
        for number in 0..n_lwps {
            let lwp = world.new_lwp(number);
            world.lwps.borrow_mut().push(lwp);
        }
        world
    }

    fn new_lwp(&self, number: usize) -> NonNull<Lwp> {
        NonNull::from(Box::leak(Box::new(Lwp {
            number,
            pcu: LwpPcu::new(),
            domain: Cell::new(self.new_domain()),
            memory: [const { Cell::new(INITIAL) }; UNITS],
            refuses_area: Cell::new(false),
            bad_image: Cell::new(false),
            refuses_reenable: Cell::new(false),
        })))
    }

    /// A domain that nobody had before.
    pub fn new_domain(&self) -> u64 {
        let domain = self.next_domain.get();
        self.next_domain.set(domain + 1);
        domain
    }

    /// How many LWPs there are.
    pub fn n_lwps(&self) -> usize {
        self.lwps.borrow().len()
    }

    /// Where an LWP is.
    pub fn pointer(&self, lwp: usize) -> NonNull<Lwp> {
        self.lwps.borrow()[lwp]
    }

    /// An LWP.
    pub fn lwp(&self, lwp: usize) -> &Lwp {
        // SAFETY: LWPs live until `free` or the end of the world, and are changed through cells alone.
        unsafe { self.pointer(lwp).as_ref() }
    }

    /// Frees an LWP that has exited and puts a new one in its place.
    pub fn replace(&self, lwp: usize) {
        let old = self.pointer(lwp);
        let new = self.new_lwp(lwp);
        self.lwps.borrow_mut()[lwp] = new;
        // SAFETY: made by `Box::leak`; nobody has a reference over this call, and nobody finds it any more.
        drop(unsafe { Box::from_raw(old.as_ptr()) });
    }

    /// The CPU that executes.
    pub fn here(&self) -> &Cpu {
        &self.cpus[self.here.get()]
    }

    /// The LWP that runs on `cpu`.
    pub fn current_on(&self, cpu: usize) -> Option<usize> {
        self.cpus[cpu].current.get()
    }

    /// The CPU that `lwp` runs on.
    pub fn cpu_of(&self, lwp: usize) -> Option<usize> {
        self.cpus
            .iter()
            .position(|cpu| cpu.current.get() == Some(lwp))
    }

    /// The token of the LWP that runs on `cpu`; the caller runs there from now on.
    ///
    /// # Panics
    ///
    /// If nobody runs there.
    pub fn current(&self, cpu: usize) -> Current<'_, Self, UNITS> {
        self.here.set(cpu);
        let lwp = self.current_on(cpu).expect("somebody runs there");
        // SAFETY: it is current on the CPU that executes; tests use one token at a time.
        unsafe { Current::new(self, self.pointer(lwp)) }
    }

    /// The token of an LWP that runs somewhere; the caller runs there from now on.
    ///
    /// # Panics
    ///
    /// If it runs nowhere.
    pub fn running(&self, lwp: usize) -> Current<'_, Self, UNITS> {
        self.current(self.cpu_of(lwp).expect("it runs"))
    }

    /// The token of an LWP that runs nowhere.
    ///
    /// # Panics
    ///
    /// If it runs.
    pub fn stopped(&self, lwp: usize) -> Stopped<'_, Self, UNITS> {
        assert_eq!(self.cpu_of(lwp), None, "lwp {lwp} runs");
        // SAFETY: it runs nowhere; tests use one token at a time.
        unsafe { Stopped::new(self, self.pointer(lwp)) }
    }

    /// Makes `lwp` the current LWP of `cpu`, or lets the CPU idle.
    ///
    /// # Panics
    ///
    /// If it is called at `IPL_PCU`.
    pub fn switch(&self, cpu: usize, lwp: Option<usize>) {
        self.here.set(cpu);
        assert!(!self.raised.replace(true), "a switch inside a switch");
        // SAFETY: `raised` says so, and is cleared after the token's last use.
        let ipl = unsafe { IplPcu::assume(self) };
        if self.current_on(cpu).is_some() {
            self.pcu.switch_out(&ipl, &mut self.current(cpu));
        }
        self.cpus[cpu].current.set(lwp);
        if lwp.is_some() {
            self.pcu.switchpoint(&ipl, Some(&mut self.current(cpu)));
        } else {
            self.pcu.switchpoint(&ipl, None);
        }
        self.raised.set(false);
    }

    /// The running LWP `lwp` is about to return to user mode; it may migrate here.
    pub fn return_to_user(&self, lwp: usize) {
        let mut current = self.running(lwp);
        drop(self.pcu.before_user(self.raise(), &mut current));
    }

    /// The current LWP of `cpu` uses a unit in user mode: traps until the gate is open where it runs, then writes.
    /// Returns what it found.
    ///
    /// # Errors
    ///
    /// That of the trap.
    ///
    /// # Panics
    ///
    /// If nobody runs there, or the gate stays closed however often it traps.
    pub fn use_unit(&self, cpu: usize, unit: UnitId, write: u64) -> Result<u64, LoadError> {
        let lwp = self.current_on(cpu).expect("somebody runs there");
        self.here.set(cpu);
        // A use that cannot be detected finds whatever is in the registers. One that can may trap again when a hook moved the
        // LWP after the trap was served, but not for ever.
        let mut traps = 0;
        while self.traps(unit) && !self.here().open[unit.index()].get() {
            assert!(traps < 100, "lwp {lwp} traps for ever");
            traps += 1;
            self.trap(self.cpu_of(lwp).expect("it runs"), unit)?;
        }
        Ok(self.here().registers[unit.index()].replace(write))
    }

    /// The current LWP of `cpu` has used a closed unit. The trap's entry keeps the level up, so nothing comes between the use
    /// and the core's first look.
    ///
    /// # Errors
    ///
    /// That of the trap.
    ///
    /// # Panics
    ///
    /// If nobody runs there.
    pub fn trap(&self, cpu: usize, unit: UnitId) -> Result<(), LoadError> {
        let mut current = self.current(cpu);
        self.pcu.trap(self.raise(), &mut current, unit)
    }

    /// Is a use of the closed unit detected?
    pub fn traps(&self, unit: UnitId) -> bool {
        !self.has_untrappable_unit || unit.index() != UNITS - 1
    }

    /// Calls `hook` at every lowering of the level, outside itself.
    pub fn on_lowering(&self, hook: fn(&World)) {
        self.on_lowering.set(Some(hook));
    }

    fn lowered(&self) {
        if let Some(hook) = self.on_lowering.take() {
            hook(self);
            self.on_lowering.set(Some(hook));
        }
    }

    /// Raises the executing CPU to `IPL_PCU`.
    pub fn raise(&self) -> IplPcu<'_, Self, UNITS> {
        // SAFETY: the tests drop such a token before they make another.
        unsafe { IplPcu::raise(self) }
    }

    /// Is the executing CPU at `IPL_PCU`?
    pub fn is_raised(&self) -> bool {
        self.raised.get()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for lwp in self.lwps.borrow().iter() {
            // SAFETY: made by `Box::leak`. The world ends as a machine does, with live registers: they are forgotten.
            let lwp = unsafe { Box::from_raw(lwp.as_ptr()) };
            std::mem::forget(lwp.pcu);
        }
        reg::leave();
    }
}

// SAFETY: P1: one thread plays all CPUs, and `raised` keeps the hook of `splx` out. P2, P3: the index of a vector. P4: a
// field of a leaked box. P5: `new_domain` counts. P6: the call is made at once or refused, with the level lowered around it.
unsafe impl Kernel<UNITS> for World {
    type Lwp = Lwp;
    type Saved = bool;

    fn splraise(&self) -> bool {
        self.raised.replace(true)
    }

    unsafe fn splx(&self, saved: bool) {
        self.raised.set(saved);
        if !saved {
            self.lowered();
        }
    }

    fn cpu_id(&self, _: &IplPcu<'_, Self, UNITS>) -> CpuId {
        assert!(self.raised.get(), "cpu_id below IPL_PCU");
        cpu_id(self.here.get())
    }

    fn cpu_pcu(&self, cpu: CpuId) -> &CpuPcu<Lwp, UNITS> {
        &self.cpus[cpu.index()].pcu
    }

    unsafe fn lwp_pcu(&self, lwp: NonNull<Lwp>) -> NonNull<LwpPcu<UNITS>> {
        // SAFETY: the caller promises a valid LWP.
        let field = unsafe { &raw mut (*lwp.as_ptr()).pcu };
        NonNull::new(field).unwrap()
    }

    unsafe fn domain(&self, lwp: NonNull<Lwp>) -> Option<Domain> {
        // SAFETY: the caller promises a valid LWP.
        Domain::new(unsafe { lwp.as_ref() }.domain.get())
    }

    fn cross_call(
        &self,
        ipl: IplPcu<'_, Self, UNITS>,
        cpu: CpuId,
        f: CrossCall<'_, Self, UNITS>,
    ) -> Result<(), NoAnswer> {
        assert!(self.raised.get(), "published below IPL_PCU");
        if cpu.index() == self.here.get() {
            f(&ipl);
            return Ok(());
        }
        self.log
            .borrow_mut()
            .push(format!("xcall from={} to={}", self.here.get(), cpu.index()));
        drop(ipl);
        assert!(
            !self.raised.get(),
            "a cross-call by a caller that was raised already"
        );
        if self.deaf.get() & (1 << cpu.index()) != 0 {
            return Err(NoAnswer(cpu));
        }
        // The lowering may have moved the caller; the request is served wherever it was sent.
        let caller = self.here.replace(cpu.index());
        self.raised.set(true);
        // SAFETY: `raised` says so, and is cleared after the token's last use.
        f(&unsafe { IplPcu::assume(self) });
        self.raised.set(false);
        self.here.set(caller);
        self.lowered();
        Ok(())
    }
}
