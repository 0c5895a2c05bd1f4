//! Per-CPU data, as FreeBSD's pcpu(9) family has them.

pub mod descriptor;
pub mod header;
mod table;

pub use self::table::CpuGroup;
