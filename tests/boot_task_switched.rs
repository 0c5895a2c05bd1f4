//! `CR0.TS` moves when it must and is never written with the value that it has.
//!
//! The first cases drive a small kernel of their own on this CPU, with a unit that stands before the FPU and looks at `CR0` at
//! each write: every step of a schedule says how often the gate opens and closes. The last one looks at `CR0.TS` from LWPs of
//! the testbed. Leak rules and policies: as each case says.
//! What holds under every policy is looked at under each of them too.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [
        Run {
            cpu: "qemu64",
            cpus: 1,
        },
        Run {
            cpu: "max",
            cpus: 1,
        },
    ];
    pcu9_runner::boot_test("boot_task_switched", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    use core::ptr::NonNull;
    use core::sync::atomic::{AtomicU64, Ordering};

    use pcu9::kernel::{CpuId, CrossCall, Current, Domain, IplPcu, Kernel, NoAnswer};
    use pcu9::pcu::{
        AcceptLazyFp, CoreDump, CpuPcu, LeakRule, LoadFlags, LwpPcu, Pcu, PcuOps, Policy,
        StateError, UnitId, UnitOps, UnitStats, Validity,
    };
    use pcu9::x86_64::fpu::{self, Fpu, FpuArea, Refused};
    use pcu9_testbed::lock::InterruptsOff;
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::sched::yield_now;
    use pcu9_testbed::testing::{
        Case, Counts, assert_gate_open, is_task_switched, move_to, new_domain, spawn, spawn_plain,
    };
    use x86_64::instructions::interrupts;

    pcu9_testbed::boot_tests! {
        own_policies:
            lazy_trusting, lazy_domain_aware, deferred_trusting, deferred_domain_aware, eager_trusting,
            probe_trusting;
        every_policy_and_rule:
            lwps_find_the_gate_as_it_must_be,
    }

    /// An area as long as any: AVX-512 in the standard format, at Intel's offsets.
    const AREA_WORDS: usize = 2688 / 8;

    /// An LWP of the small kernel: nothing runs it, the schedule says who is current.
    #[repr(C, align(64))]
    struct Lwp {
        area: [AtomicU64; AREA_WORDS],
        domain: u64,
        pcu: LwpPcu<1>,
    }

    impl Lwp {
        const fn new(domain: u64) -> Self {
            Self {
                area: [const { AtomicU64::new(0) }; AREA_WORDS],
                domain,
                pcu: LwpPcu::new(),
            }
        }
    }

    // SAFETY: the area is at the LWP's start, aligned, long enough (checked in `run`), and `Mini::new` prepares it.
    unsafe impl FpuArea for Lwp {
        unsafe fn area(lwp: NonNull<Self>) -> Result<NonNull<u8>, Refused> {
            Ok(lwp.cast())
        }
    }

    /// The FPU, behind somebody who counts and looks.
    enum Watched {}

    static OPENED: AtomicU64 = AtomicU64::new(0);
    static CLOSED: AtomicU64 = AtomicU64::new(0);
    /// Writes of the value that `CR0.TS` had.
    static IN_VAIN: AtomicU64 = AtomicU64::new(0);

    // SAFETY: every callback is the FPU's own, but for writes in vain, which are left out.
    unsafe impl PcuOps<Lwp> for Watched {
        const ID: UnitId = UnitId::new(0);

        unsafe fn state_save(lwp: NonNull<Lwp>) {
            // SAFETY: the caller's promise.
            unsafe { <Fpu>::state_save(lwp) };
        }
        unsafe fn state_load(lwp: NonNull<Lwp>, flags: LoadFlags) -> Result<(), StateError> {
            // SAFETY: the caller's promise.
            unsafe { <Fpu>::state_load(lwp, flags) }
        }
        unsafe fn state_release(lwp: NonNull<Lwp>) {
            // SAFETY: the caller's promise.
            unsafe { <Fpu>::state_release(lwp) };
        }
        unsafe fn unit_enable() {
            if !is_task_switched() {
                IN_VAIN.fetch_add(1, Ordering::Relaxed);
                return;
            }
            OPENED.fetch_add(1, Ordering::Relaxed);
            // SAFETY: the caller's promise.
            unsafe { <Fpu as PcuOps<Lwp>>::unit_enable() };
        }
        unsafe fn unit_trap() {
            if is_task_switched() {
                IN_VAIN.fetch_add(1, Ordering::Relaxed);
                return;
            }
            CLOSED.fetch_add(1, Ordering::Relaxed);
            // SAFETY: the caller's promise.
            unsafe { <Fpu as PcuOps<Lwp>>::unit_trap() };
        }
        unsafe fn state_wipe() {
            // SAFETY: the caller's promise.
            unsafe { <Fpu as PcuOps<Lwp>>::state_wipe() };
        }
        unsafe fn state_copy(parent: NonNull<Lwp>, child: NonNull<Lwp>) {
            // SAFETY: the caller's promise.
            unsafe { <Fpu>::state_copy(parent, child) };
        }
        unsafe fn is_initial(lwp: NonNull<Lwp>) -> bool {
            // SAFETY: the caller's promise.
            unsafe { <Fpu>::is_initial(lwp) }
        }
    }

    fn counted() -> [u64; 3] {
        [&OPENED, &CLOSED, &IN_VAIN].map(|counter| counter.load(Ordering::Relaxed))
    }

    const UNIT: UnitId = <Watched as PcuOps<Lwp>>::ID;
    const CPU_0: CpuId = CpuId::new(0).unwrap();

    /// A kernel of one CPU and a few LWPs.
    struct Mini {
        pcu: Pcu<MiniKernel, 1>,
        kernel: MiniKernel,
        /// By [`Who`].
        lwps: [Lwp; 4],
    }

    struct MiniKernel(CpuPcu<Lwp, 1>);

    // SAFETY: P1, P2, P6: a schedule runs on one CPU with interrupts off from its begin to its end. P3, P4: fields that do not
    // move while a schedule runs. P5: the domains are constants.
    unsafe impl Kernel<1> for MiniKernel {
        type Lwp = Lwp;
        type Saved = bool;

        fn splraise(&self) -> bool {
            let were_on = interrupts::are_enabled();
            interrupts::disable();
            were_on
        }
        unsafe fn splx(&self, were_on: bool) {
            if were_on {
                interrupts::enable();
            }
        }
        fn cpu_id(&self, _: &IplPcu<'_, Self, 1>) -> CpuId {
            CPU_0
        }
        fn cpu_pcu(&self, _: CpuId) -> &CpuPcu<Lwp, 1> {
            &self.0
        }
        unsafe fn lwp_pcu(&self, lwp: NonNull<Lwp>) -> NonNull<LwpPcu<1>> {
            // SAFETY: the caller promises an LWP.
            NonNull::from(unsafe { &(*lwp.as_ptr()).pcu })
        }
        unsafe fn domain(&self, lwp: NonNull<Lwp>) -> Option<Domain> {
            // SAFETY: the caller promises an LWP.
            Domain::new(unsafe { (*lwp.as_ptr()).domain })
        }
        fn cross_call(
            &self,
            ipl: IplPcu<'_, Self, 1>,
            cpu: CpuId,
            f: CrossCall<'_, Self, 1>,
        ) -> Result<(), NoAnswer> {
            let is_here = cpu == CPU_0;
            is_here.then(|| f(&ipl)).ok_or(NoAnswer(cpu))
        }
    }

    impl Mini {
        fn new(policy: Policy, rule: LeakRule) -> Self {
            // SAFETY: this small kernel's only one.
            let units = unsafe { Pcu::new([Some(UnitOps::of::<Watched>())]) };
            Self {
                pcu: units.with_policy(policy).with_leak_rule(rule),
                kernel: MiniKernel(CpuPcu::new()),
                lwps: [1, 2, 1, 0].map(Lwp::new),
            }
        }

        fn token(&self, lwp: &Lwp) -> Current<'_, MiniKernel, 1> {
            // SAFETY: the schedule says that it is current; each token is dropped before the next is made.
            unsafe { Current::new(&self.kernel, NonNull::from(lwp)) }
        }

        fn switch(&self, from: Option<&Lwp>, to: Option<&Lwp>) {
            // SAFETY: the only token here.
            let ipl = unsafe { IplPcu::raise(&self.kernel) };
            if let Some(from) = from {
                self.pcu.switch_out(&ipl, &mut self.token(from));
            }
            match to {
                Some(to) => self.pcu.switchpoint(&ipl, Some(&mut self.token(to))),
                None => self.pcu.switchpoint(&ipl, None),
            }
        }
    }

    /// Who is current after a switch. A and B use the FPU, in different domains; the integer LWP does not, in A's domain.
    #[derive(Clone, Copy, Debug)]
    enum Who {
        A,
        B,
        Integer,
        Thread,
        Idle,
    }

    /// What happens next; but for the switch, to or by the current LWP.
    #[derive(Clone, Copy, Debug)]
    enum Do {
        SwitchTo(Who),
        Use,
        /// Its registers become other than the initial ones, which would neither be saved nor restored.
        Compute,
        Load,
        Save,
        SaveAll,
        Discard,
        SaveAllOnCpu,
        Exec,
        Exit,
    }

    /// What that does to the gate.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Gate {
        Stays,
        Opens,
        Closes,
        /// What lies behind the closed gate has to be saved, or wiped.
        OpensAndCloses,
    }

    use Do::{Compute, Discard, Exec, Exit, Load, Save, SaveAll, SaveAllOnCpu, SwitchTo, Use};
    use Gate::{Closes, Opens, OpensAndCloses, Stays};
    use Who::{A, B, Idle, Integer, Thread};

    type Step = (Do, Gate);

    impl Mini {
        fn lwp(&self, who: Who) -> Option<&Lwp> {
            self.lwps.get(who as usize)
        }

        /// Does one step; gives who is current then.
        fn act(&self, current: Who, step: Do) -> Who {
            if let SwitchTo(who) = step {
                self.switch(self.lwp(current), self.lwp(who));
                return who;
            }
            let lwp = self.lwp(current).expect("an LWP acts");
            let token = &mut self.token(lwp);
            match step {
                SwitchTo(_) => {}
                Use | Compute if !is_task_switched() => {
                    panic!("no trap comes while the gate is open")
                }
                Use | Compute => {
                    // SAFETY: the only token here, and it goes into the call.
                    let ipl = unsafe { IplPcu::raise(&self.kernel) };
                    assert_eq!(self.pcu.trap(ipl, token, UNIT), Ok(()));
                    if let Compute = step {
                        Pattern::random(1).load();
                    }
                }
                Load => assert_eq!(self.pcu.load(token, UNIT), Ok(())),
                Save => assert_eq!(self.pcu.save(token, UNIT), Ok(())),
                SaveAll => assert_eq!(self.pcu.save_all(token, CoreDump::No), Ok(())),
                Discard => assert_eq!(self.pcu.discard(token, UNIT, Validity::Invalid), Ok(())),
                SaveAllOnCpu => IplPcu::with(&self.kernel, |ipl| self.pcu.save_all_on_cpu(ipl)),
                Exec => assert_eq!(self.pcu.exec(token, || ()), Ok(())),
                Exit => assert_eq!(self.pcu.exit(self.token(lwp)), Ok(())),
            }
            current
        }
    }

    /// Runs a schedule on this CPU with interrupts off, and leaves the FPU as the testbed's own `pcu9` had it: initial, closed.
    fn run(case: &mut Case, policy: Policy, rule: LeakRule, schedule: &[Step]) {
        case.domain_aware();
        case.log(format_args!("in the small kernel: {rule:?}, {policy:?}"));
        move_to(0);
        let _off = InterruptsOff::new();
        let mini = Mini::new(policy, rule);
        assert!(
            fpu::features().area_bytes() <= 8 * AREA_WORDS,
            "areas are too short"
        );
        for lwp in &mini.lwps {
            // SAFETY: an area of that length, of an LWP that has not run.
            unsafe { fpu::prepare(NonNull::from(lwp).cast()) };
        }
        assert!(is_task_switched(), "nobody owns the FPU");
        let (mut current, mut is_open) = (Idle, false);
        for (number, &(step, gate)) in schedule.iter().enumerate() {
            let before = counted();
            current = mini.act(current, step);
            let after = counted();
            is_open = match gate {
                Stays => is_open,
                Opens => true,
                Closes | OpensAndCloses => false,
            };
            let moves = [
                u64::from(matches!(gate, Opens | OpensAndCloses)),
                u64::from(matches!(gate, Closes | OpensAndCloses)),
                0,
            ];
            let expected = (moves, is_open, is_open);
            let seen = (
                [0, 1, 2].map(|counter| after[counter] - before[counter]),
                !is_task_switched(),
                mini.kernel.0.is_enabled(UNIT),
            );
            if seen != expected {
                case.fail(format_args!(
                    "step {number}, {step:?}: ([opened, closed, in vain], open, shadow): expected {expected:?}, saw {seen:?}"
                ));
            }
        }
        for lwp in &mini.lwps {
            let answer = mini.pcu.discard_all(&mut mini.token(lwp));
            assert_eq!(answer, Ok(()));
        }
        // Wipes, and closes the gate.
        let token = &mut mini.token(&mini.lwps[0]);
        let answer = mini
            .pcu
            .set_leak_rule(token, [CPU_0], LeakRule::DomainAware);
        assert_eq!(answer, Ok(()));
        assert!(is_task_switched(), "the gate is closed in the end");
    }

    const TRUSTING: LeakRule = LeakRule::Trusting(AcceptLazyFp);

    fn lazy_trusting(case: &mut Case) {
        let schedule = [
            (SwitchTo(A), Stays),
            (Use, Opens),
            (SwitchTo(Idle), Stays),
            (SwitchTo(Thread), Stays),
            (SwitchTo(A), Stays),
            (SwitchTo(Integer), Closes),
            (SwitchTo(Idle), Stays),
            (SwitchTo(Integer), Stays),
            (SwitchTo(A), Opens),
            (SwitchTo(B), Closes),
            (Use, Opens), // the save of the one and the load of the other
            (SwitchTo(A), Closes),
            (SwitchTo(Thread), Stays),
            (SwitchTo(B), Opens),
            (SaveAll, Stays),
            (Load, Stays),
            (Save, Closes),
            (Save, Stays),
            (Load, Opens),
            (Discard, Closes),
            (Discard, Stays),
            (Use, Opens),
            (SaveAllOnCpu, Closes),
            (SaveAllOnCpu, Stays),
            (Use, Opens),
            (Exec, Closes),
            (Use, Opens),
            (Exit, Closes),
            (SwitchTo(A), Stays),
            (Exit, Stays),
        ];
        run(case, Policy::Lazy, TRUSTING, &schedule);
    }

    fn lazy_domain_aware(case: &mut Case) {
        let schedule = [
            (SwitchTo(A), Stays),
            (Use, Opens),
            (SwitchTo(Thread), Stays),
            (SwitchTo(B), Closes), // saved and wiped through the open gate
            (Use, Opens),
            (SwitchTo(A), Closes),
            (Use, Opens),
            (SwitchTo(Integer), Closes),
            (SwitchTo(B), OpensAndCloses),
            (SwitchTo(Thread), Stays),
            (SwitchTo(A), Stays),
            (Use, Opens),
            (Exit, Closes),
            (SwitchTo(B), OpensAndCloses),
        ];
        run(case, Policy::Lazy, LeakRule::DomainAware, &schedule);
    }

    /// Two users that take turns need no gate at all under a policy that preloads.
    const USERS_TAKE_TURNS: [Step; 13] = [
        (SwitchTo(A), Stays),
        (Compute, Opens),
        (SwitchTo(B), Closes),
        (Compute, Opens),
        (SwitchTo(A), Stays),
        (SwitchTo(Thread), Stays),
        (SwitchTo(B), Stays),
        (SwitchTo(Idle), Stays),
        (SwitchTo(A), Stays),
        (SwitchTo(A), Stays),
        (SwitchTo(Integer), Closes),
        (SwitchTo(A), Opens),
        (SwitchTo(B), Stays),
    ];

    fn deferred_trusting(case: &mut Case) {
        run(case, Policy::Deferred, TRUSTING, &USERS_TAKE_TURNS);
    }

    fn deferred_domain_aware(case: &mut Case) {
        let rule = LeakRule::DomainAware;
        run(case, Policy::Deferred, rule, &USERS_TAKE_TURNS);
    }

    fn eager_trusting(case: &mut Case) {
        run(case, Policy::Eager, TRUSTING, &USERS_TAKE_TURNS);
    }

    fn probe_trusting(case: &mut Case) {
        let schedule = [
            (SwitchTo(A), Stays),
            (Use, Opens),
            (SwitchTo(Thread), Stays),
            (SwitchTo(A), Closes),
            (Use, Opens),
            (SwitchTo(Idle), Stays),
            (SwitchTo(A), Closes),
            (SwitchTo(Idle), Stays),
            (SwitchTo(A), Stays),
            (SwitchTo(B), Stays),
            (Use, Opens),
            (SwitchTo(A), Closes),
        ];
        run(case, Policy::Probe, TRUSTING, &schedule);
    }

    /// A user, a kernel thread, an LWP without FPU, in this order, again and again.
    fn lwps_find_the_gate_as_it_must_be(case: &mut Case) {
        const ROUNDS: u64 = 50;
        case.trusting();
        move_to(0);
        let counts = Counts::begin();
        let domain = new_domain();
        let user = spawn("user", 0, domain, || {
            assert!(is_task_switched(), "closed before the first use");
            // Not the initial state, which no policy would bring in.
            Pattern::random(1).load();
            for _ in 0..ROUNDS {
                assert_gate_open("the owner is back");
                yield_now();
            }
        });
        let thread = spawn_plain("thread", 0, || {
            for _ in 0..ROUNDS {
                assert_gate_open("it is left so over a kernel thread");
                yield_now();
            }
        });
        let integer = spawn("integers", 0, domain, || {
            for _ in 0..ROUNDS {
                assert!(is_task_switched(), "closed over an LWP without FPU");
                yield_now();
            }
        });
        case.join(&[user, thread, integer]);
        let expected = UnitStats {
            traps: 1,
            inits: 1,
            reenables_switch: ROUNDS,
            releases: 1,
            discards: 1,
            ..UnitStats::default()
        };
        case.expect_counts(&counts, expected);
    }
}
