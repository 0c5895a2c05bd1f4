//! The reader on damaged dumps and kernels. An input is a kind and either changes to a good dump or a whole file.
//!
//! Kind 0: a dump. Kind 1: a kernel's file. Any other: changes, each a place (3 bytes), a length (1 byte, below 16), and bytes.

#![no_main]

#[path = "../../../tests/image/mod.rs"]
mod image;

use std::sync::LazyLock;

use image::{Image, Options, questions};
use libfuzzer_sys::fuzz_target;
use pcu9_kpcpu::KernelFile;

/// A good kernel and a good dump.
static GOOD: LazyLock<(KernelFile, Vec<u8>)> = LazyLock::new(|| {
    let image = Image::new(Options {
        areas: 0x18_000,
        ram: vec![(0, 0x19_000)],
        ..Options::default()
    });
    let kernel = KernelFile::parse(&image.kernel).expect("a good kernel");
    (kernel, image.bytes())
});

fuzz_target!(|data: &[u8]| {
    let (kernel, dump) = &*GOOD;
    match data.split_first() {
        None => {}
        Some((0, dump)) => questions::ask_of(kernel.clone(), dump),
        Some((1, kernel)) => questions::ask_everything(kernel, dump),
        Some((_, changes)) => questions::ask_of(kernel.clone(), &changed(dump, changes)),
    }
});

fn changed(good: &[u8], mut changes: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    while let [a, b, c, length, rest @ ..] = changes {
        let at = u32::from_le_bytes([*a, *b, *c, 0]) as usize % bytes.len();
        let n = usize::from(length % 16)
            .min(rest.len())
            .min(bytes.len() - at);
        bytes[at..at + n].copy_from_slice(&rest[..n]);
        changes = &rest[n..];
    }
    bytes
}
