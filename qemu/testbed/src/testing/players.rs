//! Scenarios that are placed by hand: LWPs that do what they are told, one thing after the other, and sleep between.
//!
//! The director is `main`, on the last CPU. An order brings its player onto the player's CPU, and its end takes it off again, so that
//! each order is one switch-in and one switch-out, under every policy, and all that is counted can be predicted.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use pcu9::kernel::Stopped;
use pcu9::pcu::{Policy, UnitStats};

use super::{Case, Counts, Slot, move_to, on, prepare, spawn_plain, yield_until};
use crate::event::Event;
use crate::glue::{KERNEL, N_UNITS, Testbed};
use crate::lwp::Lwp;
use crate::{cpu, sched};

type Work = Box<dyn FnOnce() + Send>;

/// What a player is told; `None` ends it.
#[derive(Default)]
struct Orders {
    next: Slot<Option<Work>>,
    given: Event,
    done: Event,
    n_given: AtomicU64,
    n_done: AtomicU64,
}

/// An LWP that does what the director says.
pub struct Player {
    lwp: Arc<Lwp>,
    orders: Arc<Orders>,
}

impl core::fmt::Debug for Player {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Player").field(&self.lwp.name).finish()
    }
}

impl Orders {
    fn follow(&self) {
        while let Some(work) = self.given.wait_for(|| self.next.take()) {
            work();
            self.n_done.fetch_add(1, Ordering::AcqRel);
            self.done.signal();
        }
    }
}

impl Player {
    /// Starts an LWP with FPU state in a domain of its own on CPU `cpu`; it has arrived there once when this returns.
    pub fn new(name: &str, cpu: usize) -> Self {
        let player = Self::prepared(name, cpu, super::new_domain());
        player.start();
        player
    }

    /// Starts an LWP without FPU state.
    pub fn plain(name: &str, cpu: usize) -> Self {
        let orders = Arc::new(Orders::default());
        let own = Arc::clone(&orders);
        let lwp = spawn_plain(name, cpu, move || own.follow());
        let player = Self { lwp, orders };
        player.is_off();
        player
    }

    /// Makes an LWP with FPU state in `domain` that does not run yet.
    pub fn prepared(name: &str, cpu: usize, domain: u64) -> Self {
        let orders = Arc::new(Orders::default());
        let own = Arc::clone(&orders);
        let lwp = prepare(name, cpu, domain, move || own.follow());
        Self { lwp, orders }
    }

    /// Lets a prepared one arrive.
    pub fn start(&self) {
        super::start(&self.lwp);
        self.is_off();
    }

    /// The LWP.
    pub fn lwp(&self) -> &Lwp {
        &self.lwp
    }

    /// The LWP, for whoever keeps it longer.
    pub fn shared(&self) -> Arc<Lwp> {
        Arc::clone(&self.lwp)
    }

    /// Has it follow its next orders on CPU `cpu`; it does not run now.
    pub fn goes_to(&self, cpu: usize) {
        sched::set_pin(&self.lwp, on(cpu));
    }

    /// Gives an order and waits until it is done and the player off its CPU.
    ///
    /// # Panics
    ///
    /// When that takes more than a minute.
    pub fn does<R: Send + 'static>(&self, f: impl FnOnce() -> R + Send + 'static) -> R {
        let result = Arc::new(Slot::new());
        let place = Arc::clone(&result);
        self.begins(move || place.put(f()));
        self.finishes();
        result.take().expect("the order left its result")
    }

    /// Gives an order and does not wait.
    pub fn begins(&self, f: impl FnOnce() + Send + 'static) {
        self.orders.n_given.fetch_add(1, Ordering::AcqRel);
        self.orders.next.put(Some(Box::new(f)));
        self.orders.given.signal();
    }

    /// Has it done what it was told?
    pub fn is_done(&self) -> bool {
        let n_given = self.orders.n_given.load(Ordering::Acquire);
        self.orders.n_done.load(Ordering::Acquire) == n_given
    }

    /// Waits until it has done what it was told and is off its CPU.
    ///
    /// # Panics
    ///
    /// When that takes more than a minute.
    pub fn finishes(&self) {
        self.orders.done.wait_for(|| self.is_done().then_some(()));
        self.is_off();
    }

    fn is_off(&self) {
        let is_off = yield_until(|| self.lwp.is_asleep());
        assert!(is_off, "{} does not leave its CPU", self.lwp.name);
    }

    /// Whether it is on no CPU: asleep, or waiting for one that is busy.
    pub fn is_off_cpu(&self) -> bool {
        !self.lwp.on_cpu.load(Ordering::Acquire)
    }

    /// The token of the LWP, which sleeps until its next order.
    ///
    /// # Panics
    ///
    /// When it has an order.
    pub fn token(&mut self) -> Stopped<'_, Testbed, N_UNITS> {
        assert!(self.lwp.is_asleep(), "{} runs", self.lwp.name);
        // SAFETY: it sleeps until it is given an order, which takes a reference to the player; whom this token borrows.
        unsafe { Stopped::new(&KERNEL, NonNull::from(&*self.lwp)) }
    }

    /// Tells it to end, on its CPU, and waits for that; gives the LWP.
    ///
    /// # Panics
    ///
    /// When that takes more than a minute.
    pub fn ends(self) -> Arc<Lwp> {
        self.orders.next.put(None);
        self.orders.given.signal();
        let has_ended = yield_until(|| self.lwp.has_ended() && self.is_off_cpu());
        assert!(has_ended, "{} does not end", self.lwp.name);
        self.lwp
    }
}

impl Case {
    /// Plays a scenario once under each policy of `predictions`, on CPUs whose FPUs are nobody's, and compares what was counted on
    /// all CPUs with what is predicted, exactly. The leak rule is set before.
    pub fn scenario(
        &mut self,
        predictions: &[(Policy, UnitStats)],
        mut play: impl FnMut(&mut Self, Policy),
    ) {
        move_to(cpu::n_cpus() - 1);
        for &(policy, predicted) in predictions {
            self.policy(policy);
            let counts = Counts::begin();
            play(self, policy);
            let counted = counts.so_far();
            if counted != predicted {
                self.fail(format_args!(
                    "{policy:?}: predicted {predicted:?}, counted {counted:?}"
                ));
            }
        }
        self.policy(Policy::Lazy);
    }
}

/// Counters by their names, the others 0, or as in another set: `counted! { traps: 1, inits: 1 }`, `counted! { probes: 1, ..lazy }`.
#[macro_export]
macro_rules! counted {
    ($($name:ident: $n:expr),+ $(,)?) => {
        $crate::counted! { $($name: $n,)+ ..UnitStats::default() }
    };
    ($($name:ident: $n:expr,)+ ..$others:expr) => {{
        use pcu9::pcu::UnitStats;
        UnitStats { $($name: $n,)+ ..$others }
    }};
}
