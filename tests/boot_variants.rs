//! Every variant of XSAVE is seen working, on the machines that have it: which instruction the unit takes, where an image's
//! components lie and which are written, that the rest comes back initial, and that nothing of any component is left for others.
//!
//! The runner says in the command line which emulator and which model this is. What each one is to have stands in a table, so
//! that a variant which quietly is not there, or not taken, is a failure; so is a machine that the table does not know.
//! Bochs has XSAVEC, XSAVES, AVX-512 and the init optimisation; QEMU has none of them, which is asserted too.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let models = [
        "max",
        "Haswell",
        "Skylake-Server",
        "max,-xsaveopt",
        "qemu64",
    ];
    pcu9_runner::boot_test("boot_variants", &models.map(|cpu| Run { cpu, cpus: 2 }))
}

#[cfg(target_os = "none")]
#[expect(clippy::cast_possible_truncation, reason = "a kernel for x86-64 alone")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use alloc::vec;
    use core::alloc::Layout;
    use core::arch::x86_64::__cpuid_count;
    use core::ops::Range;
    use core::ptr::NonNull;

    use pcu9::x86_64::fpu::{Area, Format, SaveInstruction, features};
    use pcu9::x86_64::machine::{Machine, Native};
    use pcu9_testbed::glue::{FPU, PCU, with_token};
    use pcu9_testbed::registers::{Component, RegisterFile, touch};
    use pcu9_testbed::sched::{current, yield_now};
    use pcu9_testbed::testing::{
        Case, Slot, Turns, move_to, new_domain, past_the_gate, prepare, spawn, start,
    };
    use pcu9_testbed::{cpu, option, option_number, watch};

    pcu9_testbed::boot_tests! {
        every_policy_and_rule:
            distinct_registers_take_turns_and_move;
        own_policies:
            the_machine_is_what_the_table_says,
            a_save_writes_what_the_instruction_says_and_a_restore_takes_no_more,
            nothing_of_any_component_is_left_for_another_domain,
            the_watch_sees_each_component,
    }

    /// What a machine is to have.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Expected {
        save_instruction: SaveInstruction,
        xcr0: u64,
        /// Does the processor know which components are in their initial state?
        tells_use: bool,
        /// Has it XGETBV with ECX = 1, which says so?
        has_xgetbv1: bool,
    }

    const AVX: u64 = 0b111;
    const AVX512: u64 = 0b1110_0111;

    /// What this machine is to have, by the name of its model.
    fn expected() -> Option<Expected> {
        use SaveInstruction::{Fxsave, Xsave, Xsavec, Xsaveopt, Xsaves};
        let (save_instruction, xcr0, has_xgetbv1) = match (option("emulator")?, option("cpu")?) {
            ("bochs", "tigerlake" | "corei7_skylake_x") => (Xsaves, AVX512, true),
            // XSAVES is shown, and is not to be used: AMD's erratum 1386.
            ("bochs", "ryzen") => (Xsavec, AVX, true),
            ("bochs", "broadwell_ult" | "corei7_sandy_bridge_2600k") | ("qemu", "Haswell") => {
                (Xsaveopt, AVX, false)
            }
            ("bochs", "core2_penryn_t9600") => (Xsave, 0b11, false),
            // In Skylake-Server AVX-512 is enumerated in leaf 0DH, and denied in leaf 7.
            ("qemu", "max" | "Skylake-Server") => (Xsaveopt, AVX, true),
            ("qemu", "max,-xsaveopt") => (Xsave, AVX, true),
            ("qemu", "qemu64") => (Fxsave, 0, false),
            _ => return None,
        };
        Some(limited(Expected {
            save_instruction,
            xcr0,
            tells_use: option("emulator") == Some("bochs"),
            has_xgetbv1,
        }))
    }

    /// What the command line lets the unit use of it.
    fn limited(machine: Expected) -> Expected {
        let limit = match option("xsave") {
            None | Some("xsaves") => SaveInstruction::Xsaves,
            Some("xsavec") => SaveInstruction::Xsavec,
            Some("xsaveopt") => SaveInstruction::Xsaveopt,
            Some("xsave") => SaveInstruction::Xsave,
            other => panic!("xsave={other:?}: no case of this test"),
        };
        let components = option_number("xcr0").unwrap_or(u64::MAX);
        Expected {
            save_instruction: machine.save_instruction.min(limit),
            xcr0: machine.xcr0 & components,
            ..machine
        }
    }

    /// [`expected`], or a failure.
    fn expect(case: &mut Case) -> Option<Expected> {
        let expected = expected();
        if expected.is_none() {
            case.fail(format_args!(
                "cpu={:?} of emulator={:?} is not in the table of boot_variants: enter there what it has",
                option("cpu"),
                option("emulator"),
            ));
        }
        expected
    }

    fn the_machine_is_what_the_table_says(case: &mut Case) {
        let Some(expected) = expect(case) else { return };
        let seen = Expected {
            save_instruction: features().save_instruction(),
            xcr0: features().xcr0(),
            has_xgetbv1: features().can_tell_use(),
            ..expected
        };
        case.log(format_args!("{seen:?}, {} bytes", features().area_bytes()));
        case.expect_eq("the unit's choice", &seen, &expected);
        let bytes = match (expected.save_instruction.format(), expected.xcr0) {
            (Format::Legacy, _) => 512,
            (_, 0b11) => 576,
            (_, AVX) => 576 + 256,
            (Format::Compacted, _) => 576 + 256 + 64 + 512 + 1024,
            // There is a hole in front of the opmasks: Intel SDM, volume 1, "Standard Format of the Extended Region".
            (Format::Standard, _) => 1088 + 64 + 512 + 1024,
        };
        case.expect_eq("bytes of an area", features().area_bytes(), bytes);
        if expected.xcr0 != 0 {
            // SAFETY: `init_cpu` has set OSXSAVE, since there is XSAVE.
            let in_force = unsafe { Native::xgetbv0() };
            case.expect_eq("XCR0 in force", in_force, expected.xcr0);
        }
        // The opmasks are read and written at 64 bits.
        let has_avx512bw = __cpuid_count(7, 0).ebx & 1 << 30 != 0;
        case.expect(
            "AVX512BW where there is AVX-512",
            has_avx512bw || expected.xcr0 != AVX512,
        );
    }

    /// Where a component lies in an image of this machine's.
    fn place(component: Component) -> Range<usize> {
        let leaf = |number| __cpuid_count(0xd, number);
        match component {
            // ST(0) alone: of its 16 bytes, 10 are state.
            Component::X87 => return 32..42,
            Component::Sse => return 160..416,
            _ => {}
        }
        let own = leaf(component as u32);
        let begin = match features().save_instruction().format() {
            Format::Compacted => Component::ALL[2..]
                .iter()
                .filter(|other| (**other as u32) < component as u32)
                .map(|other| leaf(*other as u32).eax as usize)
                .fold(576usize, |end, bytes| end.next_multiple_of(64) + bytes)
                .next_multiple_of(64),
            Format::Legacy | Format::Standard => own.ebx as usize,
        };
        begin..begin + own.eax as usize
    }

    /// What is in memory where nothing was written; no register that is loaded here has such a byte.
    const UNTOUCHED: u8 = 0xa5;
    /// Behind an area, to see whether a save stays inside.
    const BEHIND: usize = 1024;

    fn components() -> impl Iterator<Item = Component> {
        let (all, has_xsave) = (features().xcr0(), features().xcr0() != 0);
        Component::ALL.into_iter().filter(move |component| {
            if has_xsave {
                all & component.bit() != 0
            } else {
                matches!(component, Component::X87 | Component::Sse)
            }
        })
    }

    /// Uses one component or none, saves, and gives the image and all that is behind it: first filled, then saved to.
    fn image_of(used: Option<Component>) -> vec::Vec<u8> {
        let lwp = current();
        let own = lwp.fpu_area();
        let bytes = features().area_bytes();
        let layout = Layout::from_size_align(bytes + BEHIND, 64).expect("a small area");
        // SAFETY: the size is not zero.
        let memory = unsafe { alloc::alloc::alloc(layout) };
        let memory = NonNull::new(memory).expect("memory for an area");
        // SAFETY: new memory of that length.
        unsafe { memory.write_bytes(UNTOUCHED, layout.size()) };
        // SAFETY: as above, and for this LWP alone.
        unsafe { <Area>::new(NonNull::slice_from_raw_parts(memory, bytes)) }.expect("an area");
        // SAFETY: an area, until the old one is put back; nothing of this LWP is live or valid yet.
        unsafe { lwp.replace_fpu_area(memory.as_ptr()) };
        match used {
            Some(component) => component.use_alone(),
            None => assert_eq!(touch(), 0x1f80),
        }
        assert!(lwp.pcu().live_cpu(FPU).is_some(), "memory is not the state");
        for component in components() {
            for at in place(component) {
                // SAFETY: in the area.
                let byte = unsafe { memory.add(at) };
                // SAFETY: nobody reads the area before the next save, since the registers are the state.
                unsafe { byte.write(UNTOUCHED) };
            }
        }
        assert_eq!(with_token(|token| PCU.save(token, FPU)), Ok(()));
        let mut image = vec![0; layout.size()];
        // SAFETY: both are that long.
        unsafe { memory.copy_to_nonoverlapping(NonNull::from(&mut image[..]).cast(), image.len()) };
        let expected = used.map_or(RegisterFile::INITIAL, Component::used_alone);
        assert_eq!(
            RegisterFile::store(),
            expected,
            "{used:?}: what was not written comes back initial"
        );
        with_token(|token| PCU.discard(token, FPU, pcu9::pcu::Validity::Invalid))
            .expect("its registers are here");
        // SAFETY: nothing is live or valid.
        unsafe { lwp.replace_fpu_area(own) };
        // SAFETY: allocated above with this layout, and nobody's any more.
        unsafe { alloc::alloc::dealloc(memory.as_ptr(), layout) };
        image
    }

    /// XSAVE writes all; the others leave out what is in its initial state, if the processor can tell; `XSTATE_BV` says which
    /// are in use, `XCOMP_BV` is the format's.
    fn a_save_writes_what_the_instruction_says_and_a_restore_takes_no_more(case: &mut Case) {
        case.trusting();
        let Some(expected) = expect(case) else { return };
        for used in [None].into_iter().chain(components().map(Some)) {
            let slot = Arc::new(Slot::new());
            let result = Arc::clone(&slot);
            let lwp = spawn("user", 0, new_domain(), move || result.put(image_of(used)));
            case.join(&[lwp]);
            let Some(image) = slot.take() else {
                case.fail(format_args!("{used:?}: no image"));
                continue;
            };
            check(case, &expected, used, &image);
        }
    }

    fn check(case: &mut Case, expected: &Expected, used: Option<Component>, image: &[u8]) {
        let bytes = features().area_bytes();
        let behind = image[bytes..].iter().all(|byte| *byte == UNTOUCHED);
        case.expect("nothing is written behind the area", behind);
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&image[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let instruction = expected.save_instruction;
        let in_use = if expected.tells_use {
            used.map_or(0, Component::bit)
        } else {
            expected.xcr0
        };
        if instruction != SaveInstruction::Fxsave {
            case.expect_eq("XSTATE_BV", (used, word(512)), (used, in_use));
            let xcomp_bv = match instruction.format() {
                Format::Compacted => 1 << 63 | expected.xcr0,
                Format::Legacy | Format::Standard => 0,
            };
            case.expect_eq("XCOMP_BV", (used, word(520)), (used, xcomp_bv));
        }
        for component in components() {
            let leaves_out = !matches!(
                instruction,
                SaveInstruction::Fxsave | SaveInstruction::Xsave
            ) && in_use & component.bit() == 0;
            let mut untouched = image[place(component)]
                .iter()
                .map(|byte| *byte == UNTOUCHED);
            let as_expected = untouched.all(|is_untouched| is_untouched == leaves_out);
            case.expect_eq(
                if leaves_out {
                    "no byte is written"
                } else {
                    "every byte is written"
                },
                (used, component, as_expected),
                (used, component, true),
            );
        }
        if let Some(component) = used {
            let file: &[u8] = &image[place(component)];
            case.expect(
                "what was loaded is there",
                file.iter().any(|byte| *byte != 0),
            );
        }
    }

    /// One domain uses one component alone; what another domain finds past the gate is initial, by the cheap wipe or the
    /// other. Under the rule that lets it lie it is found, or the look would prove nothing. What the processor says of its use
    /// is asked on the way.
    fn nothing_of_any_component_is_left_for_another_domain(case: &mut Case) {
        let Some(expected) = expect(case) else { return };
        for component in components() {
            for is_trusting in [true, false] {
                if is_trusting {
                    case.trusting();
                } else {
                    case.domain_aware();
                }
                let in_use = Arc::new(Slot::new());
                let told = Arc::clone(&in_use);
                let leaver = spawn("leaver", 0, new_domain(), move || {
                    component.use_alone();
                    // SAFETY: CPUID shows XGETBV with ECX = 1 where it is executed, and OSXSAVE is set.
                    told.put(
                        features()
                            .can_tell_use()
                            .then(|| unsafe { Native::xinuse() }),
                    );
                });
                case.join(&[leaver]);
                if expected.tells_use && expected.has_xgetbv1 {
                    case.expect_eq("in use", in_use.take(), Some(Some(component.bit())));
                }
                let seen = Arc::new(Slot::new());
                let result = Arc::clone(&seen);
                let looker = prepare("looker", 0, new_domain(), move || {
                    result.put(past_the_gate(RegisterFile::store));
                });
                start(&looker);
                case.join(&[looker]);
                let left = if is_trusting {
                    component.used_alone()
                } else {
                    RegisterFile::INITIAL
                };
                case.expect_eq(
                    "what is left",
                    (component, seen.take()),
                    (component, Some(left)),
                );
            }
        }
    }

    /// The attacker's look of `boot_watch` reads every component.
    fn the_watch_sees_each_component(case: &mut Case) {
        case.domain_aware();
        for component in components() {
            for is_out in [true, false] {
                watch::take_wipe_out(is_out);
                watch::start();
                let leaver = spawn("leaver", 0, new_domain(), move || component.use_alone());
                case.join(&[leaver]);
                let looker = spawn("looker", 0, new_domain(), || {});
                case.join(&[looker]);
                let (_, leaks) = watch::stop();
                watch::take_wipe_out(false);
                case.expect_eq(
                    "is a leak seen",
                    (component, is_out, leaks != 0),
                    (component, is_out, is_out),
                );
                // What was left lying goes with a first use, so that the next round begins with initial registers.
                let last = spawn("last", 0, new_domain(), || {
                    touch();
                });
                case.join(&[last]);
            }
        }
    }

    const LWPS: u64 = 3;
    const ROUNDS: u64 = 8;

    /// LWPs with contents of their own in all registers take turns on one CPU, and then move to another; each finds what it had.
    fn distinct_registers_take_turns_and_move(case: &mut Case) {
        case.domain_aware();
        let Some(expected) = expect(case) else { return };
        let file = RegisterFile::random(1);
        for component in Component::ALL {
            let is_in_use = file.has(component);
            let is_there = expected.xcr0 & component.bit() != 0
                || expected.xcr0 == 0 && matches!(component, Component::X87 | Component::Sse);
            case.expect_eq("in use", (component, is_in_use), (component, is_there));
        }
        let turns = Arc::new(Turns::new());
        let lwps = [0, 1, 2].map(|number| {
            let turns = Arc::clone(&turns);
            spawn("user", 0, new_domain(), move || {
                turns.wait(number);
                assert_eq!(
                    RegisterFile::store(),
                    RegisterFile::INITIAL,
                    "its first use"
                );
                let mut own = RegisterFile::random(number);
                own.load();
                for round in 0..ROUNDS {
                    turns.next();
                    turns.wait((round + 1) * LWPS + number);
                    assert_eq!(RegisterFile::store(), own, "LWP {number}, round {round}");
                    move_to((round + number) as usize % cpu::n_cpus());
                    assert_eq!(RegisterFile::store(), own, "LWP {number} on another CPU");
                    yield_now();
                    own = RegisterFile::random(LWPS * round + number);
                    own.load();
                }
                turns.next();
            })
        });
        case.join(&lwps);
    }
}
