//! The attacker's look at every switch-in, trap and return: nobody runs over another domain's registers, whatever the policy,
//! through forks, execs, exits, discards, kernel threads and migrations; and the look sees it when the wipe is taken out.
//!
//! Leak rule: domain aware.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [
        Run {
            cpu: "max",
            cpus: 4,
        },
        Run {
            cpu: "qemu64",
            cpus: 2,
        },
    ];
    pcu9_runner::boot_test("boot_watch", &runs)
}

#[cfg(target_os = "none")]
#[expect(clippy::cast_possible_truncation, reason = "a kernel for x86-64 alone")]
mod kernel {
    extern crate alloc;

    use alloc::vec::Vec;

    use pcu9::pcu::{Policy, Validity};
    use pcu9_testbed::cpu::n_cpus;
    use pcu9_testbed::glue::{self, FPU, PCU};
    use pcu9_testbed::registers::RegisterFile;
    use pcu9_testbed::testing::{Case, move_to, new_domain, prepare, spawn, spawn_plain, start};
    use pcu9_testbed::{sched, watch};

    pcu9_testbed::boot_tests! {
        lazy_shows_nothing, deferred_shows_nothing, eager_shows_nothing, adaptive_shows_nothing,
        adaptive_write_through_shows_nothing, probe_shows_nothing, the_look_sees_a_missing_wipe,
    }

    const LIVES: u64 = 8;
    const ROUNDS: u64 = 200;

    /// One LWP's life: it computes, forks, starts over, forgets, migrates, and finds its own registers every time.
    fn live(life: u64) {
        let own = RegisterFile::random(life + 1);
        own.load();
        for round in 0..ROUNDS {
            let step = life.wrapping_mul(31).wrapping_add(round * 7);
            match step % 11 {
                0 => move_to((step / 11) as usize % n_cpus()),
                1 => {
                    // What the child starts with, it sees before anything else.
                    let child = prepare("child", sched_cpu(step), new_domain(), move || {
                        assert_eq!(
                            RegisterFile::store(),
                            RegisterFile::random(life + 1),
                            "the parent's registers"
                        );
                        RegisterFile::random(step).load();
                        sched::yield_now();
                        assert_eq!(RegisterFile::store(), RegisterFile::random(step));
                    });
                    glue::fork(&child).expect("the holder answers");
                    start(&child);
                }
                2 => {
                    glue::exec(new_domain()).expect("the holder answers");
                    assert_eq!(RegisterFile::store(), RegisterFile::INITIAL, "after exec");
                    own.load();
                }
                3 => {
                    glue::with_token(|token| PCU.discard(token, FPU, Validity::Invalid))
                        .expect("the holder answers");
                    assert_eq!(
                        RegisterFile::store(),
                        RegisterFile::INITIAL,
                        "after a discard"
                    );
                    own.load();
                }
                4 => {
                    spawn_plain("kernel", sched_cpu(step), sched::yield_now);
                }
                _ => sched::yield_now(),
            }
            assert_eq!(RegisterFile::store(), own, "life {life}, round {round}");
        }
    }

    fn sched_cpu(step: u64) -> usize {
        step as usize % n_cpus()
    }

    /// Eight lives under `policy`; gives the looks and the leaks.
    fn watched(case: &mut Case, policy: Policy) -> (u64, u64) {
        case.domain_aware();
        case.log(format_args!("policy: {policy:?}"));
        glue::set_policy(policy);
        watch::start();
        sched::set_timer(true);
        let lwps: Vec<_> = (0..LIVES)
            .map(|life| spawn("life", sched_cpu(life), new_domain(), move || live(life)))
            .collect();
        case.join(&lwps);
        sched::set_timer(false);
        let seen = watch::stop();
        glue::set_policy(Policy::Lazy);
        case.log(format_args!("{} looks", seen.0));
        seen
    }

    fn shows_nothing(case: &mut Case, policy: Policy) {
        let (looks, leaks) = watched(case, policy);
        case.expect("at least 500 looks", looks >= 500);
        case.expect_eq("leaks", leaks, 0);
    }

    fn lazy_shows_nothing(case: &mut Case) {
        shows_nothing(case, Policy::Lazy);
    }

    fn deferred_shows_nothing(case: &mut Case) {
        shows_nothing(case, Policy::Deferred);
    }

    fn eager_shows_nothing(case: &mut Case) {
        shows_nothing(case, Policy::Eager);
    }

    fn adaptive_shows_nothing(case: &mut Case) {
        shows_nothing(case, Policy::Adaptive);
    }

    fn adaptive_write_through_shows_nothing(case: &mut Case) {
        shows_nothing(case, Policy::AdaptiveWriteThrough);
    }

    fn probe_shows_nothing(case: &mut Case) {
        shows_nothing(case, Policy::Probe);
    }

    fn the_look_sees_a_missing_wipe(case: &mut Case) {
        watch::take_wipe_out(true);
        let (_, leaks) = watched(case, Policy::Lazy);
        watch::take_wipe_out(false);
        case.log(format_args!("{leaks} leaks seen"));
        case.expect("leaks are seen without the wipe", leaks > 0);
    }
}
