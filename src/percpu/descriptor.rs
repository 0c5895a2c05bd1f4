//! What the header says of single things: each variable, counter and field has a [`Descriptor`] with its name.
//!
//! Descriptors stand in a linker set of their own, `set_pcu9_desc`; the macros put them there.

use core::fmt;

/// A piece of constant UTF-8.
///
/// | at | bytes | field |
/// |---|---|---|
/// | 0 | 8 | address of the first byte |
/// | 8 | 8 | number of bytes; no terminator |
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Text {
    pub(super) at: *const u8,
    pub(super) bytes: usize,
}

/// What a [`Descriptor`] describes, and so what its `at` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A variable of `dpcpu!`: `at` is its name, `type_name` its type as the source has it.
    Variable = 1,
    /// A counter that is a variable: `at` is its name, 8 bytes of it are summed.
    Counter = 2,
    /// A kernel variable at the address `at` whose first 8 bytes are the name of a counter; 0: not allocated yet.
    CounterHandle = 3,
    /// A field of the block, the kernel's own part: `at` is the offset in the block.
    PcpuField = 5,
    /// A field of the kernel's LWP: `at` is the offset in an LWP.
    LwpField = 6,
}

/// One entry of the header's table.
///
/// | at | bytes | field |
/// |---|---|---|
/// | 0 | 16 | [`Text`]: the name, with the path of its module: `kernel::net::PACKETS` |
/// | 16 | 16 | [`Text`]: the type as the source has it: `u64` |
/// | 32 | 8 | `at`: see [`Kind`] |
/// | 40 | 8 | bytes of one CPU's copy |
/// | 48 | 4 | [`Kind`]; skip the numbers that you do not know |
/// | 52 | 4 | alignment |
/// | 56 | 8 | reserved, 0 |
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Descriptor {
    pub(super) name: Text,
    pub(super) type_name: Text,
    pub(super) at: *const u8,
    pub(super) bytes: usize,
    pub(super) kind: u32,
    pub(super) align: u32,
    pub(super) reserved: u64,
}

impl Text {
    pub(super) const fn new(text: &'static str) -> Self {
        Self {
            at: text.as_ptr(),
            bytes: text.len(),
        }
    }

    fn get(self) -> &'static str {
        // SAFETY: made from a `&'static str` by `new`, the only way to make one.
        let bytes = unsafe { core::slice::from_raw_parts(self.at, self.bytes) };
        // SAFETY: as above.
        unsafe { core::str::from_utf8_unchecked(bytes) }
    }
}

impl Descriptor {
    #[doc(hidden)]
    #[expect(clippy::cast_possible_truncation, reason = "alignments are small")]
    pub const fn new<T>(
        kind: Kind,
        name: &'static str,
        type_name: &'static str,
        at: *const u8,
    ) -> Self {
        Self {
            name: Text::new(name),
            type_name: Text::new(type_name),
            at,
            bytes: size_of::<T>(),
            kind: kind as u32,
            align: align_of::<T>() as u32,
            reserved: 0,
        }
    }

    /// Is it a copy for each CPU, made by [`dpcpu!`](crate::dpcpu)?
    pub(super) fn is_dpcpu(&self) -> bool {
        self.kind == Kind::Variable as u32 || self.kind == Kind::Counter as u32
    }

    /// The name, with the path of its module.
    pub fn name(&self) -> &'static str {
        self.name.get()
    }
}

// SAFETY: constant, and its pointers are to constants or are never followed.
unsafe impl Sync for Descriptor {}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptor")
            .field("name", &self.name)
            .field("type_name", &self.type_name)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}
