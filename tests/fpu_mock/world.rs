//! A kernel whose FPU is the mock processor's: a few CPUs and LWPs in one thread, as small as the seam allows.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ptr::NonNull;

use fastrand::Rng;
use pcu9::kernel::{CpuId, CrossCall, Current, Domain, Held, IplPcu, Kernel, NoAnswer, Stopped};
use pcu9::pcu::{CpuPcu, LeakRule, LoadError, LwpPcu, Pcu, Policy, UnitOps, UnitStats, Validity};
use pcu9::x86_64::amx::{AMX, Amx};
use pcu9::x86_64::fpu::{FPU, Fpu};
use pcu9::x86_64::machine::Machine;
use pcu9::x86_64::{DeviceNotAvailable, UsedBy};
use pcu9_mock::component::{TILECFG, TILEDATA};
use pcu9_mock::{Cpu as MockCpu, Fault, Mock, Model, Registers};

use super::contents::{check_foreign, check_own, differences};
use super::lwp::Lwp;
use super::sections;

const TILES: u64 = TILECFG | TILEDATA;
/// More than anybody traps.
const TRAPS: usize = 40;

/// The FPU, and AMX where a test asks for it.
pub(crate) const UNITS: usize = 2;

pub(crate) struct Cpu {
    pub(crate) pcu: CpuPcu<Lwp, UNITS>,
    pub(crate) current: Cell<Option<usize>>,
}

/// The machine room: the crate, on `M`.
pub(crate) struct World<M: Machine> {
    pub(crate) pcu: Pcu<World<M>, UNITS>,
    pub(crate) cpus: Vec<Cpu>,
    lwps: RefCell<Vec<NonNull<Lwp>>>,
    pub(crate) model: &'static Model,
    here: Cell<usize>,
    raised: Cell<bool>,
    next_domain: Cell<u64>,
    /// Whatever the LWPs of a domain ever had in their registers.
    seen: RefCell<HashMap<u64, Vec<Registers>>>,
    /// For the registers of a kernel section that an interrupt comes into.
    slot: Cell<Option<NonNull<Lwp>>>,
    /// If set, interrupts use the FPU wherever the level is lowered, by chance.
    pub(crate) interrupts: RefCell<Option<Rng>>,
}

impl<M: Machine> World<M> {
    /// Switches the machine on: each LWP a process of its own, all of them stopped.
    pub(crate) fn new(
        model: &'static Model,
        n_cpus: usize,
        n_lwps: usize,
        policy: Policy,
        rule: LeakRule,
    ) -> Box<Self> {
        // SAFETY: the world has this one alone.
        let pcu = unsafe { Pcu::new([Some(UnitOps::of::<Fpu<M>>()), None]) };
        let pcu = pcu.with_policy(policy).with_leak_rule(rule);
        Self::around(model, n_cpus, n_lwps, pcu)
    }

    /// The same with AMX as the second unit, which is brought in at every switch, and the FPU under Lazy.
    pub(crate) fn with_amx(
        model: &'static Model,
        n_cpus: usize,
        n_lwps: usize,
        rule: LeakRule,
    ) -> Box<Self> {
        let table = [Some(UnitOps::of::<Fpu<M>>()), Some(UnitOps::of::<Amx<M>>())];
        // SAFETY: the world has this one alone.
        let pcu = unsafe { Pcu::new(table) }.with_leak_rule(rule);
        let world = Self::around(model, n_cpus, n_lwps, pcu);
        for cpu in 0..n_cpus {
            world.go_to(cpu);
            // SAFETY: a mock is in ring 0, and nobody has tiles.
            unsafe { Amx::<M>::init_cpu() }.unwrap();
        }
        world.go_to(0);
        world
    }

    fn around(
        model: &'static Model,
        n_cpus: usize,
        n_lwps: usize,
        pcu: Pcu<World<M>, UNITS>,
    ) -> Box<Self> {
        Mock::power_on(model, n_cpus);
        for cpu in 0..n_cpus {
            Mock::run_on(cpu);
            // SAFETY: a mock is in ring 0, and nobody uses its registers.
            unsafe { Fpu::<M>::init_cpu() }.unwrap();
            Mock::with(|cpu| cpu.events = pcu9_mock::Events::default());
        }
        Mock::run_on(0);
        let world = Box::new(Self {
            pcu,
            cpus: (0..n_cpus)
                .map(|_| Cpu {
                    pcu: CpuPcu::new(),
                    current: Cell::new(None),
                })
                .collect(),
            lwps: RefCell::default(),
            model,
            here: Cell::new(0),
            raised: Cell::new(false),
            next_domain: Cell::new(1),
            seen: RefCell::default(),
            slot: Cell::new(None),
            interrupts: RefCell::new(None),
        });
        world.slot.set(Some(world.new_lwp(n_lwps)));
        for number in 0..n_lwps {
            let lwp = world.new_lwp(number);
            world.lwps.borrow_mut().push(lwp);
        }
        world
    }

    fn new_lwp(&self, number: usize) -> NonNull<Lwp> {
        let lwp = Lwp::new::<M>(number, self.new_domain(), self.model);
        NonNull::from(Box::leak(lwp))
    }

    pub(crate) fn new_domain(&self) -> u64 {
        let domain = self.next_domain.get();
        self.next_domain.set(domain + 1);
        domain
    }

    pub(crate) fn n_lwps(&self) -> usize {
        self.lwps.borrow().len()
    }

    fn pointer(&self, lwp: usize) -> NonNull<Lwp> {
        self.lwps.borrow()[lwp]
    }

    pub(crate) fn lwp(&self, lwp: usize) -> &Lwp {
        // SAFETY: LWPs live until `replace` or the end of the world, and are changed through cells alone.
        unsafe { self.pointer(lwp).as_ref() }
    }

    /// Frees an LWP that has exited and puts a new one in its place.
    pub(crate) fn replace(&self, lwp: usize) {
        let old = self.pointer(lwp);
        let new = self.new_lwp(lwp);
        self.lwps.borrow_mut()[lwp] = new;
        // SAFETY: made by `Box::leak`; nobody finds it any more.
        drop(unsafe { Box::from_raw(old.as_ptr()) });
    }

    /// Lets `cpu` execute.
    pub(crate) fn go_to(&self, cpu: usize) {
        self.here.set(cpu);
        Mock::run_on(cpu);
    }

    /// The CPU that executes.
    pub(crate) fn here(&self) -> usize {
        self.here.get()
    }

    pub(crate) fn current_on(&self, cpu: usize) -> Option<usize> {
        self.cpus[cpu].current.get()
    }

    pub(crate) fn cpu_of(&self, lwp: usize) -> Option<usize> {
        let mut cpus = self.cpus.iter();
        cpus.position(|cpu| cpu.current.get() == Some(lwp))
    }

    /// The token of the LWP that runs on `cpu`, which executes from now on.
    pub(crate) fn current(&self, cpu: usize) -> Current<'_, Self, UNITS> {
        self.go_to(cpu);
        let lwp = self.current_on(cpu).expect("somebody runs there");
        // SAFETY: it is current on the CPU that executes; tests use one token at a time.
        unsafe { Current::new(self, self.pointer(lwp)) }
    }

    /// The token of an LWP that runs nowhere.
    pub(crate) fn stopped(&self, lwp: usize) -> Stopped<'_, Self, UNITS> {
        assert_eq!(self.cpu_of(lwp), None, "lwp {lwp} runs");
        // SAFETY: it runs nowhere; tests use one token at a time.
        unsafe { Stopped::new(self, self.pointer(lwp)) }
    }

    /// The token of the LWP that lends its area to a section in an interrupt.
    pub(crate) fn slot(&self) -> Stopped<'_, Self, UNITS> {
        let slot = self.slot.get().expect("a world has one");
        // SAFETY: it never runs; interrupts do not nest.
        unsafe { Stopped::new(self, slot) }
    }

    fn raise(&self) -> IplPcu<'_, Self, UNITS> {
        // SAFETY: the tests drop such a token before they make another.
        unsafe { IplPcu::raise(self) }
    }

    /// Makes `lwp` the current LWP of `cpu`, or lets the CPU idle, and looks at what user mode would find.
    pub(crate) fn switch(&self, cpu: usize, lwp: Option<usize>) {
        self.go_to(cpu);
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
        sections::may_interrupt(self);
        self.look(cpu);
    }

    /// The current LWP of `cpu` returns to user mode.
    pub(crate) fn return_to_user(&self, cpu: usize) {
        let mut current = self.current(cpu);
        drop(self.pcu.before_user(self.raise(), &mut current));
        self.look(cpu);
    }

    /// What user mode finds on `cpu`: through an open gate its own registers whole, behind a closed one its own or initial ones.
    pub(crate) fn look(&self, cpu: usize) {
        let Some(number) = self.current_on(cpu) else {
            return;
        };
        let lwp = self.lwp(number);
        if lwp.domain.get() == 0 {
            return;
        }
        let own = lwp.registers.borrow();
        Mock::on(cpu, |cpu| {
            let has_tiles = cpu.xcr0 & TILES != 0 && cpu.xfd & TILES == 0;
            if has_tiles {
                let differences = differences(cpu, &own) & TILES;
                assert_eq!(differences, 0, "lwp {number}: tiles that are not its own");
            }
            if cpu.cr0 & pcu9_mock::CR0_TS == 0 {
                check_own(cpu, &own, "through the open gate");
            } else if self.pcu.leak_rule() == LeakRule::DomainAware {
                let seen = self.seen.borrow();
                check_foreign(cpu, seen.get(&lwp.domain.get()).map_or(&[], Vec::as_slice));
            }
        });
    }

    /// Notes what an LWP's registers are from now on: its domain has seen them.
    pub(crate) fn note(&self, lwp: usize, registers: Registers) {
        let lwp = self.lwp(lwp);
        let mut seen = self.seen.borrow_mut();
        let of_domain = seen.entry(lwp.domain.get()).or_default();
        of_domain.push(registers.clone());
        *lwp.registers.borrow_mut() = registers;
    }

    /// Forgets what the domains have seen, before another run on the same machine: the LWP that is current on `cpu` starts over, and
    /// nobody else has a state.
    pub(crate) fn forget(&self, cpu: usize) {
        let mut current = self.current(cpu);
        let discarded = self.pcu.discard(&mut current, FPU, Validity::Invalid);
        discarded.expect("it is the current LWP's own");
        let lwp = self.current_on(cpu).expect("somebody runs there");
        self.seen.borrow_mut().clear();
        self.note(lwp, Registers::initial(self.model));
    }

    /// The current LWP of `cpu` executes FPU instructions in user mode, trapping as often as it takes, which interrupts may make
    /// often: first it looks at what it has, then `change` does something and notes it.
    pub(crate) fn compute(
        &self,
        cpu: usize,
        mut change: impl FnMut(&mut MockCpu) -> Result<(), Fault>,
    ) -> Result<(), LoadError> {
        self.go_to(cpu);
        let number = self.current_on(cpu).expect("somebody runs there");
        for _ in 0..TRAPS {
            // FLD, or any use: it is the gate that matters.
            if Mock::with(|cpu| cpu.check(pcu9_mock::Instruction::X87)).is_err() {
                self.trap(cpu)?;
                continue;
            }
            Mock::with(|cpu| check_own(cpu, &self.lwp(number).registers.borrow(), "at a use"));
            match Mock::with(&mut change) {
                Err(Fault::DeviceNotAvailable) => self.trap(cpu)?,
                result => {
                    result.expect("the program is a good one");
                    let registers = Mock::with(|cpu| cpu.registers.clone());
                    self.note(number, registers);
                    return Ok(());
                }
            }
        }
        panic!("the gate stays closed after {TRAPS} traps");
    }

    /// `#NM` from user mode.
    pub(crate) fn trap(&self, cpu: usize) -> Result<(), LoadError> {
        let mut current = self.current(cpu);
        let ipl = self.raise();
        // SAFETY: a mock is in ring 0.
        let cause = unsafe { DeviceNotAvailable::classify_on::<M>(UsedBy::Lwp, 0) };
        let DeviceNotAvailable::Unit(unit) = cause else {
            panic!("an LWP's trap is {cause:?}");
        };
        self.pcu.trap(ipl, &mut current, unit)
    }

    /// Lets the current LWP of `cpu` use AMX from now on.
    pub(crate) fn permit_amx(&self, cpu: usize) -> Result<(), LoadError> {
        let lwp = self.lwp(self.current_on(cpu).expect("somebody runs there"));
        lwp.permit_amx::<M>();
        self.pcu.load(&mut self.current(cpu), AMX)
    }

    /// The scheduler's turn to another security domain: nobody runs on `cpu`, whose registers are flushed.
    pub(crate) fn flush(&self, cpu: usize, stand_in: usize) {
        self.switch(cpu, None);
        assert!(!self.raised.replace(true), "a flush inside a switch");
        // SAFETY: `raised` says so, and is cleared after the token's last use.
        let ipl = unsafe { IplPcu::assume(self) };
        self.pcu.flush(&ipl, &mut self.stopped(stand_in));
        self.raised.set(false);
    }

    /// The registers of an LWP are initial from now on: exec, or a state that was lost to a bad image.
    pub(crate) fn starts_over(&self, lwp: usize) {
        *self.lwp(lwp).registers.borrow_mut() = Registers::initial(self.model);
    }

    /// The counters of all CPUs.
    pub(crate) fn sum(&self) -> UnitStats {
        let mut sum = UnitStats::default();
        self.cpus.iter().for_each(|cpu| sum += cpu.pcu.stats(FPU));
        sum
    }

    /// What must hold at the end of every run.
    pub(crate) fn check_end(&self) {
        for cpu in 0..self.cpus.len() {
            let events = Mock::on(cpu, |cpu| cpu.events);
            assert_eq!(
                events.redundant_ts_writes, 0,
                "cpu {cpu}: TS written with the value it has"
            );
            assert_eq!(events.cpuids, 0, "cpu {cpu}: CPUID on a hot path");
        }
        (0..self.n_lwps()).for_each(|lwp| self.lwp(lwp).check_canary());
        let slot = self.slot();
        // SAFETY: it lives as long as the world.
        unsafe { slot.lwp().as_ref() }.check_canary();
    }
}

impl<M: Machine> Drop for World<M> {
    fn drop(&mut self) {
        for lwp in self.lwps.borrow().iter().chain(&self.slot.get()) {
            // SAFETY: made by `Box::leak`. The world ends as a machine does, with live registers: they are forgotten.
            let lwp = unsafe { Box::from_raw(lwp.as_ptr()) };
            if std::thread::panicking() {
                std::mem::forget(lwp);
            } else {
                lwp.free_areas();
                std::mem::forget(lwp);
            }
        }
    }
}

// SAFETY: P1: one thread plays all CPUs. P2, P3: the index of a vector. P4: a field of a leaked box. P5: `new_domain` counts.
// P6: the call is made at once, with the level lowered around it.
unsafe impl<M: Machine> Kernel<UNITS> for World<M> {
    type Lwp = Lwp;
    type Saved = bool;

    fn splraise(&self) -> bool {
        self.raised.replace(true)
    }

    unsafe fn splx(&self, saved: bool) {
        self.raised.set(saved);
        if !saved {
            sections::may_interrupt(self);
        }
    }

    fn cpu_id(&self, _: &IplPcu<'_, Self, UNITS>) -> CpuId {
        CpuId::new(u16::try_from(self.here.get()).unwrap()).unwrap()
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
        if cpu.index() == self.here.get() {
            f(&ipl);
            return Ok(());
        }
        drop(ipl);
        let caller = self.here.get();
        self.go_to(cpu.index());
        self.raised.set(true);
        // SAFETY: `raised` says so, and is cleared after the token's last use.
        f(&unsafe { IplPcu::assume(self) });
        self.raised.set(false);
        self.go_to(caller);
        Ok(())
    }
}
