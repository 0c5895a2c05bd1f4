//! What an empty kernel section costs: instructions, counted exactly (QEMU's `-icount`, where a tick of the time stamp counter is an
//! instruction), without debug assertions. Whoever owns the FPU pays one save more, and nothing depends on whose state that is.
//!
//! Leak rule: both.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [
        Run {
            cpu: "max",
            cpus: 1,
        },
        Run {
            cpu: "qemu64",
            cpus: 1,
        },
    ];
    pcu9_runner::boot_test("boot_count_section", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use core::arch::x86_64::_rdtsc;
    use core::ptr::NonNull;

    use pcu9::kernel::Stopped;
    use pcu9::x86_64::fpu::features;
    use pcu9_testbed::glue::{FPU, KERNEL, PCU, cpu_pcu, with_token};
    use pcu9_testbed::lock::InterruptsOff;
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::testing::{Case, Turns, move_to, new_domain, prepare, spawn, start};

    pcu9_testbed::boot_tests! { domain_aware_costs, trusting_costs }

    const TIMES: usize = 8;
    /// The gate opens, the registers are wiped at the end, the gate closes; the watch and the NMIs of this kernel's tests, which stand
    /// around each call of the unit, have a part in it.
    const BOUND: u64 = 320;
    /// What is more if there is an owner: its state is saved and given up.
    const SAVE_BOUND: u64 = 160;
    /// Inside another one: its registers are saved to the slot, wiped, and restored at the end.
    const NESTED_BOUND: u64 = 340;

    fn ticks() -> u64 {
        // SAFETY: reading the time stamp counter changes nothing.
        unsafe { _rdtsc() }
    }

    /// Instructions of `f` alone.
    #[inline(never)]
    fn count(f: impl FnOnce()) -> u64 {
        let (begin, nothing) = (ticks(), ticks());
        f();
        ticks() - nothing - (nothing - begin)
    }

    /// Instructions of a section of the LWP that calls this, whose token it has already.
    fn section() -> u64 {
        let _off = InterruptsOff::new();
        with_token(|token| count(|| PCU.section(token, FPU, |_| ()).expect("no other section")))
    }

    fn section_in_interrupt(slot: Option<&mut Stopped<'_, pcu9_testbed::glue::Testbed, 1>>) -> u64 {
        let _off = InterruptsOff::new();
        count(|| {
            PCU.section_in_interrupt(&KERNEL, FPU, slot, |_| ())
                .expect("there is a slot, or no other section");
        })
    }

    /// Counts `f` again and again, each time after `before`; they are all the same.
    ///
    /// But where the last x87 instruction's pointers have to be overwritten, the short wipe leaves x87 in use for a processor that tells
    /// by what is in it, so that the next one is the long one, and so on in turn; the more expensive one counts then.
    fn count_all(case: &mut Case, what: &str, before: impl Fn(), f: impl Fn() -> u64) -> u64 {
        let costs: [u64; TIMES] = core::array::from_fn(|_| {
            before();
            f()
        });
        let [one, other, ..] = costs;
        for pair in costs.chunks(2) {
            case.expect_eq(what, pair, &[one, other]);
        }
        let takes_turns = features().forgets_x87_pointers() && features().can_tell_use();
        case.expect("the same cost each time", one == other || takes_turns);
        case.log(format_args!("{what}: {one} instructions, and {other}"));
        one.max(other)
    }

    fn costs(case: &mut Case) {
        move_to(0);
        let slot = prepare("slot", 0, 0, || ());
        // SAFETY: it has not been started.
        let token = || unsafe { Stopped::new(&KERNEL, NonNull::from(&*slot)) };
        let (turns, others) = (Arc::new(Turns::new()), Arc::new(Turns::new()));
        let (its_turns, its_others) = (Arc::clone(&turns), Arc::clone(&others));
        // Each time it is asked, it makes its registers live here.
        let other = spawn("other", 0, new_domain(), move || {
            for turn in 1..=2 * TIMES as u64 {
                its_turns.wait(turn);
                Pattern::random(turn).load();
                its_others.next();
            }
            its_turns.wait(2 * TIMES as u64 + 1);
        });
        let nobody = || assert_eq!(cpu_pcu(0).owner(FPU), None);
        let somebody = || {
            turns.next();
            others.wait(turns.now());
            assert_eq!(cpu_pcu(0).owner(FPU), Some(NonNull::from(&*other)));
        };
        let none = count_all(case, "owner none", nobody, section);
        let owned = count_all(case, "owner other", somebody, section);
        let interrupt = || section_in_interrupt(None);
        let none_interrupt = count_all(case, "in an interrupt, owner none", nobody, interrupt);
        let owned_interrupt = count_all(case, "in an interrupt, owner other", somebody, interrupt);
        let nested = PCU
            .section_in_interrupt(&KERNEL, FPU, None, |_| {
                let inner = || section_in_interrupt(Some(&mut token()));
                count_all(case, "inside another one", || (), inner)
            })
            .expect("no other section");
        case.expect("sections that are counted at all", none > 20);
        case.expect("a section over nobody's registers", none <= BOUND);
        case.expect("a section over an owner's", owned <= none + SAVE_BOUND);
        case.expect("it costs a save", owned > none);
        case.expect("one in an interrupt", none_interrupt <= BOUND);
        case.expect(
            "over an owner's",
            owned_interrupt <= none_interrupt + SAVE_BOUND,
        );
        case.expect("a nested one", nested <= NESTED_BOUND);
        turns.next();
        start(&slot);
        case.join(&[other, slot]);
    }

    fn domain_aware_costs(case: &mut Case) {
        case.domain_aware();
        costs(case);
    }

    fn trusting_costs(case: &mut Case) {
        case.trusting();
        costs(case);
    }
}
