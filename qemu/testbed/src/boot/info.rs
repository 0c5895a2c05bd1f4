//! What a loader tells the kernel, in one form for both loaders.

use spin::Once;

use super::acpi::RootTable;
use crate::memory::{direct_map, read_phys};

/// The longest command line that is kept.
const COMMAND_LINE_BYTES: usize = 1024;
/// More ranges of usable memory than any machine reports here.
const MAX_RANGES: usize = 32;

/// A range of physical addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PhysRange {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// The loader's report.
#[derive(Debug)]
pub(crate) struct BootInfo {
    command_line: [u8; COMMAND_LINE_BYTES],
    command_line_len: usize,
    ranges: [PhysRange; MAX_RANGES],
    n_ranges: usize,
    /// The archive, when there is one.
    pub(crate) module: Option<PhysRange>,
    /// ACPI's root table, when the loader says where its pointer lies. Multiboot2 has a copy of the pointer among the tags, in
    /// memory that is free once they are read.
    pub(super) acpi: Option<RootTable>,
}

static INFO: Once<BootInfo> = Once::new();

impl BootInfo {
    /// Makes an empty report.
    pub(super) const fn new() -> Self {
        Self {
            command_line: [0; COMMAND_LINE_BYTES],
            command_line_len: 0,
            ranges: [PhysRange { start: 0, end: 0 }; MAX_RANGES],
            n_ranges: 0,
            module: None,
            acpi: None,
        }
    }

    /// Keeps the report for the rest of the run.
    pub(super) fn keep(info: Self) -> &'static Self {
        INFO.call_once(|| info)
    }

    /// Copies the zero-terminated command line at physical address `at`; what is too long is cut.
    pub(super) fn set_command_line(&mut self, at: u64) {
        self.command_line_len = 0;
        for (place, from) in self.command_line.iter_mut().zip(at..) {
            *place = read_phys::<u8>(from);
            if *place == 0 {
                break;
            }
            self.command_line_len += 1;
        }
    }

    /// Adds a range of usable memory; the list stays sorted.
    pub(super) fn add_usable(&mut self, range: PhysRange) {
        if range.start >= range.end || self.n_ranges == MAX_RANGES {
            return;
        }
        self.ranges[self.n_ranges] = range;
        self.n_ranges += 1;
        self.ranges[..self.n_ranges].sort_unstable_by_key(|range| range.start);
    }

    /// The usable memory, lowest first.
    pub(crate) fn usable(&self) -> &[PhysRange] {
        &self.ranges[..self.n_ranges]
    }

    /// The bytes of the archive, when one was given.
    pub(crate) fn module_bytes(&self) -> Option<&'static [u8]> {
        self.module.map(|range| {
            let len = usize::try_from(range.end - range.start).unwrap_or(0);
            // SAFETY: the loader put the module there, the direct map covers all memory, and the frame allocator never
            // hands these frames out: nothing writes to them.
            unsafe { core::slice::from_raw_parts(direct_map::<u8>(range.start).cast_const(), len) }
        })
    }
}

/// The report of this boot.
pub(crate) fn get() -> &'static BootInfo {
    INFO.get()
        .expect("the loader's report is read before anything asks for it")
}

/// The kernel's command line as the loader gave it.
pub fn command_line() -> &'static str {
    let info = get();
    core::str::from_utf8(&info.command_line[..info.command_line_len]).unwrap_or("")
}

/// The value of `key=value` on the command line; the last one counts.
pub fn option(key: &str) -> Option<&'static str> {
    command_line()
        .split_ascii_whitespace()
        .filter_map(|word| word.split_once('='))
        .rfind(|(name, _)| *name == key)
        .map(|(_, value)| value)
}

/// The number that `key=number` gives.
///
/// # Panics
///
/// When the value is there and is not a number.
pub fn option_number(key: &str) -> Option<u64> {
    option(key).map(|value| {
        value
            .parse()
            .unwrap_or_else(|_| panic!("{key}={value} on the command line: not a number"))
    })
}
