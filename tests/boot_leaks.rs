//! What an LWP of one domain left in the registers, an LWP of another one does not find there: not even behind the closed gate,
//! where affected CPUs read speculatively (CVE-2018-3665).
//!
//! Each case has a leaver, which computes, and a looker, which reads the registers past the gate in its first instructions.
//! Under `DomainAware` it must find the initial state. Under `Trusting` the same look must find what was left, or the test
//! would prove nothing.
//! What holds under every policy is looked at under each of them too.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [
        Run {
            cpu: "Haswell",
            cpus: 2,
        },
        Run {
            cpu: "qemu64",
            cpus: 2,
        },
    ];
    pcu9_runner::boot_test("boot_leaks", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    use core::sync::atomic::{AtomicBool, Ordering};

    use pcu9::pcu::{Policy, Validity};
    use pcu9_testbed::glue::{FPU, PCU, exec, fork, with_token};
    use pcu9_testbed::registers::RegisterFile;
    use pcu9_testbed::sched::{join, yield_now};
    use pcu9_testbed::testing::{
        Case, Counts, Slot, move_to, new_domain, past_the_gate, policy, prepare, spawn,
        spawn_plain, start,
    };

    pcu9_testbed::boot_tests! {
        every_policy:
            after_a_switch,
            after_exit,
            after_a_discard,
            after_a_save,
            after_kernel_threads,
            after_a_migration_where_the_registers_stayed,
            after_a_migration_where_the_registers_went,
            after_exec,
            in_a_child,
            in_the_same_domain_nothing_is_wiped,
            after_a_change_of_the_rule,
    }

    /// Fills all registers, and says with what.
    fn compute() -> RegisterFile {
        let registers = RegisterFile::random(1);
        registers.load();
        assert_eq!(read(), registers);
        registers
    }

    fn read() -> RegisterFile {
        RegisterFile::store()
    }

    /// What the leaver computed, and what the looker saw.
    static LEFT: Slot<RegisterFile> = Slot::new();
    static SEEN: Slot<RegisterFile> = Slot::new();
    static LOOKED: AtomicBool = AtomicBool::new(false);

    fn look() {
        SEEN.put(past_the_gate(read));
        LOOKED.store(true, Ordering::Release);
    }

    /// Yields until the looker has looked.
    fn stay() {
        while !LOOKED.load(Ordering::Acquire) {
            yield_now();
        }
    }

    /// Runs a leaver on CPU 0, and a looker on CPU `cpu` after it, once under each rule; both are started by `main` on CPU 0, in
    /// this order.
    fn check(case: &mut Case, cpu: usize, leave: fn()) {
        for is_trusting in [true, false] {
            if is_trusting {
                case.trusting();
            } else {
                case.domain_aware();
            }
            move_to(0);
            let counts = Counts::begin();
            LOOKED.store(false, Ordering::Release);
            let leaver = spawn("leaver", 0, new_domain(), leave);
            // The looker is woken when the leaver has gone: until then it does not run at all.
            let looker = prepare("looker", cpu, new_domain(), look);
            let seen_left = case.wait_until("the leaver leaves", || {
                HAS_LEFT.swap(false, Ordering::AcqRel)
            });
            case.expect("it left", seen_left);
            start(&looker);
            case.join(&[looker, leaver]);
            judge(case, is_trusting);
            case.expect_identities(&counts);
        }
    }

    /// The leaver says that it has done its part: it ends, or only waits for the look.
    static HAS_LEFT: AtomicBool = AtomicBool::new(false);

    fn judge(case: &mut Case, finds_it: bool) {
        let left = LEFT.take();
        let expected = if finds_it {
            left
        } else {
            Some(RegisterFile::INITIAL)
        };
        case.expect_eq("what the other domain finds", SEEN.take(), expected);
    }

    fn leave() {
        LEFT.put(compute());
    }

    fn done() {
        HAS_LEFT.store(true, Ordering::Release);
    }

    fn after_a_switch(case: &mut Case) {
        check(case, 0, || {
            leave();
            done();
            stay();
            assert_eq!(read(), compute(), "what was wiped was saved before");
        });
    }

    fn after_exit(case: &mut Case) {
        check(case, 0, || {
            leave();
            done();
        });
    }

    fn after_a_discard(case: &mut Case) {
        check(case, 0, || {
            leave();
            let answer = with_token(|token| PCU.discard(token, FPU, Validity::Invalid));
            assert_eq!(answer, Ok(()));
            done();
            stay();
        });
    }

    fn after_a_save(case: &mut Case) {
        check(case, 0, || {
            leave();
            assert_eq!(with_token(|token| PCU.save(token, FPU)), Ok(()));
            done();
            stay();
            assert_eq!(read(), compute(), "what was wiped was saved before");
        });
    }

    fn after_kernel_threads(case: &mut Case) {
        check(case, 0, || {
            leave();
            let threads = [1, 2].map(|_| {
                spawn_plain("thread", 0, || {
                    for _ in 0..5 {
                        yield_now();
                    }
                })
            });
            for lwp in &threads {
                join(lwp);
            }
            done();
        });
    }

    /// CPU 0 still holds the registers of the LWP that is on CPU 1 now.
    fn after_a_migration_where_the_registers_stayed(case: &mut Case) {
        check(case, 0, || {
            leave();
            move_to(1);
            done();
            stay();
            assert_eq!(read(), compute(), "what was wiped was saved before");
        });
    }

    fn after_a_migration_where_the_registers_went(case: &mut Case) {
        check(case, 1, || {
            leave();
            move_to(1);
            assert_eq!(read(), compute());
            done();
            stay();
            assert_eq!(read(), compute(), "what was wiped was saved before");
        });
    }

    /// The looker is the leaver itself, in its next life.
    fn after_exec(case: &mut Case) {
        for is_trusting in [true, false] {
            if is_trusting {
                case.trusting();
            } else {
                case.domain_aware();
            }
            let counts = Counts::begin();
            let lwp = spawn("execs", 0, new_domain(), || {
                leave();
                assert_eq!(exec(new_domain()), Ok(()));
                look();
            });
            case.join(&[lwp]);
            judge(case, is_trusting);
            case.expect_identities(&counts);
        }
    }

    /// The child has the parent's registers, but by its own use: before it they are the parent's, of another domain.
    fn in_a_child(case: &mut Case) {
        for is_trusting in [true, false] {
            if is_trusting {
                case.trusting();
            } else {
                case.domain_aware();
            }
            let counts = Counts::begin();
            let lwp = spawn("parent", 0, new_domain(), || {
                let registers = compute();
                LEFT.put(registers);
                let child = prepare("child", 0, new_domain(), move || {
                    look();
                    assert_eq!(read(), registers, "by its own use it gets them");
                });
                assert_eq!(fork(&child), Ok(()));
                start(&child);
                join(&child);
            });
            case.join(&[lwp]);
            // Policies that preload have brought in what it inherited before it looks.
            let is_preloaded = matches!(policy(), Policy::Deferred | Policy::Eager);
            judge(case, is_trusting || is_preloaded);
            case.expect_identities(&counts);
        }
    }

    fn in_the_same_domain_nothing_is_wiped(case: &mut Case) {
        case.domain_aware();
        move_to(0);
        let domain = new_domain();
        let counts = Counts::begin();
        let leaver = spawn("leaver", 0, domain, leave);
        case.join(&[leaver]);
        let looker = spawn("looker", 0, domain, look);
        case.join(&[looker]);
        case.expect_eq("what the same domain finds", SEEN.take(), LEFT.take());
        case.expect_eq("wipes", counts.so_far().wipes, 0);
    }

    /// What was left under `Trusting` is gone when `DomainAware` comes into force, on every CPU.
    fn after_a_change_of_the_rule(case: &mut Case) {
        for cpu in [0, 1] {
            case.trusting();
            let leaver = spawn("leaver", cpu, new_domain(), leave);
            case.join(&[leaver]);
            let looker = spawn("looker", cpu, new_domain(), look);
            case.join(&[looker]);
            case.expect_eq("what was left", SEEN.take(), LEFT.take());
            case.domain_aware();
            let looker = spawn_plain("thread", cpu, look);
            case.join(&[looker]);
            case.expect_eq("after the change", SEEN.take(), Some(RegisterFile::INITIAL));
        }
    }
}
