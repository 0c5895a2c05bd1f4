//! An execution context: what a thread of loom's does on the CPU that it is on.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

use loom::sync::MutexGuard;
use loom::sync::atomic::Ordering;
use loom::thread;
use pcu9::kernel::{CpuId, CrossCall, Current, Domain, IplPcu, Kernel, NoAnswer, Stopped};
use pcu9::pcu::{CpuPcu, LoadError, LwpPcu, UnitId};

use crate::inbox::Found;
use crate::{CPUS, Cpu, Hardware, INITIAL, Lwp, Machine, UNITS, cpu_id, reg};

/// The kernel, as one execution context sees it. It starts on one CPU, and moves to another only where a scenario lets it.
#[derive(Debug)]
pub struct Handle {
    machine: &'static Machine,
    /// Which inboxes are its own: contexts, unlike LWPs, stay what they are.
    context: usize,
    cpu: Cell<usize>,
    raised: RefCell<Option<MutexGuard<'static, ()>>>,
    /// It takes back a request that is not served at once.
    is_impatient: Cell<bool>,
    /// The CPU that it moves to while it waits, as soon as nobody runs there.
    moves_to: Cell<Option<usize>>,
    /// It is not on its first CPU any more, or on none.
    has_moved: Cell<bool>,
}

impl Handle {
    /// Plays execution context `context`, on the CPU of the same number, for the time of `f`.
    pub(crate) fn play<R>(
        machine: &'static Machine,
        context: usize,
        f: impl FnOnce(&Self) -> R,
    ) -> R {
        let handle = Self {
            machine,
            context,
            cpu: Cell::new(context),
            raised: RefCell::new(None),
            is_impatient: Cell::new(false),
            moves_to: Cell::new(None),
            has_moved: Cell::new(false),
        };
        reg::play(Some(&handle));
        let result = f(&handle);
        reg::play(None);
        result
    }

    /// The machine.
    pub fn machine(&self) -> &'static Machine {
        self.machine
    }

    /// Goes on as another CPU: before and after the threads run, one handle plays all CPUs.
    pub fn be(&self, cpu: usize) -> &Self {
        self.cpu.set(cpu);
        self
    }

    /// Takes back a request that is not served at once, from now on.
    pub fn lose_patience(&self) {
        self.is_impatient.set(true);
    }

    /// Waits for every answer again.
    pub fn be_patient(&self) {
        self.is_impatient.set(false);
    }

    /// Lets the LWP migrate to `cpu` while it waits, as soon as that CPU is free.
    pub fn may_move_to(&self, cpu: usize) {
        self.moves_to.set(Some(cpu));
    }

    /// Makes `lwp` the current LWP of this CPU, or lets the CPU idle.
    pub fn switch(&self, lwp: Option<usize>) {
        self.switch_from(self.current_lwp(), lwp);
    }

    /// The current LWP uses a unit in user mode: traps until the gate is open, then writes. Returns what it found.
    ///
    /// # Errors
    ///
    /// That of the trap.
    pub fn try_use(&self, unit: UnitId, write: u64) -> Result<u64, LoadError> {
        loop {
            let saved = self.splraise();
            let found = self.hardware(|hardware| {
                let register = &mut hardware.registers[unit.index()];
                hardware.open[unit.index()].then(|| std::mem::replace(register, write))
            });
            if let Some(found) = found {
                // SAFETY: the bracket of a few lines above.
                unsafe { self.splx(saved) };
                return Ok(found);
            }
            // The trap's entry keeps the level up, so nothing comes between the use and the core's first look.
            // SAFETY: as above; the token ends the bracket.
            let ipl = unsafe { IplPcu::adopt(self, saved) };
            self.machine.pcu.trap(ipl, &mut self.current(), unit)?;
        }
    }

    /// As [`try_use`](Self::try_use), where nothing can go wrong.
    ///
    /// # Panics
    ///
    /// If something did.
    pub fn use_unit(&self, unit: UnitId, write: u64) -> u64 {
        self.try_use(unit, write).unwrap()
    }

    /// The current LWP is about to return to user mode; it may wait here.
    pub fn before_user(&self) {
        // SAFETY: the only token of this context.
        let ipl = unsafe { IplPcu::raise(self) };
        drop(self.machine.pcu.before_user(ipl, &mut self.current()));
    }

    /// The token of the LWP that runs here.
    ///
    /// # Panics
    ///
    /// If nobody does.
    pub fn current(&self) -> Current<'_, Self, UNITS> {
        let lwp = self.current_lwp().expect("somebody runs here");
        // SAFETY: it is current; scenarios use one token at a time, and order an LWP's moves by `is_free`.
        unsafe { Current::new(self, self.machine.lwps[lwp]) }
    }

    /// The token of an LWP that runs nowhere in the scenario.
    pub fn stopped(&self, lwp: usize) -> Stopped<'_, Self, UNITS> {
        // SAFETY: it runs nowhere; scenarios use one token at a time.
        unsafe { Stopped::new(self, self.machine.lwps[lwp]) }
    }

    /// What is in the memory of an LWP that the caller holds.
    pub fn memory(&self, lwp: usize, unit: UnitId) -> u64 {
        // SAFETY: the caller holds the LWP, and loom checks that nobody writes.
        self.machine.lwp(lwp).memory[unit.index()].with(|memory| unsafe { *memory })
    }

    /// Writes the memory of an LWP that the caller holds.
    pub fn set_memory(&self, lwp: usize, unit: UnitId, value: u64) {
        // SAFETY: the caller holds the LWP, and loom checks that nobody else is there.
        self.machine.lwp(lwp).memory[unit.index()].with_mut(|memory| unsafe { *memory = value });
    }

    /// The current LWP exits, the CPU idles, and the LWP is freed.
    ///
    /// # Panics
    ///
    /// If a CPU does not answer.
    pub fn exit(&self) {
        let lwp = self.current_lwp().expect("somebody runs here");
        self.machine.pcu.exit(self.current()).unwrap();
        self.switch_from(None, None);
        // SAFETY: it has exited, and each scenario lets it do so once.
        unsafe { self.machine.free(lwp) };
    }

    /// Leaves this CPU to whoever wants to run here; the context ends.
    pub fn leave_cpu(&self) {
        self.switch(None);
        self.has_moved.set(true);
        self.cpu().is_free.store(true, Ordering::Release);
        self.machine.wake_all();
    }

    /// Is it on that CPU?
    pub fn is_on(&self, cpu: usize) -> bool {
        self.cpu.get() == cpu
    }

    /// Takes note of what this execution led to.
    ///
    /// # Panics
    ///
    /// Never: nobody panics while it is locked.
    pub fn note(&self, outcome: &'static str) {
        self.machine.outcomes.lock().unwrap().push(outcome);
    }

    /// What the LWP finds in its registers. For the end, when both CPUs idle: the LWP runs where its state is.
    pub fn state_of(&self, lwp: usize, unit: UnitId) -> u64 {
        let home = self.machine.lwp(lwp).pcu.live_cpu(unit);
        self.be(home.map_or(0, CpuId::index)).switch(Some(lwp));
        let state = self.use_unit(unit, INITIAL);
        self.switch(None);
        state
    }

    /// Lets both CPUs idle.
    pub(crate) fn settle(&self) {
        for cpu in 0..CPUS {
            self.be(cpu).switch(None);
        }
        self.be(0);
    }

    /// Serves what the other context asks of this CPU until that comes to its end too.
    pub(crate) fn end(&self) {
        for cpu in &self.machine.cpus {
            cpu.inboxes[self.context].close();
        }
        self.machine.wake_all();
        let waits = self.machine.is_asked[self.context] && !self.has_moved.get();
        while waits && !self.serve() {
            thread::park();
        }
    }

    pub(crate) fn hardware<R>(&self, f: impl FnOnce(&mut Hardware) -> R) -> R {
        assert!(self.raised.borrow().is_some(), "below IPL_PCU");
        // SAFETY: the CPU's mutex is held, which loom checks.
        self.cpu()
            .hardware
            .with_mut(|hardware| f(unsafe { &mut *hardware }))
    }

    fn cpu(&self) -> &'static Cpu {
        &self.machine.cpus[self.cpu.get()]
    }

    fn current_lwp(&self) -> Option<usize> {
        let saved = self.splraise();
        let current = self.hardware(|hardware| hardware.current);
        self.lower(saved);
        current
    }

    fn switch_from(&self, from: Option<usize>, to: Option<usize>) {
        let saved = self.splraise();
        // SAFETY: at IPL_PCU until the end of the block.
        let ipl = unsafe { IplPcu::assume(self) };
        // SAFETY: `lwp` is current, or becomes so by this switch.
        let token = |lwp: usize| unsafe { Current::new(self, self.machine.lwps[lwp]) };
        if let Some(from) = from {
            self.machine.pcu.switch_out(&ipl, &mut token(from));
        }
        self.hardware(|hardware| hardware.current = to);
        let mut to = to.map(token);
        self.machine.pcu.switchpoint(&ipl, to.as_mut());
        drop(ipl);
        // SAFETY: the bracket of this function.
        unsafe { self.splx(saved) };
    }

    /// Migrates to `cpu` with the current LWP.
    fn migrate(&self, cpu: usize) {
        let lwp = self.current_lwp();
        self.switch_from(lwp, None);
        self.cpu.set(cpu);
        self.has_moved.set(true);
        self.switch_from(None, lwp);
    }

    /// Takes the interrupts that have come in; says whether the other context has come to its end.
    pub(crate) fn serve(&self) -> bool {
        if !self.machine.is_asked[self.cpu.get()] {
            return true;
        }
        let saved = self.splraise();
        // SAFETY: at IPL_PCU until the end of the function.
        let ipl = unsafe { IplPcu::assume(self) };
        let mut is_last = true;
        for (context, inbox) in self.cpu().inboxes.iter().enumerate() {
            match inbox.serve(&ipl) {
                Found::Request => self.machine.wake_all(),
                Found::End => continue,
                Found::Nothing => {}
            }
            is_last &= context == self.context;
        }
        drop(ipl);
        self.lower(saved);
        is_last
    }

    /// Lowers the level without a look at the interrupts.
    fn lower(&self, saved: bool) {
        if !saved {
            drop(self.raised.take());
        }
    }
}

impl Drop for Handle {
    /// Where an execution fails, loom is gone before the contexts' frames are, so nothing of loom's is touched.
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::mem::forget(self.raised.take());
        }
    }
}

// SAFETY: P1: the CPU's mutex, and interrupts are taken in `splx` and while waiting alone. P2, P3: the index of an array; a
// context changes its CPU below IPL_PCU. P4: a field of a box that outlives every use, which `Machine::free` lets loom check. P5:
// an LWP's number, which it keeps. P6: `Inbox`; the frame is left after the answer, or after the request was taken back.
unsafe impl Kernel<UNITS> for Handle {
    type Lwp = Lwp;
    type Saved = bool;

    fn splraise(&self) -> bool {
        let was_raised = self.raised.borrow().is_some();
        if !was_raised {
            let guard = self.cpu().ipl.lock().expect("no thread panicked");
            self.raised.replace(Some(guard));
        }
        was_raised
    }

    unsafe fn splx(&self, saved: bool) {
        if std::thread::panicking() {
            return;
        }
        self.lower(saved);
        if !saved {
            self.serve();
        }
    }

    fn cpu_id(&self, _: &IplPcu<'_, Self, UNITS>) -> CpuId {
        assert!(self.raised.borrow().is_some(), "below IPL_PCU");
        cpu_id(self.cpu.get())
    }

    fn cpu_pcu(&self, cpu: CpuId) -> &CpuPcu<Lwp, UNITS> {
        assert_eq!(cpu.index(), self.cpu.get(), "another CPU's entries (I1)");
        &self.machine.cpus[cpu.index()].pcu
    }

    unsafe fn lwp_pcu(&self, lwp: NonNull<Lwp>) -> NonNull<LwpPcu<UNITS>> {
        // SAFETY: the caller promises a valid LWP.
        NonNull::from(&*unsafe { lwp.as_ref() }.pcu)
    }

    unsafe fn domain(&self, lwp: NonNull<Lwp>) -> Option<Domain> {
        // SAFETY: the caller promises a valid LWP.
        Domain::new(unsafe { lwp.as_ref() }.number as u64 + 1)
    }

    fn cross_call(
        &self,
        ipl: IplPcu<'_, Self, UNITS>,
        cpu: CpuId,
        f: CrossCall<'_, Self, UNITS>,
    ) -> Result<(), NoAnswer> {
        if cpu.index() == self.cpu.get() {
            f(&ipl);
            return Ok(());
        }
        let inbox = &self.machine.cpus[cpu.index()].inboxes[self.context];
        // SAFETY: this frame is left after the answer or the withdrawal; the inbox is this context's own.
        unsafe { inbox.publish(f) };
        self.machine.wake_all();
        drop(ipl);
        assert!(
            self.raised.borrow().is_none(),
            "the caller was raised already"
        );
        if self.is_impatient.get() && inbox.withdraw() {
            return Err(NoAnswer(cpu));
        }
        loop {
            if let Some(cpu) = self.moves_to.get()
                && self.machine.cpus[cpu].is_free.load(Ordering::Acquire)
            {
                self.moves_to.set(None);
                self.migrate(cpu);
            } else {
                thread::park();
                self.serve();
            }
            if inbox.take_answer() {
                return Ok(());
            }
        }
    }
}
