//! The smallest kernel that uses `pcu9`: one CPU, and LWPs that yield to each other. With more CPUs it is `smp.rs`.
//!
//! 1. *The kernel that you already have*: boot, exceptions, LWPs, a scheduler, all as small as can be; `machine.rs` is its way out.
//! 2. *The glue*, between the marks `glue: begin` and `glue: end`: all that `pcu9` asks for. A test counts its lines.
//! 3. What the LWPs do, and what must have happened when they have ended.
//!
//! The LWPs stand in for user processes, so each has a protection domain. The leak rule is the default, `DomainAware`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
mod registers;

#[cfg(target_os = "none")]
mod kernel {
    use core::arch::global_asm;
    use core::fmt;
    use core::ptr::NonNull;
    use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

    use x86_64::instructions::interrupts;
    use x86_64::registers::control::{Cr0, Cr0Flags};

    use crate::machine::{
        Frame, Stack, exit_emulator, irq_restore, irq_save, load_idt, out_byte, say,
    };
    use crate::registers::{INITIAL, Registers, registers_after};

    // glue: begin
    use pcu9::kernel::{CpuId, CrossCall, Current, Domain, IplPcu, Kernel, NoAnswer};
    use pcu9::pcu::{CpuPcu, LwpPcu, Pcu, UnitOps, UnitStats, Validity};
    use pcu9::x86_64::fpu::{self, FPU, Fpu, FpuArea, Refused};
    // glue: end

    // ---- The kernel that you already have: boot ----

    global_asm!(include_str!("asm.s"), main = sym main, exception = sym exception);

    // `asm.s` defines them. The last three touch their arguments and FPU registers alone: the user code, whose first use traps.
    unsafe extern "C" {
        fn switch_stack(save_rsp: *mut u64, load_rsp: u64);
        safe fn read_registers(registers: &mut Registers);
        safe fn write_registers(registers: &Registers);
        safe fn add_registers();
    }

    extern "C" fn main() -> ! {
        out_byte(0x3fb, 3); // the serial line: 8 bits, no parity
        out_byte(0x21, 0xff); // the interrupt controllers: all lines masked
        out_byte(0xa1, 0xff);
        load_idt();
        // glue: begin
        // SAFETY: ring 0, interrupts off, soft-float code.
        unsafe { fpu::init_cpu() }.expect("one CPU agrees with itself");
        // glue: end
        interrupts::enable();
        LWPS[..BOOT].iter().for_each(Lwp::create);
        switch_to(0);
        exit_emulator(if report() { 0x10 } else { 0x11 })
    }

    // ---- The kernel that you already have: interrupts and exceptions ----

    extern "C" fn exception(frame: &mut Frame) {
        let lwp = current();
        lwp.n_exceptions.fetch_add(1, Relaxed);
        // glue: begin
        // With interrupts off it is not the LWP's own code that runs.
        let may_use_fpu = lwp.domain.is_some() && frame.rflags & 1 << 9 != 0;
        match (frame.vector, pcu9::x86_64::fixup(frame.rip)) {
            (7, _) if may_use_fpu => serve_fpu_trap(lwp),
            (13 | 14, Some(resume)) => frame.rip = resume,
            // glue: end
            _ => panic!("a bug in {}: {frame:x?}", lwp.name),
        }
    }

    // ---- The kernel that you already have: LWPs, and a scheduler that takes turns ----

    struct Lwp {
        name: &'static str,
        main: fn(&Self),
        n_rounds: u32,
        rsp: AtomicU64,
        has_ended: AtomicBool,
        stack: Stack,
        n_exceptions: AtomicU64,
        n_wrong: AtomicU64,
        // glue: begin
        pcu: LwpPcu<1>,
        domain: Option<Domain>,
        area: Area,
        // glue: end
    }

    static CURRENT: AtomicUsize = AtomicUsize::new(BOOT);

    fn current() -> &'static Lwp {
        &LWPS[CURRENT.load(Relaxed)]
    }

    impl Lwp {
        const fn new(name: &'static str, main: fn(&Self), n_rounds: u32, domain: u64) -> Self {
            Self {
                name,
                main,
                n_rounds,
                rsp: AtomicU64::new(0),
                has_ended: AtomicBool::new(false),
                stack: Stack::new(),
                n_exceptions: AtomicU64::new(0),
                n_wrong: AtomicU64::new(0),
                // glue: begin
                pcu: LwpPcu::new(),
                domain: Domain::new(domain),
                area: Area([const { AtomicU64::new(0) }; 104]),
                // glue: end
            }
        }

        /// Makes the LWP ready for its first switch, which pops six registers and returns to `begin`.
        fn create(&self) {
            let slots = &self.stack.0;
            slots[1022].store((begin as *const ()).addr() as u64, Relaxed);
            self.rsp.store(slots[1016].as_ptr().addr() as u64, Relaxed);
            // glue: begin
            // SAFETY: an LWP that has not run, so nobody else asks.
            let area = unsafe { Self::area(self.into()) }.expect("the area is large enough");
            // SAFETY: an area of that length, of an LWP that has not run.
            unsafe { fpu::prepare(area) };
            // glue: end
        }
    }

    /// The first function of every LWP: the switch that led here had interrupts off.
    extern "C" fn begin() -> ! {
        interrupts::enable();
        let lwp = current();
        (lwp.main)(lwp);
        exit_lwp(lwp)
    }

    fn exit_lwp(lwp: &Lwp) -> ! {
        // glue: begin
        // SAFETY: it is current, and no other token of it is in use.
        let token = unsafe { Current::new(&Hobby, lwp.into()) };
        PCU.exit(token).expect("the own CPU answers");
        // glue: end
        lwp.has_ended.store(true, Relaxed);
        yield_now();
        unreachable!("{} goes on after its end", lwp.name)
    }

    /// Where a process would get a signal.
    fn kill(lwp: &Lwp, error: &dyn fmt::Display) -> ! {
        say!("{} is ended: {error}", lwp.name);
        exit_lwp(lwp)
    }

    /// Lets the next LWP run that has not ended; the boot code when there is none.
    fn yield_now() {
        let here = CURRENT.load(Relaxed);
        let mut others = (1..=BOOT).map(|step| (here + step) % BOOT);
        let next = others.find(|&next| !LWPS[next].has_ended.load(Relaxed));
        switch_to(next.unwrap_or(BOOT));
    }

    fn switch_to(next: usize) {
        let were_on = irq_save();
        let (from, to) = (current(), &LWPS[next]);
        // glue: begin
        hand_fpu_over(from, to);
        // glue: end
        CURRENT.store(next, Relaxed);
        // SAFETY: `create` or an earlier switch left this stack; interrupts are off.
        unsafe { switch_stack(from.rsp.as_ptr(), to.rsp.load(Relaxed)) };
        irq_restore(were_on);
    }

    // ---- The glue ----

    // glue: begin
    /// This kernel, for `pcu9`.
    struct Hobby;

    const CPU_0: CpuId = CpuId::new(0).unwrap();

    static CPU: CpuPcu<Lwp, 1> = CpuPcu::new();
    // SAFETY: this kernel's only one.
    static PCU: Pcu<Hobby, 1> = unsafe { Pcu::new([Some(UnitOps::of::<Fpu>())]) };

    // SAFETY:
    // P1 With interrupts off nothing else runs on the only CPU, and nobody switches inside a bracket: `hand_fpu_over`
    //    ends before the stack changes. CLI and STI are not `nomem`, so no access moves over them. A bracket inside
    //    another finds interrupts off and leaves them off.
    // P2 There is one CPU, and it has one number.
    // P3 One static for the one number.
    // P4 A field of the LWP, which is static and never moves; the reference is to that field alone.
    // P5 The numbers stand in the table of LWPs, where an equal one means the same domain; no exec, no LWPs made later.
    // P6 The own CPU is the only one that can be asked: `f` runs once, at once, to its end, under the token, which is
    //    dropped after it, back to the level before. For any other number the answer is `Err`, and nothing keeps `f`.
    unsafe impl Kernel<1> for Hobby {
        type Lwp = Lwp;
        type Saved = bool;

        fn splraise(&self) -> bool {
            irq_save()
        }
        unsafe fn splx(&self, saved: bool) {
            irq_restore(saved);
        }
        fn cpu_id(&self, _: &IplPcu<'_, Self, 1>) -> CpuId {
            CPU_0
        }
        fn cpu_pcu(&self, _: CpuId) -> &CpuPcu<Lwp, 1> {
            &CPU
        }
        unsafe fn lwp_pcu(&self, lwp: NonNull<Lwp>) -> NonNull<LwpPcu<1>> {
            // SAFETY: the caller promises an LWP; the reference is to one field, whose parts are atomic.
            NonNull::from(unsafe { &(*lwp.as_ptr()).pcu })
        }
        unsafe fn domain(&self, lwp: NonNull<Lwp>) -> Option<Domain> {
            // SAFETY: the caller promises an LWP; the field never changes.
            unsafe { (*lwp.as_ptr()).domain }
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

    /// Where an LWP's registers are saved: enough for x87, SSE and AVX.
    #[repr(align(64))]
    struct Area([AtomicU64; 104]);

    // SAFETY: the length is compared here, the type has the alignment, `create` made the area ready before the LWP ran,
    // and it is a part of the LWP, which never moves.
    unsafe impl FpuArea for Lwp {
        unsafe fn area(lwp: NonNull<Self>) -> Result<NonNull<u8>, Refused> {
            // SAFETY: the caller promises an LWP; the reference is to one field, whose parts are atomic.
            let area = NonNull::from(unsafe { &(*lwp.as_ptr()).area });
            let fits = fpu::features().area_bytes() <= size_of::<Area>();
            fits.then_some(area.cast()).ok_or(Refused)
        }
    }

    /// At every switch, interrupts off.
    fn hand_fpu_over(from: &Lwp, to: &Lwp) {
        // SAFETY: interrupts are off until after the switch, and the token is gone before the stack changes.
        let ipl = unsafe { IplPcu::assume(&Hobby) };
        // SAFETY: it ceases to be current by this switch, and no other token of it is in use.
        let mut from = unsafe { Current::new(&Hobby, from.into()) };
        PCU.switch_out(&ipl, &mut from);
        // SAFETY: it becomes current by this switch, and no other token of it is in use.
        let mut to = unsafe { Current::new(&Hobby, to.into()) };
        PCU.switchpoint(&ipl, Some(&mut to));
    }

    /// `#NM`, with interrupts still off; they are on when it returns, as they were before.
    fn serve_fpu_trap(lwp: &Lwp) {
        // SAFETY: it is current, and where its own code uses the FPU no other token of it is in use.
        let mut token = unsafe { Current::new(&Hobby, lwp.into()) };
        // SAFETY: the interrupt gate turned interrupts off where they were on.
        let ipl = unsafe { IplPcu::adopt(&Hobby, true) };
        let result = PCU.trap(ipl, &mut token, FPU);
        result.unwrap_or_else(|error| kill(lwp, &error));
    }
    // glue: end

    // ---- What the LWPs do ----

    /// In the order in which they run. A, B and the integer one trust each other: they have one domain. The boot code,
    /// which goes on when the others have ended, has none (0): it may not use the FPU.
    static LWPS: [Lwp; BOOT + 1] = [
        Lwp::new("A", add_up, 300, 1),
        Lwp::new("B", add_up, 200, 1),
        Lwp::new("C", add_up, 100, 2),
        Lwp::new("integer", count_up, 400, 1),
        Lwp::new("memory", read_memory, 0, 3),
        Lwp::new("boot", |_| (), 0, 0),
    ];
    const BOOT: usize = 5;

    /// Looks whether the registers hold what they must, but for what is no state of the program (FSW, FIP, FDP, padding).
    fn look(lwp: &Lwp, expected: &Registers) {
        let mut seen = [0; 32];
        read_registers(&mut seen);
        seen[0] &= 0xff_0000_ffff;
        seen[1] &= 0xffff_ffff << 64;
        seen[2..10].iter_mut().for_each(|st| *st &= (1 << 80) - 1);
        let is_wrong = seen[..26] != expected[..26];
        lwp.n_wrong.fetch_add(is_wrong.into(), Relaxed);
    }

    /// Adds up in the FPU, and looks after every yield whether all registers are as they were.
    fn add_up(lwp: &Lwp) {
        let seed = lwp.n_rounds / 100;
        look(lwp, &INITIAL);
        write_registers(&registers_after(0, seed));
        for round in 1..=lwp.n_rounds {
            add_registers();
            yield_now();
            look(lwp, &registers_after(round, seed));
        }
    }

    /// Never uses the FPU, and looks whether a use would trap.
    fn count_up(lwp: &Lwp) {
        for _ in 0..lwp.n_rounds {
            let is_open = !Cr0::read().contains(Cr0Flags::TASK_SWITCHED);
            lwp.n_wrong.fetch_add(is_open.into(), Relaxed);
            yield_now();
        }
    }

    /// Has its state in memory from the start, as after a debugger's write: what `prepare` left there, then an image that
    /// XRSTOR refuses, which must end it (`XCOMP_BV` not 0, format not compacted; FXRSTOR has no header to refuse).
    fn read_memory(lwp: &Lwp) {
        let discard = || {
            // SAFETY: it is current, and no other token of it is in use.
            let mut token = unsafe { Current::new(&Hobby, lwp.into()) };
            PCU.discard(&mut token, FPU, Validity::Valid)
        };
        discard().expect("the own CPU answers");
        look(lwp, &INITIAL);
        if fpu::features().xcr0() != 0 {
            discard().expect("the own CPU answers");
            lwp.area.0[520 / 8].store(1, Relaxed);
            add_registers();
            panic!("the processor took a bad image");
        }
    }

    // ---- What must have happened ----

    /// The counters after this schedule. Each round is A, B, C, integer (and once the fifth); an LWP of R rounds runs
    /// R + 1 times, and exits in the last with its registers live. A refused image is wiped at once, not at the switch.
    /// - C finds wiped registers each time, since B is of another domain; the integer LWP, too, wipes after C.
    /// - B traps each time, since A took the registers before it.
    /// - A traps while there is B, and once more; then its registers stay, and the gate is opened at the switch.
    fn expected() -> UnitStats {
        let [a, b, c] = [0, 1, 2].map(|lwp: usize| u64::from(LWPS[lwp].n_rounds) + 1);
        let refused = u64::from(fpu::features().xcr0() != 0);
        UnitStats {
            traps: (b + 1) + b + c + 1 + refused,
            inits: 3,
            restores: (b + 1) + b + c - 3 + 1,
            reenables_switch: a - (b + 1),
            failed: refused,
            saves: b + (b - 1) + (c - 1),
            releases: b + (b - 1) + (c - 1) + 4,
            discards: 4,
            wipes: 2 * c + 1 - refused,
            ..UnitStats::default()
        }
    }

    fn report() -> bool {
        let (stats, expected) = (CPU.stats(FPU), expected());
        say!("{PCU:?}\n{:?}", fpu::features());
        say!("seen:     {stats:?}\nexpected: {expected:?}");
        let n_exceptions = LWPS.each_ref().map(|lwp| lwp.n_exceptions.load(Relaxed));
        let n_wrong = LWPS.each_ref().map(|lwp| lwp.n_wrong.load(Relaxed));
        say!("by LWP: exceptions {n_exceptions:?}, wrong registers {n_wrong:?}");
        let results = [
            ("registers_survive_in_a_domain", n_wrong[..2] == [0, 0]),
            ("registers_survive_between_domains", n_wrong[2] == 0),
            ("integer_lwp_never_traps", n_exceptions[3] == 0),
            ("gate_is_closed_over_integer_lwp", n_wrong[3] == 0),
            ("memory_is_loaded_after_discard", n_wrong[4] == 0),
            ("counters_fit_the_schedule", stats == expected),
            ("nobody_owns_the_fpu_at_the_end", CPU.owner(FPU).is_none()),
        ];
        for (name, passed) in results {
            say!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        }
        let n_failed = results.iter().filter(|(_, passed)| !passed).count();
        say!("{} passed, {n_failed} failed", results.len() - n_failed);
        n_failed == 0
    }
}
