//! The timeline: who runs on each CPU, who owns its FPU, and everything that `pcu9` counts, each with its time.
//!
//! The crate calls nobody when something happens: it counts. Whatever it does lies between two steps of the unit, or between
//! two hooks that this kernel calls itself. At each of these the CPU compares its counters with those of its last look
//! ([`lane`]): what has grown has just happened. So there is an event for everything that is counted, and for nothing else.
//!
//! The command line says from when to when, in microseconds since the first program: `timeline=FROM-TO`, or `timeline=FROM-`
//! to the end. What is outside is not kept, and what there is no room for is counted.

mod lane;

use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::cpu::crosscall;
use crate::cpu::{self, MAX_CPUS, time};
use crate::line;
use crate::lock::{InterruptsOff, IrqLock};
use crate::lwp::Lwp;
use crate::step;

use self::lane::{Event, Lane, Occasion, Whose};

/// For how many events a CPU has room where the command line names no end: more would keep the serial line busy.
const ROOM_WITHOUT_END: usize = 1 << 12;
/// The same where it does.
const ROOM: usize = 1 << 15;
/// How many events stand on a line.
const LINE_EVENTS: usize = 32;

static LANES: [IrqLock<Option<Lane>>; MAX_CPUS] = [const { IrqLock::new(None) }; MAX_CPUS];

/// How many CPUs have something to look for; once none has, a step costs what it does without a timeline.
static N_GOING_ON: AtomicUsize = AtomicUsize::new(0);

/// A cross-call that is in the timeline: who asked, and which of its cross-calls this is.
pub(crate) type Asked = (u32, u32);

/// Begins, if the command line says so.
///
/// # Panics
///
/// When the command line is wrong, or there is no memory for the events.
pub(crate) fn start() {
    let Some(window) = crate::option("timeline") else {
        return;
    };
    let (from_us, to_us) = window
        .split_once('-')
        .and_then(|(from, to)| {
            let to = if to.is_empty() {
                u64::MAX
            } else {
                to.parse().ok()?
            };
            Some((from.parse::<u64>().ok()?, to))
        })
        .unwrap_or_else(|| panic!("timeline={window} on the command line: not FROM-TO"));
    let room = if to_us == u64::MAX {
        ROOM_WITHOUT_END
    } else {
        ROOM
    };
    let zero = time::ticks();
    for (cpu, lane) in LANES[..cpu::n_cpus()].iter().enumerate() {
        *lane.lock() = Some(Lane::new(cpu, zero, [from_us, to_us].map(ticks), room));
    }
    N_GOING_ON.store(cpu::n_cpus(), Ordering::Release);
    step::watch(step::TIMELINE);
}

fn ticks(us: u64) -> u64 {
    let ticks = u128::from(us) * u128::from(time::ticks_per_ms()) / 1000;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

fn nanoseconds(ticks: u64) -> u64 {
    let ns = u128::from(ticks) * 1_000_000 / u128::from(time::ticks_per_ms());
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// Looks at this CPU. Interrupts are off.
pub(crate) fn look() {
    with_own(|cpu, lane| {
        lane.look(cpu, Occasion::Step);
    });
}

/// The scheduler has counted this CPU's switch to `next`. Interrupts are off.
pub(crate) fn note_switch(next: &Lwp) {
    if step::is_watched(step::TIMELINE) {
        with_own(|cpu, lane| lane.look(cpu, Occasion::Switch(Whose::of(next))));
    }
}

/// This CPU is about to ask CPU `target`. Interrupts are off.
pub(crate) fn note_asked(target: usize) -> Option<Asked> {
    if !step::is_watched(step::TIMELINE) {
        return None;
    }
    with_own(|cpu, lane| {
        let number = lane.n_asked();
        lane.look(cpu, Occasion::Asks(target));
        // Who asks on nobody's behalf is not counted.
        (lane.n_asked() != number).then_some((cpu as u32, number))
    })?
}

/// This CPU serves another one. Interrupts are off.
pub(crate) fn note_served(asked: Option<Asked>) {
    if let Some(asked) = asked
        && step::is_watched(step::TIMELINE)
    {
        with_own(|cpu, lane| lane.look(cpu, Occasion::Serves(asked)));
    }
}

fn with_own<R>(f: impl FnOnce(usize, &mut Lane) -> R) -> Option<R> {
    let cpu = cpu::index();
    let mut lane = LANES[cpu].lock();
    let lane = lane.as_mut().filter(|lane| !lane.is_over())?;
    let result = f(cpu, lane);
    if lane.is_over() && N_GOING_ON.fetch_sub(1, Ordering::AcqRel) == 1 {
        step::unwatch(step::TIMELINE);
    }
    Some(result)
}

/// Ends the recording, and prints the events of each CPU (`@event`) and what its counters say of the same time (`@timeline`).
pub(crate) fn print() {
    if LANES[0].lock().is_none() {
        return;
    }
    let close = || {
        let cpu = cpu::index();
        if let Some(lane) = LANES[cpu].lock().as_mut() {
            lane.close(cpu);
        }
    };
    for cpu in 0..cpu::n_cpus() {
        // One that is offline has had its last look when it went.
        let _ = crosscall::call(InterruptsOff::new(), cpu, &close);
    }
    step::unwatch(step::TIMELINE);
    for (cpu, lane) in LANES[..cpu::n_cpus()].iter().enumerate() {
        let Some(lane) = lane.lock().take() else {
            continue;
        };
        let events = lane.events();
        let mut before = 0;
        for events in events.chunks(LINE_EVENTS) {
            line!("@event {cpu} {before:x}{}", Words(events, before));
            before = events
                .last()
                .map_or(before, |event| nanoseconds(event.ticks));
        }
        let (until, counted, lost) = lane.account();
        line!(
            "@timeline {cpu} from={} until={} events={} lost={lost}{counted}",
            nanoseconds(lane.from()),
            nanoseconds(until),
            events.len(),
        );
    }
}

/// Events as words, ` TIME,KIND[,WHO,WHOSE]`: nanoseconds since the one before.
struct Words<'a>(&'a [Event], u64);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = self.1;
        for event in self.0 {
            let at = nanoseconds(event.ticks);
            write!(f, " {:x},{}", at - before, char::from(event.kind))?;
            before = at;
            if event.has_detail() {
                write!(f, ",{},{}", event.detail.0, event.detail.1)?;
            }
        }
        Ok(())
    }
}
