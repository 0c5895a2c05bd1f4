//! The machine: two CPUs, three LWPs, two units of one `u64` each, and the seam, whose calls are the cuts.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::ptr::NonNull;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, Yielder};
use pcu9::kernel::{CpuId, CrossCall, Domain, IplPcu, Kernel, NoAnswer};
use pcu9::pcu::{CpuPcu, LwpPcu, Pcu, UnitId, UnitOps};

use super::config::{Config, Fault};
use super::flight::{Answer, At, Flight, Note, Notes, Op, What, Who};
use super::unit::{self, INITIAL, Reg};

pub(crate) const CPUS: usize = 2;
pub(crate) const LWPS: usize = 3;
pub(crate) const UNITS: usize = 2;

/// An LWP: what the crate wants of one, a memory for each unit, and what it must read back.
pub(crate) struct Lwp {
    pub(crate) number: usize,
    pcu: UnsafeCell<LwpPcu<UNITS>>,
    pub(crate) own: LwpCells,
}

/// The part of an LWP that is the explorer's own.
#[derive(Clone)]
pub(crate) struct LwpCells {
    pub(crate) domain: Cell<u64>,
    pub(crate) memory: [Cell<u64>; UNITS],
    /// The oracle: what the next read must give.
    pub(crate) newest: [Cell<u64>; UNITS],
    /// Not to be picked: an operation of another LWP holds it.
    pub(crate) is_held: Cell<bool>,
}

/// A CPU: what the crate keeps for it, and its registers.
pub(crate) struct Cpu {
    pcu: UnsafeCell<CpuPcu<Lwp, UNITS>>,
    pub(crate) own: CpuCells,
}

/// The part of a CPU that is the explorer's own.
#[derive(Clone)]
pub(crate) struct CpuCells {
    pub(crate) registers: [Cell<u64>; UNITS],
    /// The hardware's gate, which the core shadows.
    pub(crate) open: [Cell<bool>; UNITS],
    pub(crate) current: Cell<Option<usize>>,
    pub(crate) raised: Cell<bool>,
}

/// A cross-call under way.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) to: usize,
    pub(crate) state: RequestState,
    /// The asker's function, on the stack of its coroutine, which stands still until the answer.
    pub(crate) f: CrossCall<'static, World, UNITS>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestState {
    Published,
    Begun,
    Answered(Answer),
}

type YielderSlot = Cell<Option<NonNull<Yielder<(), ()>>>>;
pub(crate) type Coro = Coroutine<(), (), (), DefaultStack>;

/// The machine and what runs on it.
pub(crate) struct World {
    pub(crate) pcu: Pcu<World, UNITS>,
    pub(crate) config: Config,
    pub(crate) cpus: [Cpu; CPUS],
    pub(crate) lwps: [Lwp; LWPS],
    /// The last number given to a domain or a value.
    pub(crate) last_number: Cell<u64>,
    /// The cross-call that each LWP waits for.
    pub(crate) requests: [Cell<Option<Request>>; LWPS],
    /// What is under way: an operation of each LWP, then a job of each CPU.
    pub(crate) flights: [Cell<Option<Flight>>; LWPS + CPUS],
    pub(crate) notes: [RefCell<Notes>; LWPS + CPUS],
    pub(crate) coroutines: [Cell<Option<Coro>>; LWPS + CPUS],
    pub(crate) yielders: [YielderSlot; LWPS + CPUS],
    pub(crate) stacks: UnsafeCell<Vec<DefaultStack>>,
    /// Which of them executes, and where.
    pub(crate) running: Cell<Option<Who>>,
    pub(crate) here: Cell<usize>,
    pub(crate) witness: super::witness::Witness,
}

/// A moment at which nothing is under way, as bits: atomics are plain memory while nobody else looks.
pub(crate) struct Snapshot {
    cpus: [(Bits<CpuPcu<Lwp, UNITS>>, CpuCells); CPUS],
    lwps: [(Bits<LwpPcu<UNITS>>, LwpCells); LWPS],
    last_number: u64,
}

/// A copy of a value's bits, which never acts as that value.
struct Bits<T>(std::mem::MaybeUninit<T>);

impl<T> Bits<T> {
    fn of(cell: &UnsafeCell<T>) -> Self {
        let mut bits = std::mem::MaybeUninit::uninit();
        // SAFETY: both are valid for a `T`, and nobody writes the cell meanwhile: one thread plays all CPUs. The copy is
        // never dropped or used as a `T` of its own.
        unsafe { std::ptr::copy_nonoverlapping(cell.get(), bits.as_mut_ptr(), 1) };
        Self(bits)
    }

    fn put(&self, cell: &UnsafeCell<T>) {
        // SAFETY: as in `of`; `restore` is called when no coroutine exists that could have a reference. The old value needs no
        // drop: it owns nothing, and the drop's assertion is not for machines that are put back.
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), cell.get(), 1) };
    }
}

impl World {
    /// Makes a machine on which nothing has run, for the rest of the process.
    pub(crate) fn new(config: Config) -> &'static Self {
        let second = (config.units > 1).then(UnitOps::of::<Reg<1>>);
        let table = [Some(UnitOps::of::<Reg<0>>()), second];
        // SAFETY: the machine has this one alone.
        let pcu = unsafe { Pcu::new(table) };
        let pcu = pcu.with_policy(config.policy).with_leak_rule(config.rule);
        pcu.set_write_back_at_idle(config.write_back_at_idle);
        let world = Box::leak(Box::new(Self {
            pcu,
            config,
            cpus: std::array::from_fn(|_| Cpu {
                pcu: UnsafeCell::new(CpuPcu::new()),
                own: CpuCells {
                    registers: Default::default(),
                    open: Default::default(),
                    current: Cell::new(None),
                    raised: Cell::new(false),
                },
            }),
            lwps: std::array::from_fn(|number| Lwp {
                number,
                pcu: UnsafeCell::new(LwpPcu::new()),
                own: LwpCells {
                    domain: Cell::new(config.domains[number]),
                    memory: Default::default(),
                    newest: Default::default(),
                    is_held: Cell::new(false),
                },
            }),
            last_number: Cell::new(LWPS as u64),
            requests: Default::default(),
            flights: Default::default(),
            notes: Default::default(),
            coroutines: Default::default(),
            yielders: Default::default(),
            stacks: UnsafeCell::default(),
            running: Cell::new(None),
            here: Cell::new(0),
            witness: super::witness::Witness::default(),
        }));
        unit::enter(world);
        world
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            cpus: self
                .cpus
                .each_ref()
                .map(|cpu| (Bits::of(&cpu.pcu), cpu.own.clone())),
            lwps: self
                .lwps
                .each_ref()
                .map(|lwp| (Bits::of(&lwp.pcu), lwp.own.clone())),
            last_number: self.last_number.get(),
        }
    }

    /// Goes back to a moment at which nothing was under way.
    pub(crate) fn restore(&self, snapshot: &Snapshot) {
        self.abandon();
        for (cpu, (bits, own)) in self.cpus.iter().zip(&snapshot.cpus) {
            bits.put(&cpu.pcu);
            for unit in 0..UNITS {
                cpu.own.registers[unit].set(own.registers[unit].get());
                cpu.own.open[unit].set(own.open[unit].get());
            }
            cpu.own.current.set(own.current.get());
            cpu.own.raised.set(own.raised.get());
        }
        for (lwp, (bits, own)) in self.lwps.iter().zip(&snapshot.lwps) {
            bits.put(&lwp.pcu);
            for unit in 0..UNITS {
                lwp.own.memory[unit].set(own.memory[unit].get());
                lwp.own.newest[unit].set(own.newest[unit].get());
            }
            lwp.own.domain.set(own.domain.get());
            lwp.own.is_held.set(own.is_held.get());
        }
        self.last_number.set(snapshot.last_number);
    }

    /// A number that was never used before, for a domain or a value.
    pub(crate) fn fresh_number(&self) -> u64 {
        let number = self.last_number.get() + 1;
        self.last_number.set(number);
        number
    }

    /// A value that `lwp` never wrote before, in its domain's colours.
    pub(crate) fn fresh_value(&self, lwp: usize) -> u64 {
        unit::value(self.lwps[lwp].own.domain.get(), self.fresh_number())
    }

    pub(crate) fn pointer(&self, lwp: usize) -> NonNull<Lwp> {
        NonNull::from(&self.lwps[lwp])
    }

    pub(crate) fn lwp_state(&self, lwp: usize) -> &LwpPcu<UNITS> {
        // SAFETY: replaced by `restore` and `respawn` alone, when nobody has a reference.
        unsafe { &*self.lwps[lwp].pcu.get() }
    }

    pub(crate) fn cpu_state(&self, cpu: usize) -> &CpuPcu<Lwp, UNITS> {
        // SAFETY: replaced by `restore` alone, when nobody has a reference.
        unsafe { &*self.cpus[cpu].pcu.get() }
    }

    /// Frees an LWP and puts a new one into its memory.
    pub(crate) fn respawn(&self, lwp: usize, domain: u64) {
        // SAFETY: the LWP has exited: P4 ends for it here, and nobody has a reference.
        let old = unsafe { std::mem::replace(&mut *self.lwps[lwp].pcu.get(), LwpPcu::new()) };
        drop(old); // asserts that nothing is live
        let own = &self.lwps[lwp].own;
        own.domain.set(domain);
        for unit in 0..UNITS {
            own.memory[unit].set(INITIAL);
            own.newest[unit].set(INITIAL);
        }
    }

    pub(crate) fn cpu_of(&self, lwp: usize) -> Option<usize> {
        (0..CPUS).find(|cpu| self.cpus[*cpu].own.current.get() == Some(lwp))
    }

    /// The CPU on which the code that calls the seam executes.
    pub(crate) fn here(&self) -> &Cpu {
        &self.cpus[self.here.get()]
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.here().own.raised.get()
    }

    /// Changes what is remembered of the flight that executes.
    pub(crate) fn with_flight<R>(&self, f: impl FnOnce(&mut Flight) -> R) -> R {
        let slot = &self.flights[self.running.get().expect("something runs").slot()];
        let mut flight = slot.get().expect("what runs is under way");
        let result = f(&mut flight);
        slot.set(Some(flight));
        result
    }

    pub(crate) fn note(&self, note: Note) {
        let who = self.running.get().expect("something runs");
        self.notes[who.slot()].borrow_mut().push(note);
    }

    /// Lets the explorer choose what happens next; comes back when it chooses this one again, maybe on another CPU.
    fn cut(&self, at: At) {
        self.with_flight(|flight| flight.at = at);
        let who = self.running.get().expect("something runs");
        let yielder = self.yielders[who.slot()].get().expect("it has begun");
        // SAFETY: the yielder lives on the stack of the coroutine that executes this.
        unsafe { yielder.as_ref() }.suspend(());
    }

    /// On which CPU an LWP's unit is live, as its word says now.
    pub(crate) fn live_on(&self, lwp: usize, unit: usize) -> Option<usize> {
        self.lwp_state(lwp)
            .live_cpu(unit_id(unit))
            .map(CpuId::index)
    }

    /// The code that executes is about to look at an LWP's state. It must be entitled to; and where it makes a difference who is
    /// first, it or another CPU, the explorer chooses.
    fn look(&self, lwp: usize) {
        let here = self.here.get();
        let holds = self.here().own.current.get() == Some(lwp) || self.lwps[lwp].own.is_held.get();
        let is_owner = (0..UNITS).any(|unit| self.live_on(lwp, unit) == Some(here));
        assert!(
            holds || is_owner,
            "I7: cpu {here} touches lwp {lwp}, which is not its own"
        );
        self.note(Note::Looks(small(lwp)));
        if !holds {
            if self.is_contested(lwp) {
                self.cut(At::Store(lwp));
            }
            self.with_flight(|flight| flight.stored |= 1 << lwp);
            return;
        }
        if self.could_be_stored(lwp) {
            self.with_flight(|flight| flight.is_entangled = true);
            self.cut(At::Look);
            self.note(Note::Saw(std::array::from_fn(|unit| {
                self.live_on(lwp, unit).map(small)
            })));
        }
        self.entangle(lwp);
    }
}

/// A number of a CPU, LWP or unit in a note.
pub(crate) fn small(number: usize) -> u8 {
    u8::try_from(number).expect("a handful")
}

/// The id of a unit.
pub(crate) fn unit_id(unit: usize) -> UnitId {
    UnitId::new(small(unit))
}

// SAFETY: P1: the explorer resumes nothing else on a CPU whose `raised` is set. P2, P3: `here` is the CPU of whom the explorer
// resumed, and an index. P4: a field of a leaked box; see `respawn`. P5: `fresh_number` counts. P6: `Serve` runs the function
// once, at `IPL_PCU`; a withdrawn request was not begun. `Fault` breaks these on purpose, in the tests that expect to be told.
unsafe impl Kernel<UNITS> for World {
    type Lwp = Lwp;
    type Saved = bool;

    fn splraise(&self) -> bool {
        let is_lwp = matches!(self.running.get(), Some(Who::Lwp(_)));
        if is_lwp && !self.is_raised() && !self.with_flight(|flight| flight.is_fresh) {
            self.cut(At::Raise);
        }
        self.with_flight(|flight| flight.is_fresh = false);
        self.here().own.raised.replace(true)
    }

    unsafe fn splx(&self, saved: bool) {
        self.here().own.raised.set(saved);
        if !saved {
            let who = self.running.get().expect("something runs");
            let did_more_than_count = self.notes[who.slot()].borrow_mut().end_section();
            self.with_flight(|flight| {
                // Whoever only counted can be preempted before as well as after.
                flight.is_fresh = !did_more_than_count;
                flight.stored = 0;
                flight.is_entangled = false;
            });
        }
    }

    fn cpu_id(&self, _: &IplPcu<'_, Self, UNITS>) -> CpuId {
        assert!(self.is_raised(), "cpu_id below IPL_PCU");
        CpuId::new(u16::try_from(self.here.get()).expect("two CPUs")).expect("two CPUs")
    }

    fn cpu_pcu(&self, cpu: CpuId) -> &CpuPcu<Lwp, UNITS> {
        assert_eq!(
            cpu.index(),
            self.here.get(),
            "I1: looks at another CPU's entries"
        );
        self.cpu_state(cpu.index())
    }

    unsafe fn lwp_pcu(&self, lwp: NonNull<Lwp>) -> NonNull<LwpPcu<UNITS>> {
        assert!(self.is_raised(), "lwp_pcu below IPL_PCU");
        // SAFETY: the caller promises a valid LWP; only its number is read.
        let number = unsafe { lwp.as_ref() }.number;
        self.look(number);
        NonNull::new(self.lwps[number].pcu.get()).expect("a field")
    }

    unsafe fn domain(&self, lwp: NonNull<Lwp>) -> Option<Domain> {
        // SAFETY: the caller promises a valid LWP.
        Domain::new(unsafe { lwp.as_ref() }.own.domain.get())
    }

    fn cross_call(
        &self,
        ipl: IplPcu<'_, Self, UNITS>,
        cpu: CpuId,
        f: CrossCall<'_, Self, UNITS>,
    ) -> Result<(), NoAnswer> {
        assert!(self.is_raised(), "published below IPL_PCU");
        assert_ne!(cpu.index(), self.here.get(), "asks itself");
        let Some(Who::Lwp(asker)) = self.running.get() else {
            panic!("a cross-call from an interrupt");
        };
        // SAFETY: only the lifetime changes. The function is called by `Serve` alone, while this frame waits for its end.
        let f = unsafe {
            std::mem::transmute::<CrossCall<'_, Self, UNITS>, CrossCall<'static, Self, UNITS>>(f)
        };
        self.requests[asker].set(Some(Request {
            to: cpu.index(),
            state: RequestState::Published,
            f,
        }));
        let seen = std::array::from_fn(|unit| self.live_on(asker, unit).map(small));
        let ipl = (self.config.fault == Fault::WaitAtIpl).then_some(ipl);
        assert!(
            ipl.is_some() || !self.is_raised(),
            "a cross-call by a caller that was raised already"
        );
        self.note(Note::Asked(small(cpu.index())));
        if self.with_flight(|flight| flight.what == What::Op(Op::BeforeUser)) {
            self.note(Note::AskedOf(seen));
        }
        self.cut(At::Wait);
        drop(ipl);
        let request = self.requests[asker].take().expect("it was published");
        let RequestState::Answered(answer) = request.state else {
            panic!("resumed without an answer");
        };
        let is_load = self.with_flight(|flight| {
            flight.is_fresh = true;
            flight.is_load()
        });
        if is_load {
            // It looks at everything anew, as if it had just begun; under some policies that can go on for ever.
            self.notes[asker].borrow_mut().clear();
        } else {
            self.note(Note::Answered(answer));
        }
        match answer {
            Answer::Served => {}
            Answer::Raced => self.witness.raced.bump(),
            Answer::Withdrawn => return Err(NoAnswer(cpu)),
        }
        Ok(())
    }
}
