//! The reader on damaged dumps and kernels. An input is a kind and either changes to a good dump or a whole file.
//!
//! Kind 0: a dump. Kind 1: a kernel's file. Any other: changes, each a place (3 bytes), a length (1 byte, below 16), and bytes.

#![no_main]

#[path = "../../../kpcpu/tests/image/mod.rs"]
mod image;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

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

thread_local! {
    /// The good dump, which is changed and put right again: a copy for each execution would take as long as the questions.
    static CHANGED: RefCell<Arc<[u8]>> = RefCell::new(GOOD.1.as_slice().into());
}

fuzz_target!(|data: &[u8]| {
    let (kernel, dump) = &*GOOD;
    match data.split_first() {
        None => {}
        Some((0, dump)) => questions::ask_of(kernel.clone(), dump),
        Some((1, kernel)) => {
            CHANGED.with_borrow(|dump| questions::ask_everything(kernel, Arc::clone(dump)))
        }
        Some((_, changes)) => CHANGED.with_borrow_mut(|changed| {
            let places = change(alone(changed), changes);
            questions::ask_of(kernel.clone(), Arc::clone(changed));
            for place in places {
                alone(changed)[place.clone()].copy_from_slice(&dump[place]);
            }
        }),
    }
});

fn alone(shared: &mut Arc<[u8]>) -> &mut [u8] {
    Arc::get_mut(shared).expect("nobody keeps a dump")
}

/// Makes the changes, and gives their places.
fn change(bytes: &mut [u8], mut changes: &[u8]) -> Vec<Range<usize>> {
    let mut places = Vec::new();
    while let [a, b, c, length, rest @ ..] = changes {
        let at = u32::from_le_bytes([*a, *b, *c, 0]) as usize % bytes.len();
        let n = usize::from(length % 16)
            .min(rest.len())
            .min(bytes.len() - at);
        bytes[at..at + n].copy_from_slice(&rest[..n]);
        places.push(at..at + n);
        changes = &rest[n..];
    }
    places
}
