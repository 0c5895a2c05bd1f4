//! The time stamp counter and the local APIC's timer, calibrated once against the PC's timer.
//!
//! Intel 8254 data sheet; the gate of its channel 2 is bit 0 of port 0x61, its output bit 5.

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicU64, Ordering};

use super::apic;
use crate::serial::{inb, outb};

/// Until it is calibrated: a guess that errs on the long side for time limits.
static TICKS_PER_MS: AtomicU64 = AtomicU64::new(3_000_000);
static AT_BOOT: AtomicU64 = AtomicU64::new(0);

/// The time stamp counter.
pub fn ticks() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction, and the kernel may execute it always.
    unsafe { _rdtsc() }
}

/// How many ticks a millisecond has.
pub fn ticks_per_ms() -> u64 {
    TICKS_PER_MS.load(Ordering::Relaxed)
}

/// Nanoseconds since the boot.
pub fn nanoseconds() -> u64 {
    let ticks = u128::from(ticks().saturating_sub(AT_BOOT.load(Ordering::Relaxed)));
    u64::try_from(ticks * 1_000_000 / u128::from(ticks_per_ms())).unwrap_or(u64::MAX)
}

/// Waits, with nothing else to do.
pub(crate) fn delay_us(us: u64) {
    let end = ticks() + us * ticks_per_ms() / 1000;
    while ticks() < end {}
}

/// Measures both over 5 ms of the timer's channel 2, three times: the host may have taken the CPU away meanwhile, so the
/// shortest counts.
pub(crate) fn calibrate() {
    AT_BOOT.store(ticks(), Ordering::Relaxed);
    let measured = core::array::from_fn::<_, 3, _>(|_| measure_5_ms());
    let shortest = |counts: [u64; 3]| counts.into_iter().min().unwrap_or(0);
    let tsc = shortest(measured.map(|(tsc, _)| tsc));
    let apic = shortest(measured.map(|(_, apic)| apic));
    TICKS_PER_MS.store((tsc / 5).max(1000), Ordering::Relaxed);
    apic::set_counts_per_ms(apic / 5);
}

/// How far the time stamp counter and the local APIC's timer come in 5 ms, or until the PC's timer seems not to exist.
fn measure_5_ms() -> (u64, u64) {
    const COUNT: u16 = 5966; // at 1.193182 MHz
    let gate = inb(0x61) & !3;
    outb(0x61, gate | 1);
    outb(0x43, 0b1011_0000); // channel 2, both bytes, mode 0
    outb(0x42, COUNT.to_le_bytes()[0]);
    // It counts from the second byte on, in QEMU whatever the gate is: so nothing that is measured begins after it, or a host that
    // takes the CPU away in between would make it too short.
    let countdown = apic::Countdown::start();
    let start = ticks();
    outb(0x42, COUNT.to_le_bytes()[1]);
    let mut polls = 0;
    while inb(0x61) & 1 << 5 == 0 && polls < 1_000_000 {
        polls += 1;
    }
    let elapsed = ticks() - start;
    let apic_elapsed = countdown.elapsed();
    outb(0x61, gate);
    (elapsed, apic_elapsed)
}
