//! The stack that a program finds: argument count, arguments, environment and auxiliary vector.
//!
//! System V Application Binary Interface, AMD64 Architecture Processor Supplement, section "Process Initialization";
//! the auxiliary vector's numbers: Linux, `include/uapi/linux/auxvec.h`.

use alloc::vec::Vec;

use super::elf::Program;
use super::space::{Access, Space};
use crate::memory::{PAGE_BYTES, USER_END};

/// 512 KiB.
const STACK_BYTES: u64 = 512 << 10;
/// A page below the end stays unmapped.
const STACK_TOP: u64 = USER_END - PAGE_BYTES;

const AT_NULL: u64 = 0;
const AT_PHDR: u64 = 3;
const AT_PHENT: u64 = 4;
const AT_PHNUM: u64 = 5;
const AT_PAGESZ: u64 = 6;
const AT_BASE: u64 = 7;
const AT_FLAGS: u64 = 8;
const AT_ENTRY: u64 = 9;
const AT_UID: u64 = 11;
const AT_EUID: u64 = 12;
const AT_GID: u64 = 13;
const AT_EGID: u64 = 14;
const AT_CLKTCK: u64 = 17;
const AT_SECURE: u64 = 23;
const AT_RANDOM: u64 = 25;
const AT_EXECFN: u64 = 31;

/// What a program is told.
#[derive(Debug)]
pub(super) struct Words {
    /// Where it was found.
    pub(super) path: Vec<u8>,
    pub(super) arguments: Vec<Vec<u8>>,
    pub(super) environment: Vec<Vec<u8>>,
}

impl Words {
    /// Arguments that begin with the program's name, which is its path, and no environment.
    pub(super) fn of(arguments: &[&str]) -> Self {
        let bytes = |text: &&str| Vec::from(text.as_bytes());
        Self {
            path: arguments.first().map(bytes).unwrap_or_default(),
            arguments: arguments.iter().map(bytes).collect(),
            environment: Vec::new(),
        }
    }
}

/// Maps the stack and fills it; the stack pointer to start with.
pub(super) fn build(space: &mut Space, program: &Program, words: &Words) -> Option<u64> {
    space.map_range(STACK_TOP - STACK_BYTES, STACK_TOP, Access::ReadWrite)?;

    let mut end = STACK_TOP - 16;
    let mut put = |space: &mut Space, string: &Vec<u8>| {
        end -= string.len() as u64 + 1;
        space.fill(end, string)?;
        Some(end)
    };
    let path_at = put(space, &words.path)?;
    let mut lists = Vec::from([words.arguments.len() as u64]);
    for list in [&words.arguments, &words.environment] {
        for string in list {
            lists.push(put(space, string)?);
        }
        lists.push(0);
    }
    let random_at = (end - 16) & !15;
    space.fill(
        random_at,
        &[
            0x9e, 0x37, 0x79, 0xb9, 0x7f, 0x4a, 0x7c, 0x15, 0xf3, 0x9c, 0xc0, 0x60, 0x5c, 0xed,
            0xc8, 0x34,
        ],
    )?;

    let mut words = lists;
    for (kind, value) in [
        (AT_PHDR, program.headers),
        (AT_PHENT, program.header_bytes),
        (AT_PHNUM, program.n_headers),
        (AT_PAGESZ, PAGE_BYTES),
        (AT_BASE, 0),
        (AT_FLAGS, 0),
        (AT_ENTRY, program.entry),
        (AT_UID, 0),
        (AT_EUID, 0),
        (AT_GID, 0),
        (AT_EGID, 0),
        (AT_CLKTCK, 100),
        (AT_SECURE, 0),
        (AT_RANDOM, random_at),
        (AT_EXECFN, path_at),
        (AT_NULL, 0),
    ] {
        words.extend([kind, value]);
    }
    let rsp = (random_at - words.len() as u64 * 8) & !15;
    for (place, word) in (rsp..).step_by(8).zip(words) {
        space.fill(place, &u64::to_le_bytes(word))?;
    }
    Some(rsp)
}
