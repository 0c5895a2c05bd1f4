//! The scenarios of the table of units, q and t of `tests/tables/scenarios.toml`: two units of one LWP, gaps in the table, and no unit
//! at all. The units are registers that each CPU has, `DR0` and `IA32_SYSENTER_ESP`, under a second kernel on the same CPUs.
//!
//! Leak rule: Trusting. Timer and director as in `boot_scenarios_moves`.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = ["max", "qemu64"].map(|cpu| Run { cpu, cpus: 4 });
    pcu9_runner::boot_test("boot_scenarios_units", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use core::ptr::NonNull;

    use pcu9::kernel::{CpuId, IplPcu, NoAnswer, Stopped};
    use pcu9::pcu::Policy::{self, Deferred, Eager, Lazy};
    use pcu9::pcu::{
        AcceptLazyFp, CoreDump, LeakRule, LoadError, PolicyError, SectionError, UnitId, UnitStats,
        Validity,
    };
    use pcu9_testbed::testing::board::{
        BREAKPOINT, Breakpoint, EMPTY, Fellow, Me, SPARSE, SYSENTER, Sysenter, increment,
    };
    use pcu9_testbed::testing::{Case, Player, difference, move_to};
    use pcu9_testbed::{counted, cpu, lock::InterruptsOff};

    pcu9_testbed::boot_tests! {
        scenario_q_two_units_interleaved_on_one_thread,
        scenario_t_a_sparse_table_and_no_units,
    }

    /// A fellow of the board with the sparse table, and the LWP that plays it.
    struct Role {
        player: Player,
        fellow: Arc<Fellow<4>>,
    }

    impl Role {
        fn new(name: &str) -> Self {
            Self {
                player: Player::plain(name, 0),
                fellow: Arc::new(Fellow::new()),
            }
        }

        fn does<R: Send + 'static>(
            &self,
            cpu: usize,
            f: impl FnOnce(&mut Me<'static, 4>) -> R + Send + 'static,
        ) -> R {
            let fellow = Arc::clone(&self.fellow);
            self.player.goes_to(cpu);
            self.player
                .does(move || SPARSE.0.turn(&SPARSE.1, &fellow, f))
        }

        /// Adds 1 to the units of `units`, which hold `values` before.
        fn increments(&self, cpu: usize, units: &'static [UnitId], values: &mut [u64; 4]) {
            let seen = self.does(cpu, move |me| {
                let increment = |me: &mut _, unit| {
                    if unit == BREAKPOINT {
                        increment::<Breakpoint, 4>(&SPARSE, me)
                    } else {
                        increment::<Sysenter, 4>(&SPARSE, me)
                    }
                };
                units
                    .iter()
                    .map(|&unit| increment(me, unit))
                    .collect::<Result<Vec<_>, _>>()
            });
            let expected = units.iter().map(|unit| values[unit.index()]).collect();
            assert_eq!(seen, Ok(expected), "on CPU {cpu}");
            for unit in units {
                values[unit.index()] += 1;
            }
        }

        fn ends(self, cpu: usize) {
            let fellow = Arc::clone(&self.fellow);
            self.player.goes_to(cpu);
            self.player.does(move || {
                SPARSE.0.turn(&SPARSE.1, &fellow, |me| {
                    assert_eq!(SPARSE.1.discard_all(me), Ok(()));
                });
            });
            self.player.ends();
        }
    }

    fn cpus() -> impl Iterator<Item = CpuId> {
        (0_u16..4).filter_map(CpuId::new)
    }

    /// Sets policy and leak rule of the board; its CPUs are empty then.
    fn set_policy(case: &Case, policy: Policy) {
        case.log(format_args!("{policy:?}, Trusting"));
        let nobody = Fellow::new();
        SPARSE.0.turn(&SPARSE.1, &nobody, |me| {
            let rule = LeakRule::Trusting(AcceptLazyFp);
            assert_eq!(SPARSE.1.set_leak_rule(me, cpus(), rule), Ok(()));
            for unit in [BREAKPOINT, SYSENTER] {
                assert_eq!(SPARSE.1.set_policy(me, cpus(), unit, policy), Ok(()));
            }
        });
    }

    /// Each unit's state is moved, saved and stolen by itself, and no addition is lost, whatever happens to the other one.
    fn scenario_q_two_units_interleaved_on_one_thread(case: &mut Case) {
        const BOTH: &[UnitId] = &[BREAKPOINT, SYSENTER];
        case.trusting();
        move_to(3);
        let breakpoint = counted! { traps: 2, inits: 2, saves: 7, preloads: 4, restores: 4, elided_restores: 3, releases: 9, discards: 2 };
        let sysenter = counted! { traps: 1, inits: 1, saves: 6, preloads: 4, restores: 4, elided_restores: 2, releases: 7, discards: 1 };
        let predictions = [
            (
                Lazy,
                // The thief of CPU 2 saves what CPU 2 would have been asked for.
                counted! { traps: 5, inits: 2, saves: 3, restores: 3, xcalls: 2, releases: 5, discards: 2 },
                counted! { traps: 3, inits: 1, saves: 2, restores: 2, xcalls: 2, releases: 3, discards: 1 },
            ),
            (Deferred, breakpoint, sysenter),
            (
                Eager,
                counted! { preloads: 7, restores: 7, elided_restores: 0, ..breakpoint },
                counted! { preloads: 6, restores: 6, elided_restores: 0, ..sysenter },
            ),
        ];
        for (policy, breakpoint, sysenter) in predictions {
            set_policy(case, policy);
            let before = [BREAKPOINT, SYSENTER].map(|unit| SPARSE.0.stats(unit));
            let (lwp, thief) = (Role::new("both"), Role::new("thief"));
            let mut values = [0; 4];
            lwp.increments(0, BOTH, &mut values);
            lwp.increments(1, &[SYSENTER], &mut values);
            lwp.increments(2, &[BREAKPOINT], &mut values);
            thief.increments(2, &[BREAKPOINT], &mut [0; 4]);
            lwp.increments(1, BOTH, &mut values);
            lwp.increments(0, &[SYSENTER], &mut values);
            lwp.increments(0, &[BREAKPOINT], &mut values);
            case.expect_eq("additions", values, [0, 4, 0, 4]);
            lwp.ends(0);
            thief.ends(2);
            for (name, unit, before, predicted) in [
                ("DR0", BREAKPOINT, before[0], breakpoint),
                ("IA32_SYSENTER_ESP", SYSENTER, before[1], sysenter),
            ] {
                let counted = difference(SPARSE.0.stats(unit), before);
                case.expect_eq(name, counted, predicted);
            }
        }
        set_policy(case, Lazy);
    }

    fn scenario_t_a_sparse_table_and_no_units(case: &mut Case) {
        case.trusting();
        move_to(3);
        for policy in [Lazy, Deferred] {
            set_policy(case, policy);
            gaps(case);
        }
        set_policy(case, Lazy);
        no_units(case);
    }

    /// One unit is used behind the gaps; what is asked of a gap is an error or nothing, and nothing is counted.
    fn gaps(case: &mut Case) {
        let absent = [UnitId::new(0), UnitId::new(2), UnitId::new(31)];
        let before = [0, 1, 2].map(|unit| SPARSE.0.stats(UnitId::new(unit)));
        let lwp = Role::new("sparse");
        let mut values = [0; 4];
        lwp.increments(0, &[SYSENTER], &mut values);
        lwp.does(1, move |me| {
            for unit in absent {
                let none = LoadError::NoSuchUnit(unit);
                assert_eq!(SPARSE.1.load(me, unit), Err(none));
                assert_eq!(SPARSE.1.save(me, unit), Ok(()));
                assert_eq!(SPARSE.1.discard(me, unit, Validity::Valid), Ok(()));
                assert_eq!(SPARSE.1.inspect(me, unit), Ok(Validity::Invalid));
                let refused = SPARSE.1.section(me, unit, |_| ());
                assert_eq!(refused, Err(SectionError::NoSuchUnit(unit)));
                let refused = SPARSE.1.set_policy(me, [], unit, Lazy);
                assert_eq!(refused, Err(PolicyError::NoSuchUnit(unit)));
            }
        });
        for unit in absent {
            case.expect("no state", !lwp.fellow.pcu().valid_p(unit));
        }
        lwp.increments(2, &[SYSENTER], &mut values);
        let used = lwp.fellow.pcu().view(SYSENTER).map(|view| view.is_used);
        case.expect_eq("used", used, Some(true));
        lwp.ends(2);
        let after = [0, 1, 2].map(|unit| SPARSE.0.stats(UnitId::new(unit)));
        case.expect_eq("counted of the gaps and the unused unit", after, before);
    }

    /// Every hook and operation on each CPU; there is nothing that any of them could do.
    fn no_units(case: &mut Case) {
        let (board, pcu) = &EMPTY;
        let fellow = Arc::new(Fellow::<0>::new());
        let player = Player::plain("nothing", 0);
        for cpu in 0..cpu::n_cpus() {
            let fellow = Arc::clone(&fellow);
            player.goes_to(cpu);
            player.does(move || {
                board.turn(pcu, &fellow, |me| {
                    let child = Fellow::new();
                    // SAFETY: nobody plays it.
                    let mut child = unsafe { Stopped::new(board, NonNull::from(&child)) };
                    assert_eq!(pcu.fork(me, &mut child), Ok(()));
                    let first = UnitId::new(0);
                    let none = Err(LoadError::NoSuchUnit(first));
                    assert_eq!(pcu.load(me, first), none);
                    assert_eq!(pcu.save_all(me, CoreDump::Yes), Ok(()));
                    let replaced = pcu.replace(me, first, |_| Ok::<(), NoAnswer>(()));
                    assert_eq!(replaced, Ok(()));
                    assert_eq!(pcu.exec(me, || ()), Ok(()));
                    let rule = LeakRule::DomainAware;
                    assert_eq!(pcu.set_leak_rule(me, cpus(), rule), Ok(()));
                    let _off = InterruptsOff::new();
                    // SAFETY: interrupts are off.
                    let ipl = unsafe { IplPcu::assume(board) };
                    pcu.before_user(ipl, me).keep();
                    // SAFETY: as above.
                    let ipl = unsafe { IplPcu::assume(board) };
                    pcu.save_all_on_cpu(&ipl);
                    pcu.switchpoint(&ipl, None);
                    pcu.flush(&ipl, &mut child);
                    pcu.cpu_offline(&ipl);
                    pcu.cpu_online(&ipl, |_, _| panic!("nobody can lose anything"));
                });
            });
            case.expect("no unit", board.cpu(cpu).view(UnitId::new(0)).is_none());
            let counted = board.stats(UnitId::new(0));
            case.expect_eq("counted", counted, UnitStats::default());
        }
        player.ends();
    }
}
