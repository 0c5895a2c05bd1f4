//! A kernel for host tests: CPUs, LWPs and units that are a `u64` each, in one thread.
//!
//! "Running on CPU c" is a field of [`World`]. A cross-call is a function call on behalf of another CPU. Wherever the level is
//! lowered, the test may preempt the running LWP, let others run, and bring it back on another CPU ([`World::on_lowering`]).

mod graves;
mod reg;
mod seam;

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::thread;

use pcu9::kernel::{CpuId, Current, IplPcu, Stopped};
use pcu9::pcu::{AcceptLazyFp, CpuPcu, LeakRule, LoadError, LwpPcu, Pcu, Policy, UnitId, UnitOps};
use static_assertions::assert_not_impl_any;

pub use graves::Memory;
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
    /// It never runs: kernel sections save the registers of others to its memory.
    pub is_slot: Cell<bool>,
    /// The unit does not give it back registers that are its own.
    pub fails_reenable: Cell<bool>,
    /// It has exited: nobody may touch it any more.
    is_dead: Cell<bool>,
    /// Somebody keeps it from running, and made a token for it.
    is_held: Cell<bool>,
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

/// What is called at the end of a stretch at `IPL_PCU`, with the CPU that it ran on.
pub type SectionHook = fn(&World, usize);

/// The machine.
#[derive(Debug)]
pub struct World {
    /// The crate.
    pub pcu: Pcu<World, UNITS>,
    /// All CPUs.
    pub cpus: Vec<Cpu>,
    lwps: RefCell<Vec<NonNull<Lwp>>>,
    /// What [`slot`](Self::slot) made.
    slots: RefCell<Vec<NonNull<Lwp>>>,
    /// The CPU that executes.
    pub here: Cell<usize>,
    raised: Cell<bool>,
    next_domain: Cell<u64>,
    untrappable: Option<UnitId>,
    graves: RefCell<Vec<graves::Grave>>,
    /// Callbacks and cross-calls in the format of the conformance vectors.
    pub log: RefCell<Vec<String>>,
    on_lowering: Cell<Option<fn(&World)>>,
    on_section_end: Cell<Option<SectionHook>>,
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
        Self::with_last_unit_untrappable(n_cpus, n_lwps, UNITS, rule)
    }

    /// The same with `n_units` units, of which a use of the last cannot be detected.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub fn with_last_unit_untrappable(
        n_cpus: usize,
        n_lwps: usize,
        n_units: usize,
        rule: LeakRule,
    ) -> Box<Self> {
        let first = Some(UnitOps::of::<Reg<0>>());
        let table = match n_units {
            1 => [Some(UnitOps::of::<Reg<0, false>>()), None, None],
            2 => [first, Some(UnitOps::of::<Reg<1, false>>()), None],
            UNITS => [
                first,
                Some(UnitOps::of::<Reg<1>>()),
                Some(UnitOps::of::<Reg<2, false>>()),
            ],
            _ => panic!("a table of {n_units} units"),
        };
        // SAFETY: the world has this one alone.
        let pcu = unsafe { Pcu::new(table) };
        let mut world = Self::around(n_cpus, n_lwps, pcu.with_leak_rule(rule));
        world.untrappable = u8::try_from(n_units - 1).ok().map(unit);
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
            slots: RefCell::default(),
            here: Cell::new(0),
            raised: Cell::new(false),
            next_domain: Cell::new(1),
            untrappable: None,
            graves: RefCell::default(),
            log: RefCell::default(),
            on_lowering: Cell::new(None),
            on_section_end: Cell::new(None),
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
        NonNull::from(Box::leak(Box::new(self.blank(number))))
    }

    fn blank(&self, number: usize) -> Lwp {
        Lwp {
            number,
            pcu: LwpPcu::new(),
            domain: Cell::new(self.new_domain()),
            memory: [const { Cell::new(INITIAL) }; UNITS],
            refuses_area: Cell::new(false),
            bad_image: Cell::new(false),
            is_slot: Cell::new(false),
            fails_reenable: Cell::new(false),
            is_dead: Cell::new(false),
            is_held: Cell::new(false),
        }
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

    /// The token of an LWP of its own that never runs, for a kernel section inside another one.
    pub fn slot(&self) -> Stopped<'_, Self, UNITS> {
        let slot = self.new_lwp(usize::MAX);
        // SAFETY: made a line above, and freed with the world.
        unsafe { slot.as_ref() }.is_slot.set(true);
        self.slots.borrow_mut().push(slot);
        // SAFETY: it runs nowhere, and nobody else knows it.
        unsafe { Stopped::new(self, slot) }
    }

    /// The token of an LWP that runs nowhere.
    ///
    /// # Panics
    ///
    /// If it runs.
    pub fn stopped(&self, lwp: usize) -> Stopped<'_, Self, UNITS> {
        assert_eq!(self.cpu_of(lwp), None, "lwp {lwp} runs");
        self.lwp(lwp).is_held.set(true);
        // SAFETY: it runs nowhere; tests use one token at a time.
        unsafe { Stopped::new(self, self.pointer(lwp)) }
    }

    /// Makes `lwp` the current LWP of `cpu`, or lets the CPU idle.
    ///
    /// # Panics
    ///
    /// If it is called at `IPL_PCU`.
    pub fn switch(&self, cpu: usize, lwp: Option<usize>) {
        self.switch_around(cpu, lwp, |ipl, leaves| self.pcu.switch_out(ipl, leaves));
    }

    /// The same in a kernel that leaves the hook at switch-out away.
    ///
    /// # Panics
    ///
    /// As [`switch`](Self::switch).
    pub fn switch_without_switch_out(&self, cpu: usize, lwp: Option<usize>) {
        self.switch_around(cpu, lwp, |_, _| ());
    }

    fn switch_around(
        &self,
        cpu: usize,
        lwp: Option<usize>,
        leave: impl FnOnce(&IplPcu<'_, Self, UNITS>, &mut Current<'_, Self, UNITS>),
    ) {
        self.here.set(cpu);
        assert!(!self.raised.replace(true), "a switch inside a switch");
        // SAFETY: `raised` says so, and is cleared after the token's last use.
        let ipl = unsafe { IplPcu::assume(self) };
        if self.current_on(cpu).is_some() {
            leave(&ipl, &mut self.current(cpu));
        }
        self.cpus[cpu].current.set(lwp);
        if let Some(lwp) = lwp {
            self.lwp(lwp).is_held.set(false);
            self.pcu.switchpoint(&ipl, Some(&mut self.current(cpu)));
        } else {
            self.pcu.switchpoint(&ipl, None);
        }
        self.section_ends();
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
        self.untrappable != Some(unit)
    }

    /// Calls `hook` at every lowering of the level, outside itself.
    pub fn on_lowering(&self, hook: fn(&World)) {
        self.on_lowering.set(Some(hook));
    }

    /// Calls `hook` at the end of every stretch at `IPL_PCU`, just before the level is lowered.
    pub fn on_section_end(&self, hook: SectionHook) {
        self.on_section_end.set(Some(hook));
    }

    fn section_ends(&self) {
        // A test that has failed ends here: what it finds on its way out is no news.
        if let (Some(hook), false) = (self.on_section_end.get(), thread::panicking()) {
            hook(self, self.here.get());
        }
        self.raised.set(false);
    }

    fn lowered(&self) {
        if let (Some(hook), false) = (self.on_lowering.take(), thread::panicking()) {
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
        for lwp in self.lwps.borrow().iter().chain(self.slots.borrow().iter()) {
            // SAFETY: made by `Box::leak`. The world ends as a machine does, with live registers: they are forgotten.
            let lwp = unsafe { Box::from_raw(lwp.as_ptr()) };
            std::mem::forget(lwp.pcu);
        }
        self.end_graves();
        reg::leave();
    }
}
