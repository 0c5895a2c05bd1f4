//! A bad image faults in the restore, is fixed up, and leaks nothing: the LWP gets an error, the others go on.
//!
//! XRSTOR refuses a bad header; on a model without XSAVE, and on the others too, an area that is not mapped faults. Leak rules:
//! as each case says. Placement is by hand and the timer off, so the counters are compared exactly.
//! What holds under every policy is looked at under each of them too.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [
        Run {
            cpu: "SandyBridge",
            cpus: 1,
        },
        Run {
            cpu: "qemu64",
            cpus: 1,
        },
    ];
    pcu9_runner::boot_test("boot_bad_image", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;

    use pcu9::pcu::{LoadError, Policy, StateError, UnitStats, Validity};
    use pcu9::x86_64::fpu::features;
    use pcu9_testbed::glue::{FPU, PCU, cpu_pcu, with_token};
    use pcu9_testbed::lwp::Lwp;
    use pcu9_testbed::registers::{Pattern, YmmPattern};
    use pcu9_testbed::report::has_avx;
    use pcu9_testbed::sched::current;
    use pcu9_testbed::testing::{
        Case, Counts, Turns, is_task_switched, move_to, new_domain, past_the_gate, prepare, spawn,
        start,
    };

    pcu9_testbed::boot_tests! {
        every_policy:
            an_area_that_is_not_mapped,
            a_component_that_is_not_enabled,
            a_compacted_image,
            a_reserved_field;
        every_policy_and_rule:
            an_area_that_is_refused;
        own_policies:
            a_bad_image_is_not_preloaded,
    }

    const BAD_IMAGE: Result<(), LoadError> = Err(LoadError::State(StateError::BadImage));
    const REFUSED: Result<(), LoadError> = Err(LoadError::State(StateError::Refused));

    /// Spoils the saved state of an LWP, or mends it.
    #[derive(Clone, Copy)]
    enum Spoil {
        /// These bits of the byte at this offset, in the XSAVE header, change to the contrary.
        Header(usize, u8),
        /// The area lies where nothing is mapped.
        Unmapped,
    }

    /// In the lower half, where kernel threads have nothing; a multiple of 64.
    const NOTHING: usize = 0x7f00_0000_0000;

    impl Spoil {
        /// Changes the state of `lwp`, which waits, its registers given up; the same again mends it. `mended` is what a first
        /// call returned.
        fn apply(self, lwp: &Lwp, mended: *mut u8) -> *mut u8 {
            match self {
                Self::Header(at, bits) => {
                    // SAFETY: an XSAVE area has its header there.
                    let field = unsafe { lwp.fpu_area().add(at) };
                    // SAFETY: the byte is in the area, and nobody uses the area now.
                    let old = unsafe { field.read() };
                    // SAFETY: as above.
                    unsafe { field.write(old ^ bits) };
                    mended
                }
                Self::Unmapped => {
                    let area = if mended.is_null() {
                        core::ptr::without_provenance_mut(NOTHING)
                    } else {
                        mended
                    };
                    // SAFETY: only a restore uses the area while it is not the LWP's own, and it may fault.
                    unsafe { lwp.replace_fpu_area(area) }
                }
            }
        }
    }

    fn load() -> Result<(), LoadError> {
        with_token(|token| PCU.load(token, FPU))
    }

    /// The registers are nobody's, initial, and behind a closed gate.
    fn assert_clean() {
        assert!(is_task_switched(), "the gate is closed");
        assert!(!cpu_pcu(0).is_enabled(FPU), "and the shadow says so");
        assert_eq!(cpu_pcu(0).owner(FPU), None);
        assert_eq!(past_the_gate(Pattern::store), Pattern::INITIAL);
        if has_avx() {
            assert_eq!(past_the_gate(YmmPattern::store), YmmPattern::zeros());
        }
    }

    /// The victim's state is spoilt while it waits and another LWP's registers are live; mended, it is as it was.
    fn spoilt(case: &mut Case, spoil: Spoil, wipes: u64) {
        move_to(0);
        let turns = Arc::new(Turns::new());
        let victims_turns = Arc::clone(&turns);
        let counts = Counts::begin();
        let victim = prepare("victim", 0, new_domain(), move || {
            let turns = victims_turns;
            let pattern = Pattern::random(1);
            pattern.load();
            turns.next();
            turns.wait(2);
            for _ in 0..2 {
                assert_eq!(load(), BAD_IMAGE);
                assert_clean();
                assert!(current().pcu().valid_p(FPU), "the state stays what it is");
            }
            turns.next();
            turns.wait(4);
            assert_eq!(Pattern::store(), pattern, "what was saved before");
        });
        let own = Arc::clone(&victim);
        start(&victim);
        let other = spawn("other", 0, new_domain(), move || {
            turns.wait(1);
            let pattern = Pattern::random(2);
            pattern.load();
            if has_avx() {
                YmmPattern::random(2).load();
            }
            let ymm = has_avx().then(YmmPattern::store);
            let before = Pattern::store();
            let mended = spoil.apply(&own, core::ptr::null_mut());
            turns.next();
            turns.wait(3);
            assert_eq!(Pattern::store(), before, "the other one goes on");
            assert_eq!(has_avx().then(YmmPattern::store), ymm);
            spoil.apply(&own, mended);
            turns.next();
        });
        case.join(&[victim, other]);
        let expected = UnitStats {
            traps: 4,
            loads: 2,
            inits: 2,
            restores: 2,
            failed: 2,
            saves: 2,
            releases: 4,
            discards: 2,
            wipes,
            ..UnitStats::default()
        };
        case.expect_counts(&counts, expected);
    }

    fn under_both_rules(case: &mut Case, spoil: Spoil) {
        case.trusting();
        spoilt(case, spoil, 0);
        case.domain_aware();
        spoilt(case, spoil, 3);
    }

    fn header(case: &mut Case, at: usize, bits: u8) {
        if features().xcr0() == 0 {
            case.log(format_args!(
                "NOT RUN: this CPU model has no XSAVE, and FXRSTOR no header"
            ));
            return;
        }
        under_both_rules(case, Spoil::Header(at, bits));
    }

    fn an_area_that_is_not_mapped(case: &mut Case) {
        under_both_rules(case, Spoil::Unmapped);
    }

    fn a_component_that_is_not_enabled(case: &mut Case) {
        header(case, 513, 1 << 2); // XSTATE_BV, bit 10
    }

    fn a_compacted_image(case: &mut Case) {
        header(case, 527, 1 << 7); // XCOMP_BV, bit 63
    }

    fn a_reserved_field(case: &mut Case) {
        header(case, 528, 1);
    }

    /// A switch cannot fail: it leaves the gate closed, and the use reports the error.
    fn a_bad_image_is_not_preloaded(case: &mut Case) {
        case.trusting();
        case.policy(Policy::Deferred);
        move_to(0);
        let turns = Arc::new(Turns::new());
        let victims_turns = Arc::clone(&turns);
        let counts = Counts::begin();
        let victim = prepare("victim", 0, new_domain(), move || {
            let turns = victims_turns;
            Pattern::random(1).load();
            turns.next();
            turns.wait(2);
            assert_clean();
            assert_eq!(load(), BAD_IMAGE);
            assert_clean();
            // The LWP can go on with a state of its own making.
            let answer = with_token(|token| PCU.discard(token, FPU, Validity::Invalid));
            assert_eq!(answer, Ok(()));
            turns.next();
            turns.wait(4);
            assert_eq!(Pattern::store(), Pattern::INITIAL);
        });
        let own = Arc::clone(&victim);
        start(&victim);
        let other = spawn("other", 0, new_domain(), move || {
            turns.wait(1);
            let pattern = Pattern::random(2);
            pattern.load();
            let mended = Spoil::Unmapped.apply(&own, core::ptr::null_mut());
            turns.next();
            turns.wait(3);
            assert!(!is_task_switched(), "the other one is preloaded");
            assert_eq!(Pattern::store(), pattern, "the other one goes on");
            Spoil::Unmapped.apply(&own, mended);
            turns.next();
        });
        case.join(&[victim, other]);
        let counted = counts.so_far();
        case.expect("a preload and a load failed", counted.failed >= 2);
        case.expect_eq("loads", counted.loads, 1);
        case.expect_eq("traps, all of them first uses", counted.traps, 3);
        case.expect_eq("first uses", counted.inits, 3);
        case.expect_eq("cross-calls", counted.xcalls, 0);
        case.policy(Policy::Lazy);
    }

    fn an_area_that_is_refused(case: &mut Case) {
        case.trusting();
        move_to(0);
        let turns = Arc::new(Turns::new());
        let others_turns = Arc::clone(&turns);
        let counts = Counts::begin();
        let other = spawn("other", 0, new_domain(), move || {
            let pattern = Pattern::random(2);
            pattern.load();
            others_turns.next();
            others_turns.wait(2);
            assert_eq!(Pattern::store(), pattern, "the other one goes on");
        });
        let poor = spawn("poor", 0, new_domain(), move || {
            turns.wait(1);
            current().refuse_fpu_area(true);
            assert_eq!(load(), REFUSED);
            assert_clean();
            assert!(!current().pcu().valid_p(FPU), "there is no state still");
            current().refuse_fpu_area(false);
            turns.next();
            assert_eq!(Pattern::store(), Pattern::INITIAL);
        });
        case.join(&[other, poor]);
        let expected = UnitStats {
            traps: 3,
            loads: 1,
            inits: 2,
            restores: 1,
            failed: 1,
            saves: 1,
            releases: 3,
            discards: 2,
            ..UnitStats::default()
        };
        case.expect_counts(&counts, expected);
    }
}
