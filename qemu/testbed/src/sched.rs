//! The scheduler: one queue, round robin, any LWP on any CPU that is online and its pin mask allows.
//!
//! A switch in five steps: pick the next LWP under the lock; tell `pcu9` that the current one leaves; change stacks;
//! tell `pcu9` who arrived; and only then put the LWP that was left into the queue, so that no other CPU runs it while
//! its stack is still in use here.
//! Architecture invariants: the lock is never taken by the #NM path; nothing but the switch changes `current`.

mod counters;
mod places;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::arch::naked_asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use x86_64::VirtAddr;
use x86_64::instructions::interrupts;
use x86_64::registers::model_specific::{FsBase, KernelGsBase};

use crate::cpu::{self, apic, hotplug, this, trap};
use crate::event::Event;
use crate::glue::{self, LwpFpu};
use crate::lock::{InterruptsOff, IrqLock};
use crate::lwp::{Lwp, NO_CPU, Start, State};
use crate::memory::paging;
use crate::testing::{annex, holds};
use crate::{timeline, trace};

pub use self::counters::{Counters, counters};
pub use self::places::set_pin;
pub(crate) use self::places::{hold, kick};

#[derive(Debug)]
struct Queue {
    ready: VecDeque<Arc<Lwp>>,
    sleeping: Vec<(usize, Arc<Lwp>)>,
}

static QUEUE: IrqLock<Queue> = IrqLock::new(Queue {
    ready: VecDeque::new(),
    sleeping: Vec::new(),
});

/// Bit C: CPU C sleeps, or is about to, and nobody has woken it yet.
static IDLE: AtomicU64 = AtomicU64::new(0);

/// Whether ticks preempt.
static TIMER: AtomicBool = AtomicBool::new(true);

impl Queue {
    /// Takes the first LWP that may run on `cpu`.
    fn pick(&mut self, cpu: usize) -> Option<Arc<Lwp>> {
        let may_run = |lwp: &Arc<Lwp>| lwp.may_run_on(cpu) && !lwp.is_held.load(Ordering::Relaxed);
        let place = self.ready.iter().position(may_run)?;
        self.ready.remove(place)
    }
}

/// Turns preemption by the timer on or off, and says what it was.
pub fn set_timer(on: bool) -> bool {
    TIMER.swap(on, Ordering::AcqRel)
}

/// Starts a kernel thread that may run anywhere.
///
/// # Panics
///
/// Without memory for it.
pub fn spawn(name: &str, f: impl FnOnce() + Send + 'static) -> Arc<Lwp> {
    spawn_lwp(name, crate::lwp::ANYWHERE, LwpFpu::none(), f)
}

/// Starts a kernel thread on the CPUs of `pin`, with or without FPU state.
pub(crate) fn spawn_lwp(
    name: &str,
    pin: u64,
    fpu: LwpFpu,
    f: impl FnOnce() + Send + 'static,
) -> Arc<Lwp> {
    let lwp = Lwp::with_start(name, None, Start::Kernel(Box::new(f)), fpu)
        .expect("no memory for a kernel thread");
    lwp.pin.store(pin, Ordering::Relaxed);
    make_ready(Arc::clone(&lwp));
    lwp
}

/// Puts a new LWP into the queue.
pub(crate) fn make_ready(lwp: Arc<Lwp>) {
    let allowed = lwp.allowed();
    QUEUE.lock().ready.push_back(lwp);
    wake_a_cpu(allowed);
}

/// Sends an interrupt to one CPU that sleeps and may run what was just queued.
fn wake_a_cpu(allowed: u64) {
    loop {
        let idle = IDLE.load(Ordering::SeqCst) & allowed;
        if idle == 0 {
            return;
        }
        let bit = idle & idle.wrapping_neg();
        if IDLE.fetch_and(!bit, Ordering::SeqCst) & bit != 0 {
            // It looks at the queue when it wakes, whatever wakes it. One that has done so before the interrupt comes, and runs
            // somebody, is asked for nothing.
            let apic_id = &cpu::block(bit.trailing_zeros() as usize).apic_id;
            apic::send_reschedule(apic_id.load(Ordering::Relaxed));
            return;
        }
    }
}

pub(crate) fn request_reschedule(cpu: usize) {
    let block = cpu::block(cpu);
    block.need_resched.store(true, Ordering::Release);
    apic::send_reschedule(block.apic_id.load(Ordering::Relaxed));
}

/// Asks the CPUs of `mask` to look at the queue again, and takes the own one, which goes, from those that can be woken.
pub(crate) fn leave_to(mask: u64) {
    IDLE.fetch_and(!(1 << cpu::index()), Ordering::SeqCst);
    (0..cpu::n_cpus())
        .filter(|cpu| mask & 1 << cpu != 0)
        .for_each(request_reschedule);
}

/// The LWP that executes this.
pub fn current() -> Arc<Lwp> {
    let raw = core::ptr::with_exposed_provenance::<Lwp>(cpu::current_raw() as usize);
    // SAFETY: the CPU that runs this LWP holds a reference to it for as long as it runs, and the pointer came from
    // `Arc::into_raw`.
    unsafe { Arc::increment_strong_count(raw) };
    // SAFETY: the line above made the reference that is taken over here.
    unsafe { Arc::from_raw(raw) }
}

/// A look at the LWP that executes this, without touching its reference count.
pub(crate) fn with_current<R>(f: impl FnOnce(&Lwp) -> R) -> R {
    let raw = core::ptr::with_exposed_provenance::<Lwp>(cpu::current_raw() as usize);
    // SAFETY: as for `current`; the LWP cannot end before this returns, since it is what runs it.
    f(unsafe { &*raw })
}

/// Lets another LWP run, if one waits.
pub fn yield_now() {
    let _off = InterruptsOff::new();
    switch();
}

/// Runs `f` without being preempted; it may still sleep or yield.
pub fn without_preemption<R>(f: impl FnOnce() -> R) -> R {
    with_current(|lwp| lwp.preempt_off.fetch_add(1, Ordering::Relaxed));
    let result = f();
    with_current(|lwp| lwp.preempt_off.fetch_sub(1, Ordering::Relaxed));
    result
}

/// What [`sleep_a_tick`] waits for, and how many do.
static TICK: Event = Event::new();
static N_TICK_SLEEPERS: AtomicU64 = AtomicU64::new(0);

/// Sleeps until the next tick of the boot CPU's timer.
pub fn sleep_a_tick() {
    N_TICK_SLEEPERS.fetch_add(1, Ordering::AcqRel);
    sleep(&TICK, TICK.count());
    N_TICK_SLEEPERS.fetch_sub(1, Ordering::AcqRel);
}

/// Looks once a tick until `condition` gives a value.
pub(crate) fn poll_each_tick<R>(mut condition: impl FnMut() -> Option<R>) -> R {
    loop {
        if let Some(value) = condition() {
            return value;
        }
        sleep_a_tick();
    }
}

/// The timer's interrupt.
pub(crate) fn tick() {
    if cpu::index() == 0 && N_TICK_SLEEPERS.load(Ordering::Relaxed) > 0 {
        TICK.signal();
    }
    if TIMER.load(Ordering::Relaxed) {
        this().need_resched.store(true, Ordering::Relaxed);
    }
}

/// Switches if somebody asked for it and the current LWP allows it, in no kernel section; interrupts are off.
pub(crate) fn preempt() {
    if this().need_resched.load(Ordering::Acquire)
        && !glue::in_section()
        && with_current(|lwp| lwp.preempt_off.load(Ordering::Relaxed) == 0)
    {
        let cpu = this();
        // An idle LWP that makes way was not kept from anything.
        if switch() && !with_current(|lwp| lwp.is_idle) {
            cpu.counters.preemptions.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Sleeps until `event` is signalled; not at all when it was since `seen` was read.
pub(crate) fn sleep(event: &Event, seen: u64) {
    debug_assert!(interrupts::are_enabled(), "sleeping with a lock held");
    let _off = InterruptsOff::new();
    {
        let mut queue = QUEUE.lock();
        if event.count() != seen {
            return;
        }
        let lwp = current();
        lwp.state.store(State::Sleeping as u8, Ordering::Relaxed);
        queue.sleeping.push(((&raw const *event).addr(), lwp));
    }
    switch();
}

/// Wakes everybody who sleeps for `event`.
pub(crate) fn wake(event: &Event) {
    let address = (&raw const *event).addr();
    let mut woken = Vec::new();
    {
        let mut queue = QUEUE.lock();
        while let Some(place) = queue.sleeping.iter().position(|(key, _)| *key == address) {
            let (_, lwp) = queue.sleeping.swap_remove(place);
            lwp.state.store(State::Runnable as u8, Ordering::Relaxed);
            // One that has not left its CPU yet is queued when it has.
            if !lwp.on_cpu.load(Ordering::Relaxed) {
                woken.push(lwp.allowed());
                queue.ready.push_back(lwp);
            }
        }
    }
    woken.into_iter().for_each(wake_a_cpu);
}

/// Ends the LWP that executes this.
pub(crate) fn end() -> ! {
    glue::exit();
    interrupts::disable();
    let lwp = current();
    lwp.ended.store(true, Ordering::Release);
    lwp.end_event.signal();
    lwp.state.store(State::Zombie as u8, Ordering::Relaxed);
    drop(lwp);
    switch();
    unreachable!("an LWP that ended runs again")
}

/// Waits for the end of `lwp`.
pub fn join(lwp: &Lwp) {
    lwp.end_event.wait_for(|| lwp.has_ended().then_some(()));
}

/// Makes the code that runs on this CPU its idle LWP, the one that it had if it comes back.
pub(crate) fn init_cpu() {
    let pcpu = cpu::pcpu();
    if pcpu.idle().is_null() {
        let lwp = Lwp::idle();
        lwp.on_cpu.store(true, Ordering::Relaxed);
        let raw = Arc::into_raw(lwp).cast_mut();
        raw.expose_provenance();
        pcpu.set_idle(raw);
    }
    pcpu.set_current(pcpu.idle());
    apic::start_timer();
    hotplug::joins(cpu::index());
}

/// What a CPU does when nothing else is to be done.
pub(crate) fn idle() -> ! {
    loop {
        interrupts::disable();
        let cpu = cpu::index();
        IDLE.fetch_or(1 << cpu, Ordering::SeqCst);
        if switch() {
            continue;
        }
        hotplug::stop_if_asked();
        if !hotplug::is_online(cpu) {
            hotplug::leave();
            continue;
        }
        // Whoever queues something from here on sees the bit and sends an interrupt, which ends the HLT.
        interrupts::enable_and_hlt();
        IDLE.fetch_and(!(1 << cpu), Ordering::SeqCst);
    }
}

/// Switches to the next LWP, if there is one (or the current one cannot go on); whether it did. Interrupts are off.
fn switch() -> bool {
    assert!(!glue::in_section(), "a switch inside a kernel section");
    let pcpu = cpu::pcpu();
    let (cpu, number) = (&pcpu.extension, cpu::index());
    cpu.need_resched.store(false, Ordering::Relaxed);
    let from = core::ptr::with_exposed_provenance::<Lwp>(cpu::current_raw() as usize);
    // SAFETY: the CPU holds a reference to its current LWP until `finish` gives it up.
    let from = unsafe { &*from };
    let mut migrates = false;
    let next = {
        let mut queue = QUEUE.lock();
        let next = queue.pick(number);
        if let Some(next) = &next {
            next.on_cpu.store(true, Ordering::Relaxed);
            migrates = note_arrival(cpu, number, next);
        }
        next
    };
    let to = match next {
        Some(next) => {
            let to = Arc::into_raw(next).cast_mut();
            to.expose_provenance();
            to
        }
        None if from.is_idle || from.state() == State::Runnable && from.may_run_on(number) => {
            return false;
        }
        None => pcpu.idle(),
    };
    IDLE.fetch_and(!(1 << number), Ordering::SeqCst);

    trace::note_switch(number, from, migrates);
    glue::switch_out(from);
    annex::switch_out(from);
    // SAFETY: `to` is a raw `Arc`: the queue's, or the idle LWP's, which is never given up.
    let next = unsafe { &*to };
    count(cpu, from, next);
    timeline::note_switch(next);
    cpu.switched_from.store(
        (&raw const *from).expose_provenance() as u64,
        Ordering::Relaxed,
    );
    pcpu.set_current(to);
    if !next.is_idle {
        cpu.set_kernel_stack(next.stack_top());
    }
    let table = next.table.load(Ordering::Relaxed);
    if table != from.table.load(Ordering::Relaxed) {
        // SAFETY: the table maps the kernel, and the LWP's process keeps it.
        unsafe { paging::activate(table) };
    }
    if next.process.is_some() {
        FsBase::write(VirtAddr::new(next.fs_base.load(Ordering::Relaxed)));
        KernelGsBase::write(VirtAddr::zero());
    }
    let rsp = next.saved_rsp.load(Ordering::Acquire);
    // SAFETY: `next` was in the queue, or is idle: its registers lie on its stack, complete, and no other CPU uses them.
    unsafe {
        switch_stacks(from.saved_rsp.as_ptr(), rsp);
    };
    finish();
    true
}

fn count(cpu: &cpu::Cpu, from: &Lwp, to: &Lwp) {
    let counters = &cpu.counters;
    counters.switches.fetch_add(1, Ordering::Relaxed);
    counters
        .eager_saves
        .fetch_add(u64::from(from.process.is_some()), Ordering::Relaxed);
    counters
        .eager_restores
        .fetch_add(u64::from(to.process.is_some()), Ordering::Relaxed);
}

/// Notes where an LWP is about to run, and says whether it comes from another CPU; under the lock, so that [`set_pin`] never
/// sees a stale CPU.
fn note_arrival(cpu: &cpu::Cpu, number: usize, to: &Lwp) -> bool {
    let before = to
        .last_cpu
        .swap(u32::try_from(number).unwrap_or(NO_CPU), Ordering::AcqRel);
    let migrates = before != NO_CPU && before as usize != number;
    if migrates {
        cpu.counters.migrations.fetch_add(1, Ordering::Relaxed);
    }
    migrates
}

/// What the LWP that arrives does first, on its own stack: tells `pcu9`, and puts away the LWP that was left.
fn finish() {
    with_current(holds::at_switch_in);
    with_current(glue::switchpoint);
    with_current(annex::switchpoint);
    let from = core::ptr::with_exposed_provenance::<Lwp>(
        this().switched_from.swap(0, Ordering::Relaxed) as usize,
    );
    // SAFETY: the switch left it here; the CPU's reference to it is still counted.
    let lwp = unsafe { &*from };
    if lwp.is_idle {
        return;
    }
    // SAFETY: the CPU's reference, made by `Arc::into_raw` when the LWP was queued; it is taken over once.
    let lwp = unsafe { Arc::from_raw(from) };
    let mut queue = QUEUE.lock();
    lwp.on_cpu.store(false, Ordering::Relaxed);
    if lwp.state() == State::Runnable {
        let allowed = lwp.allowed();
        queue.ready.push_back(lwp);
        drop(queue);
        wake_a_cpu(allowed);
    } else {
        let process_ended = lwp.state() == State::Zombie && lwp.process.is_some();
        drop(queue);
        drop(lwp); // the last reference to one that has ended, often
        if process_ended {
            crate::process::note_end();
        }
    }
}

/// Saves the callee-saved registers, changes stacks, and restores the other LWP's.
///
/// # Safety
///
/// `to` was written here by an earlier call, or by [`prepare_stack`], and is used once. Interrupts are off.
#[unsafe(naked)]
unsafe extern "C" fn switch_stacks(from: *mut u64, to: u64) {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
    )
}

/// Writes to a new stack what [`switch_stacks`] takes from it; the stack pointer to begin with.
pub(crate) fn prepare_stack(top: u64) -> u64 {
    // One word of padding, so that `first_run` sees the alignment that a call leaves.
    let frame: [u64; 8] = [0, 0, 0, 0, 0, 0, first_run as *const () as u64, 0];
    let at = top - size_of_val(&frame) as u64;
    let place = core::ptr::with_exposed_provenance_mut::<[u64; 8]>(at as usize);
    // SAFETY: the stack is new and mapped, and nobody runs on it.
    unsafe { place.write(frame) };
    at
}

/// Where a new LWP begins, with interrupts off.
extern "C" fn first_run() -> ! {
    finish();
    let start = with_current(|lwp| lwp.start.lock().take());
    match start.expect("a new LWP starts once") {
        Start::Kernel(f) => {
            interrupts::enable();
            f();
            end()
        }
        Start::User(frame) => {
            let copy = (*frame).clone();
            drop(frame);
            trap::start_user(copy)
        }
    }
}
