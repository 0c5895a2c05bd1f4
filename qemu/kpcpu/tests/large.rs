//! A dump of 8 GiB opens in constant memory. Alone in its program, since what is measured is the program's.

#![cfg(not(target_os = "none"))]

mod image;

use image::{Image, Options, Page};

#[test]
fn a_dump_of_8_gib_opens_in_constant_memory() {
    const GIB: u64 = 1 << 30;
    let options = Options {
        areas: 8 * GIB,
        page: Page::Large,
        ram: vec![(0, 3 * GIB), (4 * GIB, 5 * GIB)],
        ..Options::default()
    };
    let kernel = Image::new(options).open().expect("it opens");
    let base = kernel.counter("PACKETS").expect("a counter");
    assert_eq!(kernel.counter_u64_fetch(base).expect("sum"), 3005);
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = peak
        .and_then(|text| text.trim().strip_suffix(" kB"))
        .and_then(|text| text.parse().ok())
        .expect("a number");
    assert!(kib < 64 << 10, "{kib} KiB");
}
