//! What can happen next in a state, and making it happen.

use std::fmt;
use std::ptr::NonNull;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult};
use pcu9::kernel::{Current, IplPcu, NoAnswer, Stopped};
use pcu9::pcu::{CoreDump, Validity, WriteBackAtIdle};

use super::config::{Fault, Kind, Uses};
use super::flight::{Answer, At, Flight, Job, Op, What, Who};
use super::unit::{INITIAL, was_called};
use super::world::{CPUS, LWPS, RequestState, UNITS, World, unit_id};

const STACK_BYTES: usize = 64 << 10;

/// One step of the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// User mode of this LWP reads and writes an open unit.
    Use(usize, usize),
    /// This LWP begins an operation.
    Begin(usize, Op),
    /// This CPU begins a job.
    Start(usize, Job),
    /// What is under way goes on to its next cut.
    Advance(Who),
    /// This LWP gives up waiting for a cross-call that has not begun.
    Withdraw(usize),
}

impl Choice {
    /// Does it bring what is under way nearer to its end?
    pub(crate) fn finishes(self) -> bool {
        match self {
            Self::Advance(_) => true,
            Self::Start(_, job) => job != Job::SaveAllOnCpu,
            Self::Use(..) | Self::Begin(..) | Self::Withdraw(_) => false,
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Use(lwp, unit) => write!(f, "lwp {lwp} reads and writes unit {unit}"),
            Self::Begin(lwp, op) => write!(f, "lwp {lwp} begins {op}"),
            Self::Start(cpu, job) => write!(f, "cpu {cpu} begins {job}"),
            Self::Advance(Who::Lwp(lwp)) => write!(f, "lwp {lwp} goes on"),
            Self::Advance(Who::Cpu(cpu)) => write!(f, "cpu {cpu} goes on"),
            Self::Withdraw(lwp) => write!(f, "lwp {lwp} withdraws its cross-call"),
        }
    }
}

impl World {
    /// Is nothing under way?
    pub(crate) fn is_quiet(&self) -> bool {
        self.flights.iter().all(|flight| flight.get().is_none())
    }

    pub(crate) fn flight(&self, who: Who) -> Option<Flight> {
        self.flights[who.slot()].get()
    }

    /// May something else come in on this CPU?
    fn is_open(&self, cpu: usize) -> bool {
        let is_low = !self.cpus[cpu].own.raised.get() || self.config.fault == Fault::SwitchAtIpl;
        is_low && self.flight(Who::Cpu(cpu)).is_none()
    }

    /// All choices of this state.
    pub(crate) fn choices(&self) -> Vec<Choice> {
        let mut choices = Vec::with_capacity(32);
        self.all_choices(&mut choices);
        if let Some(words) = self.words_of_lone_section() {
            choices.retain(|choice| self.is_about(*choice, words));
        }
        choices
    }

    fn all_choices(&self, choices: &mut Vec<Choice>) {
        for cpu in 0..CPUS {
            if self.flight(Who::Cpu(cpu)).is_some() {
                choices.push(Choice::Advance(Who::Cpu(cpu)));
            }
            let current = self.cpus[cpu].own.current.get();
            if let Some(lwp) = current {
                self.choices_of(cpu, lwp, choices);
            }
            if !self.is_open(cpu) {
                continue;
            }
            choices.extend((0..LWPS).filter_map(|asker| {
                let request = self.requests[asker].get()?;
                let is_here = request.to == cpu && request.state == RequestState::Published;
                is_here.then_some(Choice::Start(cpu, Job::Serve(asker)))
            }));
            if self.config.flushes {
                choices.push(Choice::Start(cpu, Job::SaveAllOnCpu));
            }
            if let Some(lwp) = current {
                choices.push(Choice::Start(cpu, Job::Leave(lwp)));
            } else {
                if self.config.write_back_at_idle == WriteBackAtIdle::On {
                    choices.push(Choice::Start(cpu, Job::Idle));
                }
                let can_run =
                    |lwp: &usize| self.cpu_of(*lwp).is_none() && !self.lwps[*lwp].own.is_held.get();
                let arrivals = (0..self.config.lwps).filter(can_run);
                choices.extend(arrivals.map(|lwp| Choice::Start(cpu, Job::Arrive(lwp))));
            }
        }
    }

    /// What the current LWP of a CPU can do.
    fn choices_of(&self, cpu: usize, lwp: usize, choices: &mut Vec<Choice>) {
        let is_open = self.is_open(cpu);
        let Some(flight) = self.flight(Who::Lwp(lwp)) else {
            if is_open {
                self.beginnings(cpu, lwp, choices);
            }
            return;
        };
        let can_go_on = match flight.at {
            At::Look | At::Store(_) => self.flight(Who::Cpu(cpu)).is_none(),
            At::Raise => is_open,
            At::Wait => {
                let request = self.requests[lwp].get().expect("it waits for one");
                let gives_up =
                    self.config.withdrawals || self.config.fault == Fault::AnswerUnserved;
                if request.state == RequestState::Published && gives_up && is_open {
                    choices.push(Choice::Withdraw(lwp));
                }
                let is_back = is_open || self.config.fault == Fault::WaitAtIpl;
                is_back && matches!(request.state, RequestState::Answered(_))
            }
        };
        if can_go_on {
            choices.push(Choice::Advance(Who::Lwp(lwp)));
        }
    }

    fn beginnings(&self, cpu: usize, lwp: usize, choices: &mut Vec<Choice>) {
        let is_other = |flight: Flight| {
            !matches!(
                flight.what,
                What::Op(Op::Trap(_) | Op::Load(_)) | What::Job(_)
            )
        };
        let under_way = Who::all()
            .filter_map(|who| self.flight(who))
            .filter(|flight| is_other(*flight))
            .count();
        let mut begin = |op| choices.push(Choice::Begin(lwp, op));
        for kind in self.config.ops {
            if under_way >= self.config.at_once && !matches!(kind, Kind::Trap | Kind::Load) {
                continue;
            }
            match kind {
                Kind::Trap => {
                    for unit in
                        (0..self.config.units).filter(|unit| !self.cpus[cpu].own.open[*unit].get())
                    {
                        begin(Op::Trap(unit));
                    }
                }
                Kind::Load => (0..self.config.units).for_each(|unit| begin(Op::Load(unit))),
                Kind::Save => (0..self.config.units).for_each(|unit| begin(Op::Save(unit))),
                Kind::SaveAll => begin(Op::SaveAll(CoreDump::No)),
                Kind::Dump => begin(Op::SaveAll(CoreDump::Yes)),
                Kind::Discard => (0..self.config.units).for_each(|unit| begin(Op::Discard(unit))),
                Kind::DiscardAll => begin(Op::DiscardAll),
                Kind::Replace => (0..self.config.units).for_each(|unit| begin(Op::Replace(unit))),
                Kind::BeforeUser => begin(Op::BeforeUser),
                Kind::Exec => begin(Op::Exec),
                Kind::Exit => begin(Op::Exit),
                Kind::Fork => (0..self.config.lwps)
                    .filter(|child| {
                        self.cpu_of(*child).is_none()
                            && self.flight(Who::Lwp(*child)).is_none()
                            && !self.lwps[*child].own.is_held.get()
                    })
                    .for_each(|child| begin(Op::Fork(child))),
            }
        }
        if self.config.uses == Uses::Chosen {
            let open = (0..self.config.units).filter(|unit| self.cpus[cpu].own.open[*unit].get());
            choices.extend(open.map(|unit| Choice::Use(lwp, unit)));
        }
    }

    /// Makes it happen.
    ///
    /// # Panics
    ///
    /// If a check fails, here or in the crate.
    pub(crate) fn take(&'static self, choice: Choice) {
        match choice {
            Choice::Use(lwp, unit) => self.use_unit(self.cpu_of(lwp).expect("it runs"), lwp, unit),
            Choice::Begin(lwp, op) => {
                self.launch(Who::Lwp(lwp), What::Op(op), move |world| {
                    world.perform(lwp, op);
                });
            }
            Choice::Start(cpu, job) => {
                self.launch(Who::Cpu(cpu), What::Job(job), move |world| {
                    world.work(cpu, job);
                });
            }
            Choice::Advance(who) => self.resume(who),
            Choice::Withdraw(lwp) => self.answer(
                lwp,
                if self.config.fault == Fault::AnswerUnserved {
                    Answer::Raced
                } else {
                    Answer::Withdrawn
                },
            ),
        }
        if self.config.uses == Uses::Always {
            self.use_all();
        }
    }

    fn use_unit(&self, cpu: usize, lwp: usize, unit: usize) {
        let own = &self.lwps[lwp].own;
        let register = &self.cpus[cpu].own.registers[unit];
        assert_eq!(
            register.get(),
            own.newest[unit].get(),
            "lwp {lwp} reads unit {unit}"
        );
        register.set(self.fresh_value(lwp));
        own.newest[unit].set(register.get());
    }

    /// Whoever may be in user mode uses what is open.
    fn use_all(&self) {
        for cpu in 0..CPUS {
            let own = &self.cpus[cpu].own;
            let Some(lwp) = own.current.get() else {
                continue;
            };
            if !own.raised.get() && self.flight(Who::Lwp(lwp)).is_none() {
                (0..UNITS)
                    .filter(|unit| own.open[*unit].get())
                    .for_each(|unit| self.use_unit(cpu, lwp, unit));
            }
        }
    }

    fn answer(&self, asker: usize, answer: Answer) {
        let mut request = self.requests[asker].get().expect("it asked");
        request.state = RequestState::Answered(answer);
        self.requests[asker].set(Some(request));
    }

    fn launch(&'static self, who: Who, what: What, body: impl FnOnce(&'static Self) + 'static) {
        // SAFETY: nobody else looks at the vector meanwhile.
        let stack = unsafe { &mut *self.stacks.get() }
            .pop()
            .unwrap_or_else(|| DefaultStack::new(STACK_BYTES).expect("memory for a stack"));
        let coroutine = Coroutine::with_stack(stack, move |yielder, ()| {
            self.yielders[who.slot()].set(Some(NonNull::from(yielder)));
            body(self);
        });
        self.notes[who.slot()].borrow_mut().clear();
        self.flights[who.slot()].set(Some(Flight::new(what)));
        self.coroutines[who.slot()].set(Some(coroutine));
        self.resume(who);
    }

    fn resume(&'static self, who: Who) {
        let mut coroutine = self.coroutines[who.slot()].take().expect("it is under way");
        let cpu = match who {
            Who::Lwp(lwp) => self.cpu_of(lwp).expect("it runs"),
            Who::Cpu(cpu) => cpu,
        };
        self.here.set(cpu);
        self.running.set(Some(who));
        let result = coroutine.resume(());
        self.running.set(None);
        if let CoroutineResult::Yield(()) = result {
            self.coroutines[who.slot()].set(Some(coroutine));
        } else {
            self.flights[who.slot()].set(None);
            // SAFETY: nobody else looks at the vector meanwhile.
            unsafe { &mut *self.stacks.get() }.push(coroutine.into_stack());
        }
    }

    /// Drops what is under way, without unwinding it.
    pub(crate) fn abandon(&self) {
        for who in Who::all() {
            if let Some(mut coroutine) = self.coroutines[who.slot()].take() {
                // SAFETY: nothing on its stack owns anything, and the machine it refers to is put back or left for good.
                unsafe { coroutine.force_reset() };
                // SAFETY: nobody else looks at the vector meanwhile.
                unsafe { &mut *self.stacks.get() }.push(coroutine.into_stack());
            }
            self.flights[who.slot()].set(None);
        }
        self.requests.iter().for_each(|request| request.set(None));
        self.running.set(None);
    }

    /// An operation of the current LWP, from its entry into the kernel to its return to user mode.
    fn perform(&'static self, lwp: usize, op: Op) {
        // SAFETY: it is current where the explorer resumes this, and this is the only token in use.
        let mut current = unsafe { Current::new(self, self.pointer(lwp)) };
        let end = |units: std::ops::Range<usize>, result: Result<(), NoAnswer>| {
            for unit in units.filter(|_| result.is_ok()) {
                self.lwps[lwp].own.newest[unit].set(INITIAL);
            }
            result.is_ok()
        };
        let is_ok = match op {
            Op::Trap(unit) => {
                // The entry is an interrupt gate.
                self.with_flight(|flight| flight.is_fresh = false);
                self.here().own.raised.set(true);
                // SAFETY: the bracket was opened a line above, and `splx(false)` ends it.
                let ipl = unsafe { IplPcu::adopt(self, false) };
                let result = self.pcu.trap(ipl, &mut current, unit_id(unit));
                self.check_loaded(lwp, unit, result.is_ok());
                result.is_ok()
            }
            Op::Load(unit) => {
                let result = self.pcu.load(&mut current, unit_id(unit));
                self.check_loaded(lwp, unit, result.is_ok());
                result.is_ok()
            }
            Op::Save(unit) => self.pcu.save(&mut current, unit_id(unit)).is_ok(),
            Op::SaveAll(dump) => self.pcu.save_all(&mut current, dump).is_ok(),
            Op::Discard(unit) => {
                let result = self
                    .pcu
                    .discard(&mut current, unit_id(unit), Validity::Invalid);
                end(unit..unit + 1, result)
            }
            Op::DiscardAll => end(0..UNITS, self.pcu.discard_all(&mut current)),
            Op::Replace(unit) => {
                let write = || {
                    let own = &self.lwps[lwp].own;
                    own.memory[unit].set(self.fresh_value(lwp));
                    own.newest[unit].set(own.memory[unit].get());
                    Ok::<(), NoAnswer>(())
                };
                self.pcu
                    .replace(&mut current, unit_id(unit), |_| write())
                    .is_ok()
            }
            Op::BeforeUser => {
                drop(self.pcu.before_user(self.raise(), &mut current));
                true
            }
            Op::Exec => {
                let change_domain = || self.lwps[lwp].own.domain.set(self.fresh_number());
                end(0..UNITS, self.pcu.exec(&mut current, change_domain))
            }
            Op::Exit => {
                let is_ok = self.pcu.exit(current).is_ok();
                if is_ok {
                    self.here().own.current.set(None);
                    self.respawn(lwp, self.fresh_number());
                }
                is_ok
            }
            Op::Fork(child) => self.fork(lwp, &mut current, child),
        };
        if is_ok {
            self.witness.completed(op.kind());
        }
    }

    fn raise(&'static self) -> IplPcu<'static, Self, UNITS> {
        // SAFETY: the only token of its context.
        unsafe { IplPcu::raise(self) }
    }

    /// What a load promises.
    fn check_loaded(&self, lwp: usize, unit: usize, is_ok: bool) {
        if is_ok {
            let own = &self.here().own;
            assert!(own.open[unit].get(), "loaded, and the gate is closed");
            let newest = self.lwps[lwp].own.newest[unit].get();
            assert_eq!(
                own.registers[unit].get(),
                newest,
                "loaded for lwp {lwp}, unit {unit}"
            );
        } else {
            assert!(self.config.withdrawals, "failed without a reason");
        }
    }

    fn fork(
        &'static self,
        lwp: usize,
        current: &mut Current<'_, Self, UNITS>,
        child: usize,
    ) -> bool {
        let own = &self.lwps[child].own;
        own.is_held.set(true);
        // SAFETY: it runs nowhere, and is not picked while it is held.
        let mut stopped = unsafe { Stopped::new(self, self.pointer(child)) };
        let is_buried = self.pcu.discard_all(&mut stopped).is_ok();
        let mut is_ok = is_buried;
        if is_buried {
            self.respawn(child, self.lwps[lwp].own.domain.get());
            is_ok = self.pcu.fork(current, &mut stopped).is_ok();
            if is_ok {
                for unit in 0..UNITS {
                    let is_valid = self.lwp_state(child).valid_p(unit_id(unit));
                    let found = if is_valid {
                        own.memory[unit].get()
                    } else {
                        INITIAL
                    };
                    let newest = self.lwps[lwp].own.newest[unit].get();
                    assert_eq!(found, newest, "the child's unit {unit}");
                    own.newest[unit].set(newest);
                }
            } else {
                self.respawn(child, self.fresh_number());
            }
        } else {
            (0..UNITS)
                .filter(|unit| !self.lwp_state(child).valid_p(unit_id(*unit)))
                .for_each(|unit| own.newest[unit].set(INITIAL));
        }
        own.is_held.set(false);
        is_ok
    }

    /// A job of a CPU, all of it at `IPL_PCU`.
    fn work(&'static self, cpu: usize, job: Job) {
        let own = &self.cpus[cpu].own;
        own.raised.set(true);
        // SAFETY: the bracket is open until the end of this function.
        let ipl = unsafe { IplPcu::assume(self) };
        match job {
            Job::Leave(lwp) => {
                if self.config.fault != Fault::NoSwitchOut {
                    // SAFETY: it is current until the next line.
                    let mut current = unsafe { Current::new(self, self.pointer(lwp)) };
                    self.pcu.switch_out(&ipl, &mut current);
                }
                own.current.set(None);
            }
            Job::Idle => self.pcu.switchpoint(&ipl, None),
            Job::Arrive(lwp) => {
                own.current.set(Some(lwp));
                if self.config.fault != Fault::NoSwitchpoint {
                    // SAFETY: it is current from the line above on.
                    let mut current = unsafe { Current::new(self, self.pointer(lwp)) };
                    self.pcu.switchpoint(&ipl, Some(&mut current));
                }
            }
            Job::Serve(asker) => {
                let mut request = self.requests[asker].get().expect("it was published");
                request.state = RequestState::Begun;
                self.requests[asker].set(Some(request));
                (request.f)(&ipl);
                let was_served = was_called(self, Who::Cpu(cpu));
                if self.config.fault != Fault::LostWakeup || self.cpu_of(asker).is_some() {
                    self.answer(
                        asker,
                        if was_served {
                            Answer::Served
                        } else {
                            Answer::Raced
                        },
                    );
                }
                if self.cpu_of(asker) == Some(cpu) {
                    self.witness.migrated_to_holder.bump();
                }
            }
            Job::SaveAllOnCpu => self.pcu.save_all_on_cpu(&ipl),
        }
        own.raised.set(false);
    }
}
