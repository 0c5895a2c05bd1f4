//! The kernel that the embedding guide begins with: one CPU, LWPs that yield to each other, and nothing of `pcu9`.
//!
//! The guide's patches, `src/guide/steps`, make `main.rs` of it, and `smp.rs` of that: a test applies them.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod machine;

#[cfg(target_os = "none")]
mod kernel {
    use core::arch::global_asm;
    use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

    use x86_64::instructions::interrupts;

    use crate::machine::{
        Frame, Stack, exit_emulator, irq_restore, irq_save, load_idt, out_byte, say,
    };

    // ---- The kernel that you already have: boot ----

    global_asm!(include_str!("asm.s"), main = sym main, exception = sym exception);

    // `asm.s` defines it.
    unsafe extern "C" {
        fn switch_stack(save_rsp: *mut u64, load_rsp: u64);
    }

    extern "C" fn main() -> ! {
        out_byte(0x3fb, 3); // the serial line: 8 bits, no parity
        out_byte(0x21, 0xff); // the interrupt controllers: all lines masked
        out_byte(0xa1, 0xff);
        load_idt();
        interrupts::enable();
        LWPS[..BOOT].iter().for_each(Lwp::create);
        switch_to(0);
        exit_emulator(if report() { 0x10 } else { 0x11 })
    }

    // ---- The kernel that you already have: interrupts and exceptions ----

    extern "C" fn exception(frame: &mut Frame) {
        let lwp = current();
        lwp.n_exceptions.fetch_add(1, Relaxed);
        panic!("a bug in {}: {frame:x?}", lwp.name)
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
    }

    static CURRENT: AtomicUsize = AtomicUsize::new(BOOT);

    fn current() -> &'static Lwp {
        &LWPS[CURRENT.load(Relaxed)]
    }

    impl Lwp {
        const fn new(name: &'static str, main: fn(&Self), n_rounds: u32) -> Self {
            Self {
                name,
                main,
                n_rounds,
                rsp: AtomicU64::new(0),
                has_ended: AtomicBool::new(false),
                stack: Stack::new(),
                n_exceptions: AtomicU64::new(0),
            }
        }

        /// Makes the LWP ready for its first switch, which pops six registers and returns to `begin`.
        fn create(&self) {
            let slots = &self.stack.0;
            slots[1022].store((begin as *const ()).addr() as u64, Relaxed);
            self.rsp.store(slots[1016].as_ptr().addr() as u64, Relaxed);
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
        lwp.has_ended.store(true, Relaxed);
        yield_now();
        unreachable!("{} goes on after its end", lwp.name)
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
        CURRENT.store(next, Relaxed);
        // SAFETY: `create` or an earlier switch left this stack; interrupts are off.
        unsafe { switch_stack(from.rsp.as_ptr(), to.rsp.load(Relaxed)) };
        irq_restore(were_on);
    }

    // ---- What the LWPs do ----

    /// In the order in which they run. The boot code goes on when the others have ended. Each stands for a process.
    static LWPS: [Lwp; BOOT + 1] = [
        Lwp::new("A", count_up, 300),
        Lwp::new("B", count_up, 200),
        Lwp::new("boot", |_| (), 0),
    ];
    const BOOT: usize = 2;

    fn count_up(lwp: &Lwp) {
        for _ in 0..lwp.n_rounds {
            yield_now();
        }
    }

    // ---- What must have happened ----

    fn report() -> bool {
        let n_exceptions = LWPS.each_ref().map(|lwp| lwp.n_exceptions.load(Relaxed));
        say!("by LWP: exceptions {n_exceptions:?}");
        let results = [
            (
                "lwps_run_to_their_end",
                LWPS[..BOOT].iter().all(|lwp| lwp.has_ended.load(Relaxed)),
            ),
            ("nobody_traps", n_exceptions[..BOOT] == [0, 0]),
        ];
        for (name, passed) in results {
            say!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        }
        let n_failed = results.iter().filter(|(_, passed)| !passed).count();
        say!("{} passed, {n_failed} failed", results.len() - n_failed);
        n_failed == 0
    }
}
