//! What `pcustat` shows of all CPUs, for whoever shows it: a sample, the rates between two of them, and a page of text that fits a
//! terminal; and what commands say of a wrong command line.

mod layout;
mod page;
mod sample;
mod usage;

pub use self::layout::{Column, Layout};
pub use self::page::Page;
pub use self::sample::{Before, Cpu, Sample, Unit, lwp_name, per_second, rate};
pub use self::usage::usage_error;
