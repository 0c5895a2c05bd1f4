//! The notes by which the header is found: one in the kernel's file, one that a dump of the machine brings with it.

use core::mem::offset_of;
use core::ptr::from_ref;

use static_assertions::const_assert_eq;

use super::{Header, VERSION};

/// The owner's name in both notes, filled up to a multiple of 4.
const NAME: [u8; 8] = *b"pcu9\0\0\0\0";

/// The ELF note that names the header: type 1, name `pcu9`, 36 bytes in all.
///
/// | at | bytes | field |
/// |---|---|---|
/// | 0 | 4 | `n_namesz`: 5 |
/// | 4 | 4 | `n_descsz`: 16 |
/// | 8 | 4 | `n_type`: 1 |
/// | 12 | 8 | name: `pcu9`, filled up with 0 |
/// | 20 | 4 | the header's version |
/// | 24 | 4 | the header's size |
/// | 28 | 8 | its address, as linked |
#[derive(Debug)]
#[repr(C, packed(4))]
pub struct Note {
    name_bytes: u32,
    descriptor_bytes: u32,
    kind: u32,
    name: [u8; 8],
    version: u32,
    header_bytes: u32,
    header: *const Header,
}

/// A copy of the header as an ELF note: type 2, name `pcu9`, 404 bytes in all. A kernel hands it to whoever makes dumps of the
/// machine, as QEMU's vmcoreinfo device, so that a dump is read without the kernel's file, or with one that was stripped.
///
/// | at | bytes | field |
/// |---|---|---|
/// | 0 | 4 | `n_namesz`: 5 |
/// | 4 | 4 | `n_descsz`: 384 |
/// | 8 | 4 | `n_type`: 2 |
/// | 12 | 8 | name: `pcu9`, filled up with 0 |
/// | 20 | 384 | the header, as it was when the copy was made |
#[derive(Debug)]
#[repr(C)]
pub struct HeaderNote {
    name_bytes: u32,
    descriptor_bytes: u32,
    kind: u32,
    name: [u8; 8],
    header: [u8; HEADER_BYTES],
}

const HEADER_BYTES: usize = size_of::<Header>();

impl HeaderNote {
    /// Copies the header, once the kernel has said in it what it has to say: where it is, and how addresses are translated.
    ///
    /// # Safety
    ///
    /// Nobody changes the header meanwhile: no CPU is added or changes its state, and the kernel calls none of its setters.
    pub unsafe fn of(header: &Header) -> Self {
        let bytes = from_ref(header).cast::<[u8; HEADER_BYTES]>();
        Self {
            name_bytes: 5,
            #[expect(clippy::cast_possible_truncation, reason = "384")]
            descriptor_bytes: HEADER_BYTES as u32,
            kind: 2,
            name: NAME,
            // SAFETY: a header is that many bytes without padding, as its layout's assertions say; the caller promises that no atomic
            // in it is written meanwhile.
            header: unsafe { bytes.read() },
        }
    }
}

impl Note {
    /// The note for the header at `header`.
    pub const fn new(header: *const Header) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "384")]
        Self {
            name_bytes: 5,
            descriptor_bytes: 16,
            kind: 1,
            name: NAME,
            version: VERSION,
            header_bytes: size_of::<Header>() as u32,
            header,
        }
    }
}

// SAFETY: never changed; the pointer is not followed.
unsafe impl Sync for Note {}

assert_offsets!(Note {
    name_bytes: 0,
    descriptor_bytes: 4,
    kind: 8,
    name: 12,
    version: 20,
    header_bytes: 24,
    header: 28,
} 36);
assert_offsets!(HeaderNote {
    name_bytes: 0,
    descriptor_bytes: 4,
    kind: 8,
    name: 12,
    header: 20,
} 404);
