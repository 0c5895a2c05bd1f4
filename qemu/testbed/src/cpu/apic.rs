//! The local APIC in xAPIC mode: timer, interrupts to other CPUs, end of interrupt.
//!
//! Intel SDM, volume 3A, chapter "Advanced Programmable Interrupt Controller (APIC)".

use core::sync::atomic::{AtomicU32, Ordering};

use x86_64::registers::model_specific::Msr;

use crate::memory::direct_map;
use crate::serial::outb;

/// Interrupt vectors of this kernel.
pub(super) const VECTOR_TIMER: u64 = 0x30;
pub(super) const VECTOR_RESCHEDULE: u64 = 0x31;
pub(super) const VECTOR_CROSS_CALL: u64 = 0x32;
pub(super) const VECTOR_SPURIOUS: u64 = 0xff;

const IA32_APIC_BASE: u32 = 0x1b;
const APIC_BASE_X2APIC: u64 = 1 << 10;
const APIC_BASE_ENABLE: u64 = 1 << 11;

/// Registers, by their offset.
const ID: u64 = 0x20;
const END_OF_INTERRUPT: u64 = 0xb0;
const SPURIOUS: u64 = 0xf0;
const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;
const LVT_TIMER: u64 = 0x320;
const TIMER_INITIAL: u64 = 0x380;
const TIMER_CURRENT: u64 = 0x390;
const TIMER_DIVIDE: u64 = 0x3e0;

/// Interrupt command: the message has not been sent yet.
const SEND_PENDING: u32 = 1 << 12;
const COMMAND_NMI: u32 = 0x4400;
const COMMAND_INIT: u32 = 0x4500;
const COMMAND_STARTUP: u32 = 0x4600;
const COMMAND_FIXED: u32 = 0x4000;
const ALL_BUT_SELF: u32 = 0x000c_0000;

const TIMER_MASKED: u32 = 1 << 16;
const TIMER_PERIODIC: u32 = 1 << 17;
const TIMER_BY_1: u32 = 0b1011;
/// The time between two ticks.
const TICK_MS: u64 = 2;

/// Counts of the timer between two ticks. Its clock differs widely: QEMU's counts nanoseconds (`hw/intc/apic.c`), Bochs' the
/// instructions of one CPU.
static TICK_COUNT: AtomicU32 = AtomicU32::new(2_000_000);

fn register(offset: u64) -> *mut u32 {
    /// Where the local APIC lies after reset.
    const BASE: u64 = 0xfee0_0000;
    direct_map(BASE + offset)
}

fn read(offset: u64) -> u32 {
    // SAFETY: the direct map covers the APIC's page, uncached, and reading these registers changes nothing.
    unsafe { register(offset).read_volatile() }
}

fn write(offset: u64, value: u32) {
    // SAFETY: the direct map covers the APIC's page, uncached; the constants above name registers of this CPU's own APIC,
    // which touch no memory.
    unsafe { register(offset).write_volatile(value) };
}

/// The id of this CPU's APIC.
pub(crate) fn own_id() -> u8 {
    (read(ID) >> 24) as u8
}

/// Masks the two 8259 interrupt controllers, after moving their vectors away from the exceptions.
pub(super) fn mask_legacy() {
    for (port, value) in [
        (0x20, 0x11),
        (0xa0, 0x11),
        (0x21, 0x20),
        (0xa1, 0x28),
        (0x21, 4),
        (0xa1, 2),
        (0x21, 1),
        (0xa1, 1),
        (0x21, 0xff),
        (0xa1, 0xff),
    ] {
        outb(port, value);
    }
}

/// Turns this CPU's APIC on.
///
/// # Panics
///
/// When the firmware left it in x2APIC mode, which this kernel does not use.
pub(super) fn init() {
    let mut base = Msr::new(IA32_APIC_BASE);
    // SAFETY: every x86-64 CPU has this register.
    let value = unsafe { base.read() };
    assert!(
        value & APIC_BASE_X2APIC == 0,
        "the local APIC is in x2APIC mode"
    );
    // SAFETY: the address stays as it is; the APIC may be turned on at any time.
    unsafe { base.write(value | APIC_BASE_ENABLE) };
    write(SPURIOUS, 0x100 | VECTOR_SPURIOUS as u32);
}

/// Starts this CPU's periodic timer.
pub(crate) fn start_timer() {
    write(TIMER_DIVIDE, TIMER_BY_1);
    write(LVT_TIMER, TIMER_PERIODIC | VECTOR_TIMER as u32);
    write(TIMER_INITIAL, TICK_COUNT.load(Ordering::Relaxed));
}

/// Sets how fast the timer counts.
pub(super) fn set_counts_per_ms(counts: u64) {
    let count = u32::try_from(counts * TICK_MS).unwrap_or(u32::MAX);
    TICK_COUNT.store(count.max(1000), Ordering::Relaxed);
}

/// The timer while it counts down, with nobody to interrupt.
pub(super) struct Countdown {
    from: u32,
}

impl Countdown {
    /// Starts it; this CPU's timer is not in use.
    pub(super) fn start() -> Self {
        write(TIMER_DIVIDE, TIMER_BY_1);
        write(LVT_TIMER, TIMER_MASKED);
        let from = u32::MAX;
        write(TIMER_INITIAL, from);
        Self { from }
    }

    /// How far it has come; the timer stops.
    pub(super) fn elapsed(self) -> u64 {
        let elapsed = self.from - read(TIMER_CURRENT);
        write(TIMER_INITIAL, 0);
        u64::from(elapsed)
    }
}

/// Says that an interrupt is being served.
pub(super) fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

/// Sends a command; interrupts must be off, or another sender on this CPU could mix the two halves.
fn command(apic_id: u32, low: u32) {
    while read(COMMAND_LOW) & SEND_PENDING != 0 {}
    write(COMMAND_HIGH, apic_id << 24);
    write(COMMAND_LOW, low);
}

/// Sends `vector` to a CPU.
pub(super) fn send(apic_id: u32, vector: u64) {
    let _off = crate::lock::InterruptsOff::new();
    command(apic_id, COMMAND_FIXED | vector as u32);
}

/// Sends INIT, the first step of the start of a CPU.
pub(super) fn send_init(apic_id: u32) {
    let _off = crate::lock::InterruptsOff::new();
    command(apic_id, COMMAND_INIT);
}

/// Sends STARTUP: the CPU begins in real mode at the page `page`.
pub(super) fn send_startup(apic_id: u32, page: u8) {
    let _off = crate::lock::InterruptsOff::new();
    command(apic_id, COMMAND_STARTUP | u32::from(page));
}

/// Sends an NMI to every other CPU.
pub(super) fn send_nmi_to_others() {
    command(0, ALL_BUT_SELF | COMMAND_NMI);
}

/// Sends an NMI to one CPU, the own one too.
pub(crate) fn send_nmi(apic_id: u32) {
    let _off = crate::lock::InterruptsOff::new();
    command(apic_id, COMMAND_NMI);
}

/// Asks a CPU to look for another LWP.
pub(crate) fn send_reschedule(apic_id: u32) {
    send(apic_id, VECTOR_RESCHEDULE);
}
