//! The smallest kernel that uses `pcu9` on more than one CPU: `main.rs` with a scheduler that takes any LWP to any CPU.
//! The parts are the same; what `machine.rs` is to the one CPU, `cpus.rs` is to the others.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod cpus;
#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
mod registers;

#[cfg(target_os = "none")]
mod kernel {
    use core::arch::global_asm;
    use core::fmt;
    use core::ptr::{NonNull, null_mut};
    use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
    use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};

    use x86_64::instructions::interrupts;
    use x86_64::registers::control::{Cr0, Cr0Flags};

    use crate::cpus::{self, MAX_CPUS};
    use crate::machine::{
        Frame, Stack, exit_emulator, halt, irq_restore, irq_save, load_idt, out_byte, say,
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
        cpus::init();
        load_idt();
        // glue: begin
        init_fpu();
        // glue: end
        LWPS.iter().for_each(Lwp::create);
        cpus::start_others(other_main, |cpu| BOOT_CODE[cpu].stack_top());
        interrupts::enable();
        idle();
        exit_emulator(if report() { 0x10 } else { 0x11 })
    }

    /// Where every other CPU begins, on the stack of its own boot code.
    extern "C" fn other_main() -> ! {
        cpus::init_this_cpu();
        load_idt();
        // glue: begin
        init_fpu();
        // glue: end
        cpus::has_started();
        interrupts::enable();
        idle();
        halt()
    }

    /// Runs LWPs until all have ended.
    fn idle() {
        while !LWPS.iter().all(|lwp| lwp.has_ended.load(Acquire)) {
            yield_now();
        }
    }

    // ---- The kernel that you already have: interrupts and exceptions ----

    extern "C" fn exception(frame: &mut Frame) {
        if frame.vector == cpus::VECTOR {
            cpus::end_of_interrupt();
            // glue: begin
            serve_requests();
            // glue: end
            return;
        }
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
        /// A CPU runs it, or still puts its registers away.
        is_taken: AtomicBool,
        stack: Stack,
        n_exceptions: AtomicU64,
        n_wrong: AtomicU64,
        // glue: begin
        pcu: LwpPcu<1>,
        domain: Option<Domain>,
        area: Area,
        // glue: end
    }

    /// By CPU: which LWP runs there, plus 1, or 0 for its boot code; and which one the switch left.
    static CURRENT: [AtomicUsize; MAX_CPUS] = [const { AtomicUsize::new(0) }; MAX_CPUS];
    static LEFT: [AtomicUsize; MAX_CPUS] = [const { AtomicUsize::new(0) }; MAX_CPUS];

    fn current_number() -> usize {
        let cpu = cpus::index();
        let number = CURRENT[cpu].load(Relaxed);
        number.checked_sub(1).unwrap_or(BOOT + cpu)
    }

    fn current() -> &'static Lwp {
        lwp(current_number())
    }

    impl Lwp {
        const fn new(name: &'static str, main: fn(&Self), n_rounds: u32, domain: u64) -> Self {
            Self {
                name,
                main,
                n_rounds,
                rsp: AtomicU64::new(0),
                has_ended: AtomicBool::new(false),
                is_taken: AtomicBool::new(false),
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

        fn stack_top(&self) -> u64 {
            self.stack.0.as_ptr_range().end.addr() as u64
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
        finish_switch();
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
        lwp.has_ended.store(true, Release);
        yield_now();
        unreachable!("{} goes on after its end", lwp.name)
    }

    /// Where a process would get a signal.
    fn kill(lwp: &Lwp, error: &dyn fmt::Display) -> ! {
        say!("{} is ended: {error}", lwp.name);
        exit_lwp(lwp)
    }

    /// Lets the next LWP run that no CPU runs; the boot code when there is none.
    fn yield_now() {
        let were_on = irq_save();
        let here = current_number();
        let mut others = (1..=BOOT).map(|step| (here + step) % BOOT);
        let next = others.find(|&next| !LWPS[next].is_taken.swap(true, Acquire));
        let next = next.unwrap_or(BOOT + cpus::index());
        if next != here {
            switch_to(next);
        }
        irq_restore(were_on);
    }

    /// Interrupts are off.
    fn switch_to(next: usize) {
        let (cpu, from, to) = (cpus::index(), current(), lwp(next));
        // glue: begin
        hand_fpu_over(from, to);
        // glue: end
        LEFT[cpu].store(current_number(), Relaxed);
        CURRENT[cpu].store(if next < BOOT { next + 1 } else { 0 }, Relaxed);
        // SAFETY: `create` or an earlier switch left this stack, and this CPU took the LWP; interrupts are off.
        unsafe { switch_stack(from.rsp.as_ptr(), to.rsp.load(Relaxed)) };
        finish_switch();
    }

    /// The LWP that was left has its registers on its stack now, so another CPU may take it, unless it has ended.
    fn finish_switch() {
        let left = lwp(LEFT[cpus::index()].load(Relaxed));
        if !left.has_ended.load(Relaxed) {
            left.is_taken.store(false, Release);
        }
    }

    // ---- The glue ----

    // glue: begin
    /// This kernel, for `pcu9`.
    struct Hobby;

    static CPUS: [CpuPcu<Lwp, 1>; MAX_CPUS] = [const { CpuPcu::new() }; MAX_CPUS];
    // SAFETY: this kernel's only one.
    static PCU: Pcu<Hobby, 1> = unsafe { Pcu::new([Some(UnitOps::of::<Fpu>())]) };

    /// Each CPU, before it runs an LWP.
    fn init_fpu() {
        // SAFETY: ring 0, interrupts off, soft-float code.
        unsafe { fpu::init_cpu() }.expect("all CPUs are alike");
    }

    // SAFETY:
    // P1 With interrupts off nothing else runs on this CPU, no request is served, and nobody switches inside a bracket:
    //    `hand_fpu_over` ends before the stack changes. CLI and STI are not `nomem`, so no access moves over them. A
    //    bracket inside another finds interrupts off and leaves them off.
    // P2 The number of the local APIC, each its own.
    // P3 One element of a static array for each number.
    // P4 A field of the LWP, which is static and never moves; the reference is to that field alone.
    // P5 The numbers stand in the table of LWPs, where an equal one means the same domain; no exec, no LWPs made later.
    // P6 The request is put into the list with interrupts off, and waited for with interrupts on, since `ipl` is dropped
    //    before. Whoever takes it off the list runs it once, to its end, with interrupts off, and says so with Release.
    //    The own CPU runs it at once. `Err` only where there is no such CPU, and nothing keeps `f` then.
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
            let number = u16::try_from(cpus::index()).ok();
            number.and_then(CpuId::new).expect("CPU numbers are small")
        }
        fn cpu_pcu(&self, cpu: CpuId) -> &CpuPcu<Lwp, 1> {
            &CPUS[cpu.index()]
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
            if cpu == self.cpu_id(&ipl) {
                f(&ipl);
                return Ok(());
            }
            if cpu.index() >= cpus::n_cpus() {
                return Err(NoAnswer(cpu));
            }
            let request = Request {
                f,
                next: AtomicPtr::default(),
                is_done: AtomicBool::new(false),
            };
            request.publish(&REQUESTS[cpu.index()]);
            cpus::interrupt(cpu.index());
            drop(ipl);
            cpus::wait_for(&request.is_done);
            Ok(())
        }
    }

    /// What one CPU asks of another; it lies on the asker's stack until it is done.
    struct Request<'a> {
        f: CrossCall<'a, Hobby, 1>,
        next: AtomicPtr<Request<'static>>,
        is_done: AtomicBool,
    }

    /// By CPU: what it is asked, the last first.
    static REQUESTS: [AtomicPtr<Request<'static>>; MAX_CPUS] =
        [const { AtomicPtr::new(null_mut()) }; MAX_CPUS];

    impl Request<'_> {
        fn publish(&self, list: &AtomicPtr<Request<'static>>) {
            let own = (&raw const *self).cast_mut().cast();
            let mut first = list.load(Relaxed);
            loop {
                self.next.store(first, Relaxed);
                match list.compare_exchange_weak(first, own, Release, Relaxed) {
                    Ok(_) => return,
                    Err(now) => first = now,
                }
            }
        }
    }

    /// The interrupt of another CPU.
    fn serve_requests() {
        // SAFETY: an interrupt gate turned interrupts off, and they stay off until the end.
        let ipl = unsafe { IplPcu::assume(&Hobby) };
        let mut at = REQUESTS[cpus::index()].swap(null_mut(), Acquire);
        while !at.is_null() {
            // SAFETY: its asker waits until `is_done`, after which nothing here touches it.
            let request = unsafe { &*at };
            at = request.next.load(Relaxed);
            (request.f)(&ipl);
            request.is_done.store(true, Release);
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

    /// A, B and the integer one trust each other: they have one domain.
    static LWPS: [Lwp; BOOT] = [
        Lwp::new("A", add_up, 30_000, 1),
        Lwp::new("B", add_up, 20_000, 1),
        Lwp::new("C", add_up, 10_000, 2),
        Lwp::new("integer", count_up, 40_000, 1),
        Lwp::new("memory", read_memory, 0, 3),
    ];
    const BOOT: usize = 5;

    /// The boot code of each CPU, which goes on when there is nobody else, has no domain (0): it may not use the FPU.
    static BOOT_CODE: [Lwp; MAX_CPUS] = [const { Lwp::new("boot", |_| (), 0, 0) }; MAX_CPUS];

    fn lwp(number: usize) -> &'static Lwp {
        LWPS.get(number)
            .unwrap_or_else(|| &BOOT_CODE[number - BOOT])
    }

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
            cpus::move_on(round, yield_now);
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

    fn report() -> bool {
        let (mut sum, n_cpus) = (UnitStats::default(), cpus::n_cpus());
        for cpu in &CPUS {
            sum += cpu.stats(FPU);
        }
        say!("{PCU:?}, {n_cpus} CPUs\n{sum:?}");
        let n_exceptions = LWPS.each_ref().map(|lwp| lwp.n_exceptions.load(Relaxed));
        let n_wrong = LWPS.each_ref().map(|lwp| lwp.n_wrong.load(Relaxed));
        say!("by LWP: exceptions {n_exceptions:?}, wrong registers {n_wrong:?}");
        // By what came of them; no LWP is left with a state.
        let came = sum.inits + sum.restores + sum.reenables_trap + sum.spurious + sum.failed;
        let is_consistent = came == sum.traps && sum.releases == sum.inits + sum.restores;
        let has_asked = n_cpus == 1 || sum.xcalls > 0;
        let is_free = CPUS.iter().all(|cpu| cpu.owner(FPU).is_none());
        let results = [
            ("registers_survive_in_a_domain", n_wrong[..2] == [0, 0]),
            ("registers_survive_between_domains", n_wrong[2] == 0),
            ("integer_lwp_never_traps", n_exceptions[3] == 0),
            ("gate_is_closed_over_integer_lwp", n_wrong[3] == 0),
            ("memory_is_loaded_after_discard", n_wrong[4] == 0),
            ("states_are_fetched_from_other_cpus", has_asked),
            ("counters_are_consistent", is_consistent),
            ("nobody_owns_the_fpu_at_the_end", is_free),
        ];
        for (name, passed) in results {
            say!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        }
        let n_failed = results.iter().filter(|(_, passed)| !passed).count();
        say!("{} passed, {n_failed} failed", results.len() - n_failed);
        n_failed == 0
    }
}
