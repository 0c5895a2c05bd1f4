//! A list of LWPs that never ends and never repeats: the reader gives up. Alone in its program, since it takes some seconds.

#![cfg(not(target_os = "none"))]

mod image;

use std::io;

use image::{Image, LIST, LWP_BYTES, Options, Page};
use pcu9_kpcpu::{Dump, Error, KernelFile, Kpcpu, PhysicalMemory};

/// Where the list is: the CPUs' areas are mapped by one page of 1 GiB, which has room for 16 million LWPs.
const FIRST: u64 = 1 << 20;

/// An image in whose memory, from [`FIRST`] on, each LWP leads to the one behind it.
#[derive(Debug)]
struct Endless {
    image: Dump,
    direct_map: u64,
}

impl PhysicalMemory for Endless {
    fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if address < FIRST {
            return self.image.read(address, buffer);
        }
        buffer.fill(0);
        if let Some(next) = buffer
            .get_mut(..8)
            .filter(|_| address.is_multiple_of(LWP_BYTES))
        {
            next.copy_from_slice(&(self.direct_map + address + LWP_BYTES).to_le_bytes());
        }
        Ok(buffer.len())
    }
}

#[test]
fn a_list_of_lwps_that_never_ends_is_given_up() {
    let mut image = Image::new(Options {
        page: Page::Huge,
        ..Options::default()
    });
    let direct_map = image.direct_map();
    image.put_u64s(LIST, &[direct_map + FIRST]);
    let memory = Endless {
        image: Dump::from_bytes(image.bytes()).expect("a dump"),
        direct_map,
    };
    let file = KernelFile::parse(&image.kernel).expect("a kernel");
    let kernel = Kpcpu::with_memory(file, Box::new(memory), Vec::new()).expect("it opens");
    let error = kernel.lwps().expect_err("it never ends");
    assert!(
        matches!(error, Error::TooMany(n) if n == 1 << 20),
        "{error}"
    );
    assert_eq!(
        error.to_string(),
        "the list of LWPs has more than 1048576 entries: it is damaged"
    );
}
