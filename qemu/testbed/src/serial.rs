//! Text to the outside: COM1, polled, one whole line at a time; in Bochs the port 0xE9 as well.
//!
//! The lines that begin with `@`, and those of boot tests, are read by the runner; the rest is for people.
//! Registers: PC16550D data sheet, section "Registers". The port 0xE9: Bochs User Manual, section "The configuration file
//! bochsrc", `port_e9_hack`: it reads as its own number, and what is written to it goes to Bochs' standard output.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use x86_64::instructions::port::Port;

use crate::lock::IrqLock;

const COM1: u16 = 0x3f8;
/// Line status: the transmitter holding register is empty.
const THR_EMPTY: u8 = 1 << 5;

const E9: u16 = 0xe9;
/// What the runner looks for between Bochs' own words: the kernel's lines come after it.
const E9_BEGINS: &str = "\n@e9 begins\n";

static HAS_E9: AtomicBool = AtomicBool::new(false);

#[derive(Debug)]
struct Serial(());

static SERIAL: IrqLock<Serial> = IrqLock::new(Serial(()));

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while inb(COM1 + 5) & THR_EMPTY == 0 {}
            outb(COM1, byte);
        }
        write_e9(text);
        Ok(())
    }
}

/// Writes to a port of this serial line or of a device that the kernel owns.
pub(crate) fn outb(port: u16, value: u8) {
    // SAFETY: the callers name ports of the PC's serial line, timer and interrupt controllers, whose registers do not
    // touch memory.
    unsafe { Port::new(port).write(value) };
}

/// Reads such a port.
pub(crate) fn inb(port: u16) -> u8 {
    // SAFETY: as for `outb`.
    unsafe { Port::new(port).read() }
}

/// Whether there is a port 0xE9 that writes: the kernel runs in Bochs.
pub fn has_e9() -> bool {
    HAS_E9.load(Ordering::Relaxed)
}

/// Writes to the port 0xE9 alone, where there is one.
pub(crate) fn write_e9(text: &str) {
    if has_e9() {
        text.bytes().for_each(|byte| outb(E9, byte));
    }
}

/// Sets the line up: 115200 baud, 8 bits, no parity, no interrupts; and finds the port 0xE9.
pub(crate) fn init() {
    for (register, value) in [
        (1, 0),
        (3, 0x80),
        (0, 1),
        (1, 0),
        (3, 0x03),
        (2, 0xc7),
        (4, 0x03),
    ] {
        outb(COM1 + register, value);
    }
    HAS_E9.store(inb(E9) == E9.to_le_bytes()[0], Ordering::Relaxed);
    write_e9(E9_BEGINS);
}

/// Writes one line; [`line!`](crate::line) calls it.
#[doc(hidden)]
pub fn write_line(args: fmt::Arguments<'_>) {
    let mut serial = SERIAL.lock();
    // Nothing can be done about a failure, and the port has none.
    let _ = serial.write_fmt(args);
    let _ = serial.write_str("\n");
}

/// Writes one line from a panic: waits for the lock for a while only, since its holder may be what failed.
pub(crate) fn write_line_forced(args: fmt::Arguments<'_>) {
    let guard = (0..10_000_000).find_map(|_| SERIAL.try_lock());
    let mut serial = Serial(());
    let _ = serial.write_fmt(format_args!(
        "{}{args}\n",
        if guard.is_some() { "" } else { "\n" }
    ));
}

/// Writes a line to the serial port, whole.
#[macro_export]
macro_rules! line {
    ($($arg:tt)*) => { $crate::serial::write_line(format_args!($($arg)*)) };
}
