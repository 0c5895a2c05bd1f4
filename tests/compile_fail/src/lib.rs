//! Misuse of `pcu9`'s tokens, one file each in `misuse/`, and beside it what the compiler says: see `tests/messages.rs`.
#![no_std]
