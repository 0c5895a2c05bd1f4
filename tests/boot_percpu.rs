//! Per-CPU data in a kernel: CPUs with gaps in their numbers, each sees its own, others see it too; and the truth about all of it.
//!
//! The last case stops every CPU and prints what it knows, a line `@truth ..` for each value, for a reader that must find the same in
//! a dump. With `hold=1` on the command line it then prints `@truth end` and keeps the memory as it is, for ever: whoever asked for it dumps,
//! and ends the emulator. Without it the run ends as any other.
//!
//! Leak rule: as each case says.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [1, 2, 8].map(|cpus| Run { cpu: "max", cpus });
    pcu9_runner::boot_test("boot_percpu", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use core::hint::black_box;
    use core::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};

    use pcu9::kernel::CpuId;
    use pcu9::percpu::{CounterU64, CpuState, InitError, Percpu, Pinned, Tables, Zpcpu};
    use pcu9_testbed::cpu::hotplug::offline;
    use pcu9_testbed::glue::{self, FPU, HERE, PCPU, PCU, PERCPU, SYSCALLS, TICKS, TRAPS};
    use pcu9_testbed::lock::InterruptsOff;
    use pcu9_testbed::lwp::Lwp;
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::testing::{
        Case, Player, Slot, Turns, move_to, new_domain, spawn, spawn_plain,
    };
    use pcu9_testbed::{cpu, line, option};
    use x86_64::instructions::hlt;

    pcu9_testbed::boot_tests! {
        each_cpu_finds_its_own_block_and_its_own_words,
        words_of_every_size,
        by_the_functions,
        a_second_init_is_refused,
        the_truth,
    }

    pcu9::dpcpu! {
        /// Its initial value is not 0.
        static COLOUR: AtomicU64 = AtomicU64::new(0xc0_10_c0);
        static SMALL: AtomicU16 = AtomicU16::new(0xffff);
        static BYTE: core::sync::atomic::AtomicU8 = core::sync::atomic::AtomicU8::new(1);
        static SIGNED: core::sync::atomic::AtomicI32 = core::sync::atomic::AtomicI32::new(-1);
        counter PACKETS;
    }

    // One function for each way to a word: `one_instruction` disassembles them.
    #[unsafe(no_mangle)]
    extern "C" fn dpcpu_increment() {
        COLOUR.increment(HERE);
    }
    #[unsafe(no_mangle)]
    extern "C" fn dpcpu_add(n: u64) {
        COLOUR.add(HERE, n);
    }
    #[unsafe(no_mangle)]
    extern "C" fn dpcpu_get() -> u64 {
        COLOUR.get(HERE)
    }
    #[unsafe(no_mangle)]
    extern "C" fn dpcpu_set(value: u64) {
        COLOUR.set(HERE, value);
    }
    #[unsafe(no_mangle)]
    extern "C" fn counter_add(counter: &CounterU64, n: u64) {
        counter.add(HERE, n);
    }

    /// The compiler must not know what is called.
    fn by_the_functions(case: &mut Case) {
        case.domain_aware();
        let counter = CounterU64::alloc(&PERCPU).expect("room");
        let off = InterruptsOff::new();
        black_box(dpcpu_set as extern "C" fn(u64))(100);
        black_box(dpcpu_increment as extern "C" fn())();
        black_box(dpcpu_add as extern "C" fn(u64))(u64::MAX);
        black_box(counter_add as extern "C" fn(&CounterU64, u64))(&counter, 9);
        let seen = black_box(dpcpu_get as extern "C" fn() -> u64)();
        case.expect_eq("the word", seen, 100);
        case.expect_eq("the counter", counter.fetch(&PERCPU), 9);
        COLOUR.set(HERE, 0xc0_10_c0);
        drop(off);
        counter.free(&PERCPU);
    }

    fn id(index: usize) -> CpuId {
        u16::try_from(index)
            .ok()
            .and_then(CpuId::new)
            .expect("a small number")
    }

    fn each_cpu_finds_its_own_block_and_its_own_words(case: &mut Case) {
        case.domain_aware();
        let before = COLOUR.sum(&PERCPU);
        for number in 0..cpu::n_cpus() {
            let seen = Arc::new(Slot::new());
            let slot = Arc::clone(&seen);
            let lwp = spawn_plain("looks", number, move || {
                let _off = InterruptsOff::new();
                // SAFETY: interrupts are off.
                let pinned = unsafe { Pinned::assume(HERE) };
                COLOUR.increment(HERE);
                let block = PCPU.here(&pinned);
                slot.put((
                    block.cpu(),
                    COLOUR.get(HERE),
                    COLOUR.here(&pinned).load(Relaxed),
                    core::ptr::eq(block.current(), PCPU.this_lwp(HERE)),
                ));
            });
            case.join(&[Arc::clone(&lwp)]);
            case.expect_eq(
                "what the CPU sees",
                seen.take(),
                Some((id(number).number().into(), 0xc0_10_c1, 0xc0_10_c1, true)),
            );
            let other = COLOUR
                .on(&PERCPU, id(number))
                .map(|word| word.load(Relaxed));
            case.expect_eq("what others see", other, Some(0xc0_10_c1));
        }
        case.expect_eq(
            "the sum",
            COLOUR.sum(&PERCPU),
            before + cpu::n_cpus() as u64,
        );
        case.expect_eq(
            "an absent CPU's",
            COLOUR.on(&PERCPU, id(90)).is_none(),
            true,
        );
    }

    fn words_of_every_size(case: &mut Case) {
        case.domain_aware();
        let zpcpu = Zpcpu::<AtomicU16>::alloc(&PERCPU).expect("room");
        let off = InterruptsOff::new();
        SMALL.add(HERE, 2);
        BYTE.add(HERE, 255);
        SIGNED.add(HERE, -5);
        case.expect_eq("16 bits wrap", SMALL.get(HERE), 1);
        case.expect_eq("8 bits wrap", BYTE.get(HERE), 0);
        case.expect_eq("32 bits are signed", SIGNED.get(HERE), -6);
        SMALL.set(HERE, 0xabcd);
        BYTE.set(HERE, 0x7f);
        SIGNED.set(HERE, i32::MIN);
        SMALL.increment(HERE);
        BYTE.increment(HERE);
        SIGNED.increment(HERE);
        case.expect_eq("16 bits", SMALL.get(HERE), 0xabce);
        case.expect_eq("8 bits", BYTE.get(HERE), 0x80);
        case.expect_eq("32 bits", SIGNED.get(HERE), i32::MIN + 1);
        zpcpu.set(HERE, 9);
        zpcpu.add(HERE, 0xffff);
        case.expect_eq("an allocated word", zpcpu.get(HERE), 8);
        drop(off);
        zpcpu.free(&PERCPU);
    }

    fn a_second_init_is_refused(case: &mut Case) {
        case.domain_aware();
        let tables = Tables {
            groups: &[],
            zpcpu: &mut [],
        };
        case.expect_eq(
            "init",
            Percpu::init(&PERCPU, 8, 4096, tables),
            Err(InitError::Twice),
        );
    }

    /// CPUs that do not exist but have data: one that never started, one that was taken offline and has its area at the end of the memory.
    const NEVER_STARTED: usize = 70;
    const TAKEN_OFFLINE: usize = 101;

    fn the_truth(case: &mut Case) {
        case.domain_aware();
        move_to(0);
        glue::add_cpu(id(NEVER_STARTED));
        let end = glue::add_cpu_at_the_end(id(TAKEN_OFFLINE));
        PERCPU.set_started(id(TAKEN_OFFLINE)).expect("it has data");
        PERCPU.set_offline(id(TAKEN_OFFLINE)).expect("it has data");
        let counter = CounterU64::alloc(&PERCPU).expect("room");
        let object = Zpcpu::<[AtomicU64; 3]>::alloc(&PERCPU).expect("room");
        for (place, cpu) in PERCPU.present().enumerate() {
            let n = place as u64 + 1;
            let packets = PACKETS.on(&PERCPU, cpu).expect("present");
            packets.store(1000 * n + cpu.index() as u64, Relaxed);
            for (word, value) in
                object
                    .on(&PERCPU, cpu)
                    .expect("present")
                    .iter()
                    .zip([n, n << 32, !n])
            {
                word.store(value, Relaxed);
            }
        }
        counter.add(HERE, 41);

        // An LWP whose registers are in memory, and one for each other CPU that stays, whose registers are live there.
        let turns = Arc::new(Turns::new());
        let saved = spawn("saved", 0, new_domain(), {
            let turns = Arc::clone(&turns);
            move || {
                Pattern::random(100).load();
                glue::with_token(|lwp| PCU.save(lwp, FPU)).expect("this CPU answers");
                turns.wait(1);
            }
        });
        case.wait_until("the registers are saved", || {
            alloc::format!("{:?}", saved.pcu()).contains("in memory")
        });
        let mut lwps = alloc::vec![saved];
        // The last CPU leaves, and had somebody's registers until then.
        let last = cpu::n_cpus() - 1;
        let left = (last > 0).then(|| Player::new("left", last));
        if let Some(player) = &left {
            player.does(|| Pattern::random(101).load());
            case.expect_eq("the last CPU leaves", offline(last), Ok(()));
        }
        let parked = Arc::new(AtomicU64::new(0));
        for number in 1..last {
            lwps.push(park(number, &parked));
        }
        lwps.extend(left.as_ref().map(Player::shared));
        case.wait_until("the other CPUs stand still", || {
            parked.load(Relaxed) + 1 >= last as u64
        });
        let off = InterruptsOff::new();
        tell(&lwps, &counter, &object);
        line!("@truth area {TAKEN_OFFLINE} physical={end:#x}");
        line!("@truth end");
        while option("hold") == Some("1") {
            hlt();
        }
        drop(off);
        turns.next();
        left.map(Player::ends);
        case.expect_eq("present", PERCPU.present().count(), cpu::n_cpus() + 2);
        let last = (cpu::n_cpus() > 1).then(|| PERCPU.state(id(cpu::n_cpus() - 1)));
        case.expect(
            "the last CPU is offline",
            last.is_none_or(|state| state == CpuState::Offline),
        );
        case.expect_eq("the counter", counter.fetch(&PERCPU), 41);
    }

    /// An LWP on CPU `number` that loads registers and never goes on; it is none of the case's.
    fn park(number: usize, parked: &Arc<AtomicU64>) -> Arc<Lwp> {
        let parked = Arc::clone(parked);
        let lwp =
            pcu9_testbed::testing::prepare_uncounted("parked", number, new_domain(), move || {
                Pattern::random(number as u64).load();
                let _off = InterruptsOff::new();
                parked.fetch_add(1, Relaxed);
                loop {
                    hlt();
                }
            });
        pcu9_testbed::testing::start(&lwp);
        lwp
    }

    /// Prints everything; interrupts are off, and no other CPU runs.
    fn tell(lwps: &[Arc<Lwp>], counter: &CounterU64, object: &Zpcpu<[AtomicU64; 3]>) {
        let header = PERCPU.header();
        line!(
            "@truth kernel header={:#x} max_cpus={} n_started={} n_present={}",
            core::ptr::from_ref(header).addr(),
            PERCPU.max_cpus(),
            PERCPU.started().count(),
            PERCPU.present().count()
        );
        for cpu in PERCPU.present() {
            let number = cpu.index();
            let block = PCPU.on(&PERCPU, cpu).expect("present");
            let state = alloc::format!("{:?}", PERCPU.state(cpu)).to_lowercase();
            let offset = PERCPU.offset(cpu).expect("present");
            line!(
                "@truth cpu {number} state={state} offset={offset:#x} block={:#x} current={:#x} idle={:#x}",
                core::ptr::from_ref(block).addr(),
                block.current().addr(),
                block.idle().addr()
            );
            let pcu = glue::cpu_pcu(number);
            let owner = pcu.owner(FPU).map_or(0, |lwp| lwp.as_ptr().addr());
            line!(
                "@truth unit {number} fpu owner={owner:#x} enabled={}",
                u8::from(pcu.is_enabled(FPU))
            );
            let events = alloc::format!("{:?}", pcu.stats(FPU));
            let events = events
                .trim_start_matches("UnitStats { ")
                .trim_end_matches(" }");
            line!(
                "@truth stats {number} fpu {}",
                events.replace(": ", "=").replace(',', "")
            );
            let read = |name: &str, value: u64| line!("@truth dpcpu {number} {name}={value:#x}");
            read(
                "COLOUR",
                COLOUR.on(&PERCPU, cpu).map_or(0, |word| word.load(Relaxed)),
            );
            read(
                "SMALL",
                SMALL
                    .on(&PERCPU, cpu)
                    .map_or(0, |word| word.load(Relaxed).into()),
            );
            for (name, word) in [
                ("PACKETS", PACKETS.on(&PERCPU, cpu)),
                ("TRAPS", TRAPS.on(&PERCPU, cpu)),
                ("SYSCALLS", SYSCALLS.on(&PERCPU, cpu)),
                ("TICKS", TICKS.on(&PERCPU, cpu)),
            ] {
                read(name, word.map_or(0, |word| word.load(Relaxed)));
            }
            let values: Vec<_> = object
                .on(&PERCPU, cpu)
                .expect("present")
                .iter()
                .map(|word| word.load(Relaxed))
                .collect();
            line!(
                "@truth zpcpu {number} base={:#x} words={values:x?}",
                object.name()
            );
            line!(
                "@truth handle {number} base={:#x} value={}",
                counter.name(),
                counter.fetch_on(&PERCPU, cpu).unwrap_or(0)
            );
        }
        for (name, sum) in [
            ("PACKETS", PACKETS.fetch(&PERCPU)),
            ("TRAPS", TRAPS.fetch(&PERCPU)),
            ("SYSCALLS", SYSCALLS.fetch(&PERCPU)),
            ("TICKS", TICKS.fetch(&PERCPU)),
        ] {
            line!("@truth counter {name} sum={sum}");
        }
        line!(
            "@truth handle sum base={:#x} sum={}",
            counter.name(),
            counter.fetch(&PERCPU)
        );
        for lwp in lwps {
            let at = Arc::as_ptr(lwp).addr();
            line!(
                "@truth lwp {at:#x} number={} name={} area={:#x} state={:?}",
                lwp.number(),
                lwp.name(),
                lwp.fpu_area().addr(),
                lwp.pcu()
            );
        }
        // What the saved LWP's XMM0 to XMM15 hold: its area was written by the save.
        let expected = alloc::format!("{:x?}", Pattern::random(100));
        line!("@truth saved {expected}");
    }
}
