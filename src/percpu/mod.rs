//! Per-CPU data, as FreeBSD's pcpu(9) family has them.

mod access;
mod counter;
mod describe;
pub mod descriptor;
mod dpcpu;
mod error;
pub mod header;
mod pcpu;
mod registry;
mod table;
mod zpcpu;

pub use self::access::{Number, Pinned, Symbol, ThisCpu, Word, Zeroable};
pub use self::counter::CounterU64;
pub use self::describe::Translation;
pub use self::dpcpu::Dpcpu;
pub use self::error::{CpuError, InitError, NoRoom};
pub(crate) use self::pcpu::OFFSET;
pub use self::pcpu::{CpuState, Pcpu};
pub use self::registry::{AREA_ALIGN, Percpu, Tables};
pub use self::table::CpuGroup;
pub use self::zpcpu::Zpcpu;
