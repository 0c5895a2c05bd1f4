//! The exceptions that the modelled instructions raise.

use std::fmt;

/// An exception. Where an instruction of [`Machine`](pcu9::x86_64::machine::Machine) has no result to report it by, it is the
/// payload of a panic: no handler of this kernel was meant to see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// `#UD`: the processor does not have the instruction, or `CR4`, `CR0.EM` or `XCR0` does not allow it.
    InvalidOpcode,
    /// `#NM`: `CR0.TS` is set, or `IA32_XFD` arms a component that would be used.
    DeviceNotAvailable,
    /// `#GP`, and what was wrong.
    GeneralProtection(&'static str),
    /// `#PF` at this address.
    Page(usize),
    /// `#MF`: an x87 exception was pending.
    Math,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidOpcode => f.write_str("#UD"),
            Self::DeviceNotAvailable => f.write_str("#NM"),
            Self::GeneralProtection(what) => write!(f, "#GP: {what}"),
            Self::Page(address) => write!(f, "#PF at {address:#x}"),
            Self::Math => f.write_str("#MF"),
        }
    }
}

impl std::error::Error for Fault {}
